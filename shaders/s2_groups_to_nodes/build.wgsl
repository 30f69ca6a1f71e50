// Assignments that are built by a rule, with noise, and improved by swaps of groups.

@compute @workgroup_size(LANES)
fn build(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let layer = lane / (params.samples + 1u);
    var sample = lane % (params.samples + 1u);
    var rule = params.group_rule;
    if sample == params.samples {
        sample = 0u;
        rule = RULE_LPT;
    }
    let state = params.at_build_state + lane * params.nodes * BUILD_WORDS;
    if params.begin == 0u {
        for (var i = 0u; i < params.nodes * BUILD_WORDS; i += 1u) {
            groups[state + i] = 0u;
        }
    }
    let key = start_key(sample, DRAW_GROUPS);
    for (var item = params.begin; item < params.end; item += 1u) {
        place_group(lane, layer, item, sample, rule, key);
    }
}

// The next group, in the order of loads, goes to a node.
fn place_group(lane: u32, layer: u32, item: u32, sample: u32, rule: u32, key: u32) {
    let state = params.at_build_state + lane * params.nodes * BUILD_WORDS;
    let group = groups[params.at_group_rank + layer * params.groups + item];
    let load = groups[layer * params.groups + group];
    let word = draw(key, item);
    var best = NONE;
    var best_choice = 0u;
    for (var node = 0u; node < params.nodes; node += 1u) {
        let used = groups[build_at(state, node) + BUILD_GROUPS];
        if used == params.node_groups {
            continue;
        }
        var choice = groups[build_at(state, node) + BUILD_LOAD];
        if sample > 0u {
            choice += place_noise(word, node, load);
        }
        if rule == RULE_LPT_VARIANCE && used > 0u {
            // A quarter of the spread that the group would make inside the node.
            choice += (groups[build_at(state, node) + BUILD_FIRST] - load) >> 2u;
        }
        if best == NONE || choice < best_choice {
            best = node;
            best_choice = choice;
        }
    }
    let at = build_at(state, best);
    let used = groups[at + BUILD_GROUPS];
    groups[at + BUILD_LOAD] += load;
    groups[at + BUILD_GROUPS] = used + 1u;
    if used == 0u {
        groups[at + BUILD_FIRST] = load;
    }
    groups[params.at_built + lane * params.groups + best * params.node_groups + used] = group;
}

@compute @workgroup_size(LANES)
fn swap_groups(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes || lane % (params.samples + 1u) == params.samples {
        return;
    }
    let layer = lane / (params.samples + 1u);
    let state = params.at_build_state + lane * params.nodes * BUILD_WORDS;
    var heavy = 0u;
    for (var node = 1u; node < params.nodes; node += 1u) {
        if groups[build_at(state, node) + BUILD_LOAD] > groups[build_at(state, heavy) + BUILD_LOAD] {
            heavy = node;
        }
    }
    best_group_swap(layer, params.at_built + lane * params.groups, state, heavy, NONE);
}

// Where a node's words lie, of the assignment whose state begins at `first`.
fn build_at(first: u32, node: u32) -> u32 {
    return first + node * BUILD_WORDS;
}

// Makes the best swap of a group of node `heavy` with one of another node (of `partner` alone unless NONE), by
// the larger of the two node loads; ties to the lower place.
fn best_group_swap(layer: u32, list: u32, state: u32, heavy: u32, partner: u32) -> bool {
    var best = 0;
    var best_from = 0u;
    var best_to = 0u;
    var best_moved = 0u;
    for (var to = 0u; to < params.groups; to += 1u) {
        let other = to / params.node_groups;
        let distance = i32(groups[build_at(state, heavy) + BUILD_LOAD] - groups[build_at(state, other) + BUILD_LOAD]);
        if other == heavy || (partner != NONE && partner != other) || distance / 2 <= best {
            continue;
        }
        let other_load = groups[layer * params.groups + groups[list + to]];
        for (var i = 0u; i < params.node_groups; i += 1u) {
            let source = heavy * params.node_groups + i;
            let moved = i32(groups[layer * params.groups + groups[list + source]] - other_load);
            let gain = min(moved, distance - moved);
            if gain > best {
                best = gain;
                best_from = source;
                best_to = to;
                best_moved = u32(moved);
            }
        }
    }
    if best == 0 {
        return false;
    }
    let group = groups[list + best_from];
    groups[list + best_from] = groups[list + best_to];
    groups[list + best_to] = group;
    groups[build_at(state, heavy) + BUILD_LOAD] -= best_moved;
    groups[build_at(state, best_to / params.node_groups) + BUILD_LOAD] += best_moved;
    return true;
}
