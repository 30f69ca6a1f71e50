// Stage 5 where GPUs have two slots: search the replica counts alone. Reads `results` (node loads), `groups` (the bound);
// writes `arena`. What is computed, and why, is said in `src/mirror/s5_counts.rs`.
//
// search_counts  one workgroup a queued candidate: at first the order of experts and the fold of the counts it has, then
//                iterations of the search
//
// All lanes know what a candidate has once, and lane 0, which leads, writes it. Between two iterations everything
// is in the arena, so where dispatches are cut changes nothing. For sums over rows, each lane takes a run of neighbouring
// rows.

override DEPTH: u32;             // bits of the number of rows

// Control words of this stage.
const C_ITERATION: u32 = C_SEARCH;
const C_SLACK: u32 = C_SEARCH + 1u;    // iterations since the best value was found or the target raised
const C_IDLE: u32 = C_SEARCH + 2u;     // iterations since the best value was found
const C_SHIFT: u32 = C_SEARCH + 3u;    // the part by which the target is below the best value
const C_PARITY: u32 = C_SEARCH + 4u;   // which of its two places the order lies in
const C_LEAST: u32 = C_SEARCH + 5u;    // the least excess over this target so far
const C_RENEWED: u32 = C_SEARCH + 6u;  // 1: the target is new, and has no such excess yet

const COLUMNS: u32 = 16u;        // of a row: what is added to the surplus, from -7 to 8
const LEAST_ADDED: i32 = -7;
const MOST_ADDED: i32 = 8;

struct Event {
    at: u32,
    row: u32,
    step: i32,
}

// Another count of an expert: of the event that goes and the one that comes the higher and the lower.
struct Change {
    high: Event,
    low: Event,
}

var<workgroup> columns_reported: array<vec4<u32>, 4u * TEAM>;
// The best experts to lose a replica, then the best to gain one, and what becomes of their events.
var<workgroup> listed_experts: array<u32, 20>;
var<workgroup> listed_changes: array<Change, 20>;

var<private> best: u32;
var<private> shift: u32;
var<private> least: u32;
var<private> idle: u32;
var<private> slack: u32;
var<private> iteration: u32;
var<private> parity: u32;
var<private> renewed: u32;
var<private> immovable: bool;    // no expert can lose or gain a replica
var<private> goal: u32;          // the target
var<private> half_goal: u32;

// Where things lie. In scratch: experts by falling share and these shares, twice.

fn order_at(index: u32) -> u32 {
    return word_at(params.at_scratch, parity * 2u * params.node_experts + index);
}

fn ordered_share_at(index: u32) -> u32 {
    return word_at(params.at_scratch, (parity * 2u + 1u) * params.node_experts + index);
}

// How many replicas there are up to an expert of the order, itself included.
fn replicas_to_at(index: u32) -> u32 {
    return word_at(params.at_count_search, index);
}

// The row of an expert's event.
fn event_row_at(expert: u32) -> u32 {
    return word_at(params.at_count_search, params.node_experts + expert);
}

// Until which iteration it is left alone.
fn tabu_at(expert: u32) -> u32 {
    return word_at(params.at_count_search, 2u * params.node_experts + expert);
}

fn best_count_at(expert: u32) -> u32 {
    return word_at(params.at_count_search, 3u * params.node_experts + expert);
}

// The excess that another count of it leaves.
fn key_at(expert: u32) -> u32 {
    return word_at(params.at_count_search, 4u * params.node_experts + expert);
}

// Rows: above all, the events, half the target.
fn rows() -> u32 {
    return params.node_experts + 2u;
}

fn position_at(row: u32) -> u32 {
    return word_at(params.at_count_search, 5u * params.node_experts + row);
}

fn surplus_at(row: u32) -> u32 {
    return word_at(params.at_count_search, 5u * params.node_experts + rows() + row);
}

fn excess_at(row: u32, column: u32) -> u32 {
    return word_at(params.at_count_search, 5u * params.node_experts + 2u * rows() + row * COLUMNS + column);
}

fn share_of(expert: u32) -> u32 {
    return weight(expert) / max(count_of(expert), 1u);
}

