//! What every dispatch of whole plans costs, at worst, for the largest shapes: loop trips by a model of its own,
//! read off the shaders and sharing nothing with what cuts the dispatches.

use std::collections::{BTreeMap, HashMap};

use crate::engine::recording::{Dispatch, Kernel, Recording};
use crate::layout::{GpuParams, Layout};
use crate::params::{Params, enumerate_assignments};
use crate::planner::gpu;
use crate::stages::s5_refine::{Shape as SearchShape, WIDE};
use crate::stages::{Batch, s5_descend};
use crate::{Cluster, Duplicates, Loads, PlanOptions, Preset, Search};

/// Trips after which llvmpipe and lavapipe end every loop of a vector of lanes.
const LIMIT: u64 = 65_535;

/// Lanes of a vector. Where lanes go their own ways their trips add up, at worst.
const VECTOR: u64 = 8;

/// A loop of so many trips: to leave it takes one more.
fn of(trips: u64) -> u64 {
    trips + 1
}

fn blocks(n: u64) -> u64 {
    n.div_ceil(4)
}

/// The sizes that loops depend on.
struct Sizes {
    gpus: u64,
    /// Slots a GPU.
    k: u64,
    slots: u64,
    experts: u64,
    /// Experts with several replicas, at most.
    several: u64,
    nodes: u64,
    groups: u64,
    node_groups: u64,
    assignments: u64,
    quads: u64,
    /// Steps of this dispatch.
    steps: u64,
    lightest: u64,
    avoids: bool,
}

impl Sizes {
    fn new(p: &GpuParams) -> Self {
        let wide = u64::from;
        Self {
            gpus: wide(p.node_gpus),
            k: wide(p.slots_per_gpu),
            slots: wide(p.node_slots),
            experts: wide(p.node_experts),
            several: wide(p.node_experts.min(p.node_replicas - p.node_experts)),
            nodes: wide(p.nodes),
            groups: wide(p.groups),
            node_groups: wide(p.node_groups),
            assignments: wide(p.assignments),
            quads: wide(p.quads),
            steps: wide(p.end.saturating_sub(p.begin)),
            lightest: wide(p.lightest),
            avoids: p.avoid_duplicates == 1,
        }
    }
}

/// Trips in one dispatch of a vector of so many lanes.
fn trips(kernel: Kernel, p: &GpuParams, lanes: u64) -> u64 {
    let s = Sizes::new(p);
    match kernel.entry {
        "sum_groups" => of(blocks(p.group_size.into())),
        "rank_groups" => of(blocks(s.groups)),
        "build" => of(3 * s.nodes) + of(s.steps) + s.steps * of(s.nodes),
        "swap_groups" => of(s.nodes) + group_swap(&s, s.groups),
        "share" => of(s.groups),
        "walk" => {
            let candidates = if p.enumerated > 0 { p.enumerated } else { p.samples };
            let share = of(s.groups).max(of(s.quads) + s.quads * of(s.groups));
            of(s.steps) + s.steps * (share + of(candidates.into()) + exact_bound(&s) + of(s.assignments))
        }
        "choose" => of(s.groups),
        "repair" => {
            let sums = of(s.nodes) + s.nodes * of(s.node_groups);
            sums + group_swap(&s, s.node_groups) + bound(&s) + of(s.groups)
        }
        "start" => of(s.nodes) + 2 * of(p.restart_count.into()),
        "perturb" => of(16),
        "replicate" => of(s.steps) + s.steps * (of(blocks(s.experts.div_ceil(16))) + of(s.experts) + of(16)),
        "sort" => 2 * of(8) + of(s.several),
        "pack" => {
            let clear = if p.begin == 0 { of(blocks(s.slots)) + of(s.gpus) } else { 0 };
            // Few GPUs are set, read and written back, and an item is a trip of two loops.
            let registers = if s.gpus <= 64 { of(64) + 2 * of(s.gpus) + 2 * s.steps } else { 0 };
            // Each slot of the GPU that makes room is looked for among what the other GPU has, less than k; a
            // lane finds each at another place, and of lanes together one may always find it last.
            let look = |n: u64| of(blocks(n));
            let found = if lanes == 1 { (1..s.k).map(look).sum() } else { (s.k - 1) * look(s.k - 1) };
            let room = of(s.gpus) + of(s.k) + of(s.k - 1) + found;
            // The order: ranks passed over, by each lane where it meets them, four at a time where they follow each
            // other.
            let order = s.steps * of(0) + lanes * (s.steps + 1 + blocks(s.several));
            clear + registers + order + of(s.steps) + s.steps * (of(s.gpus) + if s.avoids { room } else { 0 })
        }
        "refine" => lanes.div_ceil(p.spread.into()) * refine(p, &pieces(p, &s)),
        "descend" => lanes.div_ceil(p.spread.into()) * (refine(p, &descent_pieces(p, &s)) + of(s.slots)),
        WIDE => refine(p, &team_pieces(p, &s)),
        "choose_restart" => of(p.restart_count.into()),
        "settle_layer" => 2 * of(s.nodes),
        "copy_node" | "copy_plan" => of(8),
        "gather" => 2 * of(8) + 8 * of(4 * s.quads),
        "rank_experts" => 2 * of(s.experts) + 2 * of(16),
        "open" | "tally" | "weigh" => 0,
        entry => panic!("{entry} has no model"),
    }
}

