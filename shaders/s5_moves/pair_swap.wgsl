// 2-for-2 swaps of the heaviest GPU with any other: as 1-1 swaps, with sums of two of the first PAIR_SLOTS
// slots. A free slot is a replica of load 0, so 2-for-1 is among them.

var<private> pair_items: array<i32, PAIR_SLOTS>;
var<private> pair_sums: array<i32, PAIRS>;
var<private> pair_first: array<u32, PAIRS>;

// One other GPU; behind the last, the best swap is made.
fn weigh_pair_swaps() {
    if cursor == params.node_gpus {
        if gain.low == 0u {
            after_pair_swaps();
            return;
        }
        exchange(move_from, move_to);
        exchange(move_from_2, move_to_2);
        phase = PHASE_STEP;
        return;
    }
    if cursor == 0u {
        find_heaviest();
    }
    let gpu = cursor;
    cursor += 1u;
    work += 1u;
    let distance = i32(gpu_load(heavy)) - i32(gpu_load(gpu));
    if distance / 2 <= i32(gain.low) {
        return;
    }
    weigh_pairs(gpu, distance);
}

fn weigh_pairs(gpu: u32, distance: i32) {
    let n = min(params.slots_per_gpu, PAIR_SLOTS);
    let count = n * (n - 1u) / 2u;
    let heavy_begin = heavy * params.slots_per_gpu;
    let begin = gpu * params.slots_per_gpu;
    work += 2u * (n + count) + count * (1u + blocks(count));
    read_items(heavy_begin, gpu, n, -NEVER);
    var at = 0u;
    for (var i = 0u; i < n; i += 1u) {
        for (var j = i + 1u; j < n; j += 1u) {
            pair_sums[at] = pair_sum(i, j, -NEVER);
            pair_first[at] = i * PAIR_SLOTS + j;
            at += 1u;
        }
    }
    read_items(begin, heavy, n, NEVER);
    var best = i32(gain.low);
    var source = NONE;
    var to = 0u;
    for (var i = 0u; i < n; i += 1u) {
        for (var j = i + 1u; j < n; j += 1u) {
            let sum = pair_sum(i, j, NEVER);
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
    move_from = heavy_begin + pair_first[source] / PAIR_SLOTS;
    move_from_2 = heavy_begin + pair_first[source] % PAIR_SLOTS;
    move_to = begin + to / PAIR_SLOTS;
    move_to_2 = begin + to % PAIR_SLOTS;
}

// The loads of a GPU's first slots, `never` for those that would make a duplicate on `to`.
fn read_items(begin: u32, to: u32, n: u32, never: i32) {
    let never_there = blocked(begin, n, to);
    for (var i = 0u; i < n; i += 1u) {
        pair_items[i] = select(i32(slot_load(begin + i)), never, ((never_there >> i) & 1u) == 1u);
    }
}

fn pair_sum(i: u32, j: u32, never: i32) -> i32 {
    let a = pair_items[i];
    let b = pair_items[j];
    return select(a + b, never, a == never || b == never);
}

fn pair_moved(p: u32, count: u32, sum: i32, distance: i32) -> i32 {
    let d = pair_sums[min(p, PAIRS - 1u)] - sum;
    return select(-NEVER, min(d, distance - d), p < count);
}
