// Plans over time: one trajectory from each start. Reads `problem` (tasks); writes `results` (trails), `arena`. The mirror is
// `src/replan/search.rs`.
//
// place   one workgroup a task: takes over a start, and queues it
// follow  one workgroup a queued candidate
//
// A candidate is a whole layer. An iteration finds the GPU that relieves the layer most, weighs every exchange of it with
// the other GPUs of its node (`exchange.wgsl`) and every transfer to its heaviest expert (`transfer.wgsl`), and makes the
// best move even where that makes things worse (`make.wgsl`). What is better than all before it goes into the trail.
//
// Lanes share the GPUs, slots and experts that an iteration weighs. All lanes know what a candidate has once, and
// lane 0, which leads, writes it. A dispatch runs `params.end` iterations, and the next one goes on from the control
// block: where dispatches are cut changes nothing.

// Windows in fours; beyond the last one all loads are 0. (Not the windows themselves: their number grows while a process
// is young, and each would cost a compilation.)
override QUADS: u32 = 1u;

const MOST_WINDOWS: u32 = 16u;

// Control words of this stage.
const C_ITERATION: u32 = C_SEARCH;
const C_SINCE: u32 = C_SEARCH + 1u;       // iterations without a new best
const C_WORK: u32 = C_SEARCH + 2u;        // loads weighed, about
const C_SQUARES: u32 = C_SEARCH + 3u;     // of all GPUs
const C_MOVED: u32 = C_SEARCH + 4u;       // slots that received an expert
const C_STATES: u32 = C_SEARCH + 5u;      // of the trail
const C_CHANGES: u32 = C_SEARCH + 6u;     // of the trail
const C_FOREIGN: u32 = C_SEARCH + 7u;     // foreign replicas

// The step after an iteration.
const GO_ON: u32 = 0u;
const PAUSE: u32 = 1u;            // the dispatch ends
const STOP: u32 = 2u;             // the search ends

// The three heaviest GPUs of each window, with their loads: NONE and -1 where there are fewer.
var<workgroup> top_gpu: array<u32, 3u * MOST_WINDOWS>;
var<workgroup> top_load: array<i32, 3u * MOST_WINDOWS>;

var<private> iteration: u32;
var<private> since: u32;
var<private> work: u32;
var<private> best: i32;
var<private> value: i32;
var<private> all_squares: i32;
var<private> moved: u32;
var<private> states: u32;
var<private> changes: u32;
// The GPU that moves in this iteration, and the first one of its node.
var<private> heavy: u32;
var<private> low: u32;

@compute @workgroup_size(TEAM)
fn place(invocation: Invocation) {
    take_params();
    lane = invocation.lane;
    leads = lane == 0u;
    let task = told(workgroup_of(invocation));
    if task < dispatched.candidates {
        take_candidate(task);
        take_task();
        lay_sets();
        lay_slots();
        let squares = lay_gpus();
        let received = sum_of_team(own_received());
        let foreign_replicas = sum_of_team(own_foreign());
        if leads {
            set_control(C_BEST_MAX, 0u);
            set_control(C_ITERATION, 0u);
            set_control(C_SINCE, 0u);
            set_control(C_WORK, 0u);
            set_control(C_SQUARES, squares);
            set_control(C_MOVED, received);
            set_control(C_STATES, 0u);
            set_control(C_CHANGES, 0u);
            set_control(C_FOREIGN, foreign_replicas);
            set_trail(TRAIL_DONE, 0u);
            queue_again();
        }
    }
}

// Which GPUs hold each expert, and held it in the plan that runs. A lane has words of its own.
fn lay_sets() {
    let words = params.experts * set_words();
    for (var word = lane; word < words; word += TEAM) {
        arena[word_at(params.at_held, word)] = 0u;
        arena[word_at(params.at_home, word)] = 0u;
    }
    storageBarrier();
    for (var word = lane; word < set_words(); word += TEAM) {
        let end = min(32u * word + 32u, params.gpus);
        for (var gpu = 32u * word; gpu < end; gpu += 1u) {
            let first = gpu * params.slots_per_gpu;
            for (var slot = first; slot < first + params.slots_per_gpu; slot += 1u) {
                add_to(params.at_held, task_word(params.at_begin + slot), gpu);
                add_to(params.at_home, task_word(params.at_previous + slot), gpu);
            }
        }
    }
}

fn lay_slots() {
    for (var expert = lane; expert < params.experts; expert += TEAM) {
        set_count(expert, task_word(params.at_task_counts + expert));
        arena[word_at(params.at_no_gain, expert)] = 0u;
        arena[word_at(params.at_no_loss, expert)] = 0u;
    }
    storageBarrier();
    let slots = params.slots_per_gpu * params.gpus;
    for (var place = lane; place < slots; place += TEAM) {
        let slot = place / params.gpus;
        let gpu = place % params.gpus;
        let expert = task_word(params.at_begin + gpu * params.slots_per_gpu + slot);
        arena[word_at(params.at_expert, place)] = expert;
        arena[word_at(params.at_tabu, place)] = 0u;
        set_quads(load_at(slot, gpu), replica_load(expert));
    }
    storageBarrier();
}

// Returns the squares of all GPUs.
fn lay_gpus() -> u32 {
    for (var item = lane; item < 4u * QUADS * params.gpus; item += TEAM) {
        let window = item / params.gpus;
        let gpu = item % params.gpus;
        var load = 0u;
        for (var slot = 0u; slot < params.slots_per_gpu; slot += 1u) {
            load += arena[load_at(slot, gpu) + window * params.gpus];
        }
        arena[word_at(params.at_gpu_load, item)] = load;
    }
    storageBarrier();
    var own = 0u;
    for (var gpu = lane; gpu < params.gpus; gpu += TEAM) {
        let squares = squares_now(gpu);
        arena[word_at(params.at_squares, gpu)] = u32(squares);
        own += u32(squares);
    }
    return sum_of_team(own);
}

