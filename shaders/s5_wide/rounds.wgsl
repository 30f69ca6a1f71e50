// Rounds of the wide shape: the scans of `s5_moves/`, spread over a team. In a round that begins with GPU `first`, a
// multiple of TEAM, lane i looks at GPU `first + i`, unless that came before the cursor.

// The GPU whose slots this lane has read, since they last changed: before any scan of swaps the heaviest.
var<private> own_gpu: u32;

// The load of the GPU that this lane looks at.
fn load_seen(gpu: u32) -> u32 {
    if holds_slots {
        return seen_gpu_load;
    }
    return gpu_load(min(gpu, params.node_gpus - 1u));
}

// How much a GPU is below the heaviest one; 0 before the cursor and behind the last GPU.
fn distance_to(gpu: u32) -> u32 {
    let load = load_seen(gpu);
    return select(0u, top_load - load, gpu >= cursor && gpu < params.node_gpus && top_load > load);
}

// A scan of swaps, 1-1 or 2-for-2 as the phase `scanned` says: rounds of one other GPU a lane, then the best swap.
fn team_scan(scanned: u32) {
    let scans = phase == scanned;
    for (var begin = 0u; begin < dispatched.node_gpus; begin += TEAM) {
        let weighs = scans && cursor < params.node_gpus;
        let before = best_now();
        let first = cursor - cursor % TEAM;
        if weighs {
            look_at(first);
            let gpu = first + lane;
            let distance = distance_to(gpu);
            if distance / 2u > gain.low {
                if scanned == PHASE_SWAP {
                    weigh_slots(gpu, i32(distance), i32(gain.low));
                } else {
                    weigh_own_pairs(gpu, i32(distance));
                }
            }
            report(gpu, distance / 2u);
        }
        workgroupBarrier();
        if weighs {
            settle(first, before, select(pairs_cost(), slots_cost(), scanned == PHASE_SWAP));
        }
        workgroupBarrier();
    }
    if scans {
        swaps_pairs = scanned == PHASE_PAIR;
        let none = select(PHASE_SWAPS_ENDED, PHASE_BEGIN_BIPARTITION, swaps_pairs);
        phase = select(none, PHASE_EXCHANGE, gain.low > 0u);
    }
}

// Of the swap to make: the other GPU, and whether it is one of pairs.
var<private> partner: u32;
var<private> swaps_pairs: bool;

// Makes the swap that a scan decided on, a slot a lane, and keeps up what lanes know.
fn team_exchange() {
    let moves = phase == PHASE_EXCHANGE;
    let two = moves && swaps_pairs && (MOVES & MOVE_PAIR) != 0u;
    var taken = Held(FREE, 0u);
    var taken_2 = Held(FREE, 0u);
    var partner_load = 0u;
    if moves {
        partner_load = known_load(partner);
        taken = Held(slot_expert(move_to), slot_load(move_to));
    }
    if two {
        taken_2 = Held(slot_expert(move_to_2), slot_load(move_to_2));
    }
    // All have read.
    storageBarrier();
    if !moves {
        return;
    }
    let own = top * params.slots_per_gpu;
    let other = partner * params.slots_per_gpu;
    let given = own_at(move_from - own);
    var given_2 = Held(FREE, 0u);
    if two {
        given_2 = own_at(move_from_2 - own);
    }
    let less = given.load + given_2.load - taken.load - taken_2.load;
    // Lanes 0 and 2 write slots of the heaviest GPU, 1 and 3 those of the partner.
    let is_top = (lane & 1u) == 0u;
    let is_second = lane >= 2u;
    if lane < select(2u, 4u, two) {
        let source = select(move_from, move_from_2, is_second);
        let to = select(move_to, move_to_2, is_second);
        let what = either(either(given, given_2, is_second), either(taken, taken_2, is_second), is_top);
        set_slot(select(to, source, is_top), what.expert, what.load);
    }
    if lane < 2u {
        set_gpu_load(select(partner, top, is_top), select(partner_load + less, top_load - less, is_top));
    }
    know_exchange(less);
    if holds_slots {
        let a = place_of(top, move_from - own);
        let b = place_of(partner, move_to - other);
        let a_2 = select(HELD_SLOTS, place_of(top, move_from_2 - own), two);
        let b_2 = select(HELD_SLOTS, place_of(partner, move_to_2 - other), two);
        hold(vec4<u32>(a, b, a_2, b_2), taken, given, taken_2, given_2);
    }
    own_gpu = NONE;
    phase = PHASE_STEP;
}

