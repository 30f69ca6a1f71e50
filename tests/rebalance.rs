//! Plans for several windows, plans from a previous plan, and replays: on generated loads, by the public API.

use approx::abs_diff_eq;
use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer, ReplayOptions, Strategy, forecast, replay};
use eplb_wgpu::trace::{Family, Generate, Window};
use eplb_wgpu::{
    Cluster, DeviceChoice, Duplicates, Loads, MaxMoves, MoveLimits, Moves, Placement, Plan, PlanOptions,
    Planner, Preset, PreviousMap, Replan, check,
};
use proptest::prelude::{Strategy as _, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn planner() -> Planner {
    Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always there")
}

/// `windows` windows of drifting loads.
fn drifting(windows: usize, layers: usize, experts: usize, drift: f64, seed: u64) -> Vec<Loads> {
    let family = Family::Lognormal(1.0);
    let trace = Generate { family, windows, layers, experts, drift, seed, ..Generate::default() };
    let trace = trace.history().expect("the sizes are valid");
    (0..windows).map(|w| trace.loads(Window::Index(w)).expect("the window is there")).collect()
}

/// The objective of several windows, layer by layer, from the loads as given: the weighted mean of the heaviest
/// GPU's share.
fn objective(loads: &Loads, cluster: &Cluster, map: &[i32]) -> Vec<f64> {
    let mut sums = vec![0.0; loads.layers()];
    for (window, weight) in loads.windows().zip(loads.window_weights()) {
        let quality = check::score(window, cluster, map).expect("the plan is valid");
        for (sum, layer) in sums.iter_mut().zip(&quality.layers) {
            let total = layer.mean_gpu_load * cluster.num_gpus() as f64;
            *sum += if total > 0.0 { weight * layer.max_gpu_load / total } else { 0.0 };
        }
    }
    sums
}

/// What plans over time are judged by, layer by layer, from the loads as given: the weighted mean over windows of the
/// heaviest GPU, over the mean one, and of the squares of what GPUs carry above it (a line beyond three times the mean). Loads
/// are over the speed of their GPU, and squares count as often as it is fast.
fn over_time(loads: &Loads, cluster: &Cluster, map: &[i32]) -> Vec<f64> {
    let mut sums = vec![0.0; loads.layers()];
    let speeds = cluster.gpu_speeds();
    let mean_speed = speeds.iter().sum::<f64>() / speeds.len() as f64;
    for (window, weight) in loads.windows().zip(loads.window_weights()) {
        let gpus = check::gpu_loads(window, cluster, map).expect("the map is of this cluster");
        for (sum, gpus) in sums.iter_mut().zip(gpus.chunks(cluster.num_gpus())) {
            let mean = gpus.iter().sum::<f64>() / gpus.len() as f64;
            let pulls = speeds.iter().map(|speed| speed / mean_speed);
            let above = |(load, pull): (&f64, f64)| ((load / pull / mean - 1.0).max(0.0), pull);
            let square = |(x, pull): (f64, f64)| pull * if x <= 2.0 { x * x } else { 4.0 * x - 4.0 };
            let above: Vec<(f64, f64)> = gpus.iter().zip(pulls).map(above).collect();
            let peak = above.iter().map(|(x, _)| *x).fold(0.0, f64::max);
            *sum += weight * (1.0 + peak + above.into_iter().map(square).sum::<f64>());
        }
    }
    sums
}

#[test]
fn one_window_is_planned_as_ever() {
    let window = drifting(1, 3, 32, 0.0, 1).remove(0);
    let cluster = Cluster::new(48, 4, 2, 8).unwrap();
    let one = Loads::from_windows(std::slice::from_ref(&window), &[0.3]).unwrap();
    let options = PlanOptions::default();
    let (a, b) = (planner().plan(&window, &cluster, &options), planner().plan(&one, &cluster, &options));
    assert_eq!(a.unwrap().fingerprint(), b.unwrap().fingerprint());
}

/// All maps of 4 experts on 3 GPUs of 2 slots.
fn best_of_all(loads: &Loads, cluster: &Cluster) -> f64 {
    let mut best = f64::INFINITY;
    for code in 0..4usize.pow(6) {
        let map: Vec<i32> = (0..6).map(|slot| (code / 4usize.pow(slot) % 4) as i32).collect();
        if (0..4).all(|e| map.contains(&e)) {
            best = best.min(objective(loads, cluster, &map)[0]);
        }
    }
    best
}

#[test]
fn tiny_calls_of_several_windows_come_close_to_the_best_of_all_plans() {
    let cluster = Cluster::new(6, 1, 1, 3).unwrap();
    let options = PlanOptions {
        duplicates: Duplicates::Allow,
        // With two slots a GPU a sixteenth of them is made.
        starts: 256,
        count_noise: true,
        ..Preset::SCENARIOS.options()
    };
    let (mut met, mut worst) = (0, 0.0f64);
    for seed in 0..60 {
        let loads = Loads::from_windows(&drifting(3, 1, 4, 0.8, seed), &[1.0, 2.0, 4.0]).unwrap();
        let best = best_of_all(&loads, &cluster);
        let plan = planner().plan(&loads, &cluster, &options).unwrap();
        let reached = objective(&loads, &cluster, plan.physical_to_logical())[0];
        assert!(reached >= best * (1.0 - 1e-6), "seed {seed}: {reached} is below the best of all, {best}");
        met += usize::from(reached <= best * (1.0 + 1e-6));
        worst = worst.max(reached / best);
    }
    assert!(met >= 50 && worst < 1.1, "the best of all plans is met {met} times of 60, at worst {worst}");
}

#[test]
fn one_plan_for_many_workloads_beats_the_plan_of_their_sum() {
    // Workloads that have nothing in common but the shape.
    let workloads: Vec<Loads> = (0..4).map(|seed| drifting(1, 4, 64, 0.0, 40 + seed).remove(0)).collect();
    let values: Vec<f64> =
        (0..4 * 64).map(|i| workloads.iter().map(|loads| loads.values()[i]).sum()).collect();
    let sum = Loads::from_f64(4, 64, &values).unwrap();
    let all = Loads::from_windows(&workloads, &[1.0; 4]).unwrap();
    for cluster in [Cluster::new(80, 8, 2, 16).unwrap(), Cluster::new(80, 1, 1, 16).unwrap()] {
        let for_all = planner().plan(&all, &cluster, &Preset::SCENARIOS.options()).unwrap();
        let for_sum = planner().plan(&sum, &cluster, &PlanOptions::default()).unwrap();
        let mean = |map: &[i32]| {
            let score = |loads| check::score(loads, &cluster, map).unwrap().balancedness();
            workloads.iter().map(score).sum::<f64>() / 4.0
        };
        let (a, b) = (mean(for_all.physical_to_logical()), mean(for_sum.physical_to_logical()));
        assert!(a > b + 0.04, "{a} with all workloads, {b} with their sum");
        assert_eq!(for_all.quality().same_gpu_duplicates(), 0);
        assert_eq!(for_all.window_quality().unwrap().len(), 4);
    }
}

#[test]
fn a_larger_budget_is_never_worse_for_several_windows() {
    let budgets = [(1, 0, 0), (1, 20, 4), (1, 200, 4), (3, 200, 16), (8, 1000, 64)];
    for seed in 0..6 {
        let loads = Loads::from_windows(&drifting(4, 2, 48, 0.8, seed), &[1.0, 1.0, 2.0, 0.5]).unwrap();
        for cluster in [Cluster::new(64, 8, 2, 16).unwrap(), Cluster::new(60, 1, 1, 12).unwrap()] {
            let mut before = vec![f64::INFINITY; 2];
            for (starts, iterations, patience) in budgets {
                let base = PlanOptions { stop_gap_ppm: 0, start_gap_ppm: 0, ..PlanOptions::default() };
                let options = PlanOptions { starts, iterations, patience, ..base };
                let plan = planner().plan(&loads, &cluster, &options).unwrap();
                let reached = objective(&loads, &cluster, plan.physical_to_logical());
                for (now, before) in reached.iter().zip(&before) {
                    assert!(*now <= before * (1.0 + 2e-6), "seed {seed}, {options:?}: {now} > {before}");
                }
                before = reached;
            }
        }
    }
}

#[test]
fn windows_that_break_a_rule_are_refused() {
    let window = |experts: usize| Loads::from_counts(1, experts, &vec![1; experts]).unwrap();
    let error =
        |windows: &[Loads], weights: &[f64]| Loads::from_windows(windows, weights).unwrap_err().to_string();
    assert_eq!(error(&[], &[]), "number of windows 0 is not between 1 and 16");
    assert_eq!(error(&[window(2), window(2)], &[1.0]), "number of weights 1 is not the number of windows 2");
    assert!(error(&[window(2), window(3)], &[1.0; 2]).starts_with("shape of window 1: 1 layers x 3 experts"));
    assert!(error(&[window(2), window(2)], &[1.0, -1.0]).starts_with("weight of window 1: -1"));
    assert!(error(&[window(2), window(2)], &[0.0, 0.0]).starts_with("sum of weights 0"));
    let two = Loads::from_windows(&[window(2), window(2)], &[1.0, 1.0]).unwrap();
    assert!(error(&[two, window(2)], &[1.0; 2]).starts_with("window 0 several windows"));
}

/// Of both policies, of few and many slots a GPU, and one with free slots; and three whose GPUs are of unequal speed.
fn small_clusters() -> [Cluster; 7] {
    let slow = |cluster: Cluster, slow: &[usize]| {
        let speed = |gpu: usize| if slow.contains(&gpu) { 0.5 } else { 1.0 - gpu as f64 / 100.0 };
        let speeds: Vec<f64> = (0..cluster.num_gpus()).map(speed).collect();
        cluster.with_gpu_speeds(&speeds).unwrap()
    };
    [
        slow(Cluster::new(48, 4, 2, 8).unwrap(), &[0, 5]),
        slow(Cluster::new(64, 1, 1, 16).unwrap(), &[3, 4]),
        slow(Cluster::with_slots_per_gpu(42, 4, 2, 6, 8).unwrap(), &[0, 1]),
        Cluster::new(48, 4, 2, 8).unwrap(),
        Cluster::new(40, 1, 1, 8).unwrap(),
        Cluster::new(32, 1, 1, 16).unwrap(),
        Cluster::with_slots_per_gpu(42, 4, 2, 6, 8).unwrap(),
    ]
}

/// No drift, no limits and no start may make a plan worse than it was, or pass a limit.
/// The number of a cluster, a seed, how much loads drift, the windows, and limits.
fn replans() -> impl proptest::strategy::Strategy<Value = ((usize, u64, usize, usize), MoveLimits)> {
    let max_moves =
        prop_oneof![(0..60usize).prop_map(MaxMoves::Slots), (0..500_000u32).prop_map(MaxMoves::Ppm)];
    let limits = (
        proptest::option::of(max_moves),
        proptest::option::of((0..20usize).prop_map(MaxMoves::Slots)),
        0..200_000u32,
        proptest::option::of(500_000..1_000_000u32),
    );
    let limits =
        limits.prop_map(|(max_moves, max_moves_per_layer, min_gain_ppm, skip_if_balanced_ppm)| MoveLimits {
            max_moves,
            max_moves_per_layer,
            min_gain_ppm,
            skip_if_balanced_ppm,
            ..MoveLimits::default()
        });
    ((0..7usize, 0..1000u64, 0..3usize, 1..6usize), limits)
}

/// A plan, and the one that was made from it.
struct Replanned<'a> {
    loads: &'a Loads,
    cluster: &'a Cluster,
    limits: &'a MoveLimits,
    before: &'a Plan,
    replan: &'a Replan,
}

