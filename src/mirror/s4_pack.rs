//! Stage 4, the mirror of `shaders/s4_pack.wgsl`: one replica after the other to the least loaded GPU.

use crate::mirror::rng;
use crate::mirror::s5_refine::Candidate;
use crate::params::{FREE, PACKING_NOISE_SHIFT, Params, mul_high};

/// Longest-processing-time packing of a node's replicas: heaviest first, each to the least loaded GPU with a
/// free slot (ties to the lower GPU), in its next slot. Of equal replicas, first ones go before further ones
/// (DeepSeek's order), then lower experts; where duplicates are avoided an expert's replicas stay together.
///
/// Restarts other than the first add noise to the GPU loads before the choice. Where duplicates are avoided a
/// GPU that holds the expert is passed over; see [`make_room`] for what happens when no other has a slot.
/// Reads `candidate.counts`; writes its `expert`, `load` and `gpu_load`.
pub fn pack(params: &Params, key: u32, restart: u32, loads: &[u32], candidate: &mut Candidate) {
    let Candidate { expert, load, gpu_load, counts, order, used, last, .. } = candidate;
    let noisy = params.packing_noise && restart > 0;
    let (gpus, slots) = (params.node_gpus as usize, params.slots_per_gpu as usize);
    packing_order(params, loads, counts, order);
    for (array, len, value) in [
        (&mut *expert, gpus * slots, FREE),
        (&mut *load, gpus * slots, 0),
        (&mut *gpu_load, gpus, 0),
        (&mut *used, gpus, 0),
        (&mut *last, gpus, FREE),
    ] {
        array.clear();
        array.resize(len, value);
    }
    let (used, last, gpu_load) = (&mut used[..gpus], &mut last[..gpus], &mut gpu_load[..gpus]);
    for (item, &packed) in (0..).zip(order.iter()) {
        let (replica, e) = self::item(packed);
        let word = if noisy { rng::draw(key, rng::PACKING + item) } else { 0 };
        // Without branches: a GPU that is full or holds the expert counts as the heaviest there is.
        let mut best = (CLOSED, 0);
        for gpu in 0..gpus {
            let noise = if noisy { gpu_noise(word, gpu as u32, replica) } else { 0 };
            let closed = (params.avoid_duplicates & (last[gpu] == e)) | (used[gpu] as usize == slots);
            let choice = if closed { CLOSED } else { gpu_load[gpu] + noise };
            best = if choice < best.0 { (choice, gpu) } else { best };
        }
        let (gpu, slot) = match best {
            (CLOSED, _) => make_room(slots, e, expert, load, gpu_load, used, last),
            (_, gpu) => {
                used[gpu] += 1;
                (gpu, gpu * slots + used[gpu] as usize - 1)
            }
        };
        expert[slot] = e;
        load[slot] = replica;
        gpu_load[gpu] += replica;
        last[gpu] = e;
    }
}

/// Set in the key of a replica that is not its expert's first.
const FURTHER: u64 = 1 << 31;

/// Heavier than any GPU: a layer's loads add up to 2^30.
const CLOSED: u32 = u32::MAX;

/// The replicas of a node in the order of packing (heaviest first, then first replicas, then lower experts), each
/// as one number to sort by; see [`item`].
pub fn packing_order(params: &Params, loads: &[u32], counts: &[u32], order: &mut Vec<u64>) {
    order.clear();
    for (e, (&load, &count)) in (0u64..).zip(loads.iter().zip(counts)) {
        let key = u64::from(!(load / count)) << 32 | e;
        let further = if params.avoid_duplicates { 0 } else { FURTHER };
        order.push(key);
        order.extend((1..count).map(|_| key | further));
    }
    order.sort_unstable();
}

/// Load and expert of an entry of [`packing_order`].
pub fn item(packed: u64) -> (u32, u32) {
    (!((packed >> 32) as u32), (packed & (FURTHER - 1)) as u32)
}

/// A share of `replica`, different for every GPU and item.
pub fn gpu_noise(word: u32, gpu: u32, replica: u32) -> u32 {
    let mixed = word.wrapping_add(gpu.wrapping_mul(0x9e37_79b9)).wrapping_mul(0x85eb_ca6b);
    mul_high(mixed, replica >> PACKING_NOISE_SHIFT)
}

/// Frees a slot for expert `e` where every GPU without it is full, and returns that GPU and slot.
///
/// Let `a` be the least loaded GPU with a free slot (it holds `e`) and `b` the least loaded GPU without `e`
/// (it is full). `b` holds as many experts as it has slots, `a` fewer and one of them `e`, so some replica on
/// `b` is of an expert that `a` lacks: the first such moves to `a`, and its slot is free.
fn make_room(
    slots: usize,
    e: u32,
    expert: &mut [u32],
    load: &mut [u32],
    gpu_load: &mut [u32],
    used: &mut [u32],
    last: &[u32],
) -> (usize, usize) {
    let lightest = |fits: &dyn Fn(usize) -> bool| {
        (0..gpu_load.len()).filter(|&gpu| fits(gpu)).min_by_key(|&gpu| (gpu_load[gpu], gpu)).unwrap_or(0)
    };
    let a = lightest(&|gpu| (used[gpu] as usize) < slots);
    let b = lightest(&|gpu| last[gpu] != e);
    let held = a * slots..a * slots + used[a] as usize;
    let lacking = |slot: &usize| !expert[held.clone()].contains(&expert[*slot]);
    let from = (b * slots..(b + 1) * slots).find(lacking).unwrap_or(b * slots);
    let to = held.end;
    expert[to] = expert[from];
    load[to] = load[from];
    gpu_load[a] += load[from];
    gpu_load[b] -= load[from];
    used[a] += 1;
    (b, from)
}
