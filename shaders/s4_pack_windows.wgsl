// Stage 4 where there are several windows: as `s4_pack.wgsl`, which weighs and orders the replicas by their mean
// loads before; each goes to the GPU after which the sum over windows of the heaviest GPU is least.
// Reads `kept` (node loads of the windows, floors) and counts; writes `arena`.
//
// pack  one lane a queued candidate: the items begin..end of that order

// Scratch, behind the lists of the order: by GPU slots in use, last expert and mean load, then the heaviest load of each
// window.
fn used_at(gpu: u32) -> u32 {
    return 3u * params.node_experts + gpu;
}

fn last_at(gpu: u32) -> u32 {
    return 3u * params.node_experts + params.node_gpus + gpu;
}

fn mean_at(gpu: u32) -> u32 {
    return 3u * params.node_experts + 2u * params.node_gpus + gpu;
}

fn heaviest_part() -> u32 {
    return params.at_scratch + 3u * (params.node_experts + params.node_gpus);
}

// The heaviest GPU of each window so far, not below the floor, and the loads of the replica to place.
var<private> heaviest: array<vec4<u32>, 4>;
var<private> replica: array<vec4<u32>, 4>;

@compute @workgroup_size(64)
fn pack(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params();
    let lane = lane_of(workgroup, grid, local);
    if lane >= queued() {
        return;
    }
    take_candidate(queued_candidate(lane));
    if params.begin == 0u {
        clear();
    } else {
        for (var q = 0u; q < params.quads; q += 1u) {
            heaviest[q] = quad_at(heaviest_part(), 0u, q);
        }
    }
    let key = restart_key(my_node, my_restart);
    let together = params.avoid_duplicates != 0u;
    begin_order(together);
    for (var item = params.begin; item < params.end; item += 1u) {
        next_item(together);
        place_replica(key, item);
    }
    end_order();
    for (var q = 0u; q < params.quads; q += 1u) {
        set_quad_at(heaviest_part(), 0u, q, heaviest[q]);
    }
}

fn clear() {
    for (var slot = 0u; slot < params.node_slots; slot += 4u) {
        clear_slot(slot);
        clear_slot(slot + 1u);
        clear_slot(slot + 2u);
        clear_slot(slot + 3u);
    }
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        clear_quad(params.at_gpu_load, gpu, 0u);
        clear_quad(params.at_gpu_load, gpu, 1u);
        clear_quad(params.at_gpu_load, gpu, 2u);
        clear_quad(params.at_gpu_load, gpu, 3u);
        set_scratch(used_at(gpu), 0u);
        set_scratch(last_at(gpu), FREE);
        set_scratch(mean_at(gpu), 0u);
    }
    for (var q = 0u; q < params.quads; q += 1u) {
        heaviest[q] = floor_quad(q);
    }
    set_control(C_PHASE, 0u);
    set_control(C_WORK, 0u);
    set_control(C_STEPS, 0u);
    set_control(C_KICK, 0u);
    set_control(C_CURSOR, 0u);
    set_control(C_KICKS_NEXT, 0u);
    set_control(C_BEST_MAX, NONE);
}

fn clear_slot(slot: u32) {
    if slot < params.node_slots {
        arena[word_at(params.at_expert, slot)] = FREE;
        clear_quad(params.at_load, slot, 0u);
        clear_quad(params.at_load, slot, 1u);
        clear_quad(params.at_load, slot, 2u);
        clear_quad(params.at_load, slot, 3u);
    }
}

fn clear_quad(part: u32, index: u32, q: u32) {
    if q < params.quads {
        set_quad_at(part, index, q, vec4<u32>(0u));
    }
}

fn place_replica(key: u32, item: u32) {
    let expert = item_expert;
    let mean = item_load;
    let word = draw(key, DRAW_PACKING + item);
    let noisy = params.packing_noise != 0u && my_restart > 0u;
    let count = max(count_of(expert), 1u);
    replica[0] = weight_quad(expert, 0u) / count;
    if QUADS > 1u {
        replica[1] = weight_quad(expert, 1u) / count;
    }
    if QUADS > 2u {
        replica[2] = weight_quad(expert, 2u) / count;
    }
    if QUADS > 3u {
        replica[3] = weight_quad(expert, 3u) / count;
    }
    var best = NONE;
    var best_value = 0u;
    var best_mean = 0u;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        if scratch(used_at(gpu)) == params.slots_per_gpu {
            continue;
        }
        if params.avoid_duplicates != 0u && scratch(last_at(gpu)) == expert {
            continue;
        }
        var noise = 0u;
        if noisy {
            noise = place_noise(word, gpu, mean);
        }
        let value = noise + value_with(gpu);
        let mean_there = scratch(mean_at(gpu)) + noise;
        if best == NONE || value < best_value || (value == best_value && mean_there < best_mean) {
            best = gpu;
            best_value = value;
            best_mean = mean_there;
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
    arena[word_at(params.at_expert, slot)] = expert;
    put(slot, best, 0u);
    if QUADS > 1u {
        put(slot, best, 1u);
    }
    if QUADS > 2u {
        put(slot, best, 2u);
    }
    if QUADS > 3u {
        put(slot, best, 3u);
    }
    set_scratch(mean_at(best), scratch(mean_at(best)) + mean);
    set_scratch(last_at(best), expert);
}

// The sum over windows of the heaviest GPU once the replica is on `gpu`.
fn value_with(gpu: u32) -> u32 {
    var value = sum_of(max(heaviest[0], gpu_quad(gpu, 0u) + replica[0]));
    if QUADS > 1u {
        value += sum_of(max(heaviest[1], gpu_quad(gpu, 1u) + replica[1]));
    }
    if QUADS > 2u {
        value += sum_of(max(heaviest[2], gpu_quad(gpu, 2u) + replica[2]));
    }
    if QUADS > 3u {
        value += sum_of(max(heaviest[3], gpu_quad(gpu, 3u) + replica[3]));
    }
    return value;
}

fn put(slot: u32, gpu: u32, q: u32) {
    let load = gpu_quad(gpu, q) + replica[q];
    set_slot_quad(slot, q, replica[q]);
    set_gpu_quad(gpu, q, load);
    heaviest[q] = max(heaviest[q], load);
}

// Frees a slot for `expert` where every GPU without it is full, as in `s4_pack.wgsl`, by the mean loads.
fn make_room(expert: u32) -> u32 {
    var a = NONE;
    var b = NONE;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        let mean = scratch(mean_at(gpu));
        if scratch(used_at(gpu)) < params.slots_per_gpu && (a == NONE || mean < scratch(mean_at(a))) {
            a = gpu;
        }
        if scratch(last_at(gpu)) != expert && (b == NONE || mean < scratch(mean_at(b))) {
            b = gpu;
        }
    }
    a = select(a, 0u, a == NONE);
    b = select(b, 0u, b == NONE);
    let used = scratch(used_at(a));
    let at = lacking_slot(a, used, b);
    let moved = slot_expert(at);
    if moved != FREE {
        let mean = weight(moved) / max(count_of(moved), 1u);
        set_scratch(mean_at(a), scratch(mean_at(a)) + mean);
        set_scratch(mean_at(b), scratch(mean_at(b)) - mean);
        exchange_slots(at, a * params.slots_per_gpu + used);
    }
    set_scratch(used_at(a), used + 1u);
    return at;
}
