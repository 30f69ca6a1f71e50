//! The moves of a search that starts from the plan that runs.
//!
//! Each GPU carries one load a window. The value of a placement is the sum over windows of the heaviest GPU's
//! load, each not below the window's floor; loads are scaled by the windows' weights before, so that no
//! product is needed. A move can lower the value only if it relieves a GPU that is the heaviest of some window,
//! so only those ([`Candidate::critical`]) propose moves: 1-1 swaps ([`swap`]), 2-for-2 swaps ([`pair_swap`])
//! and replica transfers ([`transfer`]).
//!
//! Loads of four windows lie in one [`Quad`]; windows past the last are zero.

pub mod pair_swap;
pub mod swap;
pub mod transfer;

use crate::params::{FREE, Params, blocks};

/// A look at something costs this much besides the comparisons it makes, in blocks.
const TURN: u32 = 16;
/// Swaps compare tiles of at most this many slots of one GPU with as many of another.
const WINDOW_TILE: u32 = 16;
/// 2-for-2 swaps look at the first this many slots of a GPU: 66 pairs.
const WINDOW_PAIR_SLOTS: u32 = 12;
/// Transfers look at this many GPUs, and weigh this many experts for a slot, between two looks at the budget.
const WINDOW_GPUS: u32 = 32;
/// See [`WINDOW_GPUS`].
const WINDOW_EXPERTS: u32 = 256;
/// This many slots are weighed anew between two looks at the budget.
const WINDOW_SLOTS: u32 = 256;

/// A search ends once it has done this much, in blocks of comparisons: a tenth of a second of one core.
pub const WORK_LIMIT: u32 = 1 << 23;

/// Loads of four windows.
pub type Quad = [u32; 4];

/// Loads of all windows, where their number of quads is known.
pub type Loads<const Q: usize> = [Quad; Q];

/// Calls a function for the number of quads of a call, which is then known when it is compiled.
macro_rules! by_quads {
    ($params:expr, $function:ident($($argument:expr),*)) => {
        match $params.quads() {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            _ => $function::<4>($($argument),*),
        }
    };
}
use by_quads;

/// The two heaviest GPUs of a window besides the first, and the first: GPU and load.
type Top = [(u32, u32); 3];

/// One candidate placement, and the scratch of the search.
#[derive(Default)]
pub struct Candidate {
    /// Expert of each slot, `FREE` where there is none.
    pub expert: Vec<u32>,
    /// Loads of each slot's replica, `quads` a slot.
    pub load: Vec<Quad>,
    /// Loads of each GPU, `quads` a GPU.
    pub gpu_load: Vec<Quad>,
    /// Replicas of each expert.
    pub counts: Vec<u32>,
    /// What the heaviest GPU of each window cannot go below, `quads`: the busiest node's share.
    pub floors: Vec<Quad>,
    /// Work charged so far.
    pub work: u32,
    /// The three heaviest GPUs of each window, ties to the lower GPU.
    tops: Vec<Top>,
    /// Stage 4: slots in use of each GPU.
    pub used: Vec<u32>,
    /// Stage 4: the last expert each GPU received.
    pub last: Vec<u32>,
    /// Stage 4: mean load of each GPU.
    pub mean: Vec<u32>,
}

/// A move and the value of the placement after it, or an upper bound of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The value after it.
    pub value: u32,
    /// The same of the GPUs touched alone: of moves with equal values, mostly set by a third GPU, the one that
    /// leaves most room wins.
    pub local: u32,
    /// What it does.
    pub kind: Kind,
}

impl Move {
    /// Nothing found yet: any move that keeps the value, and leaves its GPUs better than they are, will do.
    fn none(value: u32) -> Self {
        Self { value, local: u32::MAX, kind: Kind::Swap(0, 0) }
    }

    /// Takes a move if it is better; the earlier wins ties. `local_now` is the local value before it.
    fn offer(&mut self, now: u32, local_now: u32, found: Move) {
        let better = (found.value, found.local) < (self.value, self.local);
        if better && (found.value < now || found.local < local_now) {
            *self = found;
        }
    }

    /// The move, if there was one.
    fn found(self) -> Option<Self> {
        (self.local != u32::MAX).then_some(self)
    }
}

/// What a move does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Two slots of different GPUs exchange what they hold.
    Swap(usize, usize),
    /// Two pairs of slots do.
    PairSwap([usize; 2], [usize; 2]),
    /// A slot becomes a replica of an expert.
    Transfer(usize, u32),
}

