//! Replica transfers.
//!
//! A slot that holds a replica of `x` becomes one of `y`: the other replicas of `x` grow, those of `y` shrink.
//! Weighed are slots of critical GPUs, and slots elsewhere that become replicas of an expert of a critical GPU.
//! The value after it is bounded from above by leaving out that `y` may also relieve further GPUs; a move is
//! taken if that bound is below the value now.

use super::{
    Candidate, Kind, Loads, Move, Quad, TURN, WINDOW_EXPERTS, WINDOW_GPUS, WINDOW_TILE, by_quads, divided,
    larger, minus, plus, sum, times,
};
use crate::params::{FREE, Params, blocks};

/// The transfer with the lowest such bound below `value`; ties to the earlier window's GPU, to slots of the
/// critical GPU, then to the lower slot, then to the lower expert, or the lower slot of the critical GPU.
pub fn best(params: &Params, loads: &[Quad], value: u32, candidate: &mut Candidate) -> Option<Move> {
    by_quads!(params, best_of(params, loads, value, candidate))
}

fn best_of<const Q: usize>(
    params: &Params,
    loads: &[Quad],
    value: u32,
    candidate: &mut Candidate,
) -> Option<Move> {
    let loads = loads.as_chunks::<Q>().0;
    let slots = params.slots_per_gpu as usize;
    let mut best = Move::none(value);
    for window in 0..params.windows {
        let Some(heavy) = candidate.proposer(params, window) else { continue };
        candidate.charge(blocks(params.node_experts) + params.slots_per_gpu);
        let mut spent = false;
        for slot in heavy * slots..(heavy + 1) * slots {
            spent |= candidate.is_spent();
            if !spent {
                replace(params, loads, candidate, slot, &mut best);
            }
        }
        for slot in 0..params.node_slots as usize {
            spent |= candidate.is_spent();
            if !spent {
                replicate(params, loads, candidate, heavy, slot, &mut best);
            }
        }
        if spent {
            break;
        }
    }
    best.found().filter(|found| found.value < value)
}

