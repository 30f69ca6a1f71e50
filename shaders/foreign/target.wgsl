// The target of a layer: the load that the heaviest GPU of no plan goes below, by bisection, and the assignments that could
// reach it. The mirror is `src/foreign/target.rs`.

fn limit_of(word: u32) -> u32 {
    return problem[parts.at_limits + my_layer * LIMIT_WORDS + word];
}

// The experts of each group by falling load, what groups weigh, and the sets of them.
fn lay_layer() {
    for (var expert = lane; expert < params.experts; expert += TEAM) {
        let first = expert / params.group_size * params.group_size;
        let load = load_of(expert);
        var rank = 0u;
        for (var i = 0u; i < params.group_size; i += 1u) {
            let other = load_of(first + i);
            rank += select(0u, 1u, other > load || (other == load && first + i < expert));
        }
        set_of_layer(parts.at_sorted, first + rank, load);
    }
    storageBarrier();
    for (var group = lane; group < params.groups; group += TEAM) {
        var load = 0u;
        for (var i = 0u; i < params.group_size; i += 1u) {
            load += of_layer(parts.at_sorted, group * params.group_size + i);
        }
        set_of_layer(parts.at_group_totals, group, load);
    }
    storageBarrier();
    for (var number = lane; number < params.sets; number += TEAM) {
        var load = 0u;
        for (var i = 0u; i < params.node_groups; i += 1u) {
            load += of_layer(parts.at_group_totals, group_of_set(number, i));
        }
        set_of_layer(parts.at_set_loads, number, load);
    }
    if leads {
        set_of_layer(AIM_LOW, 0u, limit_of(LIMIT_FLOOR) - 1u);
        set_of_layer(AIM_HIGH, 0u, limit_of(LIMIT_ABOVE));
        set_of_layer(AIM_ENDED, 0u, 0u);
    }
    storageBarrier();
}

fn group_of_set(number: u32, place: u32) -> u32 {
    return problem[parts.at_set_groups + number * params.node_groups + place];
}

fn is_in_set(number: u32, group: u32) -> bool {
    let word = problem[parts.at_sets + number * parts.set_words + group / 32u];
    return ((word >> (group % 32u)) & 1u) == 1u;
}

// In an assignment: the set of the node that holds `group`, and the set of `node`.
fn set_with(assignment: u32, group: u32) -> u32 {
    return problem[parts.at_set_with + assignment * params.groups + group];
}

fn set_of_node(assignment: u32, node: u32) -> u32 {
    return problem[parts.at_node_sets + assignment * params.nodes + node];
}

// Halves the range of the target, or where that is narrow lists the assignments that reach its upper end.
fn narrow() {
    let low = of_layer(AIM_LOW, 0u);
    let high = of_layer(AIM_HIGH, 0u);
    let is_wide = high - low > max(low >> AIM_PRECISION, 1u);
    let t = select(high, low + (high - low) / 2u, is_wide);
    lay_steps(t);
    lay_merged();
    for (var number = lane; number < params.sets; number += TEAM) {
        set_of_layer(parts.at_fewest, number, fewest_of(number, t));
    }
    storageBarrier();
    var own_fits = 0u;
    for (var assignment = lane; assignment < params.enumerated; assignment += TEAM) {
        let surplus = surplus_of(assignment, t);
        set_of_layer(parts.at_surplus, assignment, surplus);
        own_fits = select(1u, own_fits, surplus == NONE);
    }
    storageBarrier();
    let fits = most_of_team(own_fits) == 1u;
    if told(select(0u, 1u, is_wide)) == 0u {
        list_assignments();
    }
    if leads {
        set_of_layer(AIM_ENDED, 0u, select(1u, 0u, is_wide));
        set_of_layer(AIM_LOW, 0u, select(low, t, is_wide && !fits));
        set_of_layer(AIM_HIGH, 0u, select(high, t, is_wide && fits));
    }
}

