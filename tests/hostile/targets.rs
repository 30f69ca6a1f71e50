//! One function a target: any bytes, no panic. `fuzz/`-style drivers can call them as they are.

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use eplb_wgpu::limits::MAX_THREE_GPUS;
use eplb_wgpu::maps::{MapFile, PlanFormat};
use eplb_wgpu::trace::{LoadFormat, LoadHistory, PlanFile, SharesFile, Window, plan_bytes, shares_bytes};
use eplb_wgpu::{
    Cluster, Descent, DeviceChoice, Dispatch, Duplicates, GroupRule, Loads, Objective, PARTS, Placement,
    Plan, PlanOptions, Planner, Policy, Search, Shares, bound, check,
};

/// A target: it panics where something is wrong.
pub type Target = fn(&[u8]);

/// The targets by name, which is that of their folder in the corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("json", json),
    ("npy", npy),
    ("csv", csv),
    ("others", others),
    ("map", map),
    ("plan_file", plan_file),
    ("shares_file", shares_file),
    ("speeds", speeds),
    ("plan", plan),
    ("judge", judge),
];

/// A reader of loads holds at most this many bytes for each byte of the file: see [`LoadHistory::parse`].
const LOADS_FACTOR: u64 = 64;

/// As [`LOADS_FACTOR`] for a plan file: see [`PlanFile::parse`].
const PLAN_FACTOR: u64 = 128;

/// Bytes that any reader may hold besides: messages, the first room of lists, the parser of npy headers.
const BASE: u64 = 64 << 10;

/// Bytes that a reader of loads that each tell their expert may hold besides: see [`LoadHistory::parse`].
const SPARSE_BASE: u64 = 8 << 20;

/// No small input may take longer. Far above what any does, since machines differ.
const LIMIT: Duration = Duration::from_secs(10);

pub fn json(bytes: &[u8]) {
    loads(LoadFormat::Json, bytes);
}

pub fn npy(bytes: &[u8]) {
    loads(LoadFormat::Npy, bytes);
}

pub fn csv(bytes: &[u8]) {
    loads(LoadFormat::Csv, bytes);
}

/// Loads that are read are within the rules, and are read again as they are written, in any format that can hold them.
fn loads(format: LoadFormat, bytes: &[u8]) {
    let Ok(history) = within(bytes, LOADS_FACTOR, || LoadHistory::parse(format, bytes)) else { return };
    let shape = (history.windows(), history.layers(), history.experts());
    assert_eq!(history.values().len(), shape.0 * shape.1 * shape.2);
    assert!(history.values().iter().all(|load| (0.0..=2f64.powi(64)).contains(load)));
    // The sum may pass the largest load.
    let _ = history.loads(Window::Sum);
    history.loads(Window::Last).expect("the reader has seen every window");
    for format in [LoadFormat::Json, LoadFormat::Npy, LoadFormat::Csv] {
        match history.bytes(format) {
            Ok(bytes) => {
                let again = LoadHistory::parse(format, &bytes).expect("what is written is read");
                assert_eq!(again, history, "{format:?}");
            }
            Err(_) => assert!(format == LoadFormat::Csv && shape.0 > 1),
        }
    }
}

/// Loads as other programs write them, of every format: what tells the expert of each load, and archives, may hold 8 MiB more.
pub fn others(bytes: &[u8]) {
    for format in [LoadFormat::Rows, LoadFormat::Megatron, LoadFormat::TensorRtLlm, LoadFormat::Npz] {
        let read = || LoadHistory::parse(format, bytes);
        let Ok(history) = within_base(bytes, LOADS_FACTOR, SPARSE_BASE, read) else { continue };
        assert_eq!(history.layer_ids().len(), history.layers());
        let again = LoadHistory::parse(LoadFormat::Json, &history.bytes(LoadFormat::Json).unwrap());
        assert_eq!(again.expect("what is written is read"), history, "{format:?}");
    }
    let _ = within_base(bytes, LOADS_FACTOR * 256, SPARSE_BASE, || LoadHistory::of_bytes(bytes, None));
}

