//! Stage 3: how many replicas each expert of a node gets.

use super::{Batch, CANDIDATE, EXPERT_BLOCK, PROBLEM, RNG, Stage, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;
use crate::params::blocks;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s3_replicate",
    sources: &[include_str!("../../shaders/s3_replicate.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["start", "give", "perturb", "replicate"],
    overrides: &[],
    teams: false,
};

/// Starts the candidates of a batch that are worth it, into the queue, and gives them their replicas.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let params = batch.params(base);
    queue::record_open(recording, &params);
    let nodes = batch.layers.1 * base.nodes;
    // Candidates queue for the next turn, which is turn 0.
    let start = GpuParams { turn: 1, ..params };
    recording.dispatch(Kernel { stem: STAGE.stem, entry: "start" }, Grid::Lanes(nodes), start);
    queue::record_tally(recording, &params);
    if base.fixed_counts == 1 {
        recording.dispatch(Kernel { stem: STAGE.stem, entry: "give" }, Grid::Queued, params);
        return;
    }
    recording.dispatch(Kernel { stem: STAGE.stem, entry: "perturb" }, Grid::QueuedBlocks, params);
    let replicate = Kernel { stem: STAGE.stem, entry: "replicate" };
    let expert_blocks = base.node_experts.div_ceil(EXPERT_BLOCK);
    let picks =
        budget::steps_per_dispatch(u64::from(base.node_experts + blocks(expert_blocks) + EXPERT_BLOCK) + 6);
    for (begin, end) in budget::ranges(base.node_replicas - base.node_experts, picks) {
        recording.dispatch(replicate, Grid::Queued, GpuParams { begin, end, ..params });
    }
}
