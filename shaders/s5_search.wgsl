// Stage 5: one trajectory from each packed candidate. Reads `results` (loads), `groups`, `problem`; writes `arena`.
//
// search  one workgroup a queued candidate
//
// An iteration finds the heaviest GPU, weighs every exchange of it with every other GPU (`exchange.wgsl`), and makes
// the best one even where that makes things worse. What moved stays for a few iterations. Where no exchange helps, a
// replica of one expert may become one of another (`transfer.wgsl`). The best placement on the way is the result.
//
// Lanes share the GPUs, slots and experts that an iteration weighs. All lanes know what a candidate has once, and
// lane 0, which leads, writes it. A dispatch runs `params.end` iterations, and the next one goes on from the control
// block: where dispatches are cut changes nothing.

// Windows of the loads.
override WINDOWS: u32 = 1u;

// Control words of this stage.
const C_ITERATION: u32 = C_SEARCH;
const C_SINCE: u32 = C_SEARCH + 1u;       // iterations without a new best
const C_IS_NEW: u32 = C_SEARCH + 2u;      // 1: the placement is the best so far and not kept yet

// The step after an iteration.
const GO_ON: u32 = 0u;
const PAUSE: u32 = 1u;            // the dispatch ends
const STOP: u32 = 2u;             // the search ends

const KIND_NONE: u32 = 0u;
const KIND_SWAP: u32 = 1u;
const KIND_PAIR_SWAP: u32 = 2u;
const KIND_TRANSFER: u32 = 3u;

// No move: it comes to what no move may.
const NOTHING: vec2<u32> = vec2<u32>(u32(BLOCKED), 0u);

const MOST_SLOTS: u32 = 256u;     // slots of a GPU, `MAX_SLOTS_PER_GPU`
const MOST_OFFERED: u32 = 512u;   // slots offered x windows
const MOST_WINDOWS: u32 = 16u;

// The three heaviest GPUs of each window, with their loads.
var<workgroup> top_gpu: array<u32, 3u * MOST_WINDOWS>;
var<workgroup> top_load: array<i32, 3u * MOST_WINDOWS>;
// Experts of the heaviest GPU, and those of them with several replicas, else NONE.
var<workgroup> own_expert: array<u32, MOST_SLOTS>;
var<workgroup> own_several: array<u32, MOST_SLOTS>;

var<private> iteration: u32;
var<private> since: u32;
var<private> best: i32;
var<private> value: i32;
var<private> is_new: bool;
var<private> replicated: u32;     // the leader's
// The GPU that moves in this iteration.
var<private> heavy: u32;
// The best that this lane found: the objective after it, then a code that says which move and gives ties an order.
var<private> mine: vec2<u32>;
// The best of all lanes: which slots of the node change, and for a transfer of the first slot which experts.
var<private> found: i32;
var<private> kind: u32;
var<private> from_1: u32;
var<private> to_1: u32;
var<private> from_2: u32;
var<private> to_2: u32;
var<private> loser: u32;
var<private> gainer: u32;

@compute @workgroup_size(TEAM)
fn search(invocation: Invocation) {
    if !take_team(invocation) {
        return;
    }
    let key = start_key(first_group(), my_start);
    let stop = i32(stop_load(node_bound(my_layer, my_node)));
    resume();
    if told(iteration) == 0u {
        begin();
    }
    var counted = false;
    var next = GO_ON;
    for (var done = 0u; done < dispatched.end + 1u; done += 1u) {
        look();
        next = told(decide(done, stop, counted));
        if next != GO_ON {
            break;
        }
        counted = true;
        find_exchange(key);
        find_transfer(key);
        // With duplicates a transfer may come to more than it says: a GPU may hold the expert that loses twice.
        let may_be_worse = kind == KIND_TRANSFER && params.avoid_duplicates == 0u;
        if told(select(0u, 1u, is_new && (found >= value || may_be_worse))) == 1u {
            keep();
            is_new = false;
            // The move changes what other lanes are still to keep.
            storageBarrier();
        }
        make_move(key);
        storageBarrier();
    }
    if told(select(0u, 1u, is_new && next == STOP)) == 1u {
        keep();
    }
    if leads {
        suspend(next);
    }
}

fn resume() {
    iteration = control(C_ITERATION);
    since = control(C_SINCE);
    best = i32(control(C_BEST_MAX));
    is_new = control(C_IS_NEW) == 1u;
    replicated = control(C_REPLICATED);
}

fn suspend(next: u32) {
    set_control(C_ITERATION, iteration);
    set_control(C_SINCE, since);
    set_control(C_BEST_MAX, u32(best));
    set_control(C_IS_NEW, select(0u, 1u, is_new));
    set_control(C_REPLICATED, replicated);
    if next == PAUSE {
        queue_again();
    }
}

