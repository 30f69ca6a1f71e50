//! A step of a serving loop from whatever map runs: few moves, bounded.

use std::cmp::Reverse;

use eplb_wgpu::{Cluster, Duplicates, Error, Loads, MoveLimits, Placement, PlanOptions, Planner, check};

use crate::loads::{fixed, select};
use crate::options::{most_moves, with_most_moves};
use crate::plan::Moved;
use crate::previous::{Layer, fit, in_place, received};

/// What a step comes to.
pub struct Step {
    /// The map to run next.
    pub placement: Placement,
    /// What it moves.
    pub moved: Moved,
    /// Layers with groups across nodes that a later step will bring together.
    pub waiting: usize,
    /// Balancedness with the map as it was (mended where that had to be), and after.
    pub before: f64,
    pub after: f64,
    /// The device, and what there is to know.
    pub device: String,
    pub warnings: Vec<String>,
}

/// Plans from `map`, `[layers][columns]` of any ids.
///
/// Slots that are new or hold no expert, and experts without a replica, are filled whatever that moves. Layers with
/// groups across nodes are brought together one after the other, the least balanced first: as many as half of the
/// allowed moves bring together, and at least one. The others wait, balanced as they are, which every engine serves.
/// The rest of the moves goes to balance, to layers that wait and layers that do not by their number.
pub fn step(
    planner: &Planner,
    loads: &Loads,
    cluster: &Cluster,
    (map, columns): (&[i64], usize),
    options: &PlanOptions,
    limits: &MoveLimits,
) -> Result<Step, Error> {
    let slots = cluster.num_slots();
    let flat = Cluster::with_slots_per_gpu(
        cluster.num_replicas(),
        1,
        1,
        cluster.num_gpus(),
        cluster.slots_per_gpu(),
    )?;
    let avoid = options.duplicates == Duplicates::Avoid;
    let mut layers = fit(loads, cluster, map, columns, avoid);
    let mut budget = most_moves(limits, slots * loads.layers());
    let waiting = if layers.iter().any(|layer| layer.apart) {
        let as_is = fit(loads, &flat, map, columns, avoid);
        bring_together(loads, cluster, &mut layers, as_is, &mut budget)
    } else {
        Vec::new()
    };
    let ready: Vec<usize> = (0..layers.len()).filter(|at| !waiting.contains(at)).collect();
    let rows: Vec<i32> = layers.iter().flat_map(|layer| &layer.row).copied().collect();
    let mut out = Step {
        before: check::score(loads, &flat, &rows)?.balancedness(),
        after: 0.0,
        placement: Placement::new(loads.experts(), slots, rows)?,
        moved: Moved {
            repairs: layers.iter().map(|layer| layer.repairs(cluster)).collect(),
            lost: lost(&layers),
            ..Moved::default()
        },
        waiting: waiting.len(),
        device: planner.device().name.clone(),
        warnings: Vec::new(),
    };
    let share = budget.map(|budget| budget * waiting.len() / layers.len().max(1));
    let start = out.placement.clone();
    let mut rows = start.physical_to_logical().to_vec();
    for (cluster, part) in [(&flat, &waiting), (cluster, &ready)] {
        let allowed = if std::ptr::eq(part, &waiting) { share } else { budget };
        let limits = with_most_moves(limits, allowed);
        if part.is_empty() {
            continue;
        }
        let chosen = select(loads, part)?;
        let from = part.iter().flat_map(|&at| &rows[at * slots..(at + 1) * slots]).copied().collect();
        let from = Placement::new(loads.experts(), slots, from)?;
        let replan = planner.replan(&chosen, cluster, &from, options, &limits)?;
        budget = budget.map(|budget| budget.saturating_sub(replan.moves().received));
        for (&at, new) in part.iter().zip(replan.plan().placement().physical_to_logical().chunks_exact(slots))
        {
            let row = in_place(&layers[at].old, new, cluster.slots_per_gpu());
            rows[at * slots..(at + 1) * slots].copy_from_slice(&row);
        }
        out.moved.order.extend(replan.layers_to_move().into_iter().map(|at| part[at]));
        out.device = replan.plan().device().to_string();
        out.warnings.extend_from_slice(replan.plan().warnings());
    }
    let moved = layers.iter().zip(rows.chunks_exact(slots));
    out.moved.received = moved.map(|(layer, row)| received(cluster, &layer.old, row)).collect();
    out.after = check::score(loads, &flat, &rows)?.balancedness();
    out.placement = Placement::new(loads.experts(), slots, rows)?;
    Ok(out)
}

/// Brings groups together in as many layers as half of the budget allows, and takes from it what that moves. The
/// layers that wait get the row of `as_is`, mended but for their groups.
fn bring_together(
    loads: &Loads,
    cluster: &Cluster,
    layers: &mut [Layer],
    as_is: Vec<Layer>,
    budget: &mut Option<usize>,
) -> Vec<usize> {
    let mut apart: Vec<(u64, usize)> = (0..layers.len())
        .filter(|&at| layers[at].apart)
        .map(|at| (heaviest(&as_is[at].row, loads, at, cluster), at))
        .collect();
    apart.sort_by_key(|&(load, at)| (Reverse(load), at));
    let most = budget.map(|budget| budget / 2);
    let (mut spent, mut waiting) = (0, Vec::new());
    for (load, at) in apart {
        let cost = layers[at].repairs(cluster).saturating_sub(as_is[at].repairs(cluster));
        let fits = most.is_none_or(|most| spent + cost <= most || (spent == 0 && most > 0));
        // A layer without load has no need to move, as in a server's first, dry run.
        if load > 0 && fits {
            spent += cost;
        } else {
            waiting.push(at);
            layers[at].row.clone_from(&as_is[at].row);
        }
    }
    *budget = budget.map(|budget| budget.saturating_sub(spent));
    waiting.sort_unstable();
    waiting
}

/// Layer and expert of each expert that the map does not hold.
pub fn lost(layers: &[Layer]) -> Vec<(usize, usize)> {
    let all = layers.iter().enumerate();
    all.flat_map(|(at, layer)| layer.lost.iter().map(move |&expert| (at, expert))).collect()
}

/// The heaviest GPU of a row, in the fixed point in which every layer has the same sum.
fn heaviest(row: &[i32], loads: &Loads, layer: usize, cluster: &Cluster) -> u64 {
    let loads = fixed(loads, layer);
    let mut counts = vec![0u32; loads.len()];
    let experts = |row: &[i32]| row.iter().filter_map(|&e| usize::try_from(e).ok()).collect::<Vec<usize>>();
    for e in experts(row) {
        counts[e] += 1;
    }
    let gpu = |gpu: &[i32]| experts(gpu).iter().map(|&e| u64::from(loads[e] / counts[e])).sum();
    row.chunks_exact(cluster.slots_per_gpu()).map(gpu).max().unwrap_or(0)
}
