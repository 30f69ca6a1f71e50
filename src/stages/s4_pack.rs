//! Stage 4: replicas to GPUs.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::budget;
use crate::engine::recording::{Fixed, Grid, Kernel, Recording};
use crate::layout::GpuParams;
use crate::params::{EXPERT_BLOCK, REGISTER_GPUS};

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s4_pack",
    sources: &[include_str!("../../shaders/s4_pack.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["weigh", "order", "pack"],
    fixed: &[
        Fixed { name: "AVOIDS", read_by: &["weigh", "order", "pack"], of: |p| p.avoid_duplicates },
        Fixed { name: "NOISY", read_by: &["pack"], of: |p| p.packing_noise },
        Fixed { name: "GPUS", read_by: &["pack"], of: |p| register_gpus(p.node_gpus) },
    ],
};

/// The GPUs of a node that a lane keeps to itself, rounded up, so that there are few shaders; 0 where there are too
/// many.
fn register_gpus(gpus: u32) -> u32 {
    if gpus <= REGISTER_GPUS { gpus.next_power_of_two().max(8) } else { 0 }
}

fn kernel(entry: &'static str) -> Kernel {
    Kernel { stem: STAGE.stem, entry }
}

/// Packings of all candidates of a batch.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    record_order(recording, base, batch);
    record_pack(recording, base, batch, kernel("pack"));
}

/// The order of packing. Restarts without noise on the counts share it, one of each node is put in order.
pub fn record_order(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let params = batch.params(base);
    let several = (base.node_replicas - base.node_experts).min(base.node_experts);
    let blocks = base.node_experts.div_ceil(EXPERT_BLOCK) + several.div_ceil(EXPERT_BLOCK);
    let nodes = batch.layers.1 * base.nodes;
    let [weigh, order] = if base.count_noise == 0 {
        [Grid::Lanes(nodes * several), Grid::Lanes(nodes * blocks)]
    } else {
        [Grid::QueuedSeveral, Grid::QueuedOrder]
    };
    recording.dispatch(kernel("weigh"), weigh, params);
    recording.dispatch(kernel("order"), order, params);
}

/// The packing, by a kernel that places the items of its range.
pub fn record_pack(recording: &mut Recording, base: &GpuParams, batch: &Batch, pack: Kernel) {
    let params = batch.params(base);
    // A replica looks at every GPU, and where it must make room at two GPUs' slots.
    let k = u64::from(base.slots_per_gpu);
    let room = if base.avoid_duplicates == 1 { u64::from(base.node_gpus) + k * (k + 1) } else { 0 };
    let items = budget::steps_per_dispatch(u64::from(base.node_gpus) + 2 + room);
    for (begin, end) in budget::ranges(base.node_replicas, items) {
        recording.dispatch(pack, Grid::Queued, GpuParams { begin, end, ..params });
    }
}
