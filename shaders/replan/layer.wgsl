// A task, and the layer that its candidate is: what lies where, loads of all windows in quads of four, and squares.
//
// Arrays are `[slot][window][gpu]`, of whole quads of windows, where a slot is a number on its GPU and a GPU one of the
// layer.

// Sixteen windows at most, zeros beyond the last.
struct Quads {
    a: vec4<i32>,
    b: vec4<i32>,
    c: vec4<i32>,
    d: vec4<i32>,
}

// The numbers by which a load is squared, of four windows.
struct Scale {
    mean: vec4<i32>,
    factor: vec4<u32>,
    shift: vec4<u32>,
    down: vec4<u32>,
}

var<private> my_task: u32;        // where the task begins in `problem`
var<private> my_trail: u32;       // where its trail begins in `results`
var<private> price: i32;          // of a slot that moves
var<private> scale_a: Scale;
var<private> scale_b: Scale;
var<private> scale_c: Scale;
var<private> scale_d: Scale;

// Takes the task of this candidate.
fn take_task() {
    my_task = me * params.task_words;
    my_trail = me * params.trail_words;
    price = i32(task_word(TASK_PRICE));
    scale_a = scale_of(0u);
    if QUADS > 1u {
        scale_b = scale_of(4u);
    }
    if QUADS > 2u {
        scale_c = scale_of(8u);
    }
    if QUADS > 3u {
        scale_d = scale_of(12u);
    }
}

fn task_word(at: u32) -> u32 {
    return problem[my_task + at];
}

fn task_four(at: u32) -> vec4<u32> {
    return vec4<u32>(task_word(at), task_word(at + 1u), task_word(at + 2u), task_word(at + 3u));
}

fn scale_of(first: u32) -> Scale {
    let row = 4u * QUADS;
    let at = params.at_squares_of + first;
    let shift = task_four(at + 2u * row);
    let mean = vec4<i32>(task_four(at));
    return Scale(mean, task_four(at + row), shift, 14u - min(shift, vec4<u32>(14u)));
}

// The load that the heaviest GPU of a window cannot go below.
fn floor_of(window: u32) -> i32 {
    return i32(task_word(params.at_squares_of + 12u * QUADS + window));
}

fn set_trail(at: u32, word: u32) {
    results[my_trail + at] = word;
}

// Words of a set of GPUs.
fn set_words() -> u32 {
    return (params.gpus + 31u) / 32u;
}

fn slot_at(slot: u32, gpu: u32) -> u32 {
    return slot * params.gpus + gpu;
}

fn expert_in(slot: u32, gpu: u32) -> u32 {
    return arena[word_at(params.at_expert, slot_at(slot, gpu))];
}

fn tabu_of(slot: u32, gpu: u32) -> u32 {
    return arena[word_at(params.at_tabu, slot_at(slot, gpu))];
}

// Where the loads of a slot begin, and those of a GPU; from window to window it is `params.gpus` words.
fn load_at(slot: u32, gpu: u32) -> u32 {
    return word_at(params.at_load, slot * 4u * QUADS * params.gpus + gpu);
}

fn gpu_at(gpu: u32) -> u32 {
    return word_at(params.at_gpu_load, gpu);
}

// The same while transfers are weighed.
fn after_at(gpu: u32) -> u32 {
    return word_at(params.at_after, gpu);
}

fn squares_of(gpu: u32) -> i32 {
    return i32(arena[word_at(params.at_squares, gpu)]);
}

// Whether a set has a GPU; no GPU holds what is free.
fn has(part: u32, expert: u32, gpu: u32) -> bool {
    if expert == FREE {
        return false;
    }
    return ((arena[word_at(part, expert * set_words() + gpu / 32u)] >> (gpu % 32u)) & 1u) == 1u;
}

fn holds(gpu: u32, expert: u32) -> bool {
    return has(params.at_held, expert, gpu);
}

fn add_to(part: u32, expert: u32, gpu: u32) {
    if expert != FREE {
        arena[word_at(part, expert * set_words() + gpu / 32u)] |= 1u << (gpu % 32u);
    }
}

// The price of a slot that receives an expert.
fn cost(expert: u32, gpu: u32) -> i32 {
    return select(price, 0, expert == FREE || has(params.at_home, expert, gpu));
}

// The price of the moves as they are.
fn price_now() -> i32 {
    return price * i32(moved);
}