/// The best swap of a group of one node with those at `places` places.
fn group_swap(s: &Sizes, places: u64) -> u64 {
    of(s.groups) + places * of(s.node_groups)
}

/// An assignment's share and bisection; or its share in every quad of windows.
fn bound(s: &Sizes) -> u64 {
    (of(s.groups) + exact_bound(s)).max(of(s.quads) + s.quads * of(s.groups))
}

/// The bisection in every node. A node's load over its GPUs is no more than the start; so many doublings reach
/// the load itself, where one replica of each expert will do. Loads are at most 2^30.
fn exact_bound(s: &Sizes) -> u64 {
    let doublings = u64::from(s.gpus.next_power_of_two().ilog2());
    let halvings = if doublings == 0 { 0 } else { 30 };
    let looks = doublings + 1 + halvings;
    of(s.nodes) + s.nodes * (of(doublings) + of(halvings) + looks * of(blocks(s.experts)))
}

/// A piece of the search's machine: its trips at worst, and the work it charges.
#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    trips: u64,
    work: u64,
}

impl std::ops::Add for Piece {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        piece(self.trips + other.trips, self.work + other.work)
    }
}

impl std::ops::Mul<Piece> for u64 {
    type Output = Piece;
    fn mul(self, one: Piece) -> Piece {
        piece(self * one.trips, self * one.work)
    }
}

fn piece(trips: u64, work: u64) -> Piece {
    Piece { trips, work }
}

