// What the lanes of a team know by heart: the loads of all GPUs where there are not too many, the slots of the heaviest
// GPU (`own_loads`, `own_experts`), and where there is a lane for each GPU the slots of this lane's own. By constant
// indices, so that they are registers: processors look up memory lane by lane.

var<private> known_loads: array<u32, REGISTER_GPUS>;
// Whether lanes hold slots, and these slots.
var<private> holds_slots: bool = false;
var<private> held_loads: array<i32, TILE>;
var<private> held_experts: array<u32, TILE>;

// Reads all this, after what lanes do not keep up with: transfers, kicks and the way back.
fn learn() {
    for (var gpu = 0u; gpu < GPUS; gpu += 1u) {
        known_loads[gpu] = select(0u, gpu_load(min(gpu, params.node_gpus - 1u)), gpu < params.node_gpus);
    }
    if holds_slots {
        let begin = min(lane, params.node_gpus - 1u) * params.slots_per_gpu;
        for (var i = 0u; i < SLOTS; i += 1u) {
            let slot = begin + min(i, params.slots_per_gpu - 1u);
            held_loads[i] = i32(slot_load(slot));
            held_experts[i] = slot_expert(slot);
        }
    }
}

fn find_heaviest_known() {
    top = 0u;
    top_load = known_loads[0];
    for (var gpu = 1u; gpu < GPUS; gpu += 1u) {
        top = select(top, gpu, known_loads[gpu] > top_load);
        top_load = max(top_load, known_loads[gpu]);
    }
}

// The load of a GPU.
fn load_of(gpu: u32) -> u32 {
    if GPUS == 0u {
        return gpu_load(gpu);
    }
    var load = 0u;
    for (var i = 0u; i < GPUS; i += 1u) {
        load = select(load, known_loads[i], i == gpu);
    }
    return load;
}

// The heaviest GPU gave so much more than it got to the partner.
fn know_exchange(given: u32) {
    for (var i = 0u; i < GPUS; i += 1u) {
        known_loads[i] += select(select(0u, 0u - given, i == top), given, i == partner);
    }
}

// What a slot holds.
struct Held {
    expert: u32,
    load: u32,
}

fn held_load(slot: u32) -> i32 {
    var load = 0;
    for (var i = 0u; i < SLOTS; i += 1u) {
        load = select(load, held_loads[i], i == slot);
    }
    return load;
}

fn held_expert(slot: u32) -> u32 {
    var expert = FREE;
    for (var i = 0u; i < SLOTS; i += 1u) {
        expert = select(expert, held_experts[i], i == slot);
    }
    return expert;
}

// The slots that hold an expert, as bits.
fn held_replicas(expert: u32) -> u32 {
    var found = 0u;
    for (var i = 0u; i < SLOTS; i += 1u) {
        found |= select(0u, 1u << i, held_experts[i] == expert);
    }
    return found;
}

// The slot holds something else.
fn hold(slot: u32, expert: u32, load: u32) {
    for (var i = 0u; i < SLOTS; i += 1u) {
        held_experts[i] = select(held_experts[i], expert, i == slot);
        held_loads[i] = select(held_loads[i], i32(load), i == slot);
    }
}

// What a slot of the heaviest GPU holds.
fn own_at(slot: u32) -> Held {
    var expert = FREE;
    var load = 0;
    for (var i = 0u; i < SLOTS; i += 1u) {
        expert = select(expert, own_experts[i], i == slot);
        load = select(load, own_loads[i], i == slot);
    }
    return Held(expert, u32(load));
}
