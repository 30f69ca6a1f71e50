//! Stage 5, the mirror of `shaders/s5_search.wgsl`: one trajectory from a packed candidate.
//!
//! An iteration takes the heaviest GPU, weighs every exchange of it with every other GPU ([`exchange`]), and makes
//! the best one even where that makes things worse. What moved stays where it is for a few iterations (tabu), so
//! that the trajectory does not turn back. Where no exchange helps, a replica of one expert may become one of
//! another ([`transfer`]). The best placement on the way is the result.
//!
//! A load is one number a window. The objective is the sum over windows of the heaviest GPU's load; loads are
//! scaled by the windows' weights before, so that no product is needed. With one window it is the heaviest GPU.
//!
//! Where GPUs are of unequal speed, all loads but those of experts are over the speed of their GPU: a replica counts more on a
//! slow one ([`crate::params::over_speed`]). That is on the host alone.
//!
//! Arrays are `[slot][window][GPU]`, so that loops over GPUs run abreast.

mod exchange;
#[cfg(test)]
mod tests;
mod transfer;

use crate::mirror::abreast::{Top, heaviest, refill, three_heaviest};
use crate::mirror::candidate::{Candidate, Outcome};
use crate::mirror::rng;
use crate::params::{BLOCKED, EXPERT_TENURE, FREE, Params, SLOT_TENURE, TRANSFER_WAIT, over_speed};
use crate::plan::Stop;

/// GPUs that a loop takes abreast.
const ABREAST: usize = 16;

/// One start of a node: its state, and the scratch of the search. Experts are numbered within the node.
#[derive(Default)]
pub struct NodeSearch {
    gpus: usize,
    /// `gpus`, rounded up to whole vectors.
    lanes: usize,
    slots: usize,
    windows: usize,
    /// Expert of each slot, `[slot][lanes]`.
    expert: Vec<u32>,
    /// Load of each slot's replica, `[slot][window][lanes]`.
    load: Vec<i32>,
    /// Iteration up to which each slot must not move, `[slot][lanes]`.
    tabu: Vec<u32>,
    /// Load of each GPU, `[window][lanes]`; padding is -1.
    gpu: Vec<i32>,
    /// The factor of each GPU's speed, `[lanes]`, where these are unequal; else empty.
    factors: Vec<u32>,
    /// With unequal speeds: load of each slot's replica as it is, `[slot][window][lanes]`.
    plain: Vec<i32>,
    /// Load of each expert, `[expert][window]`.
    weight: Vec<i32>,
    /// Replicas of each expert.
    counts: Vec<u32>,
    /// Iterations up to which each expert must not gain and not lose a replica.
    no_gain: Vec<u32>,
    no_loss: Vec<u32>,
    /// Experts with two replicas or more; where one loses its second, the last takes its place.
    replicated: Vec<u32>,
    /// The heaviest GPU of each window, the first of three where there are several windows.
    tops: Vec<[Top; 3]>,
    /// The load that each window's heaviest GPU cannot go below, whatever this node does.
    floors: Vec<i32>,
    exchange: exchange::ExchangeLoads,
    transfer: transfer::SharedExperts,
}

/// The state at the start of an iteration.
struct Now<'a> {
    params: &'a Params,
    key: u32,
    start: u32,
    iteration: u32,
    /// Iterations without a new best.
    since: u32,
    /// The objective.
    value: i32,
    /// The GPU that moves.
    heavy: usize,
}

/// A move and the objective after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeMove {
    value: i32,
    kind: NodeMoveKind,
}

/// The kinds of moves, with slots as numbers on their GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeMoveKind {
    None,
    /// A slot of the heaviest GPU for one of another, or two for two.
    Exchange {
        gpu: usize,
        first: (usize, usize),
        second: Option<(usize, usize)>,
    },
    /// A slot becomes a replica of an expert.
    Transfer {
        gpu: usize,
        slot: usize,
        expert: u32,
    },
}

impl NodeMove {
    const NONE: Self = Self { value: BLOCKED, kind: NodeMoveKind::None };
}

/// Follows the trajectory of a start from a packed candidate. Afterwards `candidate.snapshot` is the best placement on
/// the way. `loads` is `[experts][windows]`, `floors` has one load a window. A start is told by its key and number.
///
/// It is compiled once for each set of vector instructions, and the widest that the processor has is taken.
pub fn search(
    params: &Params,
    start: (u32, u32),
    loads: &[u32],
    (floors, stop_load): (&[u32], u32),
    candidate: &mut Candidate,
    search: &mut NodeSearch,
) -> Outcome {
    pulp::Arch::new().dispatch(Trajectory { params, start, loads, floors, stop_load, candidate, search })
}

/// The arguments of [`search`].
struct Trajectory<'a> {
    params: &'a Params,
    start: (u32, u32),
    loads: &'a [u32],
    floors: &'a [u32],
    stop_load: u32,
    candidate: &'a mut Candidate,
    search: &'a mut NodeSearch,
}

