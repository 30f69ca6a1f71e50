// Replicas change from one expert to another, always by the change that leaves the least over a target a little below the best
// so far. The mirror is `src/foreign/tabu.rs`.

// No excess is least yet.
const NO_GAP: i32 = 0x7fffffff;

var<private> iteration: u32;
var<private> since: u32;
var<private> shift: u32;
var<private> best: u32;
var<private> gap: i32;
var<private> foreign: u32;

// The effect of another number of replicas of an expert: see the mirror.
struct Changed {
    share: u32,
    step: i32,
    heavy: i32,
    nodes: i32,
}

const CHANGED_WORDS: u32 = 4u;

fn changed_of(part: u32, e: u32) -> Changed {
    let at = CHANGED_WORDS * e;
    return Changed(own(part, at), i32(own(part, at + 1u)), i32(own(part, at + 2u)), i32(own(part, at + 3u)));
}

fn set_changed(part: u32, e: u32, changed: Changed) {
    let at = CHANGED_WORDS * e;
    set_own(part, at, changed.share);
    set_own(part, at + 1u, u32(changed.step));
    set_own(part, at + 2u, u32(changed.heavy));
    set_own(part, at + 3u, u32(changed.nodes));
}

// Begins with the best construction, if no construction of the layer is good enough.
fn begin_search() {
    var ended = control(C_BUILT) == NONE;
    for (var place = 0u; place < TRIED_ASSIGNMENTS; place += 1u) {
        let other = words_of(my_layer * TRIED_ASSIGNMENTS + place) + params.at_control;
        ended = ended || arena[other + C_BUILT] <= enough_load;
    }
    for (var at = lane; at < experts_here() * params.nodes; at += TEAM) {
        set_own(parts.at_here, at, own(parts.at_best_here, at));
    }
    clear_marks();
    storageBarrier();
    finish();
    var own_foreign = 0u;
    for (var e = lane; e < experts_here(); e += TEAM) {
        own_foreign += count_of(e) - here_of(e, home_of(e));
    }
    let all_foreign = sum_of_team(own_foreign);
    if leads {
        set_control(C_END, select(END_RUNNING, END_STUCK, ended));
        set_control(C_ITERATION, 0u);
        set_control(C_SINCE, 0u);
        set_control(C_SHIFT, HANDOVER_FIRST_SHIFT);
        set_control(C_GAP, u32(NO_GAP));
        set_control(C_FOREIGN, all_foreign);
    }
    storageBarrier();
}

fn clear_marks() {
    for (var e = lane; e < experts_here(); e += TEAM) {
        set_own(params.at_no_loss, e, 0u);
        set_own(params.at_no_gain, e, 0u);
    }
}

// The iterations of a dispatch; the next one goes on from the control block.
fn search(assignment: u32) {
    iteration = control(C_ITERATION);
    since = control(C_SINCE);
    shift = control(C_SHIFT);
    best = control(C_VALUE);
    gap = i32(control(C_GAP));
    foreign = control(C_FOREIGN);
    let key = start_key(assignment, 0u);
    var ended = 0u;
    for (var done = dispatched.begin; done < dispatched.end; done += 1u) {
        iteration += 1u;
        make_move(key, max(aim_of_layer(), best - 1u - (best >> shift)));
        ended = told(judge());
        if ended == 1u {
            break;
        }
    }
    if leads {
        set_control(C_END, select(END_RUNNING, END_STUCK, ended == 1u));
        set_control(C_ITERATION, iteration);
        set_control(C_SINCE, since);
        set_control(C_SHIFT, shift);
        set_control(C_VALUE, best);
        set_control(C_GAP, u32(gap));
        set_control(C_FOREIGN, foreign);
    }
}

