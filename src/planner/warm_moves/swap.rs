//! 1-1 swaps.

use std::ops::Range;

use super::{Candidate, Kind, Loads, Move, Quad, TURN, WINDOW_TILE, by_quads, larger, minus, plus, sum};
use crate::params::{Params, blocks};

/// The swap of a critical GPU with another that leaves the least value below `value`; ties to the earlier
/// window's GPU, then the lower partner, then the partner's slot, then the critical GPU's.
pub fn best(params: &Params, value: u32, candidate: &mut Candidate) -> Option<Move> {
    by_quads!(params, best_of(params, value, candidate))
}

fn best_of<const Q: usize>(params: &Params, value: u32, candidate: &mut Candidate) -> Option<Move> {
    let slots = params.slots_per_gpu as usize;
    let tile = WINDOW_TILE as usize;
    let mut best = Move::none(value);
    for window in 0..params.windows {
        let Some(heavy) = candidate.proposer(params, window) else { continue };
        for gpu in 0..params.node_gpus as usize {
            if candidate.is_spent() {
                return best.found();
            }
            let pair = Pair::<Q>::new(candidate, heavy, gpu);
            for heavy_tile in (0..slots).step_by(tile) {
                for other_tile in (0..slots).step_by(tile) {
                    candidate.charge(TURN);
                    if gpu == heavy || pair.least >= (best.value, best.local) {
                        continue;
                    }
                    let from = heavy * slots + heavy_tile..heavy * slots + (heavy_tile + tile).min(slots);
                    let to = gpu * slots + other_tile..gpu * slots + (other_tile + tile).min(slots);
                    weigh(params, candidate, &pair, value, from, to, &mut best);
                }
            }
        }
    }
    best.found()
}

/// Weighs all swaps of two tiles.
fn weigh<const Q: usize>(
    params: &Params,
    candidate: &mut Candidate,
    pair: &Pair<Q>,
    now: u32,
    from: Range<usize>,
    to: Range<usize>,
    best: &mut Move,
) {
    let (here, there) = (from.len() as u32, to.len() as u32);
    candidate.charge(there * (3 + Q as u32 + here));
    if params.avoid_duplicates {
        candidate.charge((here + there) * (2 + blocks(params.slots_per_gpu)));
    }
    let twins = candidate.twins(params, from.clone(), pair.gpu);
    let loads = candidate.load.as_chunks::<Q>().0;
    for at in to {
        if candidate.is_twin(params, at, pair.heavy) {
            continue;
        }
        let exchange = pair.receiving(&loads[at]);
        for (i, out) in loads[from.clone()].iter().enumerate() {
            let (value, local) = exchange.giving(out);
            if value <= best.value && twins >> i & 1 == 0 {
                best.offer(now, pair.local, Move { value, local, kind: Kind::Swap(from.start + i, at) });
            }
        }
    }
}

/// Two GPUs between which something moves.
pub struct Pair<const Q: usize> {
    heavy: usize,
    gpu: usize,
    /// The heaviest of the other GPUs, not below the floor.
    base: Loads<Q>,
    floor: Loads<Q>,
    on_heavy: Loads<Q>,
    on_gpu: Loads<Q>,
    /// The heavier of the two, not below the floor, over all windows.
    pub local: u32,
    /// Value and local value that no exchange between the two can go below: both equally loaded everywhere.
    pub least: (u32, u32),
}

impl<const Q: usize> Pair<Q> {
    /// Reads their loads.
    pub fn new(candidate: &Candidate, heavy: usize, gpu: usize) -> Self {
        let gpu_loads = candidate.gpu_load.as_chunks::<Q>().0;
        let mut pair = Self {
            heavy,
            gpu,
            base: candidate.without(heavy, gpu),
            floor: candidate.floor(),
            on_heavy: gpu_loads[heavy],
            on_gpu: gpu_loads[gpu],
            local: 0,
            least: (0, 0),
        };
        pair.local = pair.value(|q| larger(pair.on_heavy[q], pair.on_gpu[q])).1;
        let half = |a: Quad, b: Quad| -> Quad { std::array::from_fn(|i| (a[i] + b[i]).div_ceil(2)) };
        pair.least = pair.value(|q| half(pair.on_heavy[q], pair.on_gpu[q]));
        pair
    }

    /// The heavy GPU receives `back` from the other.
    pub fn receiving(&self, back: &Loads<Q>) -> Exchange<'_, Q> {
        Exchange {
            pair: self,
            on_heavy: std::array::from_fn(|q| plus(self.on_heavy[q], back[q])),
            on_gpu: std::array::from_fn(|q| minus(self.on_gpu[q], back[q])),
        }
    }

    /// The value, and that of the two alone, for these loads of the heavier of the two.
    fn value(&self, heavier: impl Fn(usize) -> Quad) -> (u32, u32) {
        let (mut value, mut local) = (0, 0);
        for q in 0..Q {
            let heavier = heavier(q);
            value += sum(larger(self.base[q], heavier));
            local += sum(larger(self.floor[q], heavier));
        }
        (value, local)
    }
}

/// One half of an exchange: what the two GPUs carry then.
pub struct Exchange<'a, const Q: usize> {
    pair: &'a Pair<Q>,
    on_heavy: Loads<Q>,
    on_gpu: Loads<Q>,
}

impl<const Q: usize> Exchange<'_, Q> {
    /// The value after the heavy GPU gives `out` for it, and that of the two alone.
    pub fn giving(&self, out: &Loads<Q>) -> (u32, u32) {
        self.pair.value(|q| larger(minus(self.on_heavy[q], out[q]), plus(self.on_gpu[q], out[q])))
    }
}
