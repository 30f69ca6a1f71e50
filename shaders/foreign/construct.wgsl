// Replicas for a target, by node totals: a heavy node's experts get foreign replicas until what is left fits. The mirrors are
// `src/foreign/nodes.rs` and `src/foreign/construct.rs`.
//
// The experts of a candidate are those that may have several replicas, as many of each node.

// How often a node's choice is brought closer to what it needs.
const CLOSER: u32 = 2u;

fn home_of(e: u32) -> u32 {
    return e / params.active_experts;
}

// Experts of all nodes.
fn experts_here() -> u32 {
    return params.active_experts * params.nodes;
}

fn here_of(e: u32, node: u32) -> u32 {
    return own(parts.at_here, e * params.nodes + node);
}

fn set_here(e: u32, node: u32, count: u32) {
    set_own(parts.at_here, e * params.nodes + node, count);
}

fn expert_load(e: u32) -> u32 {
    return own(params.at_load, e);
}

fn share_of(e: u32) -> u32 {
    return own(parts.at_shares, e);
}

fn beside_of(node: u32) -> u32 {
    return own(parts.at_beside, node);
}

// The nodes of an assignment: their experts by falling load, and what they carry.
fn lay_nodes(assignment: u32) {
    for (var item = lane; item < params.experts; item += TEAM) {
        let node = item / params.node_experts;
        let number = set_of_node(assignment, node);
        let expert = expert_of_set(number, item % params.node_experts);
        let load = load_of(expert);
        var rank = 0u;
        for (var i = 0u; i < params.node_experts; i += 1u) {
            let other = expert_of_set(number, i);
            let of_other = load_of(other);
            rank += select(0u, 1u, of_other > load || (of_other == load && other < expert));
        }
        set_own(parts.at_falling, node * params.node_experts + rank, load);
        if rank < params.active_experts {
            set_own(params.at_expert, node * params.active_experts + rank, expert);
            set_own(params.at_load, node * params.active_experts + rank, load);
        }
    }
    storageBarrier();
    for (var node = lane; node < params.nodes; node += TEAM) {
        var total = 0u;
        var rest = 0u;
        var beside = 0u;
        for (var rank = 0u; rank < params.node_experts; rank += 1u) {
            let load = own(parts.at_falling, node * params.node_experts + rank);
            total += load;
            rest += select(0u, load, rank >= params.active_experts);
            beside += select(0u, load, rank + parts.beside >= params.node_experts);
        }
        set_own(parts.at_node_totals, node, total);
        set_own(parts.at_rest, node, rest);
        set_own(parts.at_beside, node, beside);
    }
    storageBarrier();
}

fn expert_of_set(number: u32, place: u32) -> u32 {
    return group_of_set(number, place / params.group_size) * params.group_size + place % params.group_size;
}

// Constructs for a target, and keeps that if it is better than what was constructed before.
fn construct_step(t: u32) {
    choose_foreign(t);
    var is_open = told(lay_home());
    if is_open == 1u {
        is_open = told(place_foreign());
    }
    if is_open == 1u {
        is_open = told(fill());
    }
    if is_open == 1u {
        finish();
        let built = value_now();
        let before = control(C_BUILT);
        if told(select(0u, 1u, built < before)) == 1u {
            keep_best();
            if leads {
                set_control(C_BUILT, built);
                set_control(C_VALUE, built);
            }
        }
    }
}

fn keep_best() {
    for (var at = lane; at < experts_here() * params.nodes; at += TEAM) {
        set_own(parts.at_best_here, at, own(parts.at_here, at));
    }
}