// Keeps what is better than all before; 1 where the search is at its end.
fn judge() -> u32 {
    let value = value_now();
    var ended = iteration == HANDOVER_ITERATIONS;
    if told(select(0u, 1u, value < best)) == 1u {
        best = value;
        gap = NO_GAP;
        since = 0u;
        keep_best();
        ended = ended || best <= enough_load;
    } else {
        since += 1u;
        if since % HANDOVER_HALVED_AFTER == 0u && shift < HANDOVER_LAST_SHIFT {
            shift += 1u;
            gap = NO_GAP;
        }
        ended = ended || since >= HANDOVER_PATIENCE;
    }
    return select(0u, 1u, ended);
}

// Makes the change that leaves the least excess over the target `t`; one that is forbidden only where it leaves less than any did.
fn make_move(key: u32, t: u32) {
    for (var e = lane; e < experts_here(); e += TEAM) {
        let count = count_of(e);
        if count > 1u {
            set_changed(parts.at_less, e, weigh(e, count - 1u, t));
        }
        set_changed(parts.at_more, e, weigh(e, count + 1u, t));
    }
    storageBarrier();
    for (var item = lane; item < 2u * params.nodes; item += TEAM) {
        offer(item / 2u, item % 2u == 0u, t);
    }
    storageBarrier();
    let pairs = HANDOVER_LOSERS * HANDOVER_GAINERS;
    var mine = NO_RANK;
    for (var item = lane; item < pairs * params.nodes; item += TEAM) {
        let node = item / pairs;
        let loser = own(parts.at_offers, offer_at(node, true) + item % pairs / HANDOVER_GAINERS);
        let gainer = own(parts.at_offers, offer_at(node, false) + item % HANDOVER_GAINERS);
        if loser != NONE && gainer != NONE && loser != gainer && foreign_after(node, loser, gainer) <= params.most_foreign {
            let excess = both(node, loser, gainer, t);
            let rank = vec2<u32>(ordered(excess), item);
            let is_forbidden = own(params.at_no_loss, loser) > iteration || own(params.at_no_gain, gainer) > iteration;
            mine = select(mine, rank, !(is_forbidden && excess >= gap) && is_less(rank, mine));
        }
    }
    let found = least_of_team(mine);
    let item = told(found.y);
    if item == NONE {
        clear_marks();
    } else {
        let node = item / pairs;
        let loser = own(parts.at_offers, offer_at(node, true) + item % pairs / HANDOVER_GAINERS);
        let gainer = own(parts.at_offers, offer_at(node, false) + item % HANDOVER_GAINERS);
        foreign = foreign_after(node, loser, gainer);
        gap = select(clamp(gap - unordered(found.x), -i32(MOST_ROOM), 0), 0, gap == NO_GAP);
        change(key, node, loser, gainer);
    }
    storageBarrier();
}

// Signed numbers as words in the same order.
fn ordered(number: i32) -> u32 {
    return u32(number) ^ 0x80000000u;
}

fn unordered(word: u32) -> i32 {
    return i32(word ^ 0x80000000u);
}

fn foreign_after(node: u32, loser: u32, gainer: u32) -> u32 {
    return foreign + select(0u, 1u, home_of(gainer) != node) - select(0u, 1u, home_of(loser) != node);
}

fn excess_of(node: u32, t: u32) -> i32 {
    return beyond(own(parts.at_totals, node), t);
}

// Weighs an expert with another number of replicas.
fn weigh(e: u32, count: u32, t: u32) -> Changed {
    let share = expert_load(e) / max(count, 1u);
    let step = i32(share) - i32(share_of(e));
    var nodes = 0;
    for (var node = 0u; node < params.nodes; node += 1u) {
        let excess = excess_of(node, t);
        nodes += max(excess + i32(here_of(e, node)) * step, 0) - max(excess, 0);
    }
    return Changed(share, step, heavy(e, share, count, t) - heavy(e, share_of(e), count_of(e), t), nodes);
}

