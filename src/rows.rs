//! The slots of one layer, `[nodes][GPUs][slots]`: what they carry, and where their groups are at home.

use std::cmp::Reverse;

use crate::params::{FREE, Params};

/// The sum over windows of the heaviest GPU.
pub fn peaks(params: &Params, rows: &[&[u32]], slots: &[u32]) -> u32 {
    let mut counts = vec![0u32; params.experts as usize];
    for &e in slots {
        if let Some(count) = counts.get_mut(e as usize) {
            *count += 1;
        }
    }
    let gpus = || slots.chunks_exact(params.slots_per_gpu as usize);
    let load = |row: &[u32], e: u32| row.get(e as usize).map_or(0, |load| load / counts[e as usize]);
    let carried = |row: &[u32], (gpu, held): (usize, &[u32])| {
        held.iter().map(|&e| params.on_gpu(load(row, e), gpu)).sum::<u32>()
    };
    let peak = |row: &&[u32]| gpus().enumerate().map(|gpu| carried(row, gpu)).max();
    rows.iter().map(|row| peak(row).unwrap_or(0)).sum()
}

/// The home of each expert: of its group, the node that holds most of it, largest holdings first, while there is room.
pub fn homes(params: &Params, old: &[u32]) -> Vec<u32> {
    let (groups, nodes) = (params.groups as usize, params.nodes as usize);
    let mut held = vec![0usize; groups * nodes];
    for (slot, &e) in old.iter().enumerate().filter(|(_, e)| **e != FREE) {
        held[(e / params.group_size) as usize * nodes + slot / params.node_slots as usize] += 1;
    }
    let mut order: Vec<usize> = (0..held.len()).collect();
    order.sort_by_key(|&at| (Reverse(held[at]), at));
    let mut home = vec![usize::MAX; groups];
    let mut room = vec![params.node_groups; nodes];
    for at in order {
        let (group, node) = (at / nodes, at % nodes);
        if home[group] == usize::MAX && room[node] > 0 {
            home[group] = node;
            room[node] -= 1;
        }
    }
    (0..params.experts).map(|expert| home[(expert / params.group_size) as usize] as u32).collect()
}
