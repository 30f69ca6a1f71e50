//! Random calls, and what is wrong with one.

use eplb_wgpu::{
    Cluster, Dispatch, Duplicates, GroupRule, Loads, PlanOptions, Policy, Preset, PreviousMap, Search,
};

use crate::instances::Rng;

/// The start of a call.
#[derive(Debug)]
pub enum From {
    Nothing,
    /// The map that runs, which may break any rule.
    Running(PreviousMap),
    /// The same, of a cluster some of whose GPUs are gone.
    Rest {
        all: Cluster,
        gone: Vec<usize>,
        map: PreviousMap,
    },
}

/// A call of the planner.
#[derive(Debug)]
pub struct Call {
    pub loads: Loads,
    /// The loads in whole numbers, where there is one layer and one window.
    pub row: Option<Vec<u64>>,
    /// Of the GPUs that remain, where some are gone.
    pub cluster: Cluster,
    pub preset: &'static str,
    pub options: PlanOptions,
    pub from: From,
}

/// Speeds of GPUs, few of them, so that some GPUs are alike.
const SPEEDS: [f64; 6] = [1.0, 1.0, 0.5, 0.75, 0.3, 0.02];

impl Call {
    /// Mostly one that goes together, of at least two kinds.
    pub fn random(rng: &mut Rng) -> Self {
        let mut call = Self::any(rng);
        if rng.below(4) > 0 {
            while !call.wrong().is_empty() || call.kinds().len() < 2 {
                call = Self::any(rng);
            }
        }
        call
    }

    fn any(rng: &mut Rng) -> Self {
        let (cluster, experts) = shape(rng);
        let (layers, windows) = (1 + rng.below(2), [1, 1, 1, 1, 2, 3][rng.below(6)]);
        let (loads, row) = loads(rng, layers, experts, windows);
        let size = if cluster.policy() == Policy::Hierarchical { experts / cluster.num_groups() } else { 1 };
        let (preset, options) = options(rng, size);
        let gpus = cluster.num_gpus();
        let (cluster, from) = match rng.below(6) {
            0 => (cluster, From::Running(running(rng, layers, experts, gpus))),
            1 if gpus > 1 => rest(rng, cluster, layers, experts),
            _ => (cluster, From::Nothing),
        };
        let cluster = match rng.below(3) {
            0 => with_speeds(rng, cluster),
            _ => cluster,
        };
        Self { loads, row, cluster, preset, options, from }
    }

    /// The nodes that plans keep apart, and what each of them is of.
    fn of_node(&self) -> (usize, usize, usize) {
        let nodes = if self.policy() == Policy::Hierarchical { self.cluster.num_nodes() } else { 1 };
        let remain = self.cluster.gpu_speeds().iter().filter(|speed| **speed > 0.0).count();
        (self.loads.experts() / nodes, self.cluster.num_replicas() / nodes, remain / nodes)
    }

    fn policy(&self) -> Policy {
        self.cluster.policy()
    }

    /// Whether replicas of an expert can be on different GPUs, and have to be.
    pub fn may_part_duplicates(&self) -> bool {
        let (experts, replicas, gpus) = self.of_node();
        let most = self.options.max_replicas_per_expert.map_or(replicas, |most| most as usize);
        self.options.duplicates == Duplicates::Avoid && experts * gpus.min(most) >= replicas
    }

