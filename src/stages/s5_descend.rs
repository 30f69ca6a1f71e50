//! Stage 5 of the lineage's presets: refine each candidate by descent.

use super::{Batch, CANDIDATE, PROBLEM, Stage, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;
use crate::layout::words::{MOVE_BIPARTITION, MOVE_PAIR, MOVE_SWAP};
use crate::params::{BIPARTITION_SLOTS, PAIR_SLOTS, pairs};

/// Loops that a turn may pass without doing anything in them, at most: a driver that runs all branches, masked, passes every
/// loop of the shader in every turn. There are 24.
pub const DESCENT_WALK: u32 = 32;

/// Each batch gets at most this many dispatches.
const DESCENT_TURNS: u64 = 1 << 12;

/// Bipartition tries this many splits between two looks at the budget of a dispatch.
pub const BIPARTITION_CHUNK: u32 = 32;

const KERNEL: Kernel = Kernel { stem: "s5_descend", entry: "descend" };

/// The shader: the machine first, then its moves.
pub const STAGE: Stage = Stage {
    stem: KERNEL.stem,
    sources: &[
        include_str!("../../shaders/s5_descend.wgsl"),
        include_str!("../../shaders/s5_descend/swap.wgsl"),
        include_str!("../../shaders/s5_descend/pair_swap.wgsl"),
        include_str!("../../shaders/s5_descend/bipartition.wgsl"),
        PROBLEM,
        WIDE_U64,
        CANDIDATE,
    ],
    entries: &[KERNEL.entry],
    overrides: &[],
    teams: false,
};

/// The descents of all candidates of a batch: as many dispatches as the longest could need, or as many as the batch's part of its
/// trips needs, and never more than [`DESCENT_TURNS`]. Those after the last descent ended are empty; a descent
/// that did not end is seen as cut short.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch) {
    let costs = Costs::of(base);
    // The result is written once.
    let fuel =
        u64::from(budget::TRIPS).saturating_sub(costs.largest_piece + u64::from(base.node_slots)).max(1);
    let all = (u64::from(base.steps) * costs.longest_step).div_ceil(fuel) + 1;
    let turns = all.div_ceil(u64::from(batch.work_divisor)).max(LEAST_TURNS).min(all).min(DESCENT_TURNS);
    record_turns(recording, base, batch, (fuel as u32, turns as u32));
}

/// Turns that are recorded at least, however small the part, if more could be needed.
const LEAST_TURNS: u64 = 4;

/// This many turns of this much fuel. Each goes on with what the one before left.
pub fn record_turns(recording: &mut Recording, base: &GpuParams, batch: &Batch, (fuel, turns): (u32, u32)) {
    // Lanes go their own ways, so each has a vector to itself.
    let params = GpuParams { fuel, spread: budget::VECTOR, ..batch.params(base) };
    // The list is there already, with a grid for candidates side by side.
    queue::record_tally(recording, &GpuParams { turn: 0, ..params });
    queue::record_turns(recording, KERNEL, Grid::Queued, &params, turns);
}

/// Loop trips as the shader counts them, at most.
struct Costs {
    /// Of one piece of a phase.
    largest_piece: u64,
    /// Of one step, with every move tried.
    longest_step: u64,
}

impl Costs {
    fn of(base: &GpuParams) -> Self {
        let (k, gpus) = (u64::from(base.slots_per_gpu), u64::from(base.node_gpus));
        let (lightest, heaviest) = (u64::from(base.lightest), u64::from(base.heaviest));
        let begin = u64::from(DESCENT_WALK) + gpus + k;
        let has = |bit: u32| base.moves & bit != 0;
        let mut costs = Self { largest_piece: begin, longest_step: 4 * begin };
        let mut add = |piece: u64, others: u64, pieces: u64| {
            costs.largest_piece = costs.largest_piece.max(piece + others);
            costs.longest_step += pieces * piece + others;
        };
        if has(MOVE_SWAP) {
            let proposers = if heaviest == 0 { gpus } else { heaviest.min(gpus) };
            add(begin, 0, proposers + 1 + lightest.min(gpus));
            add(4 + k, k, proposers * gpus * (k + 1));
        }
        if has(MOVE_PAIR) {
            let n = k.min(u64::from(PAIR_SLOTS));
            let pairs = u64::from(pairs(n as u32));
            add(4, k, gpus * n * n);
            add(4 + 2 * n + pairs, k, gpus * (pairs + 1));
        }
        if has(MOVE_BIPARTITION) && (2..=BIPARTITION_SLOTS).contains(&base.slots_per_gpu) {
            let splits = (1..k).fold(1, |ways, i| ways * (k + i) / i);
            let chunk = u64::from(BIPARTITION_CHUNK);
            let duplicates = if base.avoid_duplicates == 1 { chunk * k * (2 + k) } else { 0 };
            add(4 * u64::from(BIPARTITION_SLOTS) + 4 * chunk + duplicates, 4 * k, splits.div_ceil(chunk));
        }
        costs
    }
}