// The best swap so far: its gain, and its slots in one word. Slots of a GPU are at most TILE.
struct Best {
    gain: u32,
    slots: vec4<u32>,
}

fn best_now() -> Best {
    return Best(gain.low, vec4<u32>(move_from, move_to, move_from_2, move_to_2));
}

// What a lane found, by which slots, and the most it could have found.
fn report(gpu: u32, most: u32) {
    let own = top * params.slots_per_gpu;
    let other = gpu * params.slots_per_gpu;
    // Of a lane that found nothing, nonsense.
    let slots = ((move_from - own) & 255u) | (((move_to - other) & 255u) << 8u)
        | (((move_from_2 - own) & 255u) << 16u) | ((move_to_2 - other) << 24u);
    reports[lane] = vec4<u32>(gain.low, slots, most, 0u);
}

// The reports in order, after the best `before`. All GPUs that are weighed cost the same.
fn settle(first: u32, before: Best, cost: u32) {
    let end = min(first + TEAM, params.node_gpus);
    let lanes = end - cursor;
    var best = before.gain;
    var best_lane = NONE;
    var slots = 0u;
    var weighed = 0u;
    for (var i = 0u; i < end - first; i += 1u) {
        let report = reports[i];
        let weighs = report.z > best;
        let is_better = weighs && report.x > best;
        weighed += select(0u, 1u, weighs);
        best_lane = select(best_lane, i, is_better);
        slots = select(slots, report.y, is_better);
        best = select(best, report.x, is_better);
    }
    gain = Wide(best, 0u);
    move_from = before.slots.x;
    move_to = before.slots.y;
    move_from_2 = before.slots.z;
    move_to_2 = before.slots.w;
    if best_lane != NONE {
        let own = top * params.slots_per_gpu;
        partner = first + best_lane;
        let other = partner * params.slots_per_gpu;
        move_from = own + (slots & 255u);
        move_to = other + ((slots >> 8u) & 255u);
        move_from_2 = own + ((slots >> 16u) & 255u);
        move_to_2 = other + (slots >> 24u);
    }
    cursor += lanes;
    work += lanes * TURN + weighed * cost;
    beside += (lanes - 1u) * TURN + (max(weighed, 1u) - 1u) * cost;
}

// Replica transfers, up to the one to make.
fn team_transfers() {
    let begins = phase == PHASE_BEGIN_TRANSFERS;
    if begins {
        begin_transfers();
        eligible_gpu = NONE;
    }
    if begins && phase == PHASE_PEAKS {
        for (var expert = lane; expert < params.node_experts; expert += TEAM) {
            clear_peak(expert);
        }
    }
    storageBarrier();
    if begins && phase == PHASE_PEAKS {
        for (var i = lane; i < params.slots_per_gpu; i += TEAM) {
            mark_held(i);
        }
    }
    loop {
        team_peaks();
        storageBarrier();
        if agree() != PHASE_PEAKS {
            break;
        }
    }
    loop {
        team_replacements();
        if agree() != PHASE_REPLACE {
            break;
        }
    }
    loop {
        team_replications();
        if agree() != PHASE_REPLICATE {
            break;
        }
    }
}