/// Maps of every format, which are read again as they are written.
pub fn map(bytes: &[u8]) {
    let formats = PlanFormat::ALL.map(Some).into_iter().chain([None]);
    for format in formats {
        let Ok(map) = within(bytes, PLAN_FACTOR, || MapFile::of_bytes(bytes, format)) else { continue };
        assert_eq!(map.physical_to_logical().len(), map.layers() * map.slots());
        let _ = map.previous_map();
        for format in [PlanFormat::Vllm, PlanFormat::TensorRtLlm, PlanFormat::Npy] {
            let Ok(bytes) = map.bytes(format) else { continue };
            let again = MapFile::parse(format, &bytes).expect("what is written is read");
            assert_eq!(again.physical_to_logical(), map.physical_to_logical(), "{format}");
        }
    }
}

/// A plan file as it is, and with the checksum it should have.
pub fn plan_file(bytes: &[u8]) {
    read_plan(bytes);
    if let Some(sealed) = sealed(bytes) {
        read_plan(&sealed);
    }
}

fn read_plan(bytes: &[u8]) {
    let Ok(file) = within(bytes, PLAN_FACTOR, || PlanFile::parse(bytes)) else { return };
    let PlanFile { cluster, placement, .. } = file;
    let maps = (placement.physical_to_logical(), placement.logical_to_physical(), placement.replica_counts());
    assert_eq!(placement.slots(), cluster.num_slots());
    check::check_maps(placement.experts(), placement.slots(), maps.0, maps.1, maps.2).unwrap();
}

/// A file of shares as it is, and with the checksum it should have: held against a plan it is a table that sums up.
pub fn shares_file(bytes: &[u8]) {
    read_shares(bytes);
    if let Some(sealed) = sealed(bytes) {
        read_shares(&sealed);
    }
}

fn read_shares(bytes: &[u8]) {
    let Ok(file) = within(bytes, PLAN_FACTOR, || SharesFile::parse(bytes)) else { return };
    let (plan, _) = &*SHARED;
    if let Ok(shares) = file.shares(plan.cluster(), plan.placement()) {
        assert_eq!(shares_bytes(&shares, plan.placement(), &file.layer_ids), {
            let again = SharesFile::parse(bytes).expect("it was read before");
            shares_bytes(
                &again.shares(plan.cluster(), plan.placement()).unwrap(),
                plan.placement(),
                &again.layer_ids,
            )
        });
        let whole = plan.layers() * plan.experts() * usize::from(PARTS);
        assert_eq!(shares.parts().iter().map(|&part| usize::from(part)).sum::<usize>(), whole);
    }
}

/// Speeds of GPUs as an option or a file lists them: those that are taken are planned for.
pub fn speeds(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(speeds) = within(bytes, LOADS_FACTOR, || eplb_wgpu::cli::speeds::parse(&text)) else { return };
    assert!(!speeds.is_empty());
    let gpus = speeds.len().min(64);
    let cluster = Cluster::with_slots_per_gpu(2, 1, 1, gpus, 2).expect("a cluster of some GPUs");
    let Ok(cluster) = cluster.with_gpu_speeds(&speeds) else { return };
    let found = cluster.gpu_speeds();
    assert!(found.contains(&1.0) && found.iter().all(|speed| *speed == 0.0 || (0.01..=1.0).contains(speed)));
    let loads = Loads::from_counts(1, 2, &[3, 1]).expect("loads of two experts");
    let planner = Planner::new(DeviceChoice::Cpu).expect("the CPU backend");
    let plan =
        planner.plan(&loads, &cluster, &PlanOptions::default()).expect("there is room for two replicas");
    assert!(plan.quality().layers[0].gap().is_some_and(f64::is_finite));
}

/// A plan, and its table of shares.
static SHARED: LazyLock<(Plan, Shares)> = LazyLock::new(|| {
    let loads = Loads::from_counts(2, 4, &[90, 30, 20, 10, 5, 60, 7, 8]).unwrap();
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let plan = planner.plan(&loads, &Cluster::new(6, 1, 1, 3).unwrap(), &PlanOptions::default()).unwrap();
    let shares = plan.batch_shares(&loads).unwrap();
    (plan, shares)
});

