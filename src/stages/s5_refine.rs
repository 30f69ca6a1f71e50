//! Stage 5: refine each candidate by local search.

use super::{Batch, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Fixed, Grid, Kernel, Recording};
use crate::layout::GpuParams;
use crate::params::{
    self, BIPARTITION_CHUNK, BIPARTITION_SLOTS, PAIR_SLOTS, TILE, TRANSFER_CHUNK, TURN, blocks,
};

/// The entry point of the narrow shape, and of the wide one.
const NARROW: &str = "refine";
/// See [`NARROW`].
pub const WIDE: &str = "refine_wide";

const BOTH: &[&str] = &[NARROW, WIDE];

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
        include_str!("../../shaders/s5_wide/team.wgsl"),
        include_str!("../../shaders/s5_wide/rounds.wgsl"),
        include_str!("../../shaders/s5_wide/known.wgsl"),
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
    ],
    entries: BOTH,
    fixed: &[
        Fixed { name: "MOVES", read_by: BOTH, of: |p| Variant::of(p).moves },
        Fixed { name: "ANY_RULE", read_by: BOTH, of: |p| Variant::of(p).any_rule },
        Fixed { name: "KICKS", read_by: BOTH, of: |p| Variant::of(p).kicks },
        Fixed { name: "AVOIDS", read_by: BOTH, of: |p| p.avoid_duplicates },
        Fixed { name: "SLOTS", read_by: BOTH, of: |p| Variant::of(p).slots },
        Fixed { name: "GPUS", read_by: &[WIDE], of: known_gpus },
    ],
};

/// What a pipeline of this stage has at most. A compiler takes seconds over one, so there are few: swaps alone,
/// swaps and pairs, those with transfers and kicks, and one for everything else, each for some numbers of slots.
struct Variant {
    moves: u32,
    any_rule: u32,
    kicks: u32,
    slots: u32,
}

impl Variant {
    /// The least one that does.
    fn of(p: &GpuParams) -> Self {
        let slots = REGISTER_SLOTS.into_iter().find(|&slots| slots >= p.slots_per_gpu).unwrap_or(0);
        if !is_plain(p) {
            return Self { moves: 15, any_rule: 1, kicks: 1, slots: 0 };
        }
        let (moves, kicks) = match p.moves {
            _ if p.kicks > 0 => (11, 1),
            0 | 1 => (1, 0),
            2 | 3 => (3, 0),
            _ => (11, 1),
        };
        Self { moves, any_rule: 0, kicks, slots }
    }
}

/// The slots of a GPU that a lane keeps to itself, by constant indices; those of a larger GPU are read in tiles.
const REGISTER_SLOTS: [u32; 7] = [3, 6, 9, 12, 16, 24, TILE];

/// The GPUs of a node, rounded up, of which a lane of a team can know all loads; 0 where there are too many.
fn known_gpus(p: &GpuParams) -> u32 {
    KNOWN_GPUS.into_iter().find(|&gpus| gpus >= p.node_gpus).unwrap_or(0)
}

/// See [`known_gpus`].
const KNOWN_GPUS: [u32; 3] = [8, 16, 32];

/// Whether the maximum is the objective, the heaviest GPU alone proposes swaps, to all others, and no bipartition is
/// wanted.
fn is_plain(p: &GpuParams) -> bool {
    p.objective == 0 && p.heaviest == 1 && p.lightest == 0 && p.moves & 4 == 0
}

/// Whether the search has a wide shape too: one in which little is left to one lane, or to one GPU after the other.
pub fn has_wide(p: &GpuParams) -> bool {
    is_plain(p) && p.avoid_duplicates == 1 && p.slots_per_gpu <= TILE && p.node_gpus <= WIDE_MOST_GPUS
}

/// The counts of a placement are found GPU by GPU; so many fit the budget of a dispatch many times.
const WIDE_MOST_GPUS: u32 = 1024;

/// How the lanes of a device are spread over the search. Either shape computes the same, and may go on where the
/// other stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One lane a candidate.
    Narrow,
    /// One workgroup a candidate.
    Wide,
}

/// The search of all candidates of a batch: as many dispatches as the budget of a restart could need. Those
/// after the last candidate ends are empty. Searches without a wide shape are narrow.
pub fn record(recording: &mut Recording, base: &GpuParams, batch: &Batch, shape: Shape) {
    let (piece, last_step) = (largest_piece(base), last_step(base));
    match shape {
        Shape::Wide if has_wide(base) => {
            let kernel = Kernel { stem: STAGE.stem, entry: WIDE };
            let params = GpuParams { fuel: budget::team_fuel(piece), ..batch.params(base) };
            let least = HASTY_TURNS * u64::from(params.fuel);
            let work = provided_work(base, last_step, batch, least);
            let turns = work.div_ceil(u64::from(params.fuel)) + 1;
            record_each(recording, kernel, Grid::QueuedTeams, &vec![params; turns as usize]);
        }
        _ => {
            let kernel = Kernel { stem: STAGE.stem, entry: NARROW };
            record_turns(recording, base, batch, kernel, piece, last_step);
        }
    }
}