// The peaks' share of some GPUs, one after the other, a slot a lane: no GPU holds an expert twice.
fn team_peaks() {
    let scans = phase == PHASE_PEAKS;
    let k = params.slots_per_gpu;
    let first = cursor;
    for (var n = 0u; n < min(PEAK_GPUS, dispatched.node_gpus); n += 1u) {
        storageBarrier();
        let gpu = first + n;
        if scans && gpu < params.node_gpus {
            let load = gpu_load(gpu);
            for (var i = lane; i < k; i += TEAM) {
                let slot = gpu * k + i;
                let expert = slot_expert(slot);
                let count = replicas_of(expert);
                if count > 1u {
                    raise_peak(expert, gpu, load + growth(slot, expert, count));
                }
            }
        }
    }
    if scans {
        let gpus = min(PEAK_GPUS, params.node_gpus - first);
        cursor += gpus;
        work += gpus * (TURN + k);
        if cursor == params.node_gpus {
            phase = PHASE_REPLACE;
            cursor = 0u;
        }
    }
}

const PEAK_GPUS: u32 = 8u;

// Some experts for the next slot of the heaviest GPU that is worth a look, as `weigh_replacements`.
fn team_replacements() {
    let scans = phase == PHASE_REPLACE;
    let k = params.slots_per_gpu;
    let chunks = (params.node_experts + TRANSFER_CHUNK - 1u) / TRANSFER_CHUNK;
    var index = cursor / chunks;
    var chunk = cursor % chunks;
    var held = FREE;
    var others = 0u;
    while scans && index < k {
        held = slot_expert(top * k + index);
        if replicas_of(held) > 1u {
            others = peak_without(held, top);
            if others < gain.low {
                break;
            }
        }
        work += TURN;
        index += 1u;
        chunk = 0u;
    }
    let weighs = scans && index < k;
    let best = gain.low;
    let slot = top * k + index;
    if weighs {
        work += TURN + TRANSFER_CHUNK;
        let without = gpu_load(top) - slot_load(slot);
        let source = move_from;
        let target_expert = move_to;
        for (var i = lane; i < TRANSFER_CHUNK; i += TEAM) {
            let expert = chunk * TRANSFER_CHUNK + i;
            if expert < params.node_experts {
                weigh_replacement(slot, held, expert, others, without);
            }
        }
        reports[lane] = vec4<u32>(gain.low, move_to, 0u, 0u);
        move_from = source;
        move_to = target_expert;
    }
    workgroupBarrier();
    if weighs {
        gain.low = best;
        for (var i = 0u; i < min(TEAM, params.node_experts); i += 1u) {
            let report = reports[i];
            let found = report.x;
            let expert = report.y;
            // Lanes have experts in turn: of those found in this round the lowest one is the first.
            let is_better = found < gain.low || (found == gain.low && found < best && expert < move_to);
            gain.low = select(gain.low, found, is_better);
            move_to = select(move_to, expert, is_better);
            move_from = select(move_from, slot, is_better);
        }
        cursor = index * chunks + chunk + 1u;
    } else if scans {
        phase = PHASE_REPLICATE;
        cursor = 0u;
    }
}

// The slots of a GPU that may be turned into other replicas, as bits, and of which GPU this lane knows them.
var<private> eligible: u32;
var<private> eligible_gpu: u32;

fn find_eligible(gpu: u32) {
    if eligible_gpu == gpu {
        return;
    }
    eligible_gpu = gpu;
    eligible = 0u;
    for (var i = 0u; i < params.slots_per_gpu; i += 1u) {
        let expert = other_expert(gpu * params.slots_per_gpu, i);
        let count = select(count_of(min(expert, params.node_experts - 1u)), 0u, expert == FREE);
        eligible |= select(0u, 1u << i, count > 1u);
    }
}

// Whether one of the slots of a GPU from `begin` on, of those that may be turned, holds an expert.
fn has_eligible(begin: u32, expert: u32) -> bool {
    if holds_slots {
        return (seen_replicas(expert) & eligible) != 0u;
    }
    var held = false;
    for (var rest = eligible; rest != 0u; rest &= rest - 1u) {
        held |= slot_expert(begin + firstTrailingBit(rest)) == expert;
    }
    return held;
}

