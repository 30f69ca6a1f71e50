// Stage 3: how many replicas each expert of a node gets. Reads `results` (node loads and states), `groups` (the
// bound); writes `arena` (counts, and in scratch the loads that decide) and the queue.
//
// start      one lane a (layer, node): whether its candidates run at all
// give       one lane a queued candidate: given counts, and the load that is good enough; then the others have nothing to do
// perturb    one lane a (queued candidate, block of experts): the loads that decide, and one replica an expert
// replicate  one lane a queued candidate: the extra replicas begin..end

@compute @workgroup_size(LANES)
fn start(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let layer = params.layer_begin + lane / params.nodes;
    let node = lane % params.nodes;
    let runs = goes_on(layer, node);
    results[node_state_at(layer, node) + NODE_RUNS] = select(0u, 1u, runs);
    if !runs {
        return;
    }
    queue_node(lane);
    for (var start = 0u; start < params.start_count; start += 1u) {
        take_candidate(lane * params.start_count + start);
        set_control(C_END, END_RUNNING);
        set_control(C_REPLICATED, 0u);
    }
}

@compute @workgroup_size(LANES)
fn give(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= queued() {
        return;
    }
    take_candidate(queued_candidate(lane));
    let given = params.at_given + my_layer * (1u + params.experts);
    var several = 0u;
    for (var expert = 0u; expert < params.node_experts; expert += 1u) {
        let count = problem[given + 1u + expert];
        set_count(expert, count);
        if count > 1u {
            set_slot(several, expert, 0u);
            several += 1u;
        }
    }
    set_control(C_REPLICATED, several);
    // All starts of a node say the same.
    results[node_state_at(my_layer, my_node) + NODE_BOUND] = problem[given];
}

@compute @workgroup_size(LANES)
fn replicate(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= queued() {
        return;
    }
    take_candidate(queued_candidate(lane));
    for (var extra = params.begin; extra < params.end; extra += 1u) {
        give_replica();
    }
}

// Whether the starts of a node are worth it. Assignments come in order of their bounds: one is tried only if none
// before is good enough and it could win; DeepSeek's own and the repaired one wherever they could win. The nodes of the
// one that is chosen get further starts where none is good enough, until some bring nothing.
fn goes_on(layer: u32, node: u32) -> bool {
    let layer_max = results[layer_state_at(layer) + LAYER_MAX];
    let is_open = layer_max > enough(groups[chosen_at(layer, 0u)]);
    if params.start_begin > 0u {
        let state = node_state_at(layer, node);
        let best = results[state + NODE_MAX];
        let has_begun = best != NONE;
        return has_begun && best > enough(node_bound(layer, node)) && results[state + NODE_IDLE] < params.start_patience;
    }
    if params.assignment == CHOSEN {
        return is_open && results[layer_state_at(layer) + LAYER_CHOSEN] >= min(FULL_ASSIGNMENTS, params.assignments);
    }
    return groups[assignment_at(layer)] < layer_max && (params.assignment >= params.assignments || is_open);
}

@compute @workgroup_size(LANES)
fn perturb(invocation: Invocation) {
    let lane = take_lane(invocation);
    let share = split_of_lane(lane, expert_blocks(params.node_experts));
    if share.place >= queued() {
        return;
    }
    take_candidate(queued_candidate(share.place));
    let block = share.number;
    let first = block * EXPERT_BLOCK;
    let key = start_key(first_group(), my_start);
    let strength = count_noise(my_start);
    var largest = 0u;
    for (var expert = first; expert < min(first + EXPERT_BLOCK, params.node_experts); expert += 1u) {
        var load = weight(expert);
        if strength != 0 {
            load = perturbed(load, strength, draw(key, DRAW_COUNTS + expert));
        }
        let share = share_of(load, 1u);
        largest = max(largest, share);
        set_scratch(expert, load);
        set_scratch(share_at(expert), share);
        set_count(expert, 1u);
    }
    set_scratch(block_at(block), largest);
}

// Scratch: the loads, then `floor(load / count) + 1`, or 0 where an expert may have no more (only where those are equal
// does the exact comparison matter), then the largest of those of each block of experts.
fn share_at(expert: u32) -> u32 {
    return params.node_experts + expert;
}

fn block_at(block: u32) -> u32 {
    return 2u * params.node_experts + block;
}

// The next replica goes to the highest load per replica, ties to the lower index.
fn give_replica() {
    most = 0u;
    most_at = 0u;
    ties = 0u;
    let blocks = expert_blocks(params.node_experts);
    for (var block = 0u; block < blocks; block += 4u) {
        offer_block(block, blocks);
        offer_block(block + 1u, blocks);
        offer_block(block + 2u, blocks);
        offer_block(block + 3u, blocks);
    }
    if most == 0u {
        return;
    }
    var next = look_into(most_at * EXPERT_BLOCK);
    let first = most_at;
    var best = first;
    let end = select(0u, params.node_experts, ties > 1u);
    for (var expert = best + 1u; expert < end; expert += 1u) {
        if scratch(share_at(expert)) == most && heavier(expert, best) {
            best = expert;
        }
    }
    let count = count_of(best) + 1u;
    set_count(best, count);
    if count == 2u {
        let several = control(C_REPLICATED);
        set_slot(several, best, 0u);
        set_control(C_REPLICATED, several + 1u);
    }
    let share = share_of(scratch(best), count);
    set_scratch(share_at(best), share);
    let block = best / EXPERT_BLOCK;
    if best != first {
        next = 0u;
    }
    for (var i = 0u; i < select(EXPERT_BLOCK, 0u, best == first); i += 1u) {
        next = max(next, share_in(block * EXPERT_BLOCK + i));
    }
    set_scratch(block_at(block), max(next, share));
}

// The share of an expert, or 0 after the last.
fn share_in(expert: u32) -> u32 {
    let last = params.node_experts - 1u;
    return select(0u, scratch(share_at(min(expert, last))), expert <= last);
}

// The highest load per replica so far, rounded down, the first block, then expert, that has it, and how many do.
var<private> most: u32;
var<private> most_at: u32;
var<private> ties: u32;

fn offer_block(block: u32, blocks: u32) {
    let share = select(0u, scratch(block_at(min(block, blocks - 1u))), block < blocks);
    ties = select(select(ties, ties + 1u, share == most), 1u, share > most);
    most_at = select(most_at, block, share > most);
    most = max(most, share);
}

// The first expert of a block that has `most`, and how many more in it do; returns the next highest.
fn look_into(first: u32) -> u32 {
    var next = 0u;
    var found = NONE;
    for (var i = 0u; i < EXPERT_BLOCK; i += 1u) {
        let expert = first + i;
        let share = share_in(expert);
        let is_first = share == most && found == NONE;
        ties += select(0u, 1u, share == most && !is_first);
        found = select(found, expert, is_first);
        next = max(next, select(share, 0u, is_first));
    }
    most_at = found;
    return next;
}

fn share_of(load: u32, count: u32) -> u32 {
    return select(load / max(count, 1u) + 1u, 0u, count >= params.max_count);
}

// Whether `load_a / count_a > load_b / count_b`, exactly.
fn heavier(a: u32, b: u32) -> bool {
    return wide_greater(mul_wide(scratch(a), count_of(b)), mul_wide(scratch(b), count_of(a)));
}
