// Rounds of the wide shape: the scans of `s5_moves/`, spread over a team.

// 1-1 swaps, one other GPU a lane; behind the last, the best swap is made. Where a GPU has more than one tile the
// leader scans alone.
fn team_swaps() {
    let alone = SLOTS == 0u;
    read_own_once(heavy);
    let before = work;
    var most = Wide(0u, 0u);
    let gpu = cursor + lane;
    if !alone && gpu < params.node_gpus {
        most = weigh_swaps_with(gpu);
    }
    report(most, before);
    workgroupBarrier();
    if lane != 0u {
        return;
    }
    if alone {
        weigh_swaps();
    } else {
        settle();
    }
    if cursor == swap_pieces() {
        make_best_swap();
    }
    if phase == PHASE_PROPOSE {
        propose();
    }
    give_order(phase);
}

// The best swap with one GPU of one tile, as `weigh_swaps`; the most it could have gained.
fn weigh_swaps_with(gpu: u32) -> Wide {
    let load_a = gpu_load(heavy);
    let load_b = gpu_load(gpu);
    if load_a <= load_b || (marks_gpus() && mark(gpu) != MARK_PARTNER) {
        return Wide(0u, 0u);
    }
    let distance = load_a - load_b;
    let most = worth(distance / 2u, distance);
    if wide_greater(most, gain) {
        weigh_slots(gpu, i32(distance), i32(select(gain.low, 0u, by_variance())));
    }
    return most;
}

// The GPU whose slots this lane has read, in this dispatch.
var<private> own_gpu: u32;

// As `read_own`, at the start of a scan or of a dispatch.
fn read_own_once(gpu: u32) {
    if cursor == 0u || own_gpu != gpu {
        read_own(gpu);
        own_gpu = gpu;
    }
}

// 2-for-2 swaps, one other GPU a lane.
fn team_pair_swaps() {
    read_own_once(top);
    let before = work;
    var most = 0;
    let gpu = cursor + lane;
    if gpu < params.node_gpus {
        let distance = i32(gpu_load(top)) - i32(gpu_load(gpu));
        most = max(distance / 2, 0);
        if most > i32(gain.low) {
            weigh_pairs_with(gpu, distance);
        }
    }
    report(Wide(u32(most), 0u), before);
    workgroupBarrier();
    if lane != 0u {
        return;
    }
    settle();
    if cursor == params.node_gpus {
        make_best_pair_swap();
    }
    give_order(phase);
}

// What a lane found, the most it could have found, and what it charged since.
fn report(most: Wide, before: u32) {
    reports[lane] = vec4<u32>(most.low, most.high, gain.low, gain.high);
    found_moves[lane] = vec4<u32>(move_from, move_to, move_from_2, move_to_2);
    costs[lane] = work - before;
    if lane == 0u {
        // What is charged is said by `settle`; the best before is the order's.
        work = before;
        gain = Wide(order.best.x, order.best.y);
    }
}

// The reports in order. All GPUs that are weighed cost the same.
fn settle() {
    let lanes = min(TEAM, params.node_gpus - cursor);
    var weighed = 0u;
    var cost = 0u;
    var best = TEAM;
    for (var i = 0u; i < TEAM; i += 1u) {
        let report = reports[i];
        if i < lanes && wide_greater(Wide(report.x, report.y), gain) {
            weighed += 1u;
            cost = costs[i];
            if wide_greater(Wide(report.z, report.w), gain) {
                gain = Wide(report.z, report.w);
                best = i;
            }
        }
    }
    if best < TEAM {
        let found = found_moves[best];
        move_from = found.x;
        move_to = found.y;
        move_from_2 = found.z;
        move_to_2 = found.w;
    }
    cursor += lanes;
    work += lanes * TURN + weighed * cost;
    beside += (lanes - 1u) * TURN + (max(weighed, 1u) - 1u) * cost;
}

// Replica transfers, from the peaks to the loads after the best of them.
fn team_transfers() {
    if listen() == PHASE_BEGIN_TRANSFERS {
        if lane == 0u {
            begin_transfers();
        }
        if has_move(MOVE_TRANSFER) {
            for (var expert = lane; expert < params.node_experts; expert += TEAM) {
                clear_peak(expert);
            }
            storageBarrier();
            for (var i = lane; i < params.slots_per_gpu; i += TEAM) {
                mark_held(i);
            }
        }
        if lane == 0u {
            give_order(phase);
        }
    }
    loop {
        if listen() != PHASE_PEAKS {
            break;
        }
        team_peaks();
    }
    loop {
        if listen() != PHASE_REPLACE {
            break;
        }
        team_replacements();
    }
    loop {
        if listen() != PHASE_REPLICATE {
            break;
        }
        team_replications();
    }
    if listen() == ORDER_REWEIGH {
        team_reweigh();
        if lane == 0u {
            give_order(phase);
        }
    }
}

