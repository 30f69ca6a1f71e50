// Shared by all stages: the parameters of one dispatch and the buffers.

const FREE: u32 = 0xffffffffu;   // a slot that holds no replica
const NONE: u32 = 0xffffffffu;   // no index
const LANES: u32 = 64u;          // invocations a workgroup

// `src/layout` writes the rest of what is shared: `Params`, the uniform block of a dispatch (`uniform.rs`); the words of
// the records in buffers, `NODE_…`, `LAYER_…`, `C_…`, `BUILD_…`, `WALK_…`, and codes (`words.rs`).

@group(0) @binding(0) var<uniform> dispatched: Params;
// A lane's own copy, which an entry point takes first: where some lanes may be at rest, software drivers read the block lane
// by lane, eight times at each place.
var<private> params: Params;
// loads [layers][experts], the noise tables, all balanced assignments [enumerated][groups]; of several windows
// the loads [layers][experts][4 * quads]
@group(0) @binding(1) var<storage, read> problem: array<u32>;
// group loads, their ranks, assignments; of several windows the group loads [layers][groups][4 * quads]
@group(0) @binding(2) var<storage, read_write> groups: array<u32>;
// of each node its loads, their ranks and order, the logical experts, state and slots; of each layer state and plan; of several
// windows the node loads [layers][experts][4 * quads] and floors [layers][4 * quads]
@group(0) @binding(3) var<storage, read_write> results: array<u32>;
// candidates, see `candidate.wgsl`
@group(0) @binding(4) var<storage, read_write> arena: array<u32>;
// which candidates still run
@group(0) @binding(5) var<storage, read_write> queue: array<atomic<u32>>;

fn take_params() {
    params = dispatched;
}

// A chosen assignment: its bound, then its groups node after node.
fn chosen_at(layer: u32, assignment: u32) -> u32 {
    return params.at_chosen + (layer * (params.assignments + 2u) + assignment) * (params.groups + 1u);
}

// Where the group at a place of a chosen assignment lies.
fn group_at(chosen: u32, place: u32) -> u32 {
    return chosen + 1u + place;
}

// The assignment that this dispatch is about.
fn assignment_at(layer: u32) -> u32 {
    let chosen = results[layer_state_at(layer) + LAYER_CHOSEN];
    return chosen_at(layer, select(params.assignment, chosen, params.assignment == CHOSEN));
}

// Loads of a group in four windows.
fn group_quad(layer: u32, group: u32, q: u32) -> vec4<u32> {
    let at = params.at_window_groups + ((layer * params.groups + group) * params.quads + q) * 4u;
    return vec4<u32>(groups[at], groups[at + 1u], groups[at + 2u], groups[at + 3u]);
}

fn node_state_at(layer: u32, node: u32) -> u32 {
    return params.at_node_state + (layer * params.nodes + node) * NODE_WORDS;
}

fn layer_state_at(layer: u32) -> u32 {
    return params.at_layer_state + layer * LAYER_WORDS;
}

fn node_bound(layer: u32, node: u32) -> u32 {
    return results[node_state_at(layer, node) + NODE_BOUND];
}

// The load at which a start ends, for a bound.
fn stop_load(bound: u32) -> u32 {
    return bound + mul_high(bound, params.stop_fraction);
}

// The load at which a node gets no further starts, for a bound.
fn enough(bound: u32) -> u32 {
    return bound + mul_high(bound, params.start_fraction);
}

// Blocks of this many experts, a lane each.
fn expert_blocks(experts: u32) -> u32 {
    return (experts + EXPERT_BLOCK - 1u) / EXPERT_BLOCK;
}

// Experts of a node that may have several replicas.
fn most_replicated() -> u32 {
    let further = min(params.node_replicas - params.node_experts, params.node_experts);
    return select(further, params.node_experts, params.fixed_counts == 1u);
}

// Blocks of these.
fn replicated_blocks() -> u32 {
    return (most_replicated() + REPLICATED_BLOCK - 1u) / REPLICATED_BLOCK;
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
