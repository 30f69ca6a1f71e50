//! Replica transfers, the mirror of `shaders/s5_windows_moves/transfer.wgsl`.
//!
//! A slot that holds a replica of `x` becomes one of `y`: the other replicas of `x` grow, those of `y` shrink.
//! Weighed are slots of critical GPUs, and slots elsewhere that become replicas of an expert of a critical GPU.
//! The value after it is bounded from above by leaving out that `y` may also relieve further GPUs; a move is
//! taken if that bound is below the value now.

use super::{Candidate, Kind, Move, Quad, Vector, divided, larger, minus, plus, sum, times};
use crate::params::{FREE, Params, TRANSFER_CHUNK, TURN, blocks};

/// The transfer with the lowest such bound below `value`; ties to the earlier window's GPU, to slots of the
/// critical GPU, then to the lower slot, then to the lower expert, or the lower slot of the critical GPU.
pub fn best(params: &Params, loads: &[Quad], value: u32, candidate: &mut Candidate) -> Option<Move> {
    let mut best = Move::none(value);
    for window in 0..params.windows {
        candidate.charge(TURN);
        let Some(heavy) = candidate.critical(window) else { continue };
        let slots = params.slots_per_gpu as usize;
        for slot in heavy * slots..(heavy + 1) * slots {
            for begin in (0..params.node_experts).step_by(TRANSFER_CHUNK as usize) {
                replace(params, loads, candidate, slot, begin, &mut best);
            }
        }
        for slot in 0..params.node_slots as usize {
            replicate(params, loads, candidate, heavy, slot, &mut best);
        }
    }
    best.found().filter(|found| found.value < value)
}

/// Turns `slot` into a replica of `expert`.
pub fn apply(params: &Params, loads: &[Quad], candidate: &mut Candidate, slot: usize, expert: u32) {
    candidate.charge(1 + params.node_slots);
    let quads = params.quads() as usize;
    let old = candidate.expert[slot];
    candidate.expert[slot] = expert;
    candidate.counts[old as usize] -= 1;
    candidate.counts[expert as usize] += 1;
    for at in 0..params.node_slots as usize {
        let held = candidate.expert[at];
        if held != old && held != expert {
            continue;
        }
        let gpu = at / params.slots_per_gpu as usize;
        for q in 0..quads {
            let load = divided(loads[held as usize * quads + q], candidate.counts[held as usize]);
            let on_gpu = &mut candidate.gpu_load[gpu * quads + q];
            *on_gpu = plus(minus(*on_gpu, candidate.load[at * quads + q]), load);
            candidate.load[at * quads + q] = load;
        }
    }
}

/// What `slot`'s GPU and the others come to if its replica goes: the loads of its GPU without it, and the
/// heaviest of the others that hold the expert, larger as they are then.
struct Gone {
    here: Vector,
    others: Vector,
}

/// What happens if the replica in `slot` goes, which is not the last one.
fn gone(params: &Params, loads: &[Quad], candidate: &mut Candidate, slot: usize) -> Gone {
    candidate.charge(params.node_slots + blocks(params.slots_per_gpu));
    let (slots, quads) = (params.slots_per_gpu as usize, params.quads() as usize);
    let expert = candidate.expert[slot];
    let count = candidate.counts[expert as usize];
    let mut growth = Vector::default();
    for q in 0..quads {
        let fewer = divided(loads[expert as usize * quads + q], count - 1);
        growth[q] = minus(fewer, candidate.load[slot * quads + q]);
    }
    let copies = |gpu: usize| {
        let on_gpu = &candidate.expert[gpu * slots..(gpu + 1) * slots];
        on_gpu.iter().filter(|&&e| e == expert).count() as u32
    };
    let mut gone = Gone { here: Vector::default(), others: Vector::default() };
    let home = slot / slots;
    for at in (0..candidate.expert.len()).filter(|&at| candidate.expert[at] == expert) {
        let gpu = at / slots;
        if gpu == home {
            continue;
        }
        for q in 0..quads {
            let grown = plus(candidate.gpu_load[gpu * quads + q], times(growth[q], copies(gpu)));
            gone.others[q] = larger(gone.others[q], grown);
        }
    }
    for q in 0..quads {
        let without = minus(candidate.gpu_load[home * quads + q], candidate.load[slot * quads + q]);
        gone.here[q] = plus(without, times(growth[q], copies(home) - 1));
    }
    gone
}

