//! Seeded random clusters, loads and options, the same on every machine.

use crate::loads::MAX_WINDOWS;
use crate::params::Params;
use crate::{
    Cluster, Descent, Dispatch, Duplicates, GroupRule, Loads, MoveLimits, Objective, PlanOptions, Policy,
    PreviousMap, Search,
};

/// A small generator (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// A number in `1..=n`, small ones as likely as large ones on a logarithmic scale.
    pub fn scale(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        let top = 1usize << self.below(bits as usize);
        (top + self.below(top)).min(n)
    }
}

/// One call of the planner.
#[derive(Clone, Debug)]
pub struct Case {
    pub seed: u64,
    pub loads: Loads,
    pub cluster: Cluster,
    pub options: PlanOptions,
}

/// A random case: 1..=1024 experts, 1..=256 GPUs, 1..=64 slots a GPU, hierarchical and global, loads from 0 to
/// 2^40, some with equal loads or empty layers, some with free slots. `size` bounds slots x experts.
pub fn random_case(seed: u64, size: usize) -> Case {
    let mut random = Random(seed);
    loop {
        let nodes = [1, 1, 2, 3, 4, 8][random.below(6)];
        let node_gpus = random.scale(256 / nodes);
        let slots_per_gpu = random.scale(64);
        let node_slots = node_gpus * slots_per_gpu;
        let node_groups = random.scale(4);
        let group_size = random.scale(1024 / (nodes * node_groups));
        let experts = nodes * node_groups * group_size;
        let node_replicas = if random.below(4) == 0 {
            (node_slots - random.below(node_slots.div_ceil(4))).max(1)
        } else {
            node_slots
        };
        if node_groups * group_size > node_replicas || node_slots * nodes * experts > size {
            continue;
        }
        // Some clusters are global though they have nodes: groups not a multiple of nodes.
        let groups = if random.below(5) == 0 { nodes * node_groups + 1 } else { nodes * node_groups };
        let (replicas, gpus) = (node_replicas * nodes, node_gpus * nodes);
        let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots_per_gpu);
        let Ok(cluster) = cluster else { continue };
        if cluster.check_experts(experts).is_err() {
            continue;
        }
        let layers = 1 + random.below(3);
        let counts = random_counts(&mut random, layers, experts);
        let loads = Loads::from_counts(layers, experts, &counts).expect("shape is right");
        let mut options = random_options(&mut random);
        if random.below(4) == 0 {
            let nodes = cluster.planned_nodes();
            let least = (replicas / nodes).div_ceil(experts / nodes);
            options.max_replicas_per_expert = Some((least + random.below(3)) as u32);
        }
        return Case { seed, loads, cluster, options };
    }
}

/// A random case of 2 to 16 windows, of any weights: the trajectory alone plans several.
pub fn random_windows_case(seed: u64, size: usize) -> Case {
    let case = random_case(seed, size);
    let mut random = Random(!seed);
    let (layers, experts) = (case.loads.layers(), case.loads.experts());
    // The windows of some cases are alike, as those of one day are, so that one GPU is heaviest in many.
    let alike = random.below(2) == 0;
    let base = random_counts(&mut random, layers, experts);
    let windows: Vec<Loads> = (0..2 + random.below(15))
        .map(|_| {
            let counts: Vec<u64> = match alike {
                true => base.iter().map(|&count| count + random.next() % (count / 4 + 1)).collect(),
                false => random_counts(&mut random, layers, experts),
            };
            Loads::from_counts(layers, experts, &counts).expect("shape is right")
        })
        .collect();
    let weights: Vec<f64> = windows.iter().map(|_| [1.0, 1.0, 2.5, 0.0][random.below(4)]).collect();
    let weights = if weights.iter().sum::<f64>() > 0.0 { weights } else { vec![1.0; windows.len()] };
    let loads = Loads::from_windows(&windows, &weights).expect("windows are alike in shape");
    let options = PlanOptions { search: Search::Trajectory, ..case.options };
    Case { loads, options, ..case }
}

fn random_counts(random: &mut Random, layers: usize, experts: usize) -> Vec<u64> {
    let mut counts = Vec::with_capacity(layers * experts);
    for _ in 0..layers {
        let kind = random.below(6);
        let most = 1u64 << random.below(41);
        counts.extend((0..experts).map(|_| match kind {
            0 => 0,
            1 => most,
            2 => random.next() % (most + 1),
            3 => most >> random.below(20),
            4 => u64::from(random.below(experts) == 0) * most,
            _ => (most as f64 / (1.0 + random.below(1000) as f64)) as u64,
        }));
    }
    counts
}

