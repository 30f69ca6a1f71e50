//! Stage 5 where GPUs have two slots: search the replica counts alone.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Fixed, Grid, Kernel, Recording};
use crate::layout::GpuParams;

/// The entry points: the first order and fold, then the search.
pub const BEGIN: &str = "begin_counts";
/// See [`BEGIN`].
pub const SEARCH: &str = "search_counts";

/// The shader: the machine first, then its parts.
pub const STAGE: Stage = Stage {
    stem: "s5_counts",
    sources: &[
        include_str!("../../shaders/s5_counts.wgsl"),
        include_str!("../../shaders/s5_counts/order.wgsl"),
        include_str!("../../shaders/s5_counts/fold.wgsl"),
        include_str!("../../shaders/s5_counts/table.wgsl"),
        include_str!("../../shaders/s5_counts/moves.wgsl"),
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
    ],
    entries: &[BEGIN, SEARCH],
    fixed: &[Fixed { name: "DEPTH", read_by: &[BEGIN, SEARCH], of: |p| depth(p.node_experts) }],
    teams: true,
};

/// Bits of the number of rows that an expert each, one above and one below come to: steps of a search among them.
fn depth(experts: u32) -> u32 {
    u32::BITS - (experts + 2).leading_zeros()
}

/// Iterations that a hasty plan provides for at least: few searches go on for longer.
const HASTY_ITERATIONS: u32 = 128;

/// The search of all candidates of a batch, for calls to which `mirror::s5_counts` applies. Dispatches after the last
/// candidate ends are empty.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let fuel = iterations_per_dispatch(base);
    let hasty = base.iterations.div_ceil(batch.haste).max(HASTY_ITERATIONS);
    let turns = base.iterations.min(hasty).div_ceil(fuel).max(1);
    let params = GpuParams { fuel, ..batch.params(base) };
    let entries = std::iter::once(BEGIN).chain(std::iter::repeat_n(SEARCH, turns as usize));
    for (turn, entry) in entries.enumerate() {
        let params = GpuParams { turn: turn as u32 % 2, ..params };
        recording.dispatch(Kernel { stem: STAGE.stem, entry }, Grid::QueuedTeams, params);
        queue::record_tally(recording, &GpuParams { turn: 1 - params.turn, ..params });
    }
}

/// Lanes of the smallest team.
const TEAM: u32 = 8;

/// Loops over a lane's experts that an iteration makes, and searches that it makes for each of them.
const EXPERT_LOOPS: u32 = 36;
/// See [`EXPERT_LOOPS`].
const SEARCHES: u32 = 4;
/// Its other trips: reports of a team's lanes, and lists.
const OTHER_TRIPS: u32 = 1000;

/// Where a search among rows takes at most so many steps, drivers on the processor make a loop of them:
/// `ROLLED_DEPTH` in the shader.
const ROLLED_DEPTH: u32 = 11;

/// How many iterations of the search fit the budget of a dispatch: one at least, even with 4,096 experts.
fn iterations_per_dispatch(base: &GpuParams) -> u32 {
    let depth = depth(base.node_experts);
    let search = if depth <= ROLLED_DEPTH { 1 + depth } else { 0 };
    let experts = (EXPERT_LOOPS + SEARCHES * search) * (2 + base.node_experts.div_ceil(TEAM));
    let slots = (1 + search) * (2 + base.node_slots.div_ceil(TEAM));
    budget::steps_per_dispatch(u64::from(experts + slots + OTHER_TRIPS))
}
