// Stage 5 where there are several windows: refine each candidate by local search. One lane a candidate. Reads
// `kept` (node loads of the windows, floors); writes `arena`.
//
// A machine as in `s5_refine.wgsl`: each turn does one bounded piece of a phase and charges its work, a dispatch
// ends when that passes `fuel`, and the next goes on from the control block. The value of a placement is the sum
// over windows of the heaviest GPU, not below the floor. A scan weighs one kind of move (`s5_windows_moves/`),
// window by window, of the window's heaviest GPU.


const PHASE_STEP: u32 = 0u;          // between two moves or before a kick: the heaviest GPUs of four windows
const PHASE_WINDOW: u32 = 1u;        // which GPU proposes moves for the next window of the scan
const PHASE_SWAP: u32 = 2u;          // 1-1 swaps: one tile of one other GPU
const PHASE_PAIR: u32 = 3u;          // 2-for-2 swaps: one slot of another GPU with those after it
const PHASE_SLOT: u32 = 4u;          // transfers: the next slot
const PHASE_GONE: u32 = 5u;          // transfers: some GPUs, as they are without the slot's replica
const PHASE_REPLACE: u32 = 6u;       // transfers: some experts for a slot of the proposing GPU
const PHASE_REPLICATE: u32 = 7u;     // transfers: some experts of the proposing GPU for a slot elsewhere
const PHASE_RESTORE: u32 = 8u;       // back to the best placement, after its counts
const PHASE_KICK: u32 = 9u;
const PHASE_TRANSFER: u32 = 10u;     // a transfer is made: the loads of some slots
const PHASE_REACHED: u32 = 11u;      // the descent ended
const PHASE_STUCK: u32 = 12u;
const PHASE_SPENT: u32 = 13u;

const SCAN_SWAPS: u32 = 0u;
const SCAN_PAIRS: u32 = 1u;
const SCAN_TRANSFERS: u32 = 2u;

const MOVE_SWAP: u32 = 1u;
const MOVE_PAIR: u32 = 2u;
const MOVE_TRANSFER: u32 = 8u;

// The control block, in registers while the lane runs.
var<private> phase: u32;
var<private> work: u32;
var<private> scan: u32;
var<private> window: u32;
var<private> value_now: u32;
var<private> heavy: u32;          // the GPU that proposes moves
var<private> cursor: u32;
var<private> slot_now: u32;       // transfers: which slot
var<private> best: Wide;          // of the best move: high the value after it, low that of its GPUs alone
var<private> move_from: u32;
var<private> move_to: u32;
var<private> move_from_2: u32;
var<private> move_to_2: u32;

@compute @workgroup_size(64)
fn refine(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params();
    let candidate = candidate_of(lane_of(workgroup, grid, local));
    if candidate == NONE {
        return;
    }
    take_candidate(candidate);
    let stop = stop_load(groups[chosen_at(my_layer, params.assignment)]);
    resume();
    let until = work + params.fuel;
    var running = true;
    while running && work < until {
        while phase == PHASE_STEP && work < until {
            next_step(stop);
        }
        while phase == PHASE_WINDOW && work < until {
            enter_window();
        }
        while phase == PHASE_SWAP && work < until {
            weigh_swaps();
        }
        if (params.moves & MOVE_PAIR) != 0u {
            while phase == PHASE_PAIR && work < until {
                weigh_pair_swaps();
            }
        }
        if (params.moves & MOVE_TRANSFER) != 0u {
            while phase >= PHASE_SLOT && phase <= PHASE_REPLICATE && work < until {
                if phase == PHASE_SLOT {
                    next_slot();
                }
                while phase == PHASE_GONE && work < until {
                    look_at_gone();
                }
                while phase == PHASE_REPLACE && work < until {
                    weigh_replacements();
                }
                while phase == PHASE_REPLICATE && work < until {
                    weigh_replications();
                }
            }
        }
        while phase == PHASE_TRANSFER && work < until {
            transfer();
        }
        while phase == PHASE_RESTORE && work < until {
            restore();
        }
        if work >= until {
            break;
        }
        if phase >= PHASE_REACHED {
            running = end_descent();
        } else if phase == PHASE_KICK {
            kick_candidate();
        }
    }
    suspend();
    if running {
        queue_again();
    }
}

