// 2-for-2 swaps of the heaviest GPU with any other: as 1-1 swaps, with sums of two of the first PAIR_SLOTS slots. A
// free slot is a replica of load 0, so 2-for-1 is among them.

// One pair of slots of another GPU with all of the heaviest; after the last, the best swap is made. The cursor goes
// over the GPUs, and on each over all (slot, slot), of which those in rising order are pairs.
fn weigh_pair_swaps() {
    let k = params.slots_per_gpu;
    let n = min(k, PAIR_SLOTS);
    if cursor == params.node_gpus * n * n {
        make_best_pair_swap();
        return;
    }
    let gpu = cursor / (n * n);
    let distance = gpu_load(heavy) - gpu_load(gpu);
    spent += 4u;
    if cursor % (n * n) == 0u {
        // No swap moves more than to the middle.
        if distance / 2u <= gain.low {
            cursor += n * n;
            return;
        }
        note_experts(ON_OTHER, gpu);
    }
    let first = cursor / n % n;
    let second = cursor % n;
    cursor += 1u;
    let to = gpu * k + first;
    let to_2 = gpu * k + second;
    if second <= first || is_duplicate(to, ON_HEAVY, heavy) || is_duplicate(to_2, ON_HEAVY, heavy) {
        return;
    }
    let theirs = slot_load(to) + slot_load(to_2);
    spent += 2u * n + n * (n - 1u) / 2u;
    for (var i = 0u; i < n; i += 1u) {
        let source = heavy * k + i;
        for (var j = i + 1u; j < n; j += 1u) {
            let source_2 = heavy * k + j;
            let m = moved(slot_load(source) + slot_load(source_2), theirs, distance);
            if m > gain.low && !is_duplicate(source, ON_OTHER, gpu) && !is_duplicate(source_2, ON_OTHER, gpu) {
                gain.low = m;
                move_from = source;
                move_from_2 = source_2;
                move_to = to;
                move_to_2 = to_2;
            }
        }
    }
}

fn make_best_pair_swap() {
    phase = PHASE_BEGIN_SPLITS;
    if gain.low > 0u {
        exchange(move_from, move_to);
        exchange(move_from_2, move_to_2);
        phase = PHASE_STEP;
    }
}
