// One candidate: its place in the arena.

var<private> me: u32;             // candidate of this lane
var<private> my_layer: u32;
var<private> my_node: u32;
var<private> my_start: u32;
var<private> my_loads: u32;       // where the loads of its node begin in `results`
var<private> my_words: u32;       // where its words begin
var<private> my_order: u32;       // where the words begin of the candidate that has its order of packing

// Sets the private variables for a candidate of this dispatch.
fn take_candidate(candidate: u32) {
    me = candidate;
    let pair = candidate / params.start_count;
    let start = candidate % params.start_count;
    my_start = params.start_begin + start;
    my_words = words_of(candidate);
    my_order = words_of(select(candidate, candidate - start, shares_order()));
    my_layer = params.layer_begin + pair / params.nodes;
    my_node = pair % params.nodes;
    my_loads = my_layer * params.experts + my_node * params.node_experts;
}

// The first group of this candidate's node.
fn first_group() -> u32 {
    return groups[group_at(assignment_at(my_layer), my_node * params.node_groups)];
}

fn words_of(candidate: u32) -> u32 {
    return candidate * params.candidate_words;
}

fn word_at(part: u32, index: u32) -> u32 {
    return my_words + part + index;
}

fn control(word: u32) -> u32 {
    return arena[word_at(params.at_control, word)];
}

fn set_control(word: u32, value: u32) {
    arena[word_at(params.at_control, word)] = value;
}

// Load of an expert, in the node's own numbering.
fn weight(expert: u32) -> u32 {
    return results[my_loads + expert];
}

// The place of an expert in the order of packing if each expert had one replica.
fn rank_of(expert: u32) -> u32 {
    return results[params.at_rank + my_loads + expert];
}

fn slot_expert(slot: u32) -> u32 {
    return arena[word_at(params.at_expert, slot)];
}

fn slot_load(slot: u32) -> u32 {
    return arena[word_at(params.at_load, slot)];
}

fn set_slot(slot: u32, expert: u32, load: u32) {
    arena[word_at(params.at_expert, slot)] = expert;
    arena[word_at(params.at_load, slot)] = load;
}

fn count_of(expert: u32) -> u32 {
    return arena[word_at(params.at_counts, expert)];
}

fn set_count(expert: u32, count: u32) {
    arena[word_at(params.at_counts, expert)] = count;
}

fn gpu_load(gpu: u32) -> u32 {
    return arena[word_at(params.at_gpu_load, gpu)];
}

fn set_gpu_load(gpu: u32, load: u32) {
    arena[word_at(params.at_gpu_load, gpu)] = load;
}

fn scratch(index: u32) -> u32 {
    return arena[word_at(params.at_scratch, index)];
}

fn set_scratch(index: u32, value: u32) {
    arena[word_at(params.at_scratch, index)] = value;
}

fn snapshot(slot: u32) -> u32 {
    return arena[word_at(params.at_snapshot, slot)];
}

fn set_snapshot(slot: u32, value: u32) {
    arena[word_at(params.at_snapshot, slot)] = value;
}

// The queue: how many candidates run, for this dispatch and the next, then the two lists of them. Their order
// is whatever the device made of it; each candidate minds only itself.

fn queued() -> u32 {
    return atomicLoad(&queue[params.turn]);
}

fn queued_candidate(lane: u32) -> u32 {
    return atomicLoad(&queue[2u + params.turn * params.candidates + lane]);
}

// The candidate of a lane, or NONE: one lane in `spread` has one.
fn candidate_of(lane: u32) -> u32 {
    let place = lane / params.spread;
    if lane % params.spread != 0u || place >= queued() {
        return NONE;
    }
    return queued_candidate(place);
}

// Where several lanes share a candidate: one of `count` places, and the number of the lane among those of the place.
struct Split {
    place: u32,
    number: u32,
}

fn split_of_lane(lane: u32, lanes_each: u32) -> Split {
    let each = max(lanes_each, 1u);
    return Split(lane / each, lane % each);
}

// Lets this candidate run again in the next dispatch.
fn queue_again() {
    let next = 1u - params.turn;
    let place = atomicAdd(&queue[next], 1u);
    atomicStore(&queue[2u + next * params.candidates + place], me);
}

// Lets all starts of a (layer, node) of this dispatch run in the next.
fn queue_node(pair: u32) {
    let next = 1u - params.turn;
    let place = 2u + next * params.candidates + atomicAdd(&queue[next], params.start_count);
    for (var start = 0u; start < params.start_count; start += 1u) {
        atomicStore(&queue[place + start], pair * params.start_count + start);
    }
}

// The order of packing. Starts without noise on the counts have the same counts, so those of a node share the order
// of its first candidate in the batch.
fn shares_order() -> bool {
    return params.count_noise == 0u;
}
