// Stage 4: pack a candidate's replicas onto its node's GPUs, heaviest first, each to the least loaded.
// Reads `kept` (node loads and the experts in their order) and counts; writes `arena`.
//
// The order of packing is that of the node's experts, with those that have several replicas elsewhere in it: an
// expert's place in the one follows from its place in the other and from those few.
//
// weigh  one lane a (queued candidate, expert with several replicas): what there is to know about it
// order  one lane a (queued candidate, some experts): the places of their replicas in the order of packing, into the
//        snapshot, and the load of a replica, into scratch; first of all experts, then anew of those with several
//        (both of a node's first candidate alone where all restarts share the order)
// pack   one lane a queued candidate: the items begin..end of that order

override AVOIDS: u32;            // whether duplicates are avoided
override NOISY: u32;             // whether restarts other than the first add noise
override GPUS: u32;              // GPUs of a node, in eights, where a lane keeps them to itself; else 0

// Scratch: the load of a replica by expert, then slots in use and last expert by GPU (where a
// lane keeps the GPUs to itself, both in one word).
fn used_at(gpu: u32) -> u32 {
    return params.node_experts + gpu;
}

fn last_at(gpu: u32) -> u32 {
    return params.node_experts + params.node_gpus + gpu;
}

// The experts with several replicas, as stage 3 lists them: until slots are packed, in their places.
fn several_expert(index: u32) -> u32 {
    return slot_expert(index);
}

// The load of a replica of such an expert; in scratch, behind the loads by expert, how many experts of the node's order
// come before its first replica, and how many before its further ones.
fn several_load(index: u32) -> u32 {
    return slot_load(index);
}

fn before_first_at(index: u32) -> u32 {
    return params.node_experts + index;
}

fn before_further_at(index: u32) -> u32 {
    return 2u * params.node_experts + index;
}

// Sets the candidate of a lane, and returns the lane's number among those of the candidate, or NONE.
fn take_share(lane: u32) -> u32 {
    let shares = shares_order();
    let count = select(queued(), params.candidates / params.restart_count, shares);
    if count == 0u {
        return NONE;
    }
    let place = lane % max(count, 1u);
    if !shares {
        take_candidate(queued_candidate(place));
        return lane / max(count, 1u);
    }
    take_candidate(place * params.restart_count);
    return select(NONE, lane / max(count, 1u), control(C_END) == END_RUNNING);
}

@compute @workgroup_size(64)
fn weigh(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = take_share(lane_of(workgroup, grid, local));
    if index == NONE || index >= control(C_SEVERAL) {
        return;
    }
    let expert = several_expert(index);
    let load = weight(expert) / max(count_of(expert), 1u);
    set_slot(index, expert, load);
    set_scratch(expert, load);
    set_scratch(before_first_at(index), experts_before(load, expert));
    if AVOIDS == 0u {
        set_scratch(before_further_at(index), experts_before(load, NONE));
    }
}

// How many of the node's experts go before a replica of this load and expert: those with more, of equals the lower.
fn experts_before(load: u32, expert: u32) -> u32 {
    var before = 0u;
    var left = params.node_experts;
    while left > 0u {
        let half = left / 2u;
        let other = expert_of_rank(before + half);
        let other_load = weight(other);
        if other_load > load || (other_load == load && other < expert) {
            before += half + 1u;
            left -= half + 1u;
        } else {
            left = half;
        }
    }
    return before;
}

@compute @workgroup_size(64)
fn order(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let share = take_share(lane_of(workgroup, grid, local));
    if share == NONE {
        return;
    }
    // The lane's block: of all experts in their order, or of those with several replicas.
    let blocks = (params.node_experts + EXPERT_BLOCK - 1u) / EXPERT_BLOCK;
    let of_several = share >= blocks;
    let several = control(C_SEVERAL);
    let first = select(share, share - blocks, of_several) * EXPERT_BLOCK;
    let end = min(first + EXPERT_BLOCK, select(params.node_experts, several, of_several));
    if first >= end {
        return;
    }
    // Of each expert of the block its load, and how many replicas go before its first and before its further ones: to
    // begin with, if none had several.
    for (var i = 0u; i < EXPERT_BLOCK; i += 1u) {
        let at = min(first + i, end - 1u);
        var expert = expert_of_rank(min(at, params.node_experts - 1u));
        var load = weight(expert);
        var before = at;
        var further = at;
        if of_several {
            expert = several_expert(at);
            load = several_load(at);
            before = scratch(before_first_at(at));
            if AVOIDS == 0u {
                further = scratch(before_further_at(at));
            }
        }
        experts[i] = expert;
        loads[i] = load;
        firsts[i] = before;
        furthers[i] = further;
        before_first[i] = before;
        before_further[i] = further;
    }
    for (var index = 0u; index < several; index += 1u) {
        count_several(index);
    }
    // One loop for all replicas of the block: loops in a loop would add up where lanes differ.
    var i = 0u;
    var replica = 0u;
    while first + i < end {
        let expert = experts[i];
        let count = count_of(expert);
        if of_several || count == 1u {
            let place = select(firsts[i] + replica, furthers[i] + replica - 1u, AVOIDS == 0u && replica > 0u);
            set_snapshot(place, expert);
            set_scratch(expert, loads[i]);
        }
        replica += 1u;
        if replica >= count || !of_several {
            i += 1u;
            replica = 0u;
        }
    }
}

var<private> experts: array<u32, EXPERT_BLOCK>;
var<private> loads: array<u32, EXPERT_BLOCK>;
var<private> before_first: array<u32, EXPERT_BLOCK>;
var<private> before_further: array<u32, EXPERT_BLOCK>;
var<private> firsts: array<u32, EXPERT_BLOCK>;
var<private> furthers: array<u32, EXPERT_BLOCK>;