fn resume() {
    phase = control(C_PHASE);
    work = control(C_WORK);
    scan = control(C_SCAN);
    window = control(C_WINDOW);
    value_now = control(C_VALUE);
    heavy = control(C_HEAVY);
    cursor = control(C_CURSOR);
    slot_now = control(C_SLOT);
    best = Wide(control(C_GAIN_LOW), control(C_GAIN_HIGH));
    move_from = control(C_FROM);
    move_to = control(C_TO);
    move_from_2 = control(C_FROM_2);
    move_to_2 = control(C_TO_2);
}

fn suspend() {
    set_control(C_PHASE, phase);
    set_control(C_WORK, work);
    set_control(C_SCAN, scan);
    set_control(C_WINDOW, window);
    set_control(C_VALUE, value_now);
    set_control(C_HEAVY, heavy);
    set_control(C_CURSOR, cursor);
    set_control(C_SLOT, slot_now);
    set_control(C_GAIN_LOW, best.low);
    set_control(C_GAIN_HIGH, best.high);
    set_control(C_FROM, move_from);
    set_control(C_TO, move_to);
    set_control(C_FROM_2, move_from_2);
    set_control(C_TO_2, move_to_2);
}

fn blocks(n: u32) -> u32 {
    return (n + 3u) / 4u;
}

// The heaviest GPUs of four windows; behind the last, the descent ends at the stop load or at the end of a
// budget, else a move is looked for. Before a kick, the kick.
fn next_step(stop: u32) {
    if cursor == 0u {
        work += 4u * TURN;
        value_now = 0u;
    }
    find_tops(cursor);
    cursor += 1u;
    if cursor < params.quads {
        return;
    }
    cursor = 0u;
    let steps = control(C_STEPS);
    if control(C_KICKS_NEXT) == 1u {
        phase = PHASE_KICK;
    } else if value_now <= stop {
        phase = PHASE_REACHED;
    } else if steps == params.steps || work >= params.work_limit {
        phase = PHASE_SPENT;
    } else {
        set_control(C_STEPS, steps + 1u);
        begin_scan(SCAN_SWAPS);
    }
}

// Of each window the three heaviest GPUs and their loads, four windows a vec4: first GPU and load, then second
// and third. Ties to the lower GPU.
fn top(q: u32, part: u32) -> vec4<u32> {
    return quad_at(params.at_tops, part, q);
}

struct Tops {
    gpu: vec4<u32>,
    load: vec4<u32>,
    gpu_2: vec4<u32>,
    load_2: vec4<u32>,
    gpu_3: vec4<u32>,
    load_3: vec4<u32>,
}

var<private> tops: Tops;

fn find_tops(q: u32) {
    work += TURN + blocks(params.node_gpus);
    let none = vec4<u32>(FREE);
    let zero = vec4<u32>(0u);
    tops = Tops(none, zero, none, zero, none, zero);
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 4u) {
        raise_tops(gpu, q);
        raise_tops(gpu + 1u, q);
        raise_tops(gpu + 2u, q);
        raise_tops(gpu + 3u, q);
    }
    set_quad_at(params.at_tops, 0u, q, tops.gpu);
    set_quad_at(params.at_tops, 1u, q, tops.load);
    set_quad_at(params.at_tops, 2u, q, tops.gpu_2);
    set_quad_at(params.at_tops, 3u, q, tops.load_2);
    set_quad_at(params.at_tops, 4u, q, tops.gpu_3);
    set_quad_at(params.at_tops, 5u, q, tops.load_3);
    value_now += sum_of(max(tops.load, floor_quad(q)));
}

fn raise_tops(gpu: u32, q: u32) {
    if gpu >= params.node_gpus {
        return;
    }
    let load = gpu_quad(gpu, q);
    let here = vec4<u32>(gpu);
    let none = vec4<u32>(FREE);
    let first = (tops.gpu == none) | (load > tops.load);
    let second = (tops.gpu_2 == none) | (load > tops.load_2);
    let third = (tops.gpu_3 == none) | (load > tops.load_3);
    tops.gpu_3 = select(select(tops.gpu_3, here, third), tops.gpu_2, first | second);
    tops.load_3 = select(select(tops.load_3, load, third), tops.load_2, first | second);
    tops.gpu_2 = select(select(tops.gpu_2, here, second), tops.gpu, first);
    tops.load_2 = select(select(tops.load_2, load, second), tops.load, first);
    tops.gpu = select(tops.gpu, here, first);
    tops.load = select(tops.load, load, first);
}