@compute @workgroup_size(TEAM)
fn search_counts(invocation: Invocation) {
    if !take_team(invocation) {
        return;
    }
    resume();
    if told(iteration) == 0u {
        begin();
    }
    let stop = stop_load(node_bound(my_layer, my_node));
    var end = told(verdict(stop));
    for (var done = 0u; done < dispatched.end; done += 1u) {
        if end != END_RUNNING {
            break;
        }
        iterate();
        end = told(verdict(stop));
    }
    if end != END_RUNNING {
        for (var e = lane; e < params.node_experts; e += TEAM) {
            set_count(e, arena[best_count_at(e)]);
        }
    }
    if leads {
        suspend(end);
    }
}

fn resume() {
    best = control(C_BEST_MAX);
    iteration = control(C_ITERATION);
    slack = control(C_SLACK);
    idle = control(C_IDLE);
    shift = control(C_SHIFT);
    parity = control(C_PARITY);
    least = control(C_LEAST);
    renewed = control(C_RENEWED);
    immovable = false;
}

fn suspend(end: u32) {
    set_control(C_BEST_MAX, best);
    set_control(C_ITERATION, iteration);
    set_control(C_SLACK, slack);
    set_control(C_IDLE, idle);
    set_control(C_SHIFT, shift);
    set_control(C_PARITY, parity);
    set_control(C_LEAST, least);
    set_control(C_RENEWED, renewed);
    set_control(C_END, end);
    if end == END_RUNNING {
        queue_again();
    }
}

// The better of the packing and the fold of its counts, from which the search starts.
fn begin() {
    slack = 0u;
    idle = 0u;
    shift = FIRST_SHIFT;
    parity = 0u;
    renewed = 1u;
    for (var e = lane; e < params.node_experts; e += TEAM) {
        arena[tabu_at(e)] = 0u;
        arena[best_count_at(e)] = count_of(e);
        arena[order_at(e)] = e;
        arena[ordered_share_at(e)] = share_of(e);
    }
    var packed = 0u;
    for (var gpu = lane; gpu < params.node_gpus; gpu += TEAM) {
        packed = max(packed, gpu_load(gpu));
        set_snapshot(2u * gpu, slot_expert(2u * gpu));
        set_snapshot(2u * gpu + 1u, slot_expert(2u * gpu + 1u));
    }
    best = most_of_team(packed);
    sort_order();
    count_replicas();
    let folded = fold_value();
    if folded < best {
        best = folded;
        keep_counts();
    }
}

fn verdict(stop: u32) -> u32 {
    var end = select(END_RUNNING, END_SPENT, iteration >= params.iterations);
    if best <= stop {
        end = END_REACHED;
    } else if immovable || idle >= max(params.patience / PATIENCE_SHARE, 1u) {
        end = END_STUCK;
    }
    return end;
}

// One move, and what its counts come to.
fn iterate() {
    goal = best - 1u - (best >> shift);
    half_goal = goal / 2u;
    place_events();
    sum_rows();
    if renewed == 1u {
        least = arena[excess_at(params.node_experts + 1u, u32(-LEAST_ADDED))];
        renewed = 0u;
    }
    iteration += 1u;
    let word = draw(start_key(first_group(), my_start), DRAW_COUNT_MOVES + iteration);
    list_experts(word);
    immovable = listed_experts[0] == NONE || listed_experts[LOSERS] == NONE;
    let move_found = best_move(word);
    let moves = move_found.x != NONE;
    let pair = select(0u, move_found.y & INDEX, moves);
    reorder(moves, listed_experts[pair / GAINERS], listed_experts[LOSERS + pair % GAINERS], word);
    least = min(least, move_found.x);
    count_replicas();
    let value = fold_value();
    idle += 1u;
    slack += 1u;
    if value < best {
        best = value;
        idle = 0u;
        renewed = 1u;
        keep_counts();
    } else if slack >= HALVED_AFTER && shift < LAST_SHIFT {
        shift += 1u;
        renewed = 1u;
    }
    slack = select(slack, 0u, renewed == 1u);
}
