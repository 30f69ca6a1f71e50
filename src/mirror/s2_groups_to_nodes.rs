//! Stage 2, the mirror of `shaders/s2_groups_to_nodes.wgsl`: which groups each node holds.

mod gather;

use std::borrow::Cow;

use crate::mirror::rng;
use crate::options::GroupRule;
use crate::params::{ASSIGNMENT_WALK, GROUP_SWAP_PAIRS, GROUP_SWAP_STEPS, Params, SAMPLED_ASSIGNMENTS};

pub use gather::{node_bound, node_loads};

/// A balanced assignment of groups to nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Groups, node after node, `node_groups` each.
    pub groups: Vec<u32>,
    /// What no plan of it can go below, in fixed point: the larger of a node's load per GPU and the heaviest
    /// replica under the best counts.
    pub bound: u32,
}

/// The best assignments of one layer, best first, at most `params.assignments` and at least one.
///
/// Many assignments are equally good by their busiest node alone. Under [`GroupRule::BestFirst`] the first is
/// DeepSeek's if none is better: it spreads the other nodes as well, which the next window repays.
///
/// `table` holds all balanced assignments where they could be enumerated (see
/// [`crate::params::enumerate_assignments`]).
pub fn choose(params: &Params, table: &[Vec<u32>], loads: &[u32], group_loads: &[u32]) -> Vec<Assignment> {
    let candidates = candidates(params, table, group_loads);
    // Cheap scores first; the exact score, which can only be larger, in their order while it can matter.
    let mut order: Vec<(u32, usize)> =
        (0..candidates.len()).map(|i| (node_average(params, &candidates[i], group_loads), i)).collect();
    order.sort_unstable();
    let wanted = params.assignments as usize;
    let mut best: Vec<(u32, usize)> = Vec::with_capacity(wanted + 1);
    for &(average, i) in order.iter().take((ASSIGNMENT_WALK as usize).max(wanted)) {
        if best.len() == wanted && best[wanted - 1].0 <= average {
            break;
        }
        let bound = exact_bound(params, &candidates[i], average, loads);
        let at = best.partition_point(|b| b.0 <= bound);
        best.insert(at, (bound, i));
        best.truncate(wanted);
    }
    let mut chosen: Vec<Assignment> =
        best.into_iter().map(|(bound, i)| Assignment { groups: candidates[i].clone(), bound }).collect();
    if params.group_rule == GroupRule::BestFirst {
        prefer(greedy(params, loads, group_loads), &mut chosen[0]);
    }
    chosen
}

/// Puts an assignment in the place of one that is not better.
fn prefer(assignment: Assignment, place: &mut Assignment) {
    if assignment.bound <= place.bound {
        *place = assignment;
    }
}

/// The best assignment of one layer for several windows: the least sum over windows of the busiest node's
/// average, its bound; ties to DeepSeek's assignment (under [`GroupRule::BestFirst`]), then to the first candidate.
/// Candidates, DeepSeek's among them, are built from the mean loads.
///
/// `mean_group_loads` is `[groups]`, `group_loads` has a row for each window.
pub fn choose_windows(
    params: &Params,
    table: &[Vec<u32>],
    mean_group_loads: &[u32],
    group_loads: &[Vec<u32>],
) -> Assignment {
    let candidates = candidates(params, table, mean_group_loads);
    let score = |groups: &Vec<u32>| group_loads.iter().map(|loads| node_average(params, groups, loads)).sum();
    let best = candidates.iter().map(|groups| (score(groups), groups)).min_by_key(|(bound, _)| *bound);
    let mut chosen =
        best.map(|(bound, groups)| Assignment { groups: groups.clone(), bound }).unwrap_or_default();
    if params.group_rule == GroupRule::BestFirst {
        let groups = build(params, GroupRule::Lpt, mean_group_loads, 0);
        prefer(Assignment { bound: score(&groups), groups }, &mut chosen);
    }
    chosen
}

/// The assignments to choose from: all there are, or those built by the rule. Of the nodes of unequal speed the fastest
/// gets the heaviest set of groups, and so on: no other order of the sets has a lighter busiest node.
fn candidates<'a>(params: &Params, table: &'a [Vec<u32>], group_loads: &[u32]) -> Cow<'a, [Vec<u32>]> {
    let samples = match params.group_rule {
        GroupRule::BestFirst if !table.is_empty() && params.has_speeds() => {
            return table.iter().map(|groups| seated(params, groups, group_loads)).collect();
        }
        GroupRule::BestFirst if !table.is_empty() => return Cow::Borrowed(table),
        GroupRule::BestFirst => SAMPLED_ASSIGNMENTS,
        GroupRule::Lpt | GroupRule::LptVariance => 1,
    };
    (0..samples).map(|sample| build(params, params.group_rule, group_loads, sample)).collect()
}

