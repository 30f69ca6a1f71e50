// The wide shape of stage 5: one workgroup a candidate, a team. Lane 0 leads: it holds the control block and goes
// through the phases as a lane of the narrow shape does; what looks at many GPUs, slots or experts is spread over
// the team. State and work are those of the narrow shape between any two pieces, so that either may go on where
// the other stopped.
//
// In a round every lane weighs a piece of its own, against the best before the round. Then the leader goes through
// the reports in order: a piece that a lane alone would not have weighed any more counts for nothing and is not
// charged, so that work is charged as if by one lane.

override TEAM: u32 = 8u;

// What the leader tells the team: (phase, cursor, top, heavy), (gain, move_from, move_to).
struct Order {
    now: vec4<u32>,
    best: vec4<u32>,
}
var<workgroup> order: Order;
// In place of a phase: the dispatch ends; the loads after a transfer from the expert in `gain` to the one in
// `move_to`; the placement to remember.
const ORDER_END: u32 = 0xffffffffu;
const ORDER_REWEIGH: u32 = 0xfffffffeu;
const ORDER_SAVE: u32 = 0xfffffffdu;

// What the lanes tell the leader.
var<workgroup> reports: array<vec4<u32>, TEAM>;
var<workgroup> found_moves: array<vec4<u32>, TEAM>;
var<workgroup> costs: array<u32, TEAM>;
var<workgroup> queue_length: u32;

var<private> lane: u32;
// Work charged in this dispatch for pieces beside the first of a round: it took no time.
var<private> beside: u32;
var<private> until: u32;

@compute @workgroup_size(TEAM)
fn refine_wide(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    lane = local;
    let place = workgroup.y * grid.x + workgroup.x;
    if lane == 0u {
        queue_length = queued();
    }
    if place >= workgroupUniformLoad(&queue_length) {
        return;
    }
    take_candidate(queued_candidate(place));
    let stop = stop_load(groups[chosen_at(my_layer, params.assignment)]);
    var running = true;
    own_gpu = NONE;
    if lane == 0u {
        resume();
        transfer_slot = NONE;
        until = work + params.fuel;
        beside = 0u;
        give_order(phase);
        if params.restart_begin > 0u && atomicLoad(&queue[decided_at()]) < my_restart {
            set_control(C_END, END_IDLE);
            running = false;
            order.now.x = ORDER_END;
        }
    }
    loop {
        // As in the narrow shape, one loop a phase: a driver may walk through all code of a loop, masked.
        if listen() == ORDER_END {
            break;
        }
        loop {
            let now = listen();
            if now > PHASE_SWAP {
                break;
            }
            team_step(now, stop);
            loop {
                if listen() != PHASE_SWAP {
                    break;
                }
                team_swaps();
            }
        }
        if lane == 0u {
            if phase == PHASE_SWAPS_ENDED {
                after_swaps();
            }
            give_order(phase);
        }
        if (MOVES & MOVE_PAIR) != 0u {
            loop {
                if listen() != PHASE_PAIR {
                    break;
                }
                team_pair_swaps();
            }
        }
        if lane == 0u {
            if phase == PHASE_BEGIN_BIPARTITION {
                begin_bipartition();
            }
            while (MOVES & MOVE_BIPARTITION) != 0u && phase == PHASE_BIPARTITION && in_budget() {
                weigh_splits();
            }
            give_order(phase);
        }
        team_transfers();
        // The same turn goes on to the kick.
        if lane == 0u {
            keeps = false;
            if phase >= PHASE_REACHED {
                running = end_descent();
                if !keeps && phase == PHASE_RESTORE {
                    recount();
                }
            }
            give_order(select(phase, ORDER_SAVE, keeps));
        }
        let ended = listen();
        if ended == ORDER_SAVE {
            team_save();
        } else if ended == PHASE_RESTORE {
            team_restore();
            if lane == 0u {
                begin_restore();
            }
        }
        // Before the leader changes what is being saved, or reads what was restored.
        storageBarrier();
        if lane == 0u {
            var next = phase;
            if KICKS == 1u && phase == PHASE_KICK && running {
                kick_candidate();
                next = phase;
                if transfer_slot != NONE {
                    gain.low = begin_transfer(transfer_slot, transfer_expert);
                    move_to = transfer_expert;
                    transfer_slot = NONE;
                    next = ORDER_REWEIGH;
                }
            }
            give_order(select(next, ORDER_END, !running));
        }
        if listen() == ORDER_REWEIGH {
            team_reweigh();
            if lane == 0u {
                give_order(phase);
            }
        }
    }
    if lane == 0u {
        suspend();
        if running {
            queue_again();
        }
    }
}

fn in_budget() -> bool {
    return work - beside < until;
}

// Tells the team what the control block is; the end where the dispatch has used up its fuel.
fn give_order(next: u32) {
    let ends = next <= PHASE_SPENT && !in_budget();
    order.now = vec4<u32>(select(next, ORDER_END, ends), cursor, top, heavy);
    order.best = vec4<u32>(gain.low, gain.high, move_from, move_to);
}

// Waits for the leader. What it wrote, in the arena too, is seen from here on.
fn listen() -> u32 {
    storageBarrier();
    let told = workgroupUniformLoad(&order);
    cursor = told.now.y;
    top = told.now.z;
    heavy = told.now.w;
    gain = Wide(told.best.x, told.best.y);
    move_from = told.best.z;
    move_to = told.best.w;
    return told.now.x;
}

// Between two moves: the heaviest GPU, ties to the lower; then the leader goes on to the next scan of swaps.
fn team_step(now: u32, stop: u32) {
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
    if lane != 0u {
        return;
    }
    if now == PHASE_STEP {
        for (var i = 1u; i < TEAM; i += 1u) {
            let report = reports[i];
            let heavier = report.x > most || (report.x == most && report.y < heaviest);
            if heavier && i < params.node_gpus {
                most = report.x;
                heaviest = report.y;
            }
        }
        top = heaviest;
        next_step(stop);
    }
    if phase == PHASE_BEGIN_SWAPS {
        begin_swaps();
    }
    if phase == PHASE_PROPOSE {
        propose();
    }
    give_order(phase);
}

// Remembers the placement.
fn team_save() {
    for (var slot = lane; slot < params.node_slots; slot += TEAM) {
        save_slot(slot);
    }
}

// Back to the placement remembered; a GPU's slots are one lane's.
fn team_restore() {
    for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
        for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
            restore_slot(gpu * params.slots_per_gpu + i);
        }
    }
}

// The loads after a transfer; a GPU's slots are one lane's.
fn team_reweigh() {
    for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
        for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
            reweigh(gpu * params.slots_per_gpu + i, gain.low, move_to);
        }
    }
}