// By how much GPUs with an expert's replicas pass the target, all together: each carries the lightest experts of its home too.
fn heavy(e: u32, share: u32, count: u32, t: u32) -> i32 {
    let load = share + beside_of(home_of(e));
    let excess = load - min(load, t);
    return i32(select(min(excess * count, FIXED_TOTAL), FIXED_TOTAL, excess > FIXED_TOTAL / max(count, 1u)));
}

// Where the experts begin that a node offers to lose a replica, or to gain one.
fn offer_at(node: u32, loses: bool) -> u32 {
    return (2u * node + select(1u, 0u, loses)) * HANDOVER_GAINERS;
}

// The experts that would leave least with a replica less in a node, or with one more. (Of losers more are listed than looked at.)
fn offer(node: u32, loses: bool, t: u32) {
    var list: array<vec2<u32>, HANDOVER_GAINERS>;
    for (var i = 0u; i < HANDOVER_GAINERS; i += 1u) {
        list[i] = NO_RANK;
    }
    let excess = excess_of(node, t);
    for (var e = 0u; e < experts_here(); e += 1u) {
        let here = here_of(e, node);
        let may_lose = here > select(0u, 1u, home_of(e) == node);
        let may_gain = here < parts.most_here && count_of(e) < params.max_count;
        if select(may_gain, may_lose, loses) {
            let changed = changed_of(select(parts.at_more, parts.at_less, loses), e);
            let added = select(i32(changed.share), -i32(changed.share), loses);
            let then = excess + i32(here) * changed.step;
            let left = changed.heavy + changed.nodes + max(then + added, 0) - max(then, 0);
            var next = vec2<u32>(ordered(left), e);
            for (var i = 0u; i < HANDOVER_GAINERS; i += 1u) {
                let here_before = list[i];
                let comes = is_less(next, here_before);
                list[i] = select(here_before, next, comes);
                next = select(next, here_before, comes);
            }
        }
    }
    for (var i = 0u; i < HANDOVER_GAINERS; i += 1u) {
        set_own(parts.at_offers, offer_at(node, loses) + i, list[i].y);
    }
}

// The change of a node's load.
fn changed_load(n: u32, node: u32, loser: u32, gainer: u32, less: Changed, more: Changed) -> i32 {
    let replica = select(0, i32(more.share) - i32(less.share), n == node);
    return i32(here_of(loser, n)) * less.step + i32(here_of(gainer, n)) * more.step + replica;
}

// The excess that a change adds.
fn both(node: u32, loser: u32, gainer: u32, t: u32) -> i32 {
    let less = changed_of(parts.at_less, loser);
    let more = changed_of(parts.at_more, gainer);
    var sum = less.heavy + more.heavy;
    for (var n = 0u; n < params.nodes; n += 1u) {
        let excess = excess_of(n, t);
        sum += max(excess + changed_load(n, node, loser, gainer, less, more), 0) - max(excess, 0);
    }
    return sum;
}

// A replica of the loser in a node becomes one of the gainer.
fn change(key: u32, node: u32, loser: u32, gainer: u32) {
    let less = changed_of(parts.at_less, loser);
    let more = changed_of(parts.at_more, gainer);
    for (var n = lane; n < params.nodes; n += TEAM) {
        let added = changed_load(n, node, loser, gainer, less, more);
        set_own(parts.at_totals, n, u32(i32(own(parts.at_totals, n)) + added));
    }
    storageBarrier();
    if leads {
        set_here(loser, node, here_of(loser, node) - 1u);
        set_here(gainer, node, here_of(gainer, node) + 1u);
        set_count(loser, count_of(loser) - 1u);
        set_count(gainer, count_of(gainer) + 1u);
        set_own(parts.at_shares, loser, less.share);
        set_own(parts.at_shares, gainer, more.share);
        let word = draw(key, DRAW_TENURE + iteration);
        let until = iteration + HANDOVER_TENURE;
        set_own(params.at_no_loss, gainer, until + (word & 0xffffu) % HANDOVER_TENURES);
        set_own(params.at_no_gain, loser, until + (word >> 16u) % HANDOVER_TENURES);
    }
}
