//! Stage 5: one trajectory from each candidate.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Fixed, Grid, Kernel, Recording};
use crate::layout::GpuParams;
use crate::params::pairs;

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s5_search",
    sources: &[
        include_str!("../../shaders/s5_search.wgsl"),
        include_str!("../../shaders/s5_search/exchange.wgsl"),
        include_str!("../../shaders/s5_search/transfer.wgsl"),
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
    ],
    entries: &["search"],
    fixed: &[Fixed { name: "WINDOWS", read_by: &["search"], of: |p| p.windows }],
    teams: true,
};

/// Lanes of the smallest workgroup: the fewer lanes, the more trips each makes.
const LEAST_TEAM: u64 = 8;

/// Iterations that a hasty plan provides for at least: few starts go on for longer.
const HASTY_ITERATIONS: u32 = 192;

/// The search of all candidates of a batch: as many dispatches as the iterations of a start need. Those after the last
/// candidate ended are empty.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let each = iterations_per_dispatch(base);
    let hasty = base.iterations.div_ceil(batch.haste).max(HASTY_ITERATIONS);
    // A start that ends after no iteration is looked at once.
    let turns = base.iterations.min(hasty).div_ceil(each).max(1);
    record_turns(recording, &GpuParams { end: each, ..batch.params(base) }, turns);
}

/// Turns of this many iterations, one after the other, each over what the one before left.
pub fn record_turns(recording: &mut Recording, params: &GpuParams, turns: u32) {
    let kernel = Kernel { stem: STAGE.stem, entry: "search" };
    for turn in 0..turns {
        let turn = turn % 2;
        recording.dispatch(kernel, Grid::QueuedTeams, GpuParams { turn, ..*params });
        queue::record_tally(recording, &GpuParams { turn: 1 - turn, ..*params });
    }
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
    let p = pairs(base.pair_slots);
    let look = shared(base.node_gpus)
        + LEAST_TEAM
        + 3 * (wide(base.windows) / LEAST_TEAM + 1) * wide(base.node_gpus);
    let open = shared(base.slots_per_gpu)
        + shared(base.exchange_slots * base.windows)
        + shared(base.node_gpus) * n * k;
    let singles = shared(base.exchange_slots * base.node_gpus) * (k + n * windows * 4);
    let doubles = if base.windows == 1 && p > 0 {
        shared(p * base.node_gpus) * (2 * k + wide(p) + 4 * wide(base.pair_slots))
    } else {
        0
    };
    let peaks = shared(base.losers.min(base.node_experts)) * (wide(base.node_slots) + 2) * wide(base.windows);
    let gain = shared(base.node_experts) * (1 + windows) + shared(base.slots_per_gpu) * 4 * windows;
    let elsewhere = shared(base.gainers * base.node_gpus) * (k + k * 4 * windows);
    let transfers = if base.node_replicas > base.node_experts { peaks + gain + elsewhere } else { 0 };
    let keep = 2 * shared(base.node_slots) * windows + shared(base.node_gpus * base.windows) * k;
    let leader = wide(base.node_experts) + 6 * LEAST_TEAM + 4 * windows + k;
    look + open + singles + doubles + transfers + keep + leader
}

/// Trips of a loop over so many items that the lanes share.
fn shared(items: u32) -> u64 {
    u64::from(items).div_ceil(LEAST_TEAM) + 1
}
