// Stage 5: one trajectory from each packed candidate. Reads `kept` (loads), `groups`, `problem`; writes `arena`.
//
// search  one workgroup a queued candidate
//
// An iteration finds the heaviest GPU, weighs every exchange of it with every other GPU (`exchange.wgsl`), and makes
// the best one even where that makes things worse. What moved stays for a few iterations. Where no exchange helps, a
// replica of one expert may become one of another (`transfer.wgsl`). The best placement on the way is the result.
//
// Lanes share the GPUs, slots and experts that an iteration weighs; lane 0, which leads, decides, and tells the others
// what was decided by one word that all load together. A dispatch runs `params.end` iterations, and the next one goes
// on from the control block: where dispatches are cut changes nothing.

// Lanes of a workgroup.
override TEAM: u32 = 8u;
// Windows of the loads.
override WINDOWS: u32 = 1u;

// Control words of this stage.
const C_ITERATION: u32 = C_SEARCH;
const C_SINCE: u32 = C_SEARCH + 1u;       // iterations without a new best
const C_IS_NEW: u32 = C_SEARCH + 2u;      // 1: the placement is the best so far and not kept yet
const C_REPLICATED: u32 = C_SEARCH + 3u;  // experts with two replicas or more

// What the leader decides between two iterations.
const GO_ON: u32 = 0u;
const PAUSE: u32 = 1u;            // the dispatch ends
const STOP: u32 = 2u;             // the search ends

const KIND_NONE: u32 = 0u;
const KIND_SWAP: u32 = 1u;
const KIND_PAIR_SWAP: u32 = 2u;
const KIND_TRANSFER: u32 = 3u;

const MOST_SLOTS: u32 = 256u;     // slots of a GPU, `MAX_SLOTS_PER_GPU`
const MOST_OFFERED: u32 = 512u;   // slots offered x windows
const MOST_WINDOWS: u32 = 16u;

// The best that each lane found: the objective after it, and which move, so that ties have an order.
var<workgroup> lane_value: array<i32, TEAM>;
var<workgroup> lane_code: array<u32, TEAM>;
// What all lanes are told.
var<workgroup> decision: u32;
var<workgroup> proposer: u32;
var<workgroup> clock: u32;
var<workgroup> choice: u32;
var<workgroup> lightest_gainer: u32;
var<workgroup> is_kept: u32;
var<workgroup> forced: u32;
var<workgroup> move_kind: u32;
var<workgroup> losing: u32;
var<workgroup> gaining: u32;
// The three heaviest GPUs of each window, with their loads.
var<workgroup> top_gpu: array<u32, 48>;
var<workgroup> top_load: array<i32, 48>;
// Experts of the proposing GPU, and those of them with several replicas, else NONE.
var<workgroup> own_expert: array<u32, MOST_SLOTS>;
var<workgroup> own_several: array<u32, MOST_SLOTS>;

var<private> lane: u32;
// The leader's.
var<private> iteration: u32;
var<private> since: u32;
var<private> best: i32;
var<private> value: i32;
var<private> is_new: bool;
var<private> replicated: u32;
// What all lanes know of the iteration.
var<private> now: u32;
var<private> heavy: u32;
// The best that this lane found.
var<private> mine: i32;
var<private> my_code: u32;
// The move, in the leader: slots of the node, and for a transfer the expert that gains.
var<private> found: i32;
var<private> kind: u32;
var<private> from_1: u32;
var<private> to_1: u32;
var<private> from_2: u32;
var<private> to_2: u32;

