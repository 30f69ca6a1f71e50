// Replica transfers: a slot that holds a replica of x becomes one of y. Weighed are the slots of a critical GPU,
// and slots elsewhere that become replicas of an expert of it, by an upper bound: that y may also relieve further
// GPUs is left out.

// Scratch: by expert, how many replicas the proposing GPU holds; then the loads of the slot's GPU without its
// replica, and of the heaviest other GPU that holds the expert, larger as it is then.
fn held_by_heavy(expert: u32) -> u32 {
    return scratch(expert);
}

fn gone_part() -> u32 {
    return params.at_scratch + params.node_experts;
}

const GONE_HERE: u32 = 0u;
const GONE_NEAR: u32 = 1u;

// Slots are numbered: those of the proposing GPU, to take in any expert, then all, to take in one of its experts.
fn transfer_slot() -> u32 {
    let k = params.slots_per_gpu;
    return select(slot_now - k, heavy * k + slot_now, slot_now < k);
}

fn begin_transfers() {
    let k = params.slots_per_gpu;
    work += blocks(params.node_experts) + k;
    for (var expert = 0u; expert < params.node_experts; expert += 4u) {
        clear_held(expert);
        clear_held(expert + 1u);
        clear_held(expert + 2u);
        clear_held(expert + 3u);
    }
    for (var i = 0u; i < k; i += 1u) {
        let expert = slot_expert(heavy * k + i);
        if expert != FREE {
            set_scratch(expert, scratch(expert) + 1u);
        }
    }
    slot_now = 0u;
    phase = PHASE_SLOT;
}

fn clear_held(expert: u32) {
    if expert < params.node_experts {
        set_scratch(expert, 0u);
    }
}

fn next_slot() {
    if is_spent() {
        end_scan();
        return;
    }
    work += TURN;
    cursor = 0u;
    let slot = transfer_slot();
    let elsewhere = slot_now < params.slots_per_gpu || slot / params.slots_per_gpu != heavy;
    if elsewhere && count_at(slot) > 1u {
        phase = PHASE_GONE;
    } else {
        leave_slot();
    }
}

fn leave_slot() {
    slot_now += 1u;
    phase = PHASE_SLOT;
    if slot_now == params.slots_per_gpu + params.node_slots {
        leave_window();
    }
}

// How much each other replica of the expert in `slot` grows when one goes.
fn growth(slot: u32, q: u32) -> vec4<u32> {
    let expert = slot_expert(slot);
    return weight_quad(expert, q) / max(count_of(expert) - 1u, 1u) - slot_quad(slot, q);
}

// Some GPUs; behind the last, whether the slot is worth to be weighed.
fn look_at_gone() {
    let slot = transfer_slot();
    let home = slot / params.slots_per_gpu;
    let end = min(cursor + WINDOW_GPUS, params.node_gpus);
    work += TURN + (end - cursor) * (3u + params.quads + blocks(params.slots_per_gpu));
    if cursor == 0u {
        for (var q = 0u; q < params.quads; q += 1u) {
            set_quad_at(gone_part(), GONE_NEAR, q, floor_quad(q));
        }
    }
    for (var gpu = cursor; gpu < end; gpu += 1u) {
        let copies = copies_on(gpu, slot_expert(slot));
        if copies > 0u {
            for (var q = 0u; q < params.quads; q += 1u) {
                lose(gpu, copies, slot, home, q);
            }
        }
    }
    cursor = end;
    if end < params.node_gpus {
        return;
    }
    cursor = 0u;
    read_gone(home);
    var least = 0u;
    for (var q = 0u; q < params.quads; q += 1u) {
        least += sum_of(max(others[q], quad_at(gone_part(), GONE_HERE, q)));
    }
    if least > best.high {
        leave_slot();
    } else {
        phase = select(PHASE_REPLICATE, PHASE_REPLACE, slot_now < params.slots_per_gpu);
    }
}