// The slots of this lane's GPUs that have received an expert at the start.
fn own_received() -> u32 {
    var own = 0u;
    for (var gpu = lane; gpu < params.gpus; gpu += TEAM) {
        let received = task_word(params.at_task_received + gpu);
        arena[word_at(params.at_received, gpu)] = received;
        own += received;
    }
    return own;
}

@compute @workgroup_size(TEAM)
fn follow(invocation: Invocation) {
    if !take_team(invocation) {
        return;
    }
    take_task();
    resume();
    let key = draw(params.seed_low, params.seed_high);
    var counted = false;
    var next = GO_ON;
    for (var done = 0u; done < dispatched.end + 1u; done += 1u) {
        look();
        next = told(decide(done, counted));
        if next != GO_ON {
            break;
        }
        counted = true;
        propose();
        find_exchange(key);
        find_transfer();
        make_move(key);
        storageBarrier();
    }
    if leads {
        suspend(next);
    }
}

fn resume() {
    best = i32(control(C_BEST_MAX));
    iteration = control(C_ITERATION);
    since = control(C_SINCE);
    work = control(C_WORK);
    all_squares = i32(control(C_SQUARES));
    moved = control(C_MOVED);
    states = control(C_STATES);
    changes = control(C_CHANGES);
    foreign = control(C_FOREIGN);
}

fn suspend(next: u32) {
    set_control(C_BEST_MAX, u32(best));
    set_control(C_ITERATION, iteration);
    set_control(C_SINCE, since);
    set_control(C_WORK, work);
    set_control(C_SQUARES, u32(all_squares));
    set_control(C_MOVED, moved);
    set_control(C_STATES, states);
    set_control(C_CHANGES, changes);
    set_control(C_FOREIGN, foreign);
    if next == PAUSE {
        queue_again();
    }
}

// Finds the heaviest GPUs of each window, ties to the lower GPU.
fn look() {
    for (var window = lane; window < 4u * QUADS; window += TEAM) {
        var first = vec2<i32>(-1, -1);
        var second = first;
        var third = first;
        for (var gpu = 0u; gpu < params.gpus; gpu += 1u) {
            let now = vec2<i32>(i32(gpu), i32(arena[gpu_at(gpu) + window * params.gpus]));
            let is_first = now.y > first.y;
            let is_second = now.y > second.y;
            let is_third = now.y > third.y;
            third = select(select(third, now, is_third), second, is_second);
            second = select(select(second, now, is_second), first, is_first);
            first = select(first, now, is_first);
        }
        top_gpu[3u * window] = u32(first.x);
        top_gpu[3u * window + 1u] = u32(second.x);
        top_gpu[3u * window + 2u] = u32(third.x);
        top_load[3u * window] = first.y;
        top_load[3u * window + 1u] = second.y;
        top_load[3u * window + 2u] = third.y;
    }
    workgroupBarrier();
}

// Between two iterations: what the last one came to, and whether there is a next. The first look of a dispatch was counted
// by the one before.
fn decide(done: u32, counted: bool) -> u32 {
    value = all_squares;
    for (var window = 0u; window < 4u * QUADS; window += 1u) {
        value += max(top_load[3u * window], floor_of(window));
    }
    let is_first = states == 0u;
    if is_first || counted {
        work += 4u * params.windows * params.node_lanes * (params.gpus / params.node_gpus);
        let priced = value + price_now();
        if is_first || priced < best - i32(task_word(TASK_GAP)) {
            best = priced;
            since = 0u;
            keep();
        } else {
            since += 1u;
        }
    }
    if since >= task_word(TASK_PATIENCE) || work >= TRAJECTORY_WORK || iteration == TRAJECTORY_ITERATIONS {
        if leads {
            set_trail(TRAIL_STATES, states);
            set_trail(TRAIL_CHANGES, changes);
            set_trail(TRAIL_DONE, 1u);
        }
        return STOP;
    }
    if iteration == params.extent {
        return STOP;
    }
    if done == params.end {
        return PAUSE;
    }
    iteration += 1u;
    return GO_ON;
}

// Keeps the state.
fn keep() {
    if leads {
        let at = params.at_states + states * STATE_WORDS;
        set_trail(at + STATE_MOVED, moved);
        set_trail(at + STATE_PEAKS, u32(value - all_squares));
        set_trail(at + STATE_VALUE, u32(value));
        set_trail(at + STATE_CHANGES, changes);
    }
    states += 1u;
}

// Finds the GPU that moves: the one whose squares, and lead over the second in windows in which it is the heaviest, add up
// to most. Ties to the lower.
fn propose() {
    var own = NO_RANK;
    for (var gpu = lane; gpu < params.gpus; gpu += TEAM) {
        var score = squares_of(gpu);
        for (var window = 0u; window < 4u * QUADS; window += 1u) {
            let lead = top_load[3u * window] - max(top_load[3u * window + 1u], 0);
            score += select(0, lead, top_gpu[3u * window] == gpu);
        }
        let rank = vec2<u32>(~u32(score), gpu);
        own = select(own, rank, is_less(rank, own));
    }
    heavy = least_of_team(own).y;
    low = heavy / params.node_gpus * params.node_gpus;
}
