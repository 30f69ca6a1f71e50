//! Plans from one that runs, where GPUs are of unequal speed or gone: on generated loads, by the public API.

use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer, ReplayOptions, replay};
use eplb_wgpu::trace::{Family, Generate, Window};
use eplb_wgpu::{
    Cluster, DeviceChoice, Loads, MaxMoves, MoveLimits, Moves, PlanOptions, Planner, Preset, PreviousMap,
    check,
};

fn planner() -> Planner {
    Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always there")
}

fn drifting(windows: usize, experts: usize, drift: f64, seed: u64) -> Vec<Loads> {
    let family = Family::Lognormal(1.0);
    let trace = Generate { family, windows, layers: 3, experts, drift, seed, ..Generate::default() };
    let trace = trace.history().expect("the sizes are valid");
    (0..windows).map(|w| trace.loads(Window::Index(w)).expect("the window is there")).collect()
}

/// Of both policies, of few and many GPUs, one with free slots; and the speeds of the same GPUs.
fn clusters() -> Vec<(Cluster, Cluster)> {
    let half = |slow: &'static [usize]| move |gpu: usize| if slow.contains(&gpu) { 0.5 } else { 1.0 };
    let with = |cluster: Cluster, speed: &dyn Fn(usize) -> f64| {
        let speeds: Vec<f64> = (0..cluster.num_gpus()).map(speed).collect();
        (cluster.clone(), cluster.with_gpu_speeds(&speeds).expect("speeds of all GPUs"))
    };
    vec![
        with(Cluster::new(40, 1, 1, 8).unwrap(), &half(&[2, 7])),
        with(Cluster::new(96, 1, 1, 16).unwrap(), &half(&[0, 1, 9])),
        with(Cluster::new(96, 8, 4, 16).unwrap(), &half(&[0, 5, 10, 15])),
        with(Cluster::with_slots_per_gpu(56, 1, 2, 8, 8).unwrap(), &half(&[3, 4])),
    ]
}

#[test]
fn a_gpu_that_becomes_slow_is_relieved() {
    let (planner, options) = (planner(), PlanOptions::default());
    for (number, (equal, unequal)) in clusters().into_iter().enumerate() {
        let loads = drifting(1, 32, 0.0, number as u64).remove(0);
        let running = planner.plan(&loads, &equal, &options).unwrap();
        let score = |map: &[i32]| check::score(&loads, &unequal, map).unwrap().balancedness();
        let before = score(running.physical_to_logical());
        let fresh = planner.plan(&loads, &unequal, &options).unwrap().quality().balancedness();
        assert!(before < fresh * 0.7, "{number}: {before} of {fresh}");
        // As far as it goes, in a few steps.
        let limits = MoveLimits { min_gain_ppm: Some(0), ..MoveLimits::default() };
        let (mut now, mut reached) = (running.clone(), before);
        for _ in 0..4 {
            let replan = planner.replan(&loads, &unequal, now.placement(), &options, &limits).unwrap();
            now = replan.plan().clone();
            assert!(now.quality().balancedness() >= reached * (1.0 - 1e-5), "{number}");
            reached = now.quality().balancedness();
        }
        // Groups change places one pair at a time, and where that helps alone.
        let near = if unequal.num_groups() > 1 { 0.9 } else { 0.99 };
        assert!(reached >= fresh * near, "{number}: {reached} of {fresh}");
        // A few slots at a time: some of the way, and nothing moves beyond the limit.
        let limits = MoveLimits { max_moves: Some(MaxMoves::Ppm(100_000)), ..MoveLimits::default() };
        let replan = planner.replan(&loads, &unequal, running.placement(), &options, &limits).unwrap();
        let moves = Moves::between(&unequal, running.placement(), replan.plan().placement()).unwrap();
        assert_eq!(moves, *replan.moves());
        assert!(moves.received > 0 && moves.share() <= 0.1, "{number}: {moves:?}");
        let reached = score(replan.plan().physical_to_logical());
        assert!(reached > before * 1.05, "{number}: {reached} after {before}");
        assert_eq!(reached, replan.plan().quality().balancedness());
    }
}