/// The bytes of a file of shares.
pub fn shares_file_bytes() -> Vec<u8> {
    let (plan, shares) = &*SHARED;
    shares_bytes(shares, plan.placement(), plan.layer_ids())
}

/// An object with the checksum of a plan file, made here by the words of its documentation.
pub fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut root: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    root.as_object_mut()?.remove("checksum");
    // Objects of this crate's serde_json keep their keys in order.
    let hash = xxhash_rust::xxh64::xxh64(root.to_string().as_bytes(), 0);
    root["checksum"] = format!("{hash:016x}").into();
    Some(root.to_string().into_bytes())
}

/// Runs a reader and asserts that at no time it held more than its share.
fn within<T>(bytes: &[u8], factor: u64, read: impl FnOnce() -> T) -> T {
    within_base(bytes, factor, BASE, read)
}

fn within_base<T>(bytes: &[u8], factor: u64, base: u64, read: impl FnOnce() -> T) -> T {
    let mut result = None;
    let start = Instant::now();
    // A panic must not pass through the counter: it would count on for ever.
    let caught = || std::panic::catch_unwind(AssertUnwindSafe(read));
    let held = allocation_counter::measure(|| result = Some(caught())).bytes_max;
    let result = result.expect("the reader has run").unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
    let most = factor * bytes.len() as u64 + base;
    assert!(held <= most, "{held} bytes were held for {} bytes of input: more than {most}", bytes.len());
    result
}

/// The planner on the CPU, with any cluster, loads and options that the bytes come to.
pub fn plan(bytes: &[u8]) {
    static PLANNER: LazyLock<Planner> = LazyLock::new(|| Planner::new(DeviceChoice::Cpu).expect("a CPU"));
    let mut bytes = Bytes(bytes);
    let Some(cluster) = cluster(&mut bytes) else { return };
    let options = options(&mut bytes);
    let Some(loads) = some_loads(&mut bytes, &cluster) else { return };
    let start = Instant::now();
    let Ok(plan) = PLANNER.plan(&loads, &cluster, &options) else {
        // The planner may refuse only what the rules do.
        let zero = options.starts == 0 || options.assignments == Some(0);
        let refused = zero || cluster.check_experts(loads.experts()).is_err();
        let refused = refused || too_few(&options, &cluster, loads.experts());
        assert!(refused || none_foreign(&options, &cluster, loads.experts()), "{cluster:?} {options:?}");
        return;
    };
    assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
    // It panics where the plan breaks a rule.
    let quality = plan.quality();
    for layer in &quality.layers {
        assert!(layer.lower_bound <= layer.max_gpu_load, "{layer:?}");
    }
    let bytes = plan_bytes(&plan);
    let file = PlanFile::parse(&bytes).expect("what is written is read");
    assert_eq!((&file.placement, &file.cluster), (plan.placement(), &cluster));
}

/// Whether the most replicas of an expert do not fill a node.
fn too_few(options: &PlanOptions, cluster: &Cluster, experts: usize) -> bool {
    let nodes = if cluster.policy() == Policy::Hierarchical { cluster.num_nodes() } else { 1 };
    let most = options.max_replicas_per_expert.map_or(usize::MAX, |most| most as usize);
    (experts / nodes).saturating_mul(most) < cluster.num_replicas() / nodes
}

/// Whether there may be no foreign replica where some are asked for.
fn none_foreign(options: &PlanOptions, cluster: &Cluster, experts: usize) -> bool {
    let at_home = cluster.policy() == Policy::Global || options.search != Search::Trajectory;
    let whole = options.max_foreign as usize >= experts / cluster.num_groups();
    options.max_foreign > 0 && (at_home || whole)
}

