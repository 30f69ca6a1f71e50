//! The pipeline on the CPU backend: the mirrors, layer by layer, over all cores.

use super::apart::{self, Apart};
use super::planned::Planned;
use crate::error::Error;
use crate::mirror::bound::node_loads;
use crate::mirror::s2_groups_to_nodes::{self, Assignment};
use crate::mirror::s6_select::{LayerBest, NodeBest};
use crate::mirror::{Starts, gather, s1_group_loads};
use crate::options::GroupRule;
use crate::params::{FULL_ASSIGNMENTS, Params, enumerate_assignments, to_map};
use crate::threads;
use crate::watch::Attempt;

/// Plans all layers. `windows` is `[windows][layers][experts]`, and `combined` its sum.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped.
pub fn plan(
    params: &Params,
    combined: &[u32],
    windows: &[u32],
    attempt: &Attempt<'_>,
) -> Result<Planned, Error> {
    let table = match params.group_rule {
        GroupRule::BestFirst => enumerate_assignments(params.groups, params.nodes),
        GroupRule::Lpt | GroupRule::LptVariance => Vec::new(),
    };
    let of_nodes = match params.has_speeds() {
        true => (0..params.nodes as usize).map(|node| params.of_node(node)).collect(),
        false => Vec::new(),
    };
    let apart: Vec<Option<Apart>> = of_nodes.iter().map(Apart::new).collect();
    let few = Params { starts: 1, assignments: params.assignments.min(1), ..params.clone() };
    let experts = params.experts as usize;
    let layers = threads::each(combined.len() / experts, |layer, scratch: &mut CpuScratch| {
        attempt.go_on()?;
        let row = layer * experts..(layer + 1) * experts;
        let windows = windows.chunks_exact(combined.len()).map(|window| &window[row.clone()]).collect();
        let combined = &combined[row];
        let (of_nodes, table) = ((&of_nodes[..], &apart[..]), &table[..]);
        // With even loads all assignments and starts are alike, and no plan comes near the mean where slow GPUs have as many
        // slots as fast ones: more of them would take time for nothing.
        let is_even = params.has_speeds() && combined.iter().all(|load| *load == combined[0]);
        let params = if is_even { &few } else { params };
        let best =
            CpuLayer { params, of_nodes, table, combined, windows, bound: 0, solved: vec![] }.plan(scratch);
        attempt.finish_as(layer, to_map(&best.slots));
        Ok(best)
    });
    let layers = layers.into_iter().collect::<Result<Vec<_>, Error>>()?;
    let rows: Vec<&[u32]> = layers.iter().map(|layer| &layer.slots[..]).collect();
    Ok(Planned { slots: rows.concat(), ends: layers.iter().map(|layer| layer.end).collect() })
}

/// Memory that a thread reuses from layer to layer.
#[derive(Default)]
struct CpuScratch {
    starts: Starts,
    apart: apart::NodeScratch,
    group_loads: Vec<u32>,
}

/// One layer, and the nodes solved so far.
struct CpuLayer<'a> {
    params: &'a Params,
    /// The numbers of each node alone, and how its GPUs may be filled apart, where GPUs are of unequal speed; else empty.
    of_nodes: (&'a [Params], &'a [Option<Apart>]),
    /// All balanced assignments, where they can be enumerated.
    table: &'a [Vec<u32>],
    /// Load of each expert, all windows together.
    combined: &'a [u32],
    /// Load of each expert, window by window.
    windows: Vec<&'a [u32]>,
    /// The least bound of an assignment: no plan of the layer goes below it.
    bound: u32,
    /// Nodes by their groups, and where GPUs are of unequal speed by the first node of the same speeds: several assignments
    /// share one.
    solved: Vec<((usize, Vec<u32>), NodeBest)>,
}

