//! The cost of every dispatch of whole plans, at worst, for the largest shapes: loop trips by a model of its own,
//! read off the shaders and sharing nothing with what cuts the dispatches.

use std::collections::{BTreeMap, HashMap};

use crate::engine::recording::{Kernel, KernelDispatch, Recording};
use crate::layout::words::MOVE_BIPARTITION;
use crate::layout::{GpuParams, Layout};
use crate::params::{Params, enumerate_assignments};
use crate::planner::gpu;
use crate::stages::{Batch, s5_descend};
use crate::{Cluster, Descent, Duplicates, Loads, PlanOptions, Preset, Search};

/// Trips after which llvmpipe and lavapipe end every loop of a vector of lanes.
const LIMIT: u64 = 65_535;

/// Lanes of a vector. Where lanes go their own ways their trips add up, at worst.
const VECTOR: u64 = 8;

/// A loop of this many trips: to leave it takes one more.
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
            avoids: p.avoid_duplicates == 1,
        }
    }
}

/// Trips in one dispatch of a vector of this many lanes.
fn trips(kernel: Kernel, p: &GpuParams, lanes: u64) -> u64 {
    let s = Sizes::new(p);
    match kernel.entry {
        "sum_groups" => of(blocks(p.group_size.into())),
        "rank_groups" => of(blocks(s.groups)),
        "build" => of(3 * s.nodes) + of(s.steps) + s.steps * of(s.nodes),
        "swap_groups" => of(s.nodes) + group_swap(&s, s.groups),
        "sum_window_groups" => of(p.group_size.into()),
        "average" | "add_average" | "floors" => of(s.groups),
        "bound_nodes" => of(s.experts) + bisection(&s),
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
        "start" => of(s.nodes) + 2 * of(p.start_count.into()),
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
        "descend" => lanes.div_ceil(p.spread.into()) * (spend(p, &descent_pieces(p, &s)) + of(s.slots)),
        "search" => search(p, &s),
        "search_counts" => {
            let iterations = u64::from(p.end);
            begin_counts(&s) + of(iterations) + iterations * count_move(&s) + shared(s.experts)
        }
        "choose_start" => of(p.start_count.into()),
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

/// The bisection in every node.
fn exact_bound(s: &Sizes) -> u64 {
    of(s.nodes) + s.nodes * bisection(s)
}

/// The bisection in a node. Its load over its GPUs is no more than the start; this many doublings reach the load
/// itself, where one replica of each expert will do. Loads are at most 2^30.
fn bisection(s: &Sizes) -> u64 {
    let doublings = u64::from(s.gpus.next_power_of_two().ilog2());
    let halvings = if doublings == 0 { 0 } else { 30 };
    let looks = doublings + 1 + halvings;
    of(doublings) + of(halvings) + looks * of(blocks(s.experts))
}

/// A loop over this many items that the lanes of a team, a vector of them, share.
fn shared(items: u64) -> u64 {
    of(rounds(items))
}

/// How often a lane of a team is in such a loop.
fn rounds(items: u64) -> u64 {
    items.div_ceil(VECTOR)
}

/// Lane after lane, what each of a team reports.
const REPORTS: u64 = VECTOR + 1;

/// A dispatch of the trajectory: the start, which only the first of them makes, the iterations, and a look and a result
/// after them.
fn search(p: &GpuParams, s: &Sizes) -> u64 {
    let windows = u64::from(p.windows);
    let weigh_gpus = shared(s.gpus * windows) + rounds(s.gpus * windows) * of(s.k);
    let weigh_slots = shared(s.slots) + rounds(s.slots) * known(windows);
    let begin = weigh_slots + shared(s.experts) + weigh_gpus + of(s.experts);
    // With several windows a lane finds the three heaviest GPUs of a window.
    let three = of(3) + 3 * of(s.gpus);
    let look = match windows {
        1 => shared(s.gpus) + REPORTS,
        _ => shared(windows) + rounds(windows) * three,
    };
    let decide = known(windows);
    let keep = shared(s.slots);
    // The leader allows the GPU's slots to move, or makes an exchange or two, or changes counts.
    let make = of(s.k) + 2 * known(windows) + of(s.several) + weigh_slots + weigh_gpus;
    let iteration = look + decide + exchanges(p, s) + transfers(p, s) + keep + make;
    // Where nothing can move the first look is the last.
    let iterations = if s.k == 1 || s.gpus == 1 { 0 } else { u64::from(p.end) };
    of(iterations + 1) + begin + iterations * iteration + look + decide + keep
}

/// The sum over windows of what two GPUs come to, and the heaviest of the others.
fn objective(p: &GpuParams) -> u64 {
    let windows = u64::from(p.windows);
    known(windows) + if windows > 1 { windows * of(3) } else { 0 }
}

/// A loop over windows: the number of them is a constant of the pipeline, so that of one window no loop is left.
fn known(windows: u64) -> u64 {
    if windows > 1 { of(windows) } else { 0 }
}

/// Weighing all exchanges of a GPU.
fn exchanges(p: &GpuParams, s: &Sizes) -> u64 {
    let (n, windows) = (u64::from(p.exchange_slots), u64::from(p.windows));
    // Which slots are open: each of them, and the GPU's own experts for each.
    let open = shared(s.k) + shared(n * windows) + shared(s.gpus) + rounds(s.gpus) * (of(n) + n * of(s.k));
    let single = of(s.k) + of(n) + n * objective(p);
    let singles = shared(n * s.gpus) + rounds(n * s.gpus) * single + REPORTS;
    // Where no pairs are wanted their loops are walked through, masked, but not with several windows.
    let n = u64::from(p.pair_slots);
    let pairs = n * n.saturating_sub(1) / 2;
    let gives = if n == 4 && s.k == 4 { 3 } else { pairs };
    let pair = of(n) + 2 * of(s.k) + of(n) + n + pairs;
    let pairs = shared(gives * s.gpus) + rounds(gives * s.gpus) * pair + REPORTS + 2 * of(n);
    open + singles + if windows == 1 { pairs } else { 0 }
}

/// Weighing all transfers of a GPU.
fn transfers(p: &GpuParams, s: &Sizes) -> u64 {
    if s.several == 0 {
        // There are none, and their loops are walked through, masked.
        return 24;
    }
    let windows = u64::from(p.windows);
    let losers = s.several.min(p.losers.into());
    let peaks = shared(losers) + rounds(losers) * (known(windows) + windows * of(s.slots));
    let gainer = shared(s.experts) + rounds(s.experts) * known(windows) + REPORTS;
    let own = shared(s.k) + rounds(s.k) * objective(p);
    let there = u64::from(p.gainers) * s.gpus;
    let elsewhere = shared(there) + rounds(there) * (of(s.k) + of(s.k) + s.k * objective(p));
    peaks + gainer + own + elsewhere + REPORTS
}

/// A search among the experts of the order or among the rows of the table: unrolled where it is deep.
fn lookup(s: &Sizes) -> u64 {
    let depth = row_bits(s);
    if depth <= 11 { of(depth) } else { 0 }
}

/// Bits of the number of rows: experts and two.
fn row_bits(s: &Sizes) -> u64 {
    u64::from(u64::BITS - (s.experts + 2).leading_zeros())
}

/// The first order and fold of the search of counts.
fn begin_counts(s: &Sizes) -> u64 {
    let depth = row_bits(s);
    let pairs = s.experts.next_power_of_two() / 2;
    let sort: u64 = (1..=depth).map(|steps| of(steps) + steps * shared(pairs)).sum();
    shared(s.experts) + shared(s.gpus) + REPORTS + of(depth) + sort + fold(s)
}

/// The sums of the lanes over the order, and the fold, weighed and remembered.
fn fold(s: &Sizes) -> u64 {
    let sums = 2 * of(rounds(s.experts)) + REPORTS;
    let value = lookup(s) + shared(s.experts + 1) + rounds(s.experts + 1) * lookup(s) + REPORTS;
    let keep = shared(s.experts) + shared(s.slots) + rounds(s.slots) * lookup(s);
    sums + value + keep
}

/// One iteration of the search of counts.
fn count_move(s: &Sizes) -> u64 {
    let each = shared(s.experts) + rounds(s.experts) * lookup(s);
    let rows = 3 * of(rounds(s.experts + 2))
        + 2 * REPORTS
        + (2 * rounds(s.experts + 2) + 8) * of(4)
        + rounds(s.experts + 2) * of(16);
    // Experts that may lose one and those that may gain one are weighed, then 4 and 16 of them found and weighed again.
    let listed = [4, 16].map(|n| {
        let find = of(0) + of(n) + n * (shared(s.experts) + REPORTS);
        each + find + shared(n) + rounds(n) * lookup(s)
    });
    let moved = shared(4 * 16) + REPORTS + each;
    each + rows + of(4) + listed.iter().sum::<u64>() + moved + fold(s)
}

/// A piece of the descent's machine: its trips at worst, and the work it charges.
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
    if p.moves & MOVE_BIPARTITION != 0 && (2..=10).contains(&k) {
        let splits = piece(1 + of(20) + of(32) + 2 * 32 + 2, 168);
        let apart = if s.avoids { piece(of(k) + k * of(k), k * (2 + k)) } else { Piece::default() };
        pieces.extend([splits, splits + 32 * apart + piece(4 * k, 4 * k)]);
    }
    pieces
}

/// A lane starts pieces until it has charged its fuel: what those cost for their work, and the last one whole.
fn spend(p: &GpuParams, pieces: &[Piece]) -> u64 {
    let spent = pieces.iter().map(|piece| (u64::from(p.fuel) * piece.trips).div_ceil(piece.work)).max();
    let last = pieces.iter().map(|piece| piece.trips).max();
    spent.unwrap_or(0) + last.unwrap_or(0)
}

type Shape = (usize, usize, usize, usize, usize, usize);

fn params(shape: Shape, options: &PlanOptions) -> Params {
    let (layers, experts, groups, nodes, gpus, replicas) = shape;
    let loads = Loads::from_counts(layers, experts, &vec![1; layers * experts]).unwrap();
    Params::new(&loads, &Cluster::new(replicas, groups, nodes, gpus).unwrap(), options).unwrap()
}

/// All that is recorded for two assignments: those after them are the same.
fn record(shape: Shape, options: &PlanOptions) -> Recording {
    record_params(&params(shape, options))
}

fn record_params(params: &Params) -> Recording {
    let table = enumerate_assignments(params.groups, params.nodes);
    let layout = Layout::new(params, table.len() as u32);
    let share = gpu::Extent { assignments: params.assignments.min(2), work_divisor: 1 };
    gpu::record(params, &layout, crate::engine::recording::ARENA_WORDS, share).0
}

/// The dearest dispatch of each kernel, for a vector of this many lanes.
fn dearest(recording: &Recording, lanes: u64) -> BTreeMap<&'static str, u64> {
    let mut known = HashMap::new();
    let mut dearest = BTreeMap::new();
    for KernelDispatch { kernel, params: p, .. } in &recording.dispatches {
        let key = (kernel.entry, p.begin == 0, p.end.saturating_sub(p.begin), p.fuel, p.start_count);
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
        for preset in Preset::all() {
            let recording = record(shape, &preset.options());
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
            let options = PlanOptions { starts: 2, ..name.parse::<Preset>().unwrap().options() };
            for duplicates in [options.duplicates, Duplicates::Allow] {
                let recording = record(shape, &PlanOptions { duplicates, ..options.clone() });
                for (entry, cost) in dearest(&recording, VECTOR) {
                    assert!(cost < LIMIT, "{shape:?} {name}: {entry} takes {cost} trips");
                }
            }
        }
    }
}

