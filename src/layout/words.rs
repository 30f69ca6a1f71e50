//! Words of the records in buffers, and the codes in them, under the names that shaders use too: [`wgsl`] writes them.

use crate::options::{GroupRule, Objective};
use crate::plan::Stop;

macro_rules! record {
    ($(#[$doc:meta])* $module:ident, $prefix:literal: $($(#[$word_doc:meta])* $word:ident),* $(,)?) => {
        $(#[$doc])*
        // Most words are read by shaders alone.
        #[allow(dead_code)]
        pub mod $module {
            #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
            enum Index { $($word,)* COUNT }
            $($(#[$word_doc])* pub const $word: usize = Index::$word as usize;)*
            /// Words of the record.
            pub const WORDS: u32 = Index::COUNT as u32;
            /// Names in shaders, with their values.
            pub const NAMES: &[(&str, u32)] = &[
                $((concat!($prefix, "_", stringify!($word)), Index::$word as u32),)*
                (concat!($prefix, "_WORDS"), WORDS),
            ];
        }
    };
}

record! {
    /// The state of a node, in `results`.
    node, "NODE":
    /// Load of its heaviest GPU; with several windows the sum over them.
    MAX,
    /// The load below which no placement of it goes, nor any plan of the layer.
    BOUND,
    /// Why its search ended.
    END,
    /// The candidate to copy, or `NONE`.
    WINNER,
    /// `NODE_MAX` of the plan of the layer.
    PLAN_MAX,
    /// 1: a start was cut off in the middle of its search.
    CUT,
    /// 1: its candidates run in this batch.
    RUNS,
    /// Starts since the best one.
    IDLE,
}

record! {
    /// The state of a layer, in `results`.
    layer, "LAYER":
    /// Load of the heaviest GPU of the plan.
    MAX,
    /// Why the search ended of the node that decides it.
    END,
    /// 1: the assignment just searched becomes the plan.
    TAKE,
    /// The assignment that the plan is for.
    CHOSEN,
    /// 1: `NODE_CUT` was 1 in some assignment, and the plan is worth nothing.
    CUT,
    /// 1: the assignment after the last one tried could win.
    OPEN,
}

record! {
    /// The control block of a candidate.
    control, "C":
    /// Why its search ended; 0 while it runs.
    END,
    /// The best objective so far.
    BEST_MAX,
    /// Experts with several replicas.
    REPLICATED,
    /// The next rank among experts with one replica: where packing goes on.
    SINGLE,
    /// Ranks passed over so far.
    PASSED,
    /// The next expert with several replicas, by its first replica.
    FIRSTS,
    /// Replicas of it that are packed.
    FIRSTS_TAKEN,
    /// The next expert with several replicas, by its further ones.
    FURTHERS,
    /// Further replicas of it that are packed.
    FURTHERS_TAKEN,
    /// The first word of the shader that searches (stage 5), which names its own. Packing leaves the first two of them 0.
    SEARCH,
}

/// Words of the control block of a candidate: the descent's search needs the most, 14.
pub const CONTROL_WORDS: u32 = control::SEARCH as u32 + 14;

record! {
    /// A node while an assignment is built, in `groups`.
    build, "BUILD":
    /// Load of its groups so far.
    LOAD,
    /// How many there are.
    GROUPS,
    /// Load of the first of them, which is the largest.
    FIRST,
}

record! {
    /// A layer's walk through candidates for assignments, in `groups`: after these words comes the list of those kept,
    /// [`kept`].
    walk, "WALK":
    /// The average of the last candidate weighed.
    AVERAGE,
    /// Its index.
    INDEX,
    /// Candidates weighed.
    WEIGHED,
    /// Candidates kept.
    KEPT,
    /// 1: the walk is over.
    DONE,
    /// The bound of DeepSeek's assignment.
    GREEDY,
}

record! {
    /// An assignment in the list of a walk.
    kept, "KEPT":
    /// Its bound.
    BOUND,
    /// The number of its candidate.
    INDEX,
}

record! {
    /// The heaviest holder of an expert in a window, in a candidate, once the expert has a replica less.
    peak, "PEAK":
    /// The load of this GPU then.
    LOAD,
    /// Which GPU it is.
    GPU,
    /// The load of the next holder then.
    NEXT,
}

record! {
    /// The task of a trajectory of plans over time, in `problem`: after these words its parts, see `layout/replan.rs`.
    task, "TASK":
    /// The price of one moved slot.
    PRICE,
    /// By how much a state must be better than the best before it to be kept.
    GAP,
    /// Iterations without a new best after which it ends; 0 where nothing can move.
    PATIENCE,
    /// The most foreign replicas.
    MOST_FOREIGN,
}

record! {
    /// The result of a trajectory of plans over time, in `results`: after these words its states and changes.
    trail, "TRAIL":
    /// States that are kept.
    STATES,
    /// Changes.
    CHANGES,
    /// 1: it came to its end.
    DONE,
}

record! {
    /// A state of a trail.
    state, "STATE":
    /// Slots that moved.
    MOVED,
    /// The sum over windows of the heaviest GPU.
    PEAKS,
    /// The objective without the price of moves.
    VALUE,
    /// Changes up to here.
    CHANGES,
}

record! {
    /// The task of a table of shares, in `problem`: after these words its parts, see `layout/shares.rs`.
    table, "TABLE":
    /// A sweep that moves no more than this is the last.
    STILL,
}

record! {
    /// Two replicas that load is shifted between, in the task of a table.
    pair, "PAIR":
    /// The first replica.
    FIRST,
    /// The second.
    SECOND,
    /// The GPU of the first.
    FIRST_GPU,
    /// The GPU of the second.
    SECOND_GPU,
    /// The place of their expert's terms.
    TERMS,
}

record! {
    /// The terms of an expert, in the task of a table: after these words its load in each scenario.
    terms, "TERMS":
    /// The pull to even shares, its low word.
    EVEN_LOW,
    /// And its high word.
    EVEN_HIGH,
    /// The sum of the squares of its loads, and the pull: the low word.
    SQUARES_LOW,
    /// And its high word.
    SQUARES_HIGH,
}

record! {
    /// What limits the target of a layer with foreign replicas, in `problem`.
    limit, "LIMIT":
    /// The heaviest GPU that is good enough.
    FLOOR,
    /// That of the plan without foreign replicas.
    ABOVE,
}

record! {
    /// What a layer with foreign replicas aims at, in `groups`: after these words two more assignments, then its parts, see
    /// `layout/foreign.rs`.
    aim, "AIM":
    /// The target is above this,
    LOW,
    /// and at most this.
    HIGH,
    /// 1: the range is narrow, and assignments are listed.
    ENDED,
    /// The first assignment to try, or `NONE`.
    ASSIGNMENTS,
}

record! {
    /// The choice of a layer with foreign replicas, in `results`: after these words its experts and their replicas.
    choice, "CHOICE":
    /// The least that the heaviest GPU comes to, about; `NONE` where nothing is better.
    VALUE,
    /// What is good enough.
    ENOUGH,
    /// The assignment of groups to homes.
    ASSIGNMENT,
}

/// In the place of an assignment's number: the one that a layer's plan is for.
pub const CHOSEN: u32 = u32::MAX;

/// A kind of moves of a descent, as a bit.
pub const MOVE_SWAP: u32 = 1;
/// See [`MOVE_SWAP`].
pub const MOVE_PAIR: u32 = 2;
/// See [`MOVE_SWAP`].
pub const MOVE_BIPARTITION: u32 = 4;

/// All names and values, as shaders declare them.
pub fn wgsl() -> String {
    let codes = [
        ("CHOSEN", CHOSEN),
        ("END_RUNNING", 0),
        ("END_REACHED", Stop::BoundReached as u32),
        ("END_STUCK", Stop::NoMoveLeft as u32),
        ("END_SPENT", Stop::BudgetSpent as u32),
        ("OBJECTIVE_MAX", Objective::Max as u32),
        ("OBJECTIVE_VARIANCE", Objective::Variance as u32),
        ("OBJECTIVE_VARIANCE_THEN_MAX", Objective::VarianceThenMax as u32),
        ("RULE_LPT", GroupRule::Lpt as u32),
        ("RULE_LPT_VARIANCE", GroupRule::LptVariance as u32),
        ("RULE_BEST_FIRST", GroupRule::BestFirst as u32),
        ("MOVE_SWAP", MOVE_SWAP),
        ("MOVE_PAIR", MOVE_PAIR),
        ("MOVE_BIPARTITION", MOVE_BIPARTITION),
    ];
    let records =
        [node::NAMES, layer::NAMES, control::NAMES, build::NAMES, walk::NAMES, kept::NAMES, peak::NAMES];
    let of_layers = [task::NAMES, trail::NAMES, state::NAMES, table::NAMES, pair::NAMES, terms::NAMES];
    let of_foreign = [limit::NAMES, aim::NAMES, choice::NAMES];
    let all = records.into_iter().chain(of_layers).chain(of_foreign).flatten().chain(&codes);
    all.map(|(name, value)| format!("const {name}: u32 = {value}u;\n")).collect()
}
