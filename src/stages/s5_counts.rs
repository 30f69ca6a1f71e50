//! Stage 5 where GPUs have two slots: search the replica counts alone.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, TEAM, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Fixed, Form, Kernel, Recording};
use crate::layout::GpuParams;

const KERNEL: Kernel = Kernel { stem: "s5_counts", entry: "search_counts" };

/// The shader: the machine first, then its parts.
pub const STAGE: Stage = Stage {
    stem: KERNEL.stem,
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
        TEAM,
    ],
    entries: &[KERNEL.entry],
    fixed: &[Fixed { name: "DEPTH", read_by: &[KERNEL.entry], of: |p| depth(p.node_experts) }],
    teams: true,
};

/// Bits of the number of rows that an expert each, one above and one below come to: steps of a search among them.
fn depth(experts: u32) -> u32 {
    u32::BITS - (experts + 2).leading_zeros()
}

/// Iterations that a hasty plan provides for at least: few searches go on for longer.
const HASTY_ITERATIONS: u32 = 128;

/// The search of all candidates of a batch, for calls to which `mirror::s5_counts` applies.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let each = iterations_per_dispatch(base);
    queue::record_search(recording, KERNEL, base, batch, each, HASTY_ITERATIONS);
}

/// Loops over a lane's experts that an iteration makes, and searches that it makes for each of them.
const EXPERT_LOOPS: u32 = 36;
/// See [`EXPERT_LOOPS`].
const SEARCHES: u32 = 4;
/// Its other trips: reports of a team's lanes, and lists.
const OTHER_TRIPS: u32 = 1000;

/// Where a search among rows takes at most this many steps, drivers on the processor make a loop of them:
/// `ROLLED_DEPTH` in the shader.
const ROLLED_DEPTH: u32 = 11;

/// How many iterations of the search fit the budget of a dispatch that sorts the experts too: one at least, even with
/// 4,096 experts.
fn iterations_per_dispatch(base: &GpuParams) -> u32 {
    let depth = depth(base.node_experts);
    let search = if depth <= ROLLED_DEPTH { 1 + depth } else { 0 };
    let of_lane = 2 + base.node_experts.div_ceil(Form::SOFTWARE.team);
    let experts = (EXPERT_LOOPS + SEARCHES * search) * of_lane;
    let slots = (1 + search) * (2 + base.node_slots.div_ceil(Form::SOFTWARE.team));
    // A sort compares all pairs, half as many as a power of two of experts, in every step.
    let sort = depth * (depth + 1) / 2 * (2 + of_lane) + experts / 4;
    budget::steps_beside(sort, u64::from(experts + slots + OTHER_TRIPS))
}
