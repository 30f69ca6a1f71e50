//! From an assignment to the problem of each of its nodes: loads, bounds, ranks, and clean states.

use super::{BOUND, CANDIDATE, COPY_BLOCK, EXPERT_BLOCK, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "gather",
    sources: &[include_str!("../../shaders/gather.wgsl"), BOUND, PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["gather", "bound_nodes", "rank_experts", "floors"],
    overrides: &[],
    teams: false,
};

fn kernel(entry: &'static str) -> Kernel {
    Kernel { stem: STAGE.stem, entry }
}

/// Starts an assignment of all layers.
pub fn record(recording: &mut Recording, base: &GpuParams, assignment: u32) {
    let params = GpuParams { assignment, ..*base };
    recording.dispatch(
        kernel("gather"),
        Grid::Lanes(base.layers * base.experts.div_ceil(COPY_BLOCK)),
        params,
    );
    recording.dispatch(kernel("bound_nodes"), Grid::Lanes(base.layers * base.nodes), params);
    let blocks = base.node_experts.div_ceil(EXPERT_BLOCK);
    recording.dispatch(kernel("rank_experts"), Grid::Lanes(base.layers * base.nodes * blocks), params);
    if base.windows > 1 {
        recording.dispatch(kernel("floors"), Grid::Lanes(base.layers * base.quads), params);
    }
}
