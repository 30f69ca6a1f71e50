//! A step of a serving loop from whatever map runs: few moves, bounded.

use eplb_wgpu::{Cluster, Error, Loads, MoveLimits, Placement, PlanOptions, Planner, check};

use crate::loads::select;
use crate::options::most_moves;
use crate::plan::Moved;
use crate::previous::{Layer, fit, received};

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
/// groups across nodes are brought together one after the other, the least balanced first: as many as the limits
/// allow, and at least one. The others wait as they are, which every engine serves. What the limits leave goes to
/// balance.
pub fn step(
    planner: &Planner,
    loads: &Loads,
    cluster: &Cluster,
    (map, columns): (&[i64], usize),
    options: &PlanOptions,
    limits: &MoveLimits,
) -> Result<Step, Error> {
    let avoid = options.duplicates == eplb_wgpu::Duplicates::Avoid;
    let mut layers = fit(loads, cluster, map, columns, avoid);
    let flat = Cluster::with_slots_per_gpu(
        cluster.num_replicas(),
        1,
        1,
        cluster.num_gpus(),
        cluster.slots_per_gpu(),
    )?;
    let slots = cluster.num_slots();
    let budget = most_moves(limits, slots * loads.layers());
    let mut spent = 0;
    let mut waiting = Vec::new();
    let mut balance = vec![0u64; layers.len()];
    if layers.iter().any(|layer| layer.apart) {
        let as_is = fit(loads, &flat, map, columns, avoid);
        let heaviest = |at: usize| heaviest(&as_is[at].row, loads, at, cluster);
        let mut apart: Vec<usize> = (0..layers.len()).filter(|&at| layers[at].apart).collect();
        for &at in &apart {
            balance[at] = heaviest(at);
        }
        apart.sort_by_key(|&at| (std::cmp::Reverse(balance[at]), at));
        let mut taken = 0;
        for (at, kept) in apart.iter().map(|&at| (at, &as_is[at])) {
            let cost = layers[at].repairs(cluster).saturating_sub(kept.repairs(cluster));
            let fits = budget.is_none_or(|budget| spent + cost <= budget || (taken == 0 && budget > 0));
            if balance[at] > 0 && fits {
                spent += cost;
                taken += 1;
            } else {
                waiting.push(at);
            }
        }
        for &at in &waiting {
            layers[at].row.clone_from(&as_is[at].row);
        }
    }
    let mut rows: Vec<i32> = layers.iter().flat_map(|layer| &layer.row).copied().collect();
    let before = check::score(loads, &flat, &rows)?.balancedness();
    let repairs = layers.iter().map(|layer| layer.repairs(cluster)).collect();
    let ready: Vec<usize> = (0..layers.len()).filter(|at| !waiting.contains(at)).collect();
    let mut moved = Moved { repairs, lost: lost(&layers), ..Moved::default() };
    let (mut device, mut warnings) = (planner.device().name.clone(), Vec::new());
    if !ready.is_empty() {
        let chosen = select(loads, &ready)?;
        let rest = MoveLimits {
            max_moves: budget.map(|budget| budget.saturating_sub(spent)),
            max_moves_ppm: None,
            ..limits.clone()
        };
        let start = ready.iter().flat_map(|&at| &layers[at].row).copied().collect();
        let start = Placement::new(loads.experts(), slots, start)?;
        let replan = planner.replan(&chosen, cluster, &start, options, &rest)?;
        let new = replan.plan().placement().physical_to_logical().chunks_exact(slots);
        for (&at, new) in ready.iter().zip(new) {
            let row = in_place(&layers[at].old, new, cluster.slots_per_gpu());
            rows[at * slots..(at + 1) * slots].copy_from_slice(&row);
        }
        moved.order = replan.layers_to_move().into_iter().map(|at| ready[at]).collect();
        device = replan.plan().device().to_string();
        warnings = replan.plan().warnings().to_vec();
    }
    moved.received = layers
        .iter()
        .zip(rows.chunks_exact(slots))
        .map(|(layer, row)| received(cluster, &layer.old, row))
        .collect();
    let after = check::score(loads, &flat, &rows)?.balancedness();
    let placement = Placement::new(loads.experts(), slots, rows)?;
    Ok(Step { placement, moved, waiting: waiting.len(), before, after, device, warnings })
}

/// Layer and expert of each expert that the map does not hold.
pub fn lost(layers: &[Layer]) -> Vec<(usize, usize)> {
    let all = layers.iter().enumerate();
    all.flat_map(|(at, layer)| layer.lost.iter().map(move |&expert| (at, expert))).collect()
}

/// The heaviest GPU of a row, in the fixed point in which every layer has the same sum.
fn heaviest(row: &[i32], loads: &Loads, layer: usize, cluster: &Cluster) -> u64 {
    let loads = &loads.fixed()[layer * loads.experts()..(layer + 1) * loads.experts()];
    let mut counts = vec![0u32; loads.len()];
    let experts = |row: &[i32]| row.iter().filter_map(|&e| usize::try_from(e).ok()).collect::<Vec<usize>>();
    for e in experts(row) {
        counts[e] += 1;
    }
    let gpu = |gpu: &[i32]| experts(gpu).iter().map(|&e| u64::from(loads[e] / counts[e])).sum();
    row.chunks_exact(cluster.slots_per_gpu()).map(gpu).max().unwrap_or(0)
}

/// `new` with every replica that its GPU held before in the slot it had.
pub fn in_place(old: &[i32], new: &[i32], per_gpu: usize) -> Vec<i32> {
    let mut out = Vec::with_capacity(new.len());
    for (old, new) in old.chunks_exact(per_gpu).zip(new.chunks_exact(per_gpu)) {
        let mut rest = new.to_vec();
        let mut take = |held: &i32| {
            let at = rest.iter().position(|e| e == held && *e >= 0)?;
            Some(rest.remove(at))
        };
        let kept: Vec<Option<i32>> = old.iter().map(&mut take).collect();
        let mut rest = rest.into_iter();
        out.extend(kept.into_iter().map(|slot| slot.or_else(|| rest.next()).unwrap_or(-1)));
    }
    out
}
