//! The queue of candidates that still run: see `shaders/queue.wgsl`.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "queue",
    sources: &[include_str!("../../shaders/queue.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["open", "tally"],
    overrides: &[],
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

/// Turns of a kernel over the queued candidates, one after the other: each goes on with those that the one before queued
/// again.
pub fn record_turns(recording: &mut Recording, kernel: Kernel, grid: Grid, params: &GpuParams, turns: u32) {
    for turn in (0..turns).map(|turn| turn % 2) {
        recording.dispatch(kernel, grid, GpuParams { turn, ..*params });
        record_tally(recording, &GpuParams { turn: 1 - turn, ..*params });
    }
}

/// Iterations that are recorded at least, however small the part of the work: few starts go on for longer.
const LEAST_ITERATIONS: u32 = 192;

/// A search of stage 5 whose dispatches make this many iterations each: as many dispatches as the iterations of a start
/// need, or the part of them that the batch asks for. Dispatches after the last candidate ended are empty.
pub fn record_search(recording: &mut Recording, kernel: Kernel, base: &GpuParams, batch: &Batch, each: u32) {
    let part = base.iterations.div_ceil(batch.work_divisor).max(LEAST_ITERATIONS);
    let iterations = base.iterations.min(part);
    // A start that ends after no iteration is looked at once.
    let turns = iterations.div_ceil(each).max(1);
    record_turns(recording, kernel, Grid::QueuedTeams, &GpuParams { end: each, ..batch.params(base) }, turns);
}
