//! Stage 4: replicas to GPUs.

use super::{Batch, CANDIDATE, ORDER, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, Override, Recording};
use crate::layout::GpuParams;
use crate::params::blocks;

/// A lane keeps the GPUs of a node to itself while it packs, where they are at most this many.
pub const REGISTER_GPUS: u32 = 64;

/// One lane does this many experts of several replicas: fewer than [`super::EXPERT_BLOCK`], since compilers take long over
/// this kernel.
pub const REPLICATED_BLOCK: u32 = 8;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s4_pack",
    sources: &[include_str!("../../shaders/s4_pack.wgsl"), ORDER, PROBLEM, WIDE_U64, RNG, CANDIDATE],
    entries: &["weigh", "sort", "pack"],
    overrides: &[
        Override { name: "AVOIDS", read_by: &["pack"], of: |p| p.avoid_duplicates },
        Override { name: "NOISY", read_by: &["pack"], of: |p| p.packing_noise },
        Override { name: "FREES", read_by: &["pack"], of: |p| u32::from(p.node_replicas < p.node_slots) },
        CUT,
        Override { name: "GPUS", read_by: &["pack"], of: |p| register_gpus(p.node_gpus) },
    ],
    teams: false,
};

/// Whether a dispatch packs only a part of the replicas.
pub const CUT: Override =
    Override { name: "CUT", read_by: &["pack"], of: |p| u32::from(p.begin > 0 || p.end < p.node_replicas) };

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

/// The lists from which the order of packing follows. Starts without noise on the counts have the same lists: they are made
/// once for each node.
pub fn record_order(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let params = batch.params(base);
    let several = several(base);
    let nodes = batch.layers.1 * base.nodes;
    let [weigh, sort] = if base.count_noise == 0 {
        [Grid::Lanes(nodes * several), Grid::Lanes(nodes * several.div_ceil(REPLICATED_BLOCK))]
    } else {
        [Grid::QueuedReplicated, Grid::QueuedReplicatedBlocks]
    };
    recording.dispatch(kernel("weigh"), weigh, params);
    recording.dispatch(kernel("sort"), sort, params);
}

/// Experts of a node that may have several replicas.
fn several(base: &GpuParams) -> u32 {
    match base.fixed_counts {
        0 => (base.node_replicas - base.node_experts).min(base.node_experts),
        _ => base.node_experts,
    }
}

/// The packing, by a kernel that places the items of its range.
pub fn record_pack(recording: &mut Recording, base: &GpuParams, batch: &Batch, pack: Kernel) {
    let params = batch.params(base);
    // A replica looks at every GPU, and where it must make room at two GPUs' slots.
    let k = u64::from(base.slots_per_gpu);
    let room = if base.avoid_duplicates == 1 { u64::from(base.node_gpus) + k * (k + 1) } else { 0 };
    // Ranks of the order that are passed over, by each lane for itself: some at a time, or after an item.
    let passed = budget::VECTOR * (1 + blocks(several(base)));
    let order = u64::from(1 + budget::VECTOR);
    let items = budget::steps_beside(passed, u64::from(base.node_gpus) + 2 + order + room);
    for (begin, end) in budget::ranges(base.node_replicas, items) {
        recording.dispatch(pack, Grid::Queued, GpuParams { begin, end, ..params });
    }
}
