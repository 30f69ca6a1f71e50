//! 2-for-2 swaps, the mirror of `shaders/s5_moves/pair_swap.wgsl`.
//!
//! As a 1-1 swap, with sums of two replicas. A free slot is a replica of load 0, so 2-for-1 is among them.

use super::Candidate;
use crate::params::{NEVER, PAIR_SLOTS, Params, TURN, blocks, pairs};

/// Makes the best 2-for-2 swap of the heaviest GPU with any other, by the load of the heavier of the two; ties
/// to the lower GPU, then its pair, then the heavy pair. Whether there was one.
pub fn step(params: &Params, candidate: &mut Candidate) -> bool {
    let slots = params.slots_per_gpu as usize;
    let n = slots.min(PAIR_SLOTS as usize);
    if n < 2 {
        return false;
    }
    let heavy = candidate.heaviest();
    candidate.charge(1 + blocks(params.node_gpus));
    let mut best = 0;
    let mut swap = None;
    for gpu in 0..params.node_gpus as usize {
        candidate.charge(TURN);
        let distance = candidate.gpu_load[heavy] as i32 - candidate.gpu_load[gpu] as i32;
        if distance / 2 <= best {
            continue;
        }
        let heavy_sums = pair_sums(params, candidate, heavy * slots, gpu, n, -NEVER);
        let sums = pair_sums(params, candidate, gpu * slots, heavy, n, NEVER);
        let count = pairs(n as u32);
        candidate.charge(2 * (n as u32 + count) + count * (1 + blocks(count)));
        for &(sum, c, d) in &sums[..count as usize] {
            for &(heavy_sum, a, b) in &heavy_sums[..count as usize] {
                let moved = heavy_sum.wrapping_sub(sum);
                let gain = moved.min(distance.wrapping_sub(moved));
                if gain > best {
                    best = gain;
                    swap = Some((a, b, c, d));
                }
            }
        }
    }
    let Some((a, b, c, d)) = swap else { return false };
    candidate.exchange(params, a, c);
    candidate.exchange(params, b, d);
    true
}

type Pairs = [(i32, usize, usize); pairs(PAIR_SLOTS) as usize];

/// Sums of the pairs among the first `n` slots from `begin`, as (sum, slot, slot); `never` where one of the
/// two would make a duplicate on `to`.
fn pair_sums(
    params: &Params,
    candidate: &mut Candidate,
    begin: usize,
    to: usize,
    n: usize,
    never: i32,
) -> Pairs {
    let mut items = [None; PAIR_SLOTS as usize];
    let blocked = candidate.blocked(params, begin, n, to);
    for (i, item) in items.iter_mut().enumerate().take(n) {
        if blocked >> i & 1 == 0 {
            *item = Some(candidate.load[begin + i] as i32);
        }
    }
    let mut sums = [(0, 0, 0); pairs(PAIR_SLOTS) as usize];
    let mut at = 0;
    for i in 0..n {
        for j in i + 1..n {
            let sum = items[i].zip(items[j]).map_or(never, |(a, b)| a + b);
            sums[at] = (sum, begin + i, begin + j);
            at += 1;
        }
    }
    sums
}
