//! Plans for several windows at once.

use eplb_wgpu::{Cluster, Duplicates, Loads, PlanOptions, Preset, check};

use crate::{drifting, objective, planner};

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
