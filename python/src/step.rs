//! A step of a serving loop from whatever map runs: few moves, bounded.

use eplb_wgpu::{Cluster, Error, Loads, MoveLimits, Placement, PlanOptions, Planner, Replan, check};

use crate::loads::select;
use crate::options::{most_moves, with_most_moves};
use crate::plan::Moved;
use crate::previous::previous;

/// The result of a step.
pub struct Step {
    /// The map to run next.
    pub placement: Placement,
    /// The moves to that map.
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
    let per_gpu = cluster.slots_per_gpu();
    let flat = Cluster::with_slots_per_gpu(cluster.num_replicas(), 1, 1, cluster.num_gpus(), per_gpu)?;
    // A layer that counts as balanced is mended, and nothing else.
    let still = MoveLimits { skip_if_balanced_ppm: Some(0), ..limits.clone() };
    let mend =
        |cluster| planner.replan(loads, cluster, previous(map, columns, loads.experts())?, options, &still);
    let (together, as_is) = (mend(cluster)?, mend(&flat)?);
    let mut budget = most_moves(limits, slots * loads.layers());
    let waiting = bring_together(loads, &flat, &together, &as_is, &mut budget)?;
    let ready: Vec<usize> = (0..loads.layers()).filter(|at| !waiting.contains(at)).collect();
    let mut rows = together.plan().physical_to_logical().to_vec();
    for &at in &waiting {
        let row = at * slots..(at + 1) * slots;
        rows[row.clone()].copy_from_slice(&as_is.plan().physical_to_logical()[row]);
    }
    let before = check::score(loads, &flat, &rows)?.balancedness();
    let mut moved = Moved {
        received: vec![0; loads.layers()],
        repairs: vec![0; loads.layers()],
        lost: as_is.lost().to_vec(),
        ..Moved::default()
    };
    let mut warnings = Vec::new();
    let share = budget.map(|budget| budget * waiting.len() / loads.layers().max(1));
    for (cluster, part) in [(&flat, &waiting), (cluster, &ready)] {
        if part.is_empty() {
            continue;
        }
        let allowed = if std::ptr::eq(part, &waiting) { share } else { budget };
        let limits = with_most_moves(limits, allowed);
        let from: Vec<i64> =
            part.iter().flat_map(|&at| &map[at * columns..(at + 1) * columns]).copied().collect();
        let from = previous(&from, columns, loads.experts())?;
        let replan = planner.replan(&select(loads, part)?, cluster, from, options, &limits)?;
        let balance = replan.moves().received.saturating_sub(replan.moves().repairs);
        budget = budget.map(|budget| budget.saturating_sub(balance));
        for ((&at, row), layer) in
            part.iter().zip(replan.plan().physical_to_logical().chunks_exact(slots)).zip(replan.layers())
        {
            rows[at * slots..(at + 1) * slots].copy_from_slice(row);
            (moved.received[at], moved.repairs[at]) = (layer.received, layer.repairs);
        }
        moved.order.extend(replan.layers_to_move().into_iter().map(|at| part[at]));
        warnings.extend_from_slice(replan.plan().warnings());
    }
    Ok(Step {
        before,
        after: check::score(loads, &flat, &rows)?.balancedness(),
        placement: Placement::new(loads.experts(), slots, rows)?,
        moved,
        waiting: waiting.len(),
        device: together.plan().device().to_string(),
        warnings,
    })
}

/// Brings groups together in as many layers as half of the budget allows, and takes from it what that moves. Returns
/// the layers that wait.
fn bring_together(
    loads: &Loads,
    flat: &Cluster,
    together: &Replan,
    as_is: &Replan,
    budget: &mut Option<usize>,
) -> Result<Vec<usize>, Error> {
    let cost = |at: usize| together.layers()[at].repairs.saturating_sub(as_is.layers()[at].repairs);
    let quality = check::score(loads, flat, as_is.plan().physical_to_logical())?;
    let excess = |at: usize| match &quality.layers[at] {
        layer if layer.mean_gpu_load > 0.0 => layer.max_gpu_load / layer.mean_gpu_load,
        _ => 0.0,
    };
    let mut apart: Vec<usize> = (0..loads.layers()).filter(|&at| cost(at) > 0).collect();
    apart.sort_by(|&a, &b| excess(b).total_cmp(&excess(a)).then(a.cmp(&b)));
    let most = budget.map(|budget| budget / 2);
    let (mut spent, mut waiting) = (0, Vec::new());
    for at in apart {
        let fits = most.is_none_or(|most| spent + cost(at) <= most || (spent == 0 && most > 0));
        // A layer without load has no need to move, as in a server's first, dry run.
        if excess(at) > 0.0 && fits {
            spent += cost(at);
        } else {
            waiting.push(at);
        }
    }
    *budget = budget.map(|budget| budget.saturating_sub(spent));
    waiting.sort_unstable();
    Ok(waiting)
}
