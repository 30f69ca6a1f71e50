// 2-for-2 swaps of the heaviest GPU with any other: as 1-1 swaps, with sums of two of the first PAIR_SLOTS
// slots. A free slot is a replica of load 0, so 2-for-1 is among them.

var<private> pair_sums: array<i32, PAIRS>;

// One other GPU.
fn weigh_pair_swaps() {
    let gpu = cursor;
    cursor += 1u;
    work += TURN;
    let distance = i32(gpu_load(top)) - i32(gpu_load(gpu));
    if distance / 2 > i32(gain.low) {
        work += pairs_cost();
        if SLOTS > 0u {
            weigh_own_pairs(gpu, distance);
        } else {
            weigh_pairs(gpu, distance);
        }
    }
}

// What the pairs of two GPUs are charged; where they do not fit a tile, `read_items` charges for the twins.
fn pairs_cost() -> u32 {
    let n = min(params.slots_per_gpu, PAIR_SLOTS);
    let count = n * (n - 1u) / 2u;
    return 2u * (n + count) + count * (1u + blocks(count)) + select(0u, twins_cost(n), SLOTS > 0u);
}

fn make_best_pair_swap() {
    let found = gain.low > 0u;
    phase = select(PHASE_BEGIN_BIPARTITION, PHASE_STEP, found);
    // A loop, so that the exchange is compiled once.
    for (var i = 0u; i < select(0u, 2u, found); i += 1u) {
        exchange(select(move_from_2, move_from, i == 0u), select(move_to_2, move_to, i == 0u));
    }
}

// Where the slots of a GPU fit a tile: slots with pairs (those rounded up have a load that no swap wants), and the
// pairs in the order of the sums.
override OWN_PAIR_SLOTS: u32 = min(SLOTS, PAIR_SLOTS);
override OWN_PAIRS: u32 = OWN_PAIR_SLOTS * (max(OWN_PAIR_SLOTS, 1u) - 1u) / 2u;

var<private> other_loads: array<i32, PAIR_SLOTS>;

// Pairs with those of the heaviest GPU, of which `read_own` has read the slots. By constant indices: loops of up to
// 32 trips are unrolled.
fn weigh_own_pairs(gpu: u32, distance: i32) {
    let begin = gpu * params.slots_per_gpu;
    find_twins(begin);
    offer_own();
    add_row(0u);
    add_row(1u);
    add_row(2u);
    add_row(3u);
    add_row(4u);
    add_row(5u);
    add_row(6u);
    add_row(7u);
    add_row(8u);
    add_row(9u);
    add_row(10u);
    add_row(11u);
    add_row(12u);
    add_row(13u);
    add_row(14u);
    read_other(begin);
    var best = i32(gain.low);
    var best_sum = 0;
    var to = NONE;
    for (var i = 0u; i < min(params.slots_per_gpu, PAIR_SLOTS); i += 1u) {
        let load = other_at(i);
        for (var j = i + 1u; j < min(params.slots_per_gpu, PAIR_SLOTS); j += 1u) {
            let sum = sum_unless(load, other_at(j), NEVER);
            let most = max(
                max(most_moved(0u, sum, distance), most_moved(32u, sum, distance)),
                max(most_moved(64u, sum, distance), most_moved(96u, sum, distance)),
            );
            let better = most > best;
            best_sum = select(best_sum, sum, better);
            to = select(to, i * PAIR_SLOTS + j, better);
            best = max(most, best);
        }
    }
    if to == NONE {
        return;
    }
    var source = first_moved(0u, NONE, best_sum, distance, best);
    source = first_moved(32u, source, best_sum, distance, best);
    source = first_moved(64u, source, best_sum, distance, best);
    source = first_moved(96u, source, best_sum, distance, best);
    keep_pair_swap(best, source, OWN_PAIR_SLOTS, top * params.slots_per_gpu, begin, to);
}

// The loads of another GPU, by constant indices as well: processors look an index up lane by lane.
fn read_other(begin: u32) {
    for (var j = 0u; j < OWN_PAIR_SLOTS; j += 1u) {
        other_loads[j] = other_load(begin, min(j, params.slots_per_gpu - 1u));
    }
}

fn other_at(i: u32) -> i32 {
    var load = 0;
    for (var j = 0u; j < OWN_PAIR_SLOTS; j += 1u) {
        load = select(load, other_loads[j], j == i);
    }
    return load;
}

