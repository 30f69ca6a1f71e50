//! Stage 5, the mirror of `shaders/s5_refine.wgsl`: refine one candidate by local search.
//!
//! A descent takes steps until no move helps. A step tries, in this order and only while nothing was found:
//! 1-1 swaps ([`swap`]), 2-for-2 swaps ([`pair_swap`]), an exact bipartition of the heaviest and the lightest
//! GPU ([`bipartition`]), and replica transfers ([`transfer`]). Then the candidate is kicked ([`kick`]),
//! descends again, and is kept if not worse.
//!
//! All moves lower the sorted vector of GPU loads or the sum of squares, so a descent ends. The budget is
//! counted in blocks of comparisons, charged at the same places as the shader's loop trips, and looked at
//! between moves: a larger budget repeats what a smaller one did and goes on.

pub mod bipartition;
pub mod kick;
pub mod pair_swap;
pub mod swap;
pub mod transfer;

use crate::params::{FREE, Params, TURN, blocks};

/// Why a candidate's search ended; the values are the shader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum End {
    /// At most the stop load.
    Reached = 1,
    /// No move helps and no kick is left.
    Stuck = 2,
    /// The work limit or the step limit came first.
    Spent = 3,
}

/// One candidate plan of a node, and the scratch of the search. Loads and counts are of the node's experts.
#[derive(Default)]
pub struct Candidate {
    /// Expert of each slot, `FREE` where there is none.
    pub expert: Vec<u32>,
    /// Load of each slot's replica.
    pub load: Vec<u32>,
    /// Load of each GPU.
    pub gpu_load: Vec<u32>,
    /// Replicas of each expert.
    pub counts: Vec<u32>,
    /// The best placement so far, while a kick is tried.
    pub snapshot: Vec<u32>,
    /// Work charged so far, in blocks.
    pub work: u32,
    /// Stage 4: the replicas in the order of packing, as keys of falling load, whether a further one, expert.
    pub order: Vec<u64>,
    /// Stage 4: load of each GPU with a free slot, for comparison.
    pub open: Vec<i32>,
    /// Stage 4: slots in use of each GPU.
    pub used: Vec<u32>,
    /// Stage 4: the last expert each GPU received.
    pub last: Vec<u32>,
    /// Stage 3: loads as perturbed.
    pub scratch: Vec<u32>,
    /// Swaps: what each GPU may do in this step.
    pub marks: Vec<u32>,
    /// Transfers: see [`transfer`].
    pub peaks: Vec<transfer::Peak>,
}

/// What the search of one candidate came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Load of the heaviest GPU.
    pub max: u32,
    /// The same after the first descent, before any kick.
    pub first: u32,
    /// Why it ended.
    pub end: End,
}

/// Refines a packed candidate, down to `stop_load` if it can. Afterwards `candidate.snapshot` is the result.
pub fn refine(
    params: &Params,
    key: u32,
    loads: &[u32],
    stop_load: u32,
    candidate: &mut Candidate,
) -> Outcome {
    candidate.work = 0;
    let mut end = candidate.descend(params, loads, stop_load);
    let first = candidate.max_load();
    let mut best = first;
    candidate.save(params);
    for index in 0..params.kicks {
        if end != End::Stuck {
            break;
        }
        kick::kick(params, key, index, loads, candidate);
        end = candidate.descend(params, loads, stop_load);
        let max = candidate.max_load();
        if max <= best {
            best = max;
            candidate.save(params);
        } else if index + 1 < params.kicks && end == End::Stuck {
            candidate.restore(params, loads);
        }
    }
    Outcome { max: best, first, end }
}

