// Replica transfers: a slot that holds a replica of x becomes one of y. Only moves that relieve the heaviest
// GPU are weighed, by an upper bound on the heaviest GPU they touch: that y may also relieve a GPU on which x
// grows is left out.

// Scratch: by expert, of the GPUs that hold it, with the load each would have if another replica went: the
// highest load, its GPU, and the highest load of the other GPUs; and whether the heaviest GPU holds it.

// The highest such load of the GPUs other than `gpu`.
fn peak_without(expert: u32, gpu: u32) -> u32 {
    let has_first = scratch(4u * expert + 1u) == gpu;
    return scratch(4u * expert + select(0u, 2u, has_first));
}

// `gain.low` holds the load to beat, C_FROM the slot and C_TO the expert of the best transfer.
fn begin_transfers() {
    if !has_move(MOVE_TRANSFER) {
        phase = PHASE_STUCK;
        return;
    }
    work += 2u + blocks(params.node_gpus) + blocks(params.node_experts) + params.slots_per_gpu;
    begin_phase(PHASE_PEAKS);
    gain = Wide(gpu_load(top), 0u);
    move_from = NONE;
}

fn clear_peaks() {
    for (var expert = 0u; expert < params.node_experts; expert += 4u) {
        clear_peak(expert);
        clear_peak(expert + 1u);
        clear_peak(expert + 2u);
        clear_peak(expert + 3u);
    }
    for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
        mark_held(i);
    }
}

// Marks the expert of a slot of the heaviest GPU.
fn mark_held(i: u32) {
    let expert = slot_expert(top * params.slots_per_gpu + i);
    if expert != FREE {
        set_scratch(4u * expert + 3u, 1u);
    }
}

fn clear_peak(expert: u32) {
    if expert < params.node_experts {
        set_scratch(4u * expert, 0u);
        set_scratch(4u * expert + 1u, NONE);
        set_scratch(4u * expert + 2u, 0u);
        set_scratch(4u * expert + 3u, 0u);
    }
}

// How much each other replica of the expert in `slot`, one of `count`, grows when one goes.
fn growth(slot: u32, expert: u32, count: u32) -> u32 {
    return weight(expert) / max(count - 1u, 1u) - slot_load(slot);
}

// How many replicas of the expert in `slot` its GPU holds; without duplicates, 1.
fn copies_at(slot: u32) -> u32 {
    if AVOIDS == 1u {
        return 1u;
    }
    return copies_on(slot / params.slots_per_gpu, slot_expert(slot));
}

// One GPU's share in the peaks.
fn find_peaks() {
    let gpu = cursor;
    cursor += 1u;
    work += TURN + params.slots_per_gpu;
    for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
        let slot = gpu * params.slots_per_gpu + i;
        let expert = slot_expert(slot);
        let count = replicas_of(expert);
        if count > 1u {
            raise_peak(expert, gpu, gpu_load(gpu) + copies_at(slot) * growth(slot, expert, count));
        }
    }
    if cursor == params.node_gpus {
        phase = PHASE_REPLACE;
        cursor = 0u;
    }
}

fn raise_peak(expert: u32, gpu: u32, load: u32) {
    let at = scratch(4u * expert + 1u);
    if at == gpu {
        return;
    }
    let first = scratch(4u * expert);
    let is_first = at == NONE || load > first;
    let second = select(max(load, scratch(4u * expert + 2u)), first, is_first);
    set_scratch(4u * expert, select(first, load, is_first));
    set_scratch(4u * expert + 1u, select(at, gpu, is_first));
    set_scratch(4u * expert + 2u, second);
}

// Some experts to put into one slot of the heaviest GPU.
fn weigh_replacements() {
    let chunks = (params.node_experts + TRANSFER_CHUNK - 1u) / TRANSFER_CHUNK;
    let index = cursor / chunks;
    let begin = cursor % chunks * TRANSFER_CHUNK;
    if index == params.slots_per_gpu {
        phase = PHASE_REPLICATE;
        cursor = 0u;
        return;
    }
    let slot = top * params.slots_per_gpu + index;
    let next_slot = (index + 1u) * chunks;
    work += TURN;
    let held = slot_expert(slot);
    let count = replicas_of(held);
    if count < 2u {
        cursor = next_slot;
        return;
    }
    let others = peak_without(held, top);
    if others >= gain.low {
        cursor = next_slot;
        return;
    }
    let without = gpu_load(top) - slot_load(slot) + (copies_at(slot) - 1u) * growth(slot, held, count);
    work += TRANSFER_CHUNK;
    for (var i = 0u; i < TRANSFER_CHUNK; i += 1u) {
        if begin + i >= params.node_experts {
            break;
        }
        weigh_replacement(slot, held, begin + i, others, without);
    }
    cursor += 1u;
}

