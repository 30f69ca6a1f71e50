// Exact bipartition of the items of the heaviest and the lightest GPU. Items are numbered heavy GPU first; a split is
// the mask of the items on the heavy GPU, with item 0, since mirrored splits are equal.

var<private> split_loads: array<u32, SPLIT_ITEMS>;

// From here on `move_from` is the rest of the mask, `move_to` the best mask, `gain.low` the load to beat.
fn begin_splits() {
    let k = params.slots_per_gpu;
    if !has_move(MOVE_BIPARTITION) || k < 2u || k > BIPARTITION_SLOTS || params.node_gpus < 2u {
        ended = END_STUCK;
        return;
    }
    phase = PHASE_SPLIT;
    light = lightest(0u);
    move_from = (1u << (k - 1u)) - 1u;
    move_to = 0u;
    gain = Wide(gpu_load(heavy), 0u);
}

fn split_slot(item: u32) -> u32 {
    let k = params.slots_per_gpu;
    return select(light * k + item - k, heavy * k + item, item < k);
}

// Some splits; after the last, the best is made.
fn weigh_splits() {
    let items = 2u * params.slots_per_gpu;
    let end = 1u << (items - 1u);
    spent += 2u * SPLIT_ITEMS + 4u * BIPARTITION_CHUNK;
    for (var item = 0u; item < SPLIT_ITEMS; item += 1u) {
        split_loads[item] = select(0u, slot_load(split_slot(min(item, items - 1u))), item < items);
    }
    let total = gpu_load(heavy) + gpu_load(light);
    var rest = move_from;
    for (var tried = 0u; tried < BIPARTITION_CHUNK && rest < end; tried += 1u) {
        let mask = (rest << 1u) | 1u;
        // Without a loop: there are tens of thousands of splits.
        let sum = masked(mask, 0u) + masked(mask, 4u) + masked(mask, 8u) + masked(mask, 12u) + masked(mask, 16u);
        let most = max(sum, total - sum);
        if most < gain.low && keeps_twins_apart(mask) {
            gain.low = most;
            move_to = mask;
        }
        // The next larger number with as many ones (Gosper's hack).
        let lowest = rest & (~rest + 1u);
        let ripple = rest + lowest;
        rest = ripple | (((rest ^ ripple) >> 2u) / max(lowest, 1u));
    }
    move_from = rest;
    if rest < end {
        return;
    }
    if move_to == 0u {
        ended = END_STUCK;
    } else {
        make_split(items);
        phase = PHASE_STEP;
    }
}

// The loads of four items, of those in the mask.
fn masked(mask: u32, item: u32) -> u32 {
    return ((mask >> item) & 1u) * split_loads[item]
        + ((mask >> (item + 1u)) & 1u) * split_loads[item + 1u]
        + ((mask >> (item + 2u)) & 1u) * split_loads[item + 2u]
        + ((mask >> (item + 3u)) & 1u) * split_loads[item + 3u];
}

// Whether replicas of one expert, of which each GPU had one, stay apart.
fn keeps_twins_apart(mask: u32) -> bool {
    let k = params.slots_per_gpu;
    if params.avoid_duplicates == 0u {
        return true;
    }
    spent += k * (2u + k);
    for (var i = 0u; i < k; i += 1u) {
        let expert = slot_expert(split_slot(i));
        for (var j = k; j < 2u * k; j += 1u) {
            let duplicates = slot_expert(split_slot(j)) == expert && expert != FREE;
            if duplicates && ((mask >> i) & 1u) == ((mask >> j) & 1u) {
                return false;
            }
        }
    }
    return true;
}

// Deals the items out, each GPU's in their order.
fn make_split(items: u32) {
    var experts: array<u32, SPLIT_ITEMS>;
    spent += 2u * items;
    for (var item = 0u; item < items; item += 1u) {
        experts[item] = slot_expert(split_slot(item));
    }
    var to_heavy = 0u;
    var to_light = params.slots_per_gpu;
    set_gpu_load(heavy, 0u);
    set_gpu_load(light, 0u);
    for (var item = 0u; item < items; item += 1u) {
        let on_heavy = ((move_to >> item) & 1u) == 1u;
        let gpu = select(light, heavy, on_heavy);
        set_slot(split_slot(select(to_light, to_heavy, on_heavy)), experts[item], split_loads[item]);
        set_gpu_load(gpu, gpu_load(gpu) + split_loads[item]);
        to_heavy += select(0u, 1u, on_heavy);
        to_light += select(1u, 0u, on_heavy);
    }
}
