//! Copies spread over nodes, where nodes are known and any replica may sit anywhere: on the host for every backend, in
//! whole numbers.
//!
//! A token that finds a replica of its expert in its own node does not leave it. With `m` nodes that hold one, `m / nodes`
//! of an expert's tokens stay. And under [`Dispatch::Nearest`] replicas are even only in distinct nodes, or as many in
//! every node. So each layer gets the first of these that is even enough:
//! - other counts ([`counts`]), which bring most tokens home: the hottest experts in every node;
//! - the counts of the plan made without nodes, its replicas spread over them;
//! - that plan itself.
//!
//! Even enough is at most [`COST_PPM`] above that plan's heaviest GPU, and never above the greedy rule's.

mod counts;
mod nodes;
#[cfg(test)]
mod tests;
mod weigh;

use crate::check::Dispatch;
use crate::error::Error;
use crate::given::{GivenNode, Placer};
use crate::mirror::{Starts, rng, s3_replicate, s4_pack};
use crate::params::{FREE, Params};
use crate::plan::Stop;
use crate::threads;
use crate::watch::Attempt;
use weigh::Weigher;

/// The most that keeping tokens in their node may cost: millionths of the heaviest GPU.
const COST_PPM: u64 = 100;

/// A layer stays as it is where experts times nodes are more than this: what is done is in proportion to them.
const MOST_PLACES: u64 = 1 << 22;

/// Spreads the replicas of each layer over [`Params::spread_nodes`]: of the plan made without nodes, `[layers][slots]` and why the
/// search of each layer ended. `loads` is `[layers][experts]`.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped.
pub fn spread(
    params: &Params,
    dispatch: Dispatch,
    loads: &[u32],
    (planned, ends): (&mut [u32], &mut [Stop]),
    attempt: &Attempt<'_>,
) -> Result<(), Error> {
    let nodes = params.spread_nodes;
    if nodes == 1 || params.windows > 1 || u64::from(params.experts) * u64::from(nodes) > MOST_PLACES {
        return Ok(());
    }
    let (experts, slots) = (params.experts as usize, params.node_slots as usize);
    let rows = threads::each(params.layers as usize, |layer, scratch: &mut SpreadScratch| {
        attempt.go_on()?;
        let loads = &loads[layer * experts..(layer + 1) * experts];
        let today = &planned[layer * slots..(layer + 1) * slots];
        Ok(SpreadLayer { params, nodes, dispatch, loads, today }.spread(scratch))
    });
    for (layer, row) in rows.into_iter().enumerate() {
        if let Some(Spread { row, is_worse }) = row? {
            planned[layer * slots..(layer + 1) * slots].copy_from_slice(&row);
            // Why a search ended holds for the placement that it ended with.
            ends[layer] = if is_worse { Stop::NoMoveLeft } else { ends[layer] };
        }
    }
    Ok(())
}

/// Memory that a thread reuses from layer to layer.
#[derive(Default)]
struct SpreadScratch {
    placer: Placer,
    starts: Starts,
    weigher: Weigher,
}

/// One layer.
struct SpreadLayer<'a> {
    params: &'a Params,
    nodes: u32,
    dispatch: Dispatch,
    /// `[experts]`.
    loads: &'a [u32],
    /// The plan made without nodes.
    today: &'a [u32],
}

/// A layer that changes.
struct Spread {
    row: Vec<u32>,
    /// Whether its heaviest GPU is heavier than before, if tokens are dealt equally.
    is_worse: bool,
}

