// Stage 1: the load of each group, and its rank among its layer's groups.
// One lane a (layer, group), in `sum_window_groups` a (layer, group, quad). Reads `problem`; writes `groups`.

@compute @workgroup_size(LANES)
fn sum_groups(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    // Groups are runs of experts, so lane and group number all groups of all layers alike.
    let first = lane * params.group_size;
    var sum = 0u;
    for (var i = 0u; i < params.group_size; i += 4u) {
        sum += load_or_zero(first, i) + load_or_zero(first, i + 1u)
            + load_or_zero(first, i + 2u) + load_or_zero(first, i + 3u);
    }
    groups[lane] = sum;
}

fn load_or_zero(first: u32, i: u32) -> u32 {
    if i < params.group_size {
        return problem[first + i];
    }
    return 0u;
}

// The load of each group in four windows.
@compute @workgroup_size(LANES)
fn sum_window_groups(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let first = lane / params.quads * params.group_size;
    let q = lane % params.quads;
    var sum = vec4<u32>(0u);
    for (var i = 0u; i < params.group_size; i += 1u) {
        let at = params.at_windows + ((first + i) * params.quads + q) * 4u;
        sum += vec4<u32>(problem[at], problem[at + 1u], problem[at + 2u], problem[at + 3u]);
    }
    let to = params.at_window_groups + lane * 4u;
    groups[to] = sum.x;
    groups[to + 1u] = sum.y;
    groups[to + 2u] = sum.z;
    groups[to + 3u] = sum.w;
}

// How many groups of the layer come before it: those with more load, then those with a lower index.
@compute @workgroup_size(LANES)
fn rank_groups(invocation: Invocation) {
    let lane = take_lane(invocation);
    if lane >= params.lanes {
        return;
    }
    let first = lane / params.groups * params.groups;
    let group = lane - first;
    let load = groups[lane];
    var rank = 0u;
    for (var i = 0u; i < params.groups; i += 4u) {
        rank += comes_before(first, i, group, load) + comes_before(first, i + 1u, group, load)
            + comes_before(first, i + 2u, group, load) + comes_before(first, i + 3u, group, load);
    }
    groups[params.at_group_rank + first + rank] = group;
}

fn comes_before(first: u32, other: u32, group: u32, load: u32) -> u32 {
    if other >= params.groups {
        return 0u;
    }
    let other_load = groups[first + other];
    return select(0u, 1u, other_load > load || (other_load == load && other < group));
}