impl Replanned<'_> {
    fn moves_are_as_told_and_within_the_limits(&self) {
        let (before, now) = (self.before.placement(), self.replan.plan().placement());
        let moves = Moves::between(self.cluster, before, now).unwrap();
        assert_eq!(moves, *self.replan.moves());
        // Only moved slots change, and those that become free.
        let free = self.cluster.num_slots() > self.cluster.num_replicas();
        assert!(moves.changed_slots == moves.received || (free && moves.changed_slots > moves.received));
        let max_moves = self.limits.max_moves;
        match max_moves {
            Some(MaxMoves::Slots(most)) => assert!(moves.received <= most, "{moves:?} passes {max_moves:?}"),
            Some(MaxMoves::Ppm(part)) => {
                assert!(moves.share() <= f64::from(part) / 1e6, "{moves:?} passes {max_moves:?}");
            }
            _ => assert_eq!(max_moves, None),
        }
        let slots = self.cluster.num_slots();
        let rows = before.physical_to_logical().chunks(slots).zip(now.physical_to_logical().chunks(slots));
        for ((old, new), layer) in rows.zip(self.replan.layers()) {
            let one = |map: &[i32]| Placement::new(32, slots, map.to_vec()).unwrap();
            let moved = Moves::between(self.cluster, &one(old), &one(new)).unwrap().received;
            assert_eq!(moved, layer.received);
            assert!(self.limits.max_moves_per_layer.is_none_or(|most| moved <= most.of(slots)));
        }
    }

    fn no_layer_becomes_worse_and_balanced_ones_stay(&self) {
        let Self { loads, cluster, .. } = *self;
        let (before, now) = (self.before.physical_to_logical(), self.replan.plan().physical_to_logical());
        let (peaks, peaks_now) = (objective(loads, cluster, before), objective(loads, cluster, now));
        // Small layers of one window are judged by the heaviest GPU alone.
        let judged = |map: &[i32]| match loads.windows().len() == 1 && cluster.num_gpus() <= 8 {
            true => objective(loads, cluster, map),
            false => over_time(loads, cluster, map),
        };
        let (was, is) = (judged(before), judged(now));
        for (layer, moves) in self.replan.layers().iter().enumerate() {
            let (was, is) = (was[layer], is[layer]);
            assert!(is <= was * (1.0 + 1e-4), "layer {layer}: {is} after {was}");
            assert!(peaks_now[layer] <= peaks[layer] * (1.0 + 1e-4), "layer {layer} becomes heavier");
            let balanced = 1.0 / (cluster.num_gpus() as f64 * peaks[layer]);
            if self.limits.skip_if_balanced_ppm.is_some_and(|ppm| balanced >= f64::from(ppm) / 1e6 + 1e-6) {
                assert_eq!(moves.received, 0, "layer {layer} is balanced: {balanced}");
            }
            let (gain, told) = (1.0 - is / was, moves.gain);
            assert!(abs_diff_eq!(gain, told, epsilon = 2e-3), "layer {layer}: {gain}, told {told}");
        }
    }

    fn layers_move_by_falling_worth(&self) {
        let (order, layers) = (self.replan.layers_to_move(), self.replan.layers());
        let worth = |&layer: &usize| layers[layer].gain / layers[layer].received as f64;
        assert!(order.is_sorted_by(|a, b| worth(a) >= worth(b)));
        assert_eq!(order.len(), layers.iter().filter(|layer| layer.received > 0).count());
    }
}

