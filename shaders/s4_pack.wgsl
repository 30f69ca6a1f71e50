// Stage 4: pack a candidate's replicas onto its node's GPUs, heaviest first, each to the least loaded.
// Reads `kept` (node loads) and counts; writes `arena`.
//
// weigh  one lane a (queued candidate, block of experts): the load of a replica, into scratch
// order  one lane a (queued candidate, block of experts): the places of its replicas in the order of packing, into
//        the snapshot
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

@compute @workgroup_size(64)
fn weigh(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = take_block(lane_of(workgroup, grid, local));
    if first == NONE {
        return;
    }
    let end = min(first + ORDER_BLOCK, params.node_experts);
    for (var expert = first; expert < end; expert += 1u) {
        set_scratch(expert, weight(expert) / max(count_of(expert), 1u));
    }
}

// Sets the candidate of a lane, and returns the first expert of its block, or NONE.
fn take_block(lane: u32) -> u32 {
    let shares = shares_order();
    let count = select(queued(), params.candidates / params.restart_count, shares);
    let first = lane / max(count, 1u) * ORDER_BLOCK;
    if count == 0u || first >= params.node_experts {
        return NONE;
    }
    let place = lane % count;
    if !shares {
        take_candidate(queued_candidate(place));
        return first;
    }
    take_candidate(place * params.restart_count);
    return select(NONE, first, control(C_END) == END_RUNNING);
}

@compute @workgroup_size(64)
fn order(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = take_block(lane_of(workgroup, grid, local));
    if first == NONE {
        return;
    }
    // Of equal replicas, first ones go before further ones, then lower experts; where duplicates are avoided an
    // expert's replicas stay together. So of each expert of the block: its load, and how many replicas go before
    // its first and before its further ones.
    for (var i = 0u; i < ORDER_BLOCK; i += 1u) {
        loads[i] = i32(scratch(min(first + i, params.node_experts - 1u)));
        firsts[i] = 0u;
        furthers[i] = 0u;
    }
    for (var other = 0u; other < first; other += 1u) {
        count_before(other, 0u);
    }
    let end = min(first + ORDER_BLOCK, params.node_experts);
    for (var other = first; other < end; other += 1u) {
        count_before(other, other - first + 1u);
    }
    for (var other = end; other < params.node_experts; other += 1u) {
        count_before(other, ORDER_BLOCK);
    }
    var places: array<u32, ORDER_BLOCK>;
    var places_further: array<u32, ORDER_BLOCK>;
    for (var i = 0u; i < ORDER_BLOCK; i += 1u) {
        places[i] = firsts[i];
        places_further[i] = select(furthers[i], firsts[i] + 1u, AVOIDS == 1u);
    }
    // One loop for all replicas of the block: loops in a loop would add up where lanes differ.
    var i = 0u;
    var replica = 0u;
    while first + i < end {
        set_snapshot(select(places_further[i] + replica - 1u, places[i], replica == 0u), first + i);
        replica += 1u;
        if replica >= count_of(first + i) {
            i += 1u;
            replica = 0u;
        }
    }
}

var<private> loads: array<i32, ORDER_BLOCK>;
var<private> firsts: array<u32, ORDER_BLOCK>;
var<private> furthers: array<u32, ORDER_BLOCK>;

// The replicas of an expert that go before those of the block, of which it is below all from `skip` on. In a function
// of its own: naga counts the trips of a loop from where its function begins, so that a compiler that unrolls the loop
// unrolls the counting away too. Loads are below 2^31; signed ones compare faster on some devices.
fn count_before(other: u32, skip: u32) {
    let load = i32(scratch(other));
    let replicas = count_of(other);
    for (var i = 0u; i < ORDER_BLOCK; i += 1u) {
        let all = select(0u, replicas, load > loads[i]);
        let not_lighter = select(0u, replicas, load >= loads[i]);
        let one = select(select(0u, 1u, load == loads[i]), replicas, load > loads[i]);
        if AVOIDS == 1u {
            firsts[i] += select(all, not_lighter, i >= skip);
        } else {
            firsts[i] += select(all, one, i >= skip);
            furthers[i] += select(one, not_lighter, i >= skip);
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

const FULL: u32 = 0x80000000u;   // in a load: no slot is free

var<private> my_gpu_loads: array<u32, REGISTER_GPUS>;
// The last expert of each GPU, and behind it its slots in use.
var<private> my_gpu_uses: array<u32, REGISTER_GPUS>;

const LAST: u32 = 0xffffu;       // the bits of the last expert, and no expert
const USED_SHIFT: u32 = 16u;

var<private> lightest: u32;      // so far, or NONE
var<private> least: u32;         // its load and noise

fn pack_in_registers(key: u32) {
    for (var gpu = 0u; gpu < REGISTER_GPUS; gpu += 1u) {
        my_gpu_loads[gpu] = FULL;
    }
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        var load = 0u;
        var uses = LAST;
        if params.begin > 0u {
            load = gpu_load(gpu);
            uses = scratch(used_at(gpu));
        }
        my_gpu_loads[gpu] = load | full_if(uses >> USED_SHIFT);
        my_gpu_uses[gpu] = uses;
    }
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

// Whether a GPU would take the item, which it then has.
fn place_in_registers(key: u32, item: u32) -> bool {
    let expert = ordered_expert(item);
    let load = ordered_load(expert);
    let word = draw(key, DRAW_PACKING + item);
    let noise = select(0u, load, my_restart > 0u);
    lightest = NONE;
    least = FULL;
    look_at_eight(0u, expert, noise, word);
    look_at_eight(8u, expert, noise, word);
    look_at_eight(16u, expert, noise, word);
    look_at_eight(24u, expert, noise, word);
    look_at_eight(32u, expert, noise, word);
    look_at_eight(40u, expert, noise, word);
    look_at_eight(48u, expert, noise, word);
    look_at_eight(56u, expert, noise, word);
    if lightest == NONE {
        return false;
    }
    let used = my_gpu_uses[lightest] >> USED_SHIFT;
    set_slot(lightest * params.slots_per_gpu + used, expert, load);
    my_gpu_loads[lightest] = (my_gpu_loads[lightest] + load) | full_if(used + 1u);
    my_gpu_uses[lightest] = expert | ((used + 1u) << USED_SHIFT);
    return true;
}

fn look_at_eight(first: u32, expert: u32, noise: u32, word: u32) {
    if first >= GPUS {
        return;
    }
    for (var i = 0u; i < 8u; i += 1u) {
        let gpu = first + i;
        var choice = my_gpu_loads[gpu];
        if NOISY == 1u {
            choice += place_noise(word, gpu, noise);
        }
        if AVOIDS == 1u {
            choice |= select(0u, FULL, (my_gpu_uses[gpu] & LAST) == expert);
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
        if (my_gpu_uses[gpu] & LAST) != expert && (load & ~FULL) < load_b {
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
}