/// The turns of a kernel that works in pieces of at most `piece`, and passes its budget by at most `last_step`.
pub fn record_turns(
    recording: &mut Recording,
    base: &GpuParams,
    batch: &Batch,
    kernel: Kernel,
    piece: u32,
    last_step: u64,
) {
    // Tiles of a few slots are loops of a trip or two, which cost one more. And a transfer looks for duplicates at
    // some slots: masked, a vector walks through that loop at the others too, where nothing is charged for it.
    let walks = base.moves & 8 != 0 && base.avoid_duplicates == 0;
    let rate = if walks || Variant::of(base).slots == 0 { 2 } else { 1 };
    let params = GpuParams { fuel: budget::fuel(piece, rate), ..batch.params(base) };
    let lone_fuel = budget::lone_fuel(piece, rate);
    let least = EARLY_LEAST * u64::from(params.fuel) + HASTY_TURNS * u64::from(lone_fuel);
    let work = provided_work(base, last_step, batch, least);
    // Most candidates end early. The few that go on get a vector of lanes each, and do with fewer turns. Where a
    // vector of lanes could not each do a piece within the budget, no candidates share one.
    let all = work.div_ceil(u64::from(params.fuel)) + 1;
    let shared = all.div_ceil(EARLY_SHARE).max(EARLY_LEAST).min(all);
    let early = if budget::may_share(piece, rate) { shared } else { 0 };
    let mut turns = vec![params; early as usize];
    if early < all {
        let lone = GpuParams { fuel: lone_fuel, spread: budget::VECTOR, ..params };
        let rest = work.saturating_sub(early * u64::from(params.fuel));
        let late = rest / u64::from(lone.fuel) + 1;
        turns.resize(turns.len() + late as usize, lone);
    }
    record_each(recording, kernel, Grid::Queued, &turns);
}

/// The work of a restart that is provided for: the most it could come to, or in haste a part of that and what `least`
/// says.
fn provided_work(base: &GpuParams, last_step: u64, batch: &Batch, least: u64) -> u64 {
    let limit = if base.steps == 0 { 0 } else { base.work_limit };
    let most = u64::from(limit) + last_step;
    most.div_ceil(u64::from(batch.haste)).max(least).min(most)
}

/// Full turns that a hasty plan has at least. Searches without kicks do not need many more at all.
const HASTY_TURNS: u64 = 3;

/// Turns one after the other, each over what the one before left.
fn record_each(recording: &mut Recording, kernel: Kernel, grid: Grid, turns: &[GpuParams]) {
    // The list is there already, with a grid for candidates side by side.
    if let Some(spread) = turns.first().filter(|first| first.spread > 1) {
        queue::record_tally(recording, &GpuParams { turn: 0, ..*spread });
    }
    for (i, params) in turns.iter().enumerate() {
        let turn = (i % 2) as u32;
        recording.dispatch(kernel, grid, GpuParams { turn, ..*params });
        let next = turns.get(i + 1).unwrap_or(params);
        queue::record_tally(recording, &GpuParams { turn: 1 - turn, ..*next });
    }
}

/// Turns in which candidates share a vector of lanes: this share of all, and at least so many.
const EARLY_SHARE: u64 = 8;
const EARLY_LEAST: u64 = 16;

/// The most work of one piece of a phase (one turn of the machine).
fn largest_piece(base: &GpuParams) -> u32 {
    let (k, gpus) = (base.slots_per_gpu, base.node_gpus);
    let look = blocks(k);
    let tile = TILE.min(k);
    let swap = tile + tile * (1 + blocks(tile)) + 2 * (tile + k * (1 + blocks(tile)));
    let n = PAIR_SLOTS.min(k);
    let pairs = params::pairs(n);
    let pair = 2 * (n + pairs) + pairs * (1 + blocks(pairs)) + 2 * (n + k * (1 + blocks(n)));
    let b = BIPARTITION_SLOTS.min(k);
    let split = 2 * b + BIPARTITION_CHUNK * (2 + b * (1 + b));
    let transfer = (1 + k * (1 + 2 * look)).max(TRANSFER_CHUNK * (1 + look));
    let partners = if base.lightest == 0 { 0 } else { base.lightest.min(gpus) * (1 + gpus) };
    let placement = blocks(base.node_slots) + blocks(base.node_experts);
    let ended = placement + 4 * (2 + blocks(gpus) + 2 * look);
    4 * TURN + [swap, pair, split, transfer, partners + 2 * gpus, ended].into_iter().max().unwrap_or(0)
}

/// The most work between two looks at the budget of a restart: every phase once, and the end of a descent.
fn last_step(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let (k, gpus, look) = (wide(base.slots_per_gpu), wide(base.node_gpus), wide(blocks(base.slots_per_gpu)));
    let turn = wide(TURN);
    let tiles = k.div_ceil(wide(TILE)).pow(2);
    let tile = wide(TILE).min(k);
    let mut work = 4 * wide(largest_piece(base));
    if base.moves & 1 != 0 {
        work += (1 + wide(base.lightest)) * (1 + gpus);
        let proposers = if base.heaviest == 0 { gpus } else { wide(base.heaviest).min(gpus) };
        let pair_of_tiles = 4 * tile + (2 * k + tile) * (1 + tile.div_ceil(4));
        work += proposers * (2 * turn + gpus + gpus * tiles * (turn + pair_of_tiles));
    }
    if base.moves & 2 != 0 {
        let n = wide(PAIR_SLOTS).min(k);
        let pairs = n * (n - 1) / 2;
        work +=
            gpus * (1 + 4 * n + 2 * pairs + pairs * (1 + pairs.div_ceil(4)) + 2 * k * (1 + n.div_ceil(4)));
    }
    if base.moves & 4 != 0 && base.slots_per_gpu <= BIPARTITION_SLOTS {
        // C(19, 9) splits, and a look at the twins of those that improve.
        work += 92_378 * 4;
    }
    if base.moves & 8 != 0 {
        let chunks = wide(base.node_experts.div_ceil(TRANSFER_CHUNK));
        work += gpus * (turn + k * (1 + look));
        work += k * chunks * (turn + wide(TRANSFER_CHUNK) + look);
        work += k * gpus * (turn + 2 * look + k * (1 + look));
    }
    work
}