#[test]
fn plans_from_a_previous_one_keep_their_promises() {
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 100, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let (clusters, planner) = (small_clusters(), planner());
    let check = |((cluster, seed, drift, windows), limits): ((usize, u64, usize, usize), MoveLimits)| {
        let cluster: &Cluster = &clusters[cluster];
        let trace = drifting(windows + 1, 3, 32, [0.05, 0.4, 2.0][drift], seed);
        let options = PlanOptions { starts: 2, iterations: 100, ..Preset::SCENARIOS.options() };
        // Of odd seeds, from a plan that knows of no speeds.
        let equal = cluster.clone().with_gpu_speeds(&vec![1.0; cluster.num_gpus()]).unwrap();
        let first = if seed % 2 == 1 { &equal } else { cluster };
        let before = &planner.plan(&trace[0], first, &options).unwrap();
        let loads = &Loads::from_windows(&trace[1..], &vec![1.0; windows]).unwrap();
        let replan = &planner.replan(loads, cluster, before.placement(), &options, &limits).unwrap();
        let replanned = Replanned { loads, cluster, limits: &limits, before, replan };
        replanned.moves_are_as_told_and_within_the_limits();
        replanned.no_layer_becomes_worse_and_balanced_ones_stay();
        replanned.layers_move_by_falling_worth();
        Ok(())
    };
    runner.run(&replans(), check).unwrap();
}