impl CpuLayer<'_> {
    /// s1 to s6: the best assignment, then further starts of its nodes.
    fn plan(mut self, scratch: &mut CpuScratch) -> LayerBest {
        let params = self.params;
        s1_group_loads::group_loads(params, self.combined, &mut scratch.group_loads);
        let mut best = LayerBest::none();
        if params.windows > 1 {
            let floors = self.choose_windows(scratch, &mut best);
            self.start_again(&floors, scratch, &mut best);
            return best;
        }
        self.choose(scratch, &mut best);
        self.start_again(&[0], scratch, &mut best);
        if params.repair {
            let CpuScratch { group_loads, .. } = scratch;
            let repaired =
                s2_groups_to_nodes::repair(params, self.combined, group_loads, &best.groups, &best.node_max);
            if let Some(assignment) = repaired.filter(|a| a.bound < best.max) {
                let nodes = self.solve(&assignment.groups, params.starts, &[0], scratch);
                best.offer(params, &assignment.groups, &nodes);
            }
        }
        best
    }

    /// Tries assignments, in the order of their bounds, until one is good enough or those left cannot win. The first ones are
    /// planned in full, the others by the first start of their nodes.
    fn choose(&mut self, scratch: &mut CpuScratch, best: &mut LayerBest) {
        let params = self.params;
        let mut assignments =
            s2_groups_to_nodes::choose(params, self.table, self.combined, &scratch.group_loads);
        self.bound = assignments[0].bound;
        let greedy = params
            .tries_greedy_assignment()
            .then(|| s2_groups_to_nodes::greedy(params, self.combined, &scratch.group_loads))
            .filter(|greedy| *greedy != assignments[0]);
        assignments.push(greedy.unwrap_or(Assignment { bound: u32::MAX, groups: Vec::new() }));
        let last = assignments.len() - 1;
        for (number, assignment) in assignments.iter().enumerate() {
            let is_open = best.max > params.enough(self.bound);
            if assignment.bound < best.max && (is_open || number == last) {
                let is_full = number < last.min(FULL_ASSIGNMENTS as usize);
                let nodes =
                    self.solve(&assignment.groups, if is_full { params.starts } else { 1 }, &[0], scratch);
                best.offer(params, &assignment.groups, &nodes);
            }
        }
    }

    /// The assignment for several windows, by its first start; returns the floors of the windows.
    fn choose_windows(&mut self, scratch: &mut CpuScratch, best: &mut LayerBest) -> Vec<u32> {
        let params = self.params;
        let group_loads = |loads: &[u32]| {
            let mut out = Vec::new();
            s1_group_loads::group_loads(params, loads, &mut out);
            out
        };
        let windows: Vec<Vec<u32>> = self.windows.iter().map(|row| group_loads(row)).collect();
        let assignment =
            s2_groups_to_nodes::choose_windows(params, self.table, &scratch.group_loads, &windows);
        self.bound = assignment.bound;
        let floors = gather::floors(params, &assignment, &windows);
        let nodes = self.solve(&assignment.groups, 1, &floors, scratch);
        best.take(params, &assignment.groups, &nodes);
        floors
    }

    /// Further starts of the nodes of the best assignment, where it is not good enough.
    fn start_again(&mut self, floors: &[u32], scratch: &mut CpuScratch, best: &mut LayerBest) {
        let params = self.params;
        if best.max > params.enough(self.bound) && params.starts > 1 {
            let groups = best.groups.clone();
            let nodes = self.solve(&groups, params.starts, floors, scratch);
            best.take(params, &groups, &nodes);
        }
    }

    /// The nodes of an assignment, by at most this many starts each.
    fn solve(
        &mut self,
        groups: &[u32],
        starts: u32,
        floors: &[u32],
        scratch: &mut CpuScratch,
    ) -> Vec<&NodeBest> {
        let mut places = Vec::with_capacity(self.params.nodes as usize);
        for (at, groups) in groups.chunks_exact(self.params.node_groups as usize).enumerate() {
            let is_alike = |of: &Params| of.factors == self.of_nodes.0[at].factors;
            let kind = self.of_nodes.0.iter().position(is_alike).unwrap_or(0);
            let is_solved =
                |((of, solved), _): &((usize, Vec<u32>), NodeBest)| *of == kind && solved == groups;
            let place = self.solved.iter().position(is_solved).unwrap_or(self.solved.len());
            if place == self.solved.len() {
                self.solved.push(((kind, groups.to_vec()), NodeBest::none()));
            }
            let mut node = std::mem::replace(&mut self.solved[place].1, NodeBest::none());
            let params = self.of_nodes.0.get(kind).unwrap_or(self.params);
            let apart = self.of_nodes.1.get(kind).and_then(Option::as_ref);
            self.solve_node((params, apart), groups, (starts, floors), scratch, &mut node);
            self.solved[place].1 = node;
            places.push(place);
        }
        places.into_iter().map(|place| &self.solved[place].1).collect()
    }

    /// s3 to s6 for the node that holds these groups: starts until one is good enough, or some bring nothing.
    fn solve_node(
        &self,
        (params, apart): (&Params, Option<&Apart>),
        groups: &[u32],
        (starts, floors): (u32, &[u32]),
        scratch: &mut CpuScratch,
        node: &mut NodeBest,
    ) {
        if node.starts >= starts {
            return;
        }
        node_loads(params, groups, self.combined, &mut scratch.starts.combined);
        let bound = match params.windows {
            1 => self.bound.max(gather::node_bound(params, &scratch.starts.combined)),
            _ => self.bound,
        };
        gather::lay_windows(params, groups, &self.windows, &mut scratch.starts.loads);
        if let Some(apart) = apart.filter(|_| node.starts == 0) {
            scratch.apart.run(params, (apart, groups[0]), &scratch.starts.combined, bound, node);
        }
        let few = if apart.is_some() { starts.min(apart::starts(params)) } else { starts };
        while node.starts < few && node.max > params.enough(bound) && node.idle < params.start_patience {
            let of_node = (groups[0], node.starts);
            let outcome = scratch.starts.run(params, of_node, (floors, params.stop_load(bound)), &mut |_| ());
            node.offer(outcome, &scratch.starts.candidate.snapshot);
        }
    }
}
