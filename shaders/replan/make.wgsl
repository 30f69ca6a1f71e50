// Makes the best move, and forbids to undo it for some iterations.

const KIND_NONE: u32 = 0u;
const KIND_EXCHANGE: u32 = 1u;
const KIND_TRANSFER: u32 = 2u;

fn make_move(key: u32) {
    let word = draw(key, DRAW_TENURE + iteration);
    var kind = KIND_NONE;
    if exchange_found.y != NONE {
        kind = KIND_EXCHANGE;
    }
    if transfer_found.y != NONE {
        kind = KIND_TRANSFER;
    }
    let told_kind = told(kind);
    if told_kind == KIND_EXCHANGE {
        let code = exchange_found.y;
        let slots = code / params.node_gpus;
        let first = vec2<u32>(slots / params.slots_per_gpu, heavy);
        make_exchange(word, first, vec2<u32>(slots % params.slots_per_gpu, low + code % params.node_gpus));
    } else if told_kind == KIND_TRANSFER {
        let code = transfer_found.y;
        make_transfer(word, code / reach(), reach_first() + code % reach());
    }
}

// Two slots, each with its GPU, exchange what they hold.
fn make_exchange(word: u32, x: vec2<u32>, y: vec2<u32>) {
    let expert = told(expert_in(x.x, x.y));
    let other = told(expert_in(y.x, y.y));
    for (var window = lane; window < 4u * QUADS; window += TEAM) {
        let here = load_at(x.x, x.y) + window * params.gpus;
        let there = load_at(y.x, y.y) + window * params.gpus;
        let load = arena[here];
        let more = arena[there] - load;
        arena[here] = load + more;
        arena[there] = load;
        arena[gpu_at(x.y) + window * params.gpus] += more;
        arena[gpu_at(y.y) + window * params.gpus] -= more;
    }
    if leads {
        change(changes, x.x, x.y, other);
        change(changes + 1u, y.x, y.y, expert);
        arena[word_at(params.at_tabu, slot_at(x.x, x.y))] = iteration + TRAJECTORY_SLOT_TENURE + (word & 0xffu) % 3u;
        arena[word_at(params.at_tabu, slot_at(y.x, y.y))] =
            iteration + TRAJECTORY_SLOT_TENURE + ((word >> 8u) & 0xffu) % 3u;
        leave(expert, x.y);
        leave(other, y.y);
        add_to(params.at_held, expert, y.y);
        add_to(params.at_held, other, x.y);
    }
    changes += 2u;
    storageBarrier();
    let here = squares_now(x.y);
    let there = squares_now(y.y);
    all_squares += here - squares_of(x.y) + there - squares_of(y.y);
    let received_here = received_on(x.y);
    let received_there = received_on(y.y);
    moved += received_here - received_of(x.y) + received_there - received_of(y.y);
    storageBarrier();
    if leads {
        arena[word_at(params.at_squares, x.y)] = u32(here);
        arena[word_at(params.at_squares, y.y)] = u32(there);
        arena[word_at(params.at_received, x.y)] = received_here;
        arena[word_at(params.at_received, y.y)] = received_there;
    }
}

// A slot becomes a further replica of the expert that gains.
fn make_transfer(word: u32, slot: u32, gpu: u32) {
    let loser = told(expert_in(slot, gpu));
    if FOREIGN == 1u {
        foreign = foreign + is_foreign(gainer, gpu) - is_foreign(loser, gpu);
    }
    if leads {
        change(changes, slot, gpu, gainer);
        set_count(loser, count_of(loser) - 1u);
        set_count(gainer, count_of(gainer) + 1u);
        leave(loser, gpu);
        add_to(params.at_held, gainer, gpu);
        arena[word_at(params.at_no_gain, loser)] = iteration + TRAJECTORY_EXPERT_TENURE + (word & 0xffu) % 4u;
        arena[word_at(params.at_no_loss, gainer)] =
            iteration + TRAJECTORY_EXPERT_TENURE + ((word >> 8u) & 0xffu) % 4u;
    }
    changes += 1u;
    storageBarrier();
    var own = 0u;
    for (var place = lane; place < reach(); place += TEAM) {
        let at = reach_first() + place;
        if holds(at, loser) || holds(at, gainer) {
            weigh_replicas(at, loser);
            let squares = squares_now(at);
            own += u32(squares - squares_of(at));
            arena[word_at(params.at_squares, at)] = u32(squares);
        }
    }
    all_squares += i32(sum_of_team(own));
    let received = received_on(gpu);
    moved += received - received_of(gpu);
    storageBarrier();
    if leads {
        arena[word_at(params.at_received, gpu)] = received;
    }
}

// Weighs the slots of a GPU anew that hold the two experts whose counts changed.
fn weigh_replicas(gpu: u32, loser: u32) {
    var loads = quads_at(gpu_at(gpu));
    for (var slot = 0u; slot < params.slots_per_gpu; slot += 1u) {
        let expert = expert_in(slot, gpu);
        if expert == loser || expert == gainer {
            let at = load_at(slot, gpu);
            let now = replica_load(expert);
            loads = plus(loads, minus(now, quads_at(at)));
            set_quads(at, now);
        }
    }
    set_quads(gpu_at(gpu), loads);
}

// Writes what a slot holds from here on, there and as a change of the trail.
fn change(number: u32, slot: u32, gpu: u32, expert: u32) {
    arena[word_at(params.at_expert, slot_at(slot, gpu))] = expert;
    let at = params.at_changes + 2u * number;
    set_trail(at, gpu * params.slots_per_gpu + slot);
    set_trail(at + 1u, expert);
}

// Takes a GPU out of the set of an expert, if none of its slots holds it.
fn leave(expert: u32, gpu: u32) {
    if expert == FREE {
        return;
    }
    var is_on = false;
    for (var slot = 0u; slot < params.slots_per_gpu; slot += 1u) {
        is_on = is_on || expert_in(slot, gpu) == expert;
    }
    if !is_on {
        arena[word_at(params.at_held, expert * set_words() + gpu / 32u)] &= ~(1u << (gpu % 32u));
    }
}

fn received_of(gpu: u32) -> u32 {
    return arena[word_at(params.at_received, gpu)];
}

// Slots of a GPU that received an expert: those beyond the replicas that it held of it in the plan that runs.
fn received_on(gpu: u32) -> u32 {
    var own = 0u;
    let first = gpu * params.slots_per_gpu;
    for (var slot = lane; slot < params.slots_per_gpu; slot += TEAM) {
        let expert = expert_in(slot, gpu);
        var earlier = 0u;
        var before = 0u;
        for (var at = 0u; at < params.slots_per_gpu; at += 1u) {
            earlier += select(0u, 1u, at < slot && expert_in(at, gpu) == expert);
            before += select(0u, 1u, task_word(params.at_previous + first + at) == expert);
        }
        own += select(0u, 1u, expert != FREE && earlier >= before);
    }
    return sum_of_team(own);
}
