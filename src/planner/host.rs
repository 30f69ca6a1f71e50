//! The host's work around the stages, the same for every backend: small layers, the end of a plan by three GPUs, and the
//! trivial placement where it is as good.

use super::planned::Planned;
use crate::error::Error;
use crate::exact;
use crate::options::PlanOptions;
use crate::params::{FREE, Params, to_map};
use crate::plan::Stop;
use crate::replan;
use crate::rows;
use crate::threads;
use crate::three_gpus::Improver;
use crate::watch::Attempt;

/// The warning where too few further replicas leave [`PlanOptions::connected`] without effect.
pub fn idle_connection(params: &Params, options: &PlanOptions) -> Option<String> {
    let (further, needed) = (params.node_replicas - params.node_experts, params.node_gpus - 1);
    let node = if params.nodes > 1 { "a node has" } else { "there are" };
    (options.connected && !params.connected() && needed > 0).then(|| {
        format!(
            "connected does nothing: {node} {further} replicas beyond one an expert, and {} GPUs need {needed}",
            params.node_gpus
        )
    })
}

/// The warning where GPUs of some layers are not connected, of rows `[layers][slots]` that were to be connected.
pub fn unconnected(params: &Params, rows: &[u32]) -> Option<String> {
    let slots = (params.node_slots * params.nodes) as usize;
    let apart = rows.chunks_exact(slots).filter(|row| !replan::is_connected(params, row)).count();
    (apart > 0).then(|| {
        format!(
            "connected holds in {} of {} layers; in the others no way was found that makes the heaviest GPU at most \
             .2 % heavier",
            params.layers as usize - apart,
            params.layers
        )
    })
}

/// The sum of the windows, `[layers][experts]`.
pub fn combine(params: &Params, windows: &[u32]) -> Vec<u32> {
    let all = params.layers as usize * params.experts as usize;
    let mut combined = vec![0; all];
    for window in windows.chunks_exact(all) {
        for (sum, load) in combined.iter_mut().zip(window) {
            *sum += load;
        }
    }
    combined
}

/// The plan of layers so small that all their plans can be searched; `None` where they are not.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped.
pub fn plan_small(
    params: &Params,
    combined: &[u32],
    attempt: &Attempt<'_>,
) -> Result<Option<Planned>, Error> {
    if !params.trajectory || !exact::is_small(params) {
        return Ok(None);
    }
    let experts = params.experts as usize;
    let layers = threads::each(params.layers as usize, |layer, (): &mut ()| {
        attempt.go_on()?;
        let slots = exact::plan_layer(params, &combined[layer * experts..(layer + 1) * experts]);
        attempt.finish_as(layer, to_map(&slots));
        Ok(slots)
    });
    let layers = layers.into_iter().collect::<Result<Vec<_>, Error>>()?;
    Ok(Some(Planned { slots: layers.concat(), ends: vec![Stop::Optimal; layers.len()] }))
}

/// Takes the trivial placement (expert after expert, then the first ones again) in each layer where its heaviest GPU is no
/// heavier than the plan's: it needs no transfer of weights.
pub fn prefer_trivial(params: &Params, windows: &[u32], planned: &mut Planned) {
    let (slots, experts) = (params.node_slots * params.nodes, params.experts);
    let further = params.node_replicas * params.nodes - experts;
    // With several nodes the replicas after the first ones break the groups.
    let is_valid = params.node_replicas == params.node_slots
        && (params.nodes == 1 || further == 0)
        && further <= experts
        && (further == 0 || params.max_count > 1)
        && params.trajectory;
    let trivial: Vec<u32> = (0..experts).chain(0..further.min(experts)).collect();
    let has_duplicates = trivial
        .chunks(params.slots_per_gpu as usize)
        .any(|gpu| (1..gpu.len()).any(|i| gpu[..i].contains(&gpu[i])));
    if !is_valid || (has_duplicates && params.avoid_duplicates) {
        return;
    }
    for (layer, row) in planned.slots.chunks_exact_mut(slots as usize).enumerate() {
        if objective(params, windows, layer, &trivial) <= objective(params, windows, layer, row) {
            row.copy_from_slice(&trivial);
        }
    }
}

