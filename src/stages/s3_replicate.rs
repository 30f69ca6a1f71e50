//! Stage 3: how many replicas each expert of a node gets.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::budget;
use crate::engine::recording::{Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s3_replicate",
    sources: &[include_str!("../../shaders/s3_replicate.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["replicate"],
};

/// Counts of all candidates of a batch.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let params = batch.params(base);
    let kernel = Kernel { stem: STAGE.stem, entry: "replicate" };
    let extras = base.node_replicas - base.node_experts;
    let picks = budget::steps_per_dispatch(u64::from(base.node_experts) + 2);
    // The first dispatch starts the candidates, whatever there is to give.
    recording.dispatch(kernel, params.candidates, GpuParams { begin: 0, end: extras.min(picks), ..params });
    for (begin, end) in budget::ranges(extras, picks).skip(1) {
        recording.dispatch(kernel, params.candidates, GpuParams { begin, end, ..params });
    }
}
