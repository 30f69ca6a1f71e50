//! 2-for-2 swaps.
//!
//! As a 1-1 swap, with sums of two replicas. A free slot is a replica of load 0, so 2-for-1 is among them.

use super::swap::Pair;
use super::{Candidate, Kind, Loads, Move, TURN, WINDOW_PAIR_SLOTS, by_quads, plus};
use crate::params::{Params, blocks, pairs};

/// The 2-for-2 swap of a critical GPU with another that leaves the least value below `value`; ties to the
/// earlier window's GPU, then the lower partner, then the partner's pair, then the critical GPU's. Of each GPU
/// the first [`WINDOW_PAIR_SLOTS`] slots are looked at.
pub fn best(params: &Params, value: u32, candidate: &mut Candidate) -> Option<Move> {
    if params.slots_per_gpu < 2 {
        return None;
    }
    by_quads!(params, best_of(params, value, candidate))
}

fn best_of<const Q: usize>(params: &Params, value: u32, candidate: &mut Candidate) -> Option<Move> {
    let slots = params.slots_per_gpu as usize;
    let n = slots.min(WINDOW_PAIR_SLOTS as usize);
    let mut best = Move::none(value);
    for window in 0..params.windows {
        let Some(heavy) = candidate.proposer(params, window) else { continue };
        let first = heavy * slots;
        for gpu in 0..params.node_gpus as usize {
            if candidate.is_spent() {
                return best.found();
            }
            let pair = Pair::<Q>::new(candidate, heavy, gpu);
            let twins = candidate.twins(params, first..first + n, gpu);
            // One piece of the shader's machine is one slot of the partner with those after it.
            for c in 0..n - 1 {
                candidate.charge(TURN);
                if gpu == heavy || pair.least >= (best.value, best.local) {
                    continue;
                }
                let rest = (n - 1 - c) as u32;
                candidate.charge(rest * (3 + Q as u32 + 2 * n as u32 + pairs(n as u32)));
                if params.avoid_duplicates {
                    candidate.charge(2 * n as u32 * (2 + blocks(params.slots_per_gpu)));
                }
                let loads = candidate.load.as_chunks::<Q>().0;
                let both = |a: usize, b: usize| -> Loads<Q> {
                    std::array::from_fn(|q| plus(loads[a][q], loads[b][q]))
                };
                for d in c + 1..n {
                    let there = [gpu * slots + c, gpu * slots + d];
                    if there.iter().any(|&slot| candidate.is_twin(params, slot, heavy)) {
                        continue;
                    }
                    let exchange = pair.receiving(&both(there[0], there[1]));
                    for (a, b) in pairs_of(n) {
                        let (after, local) = exchange.giving(&both(first + a, first + b));
                        if after <= best.value && twins & (1 << a | 1 << b) == 0 {
                            let kind = Kind::PairSwap([first + a, first + b], there);
                            best.offer(value, pair.local, Move { value: after, local, kind });
                        }
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
