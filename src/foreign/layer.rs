//! One layer: its target, the replicas of its nodes, and their placement.

use std::collections::BTreeSet;

use super::EVEN;
use super::construct::construct;
use super::homes;
use super::nodes::{Copies, NodeExperts};
use super::tabu::Tabu;
use super::target::{self, GroupSets};
use crate::given::{GivenNode, Held, Placed};
use crate::mirror::rng;
use crate::params::Params;
use crate::rows;

/// Assignments that are tried.
pub const ASSIGNMENTS: usize = 3;

/// Parts of [`STEP_PARTS`] above the target that construction aims at, one after the other.
pub const STEPS: [i64; 10] = [0, 3, 10, 20, 40, 70, 120, 200, 300, 500];

/// All of the target.
pub const STEP_PARTS: i64 = 10_000;

/// This part of the target above it is good enough by node totals.
pub const ENOUGH: u32 = 11;

/// The placement of a node ends within this many millionths of what the node totals allow.
const PLACE_PPM: i64 = 300;

/// A plan must be better than the one without foreign replicas by this part of it, so that rounding is none.
const WORTH: u32 = 15;

/// Memory that a thread reuses.
#[derive(Default)]
pub struct ForeignScratch {
    target: target::TargetScratch,
    tabu: Tabu,
}

/// A layer's nodes with other replicas than before, to be placed.
pub struct Improvable {
    pub nodes: Vec<GivenNode>,
    /// The load of the heaviest GPU before.
    before: i64,
    /// A plan whose heaviest GPU is at most this is as good as node totals allow.
    reached: i64,
}

/// A plan with foreign replicas.
pub struct ForeignPlan {
    pub slots: Vec<u32>,
    /// Whether it is as good as any by node totals.
    pub reached: bool,
}

impl Improvable {
    /// The plan that its nodes' placements make, if it is better than the one without foreign replicas.
    pub fn placed(&self, placed: &[Placed], slots_per_gpu: u32) -> Option<ForeignPlan> {
        let pairs = self.nodes.iter().zip(placed);
        let max = pairs.map(|(node, placed)| i64::from(placed.heaviest(node, slots_per_gpu))).max()?;
        let slots = placed.iter().flat_map(|placed| &placed.slots).copied().collect();
        let better = max < self.before - (self.before >> WORTH);
        better.then_some(ForeignPlan { slots, reached: max <= self.reached })
    }
}

/// A layer whose plan without foreign replicas is not good enough.
pub struct ForeignLayer<'a> {
    params: &'a Params,
    /// Loads of the experts.
    pub loads: &'a [u32],
    /// The plan without foreign replicas.
    row: &'a [u32],
    /// The heaviest GPU that is good enough, and that of the plan without foreign replicas.
    pub floor: i64,
    pub before: i64,
}

impl<'a> ForeignLayer<'a> {
    /// A layer and its plan without foreign replicas; `None` where that is good enough.
    pub fn new(params: &'a Params, loads: &'a [u32], row: &'a [u32]) -> Option<Self> {
        let before = i64::from(rows::peaks(params, &[loads], row));
        let total: u64 = loads.iter().map(|&load| u64::from(load)).sum();
        let gpus = u64::from(params.nodes * params.node_gpus) * u64::from(EVEN);
        let floor =
            (u128::from(total) * u128::from(params.foreign_target_ppm)).div_ceil(u128::from(gpus)) as i64;
        (before > floor.max(1)).then_some(Self { params, loads, row, floor, before })
    }

    /// The layer's nodes with the replicas that they had best hold; `None` where that is no better. Where assignments are too many
    /// to look at each, groups stay at home.
    pub fn nodes(&self, sets: &GroupSets, scratch: &mut ForeignScratch) -> Option<Improvable> {
        if sets.assignments.is_empty() {
            let sets = GroupSets::new(self.params, vec![homes(self.params, self.row)]);
            return Some(self.improvable(&sets, &self.share_out(&sets, scratch)?));
        }
        Some(self.improvable(sets, &self.share_out(sets, scratch)?))
    }

