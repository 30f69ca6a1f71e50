// Stage 5 of the lineage's presets: refine each candidate by descent. Reads `groups`; writes `arena`.
//
// descend  one lane in `spread` a queued candidate
//
// A lane is a small machine: each turn does one bounded piece of a phase, and counts the loop trips it may have made.
// A dispatch ends when these pass `fuel`; the next goes on from the control block, so where dispatches are cut
// changes nothing. The moves are in `s5_descend/`, one file each.

// The phases in the order in which a move is looked for.
const PHASE_STEP: u32 = 0u;            // between two moves: done, out of steps, or go on; packing leaves it
const PHASE_BEGIN_SWAPS: u32 = 1u;
const PHASE_PARTNERS: u32 = 2u;        // 1-1 swaps: one more of the lightest GPUs
const PHASE_PROPOSE: u32 = 3u;         // 1-1 swaps: the next heavy GPU
const PHASE_SWAP: u32 = 4u;            // 1-1 swaps: one slot of another GPU
const PHASE_SWAPS_ENDED: u32 = 5u;
const PHASE_PAIR: u32 = 6u;            // 2-for-2 swaps: one pair of slots of another GPU
const PHASE_BEGIN_SPLITS: u32 = 7u;
const PHASE_SPLIT: u32 = 8u;           // bipartition: some splits



// Control words of this stage.
const C_PHASE: u32 = C_SEARCH;
const C_STEPS: u32 = C_SEARCH + 1u;
const C_VARIANCE: u32 = C_SEARCH + 2u;
const C_HEAVY: u32 = C_SEARCH + 3u;
const C_LIGHT: u32 = C_SEARCH + 4u;
const C_CURSOR: u32 = C_SEARCH + 5u;
const C_PROPOSERS: u32 = C_SEARCH + 6u;
const C_SWAPPED: u32 = C_SEARCH + 7u;
const C_GAIN_LOW: u32 = C_SEARCH + 8u;
const C_GAIN_HIGH: u32 = C_SEARCH + 9u;
const C_FROM: u32 = C_SEARCH + 10u;
const C_TO: u32 = C_SEARCH + 11u;
const C_FROM_2: u32 = C_SEARCH + 12u;
const C_TO_2: u32 = C_SEARCH + 13u;

// The same, in registers while the lane runs.
var<private> phase: u32;
var<private> steps: u32;
var<private> variance: u32;       // whether the variance is the objective now
var<private> heavy: u32;          // the GPU that wants to give load away
var<private> light: u32;          // bipartition: the other one
var<private> cursor: u32;         // how far a phase is
var<private> proposers: u32;      // GPUs that have proposed swaps in this step
var<private> swapped: u32;        // whether one of them has swapped
var<private> gain: Wide;          // of the best move so far
var<private> move_from: u32;
var<private> move_to: u32;
var<private> move_from_2: u32;
var<private> move_to_2: u32;

// Of this dispatch: the loop trips so far, and why the descent ended if it did.
var<private> spent: u32;
var<private> ended: u32;

@compute @workgroup_size(LANES)
fn descend(invocation: Invocation) {
    let candidate = candidate_of(take_lane(invocation));
    if candidate == NONE {
        return;
    }
    take_candidate(candidate);
    let stop = stop_load(node_bound(my_layer, my_node));
    resume();
    spent = 0u;
    ended = END_RUNNING;
    while ended == END_RUNNING && spent < params.fuel {
        // A driver that runs all branches, masked, walks through each loop of the shader once.
        spent += DESCENT_WALK;
        // No `switch`: Direct3D's compiler FXC takes its variable, which the branches set, for the constant of each case.
        let now = phase;
        if now == PHASE_STEP {
            begin_step(stop);
        } else if now == PHASE_BEGIN_SWAPS {
            begin_swaps();
        } else if now == PHASE_PARTNERS {
            mark_partner();
        } else if now == PHASE_PROPOSE {
            propose();
        } else if now == PHASE_SWAPS_ENDED {
            after_swaps();
        } else if now == PHASE_BEGIN_SPLITS {
            begin_splits();
        }
        // Scans have loops of their own, so that a piece of one does not walk through the others.
        while phase == PHASE_SWAP && spent < params.fuel {
            weigh_swaps();
        }
        while phase == PHASE_PAIR && spent < params.fuel {
            weigh_pair_swaps();
        }
        while phase == PHASE_SPLIT && ended == END_RUNNING && spent < params.fuel {
            weigh_splits();
        }
    }
    if ended == END_RUNNING {
        suspend();
        queue_again();
    } else {
        write_result();
    }
}

fn resume() {
    phase = control(C_PHASE);
    steps = control(C_STEPS);
    variance = control(C_VARIANCE);
    heavy = control(C_HEAVY);
    light = control(C_LIGHT);
    cursor = control(C_CURSOR);
    proposers = control(C_PROPOSERS);
    swapped = control(C_SWAPPED);
    gain = Wide(control(C_GAIN_LOW), control(C_GAIN_HIGH));
    move_from = control(C_FROM);
    move_to = control(C_TO);
    move_from_2 = control(C_FROM_2);
    move_to_2 = control(C_TO_2);
}

