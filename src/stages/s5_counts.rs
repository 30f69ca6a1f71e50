//! Stage 5 where GPUs have two slots: search the replica counts alone.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, TEAM, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Kernel, Override, Recording, Tuning};
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
    overrides: &[Override { name: "DEPTH", read_by: &[KERNEL.entry], of: |p| depth(p.node_experts) }],
    teams: true,
};

/// Bits of the number of rows that an expert each, one above and one below come to: steps of a search among them.
fn depth(experts: u32) -> u32 {
    u32::BITS - (experts + 2).leading_zeros()
}

/// The search of all candidates of a batch, for calls with [`crate::params::SearchKind::Counts`].
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let each = iterations_per_dispatch(base);
    queue::record_search(recording, KERNEL, base, batch, each);
}

/// Where a search among rows takes at most this many steps, drivers on the processor make a loop of them.
pub const ROLLED_DEPTH: u32 = 11;

/// How many iterations of the search fit the budget of a dispatch that sorts the experts too: one at least, even with
/// 4,096 experts.
fn iterations_per_dispatch(base: &GpuParams) -> u32 {
    let depth = depth(base.node_experts);
    let search = if depth <= ROLLED_DEPTH { 1 + depth } else { 0 };
    let of_lane = 2 + base.node_experts.div_ceil(Tuning::SOFTWARE.team);
    // An iteration makes 36 loops over a lane's experts, and four searches for each of them.
    let experts = (36 + 4 * search) * of_lane;
    let slots = (1 + search) * (2 + base.node_slots.div_ceil(Tuning::SOFTWARE.team));
    // A sort compares all pairs, half as many as a power of two of experts, in every step.
    let sort = depth * (depth + 1) / 2 * (2 + of_lane) + experts / 4;
    // The rest are reports of the lanes, and lists.
    budget::steps_beside(sort, u64::from(experts + slots + 1000))
}