impl pulp::NullaryFnOnce for Trajectory<'_> {
    type Output = Outcome;

    #[inline(always)]
    fn call(self) -> Outcome {
        self.search.place(self.params, self.loads, self.floors, self.candidate);
        self.search.run(self.params, self.start, self.stop_load as i32, self.candidate)
    }
}

impl NodeSearch {
    /// Takes over a packed candidate.
    #[inline(always)]
    fn place(&mut self, params: &Params, loads: &[u32], floors: &[u32], candidate: &Candidate) {
        let (gpus, slots, windows) =
            (params.node_gpus as usize, params.slots_per_gpu as usize, params.windows as usize);
        let (lanes, experts) = (gpus.next_multiple_of(ABREAST), candidate.counts.len());
        (self.gpus, self.lanes, self.slots, self.windows) = (gpus, lanes, slots, windows);
        refill(&mut self.expert, slots * lanes, FREE);
        refill(&mut self.load, slots * windows * lanes, 0);
        refill(&mut self.tabu, slots * lanes, 0);
        refill(&mut self.gpu, windows * lanes, -1);
        self.factors.clone_from(&params.factors.gpus);
        if !self.factors.is_empty() {
            self.factors.resize(lanes, 0);
            refill(&mut self.plain, slots * windows * lanes, 0);
        }
        refill(&mut self.no_gain, experts, 0);
        refill(&mut self.no_loss, experts, 0);
        self.weight.clear();
        self.weight.extend(loads.iter().map(|&load| load as i32));
        self.counts.clone_from(&candidate.counts);
        self.replicated.clear();
        // None may lose a replica where counts stay as they are.
        let may_lose = |e: &u32| candidate.counts[*e as usize] > 1 && !params.fixed_counts;
        self.replicated.extend((0..experts as u32).filter(may_lose));
        self.floors.clear();
        self.floors.extend(floors.iter().map(|&load| load as i32));
        for window in 0..windows {
            self.gpu[window * lanes..window * lanes + gpus].fill(0);
        }
        for (at, &expert) in candidate.expert.iter().enumerate().filter(|(_, e)| **e != FREE) {
            let (gpu, slot) = (at / slots, at % slots);
            self.expert[slot * lanes + gpu] = expert;
            self.weigh_slot(slot, gpu);
        }
        self.begin_transfers();
    }

    /// Sets the load of a slot by its expert's count, and changes its GPU's by as much.
    #[inline(always)]
    fn weigh_slot(&mut self, slot: usize, gpu: usize) {
        let expert = self.expert[slot * self.lanes + gpu] as usize;
        for window in 0..self.windows {
            let plain = self.weight[expert * self.windows + window] / self.counts[expert] as i32;
            let at = (slot * self.windows + window) * self.lanes + gpu;
            let load = self.on_gpu(plain, gpu);
            self.gpu[window * self.lanes + gpu] += load - self.load[at];
            self.load[at] = load;
            if let Some(at) = self.plain.get_mut(at).filter(|_| !self.factors.is_empty()) {
                *at = plain;
            }
        }
    }

    /// A load as it counts on a GPU.
    #[inline(always)]
    fn on_gpu(&self, load: i32, gpu: usize) -> i32 {
        match self.factors.is_empty() {
            true => load,
            false => over_speed(load as u32, self.factors[gpu]) as i32,
        }
    }

    #[inline(always)]
    fn run(
        &mut self,
        params: &Params,
        (key, start): (u32, u32),
        stop: i32,
        candidate: &mut Candidate,
    ) -> Outcome {
        let mut value = self.look();
        let mut best = value;
        let (mut iteration, mut since) = (0, 0);
        // Whether the placement is the best so far and not kept yet.
        let mut is_new = true;
        let can_move = self.gpus > 1 && (self.slots > 1 || params.has_speeds());
        let patience = if start == 0 { params.patience } else { params.later_patience };
        let end = loop {
            if best <= stop {
                break Stop::BoundReached;
            }
            if since > patience || !can_move {
                break Stop::NoMoveLeft;
            }
            if iteration == params.iterations {
                break Stop::BudgetSpent;
            }
            iteration += 1;
            let now = Now { params, key, start, iteration, since, value, heavy: self.heavy() };
            let found = self.best_move(&now);
            // With duplicates a transfer may come to more than it says: a GPU may hold the expert that loses twice.
            let may_be_worse =
                matches!(found.kind, NodeMoveKind::Transfer { .. }) && !params.avoid_duplicates;
            if is_new && (found.value >= value || may_be_worse) {
                self.keep(candidate);
                is_new = false;
            }
            self.make(&now, found.kind);
            value = self.look();
            if value < best {
                (best, since, is_new) = (value, 0, true);
            } else {
                since += 1;
            }
        };
        if is_new {
            self.keep(candidate);
        }
        Outcome { max: best as u32, end }
    }

