// What every stage sees: the parameters of one dispatch and the buffers.

const FREE: u32 = 0xffffffffu;   // a slot that holds no replica
const NONE: u32 = 0xffffffffu;   // no index
const LANES: u32 = 64u;          // invocations a workgroup

// One uniform block a dispatch; `src/layout.rs` holds the same struct, and a test compares the two.
struct Params {
    // sizes
    layers: u32,
    experts: u32,
    groups: u32,
    nodes: u32,
    group_size: u32,
    node_groups: u32,
    node_experts: u32,
    node_replicas: u32,
    node_gpus: u32,
    slots_per_gpu: u32,
    node_slots: u32,
    max_count: u32,
    windows: u32,
    quads: u32,
    // rules and budget
    avoid_duplicates: u32,
    seed_low: u32,
    seed_high: u32,
    count_noise: u32,
    packing_noise: u32,
    objective: u32,
    heaviest: u32,
    lightest: u32,
    moves: u32,
    steps: u32,
    iterations: u32,
    patience: u32,
    later_patience: u32,
    exchange_slots: u32,
    pair_slots: u32,
    losers: u32,
    gainers: u32,
    stop_fraction: u32,
    start_fraction: u32,
    assignments: u32,
    group_rule: u32,
    enumerated: u32,
    samples: u32,
    start_patience: u32,
    // this dispatch
    lanes: u32,
    fuel: u32,
    spread: u32,
    begin: u32,
    end: u32,
    assignment: u32,
    layer_begin: u32,
    layer_count: u32,
    start_begin: u32,
    start_count: u32,
    candidates: u32,
    turn: u32,
    // where each part of a buffer begins, in words
    at_group_rank: u32,
    at_built: u32,
    at_build_state: u32,
    at_shares: u32,
    at_chosen: u32,
    at_walk: u32,
    at_node_state: u32,
    at_node_slots: u32,
    at_layer_state: u32,
    at_plan: u32,
    at_control: u32,
    at_expert: u32,
    at_load: u32,
    at_snapshot: u32,
    at_counts: u32,
    at_gpu_load: u32,
    at_marks: u32,
    at_scratch: u32,
    at_tables: u32,
    at_enumerated: u32,
    at_windows: u32,
    at_window_groups: u32,
    at_node_windows: u32,
    at_floors: u32,
    at_tabu: u32,
    at_no_gain: u32,
    at_no_loss: u32,
    at_replicated: u32,
    at_peaks: u32,
    at_rank: u32,
    at_order: u32,
    at_logical: u32,
    at_count_search: u32,
    candidate_words: u32,
}

@group(0) @binding(0) var<uniform> dispatched: Params;
// A lane's own, which an entry point takes before all else: where some lanes may be at rest, drivers on the processor read
// the block lane by lane, eight times at each place.
var<private> params: Params;
// loads [layers][experts], the noise tables, all balanced assignments [enumerated][groups]; of several windows
// the loads [layers][experts][4 * quads]
@group(0) @binding(1) var<storage, read> problem: array<u32>;
// stages 1 and 2: group loads, ranks, assignments; of several windows the group loads [layers][groups][4 * quads]
@group(0) @binding(2) var<storage, read_write> groups: array<u32>;
// what is kept of each node and layer: node loads, their ranks and order, the logical experts, node state and slots, layer state, the plan;
// of several windows the node loads [layers][experts][4 * quads] and floors [layers][4 * quads]
@group(0) @binding(3) var<storage, read_write> kept: array<u32>;
// candidates, see `candidate.wgsl`
@group(0) @binding(4) var<storage, read_write> arena: array<u32>;
// which candidates still run
@group(0) @binding(5) var<storage, read_write> queue: array<atomic<u32>>;

fn take_params() {
    params = dispatched;
}

// Words of the kept state of a node and of a layer.
const NODE_WORDS: u32 = 8u;
const NODE_MAX: u32 = 0u;         // load of its heaviest GPU; with several windows the sum over them
const NODE_BOUND: u32 = 1u;       // what no placement of it goes below, nor any plan of the layer
const NODE_END: u32 = 2u;         // why its search ended
const NODE_WINNER: u32 = 3u;      // the candidate to copy, or NONE
const NODE_KEPT_MAX: u32 = 4u;    // NODE_MAX of the plan kept for the layer
const NODE_CUT: u32 = 5u;         // 1: a start was cut off in the middle of its search
const NODE_RUNS: u32 = 6u;        // 1: its candidates run in this batch
const NODE_IDLE: u32 = 7u;        // starts since the best one

const LAYER_WORDS: u32 = 6u;
const LAYER_MAX: u32 = 0u;        // load of the heaviest GPU of the plan
const LAYER_END: u32 = 1u;        // why the search of the node that decides it ended
const LAYER_TAKE: u32 = 2u;       // 1: the assignment just searched becomes the plan
const LAYER_CHOSEN: u32 = 3u;     // which assignment the plan is for
const LAYER_CUT: u32 = 4u;        // 1: NODE_CUT was 1 in some assignment, the plan is worth nothing
const LAYER_OPEN: u32 = 5u;       // 1: the assignment after the last one tried could win

// A chosen assignment: its bound, then its groups node after node.
fn chosen_at(layer: u32, assignment: u32) -> u32 {
    return params.at_chosen + (layer * (params.assignments + 2u) + assignment) * (params.groups + 1u);
}

// In the place of an assignment's number: the one that the plan of a layer is for.
const CHOSEN: u32 = 0xffffffffu;

// The assignment that this dispatch is about.
fn assignment_at(layer: u32) -> u32 {
    let chosen = kept[layer_state_at(layer) + LAYER_CHOSEN];
    return chosen_at(layer, select(params.assignment, chosen, params.assignment == CHOSEN));
}

fn node_state_at(layer: u32, node: u32) -> u32 {
    return params.at_node_state + (layer * params.nodes + node) * NODE_WORDS;
}

fn layer_state_at(layer: u32) -> u32 {
    return params.at_layer_state + layer * LAYER_WORDS;
}

fn node_bound(layer: u32, node: u32) -> u32 {
    return kept[node_state_at(layer, node) + NODE_BOUND];
}

// The load at which a start ends, for a bound.
fn stop_load(bound: u32) -> u32 {
    return bound + mul_high(bound, params.stop_fraction);
}

// The load at which a node gets no further starts, for a bound.
fn enough(bound: u32) -> u32 {
    return bound + mul_high(bound, params.start_fraction);
}

// Blocks of so many experts, for a lane each.
fn expert_blocks(experts: u32) -> u32 {
    return (experts + EXPERT_BLOCK - 1u) / EXPERT_BLOCK;
}

// Experts of a node that may have several replicas.
fn most_several() -> u32 {
    return min(params.node_replicas - params.node_experts, params.node_experts);
}

// Blocks of these.
fn several_blocks() -> u32 {
    return (most_several() + SEVERAL_BLOCK - 1u) / SEVERAL_BLOCK;
}

// Which lane of a dispatch runs.
struct Invocation {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
}

// The number of a lane's workgroup. Grids are two-dimensional, because one dimension ends at 65,535 workgroups.
fn workgroup_of(at: Invocation) -> u32 {
    return at.workgroup.y * at.grid.x + at.workgroup.x;
}

// Takes the parameters of the dispatch; the number of this lane among all.
fn take_lane(at: Invocation) -> u32 {
    take_params();
    return workgroup_of(at) * LANES + at.lane;
}
