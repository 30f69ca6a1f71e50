// Stage 5: refine each candidate by local search. Reads `kept` (node loads), `problem`; writes `arena`.
//
// refine       the narrow shape: one lane a queued candidate
// refine_wide  the wide shape, in `s5_wide/`: one workgroup a queued candidate, with the same phases and functions
//
// A lane is a small machine: each turn of the loop does one bounded piece of a phase and charges its work, in
// blocks of comparisons. A dispatch ends when the work of the lane since its start passes `fuel`; the next
// dispatch goes on from the control block. Work is also the budget of a restart, looked at between moves, so
// where dispatches are cut changes nothing. The moves are in `s5_moves/`, one file each.

// What a pipeline has at most; a plan may want less of it.
override MOVES: u32;             // the moves, as bits
override ANY_RULE: u32;          // 0: the maximum is the objective, the heaviest GPU proposes, all are partners
override KICKS: u32;
override AVOIDS: u32;            // whether duplicates are avoided
override SLOTS: u32;             // slots of a GPU, rounded up, where they fit a tile, else 0
override GPUS: u32;              // GPUs of a node, rounded up, where a lane can know the loads of all, else 0
// The phases in the order in which a move is looked for.
const PHASE_STEP: u32 = 0u;              // between two moves: done, out of budget, or go on
const PHASE_BEGIN_SWAPS: u32 = 1u;
const PHASE_PROPOSE: u32 = 2u;           // 1-1 swaps: the next heavy GPU (where several propose)
const PHASE_SWAP: u32 = 3u;              // 1-1 swaps: one tile of one other GPU
const PHASE_SWAPS_ENDED: u32 = 4u;
const PHASE_PAIR: u32 = 5u;              // 2-for-2 swaps: one other GPU
const PHASE_BEGIN_BIPARTITION: u32 = 6u;
const PHASE_BIPARTITION: u32 = 7u;       // some splits of the heaviest and the lightest GPU
const PHASE_BEGIN_TRANSFERS: u32 = 8u;
const PHASE_PEAKS: u32 = 9u;             // transfers: the highest loads around each expert, one GPU
const PHASE_REPLACE: u32 = 10u;          // transfers: some experts for one slot of the heaviest GPU
const PHASE_REPLICATE: u32 = 11u;        // transfers: one GPU's slots for one expert of the heaviest GPU
const PHASE_RESTORE: u32 = 12u;          // back to the best placement, after its counts
const PHASE_KICK: u32 = 13u;
const PHASE_REACHED: u32 = 14u;          // the descent ended
const PHASE_STUCK: u32 = 15u;
const PHASE_SPENT: u32 = 16u;

const MOVE_SWAP: u32 = 1u;
const MOVE_PAIR: u32 = 2u;
const MOVE_BIPARTITION: u32 = 4u;
const MOVE_TRANSFER: u32 = 8u;

const OBJECTIVE_MAX: u32 = 0u;
const OBJECTIVE_VARIANCE_THEN_MAX: u32 = 2u;

// The control block, in registers while the lane runs.
var<private> phase: u32;
var<private> work: u32;
var<private> top: u32;            // the heaviest GPU
var<private> top_load: u32;       // its load when it was found
var<private> heavy: u32;          // the GPU that proposes swaps
var<private> light: u32;
var<private> cursor: u32;
var<private> steps: u32;          // of this descent
var<private> variance: u32;       // whether this descent is by the variance
var<private> kicked: u32;         // kicks so far
var<private> best_max: u32;       // the load of the heaviest GPU of the placement remembered
var<private> first_max: u32;      // the same of the first descent
var<private> proposers: u32;      // GPUs that have proposed in this step
var<private> swapped: u32;        // whether one of them has swapped
var<private> gain: Wide;
var<private> move_from: u32;
var<private> move_to: u32;
var<private> move_from_2: u32;
var<private> move_to_2: u32;

// Whether this lane writes what is said once of a candidate: of a team, one does.
var<private> leads: bool = true;