// The peaks' share of a GPU for each lane: a slot a lane at a time, which the leader adds in order.
fn team_peaks() {
    let k = params.slots_per_gpu;
    let lanes = min(TEAM, params.node_gpus - cursor);
    var charged = 0u;
    for (var i = 0u; i < k; i += 1u) {
        let at = i * TEAM + lane;
        let slot = cursor * k + at;
        var raised = vec4<u32>(NONE, 0u, 0u, 0u);
        let before = work;
        if at < lanes * k && count_at(slot) > 1u {
            let gpu = slot / k;
            raised = vec4<u32>(slot_expert(slot), gpu, gpu_load(gpu) + copies_at(slot) * growth(slot), 0u);
        }
        raised.w = work - before;
        reports[lane] = raised;
        workgroupBarrier();
        if lane == 0u {
            work = before;
            // A bound that compilers do not know: unrolled, this takes them seconds.
            let told = min(TEAM, lanes * k - min(i * TEAM, lanes * k));
            for (var j = 0u; j < told; j += 1u) {
                let report = reports[j];
                if report.x != NONE {
                    raise_peak(report.x, report.y, report.z);
                    charged += report.w;
                }
            }
        }
        workgroupBarrier();
    }
    if lane != 0u {
        return;
    }
    cursor += lanes;
    work += lanes * (TURN + k) + charged;
    if cursor == params.node_gpus {
        phase = PHASE_REPLACE;
        cursor = 0u;
    }
    give_order(phase);
}

// Some experts for one slot of the heaviest GPU, as `weigh_replacements`.
fn team_replacements() {
    let chunks = (params.node_experts + TRANSFER_CHUNK - 1u) / TRANSFER_CHUNK;
    let index = cursor / chunks;
    let begin = cursor % chunks * TRANSFER_CHUNK;
    let slot = top * params.slots_per_gpu + min(index, params.slots_per_gpu - 1u);
    var next = cursor + 1u;
    work += select(0u, TURN, index < params.slots_per_gpu);
    let others = peak_without_slot(slot, top);
    if index == params.slots_per_gpu || count_at(slot) < 2u || others >= gain.low {
        next = (index + 1u) * chunks;
    } else {
        let without = gpu_load(top) - slot_load(slot) + (copies_at(slot) - 1u) * growth(slot);
        work += TRANSFER_CHUNK;
        for (var i = lane; i < TRANSFER_CHUNK; i += TEAM) {
            if begin + i < params.node_experts {
                weigh_replacement(slot, begin + i, others, without);
            }
        }
    }
    reports[lane] = vec4<u32>(gain.low, move_from, move_to, 0u);
    workgroupBarrier();
    if lane != 0u {
        return;
    }
    if index == params.slots_per_gpu {
        phase = PHASE_REPLICATE;
        next = 0u;
    }
    for (var i = 1u; i < TEAM; i += 1u) {
        let report = reports[i];
        // Lanes have experts in turn: of those found in this round the lowest one is the first.
        let is_first = report.x == gain.low && report.x < order.best.x && report.z < move_to;
        if report.x < gain.low || is_first {
            gain.low = report.x;
            move_from = report.y;
            move_to = report.z;
        }
    }
    cursor = next;
    give_order(phase);
}

// The peak of the expert in a slot, without a GPU.
fn peak_without_slot(slot: u32, gpu: u32) -> u32 {
    let expert = slot_expert(slot);
    if expert == FREE {
        return 0u;
    }
    return peak_without(expert, gpu);
}

// One expert of the heaviest GPU for the slots of one GPU a lane, as `weigh_replications`. Where looks for
// duplicates are charged as the best changes, the leader scans alone.
fn team_replications() {
    let alone = AVOIDS == 0u;
    let index = cursor / params.node_gpus;
    let first = cursor % params.node_gpus;
    let lanes = min(TEAM, params.node_gpus - first);
    let on = top * params.slots_per_gpu + min(index, params.slots_per_gpu - 1u);
    let expert = slot_expert(on);
    let count = count_at(on);
    let fits = index < params.slots_per_gpu && count != 0u && count < params.max_count;
    let before = work;
    var on_heavy = 0u;
    if fits && !alone {
        let load = weight(expert) / (count + 1u);
        on_heavy = gpu_load(top) - (slot_load(on) - load);
        let gpu = first + lane;
        if lane < lanes && gpu != top && on_heavy < gain.low && !holds(gpu, expert) {
            work += params.slots_per_gpu;
            for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
                weigh_replication(gpu * params.slots_per_gpu + i, gpu, expert, load, on_heavy);
            }
        }
    }
    reports[lane] = vec4<u32>(gain.low, move_from, move_to, work - before);
    workgroupBarrier();
    if lane != 0u {
        return;
    }
    work = before;
    gain.low = order.best.x;
    move_from = order.best.z;
    move_to = order.best.w;
    var next = phase;
    if index == params.slots_per_gpu {
        phase = select(PHASE_STEP, PHASE_STUCK, move_from == NONE);
        next = phase;
        if move_from != NONE {
            gain.low = begin_transfer(move_from, move_to);
            next = ORDER_REWEIGH;
        }
    } else if alone {
        weigh_replications();
    } else if !fits {
        work += TURN;
        cursor = (index + 1u) * params.node_gpus;
    } else {
        settle_replications(index, first, lanes, on_heavy);
    }
    give_order(next);
}

fn settle_replications(index: u32, first: u32, lanes: u32, on_heavy: u32) {
    var turns = 0u;
    var charged = 0u;
    var most = 0u;
    cursor += lanes;
    for (var i = 0u; i < TEAM; i += 1u) {
        let report = reports[i];
        let goes_on = i < lanes && turns == i;
        if goes_on && first + i != top && on_heavy >= gain.low {
            // No GPU is worth a look for this slot any more.
            cursor = (index + 1u) * params.node_gpus;
            turns = i + 1u + TEAM;
        } else if goes_on {
            turns += 1u;
            charged += report.w;
            most = max(most, report.w);
            if report.x < gain.low {
                gain.low = report.x;
                move_from = report.y;
                move_to = report.z;
            }
        }
    }
    turns = select(turns, turns - TEAM, turns > TEAM);
    work += turns * TURN + charged;
    beside += (turns - 1u) * TURN + charged - most;
}