#[test]
fn noise_moves_little_and_keeps_the_balance() {
    // DeepSeek-V3's cluster; loads times lognormal(0, 0.02).
    let trace = drifting(4, 8, 256, 0.02, 5);
    for cluster in [Cluster::new(288, 8, 4, 32).unwrap(), Cluster::new(288, 1, 1, 32).unwrap()] {
        let planner = planner();
        let mut running = planner.plan(&trace[0], &cluster, &PlanOptions::default()).unwrap();
        for window in &trace[1..] {
            let options = PlanOptions::default();
            let fresh = planner.plan(window, &cluster, &options).unwrap();
            let limits = MoveLimits::default();
            let replan = planner.replan(window, &cluster, running.placement(), &options, &limits).unwrap();
            let (reached, best) = (replan.plan().quality().balancedness(), fresh.quality().balancedness());
            assert!(reached >= best * 0.99, "{reached} of {best}");
            assert!(replan.moves().share() <= 0.1, "{:?}", replan.moves());
            running = replan.plan().clone();
        }
    }
}

#[test]
fn other_loads_are_followed_step_by_step() {
    let (before, now) = (drifting(1, 3, 64, 0.0, 1).remove(0), drifting(1, 3, 64, 0.0, 2).remove(0));
    for cluster in [Cluster::new(96, 8, 4, 16).unwrap(), Cluster::new(96, 1, 1, 16).unwrap()] {
        let (planner, options) = (planner(), PlanOptions::default());
        let mut running = planner.plan(&before, &cluster, &options).unwrap();
        let fresh = planner.plan(&now, &cluster, &options).unwrap().quality().balancedness();
        let mut reached = 0.0;
        for _ in 0..12 {
            // Groups change places as a whole: in so few layers no small part of the slots allows that.
            let flat = cluster.num_nodes() == 1;
            let max_moves = flat.then_some(MaxMoves::Ppm(50_000));
            let limits = MoveLimits { max_moves, min_gain_ppm: 10_000, ..MoveLimits::default() };
            let replan = planner.replan(&now, &cluster, running.placement(), &options, &limits).unwrap();
            assert!(!flat || replan.moves().share() <= 0.05);
            running = replan.plan().clone();
            reached = running.quality().balancedness();
        }
        assert!(reached >= fresh * 0.95, "{cluster:?}: {reached} of {fresh}");
    }
}

