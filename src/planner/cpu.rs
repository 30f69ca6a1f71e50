//! The pipeline on the CPU backend: the mirrors, layer by layer, over all cores.

use super::cpu_windows;
use crate::mirror::s2_groups_to_nodes::{self, Assignment};
use crate::mirror::s5_refine::{self, Candidate, End};
use crate::mirror::s6_select::{LayerBest, NodeBest};
use crate::mirror::{rng, s1_group_loads, s3_replicate, s4_pack};
use crate::params::{Params, enumerate_assignments};
use crate::threads;

/// Logical expert of each slot and the end of the search, layer after layer.
pub struct Planned {
    /// `[layers][slots]`, `FREE` for a free slot.
    pub slots: Vec<u32>,
    /// `[layers]`.
    pub ends: Vec<End>,
}

impl Planned {
    /// All layers' plans, in order.
    pub fn of(layers: &[LayerBest]) -> Self {
        let rows: Vec<&[u32]> = layers.iter().map(|layer| &layer.slots[..]).collect();
        Self { slots: rows.concat(), ends: layers.iter().map(|layer| layer.end).collect() }
    }
}

/// Plans all layers. `windows` is `[windows][layers][experts]`, and `loads` its sum.
pub fn plan(params: &Params, loads: &[u32], windows: &[u32]) -> Planned {
    if params.windows > 1 {
        return cpu_windows::plan(params, loads, windows);
    }
    let enumerates = params.group_rule == crate::options::GroupRule::BestFirst;
    let table = if enumerates { enumerate_assignments(params.groups, params.nodes) } else { Vec::new() };
    let experts = params.experts as usize;
    let layers = threads::each(loads.len() / experts, |layer, scratch: &mut Scratch| {
        plan_layer(params, &table, &loads[layer * experts..(layer + 1) * experts], scratch)
    });
    Planned::of(&layers)
}

/// What a thread reuses from layer to layer.
#[derive(Default)]
struct Scratch {
    candidate: Candidate,
    group_loads: Vec<u32>,
    node_loads: Vec<u32>,
}

/// s1 to s6 for one layer.
fn plan_layer(params: &Params, table: &[Vec<u32>], loads: &[u32], scratch: &mut Scratch) -> LayerBest {
    s1_group_loads::group_loads(params, loads, &mut scratch.group_loads);
    let assignments = s2_groups_to_nodes::choose(params, table, loads, &scratch.group_loads);
    let mut best = LayerBest::none();
    let rounds = params.rounds();
    for assignment in &assignments {
        if best.worth_trying(assignment.bound) {
            best.offer(params, assignment, &plan_nodes(params, assignment, &rounds, loads, scratch));
        }
    }
    if params.tries_greedy_assignment() {
        let greedy = s2_groups_to_nodes::greedy(params, loads, &scratch.group_loads);
        if greedy != assignments[0] && greedy.bound < best.max {
            best.offer(params, &greedy, &plan_nodes(params, &greedy, &rounds[..1], loads, scratch));
        }
    }
    if params.repair {
        let Scratch { group_loads, .. } = scratch;
        let repaired = s2_groups_to_nodes::repair(params, loads, group_loads, &best.groups, &best.node_max);
        if let Some(assignment) = repaired.filter(|a| best.worth_trying(a.bound)) {
            best.offer(params, &assignment, &plan_nodes(params, &assignment, &rounds, loads, scratch));
        }
    }
    best
}

/// s3 to s6 for the nodes of one assignment: rounds of restarts, after each of which only the nodes that
/// decide the layer go on.
fn plan_nodes(
    params: &Params,
    assignment: &Assignment,
    rounds: &[(u32, u32)],
    loads: &[u32],
    scratch: &mut Scratch,
) -> Vec<NodeBest> {
    let stop_load = params.stop_load(assignment.bound);
    let mut nodes = vec![NodeBest::none(); params.nodes as usize];
    for &(begin, end) in rounds {
        let deciding = nodes.iter().map(|n| n.value).max().unwrap_or(0);
        if deciding <= stop_load {
            break;
        }
        for (index, node) in (0..).zip(&mut nodes).filter(|(_, node)| node.value == deciding) {
            s2_groups_to_nodes::node_loads(params, &assignment.groups, index, loads, &mut scratch.node_loads);
            for restart in begin..end {
                run_restart(params, index, restart, stop_load, scratch, node);
                if node.value <= stop_load {
                    break;
                }
            }
        }
    }
    nodes
}

/// s3 to s6 for one restart of one node.
fn run_restart(
    params: &Params,
    node: u32,
    restart: u32,
    stop_load: u32,
    scratch: &mut Scratch,
    best: &mut NodeBest,
) {
    let Scratch { candidate, node_loads: loads, .. } = scratch;
    let key = rng::key(params, node, restart);
    s3_replicate::replicate(params, key, restart, loads, &mut candidate.counts, &mut candidate.scratch);
    s4_pack::pack(params, key, restart, loads, candidate);
    let outcome = s5_refine::refine(params, key, loads, stop_load, candidate);
    best.offer(params, restart, outcome, stop_load, &candidate.snapshot);
}
