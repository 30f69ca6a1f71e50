//! Replica transfers, the mirror of `shaders/s5_moves/transfer.wgsl`.
//!
//! A slot that holds a replica of `x` becomes one of `y`: the other replicas of `x` grow by
//! `w_x/(c_x-1) - w_x/c_x`, those of `y` shrink. Only moves that relieve the heaviest GPU `h` are weighed: the
//! slot is on `h`, or `y` is. The new load of the heaviest GPU touched is bounded from above by leaving out
//! that `y` may also relieve a GPU on which `x` grows; a move is taken if that bound is below `h`'s load.

use super::Candidate;
use crate::params::{FREE, Params, TRANSFER_CHUNK, TURN, blocks};

/// Of the GPUs that hold an expert, with the load each would have if another of its replicas went:
/// the highest load, its GPU, and the highest load of the other GPUs.
#[derive(Clone, Copy)]
pub struct Peak {
    first: u32,
    gpu: u32,
    second: u32,
}

impl Peak {
    const NONE: Peak = Peak { first: 0, gpu: FREE, second: 0 };

    fn add(&mut self, gpu: u32, load: u32) {
        if gpu == self.gpu {
            return;
        }
        if self.gpu == FREE || load > self.first {
            *self = Peak { first: load, gpu, second: self.first };
        } else if load > self.second {
            self.second = load;
        }
    }

    /// The highest load of the GPUs other than `gpu`.
    fn without(&self, gpu: usize) -> u32 {
        if self.gpu == gpu as u32 { self.second } else { self.first }
    }
}

/// Makes the transfer with the lowest such bound; ties to slots of the heaviest GPU, then to the lower slot
/// there, then to the lower slot elsewhere or expert. Whether there was one.
pub fn step(params: &Params, loads: &[u32], candidate: &mut Candidate) -> bool {
    let slots = params.slots_per_gpu as usize;
    let heavy = candidate.heaviest();
    candidate.charge(1 + blocks(params.node_gpus));
    candidate.charge(params.slots_per_gpu);
    find_peaks(params, loads, candidate);
    let mut best = candidate.gpu_load[heavy];
    let mut transfer = None;
    for slot in heavy * slots..(heavy + 1) * slots {
        if let Some(expert) = replace_on_heavy(params, loads, candidate, heavy, slot, &mut best) {
            transfer = Some((slot, expert));
        }
    }
    for slot in heavy * slots..(heavy + 1) * slots {
        if let Some(to) = replicate_from_heavy(params, loads, candidate, heavy, slot, &mut best) {
            transfer = Some((to, candidate.expert[slot]));
        }
    }
    let Some((slot, expert)) = transfer else { return false };
    apply(params, loads, candidate, slot, expert);
    true
}

/// Turns `slot` into a replica of `expert`.
pub fn apply(params: &Params, loads: &[u32], candidate: &mut Candidate, slot: usize, expert: u32) {
    candidate.charge(1 + blocks(params.node_slots));
    let old = candidate.expert[slot];
    candidate.expert[slot] = expert;
    candidate.counts[old as usize] -= 1;
    candidate.counts[expert as usize] += 1;
    for at in 0..params.node_slots as usize {
        let held = candidate.expert[at];
        if held == old || held == expert {
            let load = loads[held as usize] / candidate.counts[held as usize];
            let gpu = at / params.slots_per_gpu as usize;
            candidate.gpu_load[gpu] = candidate.gpu_load[gpu] - candidate.load[at] + load;
            candidate.load[at] = load;
        }
    }
}

/// How much each other replica of the expert in `slot` grows when one goes.
fn growth(loads: &[u32], candidate: &Candidate, slot: usize) -> u32 {
    let expert = candidate.expert[slot] as usize;
    loads[expert] / (candidate.counts[expert] - 1) - candidate.load[slot]
}

/// How many replicas of the expert in `slot` its GPU holds; without duplicates, 1.
fn copies(params: &Params, candidate: &mut Candidate, slot: usize) -> u32 {
    if params.avoid_duplicates {
        return 1;
    }
    candidate.charge(blocks(params.slots_per_gpu));
    let slots = params.slots_per_gpu as usize;
    let gpu = slot / slots;
    let on_gpu = &candidate.expert[gpu * slots..(gpu + 1) * slots];
    on_gpu.iter().filter(|&&e| e == candidate.expert[slot]).count() as u32
}

