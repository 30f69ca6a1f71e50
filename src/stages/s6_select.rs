//! Stage 6: keep the best start of each node, and the best assignment of each layer.

use super::{Batch, CANDIDATE, COPY_BLOCK, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s6_select",
    sources: &[include_str!("../../shaders/s6_select.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["choose_start", "copy_node", "settle_layer", "copy_plan"],
    overrides: &[],
    teams: false,
};

fn kernel(entry: &'static str) -> Kernel {
    Kernel { stem: STAGE.stem, entry }
}

/// Offers the starts of a batch to their nodes.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let params = batch.params(base);
    let nodes = params.layer_count * base.nodes;
    recording.dispatch(kernel("choose_start"), Grid::Lanes(nodes), params);
    recording.dispatch(kernel("copy_node"), Grid::Lanes(nodes * copy_blocks(base)), params);
}

/// Offers the assignment just searched to all layers.
pub fn record_settle(recording: &mut Recording, base: &GpuParams, assignment: u32) {
    let params = GpuParams { assignment, ..*base };
    recording.dispatch(kernel("settle_layer"), Grid::Lanes(base.layers), params);
    let lanes = base.layers * base.nodes * copy_blocks(base);
    recording.dispatch(kernel("copy_plan"), Grid::Lanes(lanes), params);
}

/// Lanes that share the slots of a node.
fn copy_blocks(base: &GpuParams) -> u32 {
    base.node_slots.div_ceil(COPY_BLOCK)
}