impl SpreadLayer<'_> {
    /// The layer's placement, if another than today's is better.
    fn spread(&self, scratch: &mut SpreadScratch) -> Option<Spread> {
        let Self { params, dispatch, loads, today, .. } = *self;
        if loads.iter().all(|&load| load == 0) {
            return None;
        }
        scratch.weigher.begin(params, self.nodes);
        let equal = scratch.weigher.heaviest(Dispatch::Equal, loads, today);
        let greedy = self.greedy(scratch);
        let greedy_weighs = scratch.weigher.heaviest(dispatch, loads, &greedy);
        let limit = (equal + equal * COST_PPM / 1_000_000).min(greedy_weighs);
        let kept = scratch.weigher.kept_in_node(loads, today);
        let weighs = match dispatch {
            Dispatch::Equal => equal,
            _ => scratch.weigher.heaviest(dispatch, loads, today),
        };
        let mut best = (weighs, None);
        if greedy_weighs < best.0 {
            best = (greedy_weighs, Some(greedy));
        }
        let most = self.nodes.min(params.max_count);
        let further = params.node_replicas - params.experts;
        let of_today = counts::of_row(params.experts, today);
        for counts in [counts::hottest(loads, further, most), Some(of_today)].into_iter().flatten() {
            let Some(row) = self.place(&counts, limit, scratch) else { continue };
            let weighs = scratch.weigher.heaviest(dispatch, loads, &row);
            let keeps_more = dispatch != Dispatch::Equal || scratch.weigher.kept_in_node(loads, &row) > kept;
            if weighs <= limit && keeps_more {
                best = (weighs, Some(row));
                break;
            }
            if weighs < best.0 && keeps_more {
                best = (weighs, Some(row));
            }
        }
        let (weighs, row) = (best.0, best.1?);
        let is_worse = match dispatch {
            Dispatch::Equal => weighs > equal,
            _ => scratch.weigher.heaviest(Dispatch::Equal, loads, &row) > equal,
        };
        Some(Spread { row, is_worse })
    }

    /// The greedy rule's placement, under the same rule on duplicates.
    fn greedy(&self, scratch: &mut SpreadScratch) -> Vec<u32> {
        let Self { params, loads, .. } = *self;
        let candidate = &mut scratch.starts.candidate;
        s3_replicate::give_replicas(loads, params.node_replicas, params.max_count, &mut candidate.counts);
        s4_pack::pack(params, rng::key(params, 0, 0), 0, loads, candidate);
        candidate.expert.clone()
    }

    /// A placement of these counts with the replicas of an expert in as many nodes as can be; `None` where the nodes have
    /// no room for that, or where it is of no use.
    fn place(&self, counts: &[u32], limit: u64, scratch: &mut SpreadScratch) -> Option<Vec<u32>> {
        let Self { params, nodes, dispatch, loads, .. } = *self;
        let gpus = params.node_gpus / nodes;
        // Rounding takes less than 2 from each slot.
        let enough = weigh::in_units(limit).saturating_sub(2 * params.slots_per_gpu);
        // If tokens are dealt equally, the plan made without nodes is better than what is above the limit.
        let is_of_use = |load: u32| load <= enough || dispatch != Dispatch::Equal;
        if !loads.iter().zip(counts).all(|(load, &count)| is_of_use(load / count.max(1))) {
            return None;
        }
        let spread = nodes::SpreadNodes::spread(params, nodes, dispatch == Dispatch::Nearest, loads, counts)?;
        let mut row = Vec::with_capacity(params.node_slots as usize);
        for node in 0..nodes {
            let place = GivenNode { number: node, gpus, enough };
            let heaviest = scratch.placer.place(params, place, &spread.held(node), &mut row);
            if !is_of_use(heaviest) {
                return None;
            }
        }
        Some(row)
    }
}

/// Experts by falling load, ties to the lower.
fn by_falling_load(loads: impl Iterator<Item = (usize, u32)>) -> Vec<usize> {
    let mut keys: Vec<u64> = loads.map(|(e, load)| u64::from(!load) << 32 | e as u64).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32 as usize).collect()
}

/// The filled slots of a row, each with its expert.
fn filled(row: &[u32]) -> impl Iterator<Item = (usize, usize)> + '_ {
    row.iter()
        .enumerate()
        .filter(|(_, expert)| **expert != FREE)
        .map(|(slot, &expert)| (slot, expert as usize))
}
