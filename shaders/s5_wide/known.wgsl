// What the lanes of a team know by heart: the loads of all GPUs where there are not too many, the slots of the heaviest
// GPU (`own_loads`, `own_experts`), and of few GPUs a lane the slots of those that it looks at. By constant indices, so
// that they are registers: processors look up memory lane by lane.

// Rounds of one GPU a lane, where a lane holds the slots of all its GPUs, else 0; and all these slots.
override ALL_ROUNDS: u32 = (GPUS + TEAM - 1u) / TEAM;
override ROUNDS: u32 = ALL_ROUNDS * u32(ALL_ROUNDS <= MOST_ROUNDS && ALL_ROUNDS * SLOTS <= HELD_SLOTS);
const MOST_ROUNDS: u32 = 4u;
override HELD: u32 = ROUNDS * SLOTS;
const HELD_SLOTS: u32 = 64u;

var<private> known_loads: array<u32, REGISTER_GPUS>;
// Whether lanes hold slots; those of round r from r * SLOTS on.
var<private> holds_slots: bool = false;
var<private> held_loads: array<u32, HELD_SLOTS>;
var<private> held_experts: array<u32, HELD_SLOTS>;
// The loads of these GPUs, by round.
var<private> held_gpu_loads: array<u32, MOST_ROUNDS>;
// Those of the GPU that this lane looks at in a round.
var<private> seen_gpu_load: u32;
var<private> seen_loads: array<u32, TILE>;
var<private> seen_experts: array<u32, TILE>;

// Reads all this, after what lanes do not keep up with: transfers, kicks and the way back.
fn learn() {
    for (var gpu = 0u; gpu < GPUS; gpu += 1u) {
        known_loads[gpu] = 0u;
        if ROLLS == 0u && gpu < params.node_gpus {
            known_loads[gpu] = gpu_load(gpu);
        }
    }
    if ROLLS == 1u && GPUS > 0u {
        for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
            know_load(gpu, gpu_load(gpu));
        }
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
    let gpu = min(round * TEAM + lane, params.node_gpus - 1u);
    let begin = gpu * params.slots_per_gpu;
    held_gpu_loads[round] = gpu_load(gpu);
    if ROLLS == 1u {
        for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
            keep_held(round * SLOTS, i, slot_load(begin + i), slot_expert(begin + i));
        }
        return;
    }
    for (var i = 0u; i < SLOTS; i += 1u) {
        let slot = begin + min(i, params.slots_per_gpu - 1u);
        held_loads[round * SLOTS + i] = slot_load(slot);
        held_experts[round * SLOTS + i] = slot_expert(slot);
    }
}

// One word of what `learn` reads, by constant indices.
fn know_load(at: u32, load: u32) {
    for (var gpu = 0u; gpu < GPUS; gpu += 1u) {
        known_loads[gpu] = select(known_loads[gpu], load, gpu == at);
    }
}

// The same of the slots of a round.
fn keep_held(first: u32, at: u32, load: u32, expert: u32) {
    for (var i = 0u; i < SLOTS; i += 1u) {
        held_loads[first + i] = select(held_loads[first + i], load, i == at);
        held_experts[first + i] = select(held_experts[first + i], expert, i == at);
    }
}

// This lane looks at its GPU of the round that begins with GPU `first`.
fn look_at(first: u32) {
    seen_gpu_load = of_round(first, held_gpu_loads[0], held_gpu_loads[1], held_gpu_loads[2], held_gpu_loads[3]);
    for (var i = 0u; i < SLOTS; i += 1u) {
        let last = HELD_SLOTS - 1u;
        let at_1 = min(SLOTS + i, last);
        let at_2 = min(2u * SLOTS + i, last);
        let at_3 = min(3u * SLOTS + i, last);
        seen_experts[i] = of_round(first, held_experts[i], held_experts[at_1], held_experts[at_2], held_experts[at_3]);
        seen_loads[i] = of_round(first, held_loads[i], held_loads[at_1], held_loads[at_2], held_loads[at_3]);
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
fn known_load(gpu: u32) -> u32 {
    if GPUS == 0u {
        return gpu_load(gpu);
    }
    var load = 0u;
    for (var i = 0u; i < GPUS; i += 1u) {
        load = select(load, known_loads[i], i == gpu);
    }
    return load;
}

// Of one word a round that of the round that begins with GPU `first`.
fn of_round(first: u32, word_0: u32, word_1: u32, word_2: u32, word_3: u32) -> u32 {
    var word = word_0;
    if ROUNDS > 1u {
        word = select(word, word_1, first == TEAM);
    }
    if ROUNDS > 2u {
        word = select(select(word, word_2, first == 2u * TEAM), word_3, first == 3u * TEAM);
    }
    return word;
}

// The heaviest GPU gave so much more than it got to the partner.
fn know_exchange(given: u32) {
    for (var round = 0u; round < MOST_ROUNDS; round += 1u) {
        let gpu = round * TEAM + lane;
        held_gpu_loads[round] += select(select(0u, 0u - given, gpu == top), given, gpu == partner);
    }
    for (var i = 0u; i < GPUS; i += 1u) {
        known_loads[i] += select(select(0u, 0u - given, i == top), given, i == partner);
    }
}

// What a slot holds.
struct Held {
    expert: u32,
    load: u32,
}

fn either(a: Held, b: Held, is_b: bool) -> Held {
    return Held(select(a.expert, b.expert, is_b), select(a.load, b.load, is_b));
}

fn seen_load(slot: u32) -> u32 {
    var load = 0u;
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

// Where this lane holds a slot of a GPU, or HELD_SLOTS where it does not look at that GPU.
fn place_of(gpu: u32, slot: u32) -> u32 {
    return select(HELD_SLOTS, gpu / TEAM * SLOTS + slot, gpu % TEAM == lane);
}

// Four places hold something else.
fn hold(places: vec4<u32>, a: Held, b: Held, c: Held, d: Held) {
    hold_from(0u, places, a, b, c, d);
    hold_from(16u, places, a, b, c, d);
    hold_from(32u, places, a, b, c, d);
    hold_from(48u, places, a, b, c, d);
}

// Short loops are unrolled.
fn hold_from(begin: u32, places: vec4<u32>, a: Held, b: Held, c: Held, d: Held) {
    for (var n = begin; n < min(begin + 16u, HELD); n += 1u) {
        var what = either(Held(held_experts[n], held_loads[n]), a, n == places.x);
        what = either(what, b, n == places.y);
        what = either(what, c, n == places.z);
        what = either(what, d, n == places.w);
        held_experts[n] = what.expert;
        held_loads[n] = what.load;
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
