//! One layer: its target, the replicas of its nodes, and their placement.

use super::construct::construct;
use super::nodes::{Copies, NodeExperts};
use super::tabu::Tabu;
use super::target::{self, GroupSets};
use super::{EVEN, ForeignLimits};
use crate::given::{GivenNode, Held, Placer};
use crate::mirror::rng;
use crate::params::Params;
use crate::replan;

/// Assignments that are tried.
const ASSIGNMENTS: usize = 3;

/// Parts of 10,000 above the target that construction aims at, one after the other.
const STEPS: [i64; 10] = [0, 3, 10, 20, 40, 70, 120, 200, 300, 500];

/// This part of the target above it is good enough by node totals.
const ENOUGH: u32 = 11;

/// The placement of a node ends within this many millionths of what the node totals allow.
const PLACE_PPM: i64 = 300;

/// Iterations of a node's placement.
const PLACE_ITERATIONS: u32 = 400;

/// A plan must be better than the one without foreign replicas by this part of it, so that rounding is none.
const WORTH: u32 = 15;

/// Memory that a thread reuses.
#[derive(Default)]
pub struct ForeignScratch {
    target: target::TargetScratch,
    tabu: Tabu,
    placer: Placer,
}

/// A plan with foreign replicas.
pub struct ForeignPlan {
    pub slots: Vec<u32>,
    /// Whether it is as good as any by node totals.
    pub reached: bool,
}

/// A layer whose plan without foreign replicas is not good enough.
pub struct ForeignLayer<'a> {
    params: &'a Params,
    limits: ForeignLimits,
    loads: &'a [u32],
    /// The heaviest GPU that is good enough, and that of the plan without foreign replicas.
    floor: i64,
    before: i64,
}

impl<'a> ForeignLayer<'a> {
    /// A layer and its plan without foreign replicas; `None` where that is good enough.
    pub fn new(params: &'a Params, limits: ForeignLimits, loads: &'a [u32], row: &[u32]) -> Option<Self> {
        let before = i64::from(replan::peaks(params, &[loads], row));
        let total: u64 = loads.iter().map(|&load| u64::from(load)).sum();
        let gpus = u64::from(params.nodes * params.node_gpus) * u64::from(EVEN);
        let floor = (u128::from(total) * u128::from(limits.target_ppm)).div_ceil(u128::from(gpus)) as i64;
        (before > floor.max(1)).then_some(Self { params, limits, loads, floor, before })
    }

    /// The best plan found that is better than the one without foreign replicas.
    pub fn plan(&self, sets: &GroupSets, scratch: &mut ForeignScratch) -> Option<ForeignPlan> {
        let Self { params, limits, loads, floor, before } = *self;
        let target = scratch.target.find(params, limits, sets, loads, (floor, before))?;
        let enough = target.load + (target.load >> ENOUGH);
        let mut built = Vec::new();
        for &assignment in target.assignments.iter().take(ASSIGNMENTS) {
            let nodes = NodeExperts::new(params, limits, sets, assignment, loads);
            let Some((value, copies)) = start(&nodes, target.load) else { continue };
            built.push((value, assignment, nodes, copies));
            if value <= enough {
                break;
            }
        }
        built.sort_by_key(|(value, assignment, ..)| (*value, *assignment));
        let mut best: Option<(i64, usize, NodeExperts, Copies)> = None;
        for (_, assignment, nodes, mut copies) in built {
            let key = rng::key(params, assignment as u32, 0);
            let value = scratch.tabu.search(&nodes, key, (target.load, enough), &mut copies);
            if best.as_ref().is_none_or(|(least, ..)| value < *least) {
                best = Some((value, assignment, nodes, copies));
            }
            if value <= enough {
                break;
            }
        }
        let (value, assignment, nodes, copies) = best?;
        if value >= before {
            return None;
        }
        let (max, slots) = self.place(sets, assignment, &nodes, (value, &copies), &mut scratch.placer);
        let better = max < before - (before >> WORTH);
        better.then_some(ForeignPlan { slots, reached: max <= enough + enough * PLACE_PPM / i64::from(EVEN) })
    }

    /// Places the replicas of each node on its GPUs, those of the heaviest node first; returns the heaviest GPU.
    fn place(
        &self,
        sets: &GroupSets,
        assignment: usize,
        nodes: &NodeExperts,
        (value, copies): (i64, &Copies),
        placer: &mut Placer,
    ) -> (i64, Vec<u32>) {
        let Params { group_size, node_slots, .. } = *self.params;
        let params = Params { starts: 1, iterations: PLACE_ITERATIONS, ..self.params.clone() };
        let mut order: Vec<usize> = (0..nodes.nodes).collect();
        order.sort_by_key(|&node| (-copies.totals[node], node));
        let mut slots = vec![0; nodes.nodes * node_slots as usize];
        let mut enough = value + value * PLACE_PPM / i64::from(EVEN);
        let mut max = 0;
        let mut active = vec![false; self.loads.len()];
        nodes.experts.iter().for_each(|&expert| active[expert as usize] = true);
        for node in order {
            let groups = &sets.groups[sets.assignments[assignment][node]];
            let at_home = groups.iter().flat_map(|group| group * group_size..(group + 1) * group_size);
            let single = at_home.filter(|&expert| !active[expert as usize]);
            let mut held: Vec<Held> =
                single.map(|expert| Held { expert, load: self.loads[expert as usize], count: 1 }).collect();
            for (at, &expert) in nodes.experts.iter().enumerate() {
                let count = copies.here[at * nodes.nodes + node];
                if count > 0 {
                    held.push(Held { expert, load: copies.shares[at] as u32 * count, count });
                }
            }
            held.sort_unstable_by_key(|held| held.expert);
            let mut row = Vec::with_capacity(node_slots as usize);
            let of_node = GivenNode { number: node as u32, gpus: params.node_gpus, enough: enough as u32 };
            let heaviest = placer.place(&params, of_node, &held, &mut row);
            max = max.max(i64::from(heaviest));
            enough = enough.max(max);
            let first = node * node_slots as usize;
            slots[first..first + row.len()].copy_from_slice(&row);
        }
        (max, slots)
    }
}

/// The best of several constructions: for the target, and for some a little above it until one is near it.
fn start(nodes: &NodeExperts, target: i64) -> Option<(i64, Copies)> {
    let mut best: Option<(i64, Copies)> = None;
    let mut copies = Copies::default();
    for step in STEPS {
        if best.as_ref().is_some_and(|(value, _)| *value <= target + target * step / 20_000) {
            break;
        }
        if construct(nodes, target + target * step / 10_000, &mut copies) {
            let value = copies.value(nodes);
            if best.as_ref().is_none_or(|(least, _)| value < *least) {
                best = Some((value, copies.clone()));
            }
        }
    }
    best
}
