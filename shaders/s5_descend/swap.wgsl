// 1-1 swaps. A swap that lowers the larger of two loads that are D apart by m lowers their sum of squares by
// 2 m (D - m): both objectives want the same swap of two GPUs, the one with the largest m.

const MARK_USED: u32 = 1u;         // has proposed or swapped in this step
const MARK_PARTNER: u32 = 2u;      // may be a partner

fn begin_swaps() {
    let some = params.lightest != 0u && params.lightest < params.node_gpus;
    spent += params.node_gpus;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        set_mark(gpu, select(MARK_PARTNER, 0u, some));
    }
    phase = select(PHASE_PROPOSE, PHASE_PARTNERS, some);
    cursor = 0u;
    proposers = 0u;
    swapped = 0u;
}

// One more of the lightest GPUs.
fn mark_partner() {
    set_mark(lightest(MARK_PARTNER), MARK_PARTNER);
    cursor += 1u;
    if cursor == params.lightest {
        phase = PHASE_PROPOSE;
    }
}

// The next heaviest GPU that has not swapped in this step looks for its best swap.
fn propose() {
    let all = params.heaviest == 0u || params.heaviest > params.node_gpus;
    heavy = heaviest(MARK_USED);
    if heavy == NONE || proposers == select(params.heaviest, params.node_gpus, all) {
        phase = select(PHASE_SWAPS_ENDED, PHASE_STEP, swapped == 1u);
        return;
    }
    proposers += 1u;
    set_mark(heavy, mark(heavy) | MARK_USED);
    note_experts(ON_HEAVY, heavy);
    begin_scan(PHASE_SWAP);
}

// The worth of lowering the larger of two loads by m.
fn worth(m: u32, distance: u32) -> Wide {
    if variance == 1u {
        return mul_wide(m, distance - m);
    }
    return Wide(m, 0u);
}

// One slot of another GPU with all of the heavy one; after the last, the best swap is made.
fn weigh_swaps() {
    if cursor == params.node_slots {
        make_best_swap();
        return;
    }
    let k = params.slots_per_gpu;
    let gpu = cursor / k;
    let distance = max(gpu_load(heavy), gpu_load(gpu)) - gpu_load(gpu);
    spent += 4u;
    if cursor % k == 0u {
        // No swap moves more than to the middle.
        if mark(gpu) != MARK_PARTNER || !wide_greater(worth(distance / 2u, distance), gain) {
            cursor += k;
            return;
        }
        note_experts(ON_OTHER, gpu);
    }
    let to = cursor;
    cursor += 1u;
    if is_duplicate(to, ON_HEAVY, heavy) {
        return;
    }
    let theirs = slot_load(to);
    spent += k;
    for (var i = 0u; i < k; i += 1u) {
        let found = worth(moved(slot_load(heavy * k + i), theirs, distance), distance);
        if wide_greater(found, gain) && !is_duplicate(heavy * k + i, ON_OTHER, gpu) {
            gain = found;
            move_from = heavy * k + i;
            move_to = to;
        }
    }
}

fn make_best_swap() {
    phase = PHASE_PROPOSE;
    if gain.low != 0u || gain.high != 0u {
        exchange(move_from, move_to);
        set_mark(move_to / params.slots_per_gpu, MARK_PARTNER | MARK_USED);
        swapped = 1u;
    }
}