// The heaviest loads of four windows among the GPUs other than `a` and `b`, not below the floor.
fn top_without(a: u32, b: u32, q: u32) -> vec4<u32> {
    let here = vec4<u32>(a);
    let there = vec4<u32>(b);
    let gpu = top(q, 0u);
    let gpu_2 = top(q, 2u);
    let later = select(top(q, 3u), top(q, 5u), (gpu_2 == here) | (gpu_2 == there));
    return max(select(top(q, 1u), later, (gpu == here) | (gpu == there)), floor_quad(q));
}

// The heaviest GPU of one window.
fn top_of(w: u32) -> u32 {
    return top_word(w, 0u);
}

fn top_word(w: u32, part: u32) -> u32 {
    return arena[word_at(params.at_tops, (part * params.quads + w / 4u) * 4u + w % 4u)];
}

// Whether the heaviest GPU of a window is above the window's floor.
fn is_critical(w: u32) -> bool {
    return top_word(w, 1u) > kept[params.at_floors + my_layer * params.quads * 4u + w];
}

// Looks for the best move of a kind, and where that is not among the search's moves, of the next.
fn begin_scan(kind: u32) {
    scan = kind;
    if scan == SCAN_SWAPS && (params.moves & MOVE_SWAP) == 0u {
        scan = SCAN_PAIRS;
    }
    if scan == SCAN_PAIRS && ((params.moves & MOVE_PAIR) == 0u || params.slots_per_gpu < 2u) {
        scan = SCAN_TRANSFERS;
    }
    let some = scan == SCAN_SWAPS || scan == SCAN_PAIRS
        || (scan == SCAN_TRANSFERS && (params.moves & MOVE_TRANSFER) != 0u);
    phase = select(PHASE_STUCK, PHASE_WINDOW, some);
    window = 0u;
    best = Wide(NONE, value_now);
}

// Lets the heaviest GPU of the window propose moves, unless it is light enough or an earlier window's.
fn enter_window() {
    work += TURN + params.windows;
    let now = window;
    heavy = top_of(now);
    cursor = 0u;
    var proposes = is_critical(now);
    for (var w = 0u; w < now; w += 1u) {
        if top_of(w) == heavy && is_critical(w) {
            proposes = false;
        }
    }
    if !proposes {
        leave_window();
    } else if scan == SCAN_SWAPS {
        phase = PHASE_SWAP;
    } else if scan == SCAN_PAIRS {
        phase = PHASE_PAIR;
    } else {
        begin_transfers();
    }
}

fn leave_window() {
    window += 1u;
    phase = PHASE_WINDOW;
    if window == params.windows {
        end_scan();
    }
}

// Whether the budget is passed: a scan then ends with what it has found.
fn is_spent() -> bool {
    return work > params.work_limit;
}

// The best move is made, or moves of the next kind are looked for.
fn end_scan() {
    if best.low == NONE || (scan == SCAN_TRANSFERS && best.high >= value_now) {
        begin_scan(scan + 1u);
        return;
    }
    begin_step(0u);
    if scan == SCAN_TRANSFERS {
        phase = PHASE_TRANSFER;
        return;
    }
    exchange_slots(move_from, move_to);
    if scan == SCAN_PAIRS {
        exchange_slots(move_from_2, move_to_2);
    }
}

// The heaviest GPUs anew, then a kick or the next move.
fn begin_step(kicks_next: u32) {
    phase = PHASE_STEP;
    cursor = 0u;
    set_control(C_KICKS_NEXT, kicks_next);
}

// The descent ended: keep what it reached if it is not worse, and kick if a kick is left. Whether to go on.
fn end_descent() -> bool {
    let kick = control(C_KICK);
    let goes_on = phase == PHASE_STUCK && kick < params.kicks;
    if !goes_on {
        set_control(C_END, phase - PHASE_REACHED + END_REACHED);
    }
    if kick == 0u {
        set_control(C_FIRST, value_now);
    }
    let kept_one = kick == 0u || value_now <= control(C_BEST_MAX);
    if kept_one {
        set_control(C_BEST_MAX, value_now);
        save();
    }
    if goes_on && kept_one {
        begin_step(1u);
    } else if goes_on {
        recount();
        phase = PHASE_RESTORE;
        cursor = 0u;
    }
    return goes_on;
}

