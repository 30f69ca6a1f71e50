// Stage 4: pack a candidate's replicas onto its node's GPUs, heaviest first, each to the least loaded.
// Reads `results` (node loads, ranks and order of experts) and counts; writes `arena`.
//
// weigh  one lane a (queued candidate, expert with several replicas): the load of one, in the places of slots
// sort   one lane a (queued candidate, some of these experts): their lists, see `shared/order.wgsl`
//        (both of a node's first candidate alone where all starts share the order)
// pack   one lane a queued candidate: the items begin..end of the order

override AVOIDS: u32;            // whether duplicates are avoided
override NOISY: u32;             // whether starts other than the first add noise
override FREES: u32;             // whether slots stay free
override GPUS: u32;              // where a lane keeps the GPUs of a node to itself, their number rounded up to eights; else 0

// Scratch, after the lists: slots in use and last expert by GPU (where a lane keeps the GPUs to itself, both in one
// word).
fn used_at(gpu: u32) -> u32 {
    return 3u * params.node_experts + gpu;
}

fn last_at(gpu: u32) -> u32 {
    return 3u * params.node_experts + params.node_gpus + gpu;
}

// Sets the candidate of a lane, and returns the lane's number among those of the candidate, or NONE.
fn take_share(lane: u32, lanes_each: u32) -> u32 {
    let shares = shares_order();
    let share = split_of_lane(lane, lanes_each);
    if share.place >= select(queued(), params.candidates / params.start_count, shares) {
        return NONE;
    }
    if !shares {
        take_candidate(queued_candidate(share.place));
        return share.number;
    }
    take_candidate(share.place * params.start_count);
    return select(NONE, share.number, results[node_state_at(my_layer, my_node) + NODE_RUNS] == 1u);
}

@compute @workgroup_size(LANES)
fn weigh(invocation: Invocation) {
    let index = take_share(take_lane(invocation), most_replicated());
    if index == NONE || index >= control(C_REPLICATED) {
        return;
    }
    let expert = slot_expert(index);
    set_slot(index, expert, weight(expert) / max(count_of(expert), 1u));
}

@compute @workgroup_size(LANES)
fn sort(invocation: Invocation) {
    let share = take_share(take_lane(invocation), replicated_blocks());
    if share == NONE {
        return;
    }
    let several = control(C_REPLICATED);
    let first = share * REPLICATED_BLOCK;
    if first >= several {
        return;
    }
    for (var i = 0u; i < REPLICATED_BLOCK; i += 1u) {
        let index = min(first + i, several - 1u);
        experts[i] = slot_expert(index);
        loads[i] = slot_load(index);
        ranks[i] = rank_of(experts[i]);
        heavier[i] = 0u;
        earlier[i] = 0u;
    }
    for (var index = 0u; index < several; index += 1u) {
        count_before(slot_expert(index), slot_load(index));
    }
    for (var i = 0u; i < REPLICATED_BLOCK; i += 1u) {
        if first + i < several {
            set_scratch(replicated_at(heavier[i]), expert_and_count(experts[i], count_of(experts[i])));
            set_scratch(replicated_load_at(heavier[i]), loads[i]);
            set_scratch(passed_at(earlier[i]), ranks[i]);
        }
    }
}

// Of the lane's experts: load of a replica, and how many others go before it by that load, and by rank.
var<private> experts: array<u32, REPLICATED_BLOCK>;
var<private> loads: array<u32, REPLICATED_BLOCK>;
var<private> ranks: array<u32, REPLICATED_BLOCK>;
var<private> heavier: array<u32, REPLICATED_BLOCK>;
var<private> earlier: array<u32, REPLICATED_BLOCK>;

// In a function of its own: naga counts the trips of a loop from where its function begins, so that a compiler that
// unrolls the loop unrolls the counting away too.
fn count_before(expert: u32, load: u32) {
    let rank = rank_of(expert);
    for (var i = 0u; i < REPLICATED_BLOCK; i += 1u) {
        let before = load > loads[i] || (load == loads[i] && expert < experts[i]);
        heavier[i] += select(0u, 1u, before);
        earlier[i] += select(0u, 1u, rank < ranks[i]);
    }
}

@compute @workgroup_size(LANES)
fn pack(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= queued() {
        return;
    }
    take_candidate(queued_candidate(lane));
    if params.begin == 0u {
        clear_candidate();
    }
    let key = start_key(first_group(), my_start);
    begin_order(AVOIDS == 1u);
    if GPUS > 0u {
        pack_in_registers(key);
    } else {
        for (var item = params.begin; item < params.end; item += 1u) {
            next_item(AVOIDS == 1u);
            place_replica(key, item);
        }
    }
    end_order();
}

fn clear_candidate() {
    // Where replicas fill all slots, no slot is read before it is written.
    if FREES == 1u {
        for (var slot = 0u; slot < params.node_slots; slot += 4u) {
            clear_slot(slot);
            clear_slot(slot + 1u);
            clear_slot(slot + 2u);
            clear_slot(slot + 3u);
        }
    }
    if GPUS == 0u {
        for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
            set_gpu_load(gpu, 0u);
            set_scratch(used_at(gpu), 0u);
            set_scratch(last_at(gpu), FREE);
        }
    }
    set_control(C_SEARCH, 0u);
    set_control(C_SEARCH + 1u, 0u);
    set_control(C_BEST_MAX, NONE);
}

