//! The queue of candidates that still run: see `shaders/queue.wgsl`.

use super::{CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "queue",
    sources: &[include_str!("../../shaders/queue.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["open", "tally"],
    fixed: &[],
    teams: false,
};

/// Empties the queue, for a new batch.
pub fn record_open(recording: &mut Recording, params: &GpuParams) {
    recording.dispatch(Kernel { stem: STAGE.stem, entry: "open" }, Grid::Lanes(1), *params);
}

/// Sizes the dispatches over the list of `params.turn`.
pub fn record_tally(recording: &mut Recording, params: &GpuParams) {
    recording.dispatch(Kernel { stem: STAGE.stem, entry: "tally" }, Grid::Lanes(1), *params);
}