    /// The fields that do not go together with others.
    pub fn wrong(&self) -> Vec<&'static str> {
        let (cluster, options) = (&self.cluster, &self.options);
        let mut wrong = Vec::new();
        let mut refuse = |field, is_wrong| {
            if is_wrong {
                wrong.push(field);
            }
        };
        let (experts, replicas, _) = self.of_node();
        let most = options.max_replicas_per_expert;
        refuse("max_replicas_per_expert", most.is_some_and(|most| experts * (most as usize) < replicas));
        let searches = options.search == Search::Trajectory;
        let windows = self.loads.windows().len();
        refuse("windows", windows > 1 && !searches);
        let remain: Vec<f64> = cluster.gpu_speeds().into_iter().filter(|speed| *speed > 0.0).collect();
        let is_unequal = remain.iter().any(|speed| *speed != remain[0]);
        let lineage = matches!(options.search, Search::Descent(_))
            || options.groups == GroupRule::LptVariance
            || options.repair;
        let knows_no_speeds =
            lineage || options.max_foreign > 0 || options.connected || options.dispatch != Dispatch::Equal;
        refuse("gpu_speeds", is_unequal && knows_no_speeds);
        let lost = |node: usize| {
            let each = cluster.num_gpus() / cluster.num_nodes();
            let speeds = &cluster.gpu_speeds()[node * each..(node + 1) * each];
            speeds.iter().filter(|speed| **speed == 0.0).count()
        };
        let is_even = (1..cluster.num_nodes()).all(|node| lost(node) == lost(0));
        let is_global = self.policy() == Policy::Global;
        refuse("num_nodes", !is_even && !is_global);
        let foreign = options.max_foreign as usize;
        let size = self.loads.experts() / if is_global { 1 } else { cluster.num_groups() };
        let is_cold_of_several = windows > 1 && matches!(self.from, From::Nothing);
        let no_foreign = is_global || foreign >= size || !searches || is_cold_of_several || options.connected;
        refuse("max_foreign", foreign > 0 && no_foreign);
        let target = options.foreign_target_ppm;
        refuse("foreign_target_ppm", target < 1_000_000 || foreign == 0 && target > 1_000_000);
        wrong
    }

    /// The options of the call that the simplest call leaves out.
    pub fn kinds(&self) -> Vec<String> {
        let (cluster, options) = (&self.cluster, &self.options);
        let speeds = cluster.gpu_speeds();
        let has = |is: &dyn Fn(f64) -> bool| speeds.iter().any(|speed| is(*speed));
        let kinds = [
            ("windows", self.loads.windows().len() > 1),
            ("groups", self.policy() == Policy::Hierarchical),
            ("nodes", self.policy() == Policy::Global && cluster.num_nodes() > 1),
            ("free slots", cluster.num_slots() > cluster.num_replicas()),
            ("speeds", has(&|speed| speed > 0.0 && speed < 1.0)),
            ("gone", has(&|speed| speed == 0.0)),
            ("dispatch", options.dispatch != Dispatch::Equal),
            ("foreign", options.max_foreign > 0),
            ("target", options.foreign_target_ppm > 1_000_000),
            ("cap", options.max_replicas_per_expert.is_some()),
            ("connected", options.connected),
            ("duplicates", options.duplicates == Duplicates::Allow),
            ("previous", matches!(self.from, From::Running(_))),
            ("without GPUs", matches!(self.from, From::Rest { .. })),
            ("lineage", options.search != Search::Trajectory),
        ];
        kinds.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind.to_string()).collect()
    }
}

/// A cluster and experts that fit it: of a few slots, or of some dozens.
fn shape(rng: &mut Rng) -> (Cluster, usize) {
    loop {
        let tiny = rng.below(2) == 0;
        let nodes = 1 + rng.below(if tiny { 2 } else { 4 });
        let gpus = nodes * (1 + rng.below(if tiny { 3 } else { 5 }));
        let slots = 1 + rng.below(if tiny { 4 } else { 7 });
        let all = gpus * slots;
        if tiny && all > 8 {
            continue;
        }
        let is_hierarchical = nodes > 1 && rng.below(3) > 0;
        let replicas = match rng.below(4) {
            0 => nodes * (1 + rng.below(all / nodes)),
            // As many slots of each node stay free as a GPU has.
            1 if gpus > nodes => all - nodes * slots,
            _ => all,
        };
        let groups = match is_hierarchical {
            true => nodes * (1 + rng.below((replicas / nodes).min(3))),
            false => 1,
        };
        let experts = match is_hierarchical {
            true => groups * (1 + rng.below(replicas / groups)),
            false => 1 + rng.below(replicas),
        };
        let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots).unwrap();
        return (cluster, experts);
    }
}