fn clear_slot(slot: u32) {
    if slot < params.node_slots {
        set_slot(slot, FREE, 0u);
    }
}

fn place_replica(key: u32, item: u32) {
    let expert = item_expert;
    let load = item_load;
    let word = draw(key, DRAW_PACKING + item);
    let noisy = NOISY == 1u && my_start > 0u;
    var best = NONE;
    var best_choice = 0u;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        if scratch(used_at(gpu)) == params.slots_per_gpu {
            continue;
        }
        if AVOIDS == 1u && scratch(last_at(gpu)) == expert {
            continue;
        }
        var choice = gpu_load(gpu);
        if noisy {
            choice += place_noise(word, gpu, load);
        }
        if best == NONE || choice < best_choice {
            best = gpu;
            best_choice = choice;
        }
    }
    var slot = 0u;
    if best == NONE {
        slot = make_room(expert);
        best = slot / params.slots_per_gpu;
    } else {
        let used = scratch(used_at(best));
        set_scratch(used_at(best), used + 1u);
        slot = best * params.slots_per_gpu + used;
    }
    set_slot(slot, expert, load);
    set_gpu_load(best, gpu_load(best) + load);
    set_scratch(last_at(best), expert);
}

// Frees a slot for `expert` where every GPU without it is full: `a`, the least loaded GPU with a free slot,
// holds it, and of the replicas on `b`, the least loaded GPU without it, one is of an expert that `a` lacks.
fn make_room(expert: u32) -> u32 {
    var a = NONE;
    var b = NONE;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        if scratch(used_at(gpu)) < params.slots_per_gpu && (a == NONE || gpu_load(gpu) < gpu_load(a)) {
            a = gpu;
        }
        if scratch(last_at(gpu)) != expert && (b == NONE || gpu_load(gpu) < gpu_load(b)) {
            b = gpu;
        }
    }
    a = select(a, 0u, a == NONE);
    b = select(b, 0u, b == NONE);
    let used = scratch(used_at(a));
    let at = lacking_slot(a, used, b);
    let load = slot_load(at);
    set_slot(a * params.slots_per_gpu + used, slot_expert(at), load);
    set_gpu_load(a, gpu_load(a) + load);
    set_gpu_load(b, gpu_load(b) - load);
    set_scratch(used_at(a), used + 1u);
    return at;
}

// The same where a node has few GPUs: a lane keeps all of them to itself and looks at them by constant indices.

const FULL: u32 = 0x80000000u;   // in a load: no slot is free, or none for this expert

var<private> my_gpu_loads: array<u32, REGISTER_GPUS>;
// The last expert of each GPU in the low bits, and its slots in use above them.
var<private> my_gpu_uses: array<u32, REGISTER_GPUS>;

const LAST: u32 = 0xffffu;       // the bits of the last expert, and no expert
const USED_SHIFT: u32 = 16u;

// The expert whose replicas are being placed, and the GPUs that hold it, as bits.
var<private> placed: u32;
var<private> holders: vec2<u32>;

// Of the item: what its noise begins with, the bits of it to drop, and those to keep.
var<private> noise_word: u32;
var<private> noise_drop: u32;
var<private> noise_keep: u32;

var<private> lightest: u32;      // so far, or NONE
var<private> least: u32;         // its load and noise

// GPUs up to which they are all gone through to find one, by constant indices: as good as an index to compilers that
// would look it up in memory, and sooner compiled.
const FEW_GPUS: u32 = 16u;

// Of a GPU its load and, y, its uses.
fn my_gpu(gpu: u32) -> vec2<u32> {
    if GPUS > FEW_GPUS {
        return vec2<u32>(my_gpu_loads[gpu], my_gpu_uses[gpu]);
    }
    var found = vec2<u32>(0u);
    for (var i = 0u; i < GPUS; i += 1u) {
        found = select(found, vec2<u32>(my_gpu_loads[i], my_gpu_uses[i]), i == gpu);
    }
    return found;
}

// Sets the load and the uses of a GPU.
fn put(gpu: u32, load: u32, uses: u32) {
    if GPUS > FEW_GPUS {
        my_gpu_loads[gpu] = load;
        my_gpu_uses[gpu] = uses;
        return;
    }
    for (var i = 0u; i < GPUS; i += 1u) {
        my_gpu_loads[i] = select(my_gpu_loads[i], load, i == gpu);
        my_gpu_uses[i] = select(my_gpu_uses[i], uses, i == gpu);
    }
}

