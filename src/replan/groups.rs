//! A start under another group assignment: two groups of different nodes exchange places.

use super::objective::LayerObjective;
use crate::mirror::s3_replicate::give_replicas;
use crate::params::{FREE, PULL_BITS, Params};

/// An exchange must lower the objective of the nodes by this many thousandths of the mean: it moves whole groups.
const LEAST_GAIN: i64 = 2;

/// With more groups than this, those of the busiest node alone are offered.
const MOST_GROUPS: usize = 128;

/// `row` after the exchange of two groups that lowers the objective of the nodes' mean GPUs most, ties to the lower groups.
/// `None` where none lowers it enough, or the groups do not fit into each other's slots.
///
/// All other replicas keep their slots. Each group takes over the slots of the other, with the best counts for that many
/// replicas, heaviest replica first to the least loaded GPU.
pub fn exchange(params: &Params, objective: &LayerObjective, row: &[u32]) -> Option<Vec<u32>> {
    if params.nodes < 2 {
        return None;
    }
    let size = params.group_size as usize;
    let node_slots = params.node_slots as usize;
    let nodes = GroupedNodes::new(params, objective, row);
    let (x, y) = nodes.best_exchange()?;
    let mean: Vec<u32> =
        objective.weight.chunks_exact(objective.windows).map(|row| row.iter().sum::<i32>() as u32).collect();
    let mut swapped = row.to_vec();
    for (out, back) in [(x, y), (y, x)] {
        let node = nodes.node_of[out];
        let part = &mut swapped[node * node_slots..(node + 1) * node_slots];
        let (incoming, outgoing) = (back * size..(back + 1) * size, out * size..(out + 1) * size);
        take_over(params, &mean, incoming, outgoing, (node, part))?;
    }
    Some(swapped)
}

/// The nodes, and the groups on them.
struct GroupedNodes<'a> {
    params: &'a Params,
    objective: &'a LayerObjective,
    /// `[groups]`
    node_of: Vec<usize>,
    /// `[groups][windows]`
    group_loads: Vec<i32>,
    /// `[nodes][windows]`
    loads: Vec<i32>,
    /// The three heaviest nodes of each window, over their speed.
    tops: Vec<[usize; 3]>,
    /// How often the square of a node's mean GPU counts, see [`Params::pulls`].
    pulls: Vec<i64>,
}

impl<'a> GroupedNodes<'a> {
    fn new(params: &'a Params, objective: &'a LayerObjective, row: &[u32]) -> Self {
        let (windows, groups) = (objective.windows, params.groups as usize);
        let size = params.group_size as usize;
        let mut group_loads = vec![0; groups * windows];
        for (expert, loads) in objective.weight.chunks_exact(windows).take(groups * size).enumerate() {
            for (sum, load) in group_loads[expert / size * windows..].iter_mut().zip(loads) {
                *sum += load;
            }
        }
        let mut node_of = vec![0; groups];
        for (slot, &expert) in row.iter().enumerate().filter(|(_, e)| **e != FREE) {
            node_of[expert as usize / size] = slot / params.node_slots as usize;
        }
        let mut loads = vec![0; params.nodes as usize * windows];
        for (group, &node) in node_of.iter().enumerate() {
            for window in 0..windows {
                loads[node * windows + window] += group_loads[group * windows + window];
            }
        }
        let top = |window: usize| {
            let mut order: Vec<usize> = (0..params.nodes as usize).collect();
            order.sort_by_key(|&node| (-params.node_gpu(loads[node * windows + window], node), node));
            [0, 1, 2].map(|i| order.get(i).copied().unwrap_or(usize::MAX))
        };
        let tops = (0..windows).map(top).collect();
        let mut pulls = vec![i64::from(params.node_gpus) << PULL_BITS; params.nodes as usize];
        if params.has_speeds() {
            let of_gpus: Vec<i64> = params.pulls().map(i64::from).collect();
            pulls = of_gpus.chunks(params.node_gpus as usize).map(|gpus| gpus.iter().sum()).collect();
        }
        Self { params, objective, node_of, group_loads, loads, tops, pulls }
    }

    /// The exchange that lowers the objective most, if that is enough.
    fn best_exchange(&self) -> Option<(usize, usize)> {
        let groups = self.node_of.len();
        let busiest = self.busiest();
        let offered: Vec<usize> =
            (0..groups).filter(|&x| groups <= MOST_GROUPS || self.node_of[x] == busiest).collect();
        let mut best = (-i64::from(self.objective.mean) * LEAST_GAIN / 1000, 0, 0);
        for x in offered {
            for y in 0..groups {
                let is_pair = self.node_of[x] != self.node_of[y] && (x < y || groups > MOST_GROUPS);
                if is_pair {
                    let change = self.change(x, y);
                    if change < best.0 {
                        best = (change, x, y);
                    }
                }
            }
        }
        (best.1 != best.2).then_some((best.1, best.2))
    }

