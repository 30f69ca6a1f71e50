// 1-1 swaps of a critical GPU with any other.

// Loads of the two GPUs, and while slots are weighed as they are once the heavy one has received.
var<private> on_heavy: array<vec4<u32>, 4>;
var<private> on_gpu: array<vec4<u32>, 4>;
var<private> heavy_then: array<vec4<u32>, 4>;
var<private> gpu_then: array<vec4<u32>, 4>;
var<private> pair_local: u32;     // their own value now
var<private> pair_least: Wide;    // what no exchange between the two can go below

fn read_pair(gpu: u32) {
    pair_local = 0u;
    pair_least = Wide(0u, 0u);
    for (var q = 0u; q < params.quads; q += 1u) {
        let a = gpu_quad(heavy, q);
        let b = gpu_quad(gpu, q);
        on_heavy[q] = a;
        on_gpu[q] = b;
        others[q] = top_without(heavy, gpu, q);
        near[q] = floor_quad(q);
        pair_local += sum_of(max(near[q], max(a, b)));
        // Both equally loaded.
        pair_least = plus(pair_least, outcome(q, (a + b + 1u) / 2u));
    }
}

fn exchange_quad(q: u32, out: vec4<u32>) -> Wide {
    return outcome(q, max(heavy_then[q] - out, gpu_then[q] + out));
}

// Whether a move is better than the best so far and than what is.
fn is_better(found: Wide) -> bool {
    return wide_greater(best, found) && (found.high < value_now || found.low < pair_local);
}

// One tile of the heavy GPU against one of another.
fn weigh_swaps() {
    let tiles = (params.slots_per_gpu + WINDOW_TILE - 1u) / WINDOW_TILE;
    let gpu = cursor / (tiles * tiles);
    let heavy_tile = cursor / tiles % tiles;
    let tile = cursor % tiles;
    if heavy_tile == 0u && tile == 0u && is_spent() {
        end_scan();
        return;
    }
    cursor += 1u;
    work += TURN;
    if gpu != heavy {
        read_pair(gpu);
        if wide_greater(best, pair_least) {
            weigh_tiles(gpu, heavy_tile * WINDOW_TILE, tile * WINDOW_TILE);
        }
    }
    if cursor == params.node_gpus * tiles * tiles {
        leave_window();
    }
}

fn weigh_tiles(gpu: u32, heavy_skip: u32, skip: u32) {
    let k = params.slots_per_gpu;
    let here = heavy * k + heavy_skip;
    let there = gpu * k + skip;
    let here_count = min(WINDOW_TILE, k - heavy_skip);
    let there_count = min(WINDOW_TILE, k - skip);
    work += there_count * (3u + params.quads + here_count);
    let here_twins = twins_on(gpu, here, here_count);
    let there_twins = twins_on(heavy, there, there_count);
    for (var j = 0u; j < there_count; j += 1u) {
        if ((there_twins >> j) & 1u) == 1u {
            continue;
        }
        receive(there + j);
        for (var i = 0u; i < here_count; i += 1u) {
            let found = after_giving(here + i);
            if is_better(found) && ((here_twins >> i) & 1u) == 0u {
                best = found;
                move_from = here + i;
                move_to = there + j;
            }
        }
    }
}

// The heavy GPU receives what is in a slot of the other.
fn receive(slot: u32) {
    for (var q = 0u; q < params.quads; q += 1u) {
        receive_quad(q, slot_quad(slot, q));
    }
}

fn receive_quad(q: u32, back: vec4<u32>) {
    heavy_then[q] = on_heavy[q] + back;
    gpu_then[q] = on_gpu[q] - back;
}

// What the exchange comes to once the heavy GPU gives what is in a slot.
fn after_giving(slot: u32) -> Wide {
    var found = exchange_quad(0u, slot_quad(slot, 0u));
    if QUADS > 1u {
        found = plus(found, exchange_quad(1u, slot_quad(slot, 1u)));
    }
    if QUADS > 2u {
        found = plus(found, exchange_quad(2u, slot_quad(slot, 2u)));
    }
    if QUADS > 3u {
        found = plus(found, exchange_quad(3u, slot_quad(slot, 3u)));
    }
    return found;
}