// The start: loads in all windows, no tabus, the list of experts with several replicas.
fn begin() {
    for (var slot = lane; slot < params.node_slots; slot += TEAM) {
        arena[word_at(params.at_tabu, slot)] = 0u;
        weigh_slot(slot);
    }
    for (var expert = lane; expert < params.node_experts; expert += TEAM) {
        set_scratch(expert, 0u);
        arena[word_at(params.at_no_gain, expert)] = 0u;
        arena[word_at(params.at_no_loss, expert)] = 0u;
        arena[peaks_at(expert)] = 0u;
    }
    storageBarrier();
    weigh_gpus();
    if leads {
        replicated = 0u;
        for (var expert = 0u; expert < params.node_experts; expert += 1u) {
            // None may lose a replica where counts stay as they are.
            if count_of(expert) > 1u && params.fixed_counts == 0u {
                arena[word_at(params.at_replicated, replicated)] = expert;
                replicated += 1u;
            }
        }
    }
    storageBarrier();
}

// The load of an expert in a window.
fn expert_load(expert: u32, window: u32) -> i32 {
    if WINDOWS == 1u {
        return i32(weight(expert));
    }
    return i32(results[params.at_node_windows + (my_loads + expert) * 4u * params.quads + window]);
}

// The load of a replica of an expert with this many of them.
fn replica_load(expert: u32, count: u32, window: u32) -> i32 {
    return expert_load(expert, window) / i32(max(count, 1u));
}

fn load_of_slot(slot: u32, window: u32) -> i32 {
    return i32(arena[word_at(params.at_load, slot * WINDOWS + window)]);
}

fn load_of_gpu(gpu: u32, window: u32) -> i32 {
    return i32(arena[word_at(params.at_gpu_load, gpu * WINDOWS + window)]);
}

// The load that the heaviest GPU of a window cannot go below.
fn floor_of(window: u32) -> i32 {
    if WINDOWS == 1u {
        return 0;
    }
    return i32(results[params.at_floors + my_layer * 4u * params.quads + window]);
}

// Sets the loads of a slot by its expert's count.
fn weigh_slot(slot: u32) {
    let expert = slot_expert(slot);
    for (var window = 0u; window < WINDOWS; window += 1u) {
        var load = 0;
        if expert != FREE {
            load = replica_load(expert, count_of(expert), window);
        }
        arena[word_at(params.at_load, slot * WINDOWS + window)] = u32(load);
    }
}

// Sets the loads of all GPUs by those of their slots.
fn weigh_gpus() {
    for (var item = lane; item < params.node_gpus * WINDOWS; item += TEAM) {
        let first = item / WINDOWS * params.slots_per_gpu;
        var load = 0;
        for (var slot = first; slot < first + params.slots_per_gpu; slot += 1u) {
            load += load_of_slot(slot, item % WINDOWS);
        }
        arena[word_at(params.at_gpu_load, item)] = u32(load);
    }
}

// Finds the heaviest GPUs of each window, ties to the lower GPU.
fn look() {
    if WINDOWS == 1u {
        var own = NO_RANK;
        for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
            let rank = vec2<u32>(~u32(load_of_gpu(gpu, 0u)), gpu);
            own = select(own, rank, is_less(rank, own));
        }
        let heaviest = least_of_team(own);
        if leads {
            top_gpu[0] = heaviest.y;
            top_load[0] = i32(~heaviest.x);
        }
    } else {
        for (var window = lane; window < WINDOWS; window += TEAM) {
            for (var rank = 0u; rank < 3u; rank += 1u) {
                find_top(window, rank);
            }
        }
    }
    workgroupBarrier();
}

// Finds the heaviest GPU of a window but for those of lower ranks.
fn find_top(window: u32, rank: u32) {
    let first = window * 3u;
    var gpu_found = NONE;
    var load_found = -1;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        let is_listed = (rank > 0u && gpu == top_gpu[first]) || (rank > 1u && gpu == top_gpu[first + 1u]);
        let is_heavier = !is_listed && load_of_gpu(gpu, window) > load_found;
        gpu_found = select(gpu_found, gpu, is_heavier);
        load_found = select(load_found, load_of_gpu(gpu, window), is_heavier);
    }
    top_gpu[first + rank] = gpu_found;
    top_load[first + rank] = load_found;
}