impl Candidate {
    /// Takes steps until the stop load, a local optimum, or the end of a budget.
    fn descend(&mut self, params: &Params, loads: &[u32], stop_load: u32) -> End {
        let mut variance = params.starts_with_variance();
        for _ in 0..params.search.steps {
            self.charge(4 * TURN + blocks(params.node_gpus));
            if self.max_load() <= stop_load {
                return End::Reached;
            }
            if self.work >= params.work_limit {
                return End::Spent;
            }
            if params.search.swaps && swap::step(params, variance, self) {
                continue;
            }
            if variance && params.search.objective == crate::options::Objective::VarianceThenMax {
                variance = false;
                continue;
            }
            let moved = (params.search.pair_swaps && pair_swap::step(params, self))
                || (params.search.bipartition && bipartition::step(params, self))
                || (params.search.transfers && transfer::step(params, loads, self));
            if !moved {
                return End::Stuck;
            }
        }
        self.charge(4 * TURN + blocks(params.node_gpus));
        if self.max_load() <= stop_load { End::Reached } else { End::Spent }
    }

    /// Adds to the work done.
    pub fn charge(&mut self, work: u32) {
        self.work = self.work.saturating_add(work);
    }

    /// Load of the heaviest GPU.
    pub fn max_load(&self) -> u32 {
        self.gpu_load.iter().copied().max().unwrap_or(0)
    }

    /// The heaviest GPU, ties to the lower index.
    pub fn heaviest(&self) -> usize {
        (0..self.gpu_load.len()).max_by_key(|&g| (self.gpu_load[g], usize::MAX - g)).unwrap_or(0)
    }

    /// The lightest GPU, ties to the lower index.
    pub fn lightest(&self) -> usize {
        (0..self.gpu_load.len()).min_by_key(|&g| (self.gpu_load[g], g)).unwrap_or(0)
    }

    /// How many replicas the expert in a slot has; 0 for a free slot.
    pub fn count_at(&self, slot: usize) -> u32 {
        match self.expert[slot] {
            FREE => 0,
            expert => self.counts[expert as usize],
        }
    }

    /// Of the `count <= 32` slots from `begin`, those whose replica would be a duplicate on `gpu`, as bits.
    pub fn blocked(&mut self, params: &Params, begin: usize, count: usize, gpu: usize) -> u32 {
        if !params.avoid_duplicates {
            return 0;
        }
        self.charge(count as u32 + params.slots_per_gpu * (1 + blocks(count as u32)));
        let slots = params.slots_per_gpu as usize;
        let there = &self.expert[gpu * slots..(gpu + 1) * slots];
        let twin = |i: &usize| self.count_at(begin + i) > 1 && there.contains(&self.expert[begin + i]);
        (0..count).filter(twin).map(|i| 1 << i).sum()
    }

    /// Whether `gpu` holds `expert`. Charges the look.
    pub fn holds(&mut self, params: &Params, gpu: usize, expert: u32) -> bool {
        self.charge(blocks(params.slots_per_gpu));
        let slots = params.slots_per_gpu as usize;
        self.expert[gpu * slots..(gpu + 1) * slots].contains(&expert)
    }

    /// Exchanges what two slots of different GPUs hold.
    pub fn exchange(&mut self, params: &Params, a: usize, b: usize) {
        let slots = params.slots_per_gpu as usize;
        let (load_a, load_b) = (self.load[a], self.load[b]);
        self.gpu_load[a / slots] = self.gpu_load[a / slots] - load_a + load_b;
        self.gpu_load[b / slots] = self.gpu_load[b / slots] - load_b + load_a;
        self.expert.swap(a, b);
        self.load.swap(a, b);
    }

    /// Remembers the placement.
    fn save(&mut self, params: &Params) {
        self.charge(4 * TURN + blocks(params.node_slots));
        self.snapshot.clone_from(&self.expert);
    }

    /// Goes back to the placement remembered.
    fn restore(&mut self, params: &Params, loads: &[u32]) {
        self.charge(8 * TURN + blocks(params.node_experts) + 2 * blocks(params.node_slots));
        self.expert.clone_from(&self.snapshot);
        self.counts.fill(0);
        for &expert in self.expert.iter().filter(|&&e| e != FREE) {
            self.counts[expert as usize] += 1;
        }
        self.gpu_load.fill(0);
        for (slot, &expert) in self.expert.iter().enumerate() {
            let load = if expert == FREE { 0 } else { loads[expert as usize] / self.counts[expert as usize] };
            self.load[slot] = load;
            self.gpu_load[slot / params.slots_per_gpu as usize] += load;
        }
    }
}
