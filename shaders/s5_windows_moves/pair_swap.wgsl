// 2-for-2 swaps of a critical GPU with any other: as 1-1 swaps, with sums of two of the first WINDOW_PAIR_SLOTS
// slots. A free slot is a replica of load 0, so 2-for-1 is among them.

// One slot of another GPU with those after it.
fn weigh_pair_swaps() {
    let n = min(params.slots_per_gpu, WINDOW_PAIR_SLOTS);
    let gpu = cursor / (n - 1u);
    let c = cursor % (n - 1u);
    if c == 0u && is_spent() {
        end_scan();
        return;
    }
    cursor += 1u;
    work += TURN;
    if gpu != heavy {
        read_pair(gpu);
        if wide_greater(best, pair_least) {
            weigh_pairs(gpu, c, n);
        }
    }
    if cursor == params.node_gpus * (n - 1u) {
        leave_window();
    }
}

fn weigh_pairs(gpu: u32, c: u32, n: u32) {
    let here = heavy * params.slots_per_gpu;
    let there = gpu * params.slots_per_gpu;
    work += (n - 1u - c) * (3u + params.quads + 2u * n + n * (n - 1u) / 2u);
    let here_twins = twins_on(gpu, here, n);
    let there_twins = twins_on(heavy, there, n);
    if ((there_twins >> c) & 1u) == 1u {
        return;
    }
    for (var d = c + 1u; d < n; d += 1u) {
        if ((there_twins >> d) & 1u) == 1u {
            continue;
        }
        receive_both(there + c, there + d);
        for (var a = 0u; a + 1u < n; a += 1u) {
            for (var b = a + 1u; b < n; b += 1u) {
                let found = after_giving_both(here + a, here + b);
                if is_better(found) && (((here_twins >> a) | (here_twins >> b)) & 1u) == 0u {
                    best = found;
                    move_from = here + a;
                    move_from_2 = here + b;
                    move_to = there + c;
                    move_to_2 = there + d;
                }
            }
        }
    }
}

fn both(a: u32, b: u32, q: u32) -> vec4<u32> {
    return slot_quad(a, q) + slot_quad(b, q);
}

fn receive_both(a: u32, b: u32) {
    for (var q = 0u; q < params.quads; q += 1u) {
        receive_quad(q, both(a, b, q));
    }
}

fn after_giving_both(a: u32, b: u32) -> Wide {
    var found = exchange_quad(0u, both(a, b, 0u));
    if QUADS > 1u {
        found = plus(found, exchange_quad(1u, both(a, b, 1u)));
    }
    if QUADS > 2u {
        found = plus(found, exchange_quad(2u, both(a, b, 2u)));
    }
    if QUADS > 3u {
        found = plus(found, exchange_quad(3u, both(a, b, 3u)));
    }
    return found;
}