@compute @workgroup_size(TEAM)
fn search(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params();
    lane = local;
    let place = workgroup.y * grid.x + workgroup.x;
    if lane == 0u {
        choice = queued();
    }
    if place >= workgroupUniformLoad(&choice) {
        return;
    }
    take_candidate(queued_candidate(place));
    let key = start_key(first_group(), my_start);
    let stop = i32(stop_load(node_bound(my_layer, my_node)));
    if lane == 0u {
        resume();
        choice = iteration;
    }
    if workgroupUniformLoad(&choice) == 0u {
        begin();
    }
    var counted = false;
    for (var done = 0u; done < dispatched.end + 1u; done += 1u) {
        look(key);
        if lane == 0u {
            decide(done, stop, counted);
        }
        if workgroupUniformLoad(&decision) != GO_ON {
            break;
        }
        counted = true;
        now = workgroupUniformLoad(&clock);
        heavy = workgroupUniformLoad(&proposer);
        find_exchange(key);
        find_transfer(key);
        if lane == 0u {
            // With duplicates a transfer may come to more than it says: a GPU may hold the expert that loses twice.
            let may_be_worse = kind == KIND_TRANSFER && params.avoid_duplicates == 0u;
            is_kept = select(0u, 1u, is_new && (found >= value || may_be_worse));
            move_kind = kind;
        }
        if workgroupUniformLoad(&is_kept) == 1u {
            keep();
            is_new = false;
            // The move changes what other lanes are still to keep.
            storageBarrier();
        }
        make_move(key);
        storageBarrier();
    }
    if lane == 0u {
        is_kept = select(0u, 1u, is_new && decision == STOP);
    }
    if workgroupUniformLoad(&is_kept) == 1u {
        keep();
    }
    if lane == 0u {
        suspend();
    }
}

fn resume() {
    iteration = control(C_ITERATION);
    since = control(C_SINCE);
    best = i32(control(C_BEST_MAX));
    is_new = control(C_IS_NEW) == 1u;
    replicated = control(C_REPLICATED);
}

