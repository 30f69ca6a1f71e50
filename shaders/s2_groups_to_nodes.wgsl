// Stage 2: which groups each node holds. Reads `problem`, `groups` and `results`; writes `groups`.
//
// build        one lane a (layer, sample): LPT, the groups of ranks begin..end; the last sample is DeepSeek's
// swap_groups  one lane a (layer, sample): one swap between the heaviest node and another
// average      one lane a (layer, candidate): its largest node load per GPU
// add_average  one lane a (layer, candidate): with several windows, the sum of that over four more
// walk         one lane a layer: weigh exactly, the steps begin..end: DeepSeek's assignment, then the next candidates by
//              average
// choose       one lane a (layer, assignment): write the assignments chosen
// repair       one lane a layer: the assignment after one swap that relieves the heaviest GPU's node
//
// The first two are in `s2_groups_to_nodes/build.wgsl`.

// Candidates are the enumerated assignments, the same for all layers, or the samples of the layer.
fn candidate_count() -> u32 {
    return select(params.samples, params.enumerated, params.enumerated > 0u);
}

fn candidate_group(layer: u32, candidate: u32, place: u32) -> u32 {
    if params.enumerated > 0u && candidate != params.samples + params.enumerated {
        return problem[params.at_enumerated + candidate * params.groups + place];
    }
    let sample = select(candidate, params.samples, params.enumerated > 0u);
    return groups[params.at_built + (layer * (params.samples + 1u) + sample) * params.groups + place];
}

// The candidate number of DeepSeek's assignment.
fn greedy_candidate() -> u32 {
    return params.samples + params.enumerated;
}

@compute @workgroup_size(LANES)
fn average(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let count = candidate_count();
    groups[params.at_averages + lane] = node_average(lane / count, lane % count);
}

// The largest node load over GPUs a node, rounded up.
fn node_average(layer: u32, candidate: u32) -> u32 {
    var largest = 0u;
    var sum = 0u;
    var left = params.node_groups;
    for (var place = 0u; place < params.groups; place += 1u) {
        if left == 0u {
            sum = 0u;
            left = params.node_groups;
        }
        left -= 1u;
        sum += groups[layer * params.groups + candidate_group(layer, candidate, place)];
        largest = max(largest, sum);
    }
    return (largest + params.node_gpus - 1u) / params.node_gpus;
}

// Four windows, of which `params.begin` is the quad.
@compute @workgroup_size(LANES)
fn add_average(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let count = candidate_count();
    let before = select(groups[params.at_averages + lane], 0u, params.begin == 0u);
    groups[params.at_averages + lane] = before + quad_average(lane / count, lane % count, params.begin);
}

// The sum over four windows of the largest node load over GPUs a node, rounded up.
fn quad_average(layer: u32, candidate: u32, q: u32) -> u32 {
    var largest = vec4<u32>(0u);
    var sum = vec4<u32>(0u);
    for (var place = 0u; place < params.groups; place += 1u) {
        if place % params.node_groups == 0u {
            sum = vec4<u32>(0u);
        }
        sum += group_quad(layer, candidate_group(layer, candidate, place), q);
        largest = max(largest, sum);
    }
    let averages = (largest + params.node_gpus - 1u) / params.node_gpus;
    return averages.x + averages.y + averages.z + averages.w;
}

@compute @workgroup_size(LANES)
fn walk(invocation: Invocation) {
    let layer = take_lane(invocation);
    if layer >= params.lanes {
        return;
    }
    let state = walk_at(layer);
    if params.begin == 0u {
        for (var i = 0u; i < WALK_WORDS; i += 1u) {
            groups[state + i] = 0u;
        }
    }
    for (var step = params.begin; step < params.end && groups[state + WALK_DONE] == 0u; step += 1u) {
        weigh(layer, state, step == 0u);
    }
}

