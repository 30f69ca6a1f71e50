// Tables of shares: which part of an expert's load each of its replicas serves. Reads `problem` (tasks); writes `results`
// (shares), `arena` (loads of GPUs). The mirrors are `src/shares/windows.rs` and `src/shares/batch.rs`.
//
// level_next_window  one workgroup a layer: makes the squares of the loads of GPUs least, over the scenarios of the next window
// level_batch        one workgroup a layer: levels the loads of GPUs, of one batch
//
// A dispatch is a sweep over all pairs of an expert's replicas, which shifts load from one GPU of each pair to the other. Pairs
// come in rounds. No GPU is in two pairs of a round, so lanes can take these pairs side by side: the result is the same as one
// pair after the other. A layer is done once a sweep moves next to nothing.

var<private> my_task: u32;        // where the task begins in `problem`
var<private> my_shares: u32;      // where the shares begin in `results`

// The number of this workgroup's layer.
fn take_layer(at: Invocation) -> u32 {
    take_params();
    lane = at.lane;
    leads = lane == 0u;
    let layer = told(workgroup_of(at));
    my_words = words_of(layer);
    my_task = layer * params.task_words;
    my_shares = layer * params.replicas;
    return layer;
}

fn task_word(at: u32) -> u32 {
    return problem[my_task + at];
}

// Takes over the shares and loads to begin with; `each` loads a GPU.
fn lay(each: u32) {
    for (var replica = lane; replica < params.replicas; replica += TEAM) {
        results[my_shares + replica] = task_word(params.at_first_shares + replica);
    }
    for (var item = lane; item < params.gpus * each; item += TEAM) {
        arena[word_at(params.at_gpu_load, item)] = task_word(params.at_first_loads + item);
    }
    if leads {
        set_control(C_END, END_RUNNING);
    }
    storageBarrier();
}

// Two replicas of an expert: where their shares lie, and the first loads of their GPUs.
struct Pair {
    shares: vec2<u32>,
    loads: vec2<u32>,
    terms: u32,
}

// `each` loads a GPU.
fn pair_at(index: u32, each: u32) -> Pair {
    let at = params.at_pairs + index * PAIR_WORDS;
    let replicas = vec2<u32>(task_word(at + PAIR_FIRST), task_word(at + PAIR_SECOND));
    let gpus = vec2<u32>(task_word(at + PAIR_FIRST_GPU), task_word(at + PAIR_SECOND_GPU));
    return Pair(
        my_shares + replicas,
        word_at(params.at_gpu_load, 0u) + gpus * each,
        params.at_terms + task_word(at + PAIR_TERMS) * (TERMS_WORDS + SCENARIOS),
    );
}

fn is_last_sweep() -> bool {
    return params.begin + 1u == params.end;
}

// Shifts as much as the first replica has, if `flow` is more, and in the other direction as much as the second has. Returns what
// is shifted.
fn shift_shares(pair: Pair, flow: i32) -> i32 {
    let first = i32(results[pair.shares.x]);
    let second = i32(results[pair.shares.y]);
    let shifted = clamp(flow, -second, first);
    results[pair.shares.x] = u32(first - shifted);
    results[pair.shares.y] = u32(second + shifted);
    return shifted;
}

@compute @workgroup_size(TEAM)
fn level_batch(invocation: Invocation) {
    sweep(invocation, 1u);
}

@compute @workgroup_size(TEAM)
fn level_next_window(invocation: Invocation) {
    sweep(invocation, SCENARIOS);
}

// A sweep over a layer that is not done; `each` loads a GPU. (One way out, as in `take_team`.)
fn sweep(at: Invocation, each: u32) {
    let layer = take_layer(at);
    if layer < dispatched.candidates {
        if dispatched.begin == 0u {
            lay(each);
        }
        if told(control(C_END)) == END_RUNNING {
            go_over_pairs(each);
        }
    }
}

// Goes over all pairs, round after round, and ends the layer where none of them shifted much.
fn go_over_pairs(each: u32) {
    var own = 0u;
    var first = 0u;
    for (var round = 0u; round < dispatched.rounds; round += 1u) {
        let end = task_word(params.at_rounds + round);
        for (var pair = first + lane; pair < end; pair += TEAM) {
            own = max(own, shift(pair_at(pair, each), each));
        }
        first = end;
        storageBarrier();
    }
    let most = most_of_team(own);
    if leads && most <= task_word(TABLE_STILL) {
        set_control(C_END, END_STUCK);
    }
}

// Shifts load between the GPUs of a pair; returns how much.
fn shift(pair: Pair, each: u32) -> u32 {
    if each == 1u {
        return level_pair(pair);
    }
    return weigh_pair(pair);
}