/// GPUs of up to 256 slots, few and many of them, and free slots; one window at any size, several where there are not
/// too many slots for them.
#[test]
fn no_dispatch_of_a_trajectory_passes_the_limit() {
    let (mut complaints, mut seen) = (Vec::new(), 0);
    for (windows, slots) in
        [1, 2, 5, 16].into_iter().flat_map(|w| [1, 2, 3, 4, 5, 7, 9, 16, 33, 64, 256].map(|k| (w, k)))
    {
        for gpus in [1, 2, 8, 31, 64, 144, 404, 1024, 4096] {
            let all = gpus * slots;
            for (replicas, experts) in [(all, all), (all, all * 8 / 9), (all - all / 5, all / 2), (all, gpus)]
            {
                let experts = experts.clamp(1, 4096);
                let too_many = windows > 1 && (all * windows > 1 << 14 || gpus > 512);
                if all > 16_384 || replicas < experts || too_many {
                    continue;
                }
                let loads = Loads::from_counts(1, experts, &vec![1; experts]).unwrap();
                let loads = Loads::from_windows(&vec![loads; windows], &vec![1.0; windows]).unwrap();
                let cluster = Cluster::with_slots_per_gpu(replicas, 1, 1, gpus, slots).unwrap();
                let params = Params::new(&loads, &cluster, &PlanOptions::default()).unwrap();
                let recording = record_params(&params);
                for (entry, cost) in
                    dearest(&recording, VECTOR).into_iter().filter(|(_, cost)| *cost >= LIMIT)
                {
                    let shape = (windows, experts, gpus, slots, replicas);
                    complaints.push(format!("{shape:?}: {entry} takes {cost} trips"));
                }
                seen += 1;
            }
        }
    }
    assert!(complaints.is_empty(), "windows, experts, GPUs, slots, replicas\n{}", complaints.join("\n"));
    assert!(seen > 400, "{seen} shapes");
}

