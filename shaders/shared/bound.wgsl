// The load that the heaviest replica of a node cannot go below. A shader that has this says what a `WeighedNode` is, and
// whether `fits(node, t)`: whether its experts need few enough replicas where none is heavier than `t`.

// The least t >= floor such that counts exist under which no replica of the node is heavier than t, by bisection.
fn lightest_heaviest(node: WeighedNode, floor: u32) -> u32 {
    var low = max(floor, 1u);
    var high = low;
    // Doubled until it fits, then bisected; in one loop, so that `fits`, which is long, is compiled once.
    var doubles = true;
    while doubles || low < high {
        let t = select(low + (high - low) / 2u, high, doubles);
        if fits(node, t) {
            high = t;
            doubles = false;
        } else {
            low = t + 1u;
            high = select(high, high * 2u, doubles);
        }
    }
    return select(high, floor, high == 1u);
}

// The replicas that an expert needs to be no heavier than `t`; more than there are if it may not have them.
fn replicas_needed(load: u32, t: u32) -> u32 {
    let needed = max((load + t - 1u) / max(t, 1u), 1u);
    return select(needed, params.node_replicas + 1u, needed > params.max_count);
}
