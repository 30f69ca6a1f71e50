// Loads of several windows, where there are any: a vec4 for four windows, `params.quads` of them behind each
// other; windows past the last are zero. What runs most is written out for up to 4 quads.

override QUADS: u32;             // `params.quads`

// Words of the control block that only this search has.
const C_WINDOW: u32 = 16u;
const C_SCAN: u32 = 17u;
const C_VALUE: u32 = 18u;
const C_SLOT: u32 = 19u;
const C_KICKS_NEXT: u32 = 20u;

fn quad_at(part: u32, index: u32, q: u32) -> vec4<u32> {
    let at = word_at(part, (index * params.quads + q) * 4u);
    return vec4<u32>(arena[at], arena[at + ARENA_TILE], arena[at + 2u * ARENA_TILE], arena[at + 3u * ARENA_TILE]);
}

fn set_quad_at(part: u32, index: u32, q: u32, value: vec4<u32>) {
    let at = word_at(part, (index * params.quads + q) * 4u);
    arena[at] = value.x;
    arena[at + ARENA_TILE] = value.y;
    arena[at + 2u * ARENA_TILE] = value.z;
    arena[at + 3u * ARENA_TILE] = value.w;
}

fn slot_quad(slot: u32, q: u32) -> vec4<u32> {
    return quad_at(params.at_load, slot, q);
}

fn set_slot_quad(slot: u32, q: u32, load: vec4<u32>) {
    set_quad_at(params.at_load, slot, q, load);
}

fn gpu_quad(gpu: u32, q: u32) -> vec4<u32> {
    return quad_at(params.at_gpu_load, gpu, q);
}

fn set_gpu_quad(gpu: u32, q: u32, load: vec4<u32>) {
    set_quad_at(params.at_gpu_load, gpu, q, load);
}

fn kept_quad(at: u32) -> vec4<u32> {
    return vec4<u32>(kept[at], kept[at + 1u], kept[at + 2u], kept[at + 3u]);
}

// Loads of an expert, in the node's own numbering.
fn weight_quad(expert: u32, q: u32) -> vec4<u32> {
    return kept_quad(params.at_node_windows + ((my_loads + expert) * params.quads + q) * 4u);
}

// What the heaviest GPU of each window cannot go below: the busiest node's share.
fn floor_quad(q: u32) -> vec4<u32> {
    return kept_quad(params.at_floors + (my_layer * params.quads + q) * 4u);
}

fn sum_of(a: vec4<u32>) -> u32 {
    return a.x + a.y + a.z + a.w;
}

// Nothing in a slot of a GPU whose loads are set anew.
fn empty_slot(slot: u32) {
    arena[word_at(params.at_expert, slot)] = FREE;
    for (var q = 0u; q < params.quads; q += 1u) {
        set_slot_quad(slot, q, vec4<u32>(0u));
    }
}

fn empty_gpu(gpu: u32) {
    for (var q = 0u; q < params.quads; q += 1u) {
        set_gpu_quad(gpu, q, vec4<u32>(0u));
    }
}

// The loads of a slot as its expert and the counts are, its GPU's with them.
fn weigh_slot(slot: u32) {
    let gpu = slot / params.slots_per_gpu;
    let expert = slot_expert(slot);
    let count = max(count_of(expert), 1u);
    for (var q = 0u; q < params.quads; q += 1u) {
        let load = weight_quad(expert, q) / count;
        set_gpu_quad(gpu, q, gpu_quad(gpu, q) - slot_quad(slot, q) + load);
        set_slot_quad(slot, q, load);
    }
}

// Exchanges what two slots of different GPUs hold.
fn exchange_slots(a: u32, b: u32) {
    let gpu_a = a / params.slots_per_gpu;
    let gpu_b = b / params.slots_per_gpu;
    for (var q = 0u; q < params.quads; q += 1u) {
        let load_a = slot_quad(a, q);
        let load_b = slot_quad(b, q);
        set_gpu_quad(gpu_a, q, gpu_quad(gpu_a, q) - load_a + load_b);
        set_gpu_quad(gpu_b, q, gpu_quad(gpu_b, q) - load_b + load_a);
        set_slot_quad(a, q, load_b);
        set_slot_quad(b, q, load_a);
    }
    let expert = slot_expert(a);
    arena[word_at(params.at_expert, a)] = slot_expert(b);
    arena[word_at(params.at_expert, b)] = expert;
}