/// All pieces that a search of these moves can come to. `TURN` is 16.
fn pieces(p: &GpuParams, s: &Sizes) -> Vec<Piece> {
    let &Sizes { gpus, k, slots, experts, lightest, .. } = s;
    let holds = piece(of(blocks(k)), blocks(k));
    let when = |on: bool, some: Piece| if on { some } else { Piece::default() };
    let copies = when(!s.avoids, holds);
    let find_heaviest = piece(of(blocks(gpus - 1)), blocks(gpus));
    let transfer = piece(of(blocks(slots)), 1 + blocks(slots));
    // `duplicates_on` and `read_items`: so many slots of one GPU, so many of another.
    let twins = |n: u64| when(s.avoids, piece(of(n) + of(k) + k * of(blocks(n)), n + k * (1 + blocks(n))));
    let items = |a: u64, b: u64| twins(a) + twins(b) + piece(of(a) + of(b), 0);

    // Around each move: a trip of the outer loop, and a look at each of its seven inner loops; then what a move
    // does once where it is dearer than it charges.
    let turn = piece(8, 0);
    let mut step = turn + piece(0, 64) + find_heaviest;
    let marks = p.heaviest != 1 || p.lightest != 0;
    let partners = piece(of(lightest) + lightest * of(gpus), lightest * (1 + gpus));
    let begin_swaps =
        piece(0, 1 + blocks(gpus)) + when(marks, piece(of(gpus), gpus)) + when(lightest < gpus, partners);
    let begin_transfers = piece(of(blocks(experts)) + of(k), 2 + blocks(gpus) + blocks(experts) + k);
    let begin_bipartition = piece(of(gpus - 1), 2 + blocks(gpus) + gpus);
    for (on, once) in [(1, begin_swaps), (4, begin_bipartition), (8, begin_transfers), (8, transfer)] {
        if p.moves & on != 0 && once.trips > once.work {
            step = step + once;
        }
    }
    let save = turn + piece(of(blocks(slots)), 64 + blocks(slots));
    let recount = turn + piece(of(blocks(experts)) + of(blocks(slots)), 64 + blocks(experts) + blocks(slots));
    let kick_swap = piece(0, 1) + find_heaviest + when(s.avoids, 2 * holds);
    let kick_transfer = piece(0, 1) + find_heaviest + when(s.avoids, holds) + transfer;
    let kick = turn + piece(of(3), 64) + 3 * kick_swap + kick_transfer;
    let mut pieces = vec![step, save, recount, kick];

    let one = piece(1, 16);
    if p.moves & 1 != 0 {
        pieces.push(one + piece(of(gpus), gpus));
        pieces.extend([begin_swaps].into_iter().filter(|once| once.trips <= once.work));
        // A GPU's slots in tiles of 32, of which the last may be smaller.
        let tiles = [k.min(32), if k % 32 == 0 { 32.min(k) } else { k % 32 }];
        for (a, b) in tiles.into_iter().flat_map(|a| tiles.map(|b| (a, b))) {
            pieces.push(one + items(a, b) + piece(of(b) + b * of(blocks(a)), a + b * (1 + blocks(a))));
        }
    }
    if p.moves & 2 != 0 {
        let n = k.min(16);
        let pairs = n * (n - 1) / 2;
        let sums = piece(of(n) + pairs + n, n + pairs);
        let weigh = piece(pairs * of(blocks(pairs)), pairs * (1 + blocks(pairs)));
        pieces.push(one + items(n, n) + 2 * sums + weigh + piece(of(n), 0));
    }
    if p.moves & 4 != 0 && (2..=10).contains(&k) {
        let splits = one + piece(of(32), 2 * k + 32);
        let twin = piece(of(k) + k * of(k), k * (1 + k));
        let make = piece(2 * of(2 * k), 4 * k);
        pieces.extend([splits, splits + 32 * twin, splits + 32 * twin + make]);
    }
    if p.moves & 8 != 0 {
        pieces.push(one + piece(of(k), k) + k * copies);
        // Where no slot is worth a look for duplicates, its loop is walked through all the same, masked.
        let walked = when(!s.avoids, piece(k, 0));
        pieces.push(one + piece(of(k), k) + walked);
        pieces.push(one + copies + piece(of(k), k) + walked);
        pieces.push(one + piece(of(64), 64) + copies);
        pieces.push(one + when(s.avoids, holds) + copies + piece(of(k), k) + k * copies);
    }
    pieces
}

/// The same for a team of a vector's lanes: its trips, and the work that is not done beside other work. A loop that a
/// masked driver only walks through is entered and left, two trips.
fn team_pieces(p: &GpuParams, s: &Sizes) -> Vec<Piece> {
    let &Sizes { gpus, k, slots, experts, .. } = s;
    let spread = |n: u64| of(n.div_ceil(VECTOR));
    let by_gpu = spread(gpus) + gpus.div_ceil(VECTOR) * of(k);
    let look = blocks(k);
    // The loops inside of a pass over swaps, over pairs, and over all, and their own trips.
    let (swaps_walk, pairs_walk) = (1 + 2 * 3, 1 + 2 * 6);
    let peaks = 1 + of(gpus.min(8)) + gpus.min(8) * spread(k);
    let walk = 1 + swaps_walk + pairs_walk + 2 * 20 + peaks;
    let heaviest = of(blocks(gpus)).min(2 + spread(gpus));
    let n = k.min(16);
    let pairs = n * (n - 1) / 2;
    let twins = |n: u64| 2 * (n + k * (1 + blocks(n)));
    let swap = piece(swaps_walk + 2 * of(k), 16 + k + k * (1 + blocks(k)) + twins(k));
    let step = piece(heaviest, 64 + 2 * blocks(gpus) + 1);
    let pair = piece(
        pairs_walk + of(k) + 3 * of(n) + pairs,
        16 + 2 * (n + pairs) + pairs * (1 + blocks(pairs)) + twins(n),
    );
    let saved = piece(walk + spread(slots), 64 + blocks(slots));
    let counted = of(gpus) + gpus * spread(k) + spread(experts);
    let restored = piece(walk + counted + by_gpu, 128 + blocks(experts) + 2 * blocks(slots));
    let kick_swap = piece(of(blocks(gpus)) + 2 * of(look), 1 + blocks(gpus));
    let kicked = piece(of(3) + of(blocks(gpus)) + of(look), 65 + blocks(gpus)) + 3 * kick_swap;
    let transferred = piece(by_gpu, 1 + blocks(slots));
    // Rounds that weigh nothing, and those that weigh.
    let mut pieces = vec![step + piece(swaps_walk, 16), step + swap, swap, piece(swaps_walk, 16)];
    pieces.extend([saved, saved + kicked + transferred, restored + kicked + transferred]);
    if p.moves & 2 != 0 {
        pieces.extend([pair, piece(pairs_walk, 16)]);
    }
    if p.moves & 8 != 0 {
        let begun = piece(walk + spread(experts) + spread(k), 2 + blocks(gpus) + blocks(experts) + k);
        let rounds = gpus.div_ceil(8) * piece(peaks, 0) + piece(0, gpus * (16 + k));
        let replaced = piece(3 + of(64 / VECTOR), 16 + 64);
        let replicated = piece(9 + of(look) + 2 * of(k), 16 + look + k);
        pieces.extend([begun + rounds + transferred, replaced, replicated, piece(9, 16)]);
    }
    pieces
}

