// The wide shape of stage 5: one workgroup a candidate, a team. All its lanes go through the phases together, each
// with the whole control block in registers; what looks at many GPUs, slots or experts is spread over them, and
// lane 0 alone, which leads, writes what is said once. State and work are those of the narrow shape between any two
// pieces, so that either may go on where the other stopped.
//
// For searches in which the heaviest GPU alone proposes, the slots of a GPU fit a tile and no GPU holds duplicates:
// see `has_wide` in `src/stages/s5_refine.rs`.
//
// In a round every lane weighs a piece of its own, against the best before the round. Then all go through the
// reports in order: a piece that a lane alone would not have weighed any more counts for nothing and is not
// charged, so that work is charged as if by one lane.
//
// Loops with barriers are bounded by what compilers know to be the same for all lanes: the uniform block itself.
//
// Drivers on the processor walk through all code of a loop, masked, whatever the branches. So loops are nested by how
// often they run, and end where their next turn would be an empty one.

// What the lanes tell each other: the best that a lane found, by which move, and either the most it could have found or
// the work it took.
var<workgroup> reports: array<vec4<u32>, TEAM>;
// The phase all are in, said so that a compiler knows it to be the same for all.
var<workgroup> agreed: u32;
// What a kick came to: (work, slot, expert) of its transfer.
var<workgroup> kick_result: vec3<u32>;
var<workgroup> queue_length: u32;

// A swap is to be made, before the dispatch may end: the number of a phase that no search here has.
const PHASE_EXCHANGE: u32 = PHASE_PROPOSE;
const PHASE_ENDED: u32 = 0xffffffffu;    // of this dispatch

var<private> lane: u32;
// Work charged in this dispatch for pieces beside the first of a round: it took no time.
var<private> beside: u32;
var<private> until: u32;
var<private> running: bool;

@compute @workgroup_size(TEAM)
fn refine_wide(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    take_params();
    lane = local;
    leads = lane == 0u;
    let place = workgroup.y * grid.x + workgroup.x;
    if leads {
        queue_length = queued();
    }
    if place >= workgroupUniformLoad(&queue_length) {
        return;
    }
    take_candidate(queued_candidate(place));
    if leads {
        agreed = PHASE_STEP;
        if params.restart_begin > 0u && atomicLoad(&queue[decided_at()]) < my_restart {
            set_control(C_END, END_IDLE);
            agreed = PHASE_ENDED;
        }
    }
    if workgroupUniformLoad(&agreed) == PHASE_ENDED {
        return;
    }
    let stop = stop_load(groups[chosen_at(my_layer, params.assignment)]);
    resume();
    running = true;
    own_gpu = NONE;
    eligible_gpu = NONE;
    transfer_slot = NONE;
    beside = 0u;
    until = work + params.fuel;
    // Of a scan that was cut.
    partner = move_to / params.slots_per_gpu;
    top = min(top, params.node_gpus - 1u);
    top_load = gpu_load(top);
    holds_slots = ROUNDS > 0u;
    loop {
        learn();
        var now = PHASE_STEP;
        loop {
            loop {
                team_step(stop);
                team_scan(PHASE_SWAP);
                team_exchange();
                storageBarrier();
                now = agree();
                if now > PHASE_SWAP {
                    break;
                }
            }
            if phase == PHASE_SWAPS_ENDED {
                after_swaps();
            }
            if (MOVES & MOVE_PAIR) != 0u {
                team_scan(PHASE_PAIR);
                now = agree();
            }
            if now > PHASE_EXCHANGE {
                break;
            }
        }
        if now == PHASE_ENDED {
            break;
        }
        if phase == PHASE_BEGIN_BIPARTITION {
            begin_bipartition();
        }
        if (MOVES & MOVE_TRANSFER) != 0u {
            team_transfers();
        } else if phase == PHASE_BEGIN_TRANSFERS {
            begin_transfers();
        }
        team_end();
        storageBarrier();
        if agree() == PHASE_ENDED {
            break;
        }
    }
    if leads {
        suspend();
        if running {
            queue_again();
        }
    }
}

// The phase, or that the dispatch has come to its end.
fn agree() -> u32 {
    if leads {
        agreed = select(PHASE_ENDED, phase, (running && work - beside < until) || phase == PHASE_EXCHANGE);
    }
    return workgroupUniformLoad(&agreed);
}