    /// The best exchange, or, where that does not help, the best transfer.
    #[inline(always)]
    fn best_move(&mut self, now: &Now<'_>) -> NodeMove {
        let found = self.best_exchange(now);
        let waited = self.slots <= 3 || now.since >= TRANSFER_WAIT;
        if found.value < now.value || self.replicated.is_empty() || !waited {
            return found;
        }
        // A start from noisy counts changes them now and then, whatever it costs.
        let forced = now.start > 0 && now.since % TRANSFER_WAIT == TRANSFER_WAIT - 1;
        let limit = if forced { BLOCKED } else { found.value };
        let transfer = self.best_transfer(now, limit);
        if transfer.value < limit { transfer } else { found }
    }

    /// Makes a move, and forbids to undo it for some iterations.
    #[inline(always)]
    fn make(&mut self, now: &Now<'_>, kind: NodeMoveKind) {
        let &Now { key, iteration, heavy: a, .. } = now;
        let word = rng::draw(key, rng::TENURE + iteration);
        let tenure = |byte: u32| iteration + SLOT_TENURE + (word >> (8 * byte) & 0xff) % 3;
        match kind {
            NodeMoveKind::None => (0..self.slots).for_each(|slot| self.tabu[slot * self.lanes + a] = 0),
            NodeMoveKind::Exchange { gpu: b, first, second } => {
                for ((i, j), byte) in [Some(first), second].into_iter().flatten().zip([0, 2]) {
                    self.swap(i, a, j, b);
                    self.tabu[i * self.lanes + a] = tenure(byte);
                    self.tabu[j * self.lanes + b] = tenure(byte + 1);
                }
            }
            NodeMoveKind::Transfer { slot, gpu, expert } => {
                let lost = self.expert[slot * self.lanes + gpu];
                self.transfer(slot, gpu, expert);
                let tenure =
                    |byte: u32| iteration + EXPERT_TENURE + (word >> (8 * byte) & 0xff) % EXPERT_TENURE;
                self.no_gain[lost as usize] = tenure(0);
                self.no_loss[expert as usize] = tenure(1);
            }
        }
    }

    /// Exchanges what two slots of different GPUs hold.
    #[inline(always)]
    fn swap(&mut self, i: usize, a: usize, j: usize, b: usize) {
        self.expert.swap(i * self.lanes + a, j * self.lanes + b);
        for window in 0..self.windows {
            let here = (i * self.windows + window) * self.lanes + a;
            let there = (j * self.windows + window) * self.lanes + b;
            if !self.factors.is_empty() {
                self.plain.swap(here, there);
                let (mine, theirs) = (self.on_gpu(self.plain[here], a), self.on_gpu(self.plain[there], b));
                self.gpu[window * self.lanes + a] += mine - self.load[here];
                self.gpu[window * self.lanes + b] += theirs - self.load[there];
                (self.load[here], self.load[there]) = (mine, theirs);
                continue;
            }
            let moved = self.load[here] - self.load[there];
            self.gpu[window * self.lanes + a] -= moved;
            self.gpu[window * self.lanes + b] += moved;
            self.load.swap(here, there);
        }
    }

    /// Finds the heaviest GPUs of each window, ties to the lower GPU; returns the objective.
    #[inline(always)]
    fn look(&mut self) -> i32 {
        self.tops.clear();
        for loads in self.gpu.chunks_exact_mut(self.lanes) {
            let tops = match self.windows {
                1 => [heaviest::<ABREAST>(loads); 3],
                _ => three_heaviest::<ABREAST>(loads),
            };
            self.tops.push(tops);
        }
        self.tops.iter().zip(&self.floors).map(|(tops, &floor)| tops[0].load.max(floor)).sum()
    }

    /// The GPU that moves: the heaviest one of the window that is furthest above its floor, ties to the earlier.
    #[inline(always)]
    fn heavy(&self) -> usize {
        let excess = |w: usize| self.tops[w][0].load - self.floors[w];
        let furthest = (0..self.windows).fold(0, |best, w| if excess(w) > excess(best) { w } else { best });
        self.tops[furthest][0].gpu
    }

    /// Keeps the placement as the result.
    #[inline(always)]
    fn keep(&self, candidate: &mut Candidate) {
        candidate.snapshot.clear();
        for gpu in 0..self.gpus {
            candidate.snapshot.extend((0..self.slots).map(|slot| self.expert[slot * self.lanes + gpu]));
        }
    }

    /// Whether `gpu` holds the expert.
    #[inline(always)]
    fn holds(&self, gpu: usize, expert: u32) -> bool {
        (0..self.slots).any(|slot| self.expert[slot * self.lanes + gpu] == expert)
    }
}