// A transfer to make before the turn ends, or NONE.
var<private> transfer_slot: u32;
var<private> transfer_expert: u32;

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
    if params.restart_begin > 0u && atomicLoad(&queue[decided_at()]) < my_restart {
        set_control(C_END, END_IDLE);
        return;
    }
    let stop = stop_load(groups[chosen_at(my_layer, params.assignment)]);
    resume();
    transfer_slot = NONE;
    let until = work + params.fuel;
    var running = true;
    // One loop a phase, not one switch: a driver that runs both sides of every branch, masked, then pays for
    // the other phases once a move and not once a piece. Most moves are 1-1 swaps, which have a loop of their own.
    while running && work < until {
        while phase <= PHASE_SWAP && work < until {
            if phase == PHASE_STEP {
                find_heaviest();
                next_step(stop);
            }
            if phase == PHASE_BEGIN_SWAPS {
                begin_swaps();
            }
            if ANY_RULE == 1u && phase == PHASE_PROPOSE {
                propose();
            }
            if phase == PHASE_SWAP {
                read_own(heavy);
            }
            while phase == PHASE_SWAP && cursor < swap_pieces() && work < until {
                weigh_swaps();
            }
            if phase == PHASE_SWAP && cursor == swap_pieces() {
                make_best_swap();
            }
        }
        if phase == PHASE_SWAPS_ENDED {
            after_swaps();
        }
        if (MOVES & MOVE_PAIR) != 0u {
            if phase == PHASE_PAIR {
                read_own(top);
            }
            while phase == PHASE_PAIR && cursor < params.node_gpus && work < until {
                weigh_pair_swaps();
            }
            if phase == PHASE_PAIR && cursor == params.node_gpus {
                make_best_pair_swap();
            }
        }
        if phase == PHASE_BEGIN_BIPARTITION {
            begin_bipartition();
        }
        if (MOVES & MOVE_BIPARTITION) != 0u {
            while phase == PHASE_BIPARTITION && work < until {
                weigh_splits();
            }
        }
        if phase == PHASE_BEGIN_TRANSFERS {
            begin_transfers();
            if phase == PHASE_PEAKS {
                clear_peaks();
            }
        }
        if (MOVES & MOVE_TRANSFER) != 0u {
            while phase == PHASE_PEAKS && work < until {
                find_peaks();
            }
            while phase == PHASE_REPLACE && work < until {
                weigh_replacements();
            }
            while phase == PHASE_REPLICATE && cursor < replications() && work < until {
                weigh_replications();
            }
            if phase == PHASE_REPLICATE && cursor == replications() {
                make_best_transfer();
            }
        }
        if phase >= PHASE_REACHED {
            running = end_descent();
            if keeps {
                save();
            } else if KICKS == 1u && phase == PHASE_RESTORE {
                recount();
            }
        } else if KICKS == 1u && phase == PHASE_RESTORE {
            begin_restore();
            restore();
        } else if KICKS == 1u && phase == PHASE_KICK {
            kick_candidate();
        }
        // What a scan or a kick decided on; in one place, because it is long.
        if transfer_slot != NONE {
            transfer(transfer_slot, transfer_expert);
            transfer_slot = NONE;
        }
    }
    suspend();
    if running {
        queue_again();
    }
}

// The words of the control block; where loops are to be kept, a number that the compiler does not know.
fn control_words() -> u32 {
    return select(CONTROL_WORDS, min(CONTROL_WORDS, params.candidate_words), ROLLS == 1u);
}

fn resume() {
    for (var word = C_PHASE; word < control_words(); word += 1u) {
        let value = control(word);
        phase = select(phase, value, word == C_PHASE);
        work = select(work, value, word == C_WORK);
        top = select(top, value, word == C_TOP);
        cursor = select(cursor, value, word == C_CURSOR);
        gain.low = select(gain.low, value, word == C_GAIN_LOW);
        move_from = select(move_from, value, word == C_FROM);
        move_to = select(move_to, value, word == C_TO);
        move_from_2 = select(move_from_2, value, word == C_FROM_2);
        move_to_2 = select(move_to_2, value, word == C_TO_2);
        steps = select(steps, value, word == C_STEPS);
        kicked = select(kicked, value, word == C_KICK);
        best_max = select(best_max, value, word == C_BEST_MAX);
        first_max = select(first_max, value, word == C_FIRST);
        if ANY_RULE == 1u {
            heavy = select(heavy, value, word == C_HEAVY);
            light = select(light, value, word == C_LIGHT);
            gain.high = select(gain.high, value, word == C_GAIN_HIGH);
            variance = select(variance, value, word == C_VARIANCE);
            proposers = select(proposers, value, word == C_PROPOSERS);
            swapped = select(swapped, value, word == C_SWAPPED);
        }
    }
    if ANY_RULE == 0u {
        heavy = top;
        variance = 0u;
        gain.high = 0u;
    }
}

