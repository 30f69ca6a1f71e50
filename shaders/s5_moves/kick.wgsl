// Kicks: one to three swaps of drawn slots, half of them from the heaviest GPU, and with probability 3/4 a
// transfer from a drawn slot, half of them to an expert of the heaviest GPU. A draw that is not a valid move
// is passed over.

const KICK_DRAWS: u32 = 16u;

fn kick_draw(key: u32, kick: u32, i: u32) -> u32 {
    return draw(key, DRAW_KICKS + kick * KICK_DRAWS + i);
}

// All but the transfer, which `transfer_slot` and `transfer_expert` say, as in a descent.
fn kick_candidate() {
    let kick = kicked;
    kicked += 1u;
    steps = 0u;
    phase = PHASE_STEP;
    let key = restart_key(my_node, my_restart);
    work += 4u * TURN;
    let swaps = 1u + below(kick_draw(key, kick, 0u), 3u);
    for (var swap = 0u; swap < swaps; swap += 1u) {
        kick_swap(key, kick, 3u * swap);
    }
    if (kick_draw(key, kick, 10u) & 3u) != 0u {
        kick_transfer(key, kick);
    }
}

fn kick_swap(key: u32, kick: u32, first: u32) {
    work += 1u + blocks(params.node_gpus);
    let word = kick_draw(key, kick, first + 2u);
    var source = below(word, params.node_slots);
    if (kick_draw(key, kick, first + 1u) & 1u) == 1u {
        find_heaviest();
        source = top * params.slots_per_gpu + below(word, params.slots_per_gpu);
    }
    let to = below(kick_draw(key, kick, first + 3u), params.node_slots);
    let a = source / params.slots_per_gpu;
    let b = to / params.slots_per_gpu;
    if a == b {
        return;
    }
    if AVOIDS == 1u && (occupied(b, slot_expert(source)) || occupied(a, slot_expert(to))) {
        return;
    }
    exchange(source, to);
}

fn kick_transfer(key: u32, kick: u32) {
    work += 1u + blocks(params.node_gpus);
    let slot = below(kick_draw(key, kick, 11u), params.node_slots);
    let word = kick_draw(key, kick, 13u);
    var expert = below(word, params.node_experts);
    if (kick_draw(key, kick, 12u) & 1u) == 1u {
        find_heaviest();
        expert = slot_expert(top * params.slots_per_gpu + below(word, params.slots_per_gpu));
    }
    if expert == FREE || count_at(slot) < 2u || slot_expert(slot) == expert {
        return;
    }
    if count_of(expert) >= params.max_count {
        return;
    }
    if AVOIDS == 1u && holds(slot / params.slots_per_gpu, expert) {
        return;
    }
    transfer_slot = slot;
    transfer_expert = expert;
}

// Whether a GPU holds an expert already; a free slot is never in the way.
fn occupied(gpu: u32, expert: u32) -> bool {
    return holds(gpu, expert) && expert != FREE;
}
