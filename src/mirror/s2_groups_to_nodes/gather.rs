//! What later stages need of the nodes of an assignment.

use super::lightest_heaviest;
use crate::params::Params;

/// The loads of the experts of a node that holds `groups`, in its own numbering: group by group, expert by expert.
pub fn node_loads(params: &Params, groups: &[u32], loads: &[u32], out: &mut Vec<u32>) {
    out.clear();
    for &group in groups {
        let first = (group * params.group_size) as usize;
        out.extend_from_slice(&loads[first..first + params.group_size as usize]);
    }
}

/// What no placement of a node goes below: the larger of its load per GPU and its heaviest replica under the counts
/// that keep that lightest. Where GPUs are of unequal speed `params` are those of the node alone.
pub fn node_bound(params: &Params, loads: &[u32]) -> u32 {
    if params.has_speeds() {
        let heaviest = params.on_fastest(lightest_heaviest(params, loads, 0), 0);
        return params.node_mean(loads.iter().sum(), 0).max(heaviest);
    }
    lightest_heaviest(params, loads, loads.iter().sum::<u32>().div_ceil(params.node_gpus))
}