fn suspend() {
    for (var word = C_PHASE; word < control_words(); word += 1u) {
        var value = 0u;
        value = select(value, phase, word == C_PHASE);
        value = select(value, work, word == C_WORK);
        value = select(value, top, word == C_TOP);
        value = select(value, cursor, word == C_CURSOR);
        value = select(value, gain.low, word == C_GAIN_LOW);
        value = select(value, move_from, word == C_FROM);
        value = select(value, move_to, word == C_TO);
        value = select(value, move_from_2, word == C_FROM_2);
        value = select(value, move_to_2, word == C_TO_2);
        value = select(value, steps, word == C_STEPS);
        value = select(value, kicked, word == C_KICK);
        value = select(value, best_max, word == C_BEST_MAX);
        value = select(value, first_max, word == C_FIRST);
        if ANY_RULE == 1u {
            value = select(value, heavy, word == C_HEAVY);
            value = select(value, light, word == C_LIGHT);
            value = select(value, gain.high, word == C_GAIN_HIGH);
            value = select(value, variance, word == C_VARIANCE);
            value = select(value, proposers, word == C_PROPOSERS);
            value = select(value, swapped, word == C_SWAPPED);
        }
        set_control(word, value);
    }
}

fn blocks(n: u32) -> u32 {
    return (n + 3u) / 4u;
}

fn begin_phase(next: u32) {
    phase = next;
    cursor = 0u;
    gain = Wide(0u, 0u);
}

fn has_move(kind: u32) -> bool {
    return (MOVES & params.moves & kind) != 0u;
}

fn objective() -> u32 {
    if ANY_RULE == 0u {
        return OBJECTIVE_MAX;
    }
    return params.objective;
}

// Between two moves, with the heaviest GPU found. The descent ends at the stop load or at the end of a budget;
// else a move is looked for.
fn next_step(stop: u32) {
    work += 4u * TURN + blocks(params.node_gpus);
    if steps == 0u {
        variance = select(1u, 0u, objective() == OBJECTIVE_MAX);
    }
    if top_load <= stop {
        phase = PHASE_REACHED;
    } else if steps == params.steps || work >= params.work_limit {
        phase = PHASE_SPENT;
    } else {
        steps += 1u;
        phase = select(PHASE_SWAPS_ENDED, PHASE_BEGIN_SWAPS, has_move(MOVE_SWAP));
    }
}

// No 1-1 swap helps.
fn after_swaps() {
    if objective() == OBJECTIVE_VARIANCE_THEN_MAX && variance == 1u {
        variance = 0u;
        phase = PHASE_STEP;
    } else if has_move(MOVE_PAIR) && params.slots_per_gpu >= 2u {
        work += 1u + blocks(params.node_gpus);
        begin_phase(PHASE_PAIR);
    } else {
        phase = PHASE_BEGIN_BIPARTITION;
    }
}

// Whether a descent that ended is to be saved.
var<private> keeps: bool;

// The descent ended: keep what it reached if it is not worse, and kick if a kick is left. Whether to go on.
fn end_descent() -> bool {
    let reached = gpu_load(top);
    let goes_on = phase == PHASE_STUCK && kicked < params.kicks;
    if !goes_on && leads {
        set_control(C_END, phase - PHASE_REACHED + END_REACHED);
        if phase == PHASE_REACHED && will_be_kept(reached) {
            atomicMin(&queue[decided_at()], my_restart);
        }
    }
    phase = PHASE_KICK;
    if kicked == 0u {
        first_max = reached;
    }
    keeps = kicked == 0u || reached <= best_max;
    if keeps {
        best_max = reached;
        work += 4u * TURN + blocks(params.node_slots);
    } else if goes_on && KICKS == 1u {
        phase = PHASE_RESTORE;
        work += 4u * TURN + blocks(params.node_experts) + blocks(params.node_slots);
    }
    return goes_on;
}

// Whether stage 6 keeps a result at the stop load, if no restart before it is there. What it compares with is known
// once the first restart has ended.
fn will_be_kept(reached: u32) -> bool {
    if params.restart_begin == 0u {
        return false;
    }
    let reference = kept[node_state_at(my_layer, my_node) + NODE_REFERENCE];
    let must_beat = reference - mul_high(reference, params.margin_fraction);
    return params.margin_fraction == 0u || count_noise(my_restart) == 0 || reached < must_beat;
}

