// Stage 6: keep the best start of each node, and the best assignment of each layer. Reads `arena` and
// `results`; writes `results`.
//
// choose_start  one lane a (layer, node) of this dispatch: offer this round's starts in order
// copy_node       one lane a (layer, node, some slots): the winner's placement
// settle_layer    one lane a layer: offer the assignment just searched
// copy_plan       one lane a (layer, node, some slots): its placement, in logical experts

@compute @workgroup_size(LANES)
fn choose_start(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let layer = params.layer_begin + lane / params.nodes;
    let state = node_state_at(layer, lane % params.nodes);
    let good = enough(node_bound(layer, lane % params.nodes));
    results[state + NODE_WINNER] = NONE;
    let starts = select(0u, params.start_count, results[state + NODE_RUNS] == 1u);
    for (var i = 0u; i < starts; i += 1u) {
        take_candidate(lane * params.start_count + i);
        // After the last that could be wanted no start is looked at: the CPU backend does not run them.
        if results[state + NODE_MAX] <= good || results[state + NODE_IDLE] >= params.start_patience {
            return;
        }
        let end = control(C_END);
        let found = control(C_BEST_MAX);
        results[state + NODE_IDLE] += 1u;
        if end == END_RUNNING {
            results[state + NODE_CUT] = 1u;
        }
        if found < results[state + NODE_MAX] {
            results[state + NODE_MAX] = found;
            results[state + NODE_END] = end;
            results[state + NODE_WINNER] = me;
            results[state + NODE_IDLE] = 0u;
        }
    }
}

@compute @workgroup_size(LANES)
fn copy_node(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let pair = lane / copy_blocks();
    let layer = params.layer_begin + pair / params.nodes;
    let node = pair % params.nodes;
    let winner = results[node_state_at(layer, node) + NODE_WINNER];
    if winner == NONE {
        return;
    }
    take_candidate(winner);
    let begin = lane % copy_blocks() * COPY_BLOCK;
    let to = params.at_node_slots + (layer * params.nodes + node) * params.node_slots;
    for (var slot = begin; slot < min(begin + COPY_BLOCK, params.node_slots); slot += 1u) {
        results[to + slot] = snapshot(slot);
    }
}

// Lanes that share the slots of a node.
fn copy_blocks() -> u32 {
    return (params.node_slots + COPY_BLOCK - 1u) / COPY_BLOCK;
}

@compute @workgroup_size(LANES)
fn settle_layer(invocation: Invocation) {
    let layer = take_lane(invocation);
    if layer >= params.lanes {
        return;
    }
    let state = layer_state_at(layer);
    var deciding = 0u;
    for (var node = 0u; node < params.nodes; node += 1u) {
        results[state + LAYER_CUT] |= results[node_state_at(layer, node) + NODE_CUT];
        if results[node_state_at(layer, node) + NODE_MAX] > results[node_state_at(layer, deciding) + NODE_MAX] {
            deciding = node;
        }
    }
    let decides = node_state_at(layer, deciding);
    results[state + LAYER_TAKE] = 0u;
    let max = results[decides + NODE_MAX];
    // Further starts of the nodes that the plan has made none of them worse.
    if max < results[state + LAYER_MAX] || (params.assignment == CHOSEN && max != NONE) {
        take(layer, decides);
    }
    if params.assignment < params.assignments - 1u {
        let max = results[state + LAYER_MAX];
        let next = groups[chosen_at(layer, params.assignment + 1u)];
        results[state + LAYER_OPEN] = select(0u, 1u, max > enough(groups[chosen_at(layer, 0u)]) && next < max);
    }
}

// The assignment just searched becomes the plan of a layer.
fn take(layer: u32, decides: u32) {
    let state = layer_state_at(layer);
    results[state + LAYER_MAX] = results[decides + NODE_MAX];
    results[state + LAYER_END] = results[decides + NODE_END];
    results[state + LAYER_TAKE] = 1u;
    if params.assignment != CHOSEN {
        results[state + LAYER_CHOSEN] = params.assignment;
    }
    for (var node = 0u; node < params.nodes; node += 1u) {
        let at = node_state_at(layer, node);
        results[at + NODE_PLAN_MAX] = results[at + NODE_MAX];
    }
}

@compute @workgroup_size(LANES)
fn copy_plan(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let pair = lane / copy_blocks();
    let layer = pair / params.nodes;
    if results[layer_state_at(layer) + LAYER_TAKE] == 0u {
        return;
    }
    let begin = lane % copy_blocks() * COPY_BLOCK;
    let logical = params.at_logical + pair * params.node_experts;
    for (var slot = begin; slot < min(begin + COPY_BLOCK, params.node_slots); slot += 1u) {
        let at = pair * params.node_slots + slot;
        let expert = results[params.at_node_slots + at];
        if expert == FREE {
            results[params.at_plan + at] = FREE;
        } else {
            results[params.at_plan + at] = results[logical + expert];
        }
    }
}
