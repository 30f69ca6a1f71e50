//! 2-for-2 swaps, the mirror of `shaders/s5_descend/pair_swap.wgsl`.
//!
//! As 1-1 swaps, with the sums of two loads. A free slot is a replica of load 0, so 2-for-1 is among them.

use super::{is_duplicate, moved};
use crate::mirror::candidate::Candidate;
use crate::params::{PAIR_SLOTS, Params};

/// Makes the best 2-for-2 swap of the heaviest GPU with any other, of the first [`PAIR_SLOTS`] slots of each; ties
/// to the lower GPU, then its pair, then the heavy pair. Whether there was one.
pub fn step(params: &Params, candidate: &mut Candidate) -> bool {
    let slots = params.slots_per_gpu as usize;
    let n = slots.min(PAIR_SLOTS as usize);
    let pairs = |gpu: usize| {
        let begin = gpu * slots;
        (begin..begin + n).flat_map(move |i| (i + 1..begin + n).map(move |j| [i, j]))
    };
    let sum = |pair: [usize; 2]| candidate.load[pair[0]] + candidate.load[pair[1]];
    let heavy = candidate.heaviest();
    let heavy_sums: Vec<u32> = pairs(heavy).map(sum).collect();
    let mut best = 0;
    let mut swap = None;
    for gpu in 0..params.node_gpus as usize {
        let distance = candidate.gpu_load[heavy] - candidate.gpu_load[gpu];
        // No swap moves more than to the middle.
        if distance / 2 <= best {
            continue;
        }
        let is_free =
            |pair: [usize; 2], of: usize| !pair.iter().any(|&s| is_duplicate(params, candidate, s, of));
        for to in pairs(gpu) {
            let of = |&mine: &u32| moved(mine, sum(to), distance);
            // As for 1-1 swaps.
            if heavy_sums.iter().map(of).fold(0, u32::max) <= best {
                continue;
            }
            for (from, mine) in pairs(heavy).zip(&heavy_sums) {
                let m = of(mine);
                if m > best && is_free(from, gpu) && is_free(to, heavy) {
                    best = m;
                    swap = Some((from, to));
                }
            }
        }
    }
    let Some((from, to)) = swap else { return false };
    candidate.exchange(params, from[0], to[0]);
    candidate.exchange(params, from[1], to[1]);
    true
}
