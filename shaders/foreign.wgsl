// Foreign replicas: how many replicas of each expert each node of a layer had best hold. Reads `problem` (loads, limits, sets of
// groups); writes `groups` (the aims of layers), `arena` (candidates), `results` (choices). The mirror is `src/foreign/`.
//
// find_aim    one workgroup a layer: halves the range of its target, and at last lists assignments (`foreign/target.wgsl`)
// construct   one workgroup a candidate: its replicas for a target, if better than before (`foreign/construct.wgsl`)
// hand_over   one workgroup a candidate: replicas change from expert to expert (`foreign/tabu.wgsl`)
// choose      one workgroup a layer: writes the best of its candidates
//
// A candidate is one of the assignments of a layer that are tried. All of these are tried side by side; what the host, which
// tries one after the other, would have left out is left out in the end.

// Control words of this shader.
const C_BUILT: u32 = C_SEARCH;            // the value of the best construction, NONE where there is none
const C_VALUE: u32 = C_SEARCH + 1u;       // the best value
const C_ITERATION: u32 = C_SEARCH + 2u;
const C_SINCE: u32 = C_SEARCH + 3u;       // iterations without a new best
const C_SHIFT: u32 = C_SEARCH + 4u;
const C_GAP: u32 = C_SEARCH + 5u;         // the least excess less that of now
const C_FOREIGN: u32 = C_SEARCH + 6u;     // foreign replicas

// More below its target than any change of a node's load.
const MOST_ROOM: u32 = 4u * FIXED_TOTAL;

// Sizes and places, a lane's own copy: see `src/layout/foreign.rs`.
var<private> parts: ForeignParts;
var<private> my_aim: u32;         // where the words of the layer begin in `groups`
var<private> enough_load: u32;    // the value that is good enough

fn take_workgroup(at: Invocation) -> u32 {
    take_params();
    parts = foreign_parts();
    lane = at.lane;
    leads = lane == 0u;
    return told(workgroup_of(at));
}

fn take_layer(layer: u32) {
    my_layer = layer;
    my_aim = layer * parts.aim_words;
    enough_load = aim_of_layer() + (aim_of_layer() >> ENOUGH_SHIFT);
}

// Of the candidates of a layer the one in this place.
fn take_assignment(layer: u32, place: u32) {
    me = layer * TRIED_ASSIGNMENTS + place;
    my_words = words_of(me);
}

// Takes a candidate and its layer; returns its assignment, or NONE.
fn take_tried(candidate: u32) -> u32 {
    take_layer(candidate / TRIED_ASSIGNMENTS);
    take_assignment(my_layer, candidate % TRIED_ASSIGNMENTS);
    return of_layer(AIM_ASSIGNMENTS, candidate % TRIED_ASSIGNMENTS);
}

fn of_layer(part: u32, index: u32) -> u32 {
    return groups[my_aim + part + index];
}

fn set_of_layer(part: u32, index: u32, value: u32) {
    groups[my_aim + part + index] = value;
}

fn own(part: u32, index: u32) -> u32 {
    return arena[word_at(part, index)];
}

fn set_own(part: u32, index: u32, value: u32) {
    arena[word_at(part, index)] = value;
}

// The load that no plan goes below.
fn aim_of_layer() -> u32 {
    return of_layer(AIM_LOW, 0u) + 1u;
}

fn load_of(expert: u32) -> u32 {
    return problem[parts.at_loads + my_layer * params.experts + expert];
}

// `load * part / whole`.
fn part_of(load: u32, part: u32, whole: u32) -> u32 {
    return load / whole * part + load % whole * part / whole;
}

// The load that a node has beyond `t` for each GPU.
fn beyond(load: u32, t: u32) -> i32 {
    let room = select(t * params.node_gpus, MOST_ROOM, t > MOST_ROOM / params.node_gpus);
    return i32(load) - i32(room);
}

