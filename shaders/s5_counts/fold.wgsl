// The two-slot search: the fold, the best placement of some counts.

// The GPUs to which the fold gives one expert twice, those from `first` on. Each exchanges a replica with one of those
// without the expert, the last of them first.
struct FoldDuplicates {
    place: u32,
    first: u32,
    without: u32,
    count: u32,
}

// Of the fold last weighed.
var<private> parted: FoldDuplicates;

fn find_duplicates() {
    let place = place_of_replica(params.node_gpus - 1u);
    let end = arena[replicas_to_at(place)];
    let begin = end - count_of(arena[order_at(place)]);
    let after = params.node_slots - end;
    let first = max(begin, after);
    let count = select(0u, params.node_gpus - min(first, params.node_gpus), params.avoid_duplicates == 1u);
    parted = FoldDuplicates(place, first, min(begin, after), count);
}

// The heaviest GPU of the fold, once duplicates are parted. An expert's last replica has the heaviest partner. In the last place, if there are
// duplicates, one of them with the heaviest that exchanges.
fn fold_value() -> u32 {
    find_duplicates();
    var most = 0u;
    let weighed = params.node_experts + select(0u, 1u, parted.count > 0u);
    for (var i = lane; i < weighed; i += TEAM) {
        let is_duplicate = i == params.node_experts;
        let place = select(i, parted.place, is_duplicate);
        let exchanged = parted.without - min(parted.count, parted.without);
        let heaviest = select(params.node_slots - arena[replicas_to_at(place)], exchanged, is_duplicate);
        let partner = place_of_replica(heaviest);
        most = max(most, arena[ordered_share_at(place)] + arena[ordered_share_at(partner)]);
    }
    return most_of_team(most);
}

// Remembers the counts and the fold last weighed.
fn keep_counts() {
    for (var e = lane; e < params.node_experts; e += TEAM) {
        arena[best_count_at(e)] = count_of(e);
    }
    for (var slot = lane; slot < params.node_slots; slot += TEAM) {
        let gpu = slot / 2u;
        var replica = gpu;
        // A duplicate goes to the GPU that exchanges with it.
        if gpu < parted.without && gpu + parted.count >= parted.without {
            replica = params.node_gpus - 1u;
        }
        if gpu >= parted.first && gpu - parted.first < parted.count {
            replica = parted.without - 1u - min(gpu - parted.first, parted.without - 1u);
        }
        replica = select(replica, params.node_slots - 1u - gpu, slot % 2u == 1u);
        set_snapshot(slot, arena[order_at(place_of_replica(replica))]);
    }
}
