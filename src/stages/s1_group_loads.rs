//! Stage 1: the load of each group, and its rank in its layer.

use super::{CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s1_group_loads",
    sources: &[include_str!("../../shaders/s1_group_loads.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["sum_groups", "rank_groups", "sum_window_groups"],
    overrides: &[],
    teams: false,
};

/// Group loads and ranks of all layers. At most 4,096 trips a lane.
pub fn record(recording: &mut Recording, base: &GpuParams) {
    let lanes = base.layers * base.groups;
    let kernel = |entry| Kernel { stem: STAGE.stem, entry };
    recording.dispatch(kernel("sum_groups"), Grid::Lanes(lanes), *base);
    recording.dispatch(kernel("rank_groups"), Grid::Lanes(lanes), *base);
    if base.windows > 1 {
        recording.dispatch(kernel("sum_window_groups"), Grid::Lanes(lanes * base.quads), *base);
    }
}