/// The checker and the bound, on maps that no planner made.
pub fn judge(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let Some(cluster) = cluster(&mut bytes) else { return };
    let Some(loads) = some_loads(&mut bytes, &cluster) else { return };
    let (experts, slots) = (loads.experts(), cluster.num_slots());
    // Mostly as long as it should be, with entries that mostly are experts, the missing ones too.
    let length = loads.layers() * slots.min(512);
    let length = if bytes.one_in(8) { usize::from(bytes.byte()) } else { length };
    let mut map: Vec<i32> = (0..length).map(|at| (at % slots % experts) as i32).collect();
    for _ in 0..bytes.below(8) {
        let at = bytes.number() % length.max(1);
        if let Some(entry) = map.get_mut(at) {
            *entry =
                if bytes.one_in(3) { bytes.number() as i32 } else { bytes.below(experts + 1) as i32 - 1 };
        }
    }
    let start = Instant::now();
    let bounds = bound::lower_bounds(&loads, &cluster);
    assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
    assert!(bounds.len() == loads.layers() && bounds.iter().all(|bound| *bound >= 0.0 && bound.is_finite()));
    let score = check::score(&loads, &cluster, &map);
    if let Ok(quality) = &score {
        for (layer, bound) in quality.layers.iter().zip(&bounds) {
            assert!(bound <= &layer.max_gpu_load, "{bound} is no bound of {layer:?}");
        }
        let quality = quality.clone().with_bounds(&bounds);
        let ratios = [quality.balancedness(), quality.replica_balancedness()];
        assert!(ratios.iter().all(|ratio| (0.0..=1.0).contains(ratio)), "{ratios:?}");
        let (most, worst) = (quality.max_over_mean(), quality.worst_gap());
        assert!(most >= 1.0 && most.is_finite() && worst.is_finite(), "{most} {worst}");
        assert!(quality.mean_gap() <= quality.worst_gap() * (1.0 + 1e-9));
    }
    if let Ok(placement) = Placement::new(experts, slots, map) {
        let (map, lists) =
            (placement.physical_to_logical().to_vec(), placement.logical_to_physical().to_vec());
        let counts = placement.replica_counts();
        if !map.is_empty() && !lists.is_empty() {
            check::check_maps(experts, slots, &map, &lists, counts).expect("a placement agrees with itself");
            // One entry of one map changed: that is seen, unless the entry stays the same.
            let mut other = lists.clone();
            let at = bytes.number() % lists.len();
            other[at] = bytes.number() as i32;
            let same = other == lists;
            assert_eq!(check::check_maps(experts, slots, &map, &other, counts).is_ok(), same);
        }
    } else {
        assert!(score.is_err(), "a valid plan is a placement");
    }
    // Lengths that fit nothing.
    let (a, b, c) = (bytes.below(9), bytes.below(9), bytes.below(9));
    let _ = check::check_maps(bytes.number(), bytes.number(), &vec![0; a], &vec![0; b], &vec![1; c]);
}

/// Small numbers mostly, from bytes; zeros at the end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    /// Any number at all, the ends of its range as likely as the middle.
    fn number(&mut self) -> usize {
        match self.below(8) {
            0 => usize::MAX,
            1 => 0,
            2 => 1 << self.below(64),
            3 => self.word() as usize,
            _ => usize::from(self.byte()),
        }
    }
}

/// A valid cluster most of the time.
fn cluster(bytes: &mut Bytes) -> Option<Cluster> {
    if bytes.one_in(16) {
        let mut number = || bytes.number();
        let cluster = Cluster::with_slots_per_gpu(number(), number(), number(), number(), number());
        // The rules must stand any number; a plan for a large cluster is not a small input.
        return cluster.ok().filter(|cluster| cluster.num_slots() <= 512);
    }
    let nodes = 1 + bytes.below(4);
    let gpus = nodes * (1 + bytes.below(4));
    let slots_per_gpu = 1 + bytes.below(6);
    let groups = if bytes.one_in(4) { 1 + bytes.below(7) } else { nodes * (1 + bytes.below(3)) };
    let free = if bytes.one_in(3) { bytes.below(4) * nodes } else { 0 };
    let replicas = (gpus * slots_per_gpu).saturating_sub(free);
    let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots_per_gpu).ok()?;
    assert!(cluster.policy() == Policy::Global || groups.is_multiple_of(nodes));
    Some(cluster)
}