impl Candidate {
    /// Makes a move.
    pub fn make(&mut self, params: &Params, loads: &[Quad], kind: Kind) {
        match kind {
            Kind::Swap(a, b) => self.exchange(params, a, b),
            Kind::PairSwap([a, b], [c, d]) => {
                self.exchange(params, a, c);
                self.exchange(params, b, d);
            }
            Kind::Transfer(slot, expert) => transfer::apply(params, loads, self, slot, expert),
        }
    }

    /// Whether the budget is passed: a scan then ends with what it has found.
    pub fn is_spent(&self) -> bool {
        self.work > WORK_LIMIT
    }

    /// Adds to the work done.
    pub fn charge(&mut self, work: u32) {
        self.work = self.work.saturating_add(work);
    }

    /// Charges the work of going over all slots, some at a time.
    fn charge_slots(&mut self, params: &Params, each: u32) {
        self.charge(params.node_slots.div_ceil(WINDOW_SLOTS) * TURN + params.node_slots * each);
    }

    /// Finds the heaviest GPUs of each window. Valid until a move is made.
    pub fn find_tops(&mut self, params: &Params) {
        self.charge(4 * TURN + params.quads() * (TURN + blocks(params.node_gpus)));
        let quads = params.quads() as usize;
        self.tops.clear();
        self.tops.resize(4 * quads, [(FREE, 0); 3]);
        for gpu in 0..params.node_gpus as usize {
            for (window, top) in self.tops.iter_mut().enumerate() {
                let load = self.gpu_load[gpu * quads + window / 4][window % 4];
                let here = (gpu as u32, load);
                let before = |held: (u32, u32)| held.0 == FREE || load > held.1;
                if before(top[0]) {
                    *top = [here, top[0], top[1]];
                } else if before(top[1]) {
                    *top = [top[0], here, top[1]];
                } else if before(top[2]) {
                    top[2] = here;
                }
            }
        }
    }

    /// The sum over windows of the heaviest GPU's load, not below the floors. After [`Candidate::find_tops`].
    pub fn value(&self) -> u32 {
        self.tops.iter().enumerate().map(|(w, top)| top[0].1.max(self.floors[w / 4][w % 4])).sum()
    }

    /// The load of the heaviest GPU of each window, in quads. After [`Candidate::find_tops`].
    pub fn heaviest_loads(&self) -> Vec<Quad> {
        self.tops.chunks_exact(4).map(|tops| std::array::from_fn(|i| tops[i][0].1)).collect()
    }

    /// The heaviest GPU of a window, ties to the lower index.
    pub fn top(&self, window: u32) -> u32 {
        self.tops[window as usize][0].0
    }

    /// The GPU that `window` lets propose moves: its heaviest, unless that is light enough already or an
    /// earlier window's.
    pub fn critical(&self, window: u32) -> Option<usize> {
        let gpu = self.top(window);
        let earlier = (0..window).any(|w| self.top(w) == gpu && self.is_critical(w));
        (self.is_critical(window) && !earlier).then_some(gpu as usize)
    }

    /// Whether the heaviest GPU of a window is above the window's floor.
    fn is_critical(&self, window: u32) -> bool {
        self.tops[window as usize][0].1 > self.floors[window as usize / 4][window as usize % 4]
    }

    /// [`Candidate::critical`], as the search asks window by window. Charges the look.
    fn proposer(&mut self, params: &Params, window: u32) -> Option<usize> {
        self.charge(TURN + params.windows);
        self.critical(window)
    }

    /// The floors.
    pub fn floor<const Q: usize>(&self) -> Loads<Q> {
        std::array::from_fn(|q| self.floors[q])
    }

    /// The windows' heaviest loads among the GPUs other than `a` and `b`, not below the floors.
    pub fn without<const Q: usize>(&self, a: usize, b: usize) -> Loads<Q> {
        let other = |top: &Top| {
            let [first, second, third] = *top;
            let out = |gpu: u32| (gpu as usize == a) | (gpu as usize == b);
            let later = if out(second.0) { third.1 } else { second.1 };
            if out(first.0) { later } else { first.1 }
        };
        std::array::from_fn(|q| std::array::from_fn(|i| other(&self.tops[4 * q + i]).max(self.floors[q][i])))
    }

    /// How many replicas the expert in a slot has; 0 for a free slot.
    pub fn count_at(&self, slot: usize) -> u32 {
        match self.expert[slot] {
            FREE => 0,
            expert => self.counts[expert as usize],
        }
    }