// Remembers the placement.
fn save() {
    work += 4u * TURN + blocks(params.node_slots);
    for (var slot = 0u; slot < params.node_slots; slot += 4u) {
        save_slot(slot);
        save_slot(slot + 1u);
        save_slot(slot + 2u);
        save_slot(slot + 3u);
    }
}

fn save_slot(slot: u32) {
    if slot < params.node_slots {
        set_snapshot(slot, slot_expert(slot));
    }
}

// The counts of the placement remembered.
fn recount() {
    work += 4u * TURN + blocks(params.node_experts) + blocks(params.node_slots);
    for (var expert = 0u; expert < params.node_experts; expert += 4u) {
        clear_count(expert);
        clear_count(expert + 1u);
        clear_count(expert + 2u);
        clear_count(expert + 3u);
    }
    for (var slot = 0u; slot < params.node_slots; slot += 4u) {
        count_slot(slot);
        count_slot(slot + 1u);
        count_slot(slot + 2u);
        count_slot(slot + 3u);
    }
}

// Some slots of the placement remembered.
fn restore() {
    let end = min(cursor + WINDOW_SLOTS, params.node_slots);
    work += TURN + (end - cursor) * (4u + 3u * params.quads);
    for (var slot = cursor; slot < end; slot += 1u) {
        if slot % params.slots_per_gpu == 0u {
            empty_gpu(slot / params.slots_per_gpu);
        }
        empty_slot(slot);
        let expert = snapshot(slot);
        if expert != FREE {
            arena[word_at(params.at_expert, slot)] = expert;
            weigh_slot(slot);
        }
    }
    cursor = end;
    if end == params.node_slots {
        begin_step(1u);
    }
}

fn clear_count(expert: u32) {
    if expert < params.node_experts {
        set_count(expert, 0u);
    }
}

fn count_slot(slot: u32) {
    if slot >= params.node_slots {
        return;
    }
    let expert = snapshot(slot);
    if expert != FREE {
        set_count(expert, count_of(expert) + 1u);
    }
}

// How many replicas the expert in a slot has; 0 for a free slot.
fn count_at(slot: u32) -> u32 {
    let expert = slot_expert(slot);
    if expert == FREE {
        return 0u;
    }
    return count_of(expert);
}

// How many replicas of `expert` are on `gpu`. The caller charges the look.
fn copies_on(gpu: u32, expert: u32) -> u32 {
    let begin = gpu * params.slots_per_gpu;
    let end = begin + params.slots_per_gpu;
    var copies = 0u;
    for (var slot = begin; slot < end; slot += 4u) {
        copies += is_replica(slot, end, expert) + is_replica(slot + 1u, end, expert)
            + is_replica(slot + 2u, end, expert) + is_replica(slot + 3u, end, expert);
    }
    return copies;
}

fn is_replica(slot: u32, end: u32, expert: u32) -> u32 {
    if slot >= end {
        return 0u;
    }
    return select(0u, 1u, slot_expert(slot) == expert);
}

// Of `count` slots from `begin`, at most 32, those whose replica would be a duplicate on `gpu`, as bits.
fn twins_on(gpu: u32, begin: u32, count: u32) -> u32 {
    if params.avoid_duplicates == 0u {
        return 0u;
    }
    work += count * (2u + blocks(params.slots_per_gpu));
    var found = 0u;
    for (var i = 0u; i < count; i += 1u) {
        if count_at(begin + i) > 1u && copies_on(gpu, slot_expert(begin + i)) > 0u {
            found |= 1u << i;
        }
    }
    return found;
}

// What two GPUs come to, or one and those that a transfer changes: for the loads of the heavier of the two the
// value is the sum over windows of the larger of it and `others`, and their own value, with `near`.
var<private> others: array<vec4<u32>, 4>;
var<private> near: array<vec4<u32>, 4>;

fn outcome(q: u32, heavier: vec4<u32>) -> Wide {
    return Wide(sum_of(max(near[q], heavier)), sum_of(max(others[q], heavier)));
}

fn plus(a: Wide, b: Wide) -> Wide {
    return Wide(a.low + b.low, a.high + b.high);
}
