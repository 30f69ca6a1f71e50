// 2-for-2 swaps of the heaviest GPU with any other: as 1-1 swaps, with sums of two of the first PAIR_SLOTS
// slots. A free slot is a replica of load 0, so 2-for-1 is among them.

var<private> pair_sums: array<i32, PAIRS>;

// One other GPU; behind the last, the best swap is made.
fn weigh_pair_swaps() {
    if cursor == params.node_gpus {
        phase = PHASE_BEGIN_BIPARTITION;
        if gain.low > 0u {
            exchange(move_from, move_to);
            exchange(move_from_2, move_to_2);
            phase = PHASE_STEP;
        }
        return;
    }
    let gpu = cursor;
    cursor += 1u;
    work += TURN;
    let distance = i32(gpu_load(top)) - i32(gpu_load(gpu));
    if distance / 2 <= i32(gain.low) {
        return;
    }
    weigh_pairs(gpu, distance);
}

fn weigh_pairs(gpu: u32, distance: i32) {
    let n = min(params.slots_per_gpu, PAIR_SLOTS);
    let count = n * (n - 1u) / 2u;
    let heavy_begin = top * params.slots_per_gpu;
    let begin = gpu * params.slots_per_gpu;
    work += 2u * (n + count) + count * (1u + blocks(count));
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
    if source == NONE {
        return;
    }
    gain = Wide(u32(best), 0u);
    // The pair of that number: rows of the first slot get shorter by one.
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
    let a = items[side + i];
    let b = items[side + j];
    return select(a + b, never, a == never || b == never);
}

fn pair_moved(p: u32, count: u32, sum: i32, distance: i32) -> i32 {
    let d = pair_sums[min(p, PAIRS - 1u)] - sum;
    return select(-NEVER, min(d, distance - d), p < count);
}