/// The descent alone, of the presets and of rules that no preset has.
#[test]
fn no_dispatch_of_a_descent_passes_the_limit() {
    for shape in LARGEST.into_iter().chain(LIMITS) {
        for options in Preset::all().map(Preset::options) {
            for (duplicates, lightest) in [(Duplicates::Avoid, None), (Duplicates::Allow, Some(5000))] {
                let descent = match &options.search {
                    Search::Descent(descent) => descent.clone(),
                    _ => Descent::SWAPS,
                };
                let lightest = lightest.unwrap_or(descent.lightest);
                let search = Search::Descent(Descent { lightest, pair_swaps: true, ..descent });
                let params = params(shape, &PlanOptions { duplicates, search, ..options.clone() });
                let base = Layout::new(&params, 1).base;
                let batch = Batch { assignment: 0, layers: (0, 1), starts: (0, 1), work_divisor: 1 };
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
    let shapes = [(61, 384, 1, 1, 64, 448), (61, 384, 1, 1, 192, 384)];
    let recordings = shapes.map(|shape| record(shape, &PlanOptions::default()));
    let uncut = |entry: &str, p: &dyn Fn(GpuParams) -> GpuParams| {
        let mut dispatches = recordings.iter().flat_map(|recording| &recording.dispatches);
        let found = dispatches.find(|dispatch| dispatch.kernel.entry == entry).unwrap();
        trips(found.kernel, &p(found.params), VECTOR)
    };
    let whole = |p: GpuParams| GpuParams { end: p.node_replicas, ..p };
    assert!(uncut("pack", &whole) > LIMIT);
    assert!(uncut("replicate", &|p| GpuParams { end: p.node_replicas - p.node_experts, ..p }) < LIMIT);
    assert!(uncut("search", &|p| GpuParams { end: p.iterations, ..p }) > 10 * LIMIT);
    assert!(uncut("search_counts", &|p| GpuParams { end: p.iterations, ..p }) > 10 * LIMIT);
}
