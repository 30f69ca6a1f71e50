//! Stage 5 where there are several windows: refine each candidate by local search.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64, WINDOWS, s5_refine};
use crate::engine::recording::{Fixed, Kernel, Recording};
use crate::layout::GpuParams;
use crate::params::{
    self, TURN, WINDOW_EXPERTS, WINDOW_GPUS, WINDOW_PAIR_SLOTS, WINDOW_SLOTS, WINDOW_TILE, blocks,
};

/// The shader: the machine first, then its moves.
pub const STAGE: Stage = Stage {
    stem: "s5_refine_windows",
    sources: &[
        include_str!("../../shaders/s5_refine_windows.wgsl"),
        include_str!("../../shaders/s5_windows_moves/swap.wgsl"),
        include_str!("../../shaders/s5_windows_moves/pair_swap.wgsl"),
        include_str!("../../shaders/s5_windows_moves/transfer.wgsl"),
        include_str!("../../shaders/s5_windows_moves/kick.wgsl"),
        WINDOWS,
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
    ],
    entries: &["refine"],
    fixed: &[Fixed { name: "QUADS", read_by: &["refine"], of: |p| p.quads }],
};

/// The search of all candidates of a batch, as in stage 5.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let kernel = Kernel { stem: STAGE.stem, entry: "refine" };
    s5_refine::record_turns(recording, base, batch, kernel, largest_piece(base), last_step(base));
}

/// The most work of one tile of a 1-1 swap.
fn tile_work(base: &GpuParams) -> u32 {
    let tile = WINDOW_TILE.min(base.slots_per_gpu);
    TURN + tile * (3 + base.quads + tile) + 2 * tile * (2 + blocks(base.slots_per_gpu))
}

/// The most work of one piece of a 2-for-2 swap.
fn pair_work(base: &GpuParams) -> u32 {
    let n = WINDOW_PAIR_SLOTS.min(base.slots_per_gpu);
    TURN + n * (3 + base.quads + 2 * n + params::pairs(n)) + 2 * n * (2 + blocks(base.slots_per_gpu))
}

/// The most work of one piece of a phase (one turn of the machine).
fn largest_piece(base: &GpuParams) -> u32 {
    let (k, gpus, experts) = (base.slots_per_gpu, base.node_gpus, base.node_experts);
    let look = blocks(k);
    let tops = 4 * TURN + blocks(gpus);
    let window = base.windows + blocks(experts) + k;
    let gone = WINDOW_GPUS.min(gpus) * (3 + base.quads + look);
    let replace = WINDOW_EXPERTS.min(experts) * (2 + base.quads);
    let replicate = WINDOW_TILE.min(k) * (4 + base.quads + look);
    let slots = WINDOW_SLOTS.min(base.node_slots) * (4 + 3 * base.quads);
    let ended = 4 * TURN + blocks(base.node_slots) + blocks(experts);
    let kick = 4 * TURN + 6 * (1 + look);
    let pieces =
        [tops, window, tile_work(base), pair_work(base), gone, replace, replicate, slots, ended, kick];
    TURN + pieces.into_iter().max().unwrap_or(0)
}

/// The most work between two looks at the budget of a restart: of each kind of move one GPU or slot, and the
/// end of a descent.
fn last_step(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let (k, gpus, experts) = (base.slots_per_gpu, base.node_gpus, base.node_experts);
    let tiles = wide(k.div_ceil(WINDOW_TILE)).pow(2) * wide(tile_work(base));
    let pairs = wide(WINDOW_PAIR_SLOTS) * wide(pair_work(base));
    let windows = 3 * wide(base.windows * (TURN + base.windows));
    let gone = gpus.div_ceil(WINDOW_GPUS) * TURN + gpus * (3 + base.quads + blocks(k));
    let replace = experts.div_ceil(WINDOW_EXPERTS) * TURN + experts * (2 + base.quads);
    let replicate = k.div_ceil(WINDOW_TILE) * TURN + k * (4 + base.quads + blocks(k));
    let tops = 4 * TURN + base.quads * (TURN + blocks(gpus));
    // Two transfers and a way back.
    let slots = 3 * wide(base.node_slots.div_ceil(WINDOW_SLOTS) * TURN)
        + wide(base.node_slots) * wide(8 + 5 * base.quads);
    slots
        + windows
        + tiles
        + pairs
        + wide(gone + replace + replicate + 2 * tops)
        + 6 * wide(largest_piece(base))
}
