// The best exchange of the heaviest GPU with any other: a slot for a slot, or two for two.
//
// To exchange slots whose loads differ by `d` takes `d` from the first GPU and gives it to the other. With one window
// the heavier of the two is the objective; with several each window counts its heaviest GPU, and they add up.

// Slots offered by the heaviest GPU: their loads in all windows, whether they may move.
var<workgroup> given_load: array<i32, MOST_OFFERED>;
var<workgroup> given_open: array<u32, 32>;

// The first slot that an iteration offers, of the heaviest GPU and of the others: 0, unless a GPU has more slots than are
// offered.
fn first_own(key: u32) -> u32 {
    let word = draw(key, DRAW_OFFERS + iteration);
    return select(below(word, params.slots_per_gpu), 0u, params.exchange_slots == params.slots_per_gpu);
}

fn first_other(key: u32) -> u32 {
    let word = draw(key, DRAW_OFFERS + iteration) * PLACE_STEP;
    return select(below(word, params.slots_per_gpu), 0u, params.exchange_slots == params.slots_per_gpu);
}

// The slot of the node that is the i-th offered of a GPU.
fn offered(gpu: u32, first: u32, i: u32) -> u32 {
    return gpu * params.slots_per_gpu + (first + i) % params.slots_per_gpu;
}

// Finds the best exchange; ties go to one slot for one, then to the lower GPU, then to lower slots.
fn find_exchange(key: u32) {
    let own = first_own(key);
    let other = first_other(key);
    for (var slot = lane; slot < params.slots_per_gpu; slot += TEAM) {
        let expert = slot_expert(heavy * params.slots_per_gpu + slot);
        own_expert[slot] = expert;
        own_several[slot] = select(NONE, expert, replicas_of(expert) > 1u);
        // An expert with the number of this iteration is on the heaviest GPU: whether it is takes no loop to tell.
        if expert != FREE {
            set_scratch(expert, iteration);
        }
    }
    for (var item = lane; item < params.exchange_slots * WINDOWS; item += TEAM) {
        let slot = offered(heavy, own, item / WINDOWS);
        given_load[item] = load_of_slot(slot, item % WINDOWS);
        given_open[item / WINDOWS] = select(0u, 1u, arena[word_at(params.at_tabu, slot)] <= iteration);
    }
    workgroupBarrier();
    for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
        arena[word_at(params.at_marks, gpu)] = open_slots(gpu, other);
    }
    storageBarrier();
    mine = NOTHING;
    for (var item = lane; item < params.exchange_slots * params.node_gpus; item += TEAM) {
        weigh_singles(item / params.node_gpus, item % params.node_gpus, own, other);
    }
    mine = least_of_team(mine);
    found = i32(mine.x);
    kind = select(KIND_SWAP, KIND_NONE, found == BLOCKED);
    from_1 = offered(heavy, own, (mine.y >> 5u) & 31u);
    to_1 = offered(mine.y >> 10u, other, mine.y & 31u);
    let n = params.pair_slots;
    if told(select(0u, 1u, WINDOWS == 1u && n >= 4u && (n <= 5u || found >= value))) == 0u {
        return;
    }
    mine = NOTHING;
    let pairs = n * (n - 1u) / 2u;
    // Of four slots, to exchange two or the other two makes the same two GPUs: those with the first will do.
    let gives = select(pairs, 3u, n == 4u && params.slots_per_gpu == 4u);
    for (var item = lane; item < gives * params.node_gpus; item += TEAM) {
        weigh_pairs(item / params.node_gpus, item % params.node_gpus, own, other);
    }
    mine = least_of_team(mine);
    if i32(mine.x) < found {
        found = i32(mine.x);
        kind = KIND_PAIR_SWAP;
        let give = pair_of(n, (mine.y & 0x3fffu) / pairs);
        let take = pair_of(n, (mine.y & 0x3fffu) % pairs);
        from_1 = offered(heavy, own, give.x);
        from_2 = offered(heavy, own, give.y);
        to_1 = offered(mine.y >> 14u, other, take.x);
        to_2 = offered(mine.y >> 14u, other, take.y);
    }
}

