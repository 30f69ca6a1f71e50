//! Plans through the public API, device against CPU backend.

use super::*;
use crate::{Cluster, Duplicates, Loads, PlanOptions, Preset, check};

/// The CPU backend's plan and the device's are the same bytes, and both pass the check.
#[track_caller]
fn assert_equal_plans(planner: &Planner, seed: u64, loads: &Loads, cluster: &Cluster, options: &PlanOptions) {
    let cpu = Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always here");
    let expected = cpu.plan(loads, cluster, options).expect("the case is valid");
    let found = planner.plan(loads, cluster, options).expect("the case is valid");
    assert_eq!(found.warnings(), [] as [String; 0], "seed {seed}");
    let words = |plan: &crate::Plan| plan.physical_to_logical().iter().map(|&e| e as u32).collect::<Vec<_>>();
    assert_same("plan", seed, &words(&expected), &words(&found));
    assert_eq!(expected.fingerprint(), found.fingerprint());
    assert_eq!(expected.stops(), found.stops(), "seed {seed}");
    check::score(loads, cluster, found.physical_to_logical()).expect("the plan is valid");
}

#[test]
fn random_clusters_give_equal_plans_for_every_number_of_starts() {
    let Some(planner) = planner() else { return };
    for seed in 0..cases(200) {
        // One in eight is large; its search is cut so that the suite stays short.
        let large = seed % 8 == 7;
        let case = random_case(10_000 + seed, if large { 1 << 20 } else { 1 << 12 });
        for starts in [1, 7, 32] {
            let mut options = PlanOptions { starts, ..case.options.clone() };
            options.iterations = options.iterations.min(if large { 4 } else { 64 });
            if let (true, Search::Descent(descent)) = (large, &mut options.search) {
                descent.steps = descent.steps.min(4);
            }
            assert_equal_plans(planner, case.seed, &case.loads, &case.cluster, &options);
        }
    }
}

#[test]
fn several_windows_give_equal_plans_and_one_window_the_plain_plan() {
    let Some(planner) = planner() else { return };
    for seed in 0..cases(10) {
        let case = random_windows_case(12_000 + seed, 1 << 9);
        let iterations = case.options.iterations.min(30);
        let options = PlanOptions { starts: 3, iterations, ..case.options.clone() };
        assert_equal_plans(planner, case.seed, &case.loads, &case.cluster, &options);
        let windows: Vec<Loads> = case.loads.windows().take(1).cloned().collect();
        let one = Loads::from_windows(&windows, &[2.0]).unwrap();
        assert_equal_plans(planner, case.seed, &one, &case.cluster, &options);
        let plain = planner.plan(&windows[0], &case.cluster, &options).unwrap();
        assert_eq!(plain.fingerprint(), planner.plan(&one, &case.cluster, &options).unwrap().fingerprint());
    }
}

#[test]
fn every_preset_gives_equal_plans() {
    let Some(planner) = planner() else { return };
    let shapes = [(3, 24, 4, 2, 8, 32), (2, 32, 1, 1, 8, 40)];
    for (layers, experts, groups, nodes, gpus, replicas) in shapes {
        let counts: Vec<u64> = (0..layers * experts).map(|i| 1 + (i as u64 * 7919 % 1009)).collect();
        let loads = Loads::from_counts(layers, experts, &counts).unwrap();
        let cluster = Cluster::new(replicas, groups, nodes, gpus).unwrap();
        for preset in Preset::all() {
            let mut options = preset.options();
            options.starts = options.starts.min(40);
            options.iterations = options.iterations.min(300);
            assert_equal_plans(planner, 0, &loads, &cluster, &options);
        }
    }
}

/// Shapes whose loops pass 65,535 trips, and whose batches do not fit one arena.
#[test]
fn shapes_past_a_device_limit_give_equal_plans() {
    let Some(planner) = planner() else { return };
    if is_short() {
        return;
    }
    let budget = |iterations| PlanOptions { starts: 2, iterations, ..PlanOptions::default() };
    // 512 slots on 128 GPUs: construction alone makes 65,536 comparisons.
    for (experts, gpus, replicas, iterations) in
        [(400, 128, 512, 60), (256, 144, 288, 60), (1024, 256, 16_384, 3)]
    {
        let counts: Vec<u64> = (0..experts as u64).map(|i| 1 + i * i * 7919 % 100_003).collect();
        let loads = Loads::from_counts(1, experts, &counts).unwrap();
        let cluster = Cluster::new(replicas, 1, 1, gpus).unwrap();
        assert_equal_plans(planner, 0, &loads, &cluster, &budget(iterations));
    }
    // 128 slots a GPU with transfers between duplicates.
    let counts: Vec<u64> = (0..5 * 200u64).map(|i| 1 + i * i * 7919 % 100_003).collect();
    let loads = Loads::from_counts(5, 200, &counts).unwrap();
    let cluster = Cluster::new(384, 1, 1, 3).unwrap();
    let options = PlanOptions {
        starts: 12,
        stop_gap_ppm: 0,
        start_gap_ppm: 0,
        duplicates: Duplicates::Allow,
        ..budget(40)
    };
    assert_equal_plans(planner, 0, &loads, &cluster, &options);
    // 33 starts of 40 layers of 64 x 16 slots: several batches.
    let counts: Vec<u64> = (0..40 * 512u64).map(|i| 1 + i * i % 10_007).collect();
    let loads = Loads::from_counts(40, 512, &counts).unwrap();
    let cluster = Cluster::new(1024, 1, 1, 64).unwrap();
    let options = PlanOptions {
        starts: 33,
        search: Search::None,
        start_gap_ppm: 0,
        stop_gap_ppm: 0,
        ..PlanOptions::default()
    };
    assert_equal_plans(planner, 0, &loads, &cluster, &options);
}

/// Layers of the largest models over several windows.
#[test]
fn several_windows_of_the_largest_shapes_give_equal_plans() {
    let Some(planner) = planner() else { return };
    if is_short() {
        return;
    }
    let options = PlanOptions { starts: 2, iterations: 20, ..PlanOptions::default() };
    let shapes = [(384, 1, 1, 64, 448, 3), (384, 8, 8, 64, 448, 16), (1024, 1, 1, 128, 1152, 5)];
    for (experts, groups, nodes, gpus, replicas, windows) in shapes {
        let window = |w: u64| {
            let counts: Vec<u64> =
                (0..experts as u64).map(|i| 1 + (i + w * 37) * (i + w) * 7919 % 100_003).collect();
            Loads::from_counts(1, experts, &counts).unwrap()
        };
        let windows: Vec<Loads> = (0..windows).map(window).collect();
        let loads = Loads::from_windows(&windows, &vec![1.0; windows.len()]).unwrap();
        let cluster = Cluster::new(replicas, groups, nodes, gpus).unwrap();
        assert_equal_plans(planner, 0, &loads, &cluster, &options);
    }
}

#[test]
fn eight_threads_share_a_planner() {
    let Some(planner) = planner() else { return };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..3 {
                    let case = random_case(20_000 + thread * 10 + round, 1 << 10);
                    let options = PlanOptions { starts: 8, iterations: 50, ..case.options };
                    assert_equal_plans(planner, case.seed, &case.loads, &case.cluster, &options);
                }
            });
        }
    });
}