/// Any combination of searches, objectives and rules; the trajectory half of the time.
fn random_options(random: &mut Random) -> PlanOptions {
    let mut coin = |n: usize| random.below(n) == 0;
    let descent = Descent {
        objective: [Objective::Max, Objective::Variance, Objective::VarianceThenMax]
            [usize::from(coin(4)) + usize::from(coin(4))],
        heaviest: [1, 4, 0][usize::from(coin(3)) + usize::from(coin(3))],
        lightest: if coin(3) { 3 } else { 0 },
        swaps: !coin(8),
        pair_swaps: !coin(3),
        bipartition: coin(6),
        steps: if coin(4) { 5 } else { 1000 },
    };
    let search = match (coin(2), coin(5)) {
        (true, _) => Search::Trajectory,
        (false, true) => Search::None,
        (false, false) => Search::Descent(descent),
    };
    PlanOptions {
        search,
        groups: [GroupRule::BestFirst, GroupRule::Lpt, GroupRule::LptVariance]
            [usize::from(coin(3)) + usize::from(coin(3))],
        repair: coin(4),
        count_noise: !coin(4),
        packing_noise: !coin(4),
        duplicates: if coin(3) { Duplicates::Allow } else { Duplicates::Avoid },
        max_replicas_per_expert: None,
        stop_gap_ppm: if coin(3) { 0 } else { 40 },
        start_gap_ppm: if coin(3) { 0 } else { 1000 },
        assignments: [None, Some(1), Some(3)][usize::from(coin(2)) + usize::from(coin(2))],
        seed: random.next(),
        starts: [1, 7, 32, 100][random.below(4)],
        iterations: [0, 9, 100, 1000][random.below(4)],
        patience: [0, 8, 32][random.below(3)],
        dispatch: Dispatch::ALL[random.0 as usize % 3],
        three_gpus: if random.below(4) == 0 { 40 } else { 0 },
        // The host's work, whatever the backend.
        connected: false,
        max_foreign: 0,
        foreign_target_ppm: 1_000_000,
    }
}

/// A call from a plan that runs.
#[derive(Clone, Debug)]
pub struct Call {
    pub seed: u64,
    pub loads: Loads,
    pub cluster: Cluster,
    pub options: PlanOptions,
    pub previous: PreviousMap,
    pub limits: MoveLimits,
    /// Whether to go further, as where nothing runs yet.
    pub cold: bool,
}

/// 1 to 3 nodes of GPUs with 1 to 9 slots, some of them free; up to 5 windows, or 16; any map, of any width; moves cost
/// nothing, a little, or much; some with foreign replicas, or with copies that are spread over nodes.
pub fn call(seed: u64) -> Call {
    let mut random = Random(seed);
    loop {
        let wide = random.below(8) == 0;
        let (nodes, gpus, slots) =
            (1 + random.below(3), 1 + random.below(if wide { 40 } else { 5 }), 1 + random.below(9));
        let experts = 1 + random.below(if wide { 200 } else { 30 });
        let groups = [1, nodes, 2 * nodes][random.below(3)];
        let free = if random.below(3) == 0 { random.below(gpus * slots) * nodes } else { 0 };
        let all = gpus * nodes * slots;
        let Ok(cluster) = Cluster::with_slots_per_gpu(all - free, groups, nodes, gpus * nodes, slots) else {
            continue;
        };
        if cluster.check_experts(experts).is_err() {
            continue;
        }
        let layers = 1 + random.below(3);
        let windows = if random.below(6) == 0 { 1 + random.below(MAX_WINDOWS) } else { 1 + random.below(5) };
        let windows: Vec<Loads> = (0..windows).map(|_| window(&mut random, layers, experts)).collect();
        let mut options = PlanOptions {
            duplicates: if random.below(3) == 0 { Duplicates::Allow } else { Duplicates::Avoid },
            max_replicas_per_expert: [None, Some(2 + random.below(3) as u32)][random.below(2)],
            seed: random.next(),
            ..PlanOptions::default()
        };
        if cluster.policy() == Policy::Hierarchical {
            options.max_foreign = [0, random.below(experts / groups) as u32][random.below(2)];
            options.foreign_target_ppm = 1_000_000 + 200_000 * u32::from(options.max_foreign > 2);
        }
        let limits =
            MoveLimits { min_gain_ppm: Some([0, 10_000, 300_000][random.below(3)]), ..MoveLimits::default() };
        let loads =
            Loads::from_windows(&windows, &vec![1.0; windows.len()]).expect("windows are alike in shape");
        if Params::new(&loads, &cluster, &options).is_ok() {
            let previous = map(&mut random, layers, experts, all);
            return Call { seed, loads, cluster, options, previous, limits, cold: true };
        }
    }
}

/// Even, skewed, without load, with one hot expert.
fn window(random: &mut Random, layers: usize, experts: usize) -> Loads {
    let kind = random.below(6);
    let load = |random: &mut Random| match kind {
        0 => 100,
        1 => 100_000 / (1 + random.below(50)) as u64,
        2 => u64::from(random.below(experts) == 0) * 1_000_000,
        3 => random.next() % 3,
        _ => 50 + random.next() % 1000,
    };
    let counts: Vec<u64> = (0..layers * experts).map(|_| load(random)).collect();
    Loads::from_counts(layers, experts, &counts).expect("the shape is valid")
}

/// Experts in turn, at random, some of them alone, or none.
fn map(random: &mut Random, layers: usize, experts: usize, slots: usize) -> PreviousMap {
    let slots = if random.below(4) == 0 { 1 + random.below(2 * slots) } else { slots };
    let kind = random.below(5);
    let entry = |random: &mut Random, at: usize| match kind {
        0 | 1 => (at % slots % experts) as i32,
        2 => random.below(experts + 1) as i32 - 1,
        3 => random.below(1 + experts / 3) as i32,
        _ => -1,
    };
    let entries = (0..layers * slots).map(|at| entry(random, at)).collect();
    PreviousMap::new(slots, entries).expect("the entries are valid")
}