fn weigh_replacement(slot: u32, held: u32, expert: u32, others: u32, without: u32) {
    let count = count_of(expert);
    let most = max(others, without + weight(expert) / (count + 1u));
    if expert == held || count >= params.max_count || most >= gain.low {
        return;
    }
    if AVOIDS == 1u && scratch(4u * expert + 3u) == 1u {
        return;
    }
    gain = Wide(most, 0u);
    move_from = slot;
    move_to = expert;
}

fn make_best_transfer() {
    if move_from == NONE {
        phase = PHASE_STUCK;
    } else {
        transfer_slot = move_from;
        transfer_expert = move_to;
        phase = PHASE_STEP;
    }
}

// Pieces of the scan below.
fn replications() -> u32 {
    return params.slots_per_gpu * params.node_gpus;
}

// One GPU's slots to turn into a replica of one expert of the heaviest GPU.
fn weigh_replications() {
    let index = cursor / params.node_gpus;
    let gpu = cursor % params.node_gpus;
    let on = top * params.slots_per_gpu + index;
    let next_slot = (index + 1u) * params.node_gpus;
    let expert = slot_expert(on);
    work += TURN;
    cursor += 1u;
    let count = replicas_of(expert);
    if count == 0u || count >= params.max_count {
        cursor = next_slot;
        return;
    }
    if gpu == top {
        return;
    }
    let load = weight(expert) / (count + 1u);
    let on_heavy = gpu_load(top) - copies_at(on) * (slot_load(on) - load);
    if on_heavy >= gain.low {
        cursor = next_slot;
        return;
    }
    if AVOIDS == 1u && holds(gpu, expert) {
        return;
    }
    work += params.slots_per_gpu;
    for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
        weigh_replication(gpu * params.slots_per_gpu + i, gpu, expert, load, on_heavy);
    }
}

fn weigh_replication(at: u32, gpu: u32, expert: u32, load: u32, on_heavy: u32) {
    let held = slot_expert(at);
    let count = replicas_of(held);
    if count < 2u || held == expert {
        return;
    }
    let others = max(peak_without(held, gpu), on_heavy);
    let lower_bound = gpu_load(gpu) - slot_load(at) + load;
    if max(others, lower_bound) >= gain.low {
        return;
    }
    let most = max(others, lower_bound + (copies_at(at) - 1u) * growth(at, held, count));
    if most >= gain.low {
        return;
    }
    gain = Wide(most, 0u);
    move_from = at;
    move_to = expert;
}

// Turns `slot` into a replica of `expert`.
fn transfer(slot: u32, expert: u32) {
    let old = slot_expert(slot);
    begin_transfer(slot, old, expert);
    for (var at = 0u; at < params.node_slots; at += 4u) {
        reweigh_slot(at, old, expert);
        reweigh_slot(at + 1u, old, expert);
        reweigh_slot(at + 2u, old, expert);
        reweigh_slot(at + 3u, old, expert);
    }
}

fn transfer_cost() -> u32 {
    return 1u + blocks(params.node_slots);
}

// All but the loads.
fn begin_transfer(slot: u32, old: u32, expert: u32) {
    work += transfer_cost();
    arena[word_at(params.at_expert, slot)] = expert;
    set_count(old, count_of(old) - 1u);
    set_count(expert, count_of(expert) + 1u);
}

fn reweigh_slot(at: u32, old: u32, expert: u32) {
    if at < params.node_slots {
        reweigh(at, at / params.slots_per_gpu, old, expert);
    }
}

// A slot of a GPU, if it holds one of the two experts.
fn reweigh(at: u32, gpu: u32, old: u32, expert: u32) {
    let held = slot_expert(at);
    if held != old && held != expert {
        return;
    }
    let load = weight(held) / max(count_of(held), 1u);
    set_gpu_load(gpu, gpu_load(gpu) - slot_load(at) + load);
    arena[word_at(params.at_load, at)] = load;
}