#[test]
fn a_balanced_plan_stays_whatever_its_labels() {
    let loads = drifting(1, 2, 64, 0.0, 3).remove(0);
    let cluster = Cluster::new(96, 8, 4, 16).unwrap();
    let (planner, options) = (planner(), PlanOptions::default());
    let plan = planner.plan(&loads, &cluster, &options).unwrap();
    // Nodes in another order, GPUs of each in reverse, slots of each rotated.
    let (slots, per_gpu) = (cluster.num_slots(), cluster.slots_per_gpu());
    let mut map = Vec::new();
    for layer in plan.physical_to_logical().chunks(slots) {
        for node in [2, 0, 3, 1] {
            for gpu in (node * 4..node * 4 + 4).rev() {
                let mut held = layer[gpu * per_gpu..(gpu + 1) * per_gpu].to_vec();
                held.rotate_left(1);
                map.extend(held);
            }
        }
    }
    let running = Placement::new(64, slots, map).unwrap();
    let limits = MoveLimits::default();
    let replan = planner.replan(&loads, &cluster, &running, &options, &limits).unwrap();
    assert_eq!((replan.moves().received, replan.moves().changed_slots), (0, 0));
    assert_eq!(replan.plan().placement(), &running);
}

#[test]
fn a_previous_plan_of_another_shape_is_refused() {
    let loads = drifting(1, 2, 16, 0.0, 1).remove(0);
    let cluster = Cluster::new(24, 1, 1, 8).unwrap();
    let planner = planner();
    let error = |previous: &Placement| {
        let (options, limits) = (PlanOptions::default(), MoveLimits::default());
        planner.replan(&loads, &cluster, previous, &options, &limits).unwrap_err().to_string()
    };
    let few = Placement::new(16, 24, (0..24).map(|s| s % 16).collect()).unwrap();
    assert_eq!(error(&few), "layers of the previous plan 1 is not the number of layers, 2");
    let other = Placement::new(15, 24, (0..48).map(|s| s % 15).collect()).unwrap();
    assert_eq!(error(&other), "experts of the previous plan 15 is not the number of experts, 16");
    let beyond = PreviousMap::new(24, vec![16; 48]).unwrap();
    let (options, limits) = (PlanOptions::default(), MoveLimits::default());
    let said = planner.replan(&loads, &cluster, beyond, &options, &limits).unwrap_err().to_string();
    assert_eq!(said, "plan is not valid: layer 0: slot 0 holds 16, not an expert in 0..16 or -1");
}

