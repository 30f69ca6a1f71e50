// 1-1 swaps of heavy GPUs. Moving d of a load difference D is worth m = min(d, D - d) to the larger load and
// 2 m (D - m) to the sum of squares, so both objectives want the largest m of two GPUs.

const MARK_USED: u32 = 1u;         // has swapped in this step
const MARK_PARTNER: u32 = 2u;      // may be a partner

fn mark(gpu: u32) -> u32 {
    return arena[word_at(params.at_marks, gpu)];
}

fn set_mark(gpu: u32, value: u32) {
    arena[word_at(params.at_marks, gpu)] = value;
}

// Marks are kept only where several GPUs propose or not all may be partners.
fn marks_gpus() -> bool {
    return ANY_RULE == 1u && (params.heaviest != 1u || params.lightest != 0u);
}

fn begin_swaps() {
    work += 1u + blocks(params.node_gpus);
    begin_phase(PHASE_SWAP);
    heavy = top;
    if !marks_gpus() {
        return;
    }
    work += params.node_gpus;
    phase = PHASE_PROPOSE;
    proposers = 0u;
    swapped = 0u;
    let some = params.lightest != 0u && params.lightest < params.node_gpus;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        set_mark(gpu, select(MARK_PARTNER, 0u, some));
    }
    if !some {
        return;
    }
    for (var i = 0u; i < params.lightest; i += 1u) {
        work += 1u + params.node_gpus;
        var lightest = NONE;
        for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
            let rest = mark(gpu) == 0u;
            if rest && (lightest == NONE || gpu_load(gpu) < gpu_load(lightest)) {
                lightest = gpu;
            }
        }
        if lightest != NONE {
            set_mark(lightest, MARK_PARTNER);
        }
    }
}

// The next heaviest GPU that has not swapped in this step looks for its best swap.
fn propose() {
    work += TURN + params.node_gpus;
    heavy = NONE;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        let unused = (mark(gpu) & MARK_USED) == 0u;
        if unused && (heavy == NONE || gpu_load(gpu) > gpu_load(heavy)) {
            heavy = gpu;
        }
    }
    if heavy == NONE {
        end_swaps();
        return;
    }
    proposers += 1u;
    begin_phase(PHASE_SWAP);
}

// All proposers have had their turn.
fn end_swaps() {
    phase = select(PHASE_SWAPS_ENDED, PHASE_STEP, swapped == 1u);
}

fn by_variance() -> bool {
    if ANY_RULE == 0u {
        return false;
    }
    return variance == 1u;
}

// What moving m of a distance is worth.
fn worth(m: u32, distance: u32) -> Wide {
    if by_variance() {
        return mul_wide(m, distance - m);
    }
    return Wide(m, 0u);
}

// Pieces of a scan for the best swap: tiles of the heavy GPU with tiles of each other.
fn swap_pieces() -> u32 {
    if SLOTS > 0u {
        return params.node_gpus;
    }
    let tiles = (params.slots_per_gpu + TILE - 1u) / TILE;
    return params.node_gpus * tiles * tiles;
}

// One of them.
fn weigh_swaps() {
    var gpu = cursor;
    var heavy_tile = 0u;
    var tile = 0u;
    if SLOTS == 0u {
        let tiles = (params.slots_per_gpu + TILE - 1u) / TILE;
        gpu = cursor / (tiles * tiles);
        heavy_tile = cursor / tiles % tiles;
        tile = cursor % tiles;
    }
    cursor += 1u;
    work += TURN;
    let load_a = gpu_load(heavy);
    let load_b = gpu_load(gpu);
    if load_a <= load_b || (marks_gpus() && mark(gpu) != MARK_PARTNER) {
        return;
    }
    let distance = load_a - load_b;
    if !wide_greater(worth(distance / 2u, distance), gain) {
        return;
    }
    let floor = select(gain.low, 0u, by_variance());
    if SLOTS > 0u {
        work += slots_cost();
        weigh_slots(gpu, i32(distance), i32(floor));
    } else {
        weigh_tiles(gpu, heavy_tile * TILE, tile * TILE, i32(distance), i32(floor));
    }
}

// What `weigh_slots` is charged.
fn slots_cost() -> u32 {
    let k = params.slots_per_gpu;
    return k + k * (1u + blocks(k)) + twins_cost(k);
}