// The first assignments that fit, those with the least surplus; none where the range has not become narrower.
fn list_assignments() {
    let is_open = of_layer(AIM_HIGH, 0u) < limit_of(LIMIT_ABOVE);
    var last = vec2<u32>(0u, 0u);
    for (var place = 0u; place < TRIED_ASSIGNMENTS; place += 1u) {
        var mine = NO_RANK;
        for (var assignment = lane; assignment < params.enumerated; assignment += TEAM) {
            let surplus = of_layer(parts.at_surplus, assignment);
            let rank = vec2<u32>(surplus, assignment + 1u);
            let is_next = is_open && surplus != NONE && is_less(last, rank) && is_less(rank, mine);
            mine = select(mine, rank, is_next);
        }
        last = least_of_team(mine);
        if leads {
            set_of_layer(AIM_ASSIGNMENTS, place, select(last.y - 1u, NONE, last.y == NONE));
        }
    }
}

// The steps of the experts of each group, without those that too many others precede; then the largest of a group, largest first.
fn lay_steps(t: u32) {
    for (var group = lane; group < params.groups; group += TEAM) {
        let first = group * params.group_size;
        var count = 0u;
        var spread = 0u;
        for (var rank = 0u; rank < params.group_size && may_step(first, rank, t); rank += 1u) {
            let load = of_layer(parts.at_sorted, first + rank);
            count += steps_of(load, rank, t);
            spread += (max(load, 1u) - 1u) / t;
        }
        set_of_layer(parts.at_step_counts, group, count);
        set_of_layer(parts.at_overweight, group, spread);
    }
    for (var expert = lane; expert < params.experts; expert += TEAM) {
        let first = expert / params.group_size * params.group_size;
        let rank = expert - first;
        if may_step(first, rank, t) {
            var at = expert / params.group_size * params.most_steps;
            for (var i = 0u; i < rank; i += 1u) {
                at += steps_of(of_layer(parts.at_sorted, first + i), i, t);
            }
            let load = of_layer(parts.at_sorted, expert);
            let most = steps_of(load, rank, t);
            for (var j = 0u; j < most; j += 1u) {
                set_of_layer(parts.at_steps, at + j, away(load, j + 1u, t) - away(load, j, t) + 1u);
            }
        }
    }
    let kept = params.groups * params.most_foreign;
    for (var item = lane; item < kept; item += TEAM) {
        set_of_layer(parts.at_group_steps, item, 0u);
    }
    storageBarrier();
    for (var item = lane; item < params.groups * params.most_steps; item += TEAM) {
        let group = item / params.most_steps;
        let number = item % params.most_steps;
        let first = group * params.most_steps;
        let count = of_layer(parts.at_step_counts, group);
        if number < count {
            let step = of_layer(parts.at_steps, item);
            var rank = 0u;
            for (var i = 0u; i < count && rank < params.most_foreign; i += 1u) {
                let other = of_layer(parts.at_steps, first + i);
                rank += select(0u, 1u, other > step || (other == step && i < number));
            }
            if rank < params.most_foreign {
                set_of_layer(parts.at_group_steps, group * params.most_foreign + rank, step);
            }
        }
    }
    storageBarrier();
}

// Whether an expert may have steps: a heavy one, or one that few others precede.
fn may_step(first: u32, rank: u32, t: u32) -> bool {
    return rank < params.most_foreign || of_layer(parts.at_sorted, first + rank) > t;
}

fn steps_of(load: u32, rank: u32, t: u32) -> u32 {
    let few = min(parts.most_of_expert, params.most_foreign / (rank + 1u));
    return select(few, parts.most_of_expert, load > t);
}

// What `foreign` replicas of an expert take away.
fn away(load: u32, foreign: u32, t: u32) -> u32 {
    let least = (max(load, 1u) - 1u) / t + 1u;
    return part_of(load, foreign, max(foreign + 1u, least));
}