/// Any map is one to start from: what can stay stays, and what must move is counted apart.
#[test]
fn any_map_is_mended_first() {
    let loads = drifting(1, 1, 16, 0.0, 1).remove(0);
    let (planner, options) = (planner(), PlanOptions::default());
    let limits = MoveLimits { max_moves: Some(MaxMoves::Slots(0)), ..MoveLimits::default() };
    let replan = |cluster: &Cluster, slots: usize, map: Vec<i32>| {
        let map = PreviousMap::new(slots, map).unwrap();
        let replan = planner.replan(&loads, cluster, map, &options, &limits).unwrap();
        assert_eq!(replan.moves().received, replan.moves().repairs);
        assert_eq!(replan.plan().quality().same_gpu_duplicates(), 0);
        replan
    };
    let flat = Cluster::new(24, 1, 1, 8).unwrap();
    let start: Vec<i32> = (0..24).map(|slot| slot % 16).collect();
    let stays = replan(&flat, 24, start.clone());
    assert_eq!((stays.moves().received, stays.plan().physical_to_logical()), (0, &start[..]));
    // Expert 15 has no replica, and a GPU two of expert 0.
    let mut broken = start.clone();
    (broken[15], broken[1]) = (14, 0);
    let mended = replan(&flat, 24, broken.clone());
    assert_eq!(mended.lost(), [(0, 15)]);
    assert!((1..=2).contains(&mended.moves().repairs), "{:?}", mended.moves());
    // A GPU more, and one less.
    let more = replan(&Cluster::new(27, 1, 1, 9).unwrap(), 24, start.clone());
    assert_eq!((more.moves().repairs, &more.plan().physical_to_logical()[..24]), (3, &start[..]));
    let less = replan(&Cluster::new(21, 1, 1, 7).unwrap(), 24, start.clone());
    assert_eq!((less.moves().repairs, less.plan().physical_to_logical()), (0, &start[..21]));
    // The map that servers start with has groups across nodes.
    let nodes = Cluster::new(24, 4, 2, 4).unwrap();
    let apart = replan(&nodes, 24, start);
    assert!((1..=12).contains(&apart.moves().repairs), "{:?}", apart.moves());
    // Nothing runs.
    let new = replan(&flat, 24, vec![-1; 24]);
    assert_eq!((new.moves().repairs, new.lost().len()), (24, 16));
}

