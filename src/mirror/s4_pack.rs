//! Stage 4, the mirror of `shaders/s4_pack.wgsl`: one replica after the other to the least loaded GPU.

use crate::mirror::candidate::Candidate;
use crate::mirror::rng;
use crate::params::{FREE, Params};

/// Longest-processing-time packing of a node's replicas: heaviest first, each to the least loaded GPU with a
/// free slot (ties to the lower GPU), in its next slot. Of equal replicas, first ones go before further ones
/// (DeepSeek's order), then lower experts; where duplicates are avoided an expert's replicas stay together.
///
/// Where GPUs are of unequal speed a load counts as [`Params::on_gpu`] says, and a replica goes to the GPU that carries least
/// with it. But as the start of a trajectory it goes to the one of greatest [`need`], since slow GPUs have as many slots to
/// fill as fast ones, with less.
///
/// Starts other than the first add noise to the GPU loads before the choice. Where duplicates are avoided a
/// GPU that holds the expert is passed over; see [`make_room`] for what happens when no other has a slot.
/// Reads `candidate.counts`; writes its `expert`, `load` and `gpu_load`.
pub fn pack(params: &Params, key: u32, start: u32, loads: &[u32], candidate: &mut Candidate) {
    let Candidate { expert, load, gpu_load, open, counts, order, used, last, .. } = candidate;
    let noisy = params.packing_noise && start > 0;
    let (gpus, slots) = (params.node_gpus as usize, params.slots_per_gpu as usize);
    packing_order(params, loads, counts, order);
    for (array, len, value) in [
        (&mut *expert, gpus * slots, FREE),
        (&mut *load, gpus * slots, 0),
        (&mut *gpu_load, gpus, 0),
        (&mut *used, gpus, 0),
        (&mut *last, gpus.next_multiple_of(ABREAST), FREE),
    ] {
        array.clear();
        array.resize(len, value);
    }
    open.clear();
    open.resize(gpus, open_load(0));
    open.resize(gpus.next_multiple_of(ABREAST), CLOSED);
    let (expert, load) = (&mut expert[..], &mut load[..]);
    let (gpu_load, open, used, last) = (&mut gpu_load[..], &mut open[..], &mut used[..], &mut last[..]);
    let mean = if params.has_speeds() { params.node_mean(loads.iter().sum(), 0) } else { 0 };
    let of_gpu = |load, used| if used as usize == slots { CLOSED } else { open_load(load) };
    for (item, &packed) in (0..).zip(order.iter()) {
        let (replica, e) = self::item(packed);
        let duplicate = if params.avoid_duplicates { e } else { NO_EXPERT };
        let noise = |gpu: u32| {
            let (word, shift) = (rng::draw(key, rng::PACKING + item), rng::noise_shift(replica));
            word.wrapping_add(gpu.wrapping_mul(rng::PLACE_STEP)) >> shift
        };
        let best = if params.has_speeds() && params.trajectory {
            let has_room = |gpu: &usize| (used[*gpu] as usize) < slots && last[*gpu] != duplicate;
            let need_of = |gpu: usize| {
                let left = slots as u32 - used[gpu];
                need(params, mean, gpu, gpu_load[gpu], left)
                    - i64::from(if noisy { noise(gpu as u32) } else { 0 })
            };
            (0..gpus).filter(has_room).max_by_key(|&gpu| (need_of(gpu), std::cmp::Reverse(gpu)))
        } else if params.has_speeds() {
            lightest(open, last, duplicate, |gpu| {
                params.on_gpu(replica, gpu as usize) + if noisy { noise(gpu) } else { 0 }
            })
        } else if noisy {
            lightest(open, last, duplicate, noise)
        } else {
            lightest(open, last, duplicate, |_| 0)
        };
        let (gpu, slot) = match best {
            Some(gpu) => {
                used[gpu] += 1;
                (gpu, gpu * slots + used[gpu] as usize - 1)
            }
            None => {
                let weigh = |e: u32, gpu| params.on_gpu(loads[e as usize] / counts[e as usize], gpu);
                let place = make_room((slots, &weigh), e, expert, load, gpu_load, used, last);
                for (gpu, open) in open[..gpus].iter_mut().enumerate() {
                    *open = of_gpu(gpu_load[gpu], used[gpu]);
                }
                place
            }
        };
        let replica = params.on_gpu(replica, gpu);
        expert[slot] = e;
        load[slot] = replica;
        gpu_load[gpu] += replica;
        open[gpu] = of_gpu(gpu_load[gpu], used[gpu]);
        last[gpu] = e;
    }
}

/// The load that a GPU lacks to the mean for each slot that is left, `left` of them, at its speed.
fn need(params: &Params, mean: u32, gpu: usize, load: u32, left: u32) -> i64 {
    params.at_speed(i64::from(mean) - i64::from(load), gpu) / i64::from(left.max(1))
}

/// The load of a GPU with a free slot, as [`lightest`] compares it: negative, even with noise on it, as a layer's loads
/// add up to at most 2^30.
fn open_load(load: u32) -> i32 {
    load as i32 + i32::MIN
}

/// A GPU without a free slot has this in the place of [`open_load`].
const CLOSED: i32 = 0;

/// No expert's number, and not [`FREE`].
const NO_EXPERT: u32 = FREE - 1;

/// The GPU with the least of load and noise, the lower of equals, of those that neither are full nor hold the expert:
/// `open` has [`open_load`] of each that has room, `last` the last expert that each received.
fn lightest(open: &[i32], last: &[u32], e: u32, noise: impl Fn(u32) -> u32) -> Option<usize> {
    // Some abreast and without branches: that the compiler turns into vectors.
    let mut least = [CLOSED; ABREAST];
    let mut at = [0; ABREAST];
    let blocks = open.as_chunks::<ABREAST>().0.iter().zip(last.as_chunks::<ABREAST>().0);
    for (begin, (open, last)) in (0..).step_by(ABREAST).zip(blocks) {
        for i in 0..ABREAST {
            let gpu = begin + i as u32;
            let load = open[i].wrapping_add(noise(gpu) as i32);
            let choice = if last[i] == e { CLOSED } else { load };
            let is_less = choice < least[i];
            least[i] = if is_less { choice } else { least[i] };
            at[i] = if is_less { gpu } else { at[i] };
        }
    }
    let best = least.into_iter().zip(at).min()?;
    (best.0 < CLOSED).then_some(best.1 as usize)
}

/// See [`lightest`].
const ABREAST: usize = 4;

/// Set in the key of a replica that is not its expert's first.
const FURTHER: u64 = 1 << 31;

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

/// Frees a slot for expert `e` where every GPU without it is full, and returns that GPU and slot.
///
/// Let `a` be the least loaded GPU with a free slot (it holds `e`) and `b` the least loaded GPU without `e`
/// (it is full). `b` holds as many experts as it has slots, `a` fewer and one of them `e`, so some replica on
/// `b` is of an expert that `a` lacks: the first such moves to `a`, and its slot is free.
///
/// `weigh` tells what a replica of an expert counts on a GPU.
fn make_room(
    (slots, weigh): (usize, &dyn Fn(u32, usize) -> u32),
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
    load[to] = weigh(expert[from], a);
    gpu_load[a] += load[to];
    gpu_load[b] -= load[from];
    used[a] += 1;
    (b, from)
}
