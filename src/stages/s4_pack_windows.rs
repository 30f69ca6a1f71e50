//! Stage 4 where there are several windows: replicas to GPUs.

use super::{Batch, CANDIDATE, ORDER, PROBLEM, RNG, Stage, WIDE_U64, WINDOWS, s4_pack};
use crate::engine::recording::{Fixed, Kernel, Recording};
use crate::layout::GpuParams;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s4_pack_windows",
    sources: &[
        include_str!("../../shaders/s4_pack_windows.wgsl"),
        ORDER,
        WINDOWS,
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
    ],
    entries: &["pack"],
    fixed: &[Fixed { name: "QUADS", read_by: &["pack"], of: |p| p.quads }, s4_pack::CUT],
};

/// Packings of all candidates of a batch, in the order of their mean loads.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    s4_pack::record_order(recording, base, batch);
    s4_pack::record_pack(recording, base, batch, Kernel { stem: STAGE.stem, entry: "pack" });
}
