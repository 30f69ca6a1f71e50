//! Stage 5: one trajectory from each candidate.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, TEAM, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Kernel, Override, Recording, Tuning};
use crate::layout::GpuParams;
use crate::params::pairs;

const KERNEL: Kernel = Kernel { stem: "s5_search", entry: "search" };

/// The shader.
pub const STAGE: Stage = Stage {
    stem: KERNEL.stem,
    sources: &[
        include_str!("../../shaders/s5_search.wgsl"),
        include_str!("../../shaders/s5_search/exchange.wgsl"),
        include_str!("../../shaders/s5_search/transfer.wgsl"),
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
        TEAM,
    ],
    entries: &[KERNEL.entry],
    overrides: &[Override { name: "WINDOWS", read_by: &[KERNEL.entry], of: |p| p.windows }],
    teams: true,
};

/// Lanes of the smallest workgroup: the fewer lanes, the more trips each makes.
const LEAST_TEAM: u64 = Tuning::SOFTWARE.team as u64;

/// The search of all candidates of a batch.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let each = iterations_per_dispatch(base);
    queue::record_search(recording, KERNEL, base, batch, each);
}

/// Iterations that fit the trips of a dispatch.
pub fn iterations_per_dispatch(base: &GpuParams) -> u32 {
    let start = trips_of_start(base);
    (u64::from(budget::TRIPS).saturating_sub(start) / trips(base)).clamp(1, u64::from(u32::MAX)) as u32
}

/// Whether software drivers run the loops of one iteration to their end. With one window they always do; with several
/// not where a node has very many slots.
pub fn fits(base: &GpuParams) -> bool {
    trips_of_start(base) + trips(base) < budget::LIMIT
}

/// Loop trips of a lane before the first iteration.
fn trips_of_start(base: &GpuParams) -> u64 {
    let wide = u64::from;
    wide(base.node_experts)
        + shared(base.node_slots) * (wide(base.windows) + 2)
        + shared(base.node_gpus * base.windows) * (wide(base.slots_per_gpu) + 2)
}

/// Loop trips of a lane in an iteration, at worst.
fn trips(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let (k, n, windows) =
        (wide(base.slots_per_gpu) + 1, wide(base.exchange_slots) + 1, wide(base.windows) + 1);
    let GpuParams { node_gpus: gpus, node_slots: slots, node_experts: experts, .. } = *base;
    let look = shared(gpus) + 3 * (wide(base.windows) / LEAST_TEAM + 1) * wide(gpus);
    let open = shared(base.slots_per_gpu) + shared(base.exchange_slots * base.windows) + shared(gpus) * n * k;
    let singles = shared(base.exchange_slots * gpus) * (k + n * windows * 4);
    let p = if base.windows == 1 { pairs(base.pair_slots) } else { 0 };
    let doubles = shared(p * gpus) * (2 * k + wide(p) + 4 * wide(base.pair_slots));
    let peaks = shared(base.losers.min(experts)) * (wide(slots) + 2) * wide(base.windows);
    let gain = shared(experts) * (1 + windows) + shared(base.slots_per_gpu) * 4 * windows;
    let elsewhere = shared(base.gainers * gpus) * (k + k * 4 * windows);
    let transfers = if base.node_replicas > experts { peaks + gain + elsewhere } else { 0 };
    let make = 2 * shared(slots) * windows + shared(gpus * base.windows) * k + wide(experts);
    look + open + singles + doubles + transfers + make + 7 * LEAST_TEAM + 4 * windows + k
}

/// Trips of a loop over this many items that the lanes share.
fn shared(items: u32) -> u64 {
    u64::from(items).div_ceil(LEAST_TEAM) + 1
}