#[test]
fn the_rebalancer_repeats_itself() {
    let trace = drifting(8, 2, 32, 0.3, 9);
    let cluster = Cluster::new(40, 1, 1, 8).unwrap();
    let run = || {
        let mut rebalancer =
            Rebalancer::new(planner(), cluster.clone(), RebalanceOptions::default()).unwrap();
        let error = rebalancer.propose().unwrap_err().to_string();
        assert_eq!(error, "windows observed 0 is not at least 1");
        let mut prints = Vec::new();
        for window in &trace {
            rebalancer.observe(window.clone()).unwrap();
            let proposal = rebalancer.propose().unwrap();
            rebalancer.apply(proposal.plan().placement()).unwrap();
            prints.push((proposal.plan().fingerprint(), *proposal.replan.moves()));
        }
        assert!(prints.iter().all(|(_, moves)| moves.share() <= 0.05 && moves.repairs == 0));
        assert!(prints.iter().any(|(_, moves)| moves.received > 0));
        prints
    };
    assert_eq!(run(), run());
    let mut rebalancer = Rebalancer::new(planner(), cluster.clone(), RebalanceOptions::default()).unwrap();
    rebalancer.observe(trace[0].clone()).unwrap();
    assert!(rebalancer.observe(drifting(1, 3, 32, 0.0, 1).remove(0)).is_err());
    for bad in [
        RebalanceOptions { windows: 17, ..RebalanceOptions::default() },
        RebalanceOptions { decay: 0.0, ..RebalanceOptions::default() },
        RebalanceOptions { forecast_windows: 0, ..RebalanceOptions::default() },
    ] {
        assert!(Rebalancer::new(planner(), cluster.clone(), bad).is_err());
    }
}

#[test]
fn replays_compare_with_an_oracle_the_greedy_rule_and_staying() {
    let trace = drifting(6, 2, 32, 0.3, 33);
    let cluster = Cluster::new(40, 1, 1, 8).unwrap();
    let mut setup = ReplayOptions {
        strategies: vec![Strategy::Forecast],
        interval: 2,
        options: RebalanceOptions { fresh: true, ..RebalanceOptions::default() },
        ..ReplayOptions::default()
    };
    let mut steps = 0;
    let rows = replay(&planner(), &trace, &cluster, &setup, |plan| {
        steps += 1;
        assert_eq!(plan.layers(), 2);
    });
    let rows = rows.unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["forecast", "oracle", "greedy", "never move"]);
    assert_eq!(steps, 4 * 5);
    for row in &rows {
        assert_eq!(row.balancedness.scores.len(), 5);
        assert!(rows[1].balancedness.mean() >= row.balancedness.mean(), "{} beats the oracle", row.name);
    }
    // Plans after windows 0, 2 and 4, the first of which moves nothing.
    assert_eq!((rows[0].milliseconds.scores.len(), rows[0].moved.scores.len()), (3, 2));
    assert!(rows[3].moved.scores.is_empty() && rows[2].moved.mean() > 0.3);
    setup.interval = 0;
    assert!(replay(&planner(), &trace, &cluster, &setup, |_| {}).is_err());
    setup.interval = 1;
    assert!(replay(&planner(), &trace[..1], &cluster, &setup, |_| {}).is_err());
}

#[test]
fn forecasts_keep_the_shape_and_refuse_another() {
    let trace = drifting(5, 3, 16, 0.2, 2);
    let next = forecast(&trace).unwrap();
    assert_eq!((next.layers(), next.experts()), (3, 16));
    let other = drifting(1, 3, 8, 0.0, 2).remove(0);
    assert!(forecast(&[other, trace[0].clone()]).is_err());
}

/// A loop that restores its running plan before it has seen a window.
#[test]
fn a_restored_plan_of_another_model_is_refused_when_the_first_window_tells() {
    let cluster = Cluster::new(6, 1, 1, 3).unwrap();
    let mut rebalancer = Rebalancer::new(planner(), cluster, RebalanceOptions::default()).unwrap();
    rebalancer.apply(Placement::new(6, 6, (0..6).collect()).unwrap()).unwrap();
    let error = rebalancer.observe(drifting(1, 1, 4, 0.0, 1).remove(0)).unwrap_err().to_string();
    assert_eq!(error, "experts of the previous plan 6 is not the number of experts, 4");
    let two = Loads::from_windows(&drifting(2, 1, 6, 0.1, 1), &[1.0, 1.0]).unwrap();
    assert!(rebalancer.observe(two).unwrap_err().to_string().starts_with("windows of the window 2"));
    rebalancer.observe(drifting(1, 1, 6, 0.0, 1).remove(0)).unwrap();
    assert!(rebalancer.propose().is_ok());
}