// Remembers the placement.
fn save() {
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

// The counts of the placement remembered, and no load on any GPU.
fn recount() {
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

fn begin_restore() {
    phase = PHASE_KICK;
    work += 4u * TURN + blocks(params.node_slots);
}

// The rest of the placement remembered.
fn restore() {
    for (var slot = 0u; slot < params.node_slots; slot += 4u) {
        restore_slot(slot);
        restore_slot(slot + 1u);
        restore_slot(slot + 2u);
        restore_slot(slot + 3u);
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
    if slot % params.slots_per_gpu == 0u {
        set_gpu_load(slot / params.slots_per_gpu, 0u);
    }
    let expert = snapshot(slot);
    if expert != FREE {
        set_count(expert, count_of(expert) + 1u);
    }
}

fn restore_slot(slot: u32) {
    if slot < params.node_slots {
        let gpu = slot / params.slots_per_gpu;
        set_gpu_load(gpu, gpu_load(gpu) + restored(slot));
    }
}

// A slot; its share in the load of its GPU.
fn restored(slot: u32) -> u32 {
    let expert = snapshot(slot);
    var load = 0u;
    if expert != FREE {
        load = weight(expert) / max(count_of(expert), 1u);
    }
    set_slot(slot, expert, load);
    return load;
}

// Sets `top` and its load; ties to the lower GPU.
fn find_heaviest() {
    top = 0u;
    top_load = gpu_load(0u);
    for (var gpu = 1u; gpu < params.node_gpus; gpu += 4u) {
        heavier_gpu(gpu);
        heavier_gpu(gpu + 1u);
        heavier_gpu(gpu + 2u);
        heavier_gpu(gpu + 3u);
    }
}

fn heavier_gpu(gpu: u32) {
    // Behind the last, the last again.
    let load = gpu_load(min(gpu, params.node_gpus - 1u));
    top = select(top, gpu, load > top_load);
    top_load = max(load, top_load);
}

// How many replicas the expert in a slot has; 0 for a free slot.
fn count_at(slot: u32) -> u32 {
    return replicas_of(slot_expert(slot));
}

// The same of what a slot holds.
fn replicas_of(expert: u32) -> u32 {
    if expert == FREE {
        return 0u;
    }
    return count_of(expert);
}

// Where the slots of a GPU fit a tile: the loads and experts of one GPU, read once for all it is compared with, and
// which of them another GPU holds as well, and the other way round, as bits.
var<private> own_loads: array<i32, TILE>;
var<private> own_twins: u32;
var<private> other_twins: u32;

fn read_own(gpu: u32) {
    if SLOTS == 0u {
        return;
    }
    let begin = gpu * params.slots_per_gpu;
    let last = params.slots_per_gpu - 1u;
    if ROLLS == 1u {
        for (var i = 0u; i < SLOTS; i += 1u) {
            own_loads[i] = -NEVER;
            own_experts[i] = FREE;
        }
        for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
            keep_own(i, i32(slot_load(begin + i)), slot_expert(begin + i));
        }
        return;
    }
    for (var i = 0u; i < SLOTS; i += 1u) {
        let slot = begin + min(i, last);
        own_loads[i] = select(-NEVER, i32(slot_load(slot)), i <= last);
        own_experts[i] = select(FREE, slot_expert(slot), i <= last);
    }
}

// One slot of what `read_own` reads, by constant indices.
fn keep_own(at: u32, load: i32, expert: u32) {
    for (var i = 0u; i < SLOTS; i += 1u) {
        own_loads[i] = select(own_loads[i], load, i == at);
        own_experts[i] = select(own_experts[i], expert, i == at);
    }
}

// What twins are charged, of which `n` of each GPU are wanted.
fn twins_cost(n: u32) -> u32 {
    return select(0u, 2u * (n + params.slots_per_gpu * (1u + blocks(n))), AVOIDS == 1u);
}

// Sets the twins.
fn find_twins(begin: u32) {
    own_twins = 0u;
    other_twins = 0u;
    if AVOIDS == 0u {
        return;
    }
    for (var j = 0u; j < params.slots_per_gpu; j += 1u) {
        let expert = other_expert(begin, j);
        let found = select(own_replicas(expert), 0u, expert == FREE);
        own_twins |= found;
        other_twins |= select(0u, 1u << j, found != 0u);
    }
}

// The own slots that hold an expert, as bits. In a function of its own: naga counts the trips of a loop from where
// its function begins, so that a compiler that unrolls the loop unrolls the counting away too.
fn own_replicas(expert: u32) -> u32 {
    var found = 0u;
    for (var i = 0u; i < SLOTS; i += 1u) {
        found |= select(0u, 1u << i, own_experts[i] == expert);
    }
    return found;
}

// The load of an own slot; a replica that would make a duplicate on the other side has one no swap wants.
fn own_load(i: u32) -> i32 {
    return select(own_loads[i], -NEVER, ((own_twins >> i) & 1u) == 1u);
}

// The load of a slot of the other GPU.
fn other_load(begin: u32, j: u32) -> i32 {
    if holds_slots {
        return select(i32(seen_load(j)), NEVER, ((other_twins >> j) & 1u) == 1u);
    }
    return select(i32(slot_load(begin + j)), NEVER, ((other_twins >> j) & 1u) == 1u);
}

// Its expert.
fn other_expert(begin: u32, j: u32) -> u32 {
    if holds_slots {
        return seen_expert(j);
    }
    return slot_expert(begin + j);
}

// Loads of some slots of the heavy GPU, then, from TILE on, of another; a replica that would make a duplicate
// on the other side has a load no swap wants.
var<private> items: array<i32, ITEMS>;
var<private> own_experts: array<u32, TILE>;

// Reads `heavy_count` slots from `heavy_begin` and `count` slots from `begin`, each at most TILE.
fn read_items(heavy_begin: u32, heavy_count: u32, begin: u32, count: u32) {
    let k = params.slots_per_gpu;
    for (var side = 0u; side < 2u; side += 1u) {
        let mine = side == 0u;
        let first = select(begin, heavy_begin, mine);
        let n = select(count, heavy_count, mine);
        let other = select(heavy_begin, begin, mine) / k;
        let blocked = duplicates_on(other, first, n);
        for (var i = 0u; i < n; i += 1u) {
            let never = select(NEVER, -NEVER, mine);
            items[side * TILE + i] = select(i32(slot_load(first + i)), never, ((blocked >> i) & 1u) == 1u);
        }
    }
}

// Of the `count` slots from `begin`, those whose replica would be a duplicate on `gpu`, as bits.
fn duplicates_on(gpu: u32, begin: u32, count: u32) -> u32 {
    if AVOIDS == 0u {
        return 0u;
    }
    let k = params.slots_per_gpu;
    work += count + k * (1u + blocks(count));
    for (var i = 0u; i < count; i += 1u) {
        own_experts[i] = slot_expert(begin + i);
    }
    var found = 0u;
    for (var slot = gpu * k; slot < (gpu + 1u) * k; slot += 1u) {
        let expert = slot_expert(slot);
        for (var i = 0u; i < count; i += 4u) {
            found |= (twin(i, expert) | (twin(i + 1u, expert) << 1u) | (twin(i + 2u, expert) << 2u)
                | (twin(i + 3u, expert) << 3u)) << i;
        }
    }
    // The last block may have looked behind the end.
    return found & (0xffffffffu >> (32u - count));
}

fn twin(i: u32, expert: u32) -> u32 {
    return select(0u, 1u, own_experts[i & (TILE - 1u)] == expert && expert != FREE);
}

// Whether `gpu` holds `expert`.
fn holds(gpu: u32, expert: u32) -> bool {
    return copies_on(gpu, expert) > 0u;
}

// How many replicas of `expert` are on `gpu`.
fn copies_on(gpu: u32, expert: u32) -> u32 {
    work += blocks(params.slots_per_gpu);
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
    return select(0u, 1u, slot_expert(min(slot, end - 1u)) == expert && slot < end);
}

// Exchanges what two slots of different GPUs hold.
fn exchange(a: u32, b: u32) {
    exchange_held(a, slot_expert(a), b, slot_expert(b));
}

fn exchange_held(a: u32, expert_a: u32, b: u32, expert_b: u32) {
    let load_a = slot_load(a);
    let load_b = slot_load(b);
    let gpu_a = a / params.slots_per_gpu;
    let gpu_b = b / params.slots_per_gpu;
    set_gpu_load(gpu_a, gpu_load(gpu_a) - load_a + load_b);
    set_gpu_load(gpu_b, gpu_load(gpu_b) - load_b + load_a);
    set_slot(a, expert_b, load_b);
    set_slot(b, expert_a, load_a);
}
