//! Assignments that are built by a rule, with noise, and improved by swaps of groups.

use crate::mirror::rng;
use crate::options::GroupRule;
use crate::params::{GROUP_SWAP_PAIRS, GROUP_SWAP_STEPS, Params};

/// Assignment `sample` by LPT: largest group first (ties to the lower index) to the least loaded node with
/// room (ties to the lower node). Sample 0 is DeepSeek's rule; the others add noise before the argmin. Under
/// [`GroupRule::BestFirst`] group swaps follow.
pub fn build(params: &Params, rule: GroupRule, group_loads: &[u32], sample: u32) -> Vec<u32> {
    let (nodes, room) = (params.nodes as usize, params.node_groups as usize);
    let key = rng::key(params, sample, rng::GROUPS);
    let mut order: Vec<u32> = (0..params.groups).collect();
    order.sort_unstable_by_key(|&g| (u32::MAX - group_loads[g as usize], g));
    let mut groups = vec![0; params.groups as usize];
    let mut node_load = vec![0u32; nodes];
    let mut used = vec![0usize; nodes];
    let mut largest = vec![0u32; nodes];
    for (item, &group) in (0..).zip(&order) {
        let load = group_loads[group as usize];
        let word = rng::draw(key, item);
        let mut best: Option<(u32, usize)> = None;
        for node in (0..nodes).filter(|&n| used[n] < room) {
            let mut choice = match params.has_speeds() {
                true => params.node_mean(node_load[node] + load, node),
                false => node_load[node],
            };
            if sample > 0 {
                choice += rng::place_noise(word, node as u32, load);
            }
            if rule == GroupRule::LptVariance && used[node] > 0 {
                // A quarter of the spread that the group would make inside the node.
                choice += (largest[node] - load) >> 2;
            }
            if best.is_none_or(|b| (choice, node) < b) {
                best = Some((choice, node));
            }
        }
        let node = best.map_or(0, |(_, node)| node);
        if used[node] == 0 {
            largest[node] = load;
        }
        groups[node * room + used[node]] = group;
        used[node] += 1;
        node_load[node] += load;
    }
    let swaps = !params.has_speeds() && params.node_groups * params.groups <= GROUP_SWAP_PAIRS;
    if rule == GroupRule::BestFirst && swaps {
        for _ in 0..GROUP_SWAP_STEPS {
            let heavy = heaviest_node(&node_load);
            if !swap_groups(params, group_loads, &mut groups, &mut node_load, heavy, None) {
                break;
            }
        }
    }
    groups
}

/// The heaviest node, ties to the lower index.
pub fn heaviest_node(node_load: &[u32]) -> usize {
    (0..node_load.len()).max_by_key(|&n| (node_load[n], usize::MAX - n)).unwrap_or(0)
}

/// Makes the best swap of a group of node `heavy` with one of another node (or of `partner` alone), by the
/// larger of the two node loads; ties to the lower place. Whether there was one.
pub fn swap_groups(
    params: &Params,
    group_loads: &[u32],
    groups: &mut [u32],
    node_load: &mut [u32],
    heavy: usize,
    partner: Option<usize>,
) -> bool {
    let room = params.node_groups as usize;
    let mut best = 0;
    let mut swap = None;
    for to in 0..groups.len() {
        let other = to / room;
        let distance = node_load[heavy] as i32 - node_load[other] as i32;
        if other == heavy || partner.is_some_and(|p| p != other) || distance / 2 <= best {
            continue;
        }
        for from in heavy * room..(heavy + 1) * room {
            let d = group_loads[groups[from] as usize] as i32 - group_loads[groups[to] as usize] as i32;
            let gain = d.min(distance - d);
            if gain > best {
                best = gain;
                swap = Some((from, to, d as u32));
            }
        }
    }
    let Some((from, to, moved)) = swap else { return false };
    groups.swap(from, to);
    node_load[heavy] -= moved;
    node_load[to / room] += moved;
    true
}