/// The pieces of the lineage's descent, with the trips that it counts as their work. In a turn of its machine a masked
/// driver walks through 24 loops, in a piece of a scan through those of that scan.
fn descent_pieces(p: &GpuParams, s: &Sizes) -> Vec<Piece> {
    let &Sizes { gpus, k, .. } = s;
    let noted = if s.avoids { piece(k, k) } else { Piece::default() };
    // A turn that looks at all GPUs, and may note what is on one; before it a best move may have been made.
    let turn = piece(3 + 24 + gpus, 32 + gpus) + noted;
    let (n, none) = (k.min(16), piece(4, 4));
    let pairs = n * n.saturating_sub(1) / 2;
    let mut pieces = vec![turn, none, piece(2 + of(k), 4 + k) + noted];
    pieces.push(piece(1 + of(n) + n + pairs, 4 + 2 * n + pairs) + noted);
    if p.moves & 4 != 0 && (2..=10).contains(&k) {
        let splits = piece(1 + of(20) + of(32) + 2 * 32 + 2, 168);
        let apart = if s.avoids { piece(of(k) + k * of(k), k * (2 + k)) } else { Piece::default() };
        pieces.extend([splits, splits + 32 * apart + piece(4 * k, 4 * k)]);
    }
    pieces
}

/// A lane starts pieces until it has charged its fuel: what those cost for their work, and the last one whole.
fn refine(p: &GpuParams, pieces: &[Piece]) -> u64 {
    let spent = pieces.iter().map(|piece| (u64::from(p.fuel) * piece.trips).div_ceil(piece.work)).max();
    let last = pieces.iter().map(|piece| piece.trips).max();
    spent.unwrap_or(0) + last.unwrap_or(0)
}

const SEARCHES: [SearchShape; 2] = [SearchShape::Narrow, SearchShape::Wide];

type Shape = (usize, usize, usize, usize, usize, usize);

fn params(shape: Shape, options: &PlanOptions) -> Params {
    let (layers, experts, groups, nodes, gpus, replicas) = shape;
    let loads = Loads::from_counts(layers, experts, &vec![1; layers * experts]).unwrap();
    Params::new(&loads, &Cluster::new(replicas, groups, nodes, gpus).unwrap(), options).unwrap()
}

fn record(shape: Shape, options: &PlanOptions, search: SearchShape) -> Recording {
    let params = params(shape, options);
    let table = enumerate_assignments(params.groups, params.nodes);
    let layout = Layout::new(&params, table.len() as u32);
    gpu::record(&params, &layout, gpu::ARENA_WORDS, 1, &|_| search).0
}

/// The dearest dispatch of each kernel, for a vector of so many lanes.
fn dearest(recording: &Recording, lanes: u64) -> BTreeMap<&'static str, u64> {
    let mut known = HashMap::new();
    let mut dearest = BTreeMap::new();
    for Dispatch { kernel, params: p, .. } in &recording.dispatches {
        let key = (kernel.entry, p.begin == 0, p.end.saturating_sub(p.begin), p.fuel, p.restart_count);
        let cost = *known.entry(key).or_insert_with(|| trips(*kernel, p, lanes));
        let most = dearest.entry(kernel.entry).or_insert(0);
        *most = cost.max(*most);
    }
    dearest
}

/// Layers, experts, groups, nodes, GPUs, replicas.
const LARGEST: [Shape; 9] = [
    (94, 128, 1, 1, 32, 160),
    (61, 384, 1, 1, 64, 448),
    (61, 384, 8, 8, 64, 448),
    (48, 512, 1, 1, 64, 576),
    (48, 512, 16, 8, 64, 576),
    (64, 1024, 1, 1, 128, 1152),
    (64, 1024, 32, 16, 128, 1152),
    (256, 256, 8, 4, 32, 288),
    (256, 256, 1, 1, 144, 288),
];

