//! Plans from a previous plan.

use approx::abs_diff_eq;
use eplb_wgpu::{
    Cluster, Loads, MaxMoves, MoveLimits, Moves, Placement, Plan, PlanOptions, Preset, PreviousMap, Replan,
    check,
};
use proptest::prelude::{Strategy as _, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::{drifting, objective, planner};

/// The measure by which plans over time are judged, layer by layer, from the loads as given: the weighted mean over windows of the
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
            min_gain_ppm: Some(min_gain_ppm),
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

/// No drift, no limits and no start may make a plan worse than it was, or pass a limit.
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
            let limits = MoveLimits { max_moves, min_gain_ppm: Some(10_000), ..MoveLimits::default() };
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
