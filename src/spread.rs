//! Copies spread over nodes, where nodes are known and any replica may sit anywhere. The host chooses what each node holds, for
//! every backend, in whole numbers; nodes are placed by the planner's device.
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
use crate::given::{GivenNode, Placed};
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

/// The layers of a call while their copies are spread: from the plan made without nodes, each tries its counts, one after
/// the other.
pub struct Spreading<'a> {
    params: &'a Params,
    dispatch: Dispatch,
    /// `[layers][experts]`.
    loads: &'a [u32],
    layers: Vec<SpreadLayer>,
}

/// Whether copies of a call are spread at all.
pub fn applies(params: &Params) -> bool {
    let places = u64::from(params.experts) * u64::from(params.spread_nodes);
    params.spread_nodes > 1 && params.windows == 1 && places <= MOST_PLACES
}

impl<'a> Spreading<'a> {
    /// Begins with the plan made without nodes, `[layers][slots]`.
    ///
    /// # Errors
    /// [`Error::Cancelled`] where the call was stopped.
    pub fn new(
        params: &'a Params,
        dispatch: Dispatch,
        loads: &'a [u32],
        planned: &[u32],
        attempt: &Attempt<'_>,
    ) -> Result<Self, Error> {
        let (experts, slots) = (params.experts as usize, params.node_slots as usize);
        let layers = threads::each(params.layers as usize, |at, scratch: &mut SpreadScratch| {
            attempt.go_on()?;
            let loads = &loads[at * experts..(at + 1) * experts];
            let today = &planned[at * slots..(at + 1) * slots];
            Ok(LayerCall { params, dispatch, loads }.begin(today, scratch))
        });
        let layers = layers.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { params, dispatch, loads, layers })
    }

    /// GPUs of a node.
    pub fn node_gpus(&self) -> u32 {
        self.params.node_gpus / self.params.spread_nodes
    }

    /// The nodes to be placed next, of all layers that still have counts to try; none at the end.
    pub fn next(&mut self) -> Vec<GivenNode> {
        let Self { params, dispatch, loads, ref layers } = *self;
        let next = threads::each(layers.len(), |at, _: &mut ()| {
            let loads = &loads[at * params.experts as usize..(at + 1) * params.experts as usize];
            LayerCall { params, dispatch, loads }.next(&layers[at])
        });
        let mut all = Vec::new();
        for (layer, (left, nodes)) in self.layers.iter_mut().zip(next) {
            layer.counts.truncate(left);
            layer.is_placed = !nodes.is_empty();
            all.extend(nodes);
        }
        all
    }

    /// Judges the placements of the nodes that were told last.
    pub fn judge(&mut self, nodes: &[GivenNode], placed: &[Placed]) {
        let each = self.params.spread_nodes as usize;
        let mut pairs = nodes.chunks_exact(each).zip(placed.chunks_exact(each));
        let slots = self.params.slots_per_gpu;
        let mut scratch = SpreadScratch::default();
        let experts = self.params.experts as usize;
        for (at, layer) in self.layers.iter_mut().enumerate() {
            let Some((nodes, placed)) = layer.is_placed.then(|| pairs.next()).flatten() else { continue };
            let call = LayerCall {
                params: self.params,
                dispatch: self.dispatch,
                loads: &self.loads[at * experts..(at + 1) * experts],
            };
            let heaviest = nodes.iter().zip(placed).map(|(node, placed)| placed.heaviest(node, slots));
            let is_of_use = heaviest.max().is_some_and(|load| call.is_of_use(load, layer.limit));
            let row: Vec<u32> = placed.iter().flat_map(|placed| &placed.slots).copied().collect();
            if is_of_use {
                call.judge(layer, row, &mut scratch);
            }
        }
    }

    /// Puts the best placement of each layer in the place of the plan made without nodes.
    pub fn take(self, (planned, ends): (&mut [u32], &mut [Stop])) {
        let (experts, slots) = (self.params.experts as usize, self.params.node_slots as usize);
        let mut scratch = SpreadScratch::default();
        for (at, layer) in self.layers.into_iter().enumerate() {
            let Some(row) = layer.best.1 else { continue };
            scratch.weigher.begin(self.params, self.params.spread_nodes);
            let loads = &self.loads[at * experts..(at + 1) * experts];
            // Why a search ended holds for the placement that it ended with.
            if scratch.weigher.heaviest(Dispatch::Equal, loads, &row) > layer.equal {
                ends[at] = Stop::NoMoveLeft;
            }
            planned[at * slots..(at + 1) * slots].copy_from_slice(&row);
        }
    }
}

/// Memory that a thread reuses from layer to layer.
#[derive(Default)]
struct SpreadScratch {
    starts: Starts,
    weigher: Weigher,
}