/// The same sets of groups, the heaviest in the fastest node and so on.
fn seated(params: &Params, groups: &[u32], group_loads: &[u32]) -> Vec<u32> {
    let load = |set: &[u32]| set.iter().map(|&g| group_loads[g as usize]).sum::<u32>();
    let mut sets: Vec<&[u32]> = groups.chunks_exact(params.node_groups as usize).collect();
    sets.sort_by_key(|set| std::cmp::Reverse(load(set)));
    let mut nodes: Vec<usize> = (0..sets.len()).collect();
    nodes.sort_by_key(|&node| params.factors.nodes[node]);
    let mut seats = vec![&[][..]; sets.len()];
    for (node, set) in nodes.into_iter().zip(sets) {
        seats[node] = set;
    }
    seats.concat()
}

/// DeepSeek's assignment. A plan is never worse than the greedy one, so this is tried last where it was not chosen
/// and could still win.
pub fn greedy(params: &Params, loads: &[u32], group_loads: &[u32]) -> Assignment {
    let groups = build(params, GroupRule::Lpt, group_loads, 0);
    let bound = exact_bound(params, &groups, node_average(params, &groups, group_loads), loads);
    Assignment { groups, bound }
}

/// The largest node load over GPUs a node, rounded up; over their speeds where these are unequal.
pub fn node_average(params: &Params, groups: &[u32], group_loads: &[u32]) -> u32 {
    let nodes = groups.chunks_exact(params.node_groups as usize);
    let load = |node: &[u32]| node.iter().map(|&g| group_loads[g as usize]).sum::<u32>();
    if params.has_speeds() {
        return nodes.enumerate().map(|(at, node)| params.node_mean(load(node), at)).max().unwrap_or(0);
    }
    nodes.map(load).max().unwrap_or(0).div_ceil(params.node_gpus)
}

/// The larger of `average` and the heaviest replica of any node under the counts that keep it lightest.
fn exact_bound(params: &Params, groups: &[u32], average: u32, loads: &[u32]) -> u32 {
    let mut bound = average;
    let mut node = Vec::new();
    for (at, groups) in groups.chunks_exact(params.node_groups as usize).enumerate() {
        node_loads(params, groups, loads, &mut node);
        bound = match params.has_speeds() {
            true => bound.max(params.on_fastest(lightest_heaviest(params, &node, 0), at)),
            false => lightest_heaviest(params, &node, bound),
        };
    }
    bound
}

/// The least `t >= floor` such that counts exist under which no replica is heavier than `t`, by bisection:
/// expert `e` needs `max(1, ceil(w_e / t))` of the node's replicas.
fn lightest_heaviest(params: &Params, node: &[u32], floor: u32) -> u32 {
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

/// Assignment `sample` by LPT: largest group first (ties to the lower index) to the least loaded node with
/// room (ties to the lower node). Sample 0 is DeepSeek's rule; the others add noise before the argmin. Under
/// [`GroupRule::BestFirst`] group swaps follow.
fn build(params: &Params, rule: GroupRule, group_loads: &[u32], sample: u32) -> Vec<u32> {
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
fn heaviest_node(node_load: &[u32]) -> usize {
    (0..node_load.len()).max_by_key(|&n| (node_load[n], usize::MAX - n)).unwrap_or(0)
}

/// Makes the best swap of a group of node `heavy` with one of another node (or of `partner` alone), by the
/// larger of the two node loads; ties to the lower place. Whether there was one.
fn swap_groups(
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

/// Post-hierarchical repair: the assignment after the best swap of a group of the node with the heaviest GPU
/// and one of the node whose heaviest GPU is lightest; `None` where no swap brings the node loads closer.
pub fn repair(
    params: &Params,
    loads: &[u32],
    group_loads: &[u32],
    groups: &[u32],
    node_max: &[u32],
) -> Option<Assignment> {
    let mut groups = groups.to_vec();
    let node = |n: usize| &groups[n * params.node_groups as usize..(n + 1) * params.node_groups as usize];
    let mut node_load: Vec<u32> =
        (0..params.nodes as usize).map(|n| node(n).iter().map(|&g| group_loads[g as usize]).sum()).collect();
    let heavy = heaviest_node(node_max);
    let light = (0..node_max.len()).min_by_key(|&n| (node_max[n], n)).unwrap_or(0);
    if !swap_groups(params, group_loads, &mut groups, &mut node_load, heavy, Some(light)) {
        return None;
    }
    let average = node_average(params, &groups, group_loads);
    let bound = exact_bound(params, &groups, average, loads);
    Some(Assignment { groups, bound })
}