// Shifts 13/16 of the difference of two GPUs, where a half would level them: load from afar arrives sooner so. A half in the last
// sweep.
fn level_pair(pair: Pair) -> u32 {
    let apart = i32(arena[pair.loads.x]) - i32(arena[pair.loads.y]);
    let wanted = select(apart - (apart >> 2u) + (apart >> 4u), apart >> 1u, is_last_sweep());
    let flow = shift_shares(pair, wanted);
    arena[pair.loads.x] = u32(i32(arena[pair.loads.x]) - flow);
    arena[pair.loads.y] = u32(i32(arena[pair.loads.y]) + flow);
    return u32(abs(flow));
}

// Moves the shares of two replicas towards where the squares are least; but in the last sweep a quarter farther.
fn weigh_pair(pair: Pair) -> u32 {
    let squares = Wide(task_word(pair.terms + TERMS_SQUARES_LOW), task_word(pair.terms + TERMS_SQUARES_HIGH));
    if squares.low == 0u && squares.high == 0u {
        return 0u;
    }
    let even = Wide(task_word(pair.terms + TERMS_EVEN_LOW), task_word(pair.terms + TERMS_EVEN_HIGH));
    let loads = pair.terms + TERMS_WORDS;
    var slope = Wide(0u, 0u);
    for (var s = 0u; s < SCENARIOS; s += 1u) {
        let apart = i32(arena[pair.loads.x + s]) - i32(arena[pair.loads.y + s]);
        let product = signed(mul_wide(task_word(loads + s), u32(abs(apart))), apart < 0);
        slope = sum_wide(slope, product);
    }
    slope = Wide(slope.low << WHOLE_BITS, (slope.high << WHOLE_BITS) | (slope.low >> (32u - WHOLE_BITS)));
    let uneven = i32(results[pair.shares.x]) - i32(results[pair.shares.y]);
    slope = sum_wide(slope, signed(times(even, u32(abs(uneven))), uneven < 0));

    let backwards = (slope.high >> 31u) != 0u;
    var amount = quotient(signed(slope, backwards), sum_wide(squares, squares));
    amount += select(amount >> 2u, 0u, is_last_sweep());
    let flow = shift_shares(pair, select(i32(amount), -i32(amount), backwards));
    let shifted = u32(abs(flow));
    let heavy = select(pair.loads.x, pair.loads.y, flow <= 0);
    let light = select(pair.loads.y, pair.loads.x, flow <= 0);
    for (var s = 0u; s < SCENARIOS; s += 1u) {
        let moved = part_of(task_word(loads + s), shifted);
        arena[heavy + s] -= moved;
        arena[light + s] += moved;
    }
    return shifted;
}

// The load that a share of it is, in parts of `2^WHOLE_BITS`.
fn part_of(load: u32, share: u32) -> u32 {
    let product = mul_wide(load, share);
    return (product.high << (32u - WHOLE_BITS)) | (product.low >> WHOLE_BITS);
}

// Numbers of two words, with a sign where the first bit is that.

fn sum_wide(a: Wide, b: Wide) -> Wide {
    let low = a.low + b.low;
    return Wide(low, a.high + b.high + select(0u, 1u, low < a.low));
}

fn difference(a: Wide, b: Wide) -> Wide {
    return Wide(a.low - b.low, a.high - b.high - select(0u, 1u, a.low < b.low));
}

// The number, or where `negative` its opposite.
fn signed(a: Wide, negative: bool) -> Wide {
    let opposite = difference(Wide(0u, 0u), a);
    return Wide(select(a.low, opposite.low, negative), select(a.high, opposite.high, negative));
}

// The product with a factor, of less than 64 bits.
fn times(a: Wide, factor: u32) -> Wide {
    let low = mul_wide(a.low, factor);
    return Wide(low.low, low.high + a.high * factor);
}

// `a / b`, cut at 65,535, which is more than any share. `b` is above 0 and below 2^63.
fn quotient(a: Wide, b: Wide) -> u32 {
    var rest = Wide((a.low >> 16u) | (a.high << 16u), a.high >> 16u);
    if !wide_greater(b, rest) {
        return 65535u;
    }
    var found = 0u;
    for (var bit = 0u; bit < 16u; bit += 1u) {
        rest = Wide((rest.low << 1u) | ((a.low >> (15u - bit)) & 1u), (rest.high << 1u) | (rest.low >> 31u));
        found = found << 1u;
        if !wide_greater(b, rest) {
            rest = difference(rest, b);
            found += 1u;
        }
    }
    return found;
}
