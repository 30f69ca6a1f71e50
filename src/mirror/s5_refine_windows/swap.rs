//! 1-1 swaps, the mirror of `shaders/s5_windows_moves/swap.wgsl`.

use super::{Candidate, Kind, Move, Quad, Vector, larger, minus, plus, sum};
use crate::params::{Params, TURN, WINDOW_TILE};

/// The swap of a critical GPU with another that leaves the least value below `value`; ties to the earlier
/// window's GPU, then the lower partner, then the partner's slot, then the critical GPU's.
pub fn best(params: &Params, value: u32, candidate: &mut Candidate) -> Option<Move> {
    let slots = params.slots_per_gpu as usize;
    let tile = WINDOW_TILE as usize;
    let mut best = Move::none(value);
    for window in 0..params.windows {
        candidate.charge(TURN);
        let Some(heavy) = candidate.critical(window) else { continue };
        for gpu in 0..params.node_gpus as usize {
            for heavy_tile in (0..slots).step_by(tile) {
                for other_tile in (0..slots).step_by(tile) {
                    candidate.charge(TURN);
                    if gpu == heavy {
                        continue;
                    }
                    let pair = Pair::new(params, candidate, heavy, gpu);
                    if pair.least(params) >= (best.value, best.local) {
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
fn weigh(
    params: &Params,
    candidate: &mut Candidate,
    pair: &Pair,
    now: u32,
    from: std::ops::Range<usize>,
    to: std::ops::Range<usize>,
    best: &mut Move,
) {
    let quads = params.quads() as usize;
    if params.avoid_duplicates {
        let k = params.slots_per_gpu;
        candidate.charge((from.len() + to.len()) as u32 * (1 + crate::params::blocks(k)));
    }
    candidate.charge((from.len() * to.len()) as u32);
    for there in to {
        if candidate.is_twin(params, there, pair.heavy) {
            continue;
        }
        for here in from.clone() {
            let (value, local) =
                pair.after(quads, candidate.in_slot(quads, here), candidate.in_slot(quads, there));
            if value <= best.value && !candidate.is_twin(params, here, pair.gpu) {
                best.offer(now, pair.local, Move { value, local, kind: Kind::Swap(here, there) });
            }
        }
    }
}

/// Two GPUs between which something moves.
pub struct Pair {
    heavy: usize,
    gpu: usize,
    /// The heaviest of the other GPUs, not below the floor.
    base: Vector,
    floor: Vector,
    on_heavy: Vector,
    on_gpu: Vector,
    /// The heavier of the two, not below the floor, over all windows.
    pub local: u32,
}

impl Pair {
    /// Reads their loads.
    pub fn new(params: &Params, candidate: &Candidate, heavy: usize, gpu: usize) -> Self {
        let quads = params.quads() as usize;
        let mut pair = Self {
            heavy,
            gpu,
            base: candidate.without(heavy, gpu),
            floor: candidate.floor(),
            local: 0,
            on_heavy: Vector::default(),
            on_gpu: Vector::default(),
        };
        pair.on_heavy[..quads].copy_from_slice(candidate.on_gpu(quads, heavy));
        pair.on_gpu[..quads].copy_from_slice(candidate.on_gpu(quads, gpu));
        pair.local = pair.value(quads, |q| larger(pair.on_heavy[q], pair.on_gpu[q])).1;
        pair
    }

    /// What no exchange between the two can go below: both equally loaded in every window.
    pub fn least(&self, params: &Params) -> (u32, u32) {
        let half = |a: Quad, b: Quad| -> Quad { std::array::from_fn(|i| (a[i] + b[i]).div_ceil(2)) };
        self.value(params.quads() as usize, |q| half(self.on_heavy[q], self.on_gpu[q]))
    }

    /// The value after the heavy GPU gives `out` for `back`, and that of the two alone.
    pub fn after(&self, quads: usize, out: &[Quad], back: &[Quad]) -> (u32, u32) {
        self.value(quads, |q| {
            let heavy = plus(minus(self.on_heavy[q], out[q]), back[q]);
            let gpu = minus(plus(self.on_gpu[q], out[q]), back[q]);
            larger(heavy, gpu)
        })
    }

    /// The value, and that of the two alone, for these loads of the heavier of the two.
    fn value(&self, quads: usize, heavier: impl Fn(usize) -> Quad) -> (u32, u32) {
        let (mut value, mut local) = (0, 0);
        for q in 0..quads {
            let heavier = heavier(q);
            value += sum(larger(self.base[q], heavier));
            local += sum(larger(self.floor[q], heavier));
        }
        (value, local)
    }
}
