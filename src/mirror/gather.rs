//! The mirror of `shaders/gather.wgsl`: from an assignment to the problem of each of its nodes.

use crate::mirror::bound::{lightest_heaviest, node_loads};
use crate::mirror::s2_groups_to_nodes::{Assignment, node_average};
use crate::params::Params;

/// The load that no placement of a node goes below: the larger of its load per GPU and its heaviest replica under the counts
/// that keep that lightest. Where GPUs are of unequal speed `params` are those of the node alone.
pub fn node_bound(params: &Params, loads: &[u32]) -> u32 {
    if params.has_speeds() {
        let heaviest = params.on_fastest(lightest_heaviest(params, loads, 0), 0);
        return params.node_mean(loads.iter().sum(), 0).max(heaviest);
    }
    lightest_heaviest(params, loads, loads.iter().sum::<u32>().div_ceil(params.node_gpus))
}

/// The loads of a node's experts in all windows, `[experts][windows]`.
pub fn lay_windows(params: &Params, groups: &[u32], windows: &[&[u32]], out: &mut Vec<u32>) {
    out.clear();
    out.resize(params.node_experts as usize * windows.len(), 0);
    let mut loads = Vec::new();
    for (window, row) in windows.iter().enumerate() {
        node_loads(params, groups, row, &mut loads);
        for (out, &load) in out.iter_mut().skip(window).step_by(windows.len()).zip(&loads) {
            *out = load;
        }
    }
}

/// The load that the heaviest GPU of each window cannot go below: the busiest node's average.
pub fn floors(params: &Params, assignment: &Assignment, windows: &[Vec<u32>]) -> Vec<u32> {
    windows.iter().map(|loads| node_average(params, &assignment.groups, loads)).collect()
}
