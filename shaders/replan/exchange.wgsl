// The best exchange of a slot of the proposing GPU for a slot of another of its node. Ties go to the lower slot of the
// first, then of the other, then to the lower GPU.

// Slots of the proposing GPU that are weighed at once: a bit each.
const AT_ONCE: u32 = 32u;

// Those slots, NONE where they stay, their experts, and their loads.
var<workgroup> own_slot: array<u32, AT_ONCE>;
var<workgroup> own_expert: array<u32, AT_ONCE>;
var<workgroup> given: array<vec4<i32>, 4u * AT_ONCE>;

// The heaviest GPU of each window, the proposing one left out; its load, and the load of the next heaviest. Loads below the
// floor are raised to it.
var<workgroup> rest_gpu: array<u32, MOST_WINDOWS>;
var<workgroup> rest_first: array<i32, MOST_WINDOWS>;
var<workgroup> rest_second: array<i32, MOST_WINDOWS>;

// The best exchange that this lane found, then of all lanes: its rank by the objective after it, and its code.
var<private> mine: vec2<u32>;
var<private> exchange_found: vec2<u32>;
// The part of the objective that no exchange changes, and the loads of the proposing GPU.
var<private> left: i32;
var<private> heavy_loads: Quads;

fn find_exchange(key: u32) {
    let offered = params.exchange_slots;
    work += offered * params.slots_per_gpu * params.node_lanes * params.windows;
    lay_rest();
    let drawn = below(draw(key, DRAW_OFFERS + iteration), params.slots_per_gpu);
    let first = select(drawn, 0u, offered == params.slots_per_gpu);
    left = all_squares - squares_of(heavy) + price_now();
    heavy_loads = quads_at(gpu_at(heavy));
    mine = NO_RANK;
    for (var chunk = 0u; chunk < dispatched.exchange_slots; chunk += 32u) {
        let count = min(AT_ONCE, offered - chunk);
        lay_own(first + chunk, count);
        workgroupBarrier();
        lay_marks(count);
        storageBarrier();
        for (var item = lane; item < params.slots_per_gpu * params.node_gpus; item += TEAM) {
            weigh_exchanges(item / params.node_gpus, item % params.node_gpus, count);
        }
        workgroupBarrier();
    }
    exchange_found = least_of_team(mine);
}

// For each window, the heaviest GPUs but the proposing one.
fn lay_rest() {
    for (var window = lane; window < 4u * QUADS; window += TEAM) {
        let is_first = top_gpu[3u * window] == heavy;
        let is_second = top_gpu[3u * window + 1u] == heavy;
        let first = 3u * window + select(0u, 1u, is_first);
        let second = 3u * window + select(1u, 2u, is_first || is_second);
        rest_gpu[window] = top_gpu[first];
        rest_first[window] = max(top_load[first], floor_of(window));
        rest_second[window] = max(top_load[second], floor_of(window));
    }
    workgroupBarrier();
}

// The heaviest GPU of each window, when `gpu` and the proposing GPU are left out.
fn rest_without(gpu: u32) -> Quads {
    var quads = Quads();
    quads.a = rest_four(gpu, 0u);
    if QUADS > 1u {
        quads.b = rest_four(gpu, 4u);
    }
    if QUADS > 2u {
        quads.c = rest_four(gpu, 8u);
    }
    if QUADS > 3u {
        quads.d = rest_four(gpu, 12u);
    }
    return quads;
}

fn rest_four(gpu: u32, first: u32) -> vec4<i32> {
    return vec4<i32>(
        rest_of(gpu, first),
        rest_of(gpu, first + 1u),
        rest_of(gpu, first + 2u),
        rest_of(gpu, first + 3u),
    );
}

fn rest_of(gpu: u32, window: u32) -> i32 {
    return select(rest_first[window], rest_second[window], rest_gpu[window] == gpu);
}

// The slots that are weighed now.
fn lay_own(first: u32, count: u32) {
    for (var own = lane; own < count; own += TEAM) {
        let slot = (first + own) % params.slots_per_gpu;
        own_slot[own] = select(NONE, slot, tabu_of(slot, heavy) <= iteration);
        own_expert[own] = expert_in(slot, heavy);
        let loads = quads_at(load_at(slot, heavy));
        given[4u * own] = loads.a;
        given[4u * own + 1u] = loads.b;
        given[4u * own + 2u] = loads.c;
        given[4u * own + 3u] = loads.d;
    }
}

// For each GPU of the node, which of these slots it must not take, and for which it would have to pay.
fn lay_marks(count: u32) {
    for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
        var closed = 0u;
        var paid = 0u;
        for (var own = 0u; own < count; own += 1u) {
            let expert = own_expert[own];
            let stays = own_slot[own] == NONE || holds(low + gpu, expert) || !may_go(expert, heavy, low + gpu);
            closed |= select(0u, 1u << own, stays);
            paid |= select(0u, 1u << own, expert != FREE && !has(params.at_home, expert, low + gpu));
        }
        arena[word_at(params.at_marks, 2u * gpu)] = closed;
        arena[word_at(params.at_marks, 2u * gpu + 1u)] = paid;
    }
}

// Weighs the exchanges of all these slots for a slot of another GPU.
fn weigh_exchanges(slot: u32, node_gpu: u32, count: u32) {
    let gpu = low + node_gpu;
    let expert = expert_in(slot, gpu);
    if gpu == heavy || tabu_of(slot, gpu) > iteration || holds(heavy, expert) || !may_go(expert, gpu, heavy) {
        return;
    }
    let closed = arena[word_at(params.at_marks, 2u * node_gpu)];
    let paid = arena[word_at(params.at_marks, 2u * node_gpu + 1u)];
    let left_free = arena[word_at(params.at_marks, 2u * (heavy - low) + 1u)];
    let base = left - squares_of(gpu) + cost(expert, heavy) - cost(expert, gpu);
    let taken = quads_at(load_at(slot, gpu));
    // The loads of both GPUs without the slots that they exchange.
    let here = plus(heavy_loads, taken);
    let there = minus(quads_at(gpu_at(gpu)), taken);
    let rest = rest_without(gpu);
    for (var own = 0u; own < count; own += 1u) {
        let code = (own_slot[own] * params.slots_per_gpu + slot) * params.node_gpus + node_gpu;
        let pays = i32((paid >> own) & 1u) - i32((left_free >> own) & 1u);
        let rank = vec2<u32>(ranked(base + pays * price + exchanged(own, here, there, rest)), code);
        let is_open = ((closed >> own) & 1u) == 0u;
        mine = select(mine, rank, is_open && is_less(rank, mine));
    }
}

// The heaviest GPUs and the squares after an exchange, all windows together.
fn exchanged(own: u32, here: Quads, there: Quads, rest: Quads) -> i32 {
    var sum = exchanged_four(given[4u * own], here.a, there.a, rest.a, scale_a);
    if QUADS > 1u {
        sum += exchanged_four(given[4u * own + 1u], here.b, there.b, rest.b, scale_b);
    }
    if QUADS > 2u {
        sum += exchanged_four(given[4u * own + 2u], here.c, there.c, rest.c, scale_c);
    }
    if QUADS > 3u {
        sum += exchanged_four(given[4u * own + 3u], here.d, there.d, rest.d, scale_d);
    }
    return sum_of_four(sum);
}

fn exchanged_four(
    loads: vec4<i32>,
    here: vec4<i32>,
    there: vec4<i32>,
    rest: vec4<i32>,
    scale: Scale,
) -> vec4<i32> {
    let x = here - loads;
    let y = there + loads;
    return max(max(x, y), rest) + square(x, scale) + square(y, scale);
}
