// From an assignment to the problem of each of its nodes. Reads `problem` and `groups`; writes `results`.
//
// gather       one lane a (layer, some experts): the loads of the nodes, expert after expert, and clean states
// bound_nodes  one lane a (layer, node): the load that its heaviest GPU cannot go below
// rank_experts one lane a (layer, node, some experts): their ranks by load, the order in which stage 4 packs
// floors       one lane a (layer, quad): of several windows, the largest node load per GPU of an assignment

@compute @workgroup_size(LANES)
fn gather(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let in_layer = (params.experts + COPY_BLOCK - 1u) / COPY_BLOCK;
    let layer = lane / in_layer;
    let begin = lane % in_layer * COPY_BLOCK;
    let chosen = assignment_at(layer);
    let end = select(min(begin + COPY_BLOCK, params.experts), 0u, groups[chosen] == NONE);
    var place = begin / params.group_size;
    var in_group = begin % params.group_size;
    for (var expert = begin; expert < end; expert += 1u) {
        gather_expert(layer, expert, groups[group_at(chosen, place)] * params.group_size + in_group);
        in_group += 1u;
        place += select(0u, 1u, in_group == params.group_size);
        in_group = select(in_group, 0u, in_group == params.group_size);
    }
    for (var node = begin; node < min(begin + COPY_BLOCK, params.nodes); node += 1u) {
        let state = node_state_at(layer, node);
        results[state + NODE_MAX] = NONE;
        results[state + NODE_END] = END_SPENT;
        results[state + NODE_WINNER] = NONE;
        results[state + NODE_CUT] = 0u;
        results[state + NODE_IDLE] = 0u;
    }
    if begin == 0u && params.assignment == 0u {
        results[layer_state_at(layer) + LAYER_MAX] = NONE;
        results[layer_state_at(layer) + LAYER_END] = END_SPENT;
        results[layer_state_at(layer) + LAYER_TAKE] = 0u;
        results[layer_state_at(layer) + LAYER_CHOSEN] = 0u;
        results[layer_state_at(layer) + LAYER_CUT] = 0u;
        results[layer_state_at(layer) + LAYER_OPEN] = 0u;
    }
}

fn gather_expert(layer: u32, expert: u32, logical: u32) {
    let source = layer * params.experts + logical;
    let to = layer * params.experts + expert;
    results[to] = problem[source];
    results[params.at_logical + to] = logical;
    let each = select(0u, 4u * params.quads, params.windows > 1u);
    for (var i = 0u; i < each; i += 1u) {
        results[params.at_node_windows + to * each + i] = problem[params.at_windows + source * each + i];
    }
}

@compute @workgroup_size(LANES)
fn bound_nodes(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let layer = lane / params.nodes;
    var bound = groups[chosen_at(layer, 0u)];
    if params.windows == 1u && groups[assignment_at(layer)] != NONE {
        let first = lane * params.node_experts;
        var sum = 0u;
        for (var expert = 0u; expert < params.node_experts; expert += 1u) {
            sum += results[first + expert];
        }
        let average = (sum + params.node_gpus - 1u) / params.node_gpus;
        bound = max(bound, lightest_heaviest(WeighedNode(first), average));
    }
    results[params.at_node_state + lane * NODE_WORDS + NODE_BOUND] = bound;
}

// A node whose loads are gathered: where they begin.
struct WeighedNode {
    first: u32,
}

// Whether replicas of at most `t` are few enough.
fn fits(node: WeighedNode, t: u32) -> bool {
    var needed = 0u;
    for (var i = 0u; i < params.node_experts && needed <= params.node_replicas; i += 4u) {
        needed += gathered_need(node.first, i, t) + gathered_need(node.first, i + 1u, t)
            + gathered_need(node.first, i + 2u, t) + gathered_need(node.first, i + 3u, t);
    }
    return needed <= params.node_replicas;
}

fn gathered_need(first: u32, i: u32, t: u32) -> u32 {
    if i >= params.node_experts {
        return 0u;
    }
    return replicas_needed(results[first + i], t);
}

@compute @workgroup_size(LANES)
fn rank_experts(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let in_node = expert_blocks(params.node_experts);
    let node = lane / in_node;
    let first = lane % in_node * EXPERT_BLOCK;
    let begin = node * params.node_experts;
    if groups[assignment_at(node / params.nodes)] == NONE {
        return;
    }
    for (var i = 0u; i < EXPERT_BLOCK; i += 1u) {
        block_loads[i] = results[begin + min(first + i, params.node_experts - 1u)];
        block_ranks[i] = 0u;
    }
    let end = min(first + EXPERT_BLOCK, params.node_experts);
    for (var other = 0u; other < first; other += 1u) {
        count_heavier(results[begin + other], 0u);
    }
    for (var other = first; other < end; other += 1u) {
        count_heavier(results[begin + other], other - first + 1u);
    }
    for (var other = end; other < params.node_experts; other += 1u) {
        count_heavier(results[begin + other], EXPERT_BLOCK);
    }
    for (var i = 0u; i < EXPERT_BLOCK; i += 1u) {
        if first + i < end {
            results[params.at_rank + begin + first + i] = block_ranks[i];
            results[params.at_order + begin + block_ranks[i]] = first + i;
        }
    }
}

var<private> block_loads: array<u32, EXPERT_BLOCK>;
var<private> block_ranks: array<u32, EXPERT_BLOCK>;

// An expert goes before those of the block that are lighter, and before equal ones from `skip` on, of which it is the
// lower. In a function of its own, see `count_before` in stage 4.
fn count_heavier(load: u32, skip: u32) {
    for (var i = 0u; i < EXPERT_BLOCK; i += 1u) {
        // Loads are at most 2^30.
        block_ranks[i] += select(0u, 1u, load + select(0u, 1u, i >= skip) > block_loads[i]);
    }
}

@compute @workgroup_size(LANES)
fn floors(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let layer = lane / params.quads;
    let chosen = assignment_at(layer);
    var largest = vec4<u32>(0u);
    var sum = vec4<u32>(0u);
    for (var place = 0u; place < params.groups; place += 1u) {
        if place % params.node_groups == 0u {
            sum = vec4<u32>(0u);
        }
        sum += group_quad(layer, groups[group_at(chosen, place)], lane % params.quads);
        largest = max(largest, sum);
    }
    let shares = (largest + params.node_gpus - 1u) / params.node_gpus;
    let to = params.at_floors + lane * 4u;
    results[to] = shares.x;
    results[to + 1u] = shares.y;
    results[to + 2u] = shares.z;
    results[to + 3u] = shares.w;
}