    /// How many replicas of `expert` are on `gpu`.
    fn copies(&self, params: &Params, gpu: usize, expert: u32) -> u32 {
        let slots = params.slots_per_gpu as usize;
        self.expert[gpu * slots..(gpu + 1) * slots].iter().map(|&e| u32::from(e == expert)).sum()
    }

    /// Whether the replica in `slot` would be a duplicate on `gpu`.
    pub fn is_twin(&self, params: &Params, slot: usize, gpu: usize) -> bool {
        params.avoid_duplicates && self.count_at(slot) > 1 && self.copies(params, gpu, self.expert[slot]) > 0
    }

    /// Which of the slots, at most 32, hold a replica that would be a duplicate on `gpu`, as bits.
    fn twins(&self, params: &Params, slots: std::ops::Range<usize>, gpu: usize) -> u32 {
        (0..).zip(slots).map(|(i, slot)| u32::from(self.is_twin(params, slot, gpu)) << i).sum()
    }

    /// No replica in any slot.
    pub fn clear(&mut self, params: &Params) {
        let (slots, gpus, quads) =
            (params.node_slots as usize, params.node_gpus as usize, params.quads() as usize);
        refill(&mut self.expert, slots, FREE);
        refill(&mut self.load, slots * quads, Quad::default());
        refill(&mut self.gpu_load, gpus * quads, Quad::default());
        refill(&mut self.used, gpus, 0);
        refill(&mut self.last, gpus, FREE);
        refill(&mut self.mean, gpus, 0);
    }

    /// Puts a replica into a free slot, its load by the counts as they are.
    pub fn put(&mut self, params: &Params, loads: &[Quad], slot: usize, expert: u32) {
        let quads = params.quads() as usize;
        let gpu = slot / params.slots_per_gpu as usize;
        self.expert[slot] = expert;
        for q in 0..quads {
            let load = divided(loads[expert as usize * quads + q], self.counts[expert as usize]);
            self.load[slot * quads + q] = load;
            self.gpu_load[gpu * quads + q] = plus(self.gpu_load[gpu * quads + q], load);
        }
    }

    /// Exchanges what two slots of different GPUs hold.
    pub fn exchange(&mut self, params: &Params, a: usize, b: usize) {
        let (slots, quads) = (params.slots_per_gpu as usize, params.quads() as usize);
        for q in 0..quads {
            let (load_a, load_b) = (self.load[a * quads + q], self.load[b * quads + q]);
            let (gpu_a, gpu_b) = (a / slots * quads + q, b / slots * quads + q);
            self.gpu_load[gpu_a] = plus(minus(self.gpu_load[gpu_a], load_a), load_b);
            self.gpu_load[gpu_b] = plus(minus(self.gpu_load[gpu_b], load_b), load_a);
            self.load.swap(a * quads + q, b * quads + q);
        }
        self.expert.swap(a, b);
    }

    /// Takes over a placement.
    pub fn place(&mut self, params: &Params, loads: &[Quad], placement: &[u32]) {
        refill(&mut self.counts, params.node_experts as usize, 0);
        for &expert in placement.iter().filter(|&&e| e != FREE) {
            self.counts[expert as usize] += 1;
        }
        self.clear(params);
        for (slot, &expert) in placement.iter().enumerate().filter(|(_, e)| **e != FREE) {
            self.put(params, loads, slot, expert);
        }
    }
}

fn refill<T: Clone>(array: &mut Vec<T>, len: usize, value: T) {
    array.clear();
    array.resize(len, value);
}

/// Lays the loads of one window into the quads of its experts, `quads` an expert.
pub fn lay_window(quads: usize, window: usize, loads: &[u32], out: &mut [Quad]) {
    for (expert, &load) in out.chunks_exact_mut(quads).zip(loads) {
        expert[window / 4][window % 4] = load;
    }
}

/// Window by window.
pub fn plus(a: Quad, b: Quad) -> Quad {
    std::array::from_fn(|i| a[i] + b[i])
}

/// Window by window.
pub fn minus(a: Quad, b: Quad) -> Quad {
    std::array::from_fn(|i| a[i] - b[i])
}

/// Window by window.
pub fn times(a: Quad, factor: u32) -> Quad {
    std::array::from_fn(|i| a[i] * factor)
}

/// Window by window.
pub fn divided(a: Quad, count: u32) -> Quad {
    std::array::from_fn(|i| a[i] / count)
}

/// Window by window.
pub fn larger(a: Quad, b: Quad) -> Quad {
    std::array::from_fn(|i| a[i].max(b[i]))
}

/// Over the windows.
pub fn sum(a: Quad) -> u32 {
    a[0] + a[1] + a[2] + a[3]
}