// Between two moves: the heaviest GPU, ties to the lower, and the start of the next scan of swaps.
fn team_step(stop: u32) {
    let steps_now = phase == PHASE_STEP;
    if GPUS > 0u {
        if steps_now {
            find_heaviest_known();
        }
    } else {
        var heaviest = 0u;
        var most = 0u;
        for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
            let load = gpu_load(gpu);
            if gpu == lane || load > most {
                heaviest = gpu;
                most = load;
            }
        }
        reports[lane] = vec4<u32>(most, heaviest, 0u, 0u);
        workgroupBarrier();
        if steps_now {
            top = NONE;
            top_load = 0u;
            for (var i = 0u; i < min(TEAM, params.node_gpus); i += 1u) {
                let report = reports[i];
                let heavier = report.x > top_load || (report.x == top_load && report.y < top);
                top = select(top, report.y, heavier);
                top_load = max(top_load, report.x);
            }
        }
        // Before the next reports.
        workgroupBarrier();
    }
    if steps_now {
        next_step(stop);
    }
    if phase == PHASE_BEGIN_SWAPS {
        begin_swaps();
    }
    // For scans of pairs too, which begin before the next step where there are no other swaps.
    if phase <= PHASE_PAIR && own_gpu != top {
        read_own(top);
        own_gpu = top;
    }
}

// The end of a descent: the placement remembered, or the one before brought back, and a kick.
fn team_end() {
    let ends = phase >= PHASE_REACHED;
    keeps = false;
    if ends {
        running = end_descent();
        if keeps {
            team_save();
        }
    }
    if KICKS == 1u {
        if leads {
            agreed = phase;
        }
        let restores = workgroupUniformLoad(&agreed) == PHASE_RESTORE;
        team_recount(restores);
        if restores {
            team_restore();
            begin_restore();
        }
        storageBarrier();
        team_kick();
    }
    if KICKS == 1u || (MOVES & MOVE_TRANSFER) != 0u {
        team_transfer();
    }
}

// Remembers the placement.
fn team_save() {
    for (var slot = lane; slot < params.node_slots; slot += TEAM) {
        set_snapshot(slot, slot_expert(slot));
    }
}

// The counts of the placement remembered. GPU by GPU: there are no duplicates, so each expert has one lane.
fn team_recount(recounts: bool) {
    for (var expert = lane; expert < select(0u, params.node_experts, recounts); expert += TEAM) {
        set_count(expert, 0u);
    }
    for (var gpu = 0u; gpu < select(0u, dispatched.node_gpus, recounts); gpu += 1u) {
        storageBarrier();
        for (var i = lane; i < params.slots_per_gpu; i += TEAM) {
            let expert = snapshot(gpu * params.slots_per_gpu + i);
            if expert != FREE {
                set_count(expert, count_of(expert) + 1u);
            }
        }
    }
    storageBarrier();
}

// Back to the placement remembered; a GPU's slots are one lane's.
fn team_restore() {
    for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
        var load = 0u;
        for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
            load += restored(gpu * params.slots_per_gpu + i);
        }
        set_gpu_load(gpu, load);
    }
    own_gpu = NONE;
}

fn team_kick() {
    let kicks = phase == PHASE_KICK && running;
    if kicks && leads {
        kick_candidate();
        kick_result = vec3<u32>(work, transfer_slot, transfer_expert);
    }
    workgroupBarrier();
    if kicks {
        if !leads {
            kicked += 1u;
            steps = 0u;
            phase = PHASE_STEP;
            work = kick_result.x;
            transfer_slot = kick_result.y;
            transfer_expert = kick_result.z;
        }
        own_gpu = NONE;
    }
}

// What a scan or a kick decided on: the counts, then the loads; a GPU's slots are one lane's.
fn team_transfer() {
    let moves = transfer_slot != NONE;
    storageBarrier();
    var old = FREE;
    if moves {
        old = slot_expert(transfer_slot);
    }
    storageBarrier();
    if moves && leads {
        begin_transfer(transfer_slot, old, transfer_expert);
    } else if moves {
        work += transfer_cost();
    }
    storageBarrier();
    if moves {
        for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
            for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
                reweigh(gpu * params.slots_per_gpu + i, gpu, old, transfer_expert);
            }
        }
        transfer_slot = NONE;
        own_gpu = NONE;
    }
}