@compute @workgroup_size(TEAM)
fn find_aim(invocation: Invocation) {
    let layer = take_workgroup(invocation);
    if layer < dispatched.layers {
        take_layer(layer);
        if dispatched.begin == 0u {
            lay_layer();
        }
        if told(of_layer(AIM_ENDED, 0u)) == 0u {
            narrow();
        }
    }
}

@compute @workgroup_size(TEAM)
fn construct(invocation: Invocation) {
    let candidate = take_workgroup(invocation);
    if candidate < dispatched.candidates {
        let assignment = told(take_tried(candidate));
        if dispatched.begin == 0u && leads {
            set_control(C_BUILT, NONE);
        }
        if assignment != NONE {
            if dispatched.begin == 0u {
                lay_nodes(assignment);
            }
            let t = aim_of_layer();
            let built = control(C_BUILT);
            let is_near = built <= t + part_of(t, dispatched.begin, 2u * STEP_PARTS);
            if told(select(0u, 1u, is_near)) == 0u {
                construct_step(t + part_of(t, dispatched.begin, STEP_PARTS));
            }
        }
    }
}

@compute @workgroup_size(TEAM)
fn hand_over(invocation: Invocation) {
    let candidate = take_workgroup(invocation);
    if candidate < dispatched.candidates {
        let assignment = take_tried(candidate);
        if dispatched.begin == 0u {
            begin_search();
        }
        if told(control(C_END)) == END_RUNNING {
            search(assignment);
        }
    }
}

@compute @workgroup_size(TEAM)
fn choose(invocation: Invocation) {
    let layer = take_workgroup(invocation);
    if layer < dispatched.layers {
        take_layer(layer);
        let place = chosen_place();
        let first = layer * parts.choice_words;
        take_assignment(layer, min(place, TRIED_ASSIGNMENTS - 1u));
        // No better than the plan there is: none.
        let is_better = place != NONE && control(C_VALUE) < limit_of(LIMIT_ABOVE);
        if leads {
            results[first + CHOICE_VALUE] = select(NONE, control(C_VALUE), is_better);
            results[first + CHOICE_ENOUGH] = enough_load;
            results[first + CHOICE_ASSIGNMENT] = of_layer(AIM_ASSIGNMENTS, min(place, TRIED_ASSIGNMENTS - 1u));
        }
        let experts = params.active_experts * params.nodes;
        for (var e = lane; e < experts; e += TEAM) {
            results[first + parts.at_choice_experts + e] = own(params.at_expert, e);
            for (var node = 0u; node < params.nodes; node += 1u) {
                let at = e * params.nodes + node;
                results[first + parts.at_choice_here + at] = own(parts.at_best_here, at);
            }
        }
    }
}

// The candidate that is best in the host's order, or NONE: those after one whose construction is good enough are left out, then
// the best constructions come first, up to one that is good enough.
fn chosen_place() -> u32 {
    var chosen = NONE;
    var least = NONE;
    var last = vec2<u32>(0u, 0u);
    for (var turn = 0u; turn < TRIED_ASSIGNMENTS && (turn == 0u || least > enough_load); turn += 1u) {
        var next = NO_RANK;
        var next_place = 0u;
        var is_open = true;
        for (var place = 0u; place < TRIED_ASSIGNMENTS; place += 1u) {
            take_assignment(my_layer, place);
            let built = control(C_BUILT);
            let rank = vec2<u32>(built, of_layer(AIM_ASSIGNMENTS, place) + 1u);
            let is_next = is_open && built != NONE && is_less(last, rank) && is_less(rank, next);
            next = select(next, rank, is_next);
            next_place = select(next_place, place, is_next);
            is_open = is_open && built > enough_load;
        }
        take_assignment(my_layer, next_place);
        let is_best = next.x != NONE && control(C_VALUE) < least;
        least = select(least, control(C_VALUE), is_best);
        chosen = select(chosen, next_place, is_best);
        last = next;
    }
    return chosen;
}