fn suspend() {
    set_control(C_ITERATION, iteration);
    set_control(C_SINCE, since);
    set_control(C_BEST_MAX, u32(best));
    set_control(C_IS_NEW, select(0u, 1u, is_new));
    set_control(C_REPLICATED, replicated);
    if decision == PAUSE {
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
        arena[word_at(params.at_peaks, expert * peak_words())] = 0u;
    }
    storageBarrier();
    weigh_gpus();
    if lane == 0u {
        replicated = 0u;
        for (var expert = 0u; expert < params.node_experts; expert += 1u) {
            if count_of(expert) > 1u {
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
    return i32(kept[params.at_node_windows + (my_loads + expert) * 4u * params.quads + window]);
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

// What the heaviest GPU of a window cannot go below.
fn floor_of(window: u32) -> i32 {
    if WINDOWS == 1u {
        return 0;
    }
    return i32(kept[params.at_floors + my_layer * 4u * params.quads + window]);
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

// Finds the heaviest GPUs of each window, ties to the lower GPU, for all lanes.
fn look(key: u32) {
    if WINDOWS == 1u {
        mine = -1;
        my_code = NONE;
        for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
            let load = load_of_gpu(gpu, 0u);
            my_code = select(my_code, gpu, load > mine);
            mine = max(mine, load);
        }
        lane_value[lane] = -mine;
        lane_code[lane] = my_code;
        workgroupBarrier();
        if lane == 0u {
            let least = least_of_lanes();
            top_gpu[0] = lane_code[least];
            top_load[0] = -lane_value[least];
        }
        return;
    }
    for (var window = lane; window < WINDOWS; window += TEAM) {
        for (var rank = 0u; rank < 3u; rank += 1u) {
            top_gpu[window * 3u + rank] = NONE;
            top_load[window * 3u + rank] = -1;
        }
        for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
            insert_top(window * 3u, gpu, load_of_gpu(gpu, window));
        }
    }
    workgroupBarrier();
}

// Puts a GPU among the three heaviest so far.
fn insert_top(first: u32, gpu: u32, load: i32) {
    var rank = 3u;
    while rank > 0u && load > top_load[first + rank - 1u] {
        rank -= 1u;
        if rank < 2u {
            top_gpu[first + rank + 1u] = top_gpu[first + rank];
            top_load[first + rank + 1u] = top_load[first + rank];
        }
    }
    if rank < 3u {
        top_gpu[first + rank] = gpu;
        top_load[first + rank] = load;
    }
}

// The lane with the least value, then the least code.
fn least_of_lanes() -> u32 {
    var least = 0u;
    for (var other = 1u; other < TEAM; other += 1u) {
        let better = lane_value[other] < lane_value[least]
            || (lane_value[other] == lane_value[least] && lane_code[other] < lane_code[least]);
        least = select(least, other, better);
    }
    return least;
}

// The leader, between two iterations: what the last one came to, whether there is a next, and which GPU moves then.
// The first look of a dispatch was counted by the one before.
fn decide(done: u32, stop: i32, counted: bool) {
    value = 0;
    var furthest = 0u;
    for (var window = 0u; window < WINDOWS; window += 1u) {
        value += max(top_load[window * 3u], floor_of(window));
        let excess = top_load[window * 3u] - floor_of(window);
        if excess > top_load[furthest * 3u] - floor_of(furthest) {
            furthest = window;
        }
    }
    if iteration == 0u {
        best = value;
        since = 0u;
        is_new = true;
    } else if counted {
        if value < best {
            best = value;
            since = 0u;
            is_new = true;
        } else {
            since += 1u;
        }
    }
    decision = GO_ON;
    if best <= stop {
        decision = STOP;
        set_control(C_END, END_REACHED);
    } else if since > select(params.later_patience, params.patience, my_start == 0u) || params.node_gpus == 1u || params.slots_per_gpu == 1u {
        decision = STOP;
        set_control(C_END, END_STUCK);
    } else if iteration == params.iterations {
        decision = STOP;
        set_control(C_END, END_SPENT);
    } else if done == params.end {
        decision = PAUSE;
    } else {
        iteration += 1u;
    }
    clock = iteration;
    proposer = top_gpu[furthest * 3u];
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

// This lane's best so far: the lower value, then the lower code.
fn offer(after: i32, code: u32) {
    if after < mine || (after == mine && code < my_code) {
        mine = after;
        my_code = code;
    }
}

// The lanes' bests to the leader: afterwards `mine` and `my_code` are the best of all there.
fn gather_best() {
    lane_value[lane] = mine;
    lane_code[lane] = my_code;
    workgroupBarrier();
    if lane == 0u {
        let least = least_of_lanes();
        mine = lane_value[least];
        my_code = lane_code[least];
    }
}

// Keeps the placement as the result.
fn keep() {
    for (var slot = lane; slot < params.node_slots; slot += TEAM) {
        set_snapshot(slot, slot_expert(slot));
    }
}

// Makes the move that the leader found, and forbids to undo it for some iterations.
fn make_move(key: u32) {
    if lane == 0u {
        let word = draw(key, DRAW_TENURE + now);
        if kind == KIND_NONE {
            for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
                arena[word_at(params.at_tabu, heavy * params.slots_per_gpu + i)] = 0u;
            }
        } else if kind == KIND_TRANSFER {
            losing = slot_expert(from_1);
            gaining = to_1;
            change_counts(from_1);
            arena[word_at(params.at_no_gain, losing)] = expert_tenure(word);
            arena[word_at(params.at_no_loss, gaining)] = expert_tenure(word >> 8u);
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
    if workgroupUniformLoad(&move_kind) == KIND_TRANSFER {
        storageBarrier();
        for (var slot = lane; slot < params.node_slots; slot += TEAM) {
            let expert = slot_expert(slot);
            if expert == losing || expert == gaining {
                weigh_slot(slot);
            }
        }
        storageBarrier();
        weigh_gpus();
    }
}

fn slot_tenure(word: u32) -> u32 {
    return now + SLOT_TENURE + (word & 0xffu) % 3u;
}

fn expert_tenure(word: u32) -> u32 {
    return now + EXPERT_TENURE + (word & 0xffu) % EXPERT_TENURE;
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
