//! 2-for-2 swaps, the mirror of `shaders/s5_windows_moves/pair_swap.wgsl`.
//!
//! As a 1-1 swap, with sums of two replicas. A free slot is a replica of load 0, so 2-for-1 is among them.

use super::swap::Pair;
use super::{Candidate, Kind, Move, Vector, plus};
use crate::params::{Params, TURN, WINDOW_PAIR_SLOTS, blocks, pairs};

/// The 2-for-2 swap of a critical GPU with another that leaves the least value below `value`; ties to the
/// earlier window's GPU, then the lower partner, then the partner's pair, then the critical GPU's. Of each GPU
/// the first [`WINDOW_PAIR_SLOTS`] slots are looked at.
pub fn best(params: &Params, value: u32, candidate: &mut Candidate) -> Option<Move> {
    let (slots, quads) = (params.slots_per_gpu as usize, params.quads() as usize);
    let n = slots.min(WINDOW_PAIR_SLOTS as usize);
    if n < 2 {
        return None;
    }
    let mut best = Move::none(value);
    for window in 0..params.windows {
        candidate.charge(TURN);
        let Some(heavy) = candidate.critical(window) else { continue };
        for gpu in 0..params.node_gpus as usize {
            // One piece of the shader's machine is one pair of the partner against all pairs of the heavy GPU.
            for (c, d) in pairs_of(n) {
                candidate.charge(TURN);
                if gpu == heavy {
                    continue;
                }
                let pair = Pair::new(params, candidate, heavy, gpu);
                if pair.least(params) >= (best.value, best.local) {
                    continue;
                }
                let there = [gpu * slots + c, gpu * slots + d];
                if params.avoid_duplicates {
                    candidate.charge((2 + n as u32) * (1 + blocks(params.slots_per_gpu)));
                }
                candidate.charge(pairs(n as u32));
                if there.iter().any(|&slot| candidate.is_twin(params, slot, heavy)) {
                    continue;
                }
                let back = together(candidate, quads, there);
                for (a, b) in pairs_of(n) {
                    let here = [heavy * slots + a, heavy * slots + b];
                    let out = together(candidate, quads, here);
                    let (after, local) = pair.after(quads, &out[..quads], &back[..quads]);
                    if after <= best.value && !here.iter().any(|&slot| candidate.is_twin(params, slot, gpu)) {
                        let found = Move { value: after, local, kind: Kind::PairSwap(here, there) };
                        best.offer(value, pair.local, found);
                    }
                }
            }
        }
    }
    best.found()
}

/// All pairs `a < b` of `0..n`, in order.
fn pairs_of(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |a| (a + 1..n).map(move |b| (a, b)))
}

/// Loads of two slots.
fn together(candidate: &Candidate, quads: usize, [a, b]: [usize; 2]) -> Vector {
    let mut loads = Vector::default();
    for (q, load) in loads.iter_mut().enumerate().take(quads) {
        *load = plus(candidate.load[a * quads + q], candidate.load[b * quads + q]);
    }
    loads
}