fn loads(rng: &mut Rng, layers: usize, experts: usize, windows: usize) -> (Loads, Option<Vec<u64>>) {
    let mut window = || {
        let counts: Vec<u64> = (0..layers).flat_map(|_| crate::instances::loads(rng, experts)).collect();
        (Loads::from_counts(layers, experts, &counts).unwrap(), counts)
    };
    if windows == 1 {
        let (loads, counts) = window();
        return (loads, (layers == 1).then_some(counts));
    }
    let all: Vec<Loads> = (0..windows).map(|_| window().0).collect();
    let weights: Vec<f64> = (0..windows).map(|_| [1.0, 2.5, 0.3][rng.below(3)]).collect();
    (Loads::from_windows(&all, &weights).unwrap(), None)
}

/// Options, for groups of this many experts.
fn options(rng: &mut Rng, size: usize) -> (&'static str, PlanOptions) {
    let presets: Vec<Preset> = Preset::all().collect();
    let preset = match rng.below(3) {
        0 => presets[rng.below(presets.len())],
        _ => Preset::DEFAULT,
    };
    let is_rare = |rng: &mut Rng| rng.below(8) == 0;
    let base = preset.options();
    let foreign = size > 1 && rng.below(3) > 0 || is_rare(rng);
    let target = if is_rare(rng) || foreign && rng.below(3) == 0 { 1 + rng.below(3) } else { 0 };
    let options = PlanOptions {
        seed: rng.below(3) as u64,
        connected: is_rare(rng),
        max_foreign: if foreign { 1 + rng.below(size) as u32 } else { 0 },
        foreign_target_ppm: [1_000_000, 999_999, 1_050_000, 1_300_000][target],
        dispatch: if is_rare(rng) { Dispatch::ALL[rng.below(3)] } else { Dispatch::Equal },
        duplicates: if is_rare(rng) { Duplicates::Allow } else { Duplicates::Avoid },
        max_replicas_per_expert: (rng.below(5) == 0).then(|| rng.below(4) as u32),
        three_gpus: if is_rare(rng) { 40 } else { base.three_gpus },
        ..base
    };
    (preset.name(), options)
}

/// A map of any slots, whether its rules hold or not.
fn running(rng: &mut Rng, layers: usize, experts: usize, gpus: usize) -> PreviousMap {
    let slots = gpus * (1 + rng.below(4));
    let map = (0..layers * slots).map(|_| rng.below(experts + 1) as i32 - 1).collect();
    PreviousMap::new(slots, map).unwrap()
}

/// A cluster of the GPUs that remain where as many of each node are gone; all of it where none can be.
fn rest(rng: &mut Rng, all: Cluster, layers: usize, experts: usize) -> (Cluster, From) {
    let (nodes, slots) = (all.num_nodes(), all.slots_per_gpu());
    let each = all.num_gpus() / nodes;
    let replicas = all.num_replicas();
    let map = running(rng, layers, experts, all.num_gpus());
    let map = PreviousMap::new(
        all.num_slots(),
        (0..layers * all.num_slots())
            .map(|at| map.physical_to_logical()[at % map.physical_to_logical().len()])
            .collect(),
    )
    .unwrap();
    if each == 1 || (each - 1) * nodes * slots < replicas {
        return (all, From::Running(map));
    }
    let gone: Vec<usize> = (0..nodes).map(|node| node * each + rng.below(each)).collect();
    let groups = all.num_groups();
    let rest = Cluster::with_slots_per_gpu(replicas, groups, nodes, all.num_gpus() - nodes, slots).unwrap();
    (rest, From::Rest { all, gone, map })
}

/// The same cluster with speeds, some of which may be 0 where slots remain for all replicas.
fn with_speeds(rng: &mut Rng, cluster: Cluster) -> Cluster {
    let mut speeds: Vec<f64> = (0..cluster.num_gpus()).map(|_| SPEEDS[rng.below(SPEEDS.len())]).collect();
    if rng.below(2) == 0 {
        let at = rng.below(speeds.len());
        speeds[at] = 0.0;
    }
    if rng.below(4) == 0 {
        speeds.iter_mut().filter(|speed| **speed > 0.0).for_each(|speed| *speed = 1.0);
    }
    cluster.clone().with_gpu_speeds(&speeds).unwrap_or(cluster)
}
