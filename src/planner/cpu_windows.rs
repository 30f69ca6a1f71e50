//! The pipeline on the CPU backend where there are several windows: the mirrors, layer by layer, over all cores.

use super::cpu::Planned;
use crate::mirror::s2_groups_to_nodes::{self, Assignment};
use crate::mirror::s5_refine_windows::{self, Candidate, Quad};
use crate::mirror::s6_select::{LayerBest, NodeBest};
use crate::mirror::{rng, s1_group_loads, s3_replicate, s4_pack_windows};
use crate::params::{Params, enumerate_assignments};
use crate::threads;

/// What a thread reuses from layer to layer.
#[derive(Default)]
struct Scratch {
    candidate: Candidate,
    mean: Vec<u32>,
    loads: Vec<Quad>,
}

/// Plans all layers. `windows` is `[windows][layers][experts]`, and `mean` its sum.
pub fn plan(params: &Params, mean: &[u32], windows: &[u32]) -> Planned {
    let table = enumerate_assignments(params.groups, params.nodes);
    let experts = params.experts as usize;
    let layers = threads::each(mean.len() / experts, |layer, scratch: &mut Scratch| {
        let row = layer * experts..(layer + 1) * experts;
        let windows = windows.chunks_exact(params.layers as usize * experts);
        let rows: Vec<&[u32]> = windows.map(|window| &window[row.clone()]).collect();
        plan_layer(params, &table, &mean[row], &rows, scratch)
    });
    Planned::of(&layers)
}

/// s1 to s6 for one layer, of which `rows` are the windows.
fn plan_layer(
    params: &Params,
    table: &[Vec<u32>],
    mean: &[u32],
    rows: &[&[u32]],
    scratch: &mut Scratch,
) -> LayerBest {
    let group_loads = |loads: &[u32]| {
        let mut out = Vec::new();
        s1_group_loads::group_loads(params, loads, &mut out);
        out
    };
    let windows: Vec<Vec<u32>> = rows.iter().map(|row| group_loads(row)).collect();
    let assignment = s2_groups_to_nodes::choose_windows(params, table, &group_loads(mean), &windows);
    let floors = floors(params, &assignment, &windows);
    let nodes: Vec<NodeBest> = (0..params.nodes)
        .map(|node| plan_node(params, &assignment, node, mean, rows, &floors, scratch))
        .collect();
    let mut best = LayerBest::none();
    best.offer(params, &assignment, &nodes);
    best
}

/// The busiest node's share of each window.
pub fn floors(params: &Params, assignment: &Assignment, windows: &[Vec<u32>]) -> Vec<Quad> {
    let mut floors = vec![Quad::default(); params.quads() as usize];
    for (window, loads) in windows.iter().enumerate() {
        floors[window / 4][window % 4] = s2_groups_to_nodes::node_share(params, &assignment.groups, loads);
    }
    floors
}

/// s3 to s6 for one node.
fn plan_node(
    params: &Params,
    assignment: &Assignment,
    node: u32,
    mean: &[u32],
    rows: &[&[u32]],
    floors: &[Quad],
    scratch: &mut Scratch,
) -> NodeBest {
    let stop_load = params.stop_load(assignment.bound);
    s2_groups_to_nodes::node_loads(params, &assignment.groups, node, mean, &mut scratch.mean);
    quads(params, &assignment.groups, node, rows, &mut scratch.loads);
    let Scratch { candidate, mean, loads } = scratch;
    candidate.floors.clear();
    candidate.floors.extend_from_slice(floors);
    let mut best = NodeBest::none();
    for restart in 0..params.restarts {
        let key = rng::key(params, node, restart);
        s3_replicate::replicate(params, key, restart, mean, &mut candidate.counts, &mut candidate.scratch);
        s4_pack_windows::pack(params, key, restart, mean, loads, candidate);
        let outcome = s5_refine_windows::refine(params, key, loads, stop_load, candidate);
        best.offer(params, restart, outcome, stop_load, &candidate.snapshot);
        if best.value <= stop_load {
            break;
        }
    }
    best
}

/// The loads of a node's experts in all windows, in quads.
pub fn quads(params: &Params, groups: &[u32], node: u32, rows: &[&[u32]], out: &mut Vec<Quad>) {
    let quads = params.quads() as usize;
    out.clear();
    out.resize(params.node_experts as usize * quads, Quad::default());
    let mut loads = Vec::new();
    for (window, row) in rows.iter().enumerate() {
        s2_groups_to_nodes::node_loads(params, groups, node, row, &mut loads);
        s5_refine_windows::lay_window(quads, window, &loads, out);
    }
}
