//! Stage 1: the load of each group, and its rank in its layer.

use super::{CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s1_group_loads",
    sources: &[include_str!("../../shaders/s1_group_loads.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["sum_groups", "rank_groups"],
};

/// Group loads and ranks of all layers. At most 1,024 trips a lane.
pub fn record(recording: &mut Recording, base: &GpuParams) {
    for entry in STAGE.entries {
        recording.dispatch(Kernel { stem: STAGE.stem, entry }, Grid::Lanes(base.layers * base.groups), *base);
    }
}
