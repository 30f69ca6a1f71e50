// The two-slot search: the order of experts, and what the lanes of a team sum up and compare.

// Steps of a search among rows. Where few rows leave room for the trips of a loop, a number that the compiler does not
// know: unrolled, the search takes drivers on the processor long to compile.
fn depth() -> u32 {
    return select(DEPTH, min(DEPTH, params.candidate_words), DEPTH <= ROLLED_DEPTH);
}

fn goes_before(share_a: u32, a: u32, share_b: u32, b: u32) -> bool {
    return share_a > share_b || (share_a == share_b && a < b);
}

// Sorts the order: bitonic, the lower place always to hold what goes first, so that there may be nothing after the end.
fn sort_order() {
    let experts = params.node_experts;
    let pairs = (1u << (32u - countLeadingZeros(experts - 1u))) / 2u;
    for (var stage = 0u; stage < DEPTH; stage += 1u) {
        for (var step = 0u; step < stage + 1u; step += 1u) {
            storageBarrier();
            let bit = stage - step;
            let others = select(1u << bit, (2u << bit) - 1u, step == 0u);
            for (var pair = lane; pair < pairs; pair += TEAM) {
                let i = ((pair >> bit) << (bit + 1u)) + (pair & ((1u << bit) - 1u));
                let j = i ^ others;
                if j < experts {
                    sort_pair(i, j);
                }
            }
        }
    }
    storageBarrier();
}

fn sort_pair(i: u32, j: u32) {
    let a = arena[order_at(i)];
    let b = arena[order_at(j)];
    let share_a = arena[ordered_share_at(i)];
    let share_b = arena[ordered_share_at(j)];
    if goes_before(share_b, b, share_a, a) {
        arena[order_at(i)] = b;
        arena[order_at(j)] = a;
        arena[ordered_share_at(i)] = share_b;
        arena[ordered_share_at(j)] = share_a;
    }
}

// If there is a move, a replica of `x` to `y`: the order after it, in its other place, and all else that it changes.
fn reorder(moves: bool, loser: u32, gainer: u32, word: u32) {
    let x = select(0u, loser, moves);
    let y = select(0u, gainer, moves);
    let count_x = count_of(x);
    let count_y = count_of(y);
    let old_x = weight(x) / max(count_x, 1u);
    let old_y = weight(y) / max(count_y, 1u);
    let new_x = weight(x) / max(count_x - 1u, 1u);
    let new_y = weight(y) / (count_y + 1u);
    for (var i = lane; i < select(0u, params.node_experts, moves); i += TEAM) {
        let e = arena[order_at(i)];
        var share = arena[ordered_share_at(i)];
        var before = i;
        if e == x || e == y {
            share = select(new_y, new_x, e == x);
            before = experts_before(share, e);
        }
        before -= select(0u, 1u, goes_before(old_x, x, share, e)) + select(0u, 1u, goes_before(old_y, y, share, e));
        before += select(0u, 1u, goes_before(new_x, x, share, e)) + select(0u, 1u, goes_before(new_y, y, share, e));
        let other = (1u - parity) * 2u * params.node_experts;
        arena[word_at(params.at_scratch, other + before)] = e;
        arena[word_at(params.at_scratch, other + params.node_experts + before)] = share;
    }
    storageBarrier();
    parity = select(parity, 1u - parity, moves);
    if leads && moves {
        let most = 1u + params.node_experts / 4u;
        set_count(x, count_x - 1u);
        set_count(y, count_y + 1u);
        arena[tabu_at(x)] = iteration + min(4u + (word & 7u), most);
        arena[tabu_at(y)] = iteration + min(4u + ((word >> 3u) & 7u), most);
    }
    storageBarrier();
}

// Experts of the order that go before one with such a share.
fn experts_before(share: u32, expert: u32) -> u32 {
    var found = 0u;
    for (var step = 0u; step < depth(); step += 1u) {
        let next = found + (1u << (DEPTH - 1u - step));
        let i = min(next, params.node_experts) - 1u;
        let is_before = goes_before(arena[ordered_share_at(i)], arena[order_at(i)], share, expert);
        found = select(found, next, next <= params.node_experts && is_before);
    }
    return found;
}

// Experts of the order with a share above `share`.
fn experts_above(share: u32) -> u32 {
    return experts_before(share, 0u);
}

// The lowest row at or above a position.
fn row_of(at: u32) -> u32 {
    var found = 0u;
    for (var step = 0u; step < depth(); step += 1u) {
        let next = found + (1u << (DEPTH - 1u - step));
        let above = arena[position_at(min(next, rows()) - 1u)] >= at;
        found = select(found, next, next <= rows() && above);
    }
    return found - 1u;
}

// The place in the order of the expert that a replica is of, by its place in the order of replicas.
fn place_of_replica(replica: u32) -> u32 {
    var found = 0u;
    for (var step = 0u; step < depth(); step += 1u) {
        let next = found + (1u << (DEPTH - 1u - step));
        let ends = arena[replicas_to_at(min(next, params.node_experts) - 1u)] <= replica;
        found = select(found, next, next <= params.node_experts && ends);
    }
    return min(found, params.node_experts - 1u);
}

// How many rows or experts a lane has side by side, of `n`.
fn run_of(n: u32) -> u32 {
    return (n + TEAM - 1u) / TEAM;
}

// A rank: the excess, then a hash whose low bits name the choice.
fn rank_of_excess(excess: u32, word: u32, index: u32) -> vec2<u32> {
    return vec2<u32>(excess, ((word + index * PLACE_STEP) & ~INDEX) | index);
}

// The replicas up to each expert of the order.
fn count_replicas() {
    let run = run_of(params.node_experts);
    let begin = min(lane * run, params.node_experts);
    let end = min(begin + run, params.node_experts);
    var sum = 0u;
    for (var i = begin; i < end; i += 1u) {
        sum += count_of(arena[order_at(i)]);
    }
    sum = sum_before(sum);
    for (var i = begin; i < end; i += 1u) {
        sum += count_of(arena[order_at(i)]);
        arena[replicas_to_at(i)] = sum;
    }
    storageBarrier();
}