/// Weighs the experts from `begin` on for `slot` of a critical GPU.
fn replace(
    params: &Params,
    loads: &[Quad],
    candidate: &mut Candidate,
    slot: usize,
    begin: u32,
    best: &mut Move,
) {
    let (slots, quads) = (params.slots_per_gpu as usize, params.quads() as usize);
    candidate.charge(TURN);
    if candidate.count_at(slot) < 2 {
        return;
    }
    let heavy = slot / slots;
    let gone = gone(params, loads, candidate, slot);
    let (base, floor) = (candidate.without(heavy, heavy), candidate.floor());
    let near: Vector = std::array::from_fn(|q| larger(floor[q], gone.others[q]));
    let fixed: Vector = std::array::from_fn(|q| larger(base[q], gone.others[q]));
    let least: u32 = (0..quads).map(|q| sum(larger(fixed[q], gone.here[q]))).sum();
    if least > best.value {
        return;
    }
    candidate.charge(TRANSFER_CHUNK * (1 + if params.avoid_duplicates { blocks(params.slots_per_gpu) } else { 0 }));
    for expert in begin..(begin + TRANSFER_CHUNK).min(params.node_experts) {
        let count = candidate.counts[expert as usize];
        if expert == candidate.expert[slot] || count == 0 || count >= params.max_count {
            continue;
        }
        let (mut value, mut local) = (0, 0);
        for q in 0..quads {
            let load = divided(loads[expert as usize * quads + q], count + 1);
            let here = plus(gone.here[q], load);
            value += sum(larger(fixed[q], here));
            local += sum(larger(near[q], here));
        }
        let twin = params.avoid_duplicates
            && candidate.expert[heavy * slots..(heavy + 1) * slots].contains(&expert);
        if !twin {
            best.offer(u32::MAX, 0, Move { value, local, kind: Kind::Transfer(slot, expert) });
        }
    }
}

/// Weighs the experts of a critical GPU for `slot` of another.
fn replicate(
    params: &Params,
    loads: &[Quad],
    candidate: &mut Candidate,
    heavy: usize,
    slot: usize,
    best: &mut Move,
) {
    let (slots, quads) = (params.slots_per_gpu as usize, params.quads() as usize);
    let gpu = slot / slots;
    candidate.charge(TURN);
    if gpu == heavy || candidate.count_at(slot) < 2 {
        return;
    }
    let gone = gone(params, loads, candidate, slot);
    let (base, floor) = (candidate.without(heavy, gpu), candidate.floor());
    let near: Vector = std::array::from_fn(|q| larger(floor[q], gone.others[q]));
    let fixed: Vector = std::array::from_fn(|q| larger(base[q], gone.others[q]));
    let least: u32 = (0..quads).map(|q| sum(larger(fixed[q], gone.here[q]))).sum();
    if least > best.value {
        return;
    }
    candidate.charge(params.slots_per_gpu * (1 + 2 * blocks(params.slots_per_gpu)));
    for from in heavy * slots..(heavy + 1) * slots {
        let expert = candidate.expert[from];
        if expert == FREE || expert == candidate.expert[slot] {
            continue;
        }
        let count = candidate.counts[expert as usize];
        if count >= params.max_count {
            continue;
        }
        let copies = |gpu: usize| {
            let on_gpu = &candidate.expert[gpu * slots..(gpu + 1) * slots];
            on_gpu.iter().filter(|&&e| e == expert).count() as u32
        };
        if params.avoid_duplicates && copies(gpu) > 0 {
            continue;
        }
        let on_heavy = copies(heavy);
        let (mut value, mut local) = (0, 0);
        for q in 0..quads {
            let load = divided(loads[expert as usize * quads + q], count + 1);
            let relief = times(minus(candidate.load[from * quads + q], load), on_heavy);
            let relieved = minus(candidate.gpu_load[heavy * quads + q], relief);
            let two = larger(relieved, plus(gone.here[q], load));
            value += sum(larger(fixed[q], two));
            local += sum(larger(near[q], two));
        }
        best.offer(u32::MAX, 0, Move { value, local, kind: Kind::Transfer(slot, expert) });
    }
}