/// Lets three GPUs at a time share their replicas anew, in the layers whose search ended above the gap.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped.
pub fn share_among_three(
    params: &Params,
    combined: &[u32],
    planned: &mut Planned,
    attempt: &Attempt<'_>,
) -> Result<(), Error> {
    if params.three_gpus == 0 || !planned.is_open() {
        return Ok(());
    }
    let experts = params.experts as usize;
    let slots = (params.node_slots * params.nodes) as usize;
    let improve = |layer: usize, improver: &mut Option<Improver>| {
        attempt.go_on()?;
        let mut row = planned.slots[layer * slots..(layer + 1) * slots].to_vec();
        let mut end = planned.ends[layer];
        if end.is_open() {
            let loads = &combined[layer * experts..(layer + 1) * experts];
            let stop = params.stop_load(least(params, &row, &replica_loads(&row, loads)));
            let improver = improver.get_or_insert_with(|| Improver::new(params));
            let heaviest = improver.improve(stop, loads, &mut row);
            end = if heaviest <= stop { Stop::BoundReached } else { end };
        }
        Ok((row, end))
    };
    let improved = threads::each(params.layers as usize, improve);
    let improved = improved.into_iter().collect::<Result<Vec<_>, Error>>()?;
    for ((row, end), (to, to_end)) in
        improved.into_iter().zip(planned.slots.chunks_exact_mut(slots).zip(&mut planned.ends))
    {
        to.copy_from_slice(&row);
        *to_end = end;
    }
    Ok(())
}

/// Load of a replica of each expert.
fn replica_loads(slots: &[u32], loads: &[u32]) -> Vec<u32> {
    let mut counts = vec![0u32; loads.len()];
    slots.iter().filter(|&&expert| expert != FREE).for_each(|&expert| counts[expert as usize] += 1);
    loads.iter().zip(counts).map(|(&load, count)| load / count.max(1)).collect()
}

/// A load that no exchange inside the nodes makes the heaviest GPU lighter than: a node's average, or a replica.
fn least(params: &Params, slots: &[u32], each: &[u32]) -> u32 {
    let of_node = |node: &[u32]| {
        let loads = || node.iter().filter(|&&expert| expert != FREE).map(|&expert| each[expert as usize]);
        (loads().sum::<u32>() / params.node_gpus).max(loads().max().unwrap_or(0))
    };
    slots.chunks_exact(params.node_slots as usize).map(of_node).max().unwrap_or(0)
}

/// Takes the layers of `other` whose heaviest GPU is lighter than that of `planned`; with `only_open` only layers whose search
/// ended above the gap.
pub fn take_better(
    params: &Params,
    windows: &[u32],
    planned: &mut Planned,
    other: &Planned,
    only_open: bool,
) {
    let slots = (params.node_slots * params.nodes) as usize;
    let rows = planned.slots.chunks_exact_mut(slots).zip(other.slots.chunks_exact(slots));
    for (layer, (row, other_row)) in rows.enumerate() {
        let is_wanted = !only_open || planned.ends[layer].is_open();
        if is_wanted && objective(params, windows, layer, other_row) < objective(params, windows, layer, row)
        {
            row.copy_from_slice(other_row);
            planned.ends[layer] = other.ends[layer];
        }
    }
}

/// The sum over windows of the heaviest GPU of a layer's placement.
fn objective(params: &Params, windows: &[u32], layer: usize, slots: &[u32]) -> u32 {
    let experts = params.experts as usize;
    let rows = windows.chunks_exact(params.layers as usize * experts);
    let rows: Vec<&[u32]> = rows.map(|window| &window[layer * experts..(layer + 1) * experts]).collect();
    rows::peaks(params, &rows, slots)
}