fn lose(gpu: u32, copies: u32, slot: u32, home: u32, q: u32) {
    let load = gpu_quad(gpu, q);
    if gpu == home {
        let without = load - slot_quad(slot, q) + growth(slot, q) * (copies - 1u);
        set_quad_at(gone_part(), GONE_HERE, q, without);
    } else {
        let so_far = quad_at(gone_part(), GONE_NEAR, q);
        set_quad_at(gone_part(), GONE_NEAR, q, max(so_far, load + growth(slot, q) * copies));
    }
}

fn read_gone(home: u32) {
    for (var q = 0u; q < params.quads; q += 1u) {
        near[q] = quad_at(gone_part(), GONE_NEAR, q);
        others[q] = max(top_without(heavy, home, q), near[q]);
    }
}

// Some experts to put into a slot of the proposing GPU.
fn weigh_replacements() {
    let slot = transfer_slot();
    let end = min(cursor + WINDOW_EXPERTS, params.node_experts);
    work += TURN + (end - cursor) * (2u + params.quads);
    read_gone(heavy);
    for (var expert = cursor; expert < end; expert += 1u) {
        let count = count_of(expert);
        if expert == slot_expert(slot) || count >= params.max_count {
            continue;
        }
        if params.avoid_duplicates != 0u && held_by_heavy(expert) > 0u {
            continue;
        }
        offer_transfer(slot, expert, after_replacing(expert, count + 1u));
    }
    cursor = end;
    if end == params.node_experts {
        leave_slot();
    }
}

fn after_replacing(expert: u32, count: u32) -> Wide {
    var found = Wide(0u, 0u);
    for (var q = 0u; q < params.quads; q += 1u) {
        let load = weight_quad(expert, q) / count;
        found = plus(found, outcome(q, quad_at(gone_part(), GONE_HERE, q) + load));
    }
    return found;
}

fn offer_transfer(slot: u32, expert: u32, found: Wide) {
    if wide_greater(best, found) {
        best = found;
        move_from = slot;
        move_to = expert;
    }
}

// Some experts of the proposing GPU to put into a slot elsewhere.
fn weigh_replications() {
    let k = params.slots_per_gpu;
    let slot = transfer_slot();
    let home = slot / k;
    let end = min(cursor + WINDOW_TILE, k);
    work += TURN + (end - cursor) * (4u + params.quads + blocks(k));
    read_gone(home);
    for (var i = cursor; i < end; i += 1u) {
        let source = heavy * k + i;
        let expert = slot_expert(source);
        if expert == FREE || expert == slot_expert(slot) {
            continue;
        }
        let count = count_of(expert);
        if count >= params.max_count || (params.avoid_duplicates != 0u && copies_on(home, expert) > 0u) {
            continue;
        }
        offer_transfer(slot, expert, after_replicating(source, expert, count + 1u));
    }
    cursor = end;
    if end == k {
        leave_slot();
    }
}

fn after_replicating(source: u32, expert: u32, count: u32) -> Wide {
    var found = Wide(0u, 0u);
    for (var q = 0u; q < params.quads; q += 1u) {
        let load = weight_quad(expert, q) / count;
        let relieved = gpu_quad(heavy, q) - (slot_quad(source, q) - load) * held_by_heavy(expert);
        found = plus(found, outcome(q, max(relieved, quad_at(gone_part(), GONE_HERE, q) + load)));
    }
    return found;
}

// Turns slot `move_from` into a replica of `move_to`, and weighs some slots anew; `move_to_2` holds what was there.
fn transfer() {
    if cursor == 0u {
        move_to_2 = slot_expert(move_from);
        arena[word_at(params.at_expert, move_from)] = move_to;
        set_count(move_to_2, count_of(move_to_2) - 1u);
        set_count(move_to, count_of(move_to) + 1u);
    }
    let end = min(cursor + WINDOW_SLOTS, params.node_slots);
    work += TURN + (end - cursor) * (2u + params.quads);
    for (var slot = cursor; slot < end; slot += 1u) {
        let held = slot_expert(slot);
        if held == move_to_2 || held == move_to {
            weigh_slot(slot);
        }
    }
    cursor = end;
    if end == params.node_slots {
        begin_step(0u);
    }
}
