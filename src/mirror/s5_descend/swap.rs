//! 1-1 swaps, the mirror of `shaders/s5_descend/swap.wgsl`.
//!
//! A swap that lowers the larger of two loads that are D apart by m lowers their sum of squares by 2 m (D - m).
//! Both objectives want the same swap of two GPUs, the one with the largest m, and differ only between pairs of
//! GPUs.

use super::{is_duplicate, moved};
use crate::mirror::candidate::Candidate;
use crate::params::Params;

/// A swap of two slots and what it is worth.
#[derive(Clone, Copy, Default)]
struct BestSwap {
    gain: u64,
    from: usize,
    to: usize,
}

/// One step: each of the `search.heaviest` heaviest GPUs (0: all), heaviest first, makes its best swap with one of
/// the `search.lightest` lightest (0: all). A GPU swaps once in a step. Whether any did.
pub fn step(params: &Params, by_variance: bool, candidate: &mut Candidate) -> bool {
    let gpus = params.node_gpus as usize;
    let some = |n: u32| if n == 0 { gpus } else { gpus.min(n as usize) };
    let mut partners: Vec<usize> = (0..gpus).collect();
    partners.sort_by_key(|&g| (candidate.gpu_load[g], g));
    let mut is_partner = vec![false; gpus];
    partners.iter().take(some(params.descent.lightest)).for_each(|&g| is_partner[g] = true);
    let mut is_used = vec![false; gpus];
    let mut any = false;
    for _ in 0..some(params.descent.heaviest) {
        let unused = (0..gpus).filter(|&g| !is_used[g]);
        let Some(heavy) = unused.max_by_key(|&g| (candidate.gpu_load[g], usize::MAX - g)) else { break };
        is_used[heavy] = true;
        let may_swap = |&g: &usize| is_partner[g] && !is_used[g];
        let best = best_swap(params, by_variance, candidate, heavy, (0..gpus).filter(may_swap));
        if best.gain > 0 {
            candidate.exchange(params, best.from, best.to);
            is_used[best.to / params.slots_per_gpu as usize] = true;
            any = true;
        }
    }
    any
}

/// The best swap of `heavy` with one of the others; ties to the lower GPU, then its slot, then the heavy one's.
fn best_swap(
    params: &Params,
    by_variance: bool,
    candidate: &Candidate,
    heavy: usize,
    others: impl Iterator<Item = usize>,
) -> BestSwap {
    let slots = params.slots_per_gpu as usize;
    let mut best = BestSwap::default();
    for gpu in others {
        let distance = candidate.gpu_load[heavy].saturating_sub(candidate.gpu_load[gpu]);
        // No swap moves more than to the middle.
        if worth(by_variance, distance / 2, distance) <= best.gain {
            continue;
        }
        for to in gpu * slots..(gpu + 1) * slots {
            let of = |&mine: &u32| moved(mine, candidate.load[to], distance);
            let mine = &candidate.load[heavy * slots..(heavy + 1) * slots];
            // Most slots have nothing better: that is sooner known without looking where.
            let most = mine.iter().map(of).fold(0, u32::max);
            if worth(by_variance, most, distance) <= best.gain {
                continue;
            }
            for (from, mine) in (heavy * slots..).zip(mine) {
                let gain = worth(by_variance, of(mine), distance);
                if gain > best.gain
                    && !is_duplicate(params, candidate, from, gpu)
                    && !is_duplicate(params, candidate, to, heavy)
                {
                    best = BestSwap { gain, from, to };
                }
            }
        }
    }
    best
}

/// The worth of lowering the larger of two loads by `m`.
fn worth(by_variance: bool, m: u32, distance: u32) -> u64 {
    if by_variance { u64::from(m) * u64::from(distance - m) } else { u64::from(m) }
}
