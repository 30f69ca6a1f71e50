// What nodes allow a move to do: foreign replicas stay within their limit, and every expert keeps a replica at home; copies
// that are spread over nodes stay spread. The mirror is `src/replan/search/nodes.rs`.

// 1: there may be foreign replicas.
override FOREIGN: u32 = 0u;
// 1: copies are spread over nodes.
override SPREADS: u32 = 0u;

// Foreign replicas of the layer.
var<private> foreign: u32;

// The first GPU on which a further replica may relieve the proposing one, and their number: those of its node, or all where
// there may be foreign replicas.
fn reach_first() -> u32 {
    return select(low, 0u, FOREIGN == 1u);
}

fn reach() -> u32 {
    return select(params.node_gpus, params.gpus, FOREIGN == 1u);
}

// Whether nodes allow GPU `a` to give an expert to GPU `b`: it must not be in fewer nodes then.
fn may_go(expert: u32, a: u32, b: u32) -> bool {
    if SPREADS == 0u || expert == FREE {
        return true;
    }
    let node = params.spread_gpus;
    if count_of(expert) < 2u || a / node == b / node {
        return true;
    }
    return !is_in(expert, b / node * node, node, b) || is_in(expert, a / node * node, node, a);
}

// Whether nodes allow a replica of `loser` on a GPU to become one of `gainer`.
fn may_hand_over(loser: u32, gpu: u32) -> bool {
    if FOREIGN == 1u {
        return keeps_homes(loser, gpu);
    }
    if SPREADS == 0u {
        return true;
    }
    let node = params.spread_gpus;
    let here = gpu / node * node;
    // A replica comes to a node without one, and leaves a node that keeps another, where there are such nodes.
    let comes = !is_in(gainer, here, node, NONE) || nodes_with(gainer) == params.gpus / node;
    return comes && (is_in(loser, here, node, gpu) || nodes_with(loser) == count_of(loser));
}

// The nodes that hold an expert.
fn nodes_with(expert: u32) -> u32 {
    var nodes = 0u;
    let end = params.gpus / max(params.spread_gpus, 1u);
    for (var node = 0u; node < end; node += 1u) {
        nodes += select(0u, 1u, is_in(expert, node * params.spread_gpus, params.spread_gpus, NONE));
    }
    return nodes;
}

// Whether each expert keeps a replica at home then, and foreign ones are not too many.
fn keeps_homes(loser: u32, gpu: u32) -> bool {
    let here = gpu / params.node_gpus;
    let stays = home_of(loser) != here || is_in(loser, here * params.node_gpus, params.node_gpus, gpu);
    return stays && foreign + is_foreign(gainer, gpu) <= task_word(TASK_MOST_FOREIGN) + is_foreign(loser, gpu);
}

// The home node of an expert.
fn home_of(expert: u32) -> u32 {
    return task_word(params.at_task_homes + expert);
}

// Whether a replica of an expert on a GPU is foreign, 0 or 1.
fn is_foreign(expert: u32, gpu: u32) -> u32 {
    return select(0u, 1u, home_of(expert) != gpu / params.node_gpus);
}

// The foreign replicas of this lane's GPUs at the start.
fn own_foreign() -> u32 {
    var own = 0u;
    for (var gpu = lane; gpu < params.gpus && FOREIGN == 1u; gpu += TEAM) {
        for (var slot = 0u; slot < params.slots_per_gpu; slot += 1u) {
            let expert = expert_in(slot, gpu);
            if expert != FREE {
                own += is_foreign(expert, gpu);
            }
        }
    }
    return own;
}

// Whether any of `count` GPUs from `first` on holds an expert; GPU `but` is left out.
fn is_in(expert: u32, first: u32, count: u32, but: u32) -> bool {
    let end = first + count;
    var found = 0u;
    for (var word = first / 32u; 32u * word < end; word += 1u) {
        let begin = max(first, 32u * word) - 32u * word;
        let above = 32u - (min(end, 32u * word + 32u) - 32u * word);
        let held = arena[word_at(params.at_held, expert * set_words() + word)];
        let mine = ((held >> begin) << begin) << above;
        found |= (mine >> above) & ~select(0u, 1u << (but % 32u), but / 32u == word);
    }
    return found != 0u;
}
