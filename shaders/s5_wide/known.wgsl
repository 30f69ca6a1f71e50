// What the lanes of a team know by heart: the loads of all GPUs where there are not too many, the slots of the heaviest
// GPU (`own_loads`, `own_experts`), and of few GPUs a lane the slots of those that it looks at. By constant indices, so
// that they are registers: processors look up memory lane by lane.

// Rounds of one GPU a lane, where a lane holds the slots of all its GPUs, else 0; and all these slots.
override ALL_ROUNDS: u32 = (GPUS + TEAM - 1u) / TEAM;
override ROUNDS: u32 = ALL_ROUNDS * u32(ALL_ROUNDS <= 4u && ALL_ROUNDS * SLOTS <= HELD_SLOTS);
override HELD: u32 = ROUNDS * SLOTS;
const HELD_SLOTS: u32 = 64u;

var<private> known_loads: array<u32, REGISTER_GPUS>;
// Whether lanes hold slots; those of round r from r * SLOTS on.
var<private> holds_slots: bool = false;
var<private> held_loads: array<i32, HELD_SLOTS>;
var<private> held_experts: array<u32, HELD_SLOTS>;
// Those of the GPU that this lane looks at in a round.
var<private> seen_loads: array<i32, TILE>;
var<private> seen_experts: array<u32, TILE>;

// Reads all this, after what lanes do not keep up with: transfers, kicks and the way back.
fn learn() {
    for (var gpu = 0u; gpu < GPUS; gpu += 1u) {
        known_loads[gpu] = select(0u, gpu_load(min(gpu, params.node_gpus - 1u)), gpu < params.node_gpus);
    }
    learn_round(0u);
    learn_round(1u);
    learn_round(2u);
    learn_round(3u);
}

fn learn_round(round: u32) {
    if round >= ROUNDS {
        return;
    }
    let begin = min(round * TEAM + lane, params.node_gpus - 1u) * params.slots_per_gpu;
    for (var i = 0u; i < SLOTS; i += 1u) {
        let slot = begin + min(i, params.slots_per_gpu - 1u);
        held_loads[round * SLOTS + i] = i32(slot_load(slot));
        held_experts[round * SLOTS + i] = slot_expert(slot);
    }
}

// This lane looks at its GPU of the round that begins with GPU `first`.
fn look_at(first: u32) {
    for (var i = 0u; i < SLOTS; i += 1u) {
        seen_loads[i] = held_loads[i];
        seen_experts[i] = held_experts[i];
        if ROUNDS > 1u {
            seen_loads[i] = select(seen_loads[i], held_loads[SLOTS + i], first == TEAM);
            seen_experts[i] = select(seen_experts[i], held_experts[SLOTS + i], first == TEAM);
        }
        if ROUNDS > 2u {
            seen_loads[i] = select(seen_loads[i], held_loads[2u * SLOTS + i], first == 2u * TEAM);
            seen_experts[i] = select(seen_experts[i], held_experts[2u * SLOTS + i], first == 2u * TEAM);
        }
        if ROUNDS > 3u {
            seen_loads[i] = select(seen_loads[i], held_loads[3u * SLOTS + i], first == 3u * TEAM);
            seen_experts[i] = select(seen_experts[i], held_experts[3u * SLOTS + i], first == 3u * TEAM);
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

// The load of GPU `first + i` in a round of which lanes hold the slots.
fn known_load(first: u32, i: u32) -> u32 {
    var load = known_loads[i];
    if ROUNDS > 1u {
        load = select(load, known_loads[TEAM + i], first == TEAM);
    }
    if ROUNDS > 2u {
        load = select(load, known_loads[2u * TEAM + i], first == 2u * TEAM);
    }
    if ROUNDS > 3u {
        load = select(load, known_loads[3u * TEAM + i], first == 3u * TEAM);
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

fn seen_load(slot: u32) -> i32 {
    var load = 0;
    for (var i = 0u; i < SLOTS; i += 1u) {
        load = select(load, seen_loads[i], i == slot);
    }
    return load;
}

fn seen_expert(slot: u32) -> u32 {
    var expert = FREE;
    for (var i = 0u; i < SLOTS; i += 1u) {
        expert = select(expert, seen_experts[i], i == slot);
    }
    return expert;
}

// The slots seen that hold an expert, as bits.
fn seen_replicas(expert: u32) -> u32 {
    var found = 0u;
    for (var i = 0u; i < SLOTS; i += 1u) {
        found |= select(0u, 1u << i, seen_experts[i] == expert);
    }
    return found;
}

// A slot of a GPU holds something else: the lane that looks at it keeps that.
fn hold(gpu: u32, slot: u32, what: Held) {
    let at = select(HELD_SLOTS, gpu / TEAM * SLOTS + slot, gpu % TEAM == lane);
    hold_at(0u, at, what);
    hold_at(32u, at, what);
}

// Loops of up to 32 trips are unrolled.
fn hold_at(begin: u32, at: u32, what: Held) {
    for (var n = begin; n < min(begin + 32u, HELD); n += 1u) {
        held_experts[n] = select(held_experts[n], what.expert, n == at);
        held_loads[n] = select(held_loads[n], i32(what.load), n == at);
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
