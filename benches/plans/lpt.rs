//! LPT packing in plain, scalar Rust, one start after the other: what stage 4 does for many at once.
//!
//! Heaviest replica first, each to the least loaded GPU that has a free slot and does not hold the expert, with noise
//! on the loads of GPUs. Shares no code with the planner; its draws are others.

use std::cmp::Reverse;

/// A cluster without nodes.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub gpus: usize,
    pub per_gpu: usize,
}

/// Load and expert of each replica, in the order of packing.
pub fn order(loads: &[u32], counts: &[u32], replicas: &mut Vec<(u32, u32)>) {
    replicas.clear();
    for ((expert, &load), &count) in (0..).zip(loads).zip(counts) {
        replicas.extend((0..count).map(|_| (load / count, expert)));
    }
    replicas.sort_unstable_by_key(|&(load, expert)| (Reverse(load), expert));
}

/// Memory that starts reuse.
#[derive(Default)]
pub struct Packing {
    /// Expert of each slot.
    pub experts: Vec<u32>,
    loads: Vec<u32>,
    used: Vec<usize>,
    last: Vec<u32>,
}

impl Packing {
    /// Packs, and returns the load of the heaviest GPU.
    pub fn pack(&mut self, replicas: &[(u32, u32)], slots: Slots, start: u32) -> u32 {
        let Self { experts, loads, used, last } = self;
        let Slots { gpus, per_gpu } = slots;
        experts.clear();
        experts.resize(gpus * per_gpu, u32::MAX);
        loads.clear();
        loads.resize(gpus, 0);
        used.clear();
        used.resize(gpus, 0);
        last.clear();
        last.resize(gpus, u32::MAX);
        for (item, &(load, expert)) in (0..).zip(replicas) {
            let word = mixed(start << 16 | item);
            let noise_bits = (load >> 3).checked_ilog2().unwrap_or(0);
            let mut best = None;
            let mut least = u32::MAX;
            for gpu in 0..gpus {
                if used[gpu] == per_gpu || last[gpu] == expert {
                    continue;
                }
                let hash = word.wrapping_add((gpu as u32).wrapping_mul(0x9e37_79b9));
                let choice = loads[gpu] + (hash >> (31 - noise_bits) >> 1);
                if choice < least {
                    (best, least) = (Some(gpu), choice);
                }
            }
            // Where no GPU can take it, a real planner makes room; it does not come up here.
            let Some(gpu) = best else { continue };
            experts[gpu * per_gpu + used[gpu]] = expert;
            used[gpu] += 1;
            loads[gpu] += load;
            last[gpu] = expert;
        }
        loads.iter().copied().max().unwrap_or(0)
    }
}

/// A well-mixed word (the finalizer of MurmurHash3).
fn mixed(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}