    /// The node with most load over its speed, all windows together.
    fn busiest(&self) -> usize {
        let load = |node: usize| -> i64 {
            let windows = self.objective.windows;
            let loads = self.loads[node * windows..(node + 1) * windows].iter();
            let factor = self.params.factors.nodes.get(node).map_or(1, |&factor| i64::from(factor));
            loads.map(|&load| i64::from(load)).sum::<i64>() * factor
        };
        (0..self.params.nodes as usize).max_by_key(|&node| (load(node), usize::MAX - node)).unwrap_or(0)
    }

    /// By how much the objective changes where two groups change places.
    fn change(&self, x: usize, y: usize) -> i64 {
        let windows = self.objective.windows;
        let (a, b) = (self.node_of[x], self.node_of[y]);
        let mut change = 0;
        for window in 0..windows {
            let load = |node: usize| self.loads[node * windows + window];
            let moved = self.group_loads[x * windows + window] - self.group_loads[y * windows + window];
            let top = self.tops[window];
            let other = top.iter().find(|&&node| node != a && node != b && node != usize::MAX);
            let other = other.map_or(0, |&node| self.params.node_gpu(load(node), node));
            // The mean GPUs of the two nodes.
            let gpus = |of_a: i32, of_b: i32| [self.params.node_gpu(of_a, a), self.params.node_gpu(of_b, b)];
            let (now, then) = (gpus(load(a), load(b)), gpus(load(a) - moved, load(b) + moved));
            let peak = |two: [i32; 2]| two[0].max(two[1]).max(other);
            let squares = |two: [i32; 2]| -> i64 {
                let square = |load: i32, node: usize| {
                    (i64::from(self.objective.squares[window].of(load)) * self.pulls[node]) >> PULL_BITS
                };
                square(two[0], a) + square(two[1], b)
            };
            change += i64::from(peak(then) - peak(now)) + squares(then) - squares(now);
        }
        change
    }
}

/// Puts the experts of one group into the slots that another has on a node. `None` where they do not fit.
fn take_over(
    params: &Params,
    mean: &[u32],
    incoming: std::ops::Range<usize>,
    outgoing: std::ops::Range<usize>,
    (at, node): (usize, &mut [u32]),
) -> Option<()> {
    let slots = params.slots_per_gpu as usize;
    let leaves = |expert: u32| expert != FREE && outgoing.contains(&(expert as usize));
    let replicas = node.iter().filter(|&&e| leaves(e)).count();
    let mut counts = Vec::new();
    give_replicas(&mean[incoming.clone()], replicas as u32, params.max_count, &mut counts);
    if counts.iter().sum::<u32>() as usize != replicas {
        return None;
    }
    let mut items: Vec<(u32, usize)> = incoming
        .clone()
        .zip(&counts)
        .flat_map(|(expert, &count)| (0..count).map(move |_| (mean[expert] / count, expert)))
        .collect();
    items.sort_by_key(|&(load, expert)| (u32::MAX - load, expert));
    // Loads of what stays, by its replicas in the node.
    let mut held = vec![0u32; mean.len()];
    for &expert in node.iter().filter(|&&e| e != FREE && !leaves(e)) {
        held[expert as usize] += 1;
    }
    let gpus = node.len() / slots;
    let mut gpu_load: Vec<u32> = node
        .chunks_exact(slots)
        .map(|gpu| {
            let stays = gpu.iter().filter(|&&e| e != FREE && !leaves(e));
            stays.map(|&e| mean[e as usize] / held[e as usize]).sum()
        })
        .collect();
    let mut vacant: Vec<Vec<usize>> = (0..gpus)
        .map(|gpu| (gpu * slots..(gpu + 1) * slots).rev().filter(|&slot| leaves(node[slot])).collect())
        .collect();
    for &slot in vacant.iter().flatten() {
        node[slot] = FREE;
    }
    for (load, expert) in items {
        let on = |gpu: usize| node[gpu * slots..(gpu + 1) * slots].contains(&(expert as u32));
        let gpu = (0..gpus)
            .filter(|&gpu| !vacant[gpu].is_empty())
            .filter(|&gpu| !params.avoid_duplicates || !on(gpu))
            .min_by_key(|&gpu| (params.on_gpu(gpu_load[gpu] + load, at * gpus + gpu), gpu))?;
        let slot = vacant[gpu].pop()?;
        node[slot] = expert as u32;
        gpu_load[gpu] += load;
    }
    Some(())
}
