//! Stage 5: refine each candidate by local search.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;
use crate::params::{self, BIPARTITION_CHUNK, BIPARTITION_SLOTS, PAIR_SLOTS, TILE, TRANSFER_CHUNK, blocks};

/// The shader: the machine first, then its moves.
pub const STAGE: Stage = Stage {
    stem: "s5_refine",
    sources: &[
        include_str!("../../shaders/s5_refine.wgsl"),
        include_str!("../../shaders/s5_moves/swap.wgsl"),
        include_str!("../../shaders/s5_moves/pair_swap.wgsl"),
        include_str!("../../shaders/s5_moves/bipartition.wgsl"),
        include_str!("../../shaders/s5_moves/transfer.wgsl"),
        include_str!("../../shaders/s5_moves/kick.wgsl"),
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
    ],
    entries: &["refine"],
};

/// The search of all candidates of a batch: as many dispatches as the budget of a restart could need. Those
/// after the last candidate ends are empty.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let params = GpuParams { fuel: budget::fuel(largest_piece(base)), ..batch.params(base) };
    let kernel = Kernel { stem: STAGE.stem, entry: "refine" };
    let limit = if base.steps == 0 { 0 } else { base.work_limit };
    let work = u64::from(limit) + u64::from(last_step(base));
    for turn in (0..work.div_ceil(u64::from(params.fuel)) + 1).map(|i| (i % 2) as u32) {
        recording.dispatch(kernel, Grid::Queued, GpuParams { turn, ..params });
        queue::record_tally(recording, &GpuParams { turn: 1 - turn, ..params });
    }
}

/// The most work of one piece of a phase (one turn of the machine).
fn largest_piece(base: &GpuParams) -> u32 {
    let (k, gpus) = (base.slots_per_gpu, base.node_gpus);
    let look = blocks(k);
    let tile = TILE.min(k);
    let swap = tile + tile * (1 + blocks(tile)) + 2 * tile * look;
    let n = PAIR_SLOTS.min(k);
    let pair = 2 * (n + params::pairs(n)) + params::pairs(n) * (1 + blocks(params::pairs(n))) + 2 * n * look;
    let b = BIPARTITION_SLOTS.min(k);
    let split = 2 * b + BIPARTITION_CHUNK * (2 + b * (1 + b));
    let transfer = (1 + k * (1 + 2 * look)).max(TRANSFER_CHUNK * (1 + look));
    let partners = if base.lightest == 0 { 0 } else { base.lightest.min(gpus) * (1 + blocks(gpus)) };
    let apply = 2 + blocks(base.node_slots) + look;
    let ended =
        3 * blocks(base.node_slots) + blocks(base.node_experts) + 4 * (blocks(gpus) + 2 * look) + apply;
    [swap, pair, split, transfer, partners + blocks(gpus), ended].into_iter().max().unwrap_or(0)
}

/// The most work between two looks at the budget of a restart: every phase once, and the end of a descent.
fn last_step(base: &GpuParams) -> u32 {
    let (k, gpus) = (base.slots_per_gpu, base.node_gpus);
    let look = blocks(k);
    let mut work = largest_piece(base) + 64;
    if base.moves & 1 != 0 {
        let proposers = if base.heaviest == 0 { gpus } else { base.heaviest.min(gpus) };
        work += proposers * (1 + blocks(gpus) + gpus * (1 + k * (2 + look) + 2 * k * look));
    }
    if base.moves & 2 != 0 {
        let n = params::pairs(PAIR_SLOTS.min(k));
        work += gpus * (1 + 2 * (k + n) + n * (1 + blocks(n)) + 2 * k * look);
    }
    if base.moves & 4 != 0 && k <= BIPARTITION_SLOTS {
        work += 92_378 * 2;
    }
    if base.moves & 8 != 0 {
        work += gpus * (1 + k * (1 + look));
        work += k * base.node_experts.div_ceil(TRANSFER_CHUNK) * (1 + TRANSFER_CHUNK * 2 + look * k);
        work += k * gpus * (1 + k * (1 + 2 * look));
    }
    work
}