// DeepSeek's assignment, or the next candidate. In one function, so that `exact_bound`, which is long, is compiled once.
fn weigh(layer: u32, state: u32, greedy: bool) {
    var candidate = greedy_candidate();
    var average = 0u;
    if greedy {
        average = average_of(layer, candidate);
    } else {
        candidate = next_candidate(layer, state);
        if candidate != NONE {
            average = groups[params.at_averages + layer * candidate_count() + candidate];
        }
        if candidate == NONE || is_beaten(state, average) {
            groups[state + WALK_DONE] = 1u;
            return;
        }
    }
    let bound = exact_bound(layer, candidate, average);
    if greedy {
        groups[state + WALK_GREEDY] = bound;
    } else {
        keep_weighed(state, candidate, average, bound);
    }
}

// Where the walk of a layer lies, and in its list the assignment at a place.
fn walk_at(layer: u32) -> u32 {
    return params.at_walk + layer * (WALK_WORDS + KEPT_WORDS * params.assignments);
}

fn kept_at(state: u32, place: u32) -> u32 {
    return state + WALK_WORDS + KEPT_WORDS * place;
}

// Whether the list is full of assignments whose bounds are not above an average.
fn is_beaten(state: u32, average: u32) -> bool {
    let kept_count = groups[state + WALK_KEPT];
    return kept_count == params.assignments && groups[kept_at(state, kept_count - 1u) + KEPT_BOUND] <= average;
}

fn keep_weighed(state: u32, next: u32, next_average: u32, bound: u32) {
    let kept_count = groups[state + WALK_KEPT];
    let full = kept_count == params.assignments;
    groups[state + WALK_AVERAGE] = next_average;
    groups[state + WALK_INDEX] = next;
    groups[state + WALK_WEIGHED] += 1u;
    // It goes after those with an equal or lower bound; the last one falls off a full list.
    var at = select(kept_count, kept_count - 1u, full);
    if full && groups[kept_at(state, at) + KEPT_BOUND] <= bound {
        return;
    }
    while at > 0u && groups[kept_at(state, at - 1u) + KEPT_BOUND] > bound {
        groups[kept_at(state, at) + KEPT_BOUND] = groups[kept_at(state, at - 1u) + KEPT_BOUND];
        groups[kept_at(state, at) + KEPT_INDEX] = groups[kept_at(state, at - 1u) + KEPT_INDEX];
        at -= 1u;
    }
    groups[kept_at(state, at) + KEPT_BOUND] = bound;
    groups[kept_at(state, at) + KEPT_INDEX] = next;
    groups[state + WALK_KEPT] = select(kept_count + 1u, kept_count, full);
}

// The candidate after the last one weighed, by (average, index).
fn next_candidate(layer: u32, state: u32) -> u32 {
    let count = candidate_count();
    let averages = params.at_averages + layer * count;
    let any = groups[state + WALK_WEIGHED] > 0u;
    let last_average = groups[state + WALK_AVERAGE];
    let last_index = groups[state + WALK_INDEX];
    var next = NONE;
    var next_average = 0u;
    for (var i = 0u; i < count; i += 1u) {
        let s = groups[averages + i];
        let after = !any || s > last_average || (s == last_average && i > last_index);
        if after && (next == NONE || s < next_average) {
            next = i;
            next_average = s;
        }
    }
    return next;
}

// The larger of `average` and the heaviest replica of any node under the counts that keep it lightest; with
// several windows the average alone, since replicas are heaviest on different GPUs in each.
fn exact_bound(layer: u32, candidate: u32, average: u32) -> u32 {
    if params.windows > 1u {
        return average;
    }
    var bound = average;
    for (var node = 0u; node < params.nodes; node += 1u) {
        bound = lightest_heaviest(WeighedNode(layer, candidate, node), bound);
    }
    return bound;
}

// The average of a candidate that is not among those walked.
fn average_of(layer: u32, candidate: u32) -> u32 {
    if params.windows == 1u {
        return node_average(layer, candidate);
    }
    var sum = 0u;
    for (var q = 0u; q < params.quads; q += 1u) {
        sum += quad_average(layer, candidate, q);
    }
    return sum;
}

// A node of a candidate.
struct WeighedNode {
    layer: u32,
    candidate: u32,
    node: u32,
}