#[test]
fn equal_speeds_change_no_byte() {
    let (planner, options) = (planner(), Preset::SCENARIOS.options());
    for (number, (equal, _)) in clusters().into_iter().enumerate() {
        let trace = drifting(4, 32, 0.5, number as u64);
        let running = planner.plan(&trace[0], &equal, &options).unwrap();
        let loads = Loads::from_windows(&trace[1..], &[1.0; 3]).unwrap();
        let alike = equal.clone().with_gpu_speeds(&vec![0.7; equal.num_gpus()]).unwrap();
        let replan = |cluster: &Cluster| {
            let limits = MoveLimits::default();
            let replan = planner.replan(&loads, cluster, running.placement(), &options, &limits).unwrap();
            (replan.plan().fingerprint(), *replan.moves(), replan.layers().to_vec())
        };
        assert_eq!(replan(&equal), replan(&alike));
    }
}

#[test]
fn a_loop_follows_drift_on_unequal_gpus() {
    for (number, (equal, unequal)) in clusters().into_iter().enumerate() {
        let trace = drifting(6, 32, 0.1, 40 + number as u64);
        let setup = ReplayOptions::default();
        let rows = replay(&planner(), &trace, &unequal, &setup, |_| {}).unwrap();
        let of = |name: &str| rows.iter().find(|row| row.name == name).unwrap().balancedness.mean();
        // The same loop where no speeds are told, scored by them.
        let mut blind = Rebalancer::new(planner(), equal, RebalanceOptions::default()).unwrap();
        let mut ignored = 0.0;
        for pair in trace.windows(2) {
            blind.observe(pair[0].clone()).unwrap();
            let plan = blind.propose().unwrap().plan().clone();
            blind.apply(plan.placement()).unwrap();
            ignored += check::score(&pair[1], &unequal, plan.physical_to_logical()).unwrap().balancedness();
        }
        let (scenarios, ignored) = (of("scenarios"), ignored / 5.0);
        assert!(scenarios > 1.1 * ignored && scenarios <= of("oracle"), "{number}: {scenarios}, {ignored}");
    }
}

/// A plan from one that runs knows of GPUs that are gone, at speed 0, as where the map of those that remain is given.
#[test]
fn gpus_at_speed_0_are_left_and_the_others_keep_their_speed() {
    let (planner, options) = (planner(), PlanOptions::default());
    let trace = drifting(2, 32, 0.3, 7);
    let all = Cluster::with_slots_per_gpu(40, 4, 2, 8, 6).unwrap();
    let running = planner.plan(&trace[0], &all, &options).unwrap();
    for (gone, slow) in [([0, 6], 0.5), ([3, 4], 1.0)] {
        let mut speeds = [1.0; 8];
        speeds[1] = slow;
        gone.iter().for_each(|&gpu| speeds[gpu] = 0.0);
        let rest: Vec<f64> = speeds.iter().copied().filter(|speed| *speed > 0.0).collect();
        let rest = Cluster::with_slots_per_gpu(36, 4, 2, 6, 6).unwrap().with_gpu_speeds(&rest).unwrap();
        let cluster = Cluster::with_slots_per_gpu(36, 4, 2, 8, 6).unwrap().with_gpu_speeds(&speeds).unwrap();
        let limits = MoveLimits::default();
        let replan = planner.replan(&trace[1], &cluster, running.placement(), &options, &limits).unwrap();
        let map = PreviousMap::from(running.placement()).with_slots_per_gpu(6).unwrap();
        let map = map.without_gpus(&gone).unwrap();
        let of_rest = planner.replan(&trace[1], &rest, map, &options, &limits).unwrap();
        assert_eq!((replan.moves(), replan.lost()), (of_rest.moves(), of_rest.lost()));
        let spread = of_rest.plan().with_gone_gpus(&cluster, &gone).unwrap();
        assert_eq!(replan.plan().physical_to_logical(), spread.physical_to_logical());
        assert!(gone.iter().all(|&gpu| replan.plan().physical_to_logical()[gpu * 6..][..6] == [-1; 6]));
        // A loop of that cluster: its first plan, and those from it.
        let mut rebalancer = Rebalancer::new(planner.clone(), cluster.clone(), RebalanceOptions::default());
        let rebalancer = rebalancer.as_mut().unwrap();
        for window in &trace {
            rebalancer.observe(window.clone()).unwrap();
            let proposal = rebalancer.propose().unwrap();
            assert_eq!(proposal.replan.moves().repairs, 0);
            check::score(window, &cluster, proposal.plan().physical_to_logical()).unwrap();
            rebalancer.apply(proposal.plan().placement()).unwrap();
        }
        assert!(rebalancer.status().balancedness.is_some() && rebalancer.shares().is_ok());
    }
}
