//! The load that the heaviest replica of a node cannot go below.

use crate::params::Params;

/// The loads of the experts of a node that holds `groups`, in its own numbering: group by group, expert by expert.
pub fn node_loads(params: &Params, groups: &[u32], loads: &[u32], out: &mut Vec<u32>) {
    out.clear();
    for &group in groups {
        let first = (group * params.group_size) as usize;
        out.extend_from_slice(&loads[first..first + params.group_size as usize]);
    }
}

/// The least `t >= floor` such that counts exist under which no replica is heavier than `t`, by bisection:
/// expert `e` needs `max(1, ceil(w_e / t))` of the node's replicas.
pub fn lightest_heaviest(params: &Params, node: &[u32], floor: u32) -> u32 {
    let fits = |t: u32| {
        // Most need no division.
        let needs = node.iter().map(|&w| if w <= t { 1 } else { w.div_ceil(t) });
        needs.clone().all(|n| n <= params.max_count) && needs.sum::<u32>() <= params.node_replicas
    };
    let (mut low, mut high) = (floor.max(1), floor.max(1));
    while !fits(high) {
        low = high + 1;
        high *= 2;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) { high = middle } else { low = middle + 1 }
    }
    if high == 1 { floor } else { high }
}