// A slot, of those that may be turned, of a GPU with such a load, as `weigh_replication`.
fn weigh_turned(gpu: u32, slot: u32, all: u32, expert: u32, load: u32, on_heavy: u32) {
    let begin = gpu * params.slots_per_gpu;
    var gone = 0u;
    if holds_slots {
        gone = seen_load(slot);
    } else {
        gone = slot_load(begin + slot);
    }
    let others = max(peak_without(other_expert(begin, slot), gpu), on_heavy);
    let most = max(others, all - gone + load);
    if most < gain.low {
        gain = Wide(most, 0u);
        move_from = begin + slot;
        move_to = expert;
    }
}

// One expert of the heaviest GPU for the slots of one GPU a lane, as `weigh_replications`.
fn team_replications() {
    let scans = phase == PHASE_REPLICATE;
    let k = params.slots_per_gpu;
    var index = cursor / params.node_gpus;
    var first = cursor % params.node_gpus;
    var expert = FREE;
    var count = 0u;
    while scans && index < k {
        expert = slot_expert(top * k + index);
        count = replicas_of(expert);
        if count != 0u && count < params.max_count {
            break;
        }
        work += TURN;
        index += 1u;
        first = 0u;
    }
    let weighs = scans && index < k;
    let skip = first % TEAM;
    first -= skip;
    let lanes = min(TEAM, params.node_gpus - first);
    let best = gain.low;
    let source = move_from;
    let target_expert = move_to;
    var on_heavy = 0u;
    if weighs {
        let before = work;
        let on = top * k + index;
        let load = weight(expert) / (count + 1u);
        on_heavy = gpu_load(top) - (slot_load(on) - load);
        look_at(first);
        let gpu = first + lane;
        if lane >= skip && lane < lanes && gpu != top && on_heavy < gain.low {
            work += blocks(k);
            find_eligible(gpu);
            // An expert that another GPU holds has replicas there.
            let held = has_eligible(gpu * k, expert);
            let all = load_seen(gpu);
            work += select(k, 0u, held);
            for (var rest = select(eligible, 0u, held); rest != 0u; rest &= rest - 1u) {
                weigh_turned(gpu, firstTrailingBit(rest), all, expert, load, on_heavy);
            }
        }
        reports[lane] = vec4<u32>(gain.low, move_from, work - before, 0u);
        work = before;
        gain.low = best;
        move_from = source;
        move_to = target_expert;
    }
    workgroupBarrier();
    if weighs {
        settle_replications(index, first, skip, lanes, expert, on_heavy);
    } else if scans {
        make_best_transfer();
    }
}

// The reports in order; once no GPU is worth a look for this slot any more, the next slot.
fn settle_replications(index: u32, first: u32, skip: u32, lanes: u32, expert: u32, on_heavy: u32) {
    var turns = 0u;
    var charged = 0u;
    var most = 0u;
    var goes_on = true;
    for (var i = skip; i < lanes; i += 1u) {
        let report = reports[i];
        let found = report.x;
        let weighs = goes_on;
        turns += select(0u, 1u, weighs);
        goes_on = goes_on && (first + i == top || on_heavy < gain.low);
        let cost = select(0u, report.z, weighs && goes_on);
        charged += cost;
        most = max(most, cost);
        let is_better = weighs && goes_on && found < gain.low;
        gain.low = select(gain.low, found, is_better);
        move_from = select(move_from, report.y, is_better);
        move_to = select(move_to, expert, is_better);
    }
    cursor = index * params.node_gpus + first + lanes;
    if !goes_on {
        cursor = (index + 1u) * params.node_gpus;
    }
    work += turns * TURN + charged;
    beside += (turns - 1u) * TURN + charged - most;
}
