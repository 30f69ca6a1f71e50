// The two-slot search: the experts and the move that leave the least excess.

// The best experts to lose a replica, then those to gain one, and what becomes of their events. One loop weighs
// all experts, and then the listed ones again, since a driver that unrolled it would compile the weighing four times.
// (The bound is 4: there is no dispatch without an iteration. Of another word of the uniform block, one that the loop of
// iterations does not test, Direct3D's compiler FXC took the barriers in here to be in varying control flow.)
fn list_experts(word: u32) {
    for (var part = 0u; part < min(4u, 4u * dispatched.end); part += 1u) {
        let loses = part < 2u;
        let of_all = part % 2u == 0u;
        let place = select(LOSERS, 0u, loses);
        let listed_now = select(GAINERS, LOSERS, loses);
        let n = select(listed_now, params.node_experts, of_all);
        for (var i = lane; i < n; i += TEAM) {
            let e = select(listed_experts[place + min(i, GAINERS - 1u)], i, of_all);
            var excess = NONE;
            if e != NONE {
                let count = count_of(e);
                if select((count < params.max_count), (count > 1u), loses) {
                    let change = change_of(e, select(count + 1u, count - 1u, loses));
                    excess = excess_after(change);
                    if !of_all {
                        listed_changes[place + i] = change;
                    }
                }
            }
            if of_all {
                arena[key_at(i)] = excess;
            }
        }
        list_least(word, part);
    }
}

// In the first part of two the experts with the least keys into the places of the list, best first. A lane has the keys
// that it wrote.
fn list_least(word: u32, part: u32) {
    let place = select(LOSERS, 0u, part < 2u);
    var own = NO_RANK;
    var found = NO_RANK;
    var is_first = true;
    for (var i = 0u; i < select(0u, select(GAINERS, LOSERS, part < 2u), part % 2u == 0u); i += 1u) {
        if is_first || (found.x != NONE && found.y == own.y) {
            own = least_key(word, is_first, found);
            is_first = false;
        }
        found = least_of_team(own);
        if leads {
            listed_experts[place + i] = select(found.y & INDEX, NONE, found.x == NONE);
        }
    }
    workgroupBarrier();
}

// The least key of this lane, of all or of those above one, or NO_RANK.
fn least_key(word: u32, of_all: bool, floor: vec2<u32>) -> vec2<u32> {
    var found = NO_RANK;
    for (var e = lane; e < params.node_experts; e += TEAM) {
        let rank = rank_of_excess(arena[key_at(e)], word, e);
        if rank.x != NONE && is_less(rank, found) && (of_all || is_less(floor, rank)) {
            found = rank;
        }
    }
    return found;
}

// The move that leaves the least excess, by the places of its two experts in the lists.
fn best_move(word: u32) -> vec2<u32> {
    var own = NO_RANK;
    for (var pair = lane; pair < LOSERS * GAINERS; pair += TEAM) {
        let x = listed_experts[pair / GAINERS];
        let y = listed_experts[LOSERS + pair % GAINERS];
        if x != NONE && y != NONE && x != y {
            let excess = excess_after_both(listed_changes[pair / GAINERS], listed_changes[LOSERS + pair % GAINERS]);
            let is_free = arena[tabu_at(x)] <= iteration && arena[tabu_at(y)] <= iteration;
            let rank = rank_of_excess(excess, word, pair);
            if (is_free || excess < least) && is_less(rank, own) {
                own = rank;
            }
        }
    }
    return least_of_team(own);
}
