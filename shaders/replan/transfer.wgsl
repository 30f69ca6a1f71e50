// The best transfer: a slot within reach becomes a further replica of the heaviest expert on the proposing GPU. Ties go to
// the exchange, then to the lower slot, then to the lower GPU.

// The load of a new replica, window by window.
var<workgroup> share_of: array<i32, MOST_WINDOWS>;

// The best transfer of all lanes, as `exchange_found`; no rank where the exchange is as good.
var<private> transfer_found: vec2<u32>;
// The expert that gains a replica.
var<private> gainer: u32;
var<private> share: Quads;

fn find_transfer() {
    transfer_found = NO_RANK;
    let slot = heaviest_slot();
    gainer = expert_in(slot, heavy);
    if told(select(0u, 1u, may_gain())) == 1u {
        work += params.slots_per_gpu * (reach() / params.node_gpus * params.node_lanes) * params.windows;
        let shrunk = lay_after();
        share = Quads();
        share.a = share_four(0u);
        if QUADS > 1u {
            share.b = share_four(4u);
        }
        if QUADS > 2u {
            share.c = share_four(8u);
        }
        if QUADS > 3u {
            share.d = share_four(12u);
        }
        left = all_squares + i32(shrunk) + price_now();
        mine = NO_RANK;
        for (var item = lane; item < params.slots_per_gpu * reach(); item += TEAM) {
            weigh_transfer(item / reach(), item % reach());
        }
        let least = least_of_team(mine);
        transfer_found = select(NO_RANK, least, least.x < exchange_found.x);
    }
}

// The heaviest slot of the proposing GPU, all windows together.
fn heaviest_slot() -> u32 {
    var own = NO_RANK;
    for (var slot = lane; slot < params.slots_per_gpu; slot += TEAM) {
        let rank = vec2<u32>(~u32(total(quads_at(load_at(slot, heavy)))), slot);
        own = select(own, rank, is_less(rank, own));
    }
    return least_of_team(own).y;
}

fn may_gain() -> bool {
    if gainer == FREE {
        return false;
    }
    let tabu = arena[word_at(params.at_no_gain, gainer)];
    return count_of(gainer) < params.max_count && tabu <= iteration;
}

// Lays out the loads of GPUs once the replicas of the expert share with one more, and the heaviest of them; returns by how
// much the squares change.
fn lay_after() -> u32 {
    for (var window = lane; window < 4u * QUADS; window += TEAM) {
        let weight = i32(task_word(params.at_weights + 4u * QUADS * gainer + window));
        let count = i32(count_of(gainer));
        let less = weight / max(count, 1) - weight / max(count + 1, 1);
        var first = vec2<i32>(-1, -1);
        var second = -1;
        for (var gpu = 0u; gpu < params.gpus; gpu += 1u) {
            var load = i32(arena[gpu_at(gpu) + window * params.gpus]);
            load -= select(0, less, holds(gpu, gainer));
            arena[after_at(gpu) + window * params.gpus] = u32(load);
            let is_first = load > first.y;
            second = select(max(second, load), first.y, is_first);
            first = select(first, vec2<i32>(i32(gpu), load), is_first);
        }
        rest_gpu[window] = u32(first.x);
        rest_first[window] = max(first.y, floor_of(window));
        rest_second[window] = max(second, floor_of(window));
        share_of[window] = weight / max(count + 1, 1);
    }
    storageBarrier();
    var own = 0u;
    for (var place = lane; place < reach(); place += TEAM) {
        let gpu = reach_first() + place;
        if holds(gpu, gainer) {
            own += u32(square_sum(quads_at(after_at(gpu))) - squares_of(gpu));
        }
    }
    return sum_of_team(own);
}

fn share_four(first: u32) -> vec4<i32> {
    return vec4<i32>(share_of[first], share_of[first + 1u], share_of[first + 2u], share_of[first + 3u]);
}

fn weigh_transfer(slot: u32, place: u32) {
    let gpu = reach_first() + place;
    let loser = expert_in(slot, gpu);
    if loser == FREE || loser == gainer || holds(gpu, gainer) {
        return;
    }
    let tabu = arena[word_at(params.at_no_loss, loser)];
    if count_of(loser) < 2u || tabu > iteration || !may_hand_over(loser, gpu) {
        return;
    }
    let load = quads_at(load_at(slot, gpu));
    let here = plus(minus(quads_at(after_at(gpu)), load), share);
    let most = larger(here, rest_without(gpu));
    let base = left - squares_of(gpu) + cost(gainer, gpu) - cost(loser, gpu);
    let after = base + total(most) + square_sum(here);
    // It only grows.
    let code = slot * reach() + place;
    let hoped = vec2<u32>(ranked(after), code);
    if hoped.x >= exchange_found.x || !is_less(hoped, mine) {
        return;
    }
    let rank = vec2<u32>(ranked(after + growth(loser, gpu, load, most)), code);
    mine = select(mine, rank, is_less(rank, mine));
}

// By how much the value rises as the other replicas of an expert take over the share of the one on a GPU, where the
// heaviest of this GPU and the rest is `before`.
fn growth(loser: u32, gpu: u32, load: Quads, before: Quads) -> i32 {
    let more = minus(shared_load(loser, count_of(loser) - 1u), load);
    var most = before;
    var rise = 0;
    let first = reach_first() / 32u;
    let end = (reach_first() + reach() + 31u) / 32u;
    for (var word = first; word < end; word += 1u) {
        let held = arena[word_at(params.at_held, loser * set_words() + word)];
        for (var bits = held; bits != 0u; bits &= bits - 1u) {
            let other = 32u * word + countTrailingZeros(bits);
            if other != gpu {
                let now = quads_at(after_at(other));
                let grown = plus(now, more);
                most = larger(most, grown);
                rise += square_sum(grown) - square_sum(now);
            }
        }
    }
    return rise + total(minus(most, before));
}
