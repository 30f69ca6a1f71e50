// Stage 4: pack a candidate's replicas onto its node's GPUs, heaviest first, each to the least loaded.
// Reads `kept` (node loads) and counts; writes `arena`.
//
// weigh  one lane a (queued candidate, expert): the load of a replica, into scratch
// order  one lane a (queued candidate, expert): the places of its replicas in the order of packing, into the snapshot
// pack   one lane a queued candidate: the items begin..end of that order

// Scratch: the load of a replica by expert, then slots in use and last expert by GPU.
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
    let lane = lane_of(workgroup, grid, local);
    let count = queued();
    if lane >= count * params.node_experts {
        return;
    }
    take_candidate(queued_candidate(lane % count));
    let expert = lane / count;
    set_scratch(expert, weight(expert) / max(count_of(expert), 1u));
}

@compute @workgroup_size(64)
fn order(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = lane_of(workgroup, grid, local);
    let count = queued();
    if lane >= count * params.node_experts {
        return;
    }
    take_candidate(queued_candidate(lane % count));
    let expert = lane / count;
    let load = scratch(expert);
    var before = Before(0u, 0u, 0u, 0u);
    for (var i = 0u; i < params.node_experts; i += 4u) {
        before = count_before(before, i, expert, load);
        before = count_before(before, i + 1u, expert, load);
        before = count_before(before, i + 2u, expert, load);
        before = count_before(before, i + 3u, expert, load);
    }
    let replicas = count_of(expert);
    // Of equal replicas, first ones go before further ones, then lower experts; where duplicates are avoided an
    // expert's replicas stay together.
    var first = before.heavier + before.equal + before.equal_further;
    var further = first + 1u;
    if params.avoid_duplicates == 0u {
        first = before.heavier + before.equal;
        further = before.heavier + before.equal_first + before.equal_further;
    }
    set_snapshot(first, expert);
    for (var i = 1u; i < replicas; i += 1u) {
        set_snapshot(further + i - 1u, expert);
    }
}

// Replicas that may go before those of an expert: heavier ones; of equal experts with lower indices the first
// and the further ones; and the first ones of all equal experts.
struct Before {
    heavier: u32,
    equal: u32,
    equal_further: u32,
    equal_first: u32,
}

fn count_before(before: Before, other: u32, expert: u32, load: u32) -> Before {
    if other >= params.node_experts {
        return before;
    }
    let other_load = scratch(other);
    let count = count_of(other);
    let lower = other_load == load && other < expert;
    return Before(
        before.heavier + select(0u, count, other_load > load),
        before.equal + select(0u, 1u, lower),
        before.equal_further + select(0u, count - 1u, lower),
        before.equal_first + select(0u, 1u, other_load == load),
    );
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
        for (var slot = 0u; slot < params.node_slots; slot += 4u) {
            clear_slot(slot);
            clear_slot(slot + 1u);
            clear_slot(slot + 2u);
            clear_slot(slot + 3u);
        }
        for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
            set_gpu_load(gpu, 0u);
            set_scratch(used_at(gpu), 0u);
            set_scratch(last_at(gpu), FREE);
        }
        set_control(C_PHASE, 0u);
        set_control(C_WORK, 0u);
        set_control(C_STEPS, 0u);
        set_control(C_KICK, 0u);
        set_control(C_BEST_MAX, NONE);
    }
    let key = restart_key(my_node, my_restart);
    for (var item = params.begin; item < params.end; item += 1u) {
        place_replica(key, item);
    }
}

fn clear_slot(slot: u32) {
    if slot < params.node_slots {
        set_slot(slot, FREE, 0u);
    }
}

fn place_replica(key: u32, item: u32) {
    let expert = snapshot(item);
    let load = scratch(expert);
    let word = draw(key, DRAW_PACKING + item);
    let noisy = params.packing_noise != 0u && my_restart > 0u;
    var best = NONE;
    var best_choice = 0u;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        if scratch(used_at(gpu)) == params.slots_per_gpu {
            continue;
        }
        if params.avoid_duplicates != 0u && scratch(last_at(gpu)) == expert {
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
    var at = b * params.slots_per_gpu;
    for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
        let candidate = b * params.slots_per_gpu + i;
        var lacking = true;
        for (var j = 0u; j < used; j += 1u) {
            if slot_expert(a * params.slots_per_gpu + j) == slot_expert(candidate) {
                lacking = false;
                break;
            }
        }
        if lacking {
            at = candidate;
            break;
        }
    }
    let load = slot_load(at);
    set_slot(a * params.slots_per_gpu + used, slot_expert(at), load);
    set_gpu_load(a, gpu_load(a) + load);
    set_gpu_load(b, gpu_load(b) - load);
    set_scratch(used_at(a), used + 1u);
    return at;
}