// Between two iterations: what the last one came to, whether there is a next, and which GPU moves then. The first look of
// a dispatch was counted by the one before.
fn decide(done: u32, stop: i32, counted: bool) -> u32 {
    value = 0;
    var furthest = 0u;
    for (var window = 0u; window < WINDOWS; window += 1u) {
        value += max(top_load[window * 3u], floor_of(window));
        let excess = top_load[window * 3u] - floor_of(window);
        if excess > top_load[furthest * 3u] - floor_of(furthest) {
            furthest = window;
        }
    }
    heavy = top_gpu[furthest * 3u];
    let is_first = iteration == 0u;
    if is_first || (counted && value < best) {
        best = value;
        since = 0u;
        is_new = true;
    } else if counted {
        since += 1u;
    }
    var end = END_RUNNING;
    if best <= stop {
        end = END_REACHED;
    } else if since > select(params.later_patience, params.patience, my_start == 0u) || params.node_gpus == 1u
        || params.slots_per_gpu == 1u {
        end = END_STUCK;
    } else if iteration == params.iterations {
        end = END_SPENT;
    }
    if end != END_RUNNING {
        if leads {
            set_control(C_END, end);
        }
        return STOP;
    }
    if done == params.end {
        return PAUSE;
    }
    iteration += 1u;
    return GO_ON;
}

// The heaviest GPU of a window that is neither of two, not below the floor; with one window nothing, since the
// objective is then that of the GPUs that change.
fn rest_of(window: u32, a: u32, b: u32) -> i32 {
    if WINDOWS == 1u {
        return 0;
    }
    var load = -1;
    for (var rank = 0u; rank < 3u; rank += 1u) {
        let gpu = top_gpu[window * 3u + rank];
        load = select(load, top_load[window * 3u + rank], load < 0 && gpu != a && gpu != b);
    }
    return max(load, floor_of(window));
}

// Whether a GPU holds an expert.
fn is_on(gpu: u32, expert: u32) -> bool {
    var holds = false;
    for (var slot = gpu * params.slots_per_gpu; slot < (gpu + 1u) * params.slots_per_gpu; slot += 1u) {
        holds = holds || slot_expert(slot) == expert;
    }
    return holds;
}

// Keeps a move if it is this lane's best so far: the lower objective, then the lower code.
fn offer(after: i32, code: u32) {
    let rank = vec2<u32>(u32(after), code);
    mine = select(mine, rank, is_less(rank, mine));
}

// Keeps the placement as the result.
fn keep() {
    for (var slot = lane; slot < params.node_slots; slot += TEAM) {
        set_snapshot(slot, slot_expert(slot));
    }
}

// Makes the move that the leader found, and forbids to undo it for some iterations.
fn make_move(key: u32) {
    if leads {
        let word = draw(key, DRAW_TENURE + iteration);
        if kind == KIND_NONE {
            for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
                arena[word_at(params.at_tabu, heavy * params.slots_per_gpu + i)] = 0u;
            }
        } else if kind == KIND_TRANSFER {
            arena[word_at(params.at_no_gain, loser)] = expert_tenure(word);
            arena[word_at(params.at_no_loss, gainer)] = expert_tenure(word >> 8u);
            change_counts();
        } else {
            exchange(from_1, to_1);
            arena[word_at(params.at_tabu, from_1)] = slot_tenure(word);
            arena[word_at(params.at_tabu, to_1)] = slot_tenure(word >> 8u);
            if kind == KIND_PAIR_SWAP {
                exchange(from_2, to_2);
                arena[word_at(params.at_tabu, from_2)] = slot_tenure(word >> 16u);
                arena[word_at(params.at_tabu, to_2)] = slot_tenure(word >> 24u);
            }
        }
    }
    if told(kind) == KIND_TRANSFER {
        storageBarrier();
        for (var slot = lane; slot < params.node_slots; slot += TEAM) {
            let expert = slot_expert(slot);
            if expert == loser || expert == gainer {
                weigh_slot(slot);
            }
        }
        storageBarrier();
        weigh_gpus();
    }
}

fn slot_tenure(word: u32) -> u32 {
    return iteration + SLOT_TENURE + (word & 0xffu) % 3u;
}

fn expert_tenure(word: u32) -> u32 {
    return iteration + EXPERT_TENURE + (word & 0xffu) % EXPERT_TENURE;
}

// Exchanges what two slots of different GPUs hold.
fn exchange(a: u32, b: u32) {
    let expert = slot_expert(a);
    arena[word_at(params.at_expert, a)] = slot_expert(b);
    arena[word_at(params.at_expert, b)] = expert;
    let gpu_a = a / params.slots_per_gpu;
    let gpu_b = b / params.slots_per_gpu;
    for (var window = 0u; window < WINDOWS; window += 1u) {
        let load_a = load_of_slot(a, window);
        let load_b = load_of_slot(b, window);
        arena[word_at(params.at_load, a * WINDOWS + window)] = u32(load_b);
        arena[word_at(params.at_load, b * WINDOWS + window)] = u32(load_a);
        let moved = load_a - load_b;
        arena[word_at(params.at_gpu_load, gpu_a * WINDOWS + window)] = u32(load_of_gpu(gpu_a, window) - moved);
        arena[word_at(params.at_gpu_load, gpu_b * WINDOWS + window)] = u32(load_of_gpu(gpu_b, window) + moved);
    }
}