// Words of the arena, window after window.
fn quads_at(at: u32) -> Quads {
    var quads = Quads();
    quads.a = four_at(at, 0u);
    if QUADS > 1u {
        quads.b = four_at(at, 4u);
    }
    if QUADS > 2u {
        quads.c = four_at(at, 8u);
    }
    if QUADS > 3u {
        quads.d = four_at(at, 12u);
    }
    return quads;
}

fn four_at(at: u32, first: u32) -> vec4<i32> {
    let from_1 = at + first * params.gpus;
    let from_3 = from_1 + 2u * params.gpus;
    return vec4<i32>(
        i32(arena[from_1]),
        i32(arena[from_1 + params.gpus]),
        i32(arena[from_3]),
        i32(arena[from_3 + params.gpus]),
    );
}

fn set_quads(at: u32, quads: Quads) {
    set_four(at, 0u, quads.a);
    if QUADS > 1u {
        set_four(at, 4u, quads.b);
    }
    if QUADS > 2u {
        set_four(at, 8u, quads.c);
    }
    if QUADS > 3u {
        set_four(at, 12u, quads.d);
    }
}

fn set_four(at: u32, first: u32, four: vec4<i32>) {
    let from_1 = at + first * params.gpus;
    let from_3 = from_1 + 2u * params.gpus;
    arena[from_1] = u32(four.x);
    arena[from_1 + params.gpus] = u32(four.y);
    arena[from_3] = u32(four.z);
    arena[from_3 + params.gpus] = u32(four.w);
}

// The loads of a replica of an expert, by its count or by another.
fn replica_load(expert: u32) -> Quads {
    if expert == FREE {
        return Quads();
    }
    return shared_load(expert, count_of(expert));
}

fn shared_load(expert: u32, count: u32) -> Quads {
    let divisor = vec4<i32>(i32(max(count, 1u)));
    let at = params.at_weights + 4u * QUADS * expert;
    var quads = Quads();
    quads.a = vec4<i32>(task_four(at)) / divisor;
    if QUADS > 1u {
        quads.b = vec4<i32>(task_four(at + 4u)) / divisor;
    }
    if QUADS > 2u {
        quads.c = vec4<i32>(task_four(at + 8u)) / divisor;
    }
    if QUADS > 3u {
        quads.d = vec4<i32>(task_four(at + 12u)) / divisor;
    }
    return quads;
}

fn plus(x: Quads, y: Quads) -> Quads {
    return Quads(x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d);
}

fn minus(x: Quads, y: Quads) -> Quads {
    return Quads(x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d);
}

fn larger(x: Quads, y: Quads) -> Quads {
    return Quads(max(x.a, y.a), max(x.b, y.b), max(x.c, y.c), max(x.d, y.d));
}

fn sum_of_four(x: vec4<i32>) -> i32 {
    return x.x + x.y + x.z + x.w;
}

fn total(x: Quads) -> i32 {
    var sum = sum_of_four(x.a);
    if QUADS > 1u {
        sum += sum_of_four(x.b);
    }
    if QUADS > 2u {
        sum += sum_of_four(x.c);
    }
    if QUADS > 3u {
        sum += sum_of_four(x.d);
    }
    return sum;
}

// The squares of loads above the mean, see `src/replan/objective.rs`.
fn square(load: vec4<i32>, scale: Scale) -> vec4<i32> {
    let above = max(load - scale.mean, vec4<i32>());
    let part = min(above, scale.mean << vec4<u32>(1u));
    let t = vec4<u32>(part) >> scale.shift;
    let squares = (t * ((t * scale.factor) >> vec4<u32>(16u))) >> scale.down;
    return vec4<i32>(squares) + ((above - part) << vec4<u32>(2u));
}

// Of all windows together.
fn square_sum(load: Quads) -> i32 {
    var sum = square(load.a, scale_a);
    if QUADS > 1u {
        sum += square(load.b, scale_b);
    }
    if QUADS > 2u {
        sum += square(load.c, scale_c);
    }
    if QUADS > 3u {
        sum += square(load.d, scale_d);
    }
    return sum_of_four(sum);
}

// The squares of a GPU by its loads.
fn squares_now(gpu: u32) -> i32 {
    return square_sum(quads_at(gpu_at(gpu)));
}

// A value of the objective, which may be negative, as a rank.
fn ranked(value_after: i32) -> u32 {
    return u32(value_after) ^ 0x80000000u;
}