// What an expert with several replicas changes for those of the block: it leaves its place, and its replicas go before
// those that are lighter. Of equal replicas, first ones go before further ones, then lower experts; where duplicates are
// avoided an expert's replicas stay together. In a function of its own: naga counts the trips of a loop from where its
// function begins, so that a compiler that unrolls the loop unrolls the counting away too.
fn count_several(index: u32) {
    let expert = several_expert(index);
    let load = several_load(index);
    let rank = rank_of(expert);
    let further = count_of(expert) - 1u;
    for (var i = 0u; i < EXPERT_BLOCK; i += 1u) {
        let heavier = load > loads[i];
        let lower = load == loads[i] && expert < experts[i];
        let leaves = select(0u, 1u, rank < before_first[i]);
        if AVOIDS == 1u {
            firsts[i] += select(0u, 1u + further, heavier || lower) - leaves;
        } else {
            firsts[i] += select(select(0u, 1u, lower), 1u + further, heavier) - leaves;
            let leaves_further = select(0u, 1u, rank < before_further[i]);
            furthers[i] += select(0u, 1u, load >= loads[i]) + select(0u, further, heavier || lower) - leaves_further;
        }
    }
}

@compute @workgroup_size(64)
fn pack(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = lane_of(workgroup, grid, local);
    if lane >= queued() {
        return;
    }
    take_candidate(queued_candidate(lane));
    if params.begin == 0u {
        clear_candidate();
    }
    let key = restart_key(my_node, my_restart);
    if GPUS > 0u {
        pack_in_registers(key);
        return;
    }
    for (var item = params.begin; item < params.end; item += 1u) {
        place_replica(key, item);
    }
}

fn clear_candidate() {
    // Where replicas fill all slots, no slot is read before it is written.
    let slots = select(params.node_slots, 0u, params.node_replicas == params.node_slots);
    for (var slot = 0u; slot < slots; slot += 4u) {
        clear_slot(slot);
        clear_slot(slot + 1u);
        clear_slot(slot + 2u);
        clear_slot(slot + 3u);
    }
    if GPUS == 0u {
        for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
            set_gpu_load(gpu, 0u);
            set_scratch(used_at(gpu), 0u);
            set_scratch(last_at(gpu), FREE);
        }
    }
    set_control(C_PHASE, 0u);
    set_control(C_WORK, 0u);
    set_control(C_STEPS, 0u);
    set_control(C_KICK, 0u);
    set_control(C_BEST_MAX, NONE);
    atomicStore(&queue[decided_at()], NONE);
}

fn clear_slot(slot: u32) {
    if slot < params.node_slots {
        set_slot(slot, FREE, 0u);
    }
}

fn place_replica(key: u32, item: u32) {
    let expert = ordered_expert(item);
    let load = ordered_load(expert);
    let word = draw(key, DRAW_PACKING + item);
    let noisy = NOISY == 1u && my_restart > 0u;
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
// The last expert of each GPU, and behind it its slots in use.
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

fn pack_in_registers(key: u32) {
    for (var gpu = 0u; gpu < REGISTER_GPUS; gpu += 1u) {
        my_gpu_loads[gpu] = FULL;
    }
    placed = ordered_expert(params.begin);
    holders = vec2<u32>(0u);
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        var load = 0u;
        var uses = LAST;
        if params.begin > 0u {
            load = gpu_load(gpu);
            uses = scratch(used_at(gpu));
        }
        my_gpu_loads[gpu] = load | full_if(uses >> USED_SHIFT);
        my_gpu_uses[gpu] = uses;
        if (uses & LAST) == placed {
            hold_at(gpu);
        }
    }
    noise_keep = select(0u, NONE, my_restart > 0u);
    var item = params.begin;
    while item < params.end {
        // To make room is rare and dear: lanes that must wait for the others.
        while item < params.end && place_in_registers(key, item) {
            item += 1u;
        }
        if item < params.end {
            make_room_in_registers(item);
            item += 1u;
        }
    }
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        set_gpu_load(gpu, my_gpu_loads[gpu] & ~FULL);
        set_scratch(used_at(gpu), my_gpu_uses[gpu]);
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
    let expert = ordered_expert(item);
    let load = ordered_load(expert);
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
    let used = my_gpu_uses[lightest] >> USED_SHIFT;
    set_slot(lightest * params.slots_per_gpu + used, expert, load);
    my_gpu_loads[lightest] = (my_gpu_loads[lightest] + load) | full_if(used + 1u);
    my_gpu_uses[lightest] = expert | ((used + 1u) << USED_SHIFT);
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
fn make_room_in_registers(item: u32) {
    let expert = ordered_expert(item);
    let own = ordered_load(expert);
    var a = NONE;
    var b = NONE;
    var load_a = FULL;
    var load_b = FULL;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        let load = my_gpu_loads[gpu];
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
    let used = my_gpu_uses[a] >> USED_SHIFT;
    let at = lacking_slot(a, used, b);
    let load = slot_load(at);
    set_slot(a * params.slots_per_gpu + used, slot_expert(at), load);
    my_gpu_loads[a] = (my_gpu_loads[a] + load) | full_if(used + 1u);
    my_gpu_uses[a] += 1u << USED_SHIFT;
    set_slot(at, expert, own);
    my_gpu_loads[b] = my_gpu_loads[b] - load + own;
    my_gpu_uses[b] = (my_gpu_uses[b] & ~LAST) | expert;
    hold_at(b);
}

fn is_holder(gpu: u32) -> bool {
    return ((select(holders.x, holders.y, gpu >= 32u) >> (gpu & 31u)) & 1u) == 1u;
}