/// Fills `candidate.peaks`.
fn find_peaks(params: &Params, loads: &[u32], candidate: &mut Candidate) {
    candidate.peaks.clear();
    candidate.peaks.resize(params.node_experts as usize, Peak::NONE);
    candidate.charge(1 + blocks(params.node_experts));
    for gpu in 0..params.node_gpus as usize {
        candidate.charge(TURN + params.slots_per_gpu);
        for slot in gpu * params.slots_per_gpu as usize..(gpu + 1) * params.slots_per_gpu as usize {
            if candidate.count_at(slot) > 1 {
                let copies = copies(params, candidate, slot);
                let load = candidate.gpu_load[gpu] + copies * growth(loads, candidate, slot);
                candidate.peaks[candidate.expert[slot] as usize].add(gpu as u32, load);
            }
        }
    }
}

/// The expert to put into `slot` of the heaviest GPU, if that brings the heaviest GPU touched below `best`.
fn replace_on_heavy(
    params: &Params,
    loads: &[u32],
    candidate: &mut Candidate,
    heavy: usize,
    slot: usize,
    best: &mut u32,
) -> Option<u32> {
    let mut found = None;
    for begin in (0..params.node_experts).step_by(TRANSFER_CHUNK as usize) {
        candidate.charge(TURN);
        if candidate.count_at(slot) < 2 {
            break;
        }
        let others = candidate.peaks[candidate.expert[slot] as usize].without(heavy);
        if others >= *best {
            break;
        }
        let copies = copies(params, candidate, slot);
        let without =
            candidate.gpu_load[heavy] - candidate.load[slot] + (copies - 1) * growth(loads, candidate, slot);
        candidate.charge(TRANSFER_CHUNK);
        for expert in begin..(begin + TRANSFER_CHUNK).min(params.node_experts) {
            let count = candidate.counts[expert as usize];
            let max = others.max(without + loads[expert as usize] / (count + 1));
            let fits = expert != candidate.expert[slot] && count < params.max_count && max < *best;
            let slots = params.slots_per_gpu as usize;
            let on_heavy = &candidate.expert[heavy * slots..(heavy + 1) * slots];
            if fits && !(params.avoid_duplicates && on_heavy.contains(&expert)) {
                *best = max;
                found = Some(expert);
            }
        }
    }
    found
}

/// The slot of another GPU to turn into a replica of the expert in `slot` of the heaviest GPU, likewise.
fn replicate_from_heavy(
    params: &Params,
    loads: &[u32],
    candidate: &mut Candidate,
    heavy: usize,
    slot: usize,
    best: &mut u32,
) -> Option<usize> {
    let slots = params.slots_per_gpu as usize;
    let expert = candidate.expert[slot];
    let mut found = None;
    for gpu in 0..params.node_gpus as usize {
        candidate.charge(TURN);
        if expert == FREE || candidate.counts[expert as usize] >= params.max_count {
            break;
        }
        if gpu == heavy {
            continue;
        }
        let load = loads[expert as usize] / (candidate.counts[expert as usize] + 1);
        let relief = copies(params, candidate, slot) * (candidate.load[slot] - load);
        let on_heavy = candidate.gpu_load[heavy] - relief;
        if on_heavy >= *best {
            break;
        }
        if params.avoid_duplicates && candidate.holds(params, gpu, expert) {
            continue;
        }
        candidate.charge(params.slots_per_gpu);
        for at in gpu * slots..(gpu + 1) * slots {
            if candidate.count_at(at) < 2 || candidate.expert[at] == expert {
                continue;
            }
            let others = candidate.peaks[candidate.expert[at] as usize].without(gpu);
            let lower_bound = candidate.gpu_load[gpu] - candidate.load[at] + load;
            if others.max(lower_bound).max(on_heavy) >= *best {
                continue;
            }
            let copies = copies(params, candidate, at);
            let here = lower_bound + (copies - 1) * growth(loads, candidate, at);
            let max = others.max(here).max(on_heavy);
            if max < *best {
                *best = max;
                found = Some(at);
            }
        }
    }
    found
}