/// A layer's best placement so far, and the counts that are still to be tried.
#[derive(Default)]
struct SpreadLayer {
    /// Counts, the next ones last; none once a placement is even enough.
    counts: Vec<Vec<u32>>,
    /// Whether nodes with the last of them are being placed.
    is_placed: bool,
    /// The heaviest GPU of the plan made without nodes, if tokens are dealt equally, and the heaviest that is even enough.
    equal: u64,
    limit: u64,
    /// The tokens that stay in their node in that plan.
    kept: u64,
    /// The heaviest GPU of the best placement, and the placement, if it is another than that plan's.
    best: (u64, Option<Vec<u32>>),
}

/// The numbers and loads by which a layer is spread.
#[derive(Clone, Copy)]
struct LayerCall<'a> {
    params: &'a Params,
    dispatch: Dispatch,
    /// `[experts]`.
    loads: &'a [u32],
}

impl LayerCall<'_> {
    fn begin(&self, today: &[u32], scratch: &mut SpreadScratch) -> SpreadLayer {
        let Self { params, dispatch, loads } = *self;
        if loads.iter().all(|&load| load == 0) {
            return SpreadLayer::default();
        }
        scratch.weigher.begin(params, params.spread_nodes);
        let equal = scratch.weigher.heaviest(Dispatch::Equal, loads, today);
        let greedy = self.greedy(scratch);
        let greedy_weighs = scratch.weigher.heaviest(dispatch, loads, &greedy);
        let weighs = match dispatch {
            Dispatch::Equal => equal,
            _ => scratch.weigher.heaviest(dispatch, loads, today),
        };
        let most = params.spread_nodes.min(params.max_count);
        let hottest = counts::hottest(loads, params.node_replicas - params.experts, most);
        SpreadLayer {
            counts: [Some(counts::of_row(params.experts, today)), hottest].into_iter().flatten().collect(),
            is_placed: false,
            equal,
            limit: (equal + equal * COST_PPM / 1_000_000).min(greedy_weighs),
            kept: scratch.weigher.kept_in_node(loads, today),
            best: if greedy_weighs < weighs { (greedy_weighs, Some(greedy)) } else { (weighs, None) },
        }
    }

    /// The greedy rule's placement, under the same rule on duplicates.
    fn greedy(&self, scratch: &mut SpreadScratch) -> Vec<u32> {
        let Self { params, loads, .. } = *self;
        let candidate = &mut scratch.starts.candidate;
        s3_replicate::give_replicas(loads, params.node_replicas, params.max_count, &mut candidate.counts);
        s4_pack::pack(params, rng::key(params, 0, 0), 0, loads, candidate);
        candidate.expert.clone()
    }

    /// The nodes of the next counts whose replicas find as many nodes as can be, and how many counts are left with these.
    fn next(&self, layer: &SpreadLayer) -> (usize, Vec<GivenNode>) {
        let tried = layer.counts.len() - usize::from(layer.is_placed);
        for left in (1..=tried).rev() {
            if let Some(nodes) = self.nodes(&layer.counts[left - 1], layer.limit) {
                return (left, nodes);
            }
        }
        (0, Vec::new())
    }

    /// The load of the heaviest GPU at which the search of a node ends.
    fn enough(&self, limit: u64) -> u32 {
        // Rounding takes less than 2 from each slot.
        weigh::in_units(limit).saturating_sub(2 * self.params.slots_per_gpu)
    }

    /// Whether a GPU of this load is of use: if tokens are dealt equally, the plan made without nodes is better than what is
    /// above the limit.
    fn is_of_use(&self, load: u32, limit: u64) -> bool {
        load <= self.enough(limit) || self.dispatch != Dispatch::Equal
    }

    /// The nodes with replicas of these counts, an expert's in as many nodes as can be; `None` where the nodes have no room for
    /// that, or where it is of no use.
    fn nodes(&self, counts: &[u32], limit: u64) -> Option<Vec<GivenNode>> {
        let Self { params, dispatch, loads } = *self;
        if !loads.iter().zip(counts).all(|(load, &count)| self.is_of_use(load / count.max(1), limit)) {
            return None;
        }
        let nodes = params.spread_nodes;
        let spread = nodes::SpreadNodes::spread(params, nodes, dispatch == Dispatch::Nearest, loads, counts)?;
        let node = |node| GivenNode { held: spread.held(node), enough: self.enough(limit) };
        Some((0..nodes).map(node).collect())
    }

    /// Takes a placement if it is better. Once one is even enough, no other is tried.
    fn judge(&self, layer: &mut SpreadLayer, row: Vec<u32>, scratch: &mut SpreadScratch) {
        let Self { params, dispatch, loads } = *self;
        scratch.weigher.begin(params, params.spread_nodes);
        let weighs = scratch.weigher.heaviest(dispatch, loads, &row);
        if dispatch == Dispatch::Equal && scratch.weigher.kept_in_node(loads, &row) <= layer.kept {
            return;
        }
        if weighs <= layer.limit {
            layer.best = (weighs, Some(row));
            (layer.counts, layer.is_placed) = (Vec::new(), false);
        } else if weighs < layer.best.0 {
            layer.best = (weighs, Some(row));
        }
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