// The sums of a row of pairs, those of one slot with later ones.
fn add_row(i: u32) {
    if i + 1u >= OWN_PAIR_SLOTS {
        return;
    }
    let row = i * (2u * OWN_PAIR_SLOTS - i - 1u) / 2u;
    for (var j = i + 1u; j < OWN_PAIR_SLOTS; j += 1u) {
        pair_sums[row + j - i - 1u] = sum_unless(own_offers[i], own_offers[j], -NEVER);
    }
}

// The most that a pair of 32 moves.
fn most_moved(first: u32, sum: i32, distance: i32) -> i32 {
    var most = -NEVER;
    if first >= OWN_PAIRS {
        return most;
    }
    for (var p = first; p < min(first + 32u, OWN_PAIRS); p += 1u) {
        let d = pair_sums[p] - sum;
        most = max(min(d, distance - d), most);
    }
    return most;
}

// The first pair of 32 that moves `best`, if none is known.
fn first_moved(first: u32, known: u32, sum: i32, distance: i32, best: i32) -> u32 {
    var found = known;
    if first >= OWN_PAIRS {
        return found;
    }
    for (var p = first; p < min(first + 32u, OWN_PAIRS); p += 1u) {
        let d = pair_sums[p] - sum;
        found = select(found, p, found == NONE && min(d, distance - d) == best);
    }
    return found;
}

fn weigh_pairs(gpu: u32, distance: i32) {
    let n = min(params.slots_per_gpu, PAIR_SLOTS);
    let count = n * (n - 1u) / 2u;
    let heavy_begin = top * params.slots_per_gpu;
    let begin = gpu * params.slots_per_gpu;
    read_items(heavy_begin, n, begin, n);
    var at = 0u;
    for (var i = 0u; i < n; i += 1u) {
        for (var j = i + 1u; j < n; j += 1u) {
            pair_sums[at] = pair_sum(0u, i, j, -NEVER);
            at += 1u;
        }
    }
    var best = i32(gain.low);
    var source = NONE;
    var to = 0u;
    for (var i = 0u; i < n; i += 1u) {
        for (var j = i + 1u; j < n; j += 1u) {
            let sum = pair_sum(TILE, i, j, NEVER);
            for (var p = 0u; p < count; p += 4u) {
                let m0 = pair_moved(p, count, sum, distance);
                let m1 = pair_moved(p + 1u, count, sum, distance);
                let m2 = pair_moved(p + 2u, count, sum, distance);
                let m3 = pair_moved(p + 3u, count, sum, distance);
                if max(max(m0, m1), max(m2, m3)) > best {
                    best = max(max(m0, m1), max(m2, m3));
                    source = p + select(select(select(3u, 2u, m2 == best), 1u, m1 == best), 0u, m0 == best);
                    to = i * PAIR_SLOTS + j;
                }
            }
        }
    }
    if source != NONE {
        keep_pair_swap(best, source, n, heavy_begin, begin, to);
    }
}

// `pair` is the number of a pair of `n` slots.
fn keep_pair_swap(best: i32, pair: u32, n: u32, heavy_begin: u32, begin: u32, to: u32) {
    gain = Wide(u32(best), 0u);
    // The pair of that number: rows of the first slot get shorter by one.
    var source = pair;
    var first = 0u;
    while source >= n - 1u - first {
        source -= n - 1u - first;
        first += 1u;
    }
    move_from = heavy_begin + first;
    move_from_2 = heavy_begin + first + 1u + source;
    move_to = begin + to / PAIR_SLOTS;
    move_to_2 = begin + to % PAIR_SLOTS;
}

// The sum of two items of a side, `never` where one of them would make a duplicate.
fn pair_sum(side: u32, i: u32, j: u32, never: i32) -> i32 {
    return sum_unless(items[side + i], items[side + j], never);
}

fn sum_unless(a: i32, b: i32, never: i32) -> i32 {
    return select(a + b, never, a == never || b == never);
}

fn pair_moved(p: u32, count: u32, sum: i32, distance: i32) -> i32 {
    let d = pair_sums[min(p, PAIRS - 1u)] - sum;
    return select(-NEVER, min(d, distance - d), p < count);
}