// Whether replicas of at most `t` are few enough.
fn fits(node: WeighedNode, t: u32) -> bool {
    var needed = 0u;
    next_place = node.node * params.node_groups;
    group_left = 0u;
    for (var i = 0u; i < params.node_experts; i += 4u) {
        needed += next_need(node, i, t);
        needed += next_need(node, i + 1u, t);
        needed += next_need(node, i + 2u, t);
        needed += next_need(node, i + 3u, t);
        // More than there are replicas, or marked as impossible: either way it does not fit.
        if needed > params.node_replicas {
            return false;
        }
    }
    return true;
}

// Where `fits` stands among a node's experts: without a division for each.
var<private> next_place: u32;     // of the next group
var<private> group_left: u32;     // experts of this one
var<private> next_load: u32;      // where the next one's load lies

// The replicas that the next expert needs, the i-th of its node.
fn next_need(node: WeighedNode, i: u32, t: u32) -> u32 {
    if i >= params.node_experts {
        return 0u;
    }
    if group_left == 0u {
        let group = candidate_group(node.layer, node.candidate, next_place);
        next_load = node.layer * params.experts + group * params.group_size;
        next_place += 1u;
        group_left = params.group_size;
    }
    let load = problem[next_load];
    next_load += 1u;
    group_left -= 1u;
    return replicas_needed(load, t);
}

@compute @workgroup_size(LANES)
fn choose(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let layer = lane / (params.assignments + 1u);
    let assignment = lane % (params.assignments + 1u);
    let state = walk_at(layer);
    let chosen = chosen_at(layer, assignment);
    var candidate = greedy_candidate();
    var bound = NONE;
    if assignment == 0u || assignment == params.assignments {
        bound = groups[state + WALK_GREEDY];
    }
    // DeepSeek's assignment takes the first place if none is better, and is then not tried again.
    let first = params.group_rule == RULE_BEST_FIRST && bound <= groups[kept_at(state, 0u) + KEPT_BOUND];
    if assignment == params.assignments {
        bound = select(bound, NONE, first);
    } else if assignment >= groups[state + WALK_KEPT] {
        bound = NONE;
    } else if assignment > 0u || !first {
        bound = groups[kept_at(state, assignment) + KEPT_BOUND];
        candidate = groups[kept_at(state, assignment) + KEPT_INDEX];
    }
    groups[chosen] = bound;
    if bound == NONE {
        return;
    }
    for (var place = 0u; place < params.groups; place += 1u) {
        groups[group_at(chosen, place)] = candidate_group(layer, candidate, place);
    }
}

@compute @workgroup_size(LANES)
fn repair(invocation: Invocation) {
    let layer = take_lane(invocation);
    if layer >= params.lanes {
        return;
    }
    let source = chosen_at(layer, results[layer_state_at(layer) + LAYER_CHOSEN]);
    let to = chosen_at(layer, params.assignments + 1u);
    // The repaired assignment takes the place of DeepSeek's, which has been chosen and searched.
    let lane = layer * (params.samples + 1u) + params.samples;
    let list = params.at_built + lane * params.groups;
    let state = params.at_build_state + lane * params.nodes * BUILD_WORDS;
    var heavy = 0u;
    var light = 0u;
    for (var node = 0u; node < params.nodes; node += 1u) {
        var sum = 0u;
        for (var i = 0u; i < params.node_groups; i += 1u) {
            let group = groups[group_at(source, node * params.node_groups + i)];
            groups[list + node * params.node_groups + i] = group;
            sum += groups[layer * params.groups + group];
        }
        groups[build_at(state, node) + BUILD_LOAD] = sum;
        if best_node_max(layer, node) > best_node_max(layer, heavy) {
            heavy = node;
        }
        if best_node_max(layer, node) < best_node_max(layer, light) {
            light = node;
        }
    }
    groups[to] = NONE;
    if best_group_swap(layer, list, state, heavy, light) {
        let candidate = greedy_candidate();
        groups[to] = exact_bound(layer, candidate, average_of(layer, candidate));
        for (var place = 0u; place < params.groups; place += 1u) {
            groups[group_at(to, place)] = groups[list + place];
        }
    }
}

// Load of the heaviest GPU of a node of the layer's plan.
fn best_node_max(layer: u32, node: u32) -> u32 {
    return results[node_state_at(layer, node) + NODE_PLAN_MAX];
}