// How many foreign replicas each expert gets: node after node, each next one where it takes most away, until the node needs no
// more. (The leader tells the number of nodes for the sake of FXC, Direct3D's compiler. Where this loop and one over lanes test the
// same uniform word, FXC merges their first tests, and rejects the barriers in here as ones in varying control flow.)
fn choose_foreign(t: u32) {
    for (var e = lane; e < experts_here(); e += TEAM) {
        set_own(parts.at_wanted, e, wanted(e, t));
        set_own(parts.at_away, e, 0u);
    }
    storageBarrier();
    var left = params.most_foreign;
    let nodes = told(dispatched.nodes);
    for (var node = 0u; node < nodes; node += 1u) {
        let first = node * params.active_experts;
        var need = beyond(own(parts.at_node_totals, node), t);
        for (var number = 0u; number < dispatched.most_foreign; number += 1u) {
            var mine = NO_RANK;
            for (var i = lane; i < params.active_experts; i += TEAM) {
                let rank = vec2<u32>(~next_step(first + i), i);
                mine = select(mine, rank, ~rank.x > 0u && is_less(rank, mine));
            }
            let best = least_of_team(mine);
            if told(select(NONE, best.y, need > 0 && left > 0u)) == NONE {
                break;
            }
            need -= i32(~best.x);
            left -= 1u;
            if leads {
                set_own(parts.at_away, first + best.y, own(parts.at_away, first + best.y) + 1u);
            }
            storageBarrier();
        }
        for (var turn = 0u; turn < CLOSER; turn += 1u) {
            need += closer(first, -need);
        }
    }
}

// The fewest replicas of an expert such that a GPU with one of them and the lightest experts of the node keeps to the target.
fn wanted(e: u32, t: u32) -> u32 {
    let beside = beside_of(home_of(e));
    let room = max(t - min(t, beside), 1u);
    return min((max(expert_load(e), 1u) - 1u) / room + 1u, parts.most_wanted);
}

// What foreign replicas of an expert take away.
fn taken(e: u32, foreign: u32) -> u32 {
    return part_of(expert_load(e), foreign, max(foreign + 1u, own(parts.at_wanted, e)));
}

// What one more of them takes away.
fn next_step(e: u32) -> u32 {
    let next = own(parts.at_away, e) + 1u;
    return select(taken(e, next) - taken(e, next - 1u), 0u, next > parts.most_away);
}

// A node may send away more than it needs to. This exchanges an expert with one foreign replica for one without, so that as
// much as possible of that surplus stays; returns how much.
fn closer(first: u32, too_much: i32) -> i32 {
    var mine = NO_RANK;
    for (var out = 0u; out < params.active_experts && too_much > 0; out += 1u) {
        if own(parts.at_away, first + out) == 1u {
            let of_out = i32(taken(first + out, 1u));
            for (var other = lane; other < params.active_experts; other += TEAM) {
                let stays = of_out - i32(taken(first + other, 1u));
                let rank = vec2<u32>(~u32(stays), out * params.active_experts + other);
                let fits = own(parts.at_away, first + other) == 0u && stays > 0 && stays <= too_much;
                mine = select(mine, rank, fits && is_less(rank, mine));
            }
        }
    }
    let best = least_of_team(mine);
    if leads && best.y != NONE {
        set_own(parts.at_away, first + best.y / params.active_experts, 0u);
        set_own(parts.at_away, first + best.y % params.active_experts, 1u);
    }
    storageBarrier();
    return i32(~best.x);
}

// The replicas of experts at home; 0 where nodes have no room for them.
fn lay_home() -> u32 {
    for (var e = lane; e < experts_here(); e += TEAM) {
        let foreign = own(parts.at_away, e);
        let fewest = own(parts.at_wanted, e);
        let count = select(fewest, max(fewest, foreign + 1u), foreign > 0u);
        for (var node = 0u; node < params.nodes; node += 1u) {
            set_here(e, node, select(0u, count - foreign, node == home_of(e)));
        }
        set_count(e, count);
        set_own(parts.at_shares, e, expert_load(e) / max(count, 1u));
        set_own(parts.at_leaving, e, foreign);
    }
    storageBarrier();
    var closed = 0u;
    for (var node = lane; node < params.nodes; node += TEAM) {
        var free = i32(params.spare);
        var total = i32(own(parts.at_node_totals, node));
        for (var i = 0u; i < params.active_experts; i += 1u) {
            let e = node * params.active_experts + i;
            free -= i32(here_of(e, node)) - 1;
            total -= i32(share_of(e) * own(parts.at_away, e));
        }
        set_own(parts.at_free, node, u32(free));
        set_own(parts.at_totals, node, u32(total));
        closed = select(closed, 1u, free < 0);
    }
    storageBarrier();
    return 1u - most_of_team(closed);
}

