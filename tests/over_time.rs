//! A serving loop that meets everything: any map as the one that runs, windows that do not fit, clusters that grow and
//! shrink, limits of all kinds. Nothing panics, every plan is valid, every limit is kept.

use eplb_wgpu::check::{self, CheckOptions};
use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer, Strategy};
use eplb_wgpu::{
    Cluster, DeviceChoice, Duplicates, Loads, MaxMoves, MoveLimits, PlanOptions, Planner, Policy, Preset,
    PreviousMap,
};

/// Draws; the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// A cluster for `experts` experts, some with GPUs of unequal speed, or `None` where the numbers drawn make none.
fn cluster(random: &mut Random, experts: usize) -> Option<Cluster> {
    let (nodes, gpus_a_node, slots) = (1 + random.below(3), 1 + random.below(4), 1 + random.below(5));
    let gpus = nodes * gpus_a_node;
    let groups = [1, nodes, 2 * nodes][random.below(3)];
    let free = if random.chance(3) { random.below(gpus * slots) / nodes * nodes } else { 0 };
    let cluster = Cluster::with_slots_per_gpu(gpus * slots - free, groups, nodes, gpus, slots).ok()?;
    let cluster = cluster.check_experts(experts).is_ok().then_some(cluster)?;
    if !random.chance(3) {
        return Some(cluster);
    }
    let speeds: Vec<f64> = (0..gpus).map(|_| [1.0, 1.0, 0.5, 0.02][random.below(4)]).collect();
    cluster.with_gpu_speeds(&speeds).ok()
}

/// Loads of some shape: even, skewed, without load, with one hot expert.
fn window(random: &mut Random, layers: usize, experts: usize) -> Loads {
    let kind = random.below(5);
    let load = |random: &mut Random| match kind {
        0 => 100,
        1 => 1000 / (1 + random.below(50)) as u64,
        2 => random.below(1000) as u64,
        3 => u64::from(random.chance(experts)) * 1_000_000,
        _ => {
            if random.chance(4) {
                random.below(9) as u64
            } else {
                0
            }
        }
    };
    let counts: Vec<u64> = (0..layers * experts).map(|_| load(random)).collect();
    Loads::from_counts(layers, experts, &counts).expect("the shape is valid")
}

/// Any map: experts in turn, at random, or none; of any width.
fn map(random: &mut Random, layers: usize, experts: usize, slots: usize) -> PreviousMap {
    let slots = if random.chance(3) { 1 + random.below(2 * slots) } else { slots };
    let kind = random.below(4);
    let entry = |random: &mut Random, at: usize| match kind {
        0 => (at % slots % experts) as i32,
        1 => random.below(experts + 1) as i32 - 1,
        2 => random.below(1 + experts / 3) as i32,
        _ => -1,
    };
    let entries = (0..layers * slots).map(|at| entry(random, at)).collect();
    PreviousMap::new(slots, entries).expect("the entries are valid")
}

fn most(random: &mut Random) -> Option<MaxMoves> {
    match random.below(3) {
        0 => None,
        1 => Some(MaxMoves::Slots(random.below(12))),
        _ => Some(MaxMoves::Ppm(random.below(300_000) as u32)),
    }
}

/// A proposal from a map keeps every promise.
fn propose(rebalancer: &mut Rebalancer, cluster: &Cluster, limits: &MoveLimits, window: &Loads) {
    let old = rebalancer.running().cloned();
    let replan = rebalancer.propose().expect("a window was observed").replan;
    let plan = replan.plan();
    let max_foreign = plan.options().max_foreign;
    let rules = CheckOptions { max_foreign, ..CheckOptions::default() };
    check::score_with(window, cluster, plan.physical_to_logical(), &rules).expect("the plan is valid");
    let (slots, each) = (cluster.num_slots(), cluster.slots_per_gpu());
    let Some(old) = old else { return };
    let mut moved = 0;
    for (layer, new) in plan.physical_to_logical().chunks_exact(slots).enumerate() {
        let held = &old.physical_to_logical()[layer * old.slots()..(layer + 1) * old.slots()];
        let mut received = 0;
        for (gpu, new) in new.chunks_exact(each).enumerate() {
            let mut held: Vec<i32> = held.iter().skip(gpu * each).take(each).copied().collect();
            for expert in new.iter().filter(|&&expert| expert >= 0) {
                match held.iter().position(|held| held == expert) {
                    Some(at) => drop(held.swap_remove(at)),
                    None => received += 1,
                }
            }
        }
        let told = replan.layers()[layer];
        assert_eq!(received, told.received, "layer {layer}");
        let extra = told.received.saturating_sub(told.repairs);
        assert!(limits.max_moves_per_layer.is_none_or(|most| extra <= most.of(slots)), "layer {layer}");
        let bounded = limits.max_rounds_per_layer.filter(|_| told.repairs == 0);
        assert!(bounded.is_none_or(|most| told.rounds <= most), "layer {layer}: {} rounds", told.rounds);
        assert!(told.received > 0 || told.rounds == 0, "layer {layer}: {} rounds", told.rounds);
        moved += extra;
        for expert in 0..plan.experts() {
            let is_lost = replan.lost().contains(&(layer, expert));
            assert_eq!(is_lost, !held.iter().take(slots).any(|&e| e == expert as i32), "layer {layer}");
        }
    }
    assert!(limits.max_moves.is_none_or(|most| moved <= most.of(slots * plan.layers())), "{moved}");
    // A replica a GPU suffices wherever this many fit.
    let gpus = cluster.num_gpus() / cluster.planned_nodes();
    if plan.options().duplicates == Duplicates::Avoid && plan.experts() * gpus >= cluster.num_replicas() {
        assert_eq!(plan.quality().same_gpu_duplicates(), 0);
    }
}