// The steps of all groups, largest first, each with its group.
fn lay_merged() {
    let kept = params.groups * params.most_foreign;
    for (var item = lane; item < kept; item += TEAM) {
        let group = item / params.most_foreign;
        let step = of_layer(parts.at_group_steps, item);
        var rank = item % params.most_foreign;
        for (var other = 0u; other < params.groups; other += 1u) {
            for (var i = 0u; i < params.most_foreign && comes_before(other, i, group, step); i += 1u) {
                rank += 1u;
            }
        }
        set_of_layer(parts.at_merged, 2u * rank, step);
        set_of_layer(parts.at_merged, 2u * rank + 1u, group);
    }
    storageBarrier();
}

fn comes_before(other: u32, place: u32, group: u32, step: u32) -> bool {
    let of_other = of_layer(parts.at_group_steps, other * params.most_foreign + place);
    return other != group && (of_other > step || (of_other == step && other < group));
}

fn merged_step(at: u32) -> i32 {
    return i32(of_layer(parts.at_merged, 2u * at));
}

fn merged_group(at: u32) -> u32 {
    return of_layer(parts.at_merged, 2u * at + 1u);
}

// The fewest foreign replicas that a set of groups needs; one more than there may be where these are too few.
fn fewest_of(number: u32, t: u32) -> u32 {
    var spread = 0u;
    for (var i = 0u; i < params.node_groups; i += 1u) {
        spread += of_layer(parts.at_overweight, group_of_set(number, i));
    }
    let by_room = min(spread - min(spread, params.spare), params.most_foreign + 1u);
    var need = beyond(of_layer(parts.at_set_loads, number), t);
    var by_load = 0u;
    let kept = params.groups * params.most_foreign;
    for (var at = 0u; at < kept && need > 0 && by_load < params.most_foreign; at += 1u) {
        if is_in_set(number, merged_group(at)) {
            need -= merged_step(at);
            by_load += 1u;
        }
    }
    return max(by_load + select(0u, 1u, need > 0), by_room);
}

// What the nodes of an assignment have beyond the target in all, or NONE where it could not reach that.
fn surplus_of(assignment: u32, t: u32) -> u32 {
    var fewest = 0u;
    var surplus = 0u;
    for (var node = 0u; node < params.nodes; node += 1u) {
        let number = set_of_node(assignment, node);
        fewest += of_layer(parts.at_fewest, number);
        surplus += u32(max(beyond(of_layer(parts.at_set_loads, number), t), 0));
    }
    var fits = fewest <= params.most_foreign;
    // The heaviest nodes together, ever more of them.
    var need = 0;
    var last = vec2<u32>(0u, 0u);
    for (var k = 1u; k < params.nodes && fits && (k == 1u || need > 0); k += 1u) {
        last = next_node(assignment, last);
        need += beyond(~last.x, t);
        let room = min(params.most_foreign, params.spare * (params.nodes - k));
        fits = reaches(assignment, last, need, room);
    }
    return select(NONE, surplus, fits);
}

// By this nodes come in the order of falling load.
fn set_rank(number: u32) -> vec2<u32> {
    return vec2<u32>(~of_layer(parts.at_set_loads, number), number);
}

fn next_node(assignment: u32, last: vec2<u32>) -> vec2<u32> {
    var next = NO_RANK;
    for (var node = 0u; node < params.nodes; node += 1u) {
        let rank = set_rank(set_of_node(assignment, node));
        next = select(next, rank, is_less(last, rank) && is_less(rank, next));
    }
    return next;
}

// Whether `room` foreign replicas of the nodes up to the last one take away what these need to.
fn reaches(assignment: u32, last: vec2<u32>, need: i32, room: u32) -> bool {
    var left = need;
    var taken = 0u;
    let kept = params.groups * params.most_foreign;
    for (var at = 0u; at < kept && left > 0 && taken < room; at += 1u) {
        if !is_less(last, set_rank(set_with(assignment, merged_group(at)))) {
            left -= merged_step(at);
            taken += 1u;
        }
    }
    return left <= 0;
}