/// Loads of up to three layers, from nothing to the largest and the smallest there are; mostly of as many
/// experts as the cluster takes.
fn some_loads(bytes: &mut Bytes, cluster: &Cluster) -> Option<Loads> {
    let (layers, groups) = (1 + bytes.below(3), cluster.num_groups());
    let groups_fit = (cluster.num_replicas() / groups).clamp(1, 8);
    let experts = if bytes.one_in(6) { 1 + bytes.below(32) } else { groups * (1 + bytes.below(groups_fit)) };
    let kind = bytes.below(4);
    let floats: Vec<f64> = (0..layers * experts)
        .map(|_| match kind {
            0 => f64::from(bytes.byte()),
            1 => [0.0, 1.0, 2f64.powi(64), f64::MIN_POSITIVE, f64::from_bits(1), 0.1][bytes.below(6)],
            // Of any size below 2^64: the sign and the top of the exponent are not drawn.
            2 => f64::from_bits(bytes.word() % 0x43f0_0000_0000_0000),
            _ => (1u64 << bytes.below(64)) as f64,
        })
        .collect();
    if kind == 3 && bytes.one_in(2) {
        let counts: Vec<u64> =
            floats.iter().map(|&load| (load as u64).wrapping_sub(u64::from(bytes.byte()))).collect();
        return Loads::from_counts(layers, experts, &counts).ok();
    }
    Loads::from_f64(layers, experts, &floats).ok()
}

fn options(bytes: &mut Bytes) -> PlanOptions {
    let descent = Descent {
        objective: [Objective::Max, Objective::Variance, Objective::VarianceThenMax][bytes.below(3)],
        heaviest: [1, 0, 3, u32::MAX][bytes.below(4)],
        lightest: [0, 1, 3, u32::MAX][bytes.below(4)],
        swaps: bytes.one_in(2),
        pair_swaps: bytes.one_in(2),
        bipartition: bytes.one_in(2),
        steps: [1000, 0, 1, 7, u32::MAX][bytes.below(5)],
    };
    let max_foreign = if bytes.one_in(3) { 1 + bytes.below(3) as u32 } else { 0 };
    PlanOptions {
        search: match bytes.below(5) {
            0 | 1 => Search::Trajectory,
            2 => Search::None,
            _ => Search::Descent(descent),
        },
        groups: [GroupRule::BestFirst, GroupRule::Lpt, GroupRule::LptVariance][bytes.below(3)],
        repair: bytes.one_in(2),
        count_noise: bytes.one_in(2),
        packing_noise: bytes.one_in(2),
        duplicates: if bytes.one_in(2) { Duplicates::Allow } else { Duplicates::Avoid },
        stop_gap_ppm: [40, 0, 1_000_000, u32::MAX][bytes.below(4)],
        start_gap_ppm: [400, 0, 1_000_000, u32::MAX][bytes.below(4)],
        three_gpus: [0, 0, 9, MAX_THREE_GPUS][bytes.below(4)],
        assignments: if bytes.one_in(16) {
            Some(0)
        } else {
            [None, Some(1), Some(2), Some(5)][bytes.below(4)]
        },
        starts: if bytes.one_in(16) { 0 } else { [1, 2, 9, 33][bytes.below(4)] },
        iterations: [1000, 0, 1, 30][bytes.below(4)],
        patience: [32, 0, 1, u32::MAX][bytes.below(4)],
        max_replicas_per_expert: [None, None, Some(0), Some(1), Some(2), Some(u32::MAX)][bytes.below(6)],
        seed: bytes.word(),
        dispatch: Dispatch::ALL[bytes.below(3)],
        connected: max_foreign == 0 && bytes.one_in(2),
        max_foreign,
        foreign_target_ppm: if max_foreign > 0 && bytes.one_in(4) { 1_050_000 } else { 1_000_000 },
    }
}