/// Arguments that do not fit are refused, and change nothing.
fn refuse(
    rebalancer: &mut Rebalancer,
    random: &mut Random,
    cluster: &Cluster,
    (layers, experts): (usize, usize),
    has_observed: bool,
) {
    let more = experts + 1 + random.below(3);
    let other = window(random, layers, more);
    if has_observed || cluster.check_experts(other.experts()).is_err() {
        assert!(rebalancer.observe(other.clone()).is_err());
    }
    let two = Loads::from_windows(&[other.clone(), other], &[1.0; 2]).expect("one shape");
    assert!(rebalancer.observe(two).is_err());
    if has_observed {
        let running = map(random, layers + 1, experts, cluster.num_slots());
        assert!(rebalancer.apply(running).is_err());
    }
}

fn walk(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let planner = Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always there");
    let mut step = 0;
    while step < steps {
        let (layers, experts) = (1 + random.below(3), 1 + random.below(24));
        let Some(mut cluster) = cluster(&mut random, experts) else { continue };
        let plan = PlanOptions {
            starts: 1,
            duplicates: if random.chance(4) { Duplicates::Allow } else { Duplicates::Avoid },
            seed,
            ..Preset::SCENARIOS.options()
        };
        let limits = MoveLimits {
            max_moves: most(&mut random),
            max_moves_per_layer: most(&mut random),
            max_rounds_per_layer: random.chance(3).then(|| random.below(4)),
            min_gain_ppm: Some(random.below(200_000) as u32),
            ..MoveLimits::default()
        };
        let strategy = Strategy::ALL[random.below(Strategy::ALL.len())];
        let options = RebalanceOptions {
            strategy,
            windows: 1 + random.below(16),
            plan: plan.clone(),
            scenario_plan: plan,
            limits: limits.clone(),
            ..RebalanceOptions::default()
        };
        // Foreign replicas, where groups have a home.
        let foreign = random.below(4) as u32;
        let new = |cluster: &Cluster| {
            let mut options = options.clone();
            let speeds = cluster.gpu_speeds();
            if cluster.policy() == Policy::Hierarchical && speeds.iter().all(|speed| *speed == speeds[0]) {
                let most = (experts / cluster.num_groups()) as u32 - 1;
                options.plan.max_foreign = foreign.min(most);
                options.scenario_plan.max_foreign = foreign.min(most);
            }
            Rebalancer::new(planner.clone(), cluster.clone(), options).expect("valid")
        };
        let mut rebalancer = new(&cluster);
        let mut last: Option<Loads> = None;
        for _ in 0..24 {
            step += 1;
            match random.below(8) {
                0..3 => {
                    let loads = window(&mut random, layers, experts);
                    rebalancer.observe(loads.clone()).expect("the window fits");
                    last = Some(loads);
                }
                3 => {
                    let running = map(&mut random, layers, experts, cluster.num_slots());
                    rebalancer.apply(running).expect("a map of these layers");
                }
                4 => {
                    refuse(&mut rebalancer, &mut random, &cluster, (layers, experts), last.is_some());
                }
                // The cluster grows or shrinks: a new loop restores what ran.
                5 => {
                    let running = rebalancer.running().cloned();
                    let Some(other) = self::cluster(&mut random, experts) else { continue };
                    cluster = other;
                    rebalancer = new(&cluster);
                    if let Some(running) = running {
                        rebalancer.apply(running).expect("nothing observed contradicts it");
                    }
                    last = None;
                }
                _ => match &last {
                    Some(window) => {
                        propose(&mut rebalancer, &cluster, &limits, window);
                        if random.chance(2) {
                            let plan = rebalancer.propose().expect("as before").plan().placement().clone();
                            rebalancer.apply(plan).expect("it is a plan of this loop");
                        }
                    }
                    None => assert!(rebalancer.propose().is_err()),
                },
            }
        }
    }
}

/// `EPLB_WALK_STEPS` makes it longer than the tests have it.
#[test]
fn a_loop_that_meets_everything_keeps_its_promises() {
    let steps = std::env::var("EPLB_WALK_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(2_000);
    walk(1, steps);
}