/// Turns `slot` into a replica of `expert`.
pub fn apply(params: &Params, loads: &[Quad], candidate: &mut Candidate, slot: usize, expert: u32) {
    candidate.charge_slots(params, 2 + params.quads());
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

/// What `slot`'s GPU and the others come to if its replica goes.
struct Gone<const Q: usize> {
    /// Its GPU without it.
    here: Loads<Q>,
    /// The heaviest of the GPUs other than this one and the critical one, and of those that hold the expert,
    /// larger as they are then.
    others: Loads<Q>,
    /// The same of those that hold the expert alone, not below the floor.
    near: Loads<Q>,
}

impl<const Q: usize> Gone<Q> {
    /// What happens if the replica in `slot` goes, which is not the last one.
    fn new(
        params: &Params,
        loads: &[Loads<Q>],
        candidate: &mut Candidate,
        slot: usize,
        heavy: usize,
    ) -> Self {
        let gpus = params.node_gpus;
        candidate
            .charge(gpus.div_ceil(WINDOW_GPUS) * TURN + gpus * (3 + Q as u32 + blocks(params.slots_per_gpu)));
        let slots = params.slots_per_gpu as usize;
        let expert = candidate.expert[slot];
        let count = candidate.counts[expert as usize];
        let slot_loads = candidate.load.as_chunks::<Q>().0;
        let gpu_loads = candidate.gpu_load.as_chunks::<Q>().0;
        let growth: Loads<Q> = std::array::from_fn(|q| {
            minus(divided(loads[expert as usize][q], count - 1), slot_loads[slot][q])
        });
        let home = slot / slots;
        let mut others = candidate.floor::<Q>();
        let mut home_copies = 0;
        for (at, _) in candidate.expert.iter().enumerate().filter(|(_, e)| **e == expert) {
            let gpu = at / slots;
            if gpu == home {
                home_copies += 1;
                continue;
            }
            let copies = if params.avoid_duplicates { 1 } else { candidate.copies(params, gpu, expert) };
            for q in 0..Q {
                others[q] = larger(others[q], plus(gpu_loads[gpu][q], times(growth[q], copies)));
            }
        }
        let base = candidate.without::<Q>(heavy, home);
        let here = |q: usize| {
            plus(minus(gpu_loads[home][q], slot_loads[slot][q]), times(growth[q], home_copies - 1))
        };
        Self {
            here: std::array::from_fn(here),
            others: std::array::from_fn(|q| larger(base[q], others[q])),
            near: others,
        }
    }

    /// No transfer into the slot leaves a lower value.
    fn least(&self) -> u32 {
        (0..Q).map(|q| sum(larger(self.others[q], self.here[q]))).sum()
    }

    /// Value and local value for these loads of the heavier of the slot's GPU and the critical one.
    fn value(&self, heavier: impl Fn(usize) -> Quad) -> (u32, u32) {
        let (mut value, mut local) = (0, 0);
        for q in 0..Q {
            let heavier = heavier(q);
            value += sum(larger(self.others[q], heavier));
            local += sum(larger(self.near[q], heavier));
        }
        (value, local)
    }
}

/// Weighs all experts for `slot` of a critical GPU.
fn replace<const Q: usize>(
    params: &Params,
    loads: &[Loads<Q>],
    candidate: &mut Candidate,
    slot: usize,
    best: &mut Move,
) {
    candidate.charge(TURN);
    if candidate.count_at(slot) < 2 {
        return;
    }
    let heavy = slot / params.slots_per_gpu as usize;
    let gone = Gone::new(params, loads, candidate, slot, heavy);
    if gone.least() > best.value {
        return;
    }
    let experts = params.node_experts;
    candidate.charge(experts.div_ceil(WINDOW_EXPERTS) * TURN + experts * (2 + Q as u32));
    for expert in 0..experts {
        let count = candidate.counts[expert as usize];
        if expert == candidate.expert[slot] || count == 0 || count >= params.max_count {
            continue;
        }
        let (value, local) =
            gone.value(|q| plus(gone.here[q], divided(loads[expert as usize][q], count + 1)));
        let better = (value, local) < (best.value, best.local);
        if better && !(params.avoid_duplicates && candidate.copies(params, heavy, expert) > 0) {
            *best = Move { value, local, kind: Kind::Transfer(slot, expert) };
        }
    }
}

/// Weighs the experts of a critical GPU for `slot` of another.
fn replicate<const Q: usize>(
    params: &Params,
    loads: &[Loads<Q>],
    candidate: &mut Candidate,
    heavy: usize,
    slot: usize,
    best: &mut Move,
) {
    let slots = params.slots_per_gpu as usize;
    let gpu = slot / slots;
    candidate.charge(TURN);
    if gpu == heavy || candidate.count_at(slot) < 2 {
        return;
    }
    let gone = Gone::new(params, loads, candidate, slot, heavy);
    if gone.least() > best.value {
        return;
    }
    let k = params.slots_per_gpu;
    candidate.charge(k.div_ceil(WINDOW_TILE) * TURN + k * (4 + Q as u32 + blocks(k)));
    for from in heavy * slots..(heavy + 1) * slots {
        let expert = candidate.expert[from];
        if expert == FREE || expert == candidate.expert[slot] {
            continue;
        }
        let count = candidate.counts[expert as usize];
        if count >= params.max_count || (params.avoid_duplicates && candidate.copies(params, gpu, expert) > 0)
        {
            continue;
        }
        let on_heavy = candidate.copies(params, heavy, expert);
        let slot_loads = candidate.load.as_chunks::<Q>().0;
        let gpu_loads = candidate.gpu_load.as_chunks::<Q>().0;
        let (value, local) = gone.value(|q| {
            let load = divided(loads[expert as usize][q], count + 1);
            let relief = times(minus(slot_loads[from][q], load), on_heavy);
            larger(minus(gpu_loads[heavy][q], relief), plus(gone.here[q], load))
        });
        if (value, local) < (best.value, best.local) {
            *best = Move { value, local, kind: Kind::Transfer(slot, expert) };
        }
    }
}