// All slots of the heavy GPU with all of another, where they fit a tile.
fn weigh_slots(gpu: u32, distance: i32, floor: i32) {
    let k = params.slots_per_gpu;
    let begin = gpu * k;
    find_twins(begin);
    offer_own();
    var best = floor;
    var best_item = 0;
    var to = NONE;
    for (var j = 0u; j < k; j += 1u) {
        let item = other_load(begin, j);
        let most = most_for(item, distance);
        let better = most > best;
        best_item = select(best_item, item, better);
        to = select(to, j, better);
        best = max(most, best);
    }
    // Ties to the first.
    var source = NONE;
    for (var i = 0u; i < SLOTS; i += 1u) {
        let d = own_offers[i] - best_item;
        source = select(source, i, source == NONE && min(d, distance - d) == best);
    }
    keep_swap(best, distance, to, heavy * k + source, begin + to);
}

// The own loads, without those of twins.
var<private> own_offers: array<i32, TILE>;

fn offer_own() {
    for (var i = 0u; i < SLOTS; i += 1u) {
        own_offers[i] = own_load(i);
    }
}

// The most that an own slot moves in exchange for an item. In a function of its own, as `own_replicas`.
fn most_for(item: i32, distance: i32) -> i32 {
    var most = -NEVER;
    for (var i = 0u; i < SLOTS; i += 1u) {
        let d = own_offers[i] - item;
        most = max(min(d, distance - d), most);
    }
    return most;
}

// Keeps a swap if it is the best so far; `to` is NONE where there is none.
fn keep_swap(best: i32, distance: i32, to: u32, own_slot: u32, other_slot: u32) {
    if to == NONE {
        return;
    }
    let found = worth(u32(best), u32(distance));
    if wide_greater(found, gain) {
        gain = found;
        move_from = own_slot;
        move_to = other_slot;
    }
}

fn weigh_tiles(gpu: u32, heavy_skip: u32, skip: u32, distance: i32, floor: i32) {
    let k = params.slots_per_gpu;
    let heavy_begin = heavy * k + heavy_skip;
    let begin = gpu * k + skip;
    let heavy_count = min(TILE, k - heavy_skip);
    let count = min(TILE, k - skip);
    work += heavy_count + count * (1u + blocks(heavy_count));
    read_items(heavy_begin, heavy_count, begin, count);
    var best = floor;
    var source = NONE;
    var to = 0u;
    for (var j = 0u; j < count; j += 1u) {
        let item = items[TILE + j];
        for (var i = 0u; i < heavy_count; i += 4u) {
            let m0 = moved(i, heavy_count, item, distance);
            let m1 = moved(i + 1u, heavy_count, item, distance);
            let m2 = moved(i + 2u, heavy_count, item, distance);
            let m3 = moved(i + 3u, heavy_count, item, distance);
            if max(max(m0, m1), max(m2, m3)) > best {
                // Ties to the first.
                best = max(max(m0, m1), max(m2, m3));
                source = i + select(select(select(3u, 2u, m2 == best), 1u, m1 == best), 0u, m0 == best);
                to = j;
            }
        }
    }
    keep_swap(best, distance, source, heavy_begin + source, begin + to);
}

// m of a swap of the i-th item of the tile, or nothing worth having behind its end.
fn moved(i: u32, count: u32, item: i32, distance: i32) -> i32 {
    let d = items[i & (TILE - 1u)] - item;
    return select(-NEVER, min(d, distance - d), i < count);
}

fn make_best_swap() {
    let found = gain.low != 0u || gain.high != 0u;
    if found {
        exchange(move_from, move_to);
    }
    if !marks_gpus() {
        phase = select(PHASE_SWAPS_ENDED, PHASE_STEP, found);
        return;
    }
    set_mark(heavy, mark(heavy) | MARK_USED);
    if found {
        let partner = move_to / params.slots_per_gpu;
        set_mark(partner, mark(partner) | MARK_USED);
        swapped = 1u;
    }
    let all = params.heaviest == 0u || params.heaviest > params.node_gpus;
    if proposers == select(params.heaviest, params.node_gpus, all) {
        end_swaps();
    } else {
        phase = PHASE_PROPOSE;
    }
}