    /// The layer's nodes with replicas that are shared out.
    pub fn improvable(&self, sets: &GroupSets, shares: &NodeShares) -> Improvable {
        let enough = (shares.value + shares.value * PLACE_PPM / i64::from(EVEN)) as u32;
        let node = |node| GivenNode { held: shares.held(self.params, sets, self.loads, node), enough };
        Improvable {
            nodes: (0..self.params.nodes as usize).map(node).collect(),
            before: self.before,
            reached: shares.enough + shares.enough * PLACE_PPM / i64::from(EVEN),
        }
    }

    /// How many replicas of each expert each node had best hold; `None` where node totals promise nothing better than the
    /// plan there is.
    pub fn share_out(&self, sets: &GroupSets, scratch: &mut ForeignScratch) -> Option<NodeShares> {
        let Self { params, loads, floor, before, .. } = *self;
        let target = scratch.target.find(params, sets, loads, (floor, before))?;
        let enough = target.load + (target.load >> ENOUGH);
        let mut built = Vec::new();
        for &assignment in target.assignments.iter().take(ASSIGNMENTS) {
            let nodes = NodeExperts::new(params, sets, assignment, loads);
            let Some((value, copies)) = start(&nodes, target.load) else { continue };
            built.push((value, assignment, nodes, copies));
            if value <= enough {
                break;
            }
        }
        built.sort_by_key(|&(value, assignment, ..)| (value, assignment));
        let mut best: Option<NodeShares> = None;
        for (_, assignment, nodes, mut copies) in built {
            let key = rng::key(params, assignment as u32, 0);
            let value = scratch.tabu.search(&nodes, key, (target.load, enough), &mut copies);
            if best.as_ref().is_none_or(|best| value < best.value) {
                let NodeExperts { experts, .. } = nodes;
                best = Some(NodeShares { value, enough, assignment, experts, here: copies.here });
            }
            if value <= enough {
                break;
            }
        }
        best.filter(|best| best.value < before)
    }
}

/// How the replicas of a layer are shared out among its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeShares {
    /// The least that the heaviest GPU comes to, about, and what is good enough.
    pub value: i64,
    pub enough: i64,
    /// Of groups to homes.
    pub assignment: usize,
    /// The experts that may have several replicas, by their logical numbers.
    pub experts: Vec<u32>,
    /// How many of each every node holds, `[experts][nodes]`.
    pub here: Vec<u32>,
}

impl NodeShares {
    /// The replicas of a node, by expert.
    pub fn held(&self, params: &Params, sets: &GroupSets, loads: &[u32], node: usize) -> Vec<Held> {
        let active: BTreeSet<u32> = self.experts.iter().copied().collect();
        let groups = &sets.groups[sets.assignments[self.assignment][node]];
        let at_home =
            groups.iter().flat_map(|group| group * params.group_size..(group + 1) * params.group_size);
        let single = at_home.filter(|expert| !active.contains(expert));
        let mut held: Vec<Held> =
            single.map(|expert| Held { expert, load: loads[expert as usize], count: 1 }).collect();
        for (&expert, here) in self.experts.iter().zip(self.here.chunks_exact(params.nodes as usize)) {
            let count = here[node];
            if count > 0 {
                let share = loads[expert as usize] / here.iter().sum::<u32>();
                held.push(Held { expert, load: share * count, count });
            }
        }
        held.sort_unstable_by_key(|held| held.expert);
        held
    }
}

/// The best of several constructions: for the target, and for some a little above it until one is near it.
fn start(nodes: &NodeExperts, target: i64) -> Option<(i64, Copies)> {
    let mut best: Option<(i64, Copies)> = None;
    let mut copies = Copies::default();
    for step in STEPS {
        if best.as_ref().is_some_and(|(value, _)| *value <= target + target * step / (2 * STEP_PARTS)) {
            break;
        }
        if construct(nodes, target + target * step / STEP_PARTS, &mut copies) {
            let value = copies.value(nodes);
            if best.as_ref().is_none_or(|(least, _)| value < *least) {
                best = Some((value, copies.clone()));
            }
        }
    }
    best
}
