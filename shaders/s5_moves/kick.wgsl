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
    let transfers = (kick_draw(key, kick, 10u) & 3u) != 0u;
    let moves = select(swaps, swaps + 1u, transfers);
    // In one loop, so that what both kinds look at is compiled once.
    for (var i = 0u; i < moves; i += 1u) {
        kick_move(key, kick, select(3u * i, 11u, i == swaps), i == swaps);
    }
}

// A swap of two drawn slots, or a transfer that makes the second one a replica of the expert of the first, or of a drawn
// one. The draws from `first` on are its own.
fn kick_move(key: u32, kick: u32, first: u32, transfers: bool) {
    work += 1u + blocks(params.node_gpus);
    let word = kick_draw(key, kick, first + 2u);
    let from_heaviest = (kick_draw(key, kick, first + 1u) & 1u) == 1u;
    var source = below(word, params.node_slots);
    if from_heaviest {
        find_heaviest();
        source = top * params.slots_per_gpu + below(word, params.slots_per_gpu);
    }
    let to = below(kick_draw(key, kick, first + select(3u, 0u, transfers)), params.node_slots);
    let a = source / params.slots_per_gpu;
    let b = to / params.slots_per_gpu;
    let taken = slot_expert(to);
    var given = slot_expert(source);
    if transfers {
        given = select(below(word, params.node_experts), given, from_heaviest);
        if given == FREE || replicas_of(taken) < 2u || taken == given || count_of(given) >= params.max_count {
            return;
        }
    } else if a == b {
        return;
    }
    var is_blocked = false;
    let sides = select(select(2u, 1u, transfers), 0u, AVOIDS == 0u);
    for (var side = 0u; side < sides && !is_blocked; side += 1u) {
        is_blocked = occupied(select(b, a, side == 1u), select(given, taken, side == 1u));
    }
    if is_blocked {
        return;
    }
    if transfers {
        transfer_slot = to;
        transfer_expert = given;
    } else {
        exchange_held(source, given, to, taken);
    }
}

// Whether a GPU holds an expert already; a free slot is never in the way.
fn occupied(gpu: u32, expert: u32) -> bool {
    return holds(gpu, expert) && expert != FREE;
}
