//! A start for the warm search under another group assignment: two groups of different nodes exchange places.

use crate::cluster::Cluster;
use crate::mirror::s3_replicate::give_replicas;
use crate::params::{FREE, Params};
use crate::planner::warm_moves::Quad;

/// `previous` after the exchange of two groups that lowers the busiest node's share (summed over windows) most;
/// ties to the lower groups. `None` where no exchange does, or under the global policy.
///
/// All other replicas keep their slots. Each group takes over the slots of the other, with the best counts for
/// that many replicas, heaviest replica first to the least loaded GPU.
pub fn best(params: &Params, cluster: &Cluster, loads: &[Quad], previous: &[u32]) -> Option<Vec<u32>> {
    let nodes = cluster.planned_nodes();
    let groups = cluster.planned_groups();
    if nodes < 2 {
        return None;
    }
    let (quads, size) = (params.quads() as usize, params.experts as usize / groups);
    let windows = 4 * quads;
    let load = |expert: usize, window: usize| loads[expert * quads + window / 4][window % 4];
    let group_load = |group: usize, window: usize| -> u32 {
        (group * size..(group + 1) * size).map(|expert| load(expert, window)).sum()
    };
    let group_loads: Vec<Vec<u32>> =
        (0..groups).map(|group| (0..windows).map(|window| group_load(group, window)).collect()).collect();
    let slots = previous.len() / nodes;
    let mut node_of = vec![0; groups];
    for (slot, &expert) in previous.iter().enumerate().filter(|(_, e)| **e != FREE) {
        node_of[expert as usize / size] = slot / slots;
    }
    let mut node_loads = vec![vec![0u32; windows]; nodes];
    for (group, &node) in node_of.iter().enumerate() {
        for (sum, load) in node_loads[node].iter_mut().zip(&group_loads[group]) {
            *sum += load;
        }
    }
    // The share of the busiest node, with the loads of two nodes as they would be.
    let share = |a: usize, b: usize, with: &dyn Fn(usize, usize) -> u32| -> u64 {
        (0..windows)
            .map(|w| {
                let others = (0..nodes).filter(|&n| n != a && n != b).map(|n| node_loads[n][w]);
                u64::from(others.chain([with(a, w), with(b, w)]).max().unwrap_or(0))
            })
            .sum()
    };
    let now = share(0, 1, &|node, w| node_loads[node][w]);
    let pairs = (0..groups).flat_map(|x| (x + 1..groups).map(move |y| (x, y)));
    let (after, x, y) = pairs
        .filter(|&(x, y)| node_of[x] != node_of[y])
        .map(|(x, y)| {
            let with = |node: usize, w: usize| {
                let (out, back) = if node == node_of[x] { (x, y) } else { (y, x) };
                node_loads[node][w] - group_loads[out][w] + group_loads[back][w]
            };
            (share(node_of[x], node_of[y], &with), x, y)
        })
        .min()?;
    if after >= now {
        return None;
    }
    let mean: Vec<u32> =
        (0..params.experts as usize).map(|e| (0..windows).map(|w| load(e, w)).sum()).collect();
    let mut swapped = previous.to_vec();
    for (out, back) in [(x, y), (y, x)] {
        let node = node_of[out] * slots..(node_of[out] + 1) * slots;
        take_over(
            params,
            &mean,
            back * size..(back + 1) * size,
            out * size..(out + 1) * size,
            &mut swapped[node],
        )?;
    }
    Some(swapped)
}

/// Puts the experts of one group into the slots of another. `None` where they do not fit.
fn take_over(
    params: &Params,
    mean: &[u32],
    incoming: std::ops::Range<usize>,
    outgoing: std::ops::Range<usize>,
    node: &mut [u32],
) -> Option<()> {
    let slots = params.slots_per_gpu as usize;
    let leaves = |expert: u32| expert != FREE && outgoing.contains(&(expert as usize));
    let replicas = node.iter().filter(|&&e| leaves(e)).count();
    let mut counts = Vec::new();
    give_replicas(&mean[incoming.clone()], replicas as u32, params.max_count, &mut counts);
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
        .map(|gpu| (gpu * slots..(gpu + 1) * slots).filter(|&slot| leaves(node[slot])).collect())
        .collect();
    for slots in &vacant {
        for &slot in slots {
            node[slot] = FREE;
        }
    }
    for (load, expert) in items {
        let on = |gpu: usize| node[gpu * slots..(gpu + 1) * slots].contains(&(expert as u32));
        let gpu = (0..gpus)
            .filter(|&gpu| !vacant[gpu].is_empty())
            .filter(|&gpu| !params.avoid_duplicates || !on(gpu))
            .min_by_key(|&gpu| (gpu_load[gpu], gpu))?;
        let slot = vacant[gpu].remove(0);
        node[slot] = expert as u32;
        gpu_load[gpu] += load;
    }
    // Where every expert has its most replicas and slots are left, the groups cannot change places.
    vacant.iter().all(Vec::is_empty).then_some(())
}