/// The limits of what a cluster may be.
const LIMITS: [Shape; 7] = [
    (1, 64, 1, 1, 108, 6912),
    (1, 256, 1, 1, 8, 288),
    (1, 4096, 1, 1, 64, 16_384),
    (1, 4096, 8, 4, 64, 16_384),
    (1, 4096, 64, 64, 64, 16_384),
    (1, 4096, 1, 1, 1024, 16_384),
    (1, 4096, 1, 1, 16_384, 16_384),
];

#[test]
fn no_dispatch_of_the_largest_shapes_passes_the_limit() {
    for shape in LARGEST {
        for (preset, search) in Preset::all().flat_map(|preset| SEARCHES.map(|search| (preset, search))) {
            let recording = record(shape, &preset.options(), search);
            assert!(!recording.is_cut(), "{shape:?} {preset}");
            for (entry, cost) in dearest(&recording, VECTOR) {
                assert!(cost < LIMIT, "{shape:?} {preset}: {entry} takes {cost} trips");
            }
        }
    }
}

#[test]
fn no_dispatch_of_the_limits_passes_the_limit() {
    for shape in LIMITS {
        for name in ["default", "fast", "gen00", "gen14", "gen17", "rec2", "rec3"] {
            let options = PlanOptions { restarts: 1, kicks: 1, ..name.parse::<Preset>().unwrap().options() };
            let rules = [options.duplicates, Duplicates::Allow];
            for (duplicates, search) in
                rules.into_iter().flat_map(|rule| SEARCHES.map(|search| (rule, search)))
            {
                let recording = record(shape, &PlanOptions { duplicates, ..options.clone() }, search);
                for (entry, cost) in dearest(&recording, VECTOR) {
                    assert!(cost < LIMIT, "{shape:?} {name}: {entry} takes {cost} trips");
                }
            }
        }
    }
}

/// The descent alone, of the presets and of rules that no preset has.
#[test]
fn no_dispatch_of_a_descent_passes_the_limit() {
    for shape in LARGEST.into_iter().chain(LIMITS) {
        for options in Preset::all().map(Preset::options) {
            for (duplicates, lightest) in [(Duplicates::Avoid, None), (Duplicates::Allow, Some(5000))] {
                let search = options.search.clone();
                let search = search.map(|s| Search {
                    lightest: lightest.unwrap_or(s.lightest),
                    pair_swaps: true,
                    ..s
                });
                let params = params(shape, &PlanOptions { duplicates, search, ..options.clone() });
                let base = Layout::new(&params, 1).base;
                let batch = Batch { assignment: 0, layers: (0, 1), restarts: (0, 1), haste: 1 };
                let mut recording = Recording::default();
                s5_descend::record(&mut recording, &base, &batch);
                let fuel = recording.dispatches[1].params.fuel;
                assert!(fuel > 10_000, "{shape:?}: dispatches that do little, {fuel}");
                for (entry, cost) in dearest(&recording, VECTOR) {
                    assert!(cost < LIMIT, "{shape:?} {options:?}: {entry} takes {cost} trips");
                }
            }
        }
    }
}

/// The model sees what cutting is for: construction in one piece would pass the limit many times over.
#[test]
fn work_that_is_not_cut_passes_the_limit() {
    let shape = (61, 384, 1, 1, 64, 448);
    let [recording, wide] = SEARCHES.map(|search| record(shape, &PlanOptions::default(), search));
    let recordings = [recording, wide];
    let uncut = |entry: &str, p: &dyn Fn(GpuParams) -> GpuParams| {
        let mut dispatches = recordings.iter().flat_map(|recording| &recording.dispatches);
        let found = dispatches.find(|dispatch| dispatch.kernel.entry == entry).unwrap();
        trips(found.kernel, &p(found.params), VECTOR)
    };
    let whole = |p: GpuParams| GpuParams { end: p.node_replicas, ..p };
    assert!(uncut("pack", &whole) > LIMIT);
    assert!(uncut("replicate", &|p| GpuParams { end: p.node_replicas - p.node_experts, ..p }) < LIMIT);
    assert!(uncut("refine", &|p| GpuParams { fuel: p.work_limit, ..p }) > 100 * LIMIT);
    assert!(uncut(WIDE, &|p| GpuParams { fuel: p.work_limit, ..p }) > 10 * LIMIT);
}
