// Stage 3: how many replicas each expert of a node gets. Reads `kept` (node loads and states), `groups` (the
// bound); writes `arena` (counts, and in scratch the loads that decide) and the queue.
//
// start      one lane a candidate: whether it runs at all, and one replica an expert
// replicate  one lane a queued candidate: the extra replicas begin..end

@compute @workgroup_size(64)
fn start(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = lane_of(workgroup, grid, local);
    if lane >= params.lanes {
        return;
    }
    take_candidate(lane);
    start_candidate();
}

@compute @workgroup_size(64)
fn replicate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = lane_of(workgroup, grid, local);
    if lane >= queued() {
        return;
    }
    take_candidate(queued_candidate(lane));
    for (var extra = params.begin; extra < params.end; extra += 1u) {
        give_replica();
    }
}

// Only the nodes that decide the layer go on, and only while the stop load is not reached. With several windows
// each node decides some of them, so all that have not reached it go on.
fn start_candidate() {
    let chosen = chosen_at(my_layer, params.assignment);
    let bound = groups[chosen];
    let layer_max = kept[layer_state_at(my_layer) + LAYER_MAX];
    // DeepSeek's own assignment is tried wherever it could win at all, the others only for a real gain.
    let gain = select(layer_max >> ASSIGNMENT_GAIN_SHIFT, 0u, params.assignment == params.assignments);
    let worth_trying = bound < layer_max - gain;
    var deciding = 0u;
    for (var node = 0u; node < params.nodes; node += 1u) {
        deciding = max(deciding, kept[node_state_at(my_layer, node) + NODE_VALUE]);
    }
    let value = kept[node_state_at(my_layer, my_node) + NODE_VALUE];
    let decides = value == deciding || params.windows > 1u;
    if !worth_trying || !decides || value <= stop_load(bound) {
        set_control(C_END, END_IDLE);
        return;
    }
    set_control(C_END, END_RUNNING);
    queue_again();
    let key = restart_key(my_node, my_restart);
    let strength = count_noise(my_restart);
    for (var expert = 0u; expert < params.node_experts; expert += 1u) {
        var load = weight(expert);
        if strength != 0 {
            load = perturbed(load, strength, draw(key, DRAW_COUNTS + expert));
        }
        set_scratch(expert, load);
        set_scratch(params.node_experts + expert, share_of(load, 1u));
        set_count(expert, 1u);
    }
}

// The next replica goes to the highest load per replica, ties to the lower index. Scratch holds the loads, then
// `floor(load / count) + 1`, or 0 where an expert may have no more: only where those are equal does the exact
// comparison matter.
fn give_replica() {
    most = 0u;
    most_at = NONE;
    ties = 0u;
    for (var expert = 0u; expert < params.node_experts; expert += 4u) {
        offer(expert);
        offer(expert + 1u);
        offer(expert + 2u);
        offer(expert + 3u);
    }
    if most == 0u {
        return;
    }
    var best = most_at;
    for (var expert = best + 1u; expert < select(0u, params.node_experts, ties > 1u); expert += 1u) {
        if scratch(params.node_experts + expert) == most && heavier(expert, best) {
            best = expert;
        }
    }
    let count = count_of(best) + 1u;
    set_count(best, count);
    set_scratch(params.node_experts + best, share_of(scratch(best), count));
}

// The highest load per replica so far, rounded down, the first expert that has it, and how many do.
var<private> most: u32;
var<private> most_at: u32;
var<private> ties: u32;

fn offer(expert: u32) {
    let last = params.node_experts - 1u;
    let share = select(0u, scratch(params.node_experts + min(expert, last)), expert <= last);
    ties = select(select(ties, ties + 1u, share == most), 1u, share > most);
    most_at = select(most_at, expert, share > most);
    most = max(most, share);
}

fn share_of(load: u32, count: u32) -> u32 {
    return select(load / max(count, 1u) + 1u, 0u, count >= params.max_count);
}

// Whether `load_a / count_a > load_b / count_b`, exactly.
fn heavier(a: u32, b: u32) -> bool {
    return wide_greater(mul_wide(scratch(a), count_of(b)), mul_wide(scratch(b), count_of(a)));
}
