// The two-slot search: the table of a target, and the excess after other counts by it.

// The row of each expert's event, where it lies, and what it counts. Of events in one place light ones come first.
fn place_events() {
    let experts = params.node_experts;
    for (var i = lane; i < experts; i += TEAM) {
        let e = arena[order_at(i)];
        let share = arena[ordered_share_at(i)];
        let is_heavy = share > half_goal;
        let room = goal - min(share, goal);
        // Up to what a partner may have the event above those of the others, the heavy ones before it and the light ones
        // after it.
        let above = experts_above(select(room, min(room, half_goal), is_heavy));
        let lighter = select(experts - above, 0u, share > goal);
        let row = select(experts - i + above, 1u + i + lighter, is_heavy);
        let count = count_of(e);
        arena[event_row_at(e)] = row;
        arena[position_at(row)] = select(room, share, is_heavy);
        arena[surplus_at(row)] = select(0u - count, count, is_heavy);
    }
    if leads {
        arena[position_at(0u)] = FIXED_TOTAL;
        arena[surplus_at(0u)] = 0u;
        arena[position_at(experts + 1u)] = half_goal;
        arena[surplus_at(experts + 1u)] = 0u;
    }
    storageBarrier();
}

// The numbers that a row adds to the columns: its length times the surplus with the column's number, where that is positive.
fn added(sums: array<vec4<u32>, 4>, length: u32, surplus: u32) -> array<vec4<u32>, 4> {
    var after = sums;
    for (var i = 0u; i < 4u; i += 1u) {
        let by = vec4<i32>(bitcast<i32>(surplus) + LEAST_ADDED + i32(4u * i)) + vec4<i32>(0, 1, 2, 3);
        after[i] += vec4<u32>(max(by, vec4<i32>(0))) * length;
    }
    return after;
}

// The surplus below each row, from what each event counts, and the excess down to each row.
fn sum_rows() {
    let last = params.node_experts + 1u;
    let run = run_of(last + 1u);
    let begin = min(lane * run, last + 1u);
    let end = min(begin + run, last + 1u);
    var surplus = 0u;
    for (var row = begin; row < end; row += 1u) {
        surplus += arena[surplus_at(row)];
    }
    surplus = sum_before(surplus);
    var sums = array<vec4<u32>, 4>();
    for (var row = begin; row < end; row += 1u) {
        surplus += arena[surplus_at(row)];
        arena[surplus_at(row)] = surplus;
        sums = added(sums, length_of(row), surplus);
    }
    for (var i = 0u; i < 4u; i += 1u) {
        columns_reported[4u * lane + i] = sums[i];
    }
    workgroupBarrier();
    sums = array<vec4<u32>, 4>();
    for (var other = 0u; other < TEAM; other += 1u) {
        for (var i = 0u; i < 4u; i += 1u) {
            sums[i] += select(vec4<u32>(0u), columns_reported[4u * other + i], other < lane);
        }
    }
    for (var row = begin; row < end; row += 1u) {
        for (var column = 0u; column < COLUMNS; column += 1u) {
            arena[excess_at(row, column)] = sums[column / 4u][column % 4u];
        }
        sums = added(sums, length_of(row), arena[surplus_at(row)]);
    }
    storageBarrier();
}

// From a row down to the next.
fn length_of(row: u32) -> u32 {
    return arena[position_at(row)] - arena[position_at(min(row + 1u, params.node_experts + 1u))];
}

// The change of an expert's event with another number of replicas.
fn change_of(expert: u32, count: u32) -> Change {
    let old = count_of(expert);
    let was_heavy = weight(expert) / max(old, 1u) > half_goal;
    let row = arena[event_row_at(expert)];
    let goes = Event(arena[position_at(row)], row, bitcast<i32>(select(old, 0u - old, was_heavy)));
    let share = weight(expert) / max(count, 1u);
    let is_heavy = share > half_goal;
    let at = select(goal - share, share, is_heavy);
    let comes = Event(at, row_of(at), bitcast<i32>(select(0u - count, count, is_heavy)));
    var change = Change(comes, goes);
    if goes.at >= comes.at {
        change = Change(goes, comes);
    }
    return change;
}

// The excess down to an event with the surplus raised by `above`, less the excess with the event counted too.
fn difference(event: Event, above: i32) -> u32 {
    let surplus = bitcast<i32>(arena[surplus_at(event.row)]);
    let length = arena[position_at(event.row)] - event.at;
    let more = clamp(above, LEAST_ADDED, MOST_ADDED);
    let with_event = clamp(above + event.step, LEAST_ADDED, MOST_ADDED);
    let rest = length * u32(max(surplus + more, 0)) - length * u32(max(surplus + with_event, 0));
    let cells = excess_at(event.row, 0u);
    return arena[cells + u32(more - LEAST_ADDED)]
        - arena[cells + u32(with_event - LEAST_ADDED)] + rest;
}

fn excess_in_all(by: i32) -> u32 {
    let added = clamp(by, LEAST_ADDED, MOST_ADDED);
    return arena[excess_at(params.node_experts + 1u, u32(added - LEAST_ADDED))];
}

fn excess_after(change: Change) -> u32 {
    let by = change.high.step;
    return difference(change.high, 0) + difference(change.low, by) + excess_in_all(by + change.low.step);
}

fn excess_after_both(a: Change, b: Change) -> u32 {
    // The events above each event: of equals those of `a` come first.
    let high_a = select(0, b.high.step, b.high.at > a.high.at) + select(0, b.low.step, b.low.at > a.high.at);
    let low_a = select(0, b.high.step, b.high.at > a.low.at) + select(0, b.low.step, b.low.at > a.low.at);
    let high_b = select(0, a.high.step, a.high.at >= b.high.at) + select(0, a.low.step, a.low.at >= b.high.at);
    let low_b = select(0, a.high.step, a.high.at >= b.low.at) + select(0, a.low.step, a.low.at >= b.low.at);
    return difference(a.high, high_a) + difference(a.low, a.high.step + low_a)
        + difference(b.high, high_b) + difference(b.low, b.high.step + low_b)
        + excess_in_all(a.high.step + a.low.step + b.high.step + b.low.step);
}
