// The best transfer: a slot becomes a replica of another expert.
//
// The expert that loses a replica, `x`, weighs more on the GPUs that still hold it; the one that gains, `y`, weighs
// less. Only transfers with one of the two on the heaviest GPU can lower it: a slot of the GPU goes to the expert
// whose replicas are then the lightest, or an expert of the GPU gains a replica elsewhere.

// Finds the best transfer where no exchange helps.
fn find_transfer(key: u32) {
    let waited = params.slots_per_gpu <= 3u || since >= TRANSFER_WAIT;
    let several = told(select(0u, replicated, found >= value && waited));
    if several == 0u {
        return;
    }
    find_peaks(key, several);
    mine = NOTHING;
    for (var y = lane; y < params.node_experts; y += TEAM) {
        var load = 0;
        for (var window = 0u; window < WINDOWS; window += 1u) {
            load += lighter(y, window);
        }
        if may_gain(y) && scratch(y) != iteration {
            offer(load, y + 1u);
        }
    }
    let lightest = least_of_team(mine).y - 1u;
    // A start from noisy counts changes them now and then, whatever it costs.
    let is_forced = my_start > 0u && since % TRANSFER_WAIT == TRANSFER_WAIT - 1u;
    mine = vec2<u32>(select(u32(found), NOTHING.x, is_forced), 0u);
    let limit = mine.x;
    for (var slot = lane; slot < select(params.slots_per_gpu, 0u, lightest == NONE); slot += TEAM) {
        weigh_own(slot, lightest);
    }
    let own = first_own(key);
    for (var item = lane; item < params.gainers * params.node_gpus; item += TEAM) {
        weigh_elsewhere(item / params.node_gpus, item % params.node_gpus, own);
    }
    mine = least_of_team(mine);
    if mine.x < limit {
        found = i32(mine.x);
        kind = KIND_TRANSFER;
        from_1 = heavy * params.slots_per_gpu + mine.y;
        gainer = lightest;
        if mine.y >= MOST_SLOTS {
            let rest = mine.y - MOST_SLOTS;
            from_1 = rest % params.node_slots;
            gainer = own_expert[(own + rest / params.node_slots) % params.slots_per_gpu];
        }
        loser = slot_expert(from_1);
    }
}

// Where the peaks of an expert lie: the iteration they are of, then its heaviest holder in each window.
fn peaks_at(x: u32) -> u32 {
    return word_at(params.at_peaks, x * (1u + PEAK_WORDS * WINDOWS));
}

fn peak_at(x: u32, window: u32) -> u32 {
    return peaks_at(x) + 1u + PEAK_WORDS * window;
}

// Finds the peaks of the experts that may lose a replica: all with several, or some of them where that would take too
// long.
fn find_peaks(key: u32, several: u32) {
    let all = several <= params.losers;
    let first = select(below(draw(key, DRAW_LOSERS + iteration), several), 0u, all);
    for (var i = lane; i < min(several, params.losers); i += TEAM) {
        let x = arena[word_at(params.at_replicated, (first + i) % several)];
        if arena[word_at(params.at_no_loss, x)] <= iteration {
            arena[peaks_at(x)] = iteration;
            for (var window = 0u; window < WINDOWS; window += 1u) {
                find_peak(x, window);
            }
        }
    }
    storageBarrier();
}

fn find_peak(x: u32, window: u32) {
    let count = count_of(x);
    let grows = replica_load(x, count - 1u, window) - replica_load(x, count, window);
    var most = -1;
    var most_on = NONE;
    var next = -1;
    for (var slot = 0u; slot < params.node_slots; slot += 1u) {
        if slot_expert(slot) == x {
            let gpu = slot / params.slots_per_gpu;
            let load = load_of_gpu(gpu, window) + grows;
            next = max(next, min(load, most));
            most_on = select(most_on, gpu, load > most);
            most = max(most, load);
        }
    }
    let at = peak_at(x, window);
    arena[at + PEAK_LOAD] = u32(most);
    arena[at + PEAK_GPU] = most_on;
    arena[at + PEAK_NEXT] = bitcast<u32>(next);
}

// Whether an expert may lose a replica: its peaks are of this iteration.
fn may_lose(x: u32) -> bool {
    return arena[peaks_at(x)] == iteration;
}

// The heaviest holder of `x` other than a GPU once it has a replica less.
fn peak_without(x: u32, window: u32, gpu: u32) -> i32 {
    let at = peak_at(x, window);
    if arena[at + PEAK_GPU] == gpu {
        return bitcast<i32>(arena[at + PEAK_NEXT]);
    }
    return i32(arena[at + PEAK_LOAD]);
}

// The load of a replica of `y` once it has one more.
fn lighter(y: u32, window: u32) -> i32 {
    return replica_load(y, count_of(y) + 1u, window);
}

// Whether an expert may gain a replica.
fn may_gain(y: u32) -> bool {
    return count_of(y) < params.max_count && arena[word_at(params.at_no_gain, y)] <= iteration;
}

// Weighs to give a slot of the heaviest GPU to `y`.
fn weigh_own(slot: u32, y: u32) {
    let x = own_several[slot];
    if x == NONE || !may_lose(x) {
        return;
    }
    var after = 0;
    for (var window = 0u; window < WINDOWS; window += 1u) {
        let lost = load_of_slot(heavy * params.slots_per_gpu + slot, window);
        let own = load_of_gpu(heavy, window) - lost + lighter(y, window);
        after += max(max(own, peak_without(x, window, heavy)), rest_of(window, heavy, heavy));
    }
    offer(after, slot);
}

// Weighs to give slots of another GPU to the expert of the i-th slot of the proposing one.
fn weigh_elsewhere(i: u32, gpu: u32, first: u32) {
    let own = (first + i) % params.slots_per_gpu;
    let y = own_expert[own];
    if gpu == heavy || y == FREE {
        return;
    }
    if !may_gain(y) || (params.avoid_duplicates == 1u && is_on(gpu, y)) {
        return;
    }
    for (var slot = gpu * params.slots_per_gpu; slot < (gpu + 1u) * params.slots_per_gpu; slot += 1u) {
        let x = slot_expert(slot);
        if x == FREE || x == y {
            continue;
        }
        if count_of(x) < 2u || !may_lose(x) {
            continue;
        }
        var after = 0;
        for (var window = 0u; window < WINDOWS; window += 1u) {
            let light = lighter(y, window);
            let here = load_of_gpu(heavy, window) - load_of_slot(heavy * params.slots_per_gpu + own, window) + light;
            let there = load_of_gpu(gpu, window) - load_of_slot(slot, window) + light;
            let peak = max(peak_without(x, window, gpu), rest_of(window, heavy, gpu));
            after += max(max(here, there), peak);
        }
        offer(after, MOST_SLOTS + i * params.node_slots + slot);
    }
}

// Gives the slot to the expert that gains: the counts of two experts change, and the list of those with several.
fn change_counts() {
    arena[word_at(params.at_expert, from_1)] = gainer;
    let lost = count_of(loser) - 1u;
    let gained = count_of(gainer) + 1u;
    set_count(loser, lost);
    set_count(gainer, gained);
    if lost == 1u {
        let last = replicated - 1u;
        for (var i = 0u; i < last; i += 1u) {
            if arena[word_at(params.at_replicated, i)] == loser {
                arena[word_at(params.at_replicated, i)] = arena[word_at(params.at_replicated, last)];
            }
        }
        replicated = last;
    }
    if gained == 2u {
        arena[word_at(params.at_replicated, replicated)] = gainer;
        replicated += 1u;
    }
}