fn pack_in_registers(key: u32) {
    for (var gpu = 0u; gpu < GPUS; gpu += 1u) {
        my_gpu_loads[gpu] = FULL;
    }
    placed = NONE;
    if CUT == 1u {
        placed = begun_expert();
    }
    holders = vec2<u32>(0u);
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        var load = 0u;
        var uses = LAST;
        if CUT == 1u && params.begin > 0u {
            load = gpu_load(gpu);
            uses = scratch(used_at(gpu));
        }
        put(gpu, load | full_if(uses >> USED_SHIFT), uses);
        if (uses & LAST) == placed {
            hold_at(gpu);
        }
    }
    noise_keep = select(0u, NONE, my_start > 0u);
    var item = params.begin;
    while item < params.end {
        // To make room is rare and dear: lanes that must wait for the others.
        while item < params.end {
            next_item(AVOIDS == 1u);
            if !place_in_registers(key, item) {
                break;
            }
            item += 1u;
        }
        if item < params.end {
            make_room_in_registers();
            item += 1u;
        }
    }
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        let found = my_gpu(gpu);
        set_gpu_load(gpu, found.x & ~FULL);
        if CUT == 1u {
            set_scratch(used_at(gpu), found.y);
        }
    }
}

fn full_if(used: u32) -> u32 {
    return select(0u, FULL, used >= params.slots_per_gpu);
}

fn hold_at(gpu: u32) {
    let bit = 1u << (gpu & 31u);
    holders |= select(vec2<u32>(bit, 0u), vec2<u32>(0u, bit), gpu >= 32u);
}

// Whether a GPU would take the item, which it then has.
fn place_in_registers(key: u32, item: u32) -> bool {
    let expert = item_expert;
    let load = item_load;
    holders = select(vec2<u32>(0u), holders, expert == placed);
    placed = expert;
    noise_word = draw(key, DRAW_PACKING + item);
    noise_drop = noise_shift(load);
    lightest = NONE;
    least = FULL;
    look_at_eight(0u);
    look_at_eight(8u);
    look_at_eight(16u);
    look_at_eight(24u);
    look_at_eight(32u);
    look_at_eight(40u);
    look_at_eight(48u);
    look_at_eight(56u);
    if lightest == NONE {
        return false;
    }
    let found = my_gpu(lightest);
    let used = found.y >> USED_SHIFT;
    set_slot(lightest * params.slots_per_gpu + used, expert, load);
    put(lightest, (found.x + load) | full_if(used + 1u), expert | ((used + 1u) << USED_SHIFT));
    hold_at(lightest);
    return true;
}

fn look_at_eight(first: u32) {
    if first >= GPUS {
        return;
    }
    let held = select(holders.x, holders.y, first >= 32u);
    for (var i = 0u; i < 8u; i += 1u) {
        let gpu = first + i;
        var choice = my_gpu_loads[gpu];
        if NOISY == 1u {
            // `place_noise`, of which most is the item's.
            choice += ((noise_word + gpu * PLACE_STEP) >> noise_drop) & noise_keep;
        }
        if AVOIDS == 1u {
            choice |= (held << (31u - (gpu & 31u))) & FULL;
        }
        lightest = select(lightest, gpu, choice < least);
        least = min(choice, least);
    }
}

// As `make_room`, and places the item.
fn make_room_in_registers() {
    let expert = item_expert;
    let own = item_load;
    var a = NONE;
    var b = NONE;
    var load_a = FULL;
    var load_b = FULL;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        let load = my_gpu(gpu).x;
        if load < load_a {
            a = gpu;
            load_a = load;
        }
        if !is_holder(gpu) && (load & ~FULL) < load_b {
            b = gpu;
            load_b = load & ~FULL;
        }
    }
    a = select(a, 0u, a == NONE);
    b = select(b, 0u, b == NONE);
    let of_a = my_gpu(a);
    let used = of_a.y >> USED_SHIFT;
    let at = lacking_slot(a, used, b);
    let load = slot_load(at);
    set_slot(a * params.slots_per_gpu + used, slot_expert(at), load);
    put(a, (of_a.x + load) | full_if(used + 1u), of_a.y + (1u << USED_SHIFT));
    set_slot(at, expert, own);
    let of_b = my_gpu(b);
    put(b, of_b.x - load + own, (of_b.y & ~LAST) | expert);
    hold_at(b);
}

fn is_holder(gpu: u32) -> bool {
    return ((select(holders.x, holders.y, gpu >= 32u) >> (gpu & 31u)) & 1u) == 1u;
}

// To make room: the first slot of GPU `b` whose expert is in none of the first `used` slots of GPU `a`.
fn lacking_slot(a: u32, used: u32, b: u32) -> u32 {
    let k = params.slots_per_gpu;
    for (var i = 0u; i < k; i += 1u) {
        if !is_among(slot_expert(b * k + i), a * k, used) {
            return b * k + i;
        }
    }
    return b * k;
}

// Whether one of `n` slots from `begin` on holds the expert.
fn is_among(expert: u32, begin: u32, n: u32) -> bool {
    var found = false;
    for (var j = 0u; j < n && !found; j += 4u) {
        found = slot_expert(begin + j) == expert || slot_expert(begin + min(j + 1u, n - 1u)) == expert
            || slot_expert(begin + min(j + 2u, n - 1u)) == expert
            || slot_expert(begin + min(j + 3u, n - 1u)) == expert;
    }
    return found;
}