fn suspend() {
    set_control(C_PHASE, phase);
    set_control(C_STEPS, steps);
    set_control(C_VARIANCE, variance);
    set_control(C_HEAVY, heavy);
    set_control(C_LIGHT, light);
    set_control(C_CURSOR, cursor);
    set_control(C_PROPOSERS, proposers);
    set_control(C_SWAPPED, swapped);
    set_control(C_GAIN_LOW, gain.low);
    set_control(C_GAIN_HIGH, gain.high);
    set_control(C_FROM, move_from);
    set_control(C_TO, move_to);
    set_control(C_FROM_2, move_from_2);
    set_control(C_TO_2, move_to_2);
}

// A descent ends where `heavy` is the heaviest GPU.
fn write_result() {
    set_control(C_END, ended);
    set_control(C_BEST_MAX, gpu_load(heavy));
    for (var slot = 0u; slot < params.node_slots; slot += 1u) {
        set_snapshot(slot, slot_expert(slot));
    }
}

fn begin_scan(next: u32) {
    phase = next;
    cursor = 0u;
    gain = Wide(0u, 0u);
}

fn has_move(kind: u32) -> bool {
    return (params.moves & kind) != 0u;
}

// Between two moves.
fn begin_step(stop: u32) {
    heavy = heaviest(0u);
    if steps == 0u {
        variance = select(1u, 0u, params.objective == OBJECTIVE_MAX);
    }
    if gpu_load(heavy) <= stop {
        ended = END_REACHED;
    } else if steps == params.steps {
        ended = END_SPENT;
    } else {
        steps += 1u;
        phase = select(PHASE_SWAPS_ENDED, PHASE_BEGIN_SWAPS, has_move(MOVE_SWAP));
    }
}

// No 1-1 swap helps.
fn after_swaps() {
    heavy = heaviest(0u);
    if variance == 1u && params.objective == OBJECTIVE_VARIANCE_THEN_MAX {
        variance = 0u;
        phase = PHASE_STEP;
    } else if has_move(MOVE_PAIR) && params.slots_per_gpu >= 2u {
        begin_scan(PHASE_PAIR);
        note_experts(ON_HEAVY, heavy);
    } else {
        phase = PHASE_BEGIN_SPLITS;
    }
}

fn mark(gpu: u32) -> u32 {
    return arena[word_at(params.at_marks, gpu)];
}

fn set_mark(gpu: u32, value: u32) {
    arena[word_at(params.at_marks, gpu)] = value;
}

// The heaviest GPU without a mark, ties to the lower; NONE where all have it.
fn heaviest(unwanted: u32) -> u32 {
    return foremost(unwanted, 0u);
}

// The same of the lightest.
fn lightest(unwanted: u32) -> u32 {
    return foremost(unwanted, 0xffffffffu);
}

// The first by load, where all bits are flipped by the least.
fn foremost(unwanted: u32, flip: u32) -> u32 {
    spent += params.node_gpus;
    var found = NONE;
    var most = 0u;
    for (var gpu = 0u; gpu < params.node_gpus; gpu += 1u) {
        let load = gpu_load(gpu) ^ flip;
        if (mark(gpu) & unwanted) == 0u && (found == NONE || load > most) {
            found = gpu;
            most = load;
        }
    }
    return found;
}

// By how much giving up a load of `mine` for one of `theirs` lowers the larger of two GPU loads that are `distance` apart:
// d of the difference D changes sides, so the larger load becomes smaller by min(d, D - d).
fn moved(mine: u32, theirs: u32, distance: u32) -> u32 {
    let d = max(mine, theirs) - theirs;
    return min(d, max(distance, d) - d);
}

// Where the experts of two GPUs were noted: a slot for each expert, in either part of the scratch.
const ON_HEAVY: u32 = 0u;
const ON_OTHER: u32 = 1u;

fn note_experts(part: u32, gpu: u32) {
    if params.avoid_duplicates == 0u {
        return;
    }
    let k = params.slots_per_gpu;
    spent += k;
    for (var i = 0u; i < k; i += 1u) {
        let expert = slot_expert(gpu * k + i);
        if expert != FREE {
            set_scratch(part * params.node_experts + expert, gpu * k + i);
        }
    }
}

// Whether a GPU whose experts are noted may not have what a slot of another holds, because it would be a duplicate.
// Notes that an earlier GPU or stage left do no harm: an expert is where its note says, or not on the GPU.
fn is_duplicate(slot: u32, part: u32, gpu: u32) -> bool {
    let expert = slot_expert(slot);
    if params.avoid_duplicates == 0u || expert == FREE {
        return false;
    }
    let noted = scratch(part * params.node_experts + expert);
    return noted / params.slots_per_gpu == gpu && slot_expert(noted) == expert;
}

// Exchanges what two slots of different GPUs hold.
fn exchange(a: u32, b: u32) {
    let expert_a = slot_expert(a);
    let load_a = slot_load(a);
    let load_b = slot_load(b);
    let gpu_a = a / params.slots_per_gpu;
    let gpu_b = b / params.slots_per_gpu;
    set_gpu_load(gpu_a, gpu_load(gpu_a) - load_a + load_b);
    set_gpu_load(gpu_b, gpu_load(gpu_b) - load_b + load_a);
    set_slot(a, slot_expert(b), load_b);
    set_slot(b, expert_a, load_a);
}