// Places foreign replicas, the heaviest first, each in the lightest node with room for it; 0 where there is none.
fn place_foreign() -> u32 {
    var is_open = 1u;
    for (var number = 0u; number < dispatched.most_foreign; number += 1u) {
        var mine = NO_RANK;
        for (var e = lane; e < experts_here(); e += TEAM) {
            let rank = vec2<u32>(~share_of(e), e);
            mine = select(mine, rank, own(parts.at_leaving, e) > 0u && is_less(rank, mine));
        }
        let e = told(least_of_team(mine).y);
        if e == NONE {
            break;
        }
        var lightest = NO_RANK;
        for (var node = 0u; node < params.nodes; node += 1u) {
            let rank = vec2<u32>(own(parts.at_totals, node) + MOST_ROOM, node);
            let has_room = own(parts.at_free, node) > 0u && here_of(e, node) < parts.most_here;
            lightest = select(lightest, rank, node != home_of(e) && has_room && is_less(rank, lightest));
        }
        let node = told(lightest.y);
        if node == NONE {
            is_open = 0u;
            break;
        }
        if leads {
            set_here(e, node, here_of(e, node) + 1u);
            set_own(parts.at_free, node, own(parts.at_free, node) - 1u);
            set_own(parts.at_totals, node, own(parts.at_totals, node) + share_of(e));
            set_own(parts.at_leaving, e, own(parts.at_leaving, e) - 1u);
        }
        storageBarrier();
    }
    return is_open;
}

// Fills what is free in each node with further replicas of its own experts, the heaviest first; of those with foreign replicas
// none, if possible, since a copy at home calls load back. 0 where something stays free.
fn fill() -> u32 {
    var closed = 0u;
    for (var node = lane; node < params.nodes; node += TEAM) {
        let first = node * params.active_experts;
        let free = own(parts.at_free, node);
        for (var number = 0u; number < free && closed == 0u; number += 1u) {
            var heaviest = NONE;
            for (var e = first; e < first + params.active_experts; e += 1u) {
                let is_open = here_of(e, node) < parts.most_here && count_of(e) < params.max_count;
                if is_open && is_heavier(e, heaviest) {
                    heaviest = e;
                }
            }
            if heaviest == NONE {
                closed = 1u;
            } else {
                set_here(heaviest, node, here_of(heaviest, node) + 1u);
                set_count(heaviest, count_of(heaviest) + 1u);
            }
        }
    }
    storageBarrier();
    return 1u - most_of_team(closed);
}

// Whether an expert comes before another, if there is one, when free slots are filled. (One way out, as in `take_team`.)
fn is_heavier(e: u32, other: u32) -> bool {
    let against = select(other, e, other == NONE);
    let is_away = own(parts.at_away, e) > 0u;
    let is_other_away = own(parts.at_away, against) > 0u;
    let load = mul_wide(expert_load(e), count_of(against));
    let of_other = mul_wide(expert_load(against), count_of(e));
    let by_load = wide_greater(load, of_other) || (!wide_greater(of_other, load) && e < against);
    return other == NONE || select(by_load, !is_away, is_away != is_other_away);
}

// Counts and loads of replicas, and the loads of nodes, from the replicas that nodes hold.
fn finish() {
    for (var e = lane; e < experts_here(); e += TEAM) {
        var count = 0u;
        for (var node = 0u; node < params.nodes; node += 1u) {
            count += here_of(e, node);
        }
        set_count(e, count);
        set_own(parts.at_shares, e, expert_load(e) / max(count, 1u));
    }
    storageBarrier();
    for (var node = lane; node < params.nodes; node += TEAM) {
        var total = own(parts.at_rest, node);
        for (var e = 0u; e < experts_here(); e += 1u) {
            total += share_of(e) * here_of(e, node);
        }
        set_own(parts.at_totals, node, total);
    }
    storageBarrier();
}

// An estimate of the heaviest GPU from below: the mean GPU of a node, or a replica with the lightest experts of its home.
fn value_now() -> u32 {
    var most = 0u;
    for (var node = lane; node < params.nodes; node += TEAM) {
        most = max(most, (own(parts.at_totals, node) + params.node_gpus - 1u) / params.node_gpus);
    }
    for (var e = lane; e < experts_here(); e += TEAM) {
        most = max(most, share_of(e) + beside_of(home_of(e)));
    }
    return most_of_team(most);
}