// The offered slots of a GPU that the proposing one may have, as bits.
fn open_slots(gpu: u32, other: u32) -> u32 {
    var bits = 0u;
    let n = select(params.exchange_slots, 0u, gpu == heavy);
    for (var j = 0u; j < n; j += 1u) {
        let slot = offered(gpu, other, j);
        var open = arena[word_at(params.at_tabu, slot)] <= iteration;
        let expert = slot_expert(slot);
        if params.avoid_duplicates == 1u && replicas_of(expert) > 1u {
            for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
                open = open && own_several[i] != expert;
            }
        }
        bits |= select(0u, 1u, open) << j;
    }
    return bits;
}

// How many replicas the expert has that a slot holds; 0 for a free slot.
fn replicas_of(expert: u32) -> u32 {
    if expert == FREE {
        return 0u;
    }
    return count_of(expert);
}

// Whether the i-th offered slot may go to a GPU: not to one that holds its expert, and a free slot for a free slot is no
// move.
fn may_give(i: u32, own: u32, gpu: u32) -> bool {
    if given_open[i] == 0u || gpu == heavy {
        return false;
    }
    let slot = (own + i) % params.slots_per_gpu;
    let expert = own_expert[slot];
    let looks = expert == FREE || (params.avoid_duplicates == 1u && own_several[slot] != NONE);
    if looks {
        return !is_on(gpu, expert);
    }
    return true;
}

// The objective of a window after `moved` goes from the heaviest GPU to another.
fn value_after(window: u32, gpu: u32, moved: i32) -> i32 {
    let after = max(load_of_gpu(heavy, window) - moved, load_of_gpu(gpu, window) + moved);
    if WINDOWS == 1u {
        return after;
    }
    return max(after, rest_of(window, heavy, gpu));
}

// Weighs the exchanges of the i-th offered slot with those of a GPU.
fn weigh_singles(i: u32, gpu: u32, own: u32, other: u32) {
    if !may_give(i, own, gpu) {
        return;
    }
    let open = arena[word_at(params.at_marks, gpu)];
    for (var j = 0u; j < params.exchange_slots; j += 1u) {
        var after = 0;
        for (var window = 0u; window < WINDOWS; window += 1u) {
            let taken = load_of_slot(offered(gpu, other, j), window);
            after += value_after(window, gpu, given_load[i * WINDOWS + window] - taken);
        }
        if ((open >> j) & 1u) == 1u && after < BLOCKED {
            offer(after, (gpu << 10u) | (i << 5u) | j);
        }
    }
}

// Weighs the exchanges of a pair of offered slots with the pairs of a GPU. One window.
fn weigh_pairs(give: u32, gpu: u32, own: u32, other: u32) {
    let n = params.pair_slots;
    let pair = pair_of(n, give);
    if !may_give(pair.x, own, gpu) || !may_give(pair.y, own, gpu) {
        return;
    }
    let open = arena[word_at(params.at_marks, gpu)];
    let given = given_load[pair.x] + given_load[pair.y];
    var code = (gpu << 14u) | (give * (n * (n - 1u) / 2u));
    for (var j = 0u; j < n; j += 1u) {
        let first = load_of_slot(offered(gpu, other, j), 0u);
        for (var k = j + 1u; k < n; k += 1u) {
            let taken = first + load_of_slot(offered(gpu, other, k), 0u);
            let both = (1u << j) | (1u << k);
            let after = value_after(0u, gpu, given - taken);
            if (open & both) == both && after < BLOCKED {
                offer(after, code);
            }
            code += 1u;
        }
    }
}

// The slots of pair number `at` of `n` slots, in the order (0, 1), (0, 2), ..., (1, 2), ...
fn pair_of(n: u32, at: u32) -> vec2<u32> {
    var first = 0u;
    var left = at;
    for (var i = 0u; i < n; i += 1u) {
        if first == i && left >= n - 1u - i {
            left -= n - 1u - i;
            first += 1u;
        }
    }
    return vec2<u32>(first, first + 1u + left);
}
