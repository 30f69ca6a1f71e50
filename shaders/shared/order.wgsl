// The order in which replicas are packed: the heaviest first. Of equally heavy ones an expert's first replica comes before
// further ones, then the lower expert. Where duplicates are avoided (`together`) an expert's replicas stay together.
//
// Two lists are merged: the node's experts by load, where those with several replicas are passed over, and the experts with
// several replicas by the load of one. The lists lie in the scratch of the candidate that has the order.

override CUT: u32;               // whether items are packed in several dispatches

// An expert with several replicas and their number (at most 4,096 and 16,384), heaviest replica first.
fn replicated_at(index: u32) -> u32 {
    return index;
}

fn expert_and_count(expert: u32, count: u32) -> u32 {
    return expert | (count << 16u);
}

// The load of one of them.
fn replicated_load_at(index: u32) -> u32 {
    return params.node_experts + index;
}

// The ranks that these experts have in the node's order, where they are passed over.
fn passed_at(index: u32) -> u32 {
    return 2u * params.node_experts + index;
}

fn listed(at: u32) -> u32 {
    return arena[params.at_scratch + at + my_order];
}

// The replica to place.
var<private> item_expert: u32;
var<private> item_load: u32;

// A place in the list of experts with several replicas.
struct Several {
    index: u32,
    taken: u32,    // of the expert's replicas
    copies: u32,   // that come from this place, one after the other
    expert: u32,
    load: u32,     // of one, plus 1; 0 after the end
}

// The three places where the next item may come from: an expert with one replica, the first replica of one with several (all, where they stay together),
// and further ones.
var<private> single_rank: u32;
var<private> single_expert: u32;
var<private> single_load: u32;     // plus 1, or 0 after the end
var<private> first: Several;
var<private> further: Several;

// The next rank to pass over, and its place in that list, which has `several` entries.
var<private> passed_rank: u32;
var<private> passed_index: u32;
var<private> several: u32;

// Begins with the item `params.begin`, at which the dispatch before ended.
fn begin_order(together: bool) {
    several = arena[params.at_control + C_REPLICATED + my_order];
    single_rank = 0u;
    passed_index = 0u;
    first = Several();
    further = Several();
    if CUT == 1u && params.begin > 0u {
        single_rank = control(C_SINGLE);
        passed_index = control(C_PASSED);
        first.index = control(C_FIRSTS);
        first.taken = control(C_FIRSTS_TAKEN);
        further.index = control(C_FURTHERS);
        further.taken = control(C_FURTHERS_TAKEN);
    }
    passed_rank = rank_to_pass();
    see(together);
}

// Remembers where the next dispatch begins.
fn end_order() {
    if CUT == 1u && params.end < params.node_replicas {
        set_control(C_SINGLE, single_rank);
        set_control(C_PASSED, passed_index);
        set_control(C_FIRSTS, first.index);
        set_control(C_FIRSTS_TAKEN, first.taken);
        set_control(C_FURTHERS, further.index);
        set_control(C_FURTHERS_TAKEN, further.taken);
    }
}

// The expert of whose replicas, which stay together, the dispatch before has placed some and not all, or NONE.
fn begun_expert() -> u32 {
    if first.taken == 0u {
        return NONE;
    }
    return listed(replicated_at(first.index)) & 0xffffu;
}

// Sets the next item, and looks at what may come after it.
fn next_item(together: bool) {
    let of_first = first.load > single_load || (first.load == single_load && first.expert < single_expert);
    item_expert = select(single_expert, first.expert, of_first);
    item_load = select(single_load, first.load, of_first);
    let of_further = !together && further.load > item_load;
    item_expert = select(item_expert, further.expert, of_further);
    item_load = select(item_load, further.load, of_further) - 1u;
    single_rank += select(1u, 0u, of_first || of_further);
    first = taken_from(first, of_first && !of_further);
    further = taken_from(further, of_further);
    see(together);
}

fn taken_from(place: Several, is_taken: bool) -> Several {
    let taken = place.taken + select(0u, 1u, is_taken);
    let is_over = taken == place.copies;
    return Several(
        place.index + select(0u, 1u, is_over), select(taken, 0u, is_over), place.copies, place.expert, place.load,
    );
}

// Looks at the three places. All lanes look at all of them, whatever they have taken: drivers that look up memory
// lane by lane guess wrong which do not.
fn see(together: bool) {
    // Ranks to pass over lie side by side, or there are items between them.
    while single_rank == passed_rank {
        pass_over();
        pass_over();
        pass_over();
        pass_over();
    }
    single_expert = results[params.at_order + my_loads + min(single_rank, params.node_experts - 1u)];
    single_load = select(0u, weight(single_expert) + 1u, single_rank < params.node_experts);
    first = seen(first, 0u);
    if !together {
        first.copies = 1u;
        further = seen(further, 1u);
    }
}

fn pass_over() {
    if single_rank == passed_rank {
        single_rank += 1u;
        passed_index += 1u;
        passed_rank = rank_to_pass();
    }
}

fn rank_to_pass() -> u32 {
    if passed_index < several {
        return listed(passed_at(passed_index));
    }
    return NONE;
}

// A place with what is there; the first `without` replicas come from elsewhere.
fn seen(place: Several, without: u32) -> Several {
    let there = place.index < several;
    let index = min(place.index, max(several, 1u) - 1u);
    let what = listed(replicated_at(index));
    let load = listed(replicated_load_at(index));
    let copies = select(0u, (what >> 16u) - without, there);
    return Several(place.index, place.taken, copies, what & 0xffffu, select(0u, load + 1u, there));
}
