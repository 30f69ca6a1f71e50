//! Stage 2, the mirror of `shaders/s2_groups_to_nodes.wgsl`: which groups each node holds.

mod build;

use std::borrow::Cow;

use crate::mirror::bound::{lightest_heaviest, node_loads};
use crate::options::GroupRule;
use crate::params::{ASSIGNMENT_WALK, Params, SAMPLED_ASSIGNMENTS};
use build::{build, heaviest_node, swap_groups};

/// A balanced assignment of groups to nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Groups, node after node, `node_groups` each.
    pub groups: Vec<u32>,
    /// The load that no plan of it goes below, in fixed point: the larger of a node's load per GPU and the heaviest
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
