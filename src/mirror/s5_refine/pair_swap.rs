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
        let (heavy_sums, sums) = (&heavy_sums[..count as usize], &sums[..count as usize]);
        for (at, &sum) in sums.iter().enumerate() {
            let gain = |&heavy_sum: &i32| {
                let moved = heavy_sum.wrapping_sub(sum);
                moved.min(distance.wrapping_sub(moved))
            };
            // The largest first, without looking where: that the compiler turns into vectors.
            let row = heavy_sums.iter().map(gain).fold(best, i32::max);
            if row > best {
                best = row;
                swap = heavy_sums.iter().position(|sum| gain(sum) == row).map(|heavy| (gpu, heavy, at));
            }
        }
    }
    let Some((gpu, heavy_pair, pair)) = swap else { return false };
    let ((a, b), (c, d)) = (slots_of(n, heavy_pair), slots_of(n, pair));
    candidate.exchange(params, heavy * slots + a, gpu * slots + c);
    candidate.exchange(params, heavy * slots + b, gpu * slots + d);
    true
}

/// The two slots of pair `at` among `n`.
fn slots_of(n: usize, at: usize) -> (usize, usize) {
    (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).nth(at).unwrap_or((0, 0))
}

type Sums = [i32; pairs(PAIR_SLOTS) as usize];

/// Sums of the pairs among the first `n` slots from `begin`, in the order of [`slots_of`]; `never` where one of
/// the two would make a duplicate on `to`.
fn pair_sums(
    params: &Params,
    candidate: &mut Candidate,
    begin: usize,
    to: usize,
    n: usize,
    never: i32,
) -> Sums {
    let blocked = candidate.blocked(params, begin, n, to);
    let mut items = [0; PAIR_SLOTS as usize];
    for (i, item) in items.iter_mut().enumerate().take(n) {
        *item = if blocked >> i & 1 == 0 { candidate.load[begin + i] as i32 } else { never };
    }
    let mut sums = [0; pairs(PAIR_SLOTS) as usize];
    let mut at = 0;
    for i in 0..n {
        for j in i + 1..n {
            let sum = items[i].wrapping_add(items[j]);
            let blocked = items[i] == never || items[j] == never;
            sums[at] = if blocked { never } else { sum };
            at += 1;
        }
    }
    sums
}
