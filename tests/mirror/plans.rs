//! Rules that every plan of the CPU backend keeps, on random calls and against the brute force of the oracle.

use approx::assert_relative_eq;

use crate::bound::BoundOptions;
use crate::cases::{Call, call, random_case};
use crate::loads::FIXED_TOTAL;
use crate::params::Params;
use crate::replan::search::{TrailSearch, TrailTask};
use crate::replan::{self, Follow};
use crate::watch::Watch;
use crate::{
    Cluster, DeviceChoice, Duplicates, GroupRule, Loads, PlanOptions, Planner, Preset, Search, bound, check,
};

#[path = "../oracle/brute_force.rs"]
mod brute_force;

fn planner() -> Planner {
    Planner::new(DeviceChoice::Cpu).unwrap()
}

/// The most by which rounding to fixed point changes a comparison of heaviest GPUs: less than 2 a slot.
fn rounding(cluster: &Cluster) -> f64 {
    1.0 + 2.0 * cluster.num_slots() as f64 / f64::from(FIXED_TOTAL)
}

fn max_loads(loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Vec<f64> {
    let plan = planner().plan(loads, cluster, options).unwrap();
    plan.quality().layers.iter().map(|layer| layer.max_gpu_load).collect()
}

#[test]
fn random_plans_are_valid_above_their_bound_and_without_avoidable_duplicates() {
    let planner = planner();
    for seed in 0..300 {
        let case = random_case(30_000 + seed, 1 << 13);
        let plan = planner.plan(&case.loads, &case.cluster, &case.options).unwrap();
        let quality = check::score(&case.loads, &case.cluster, plan.physical_to_logical()).unwrap();
        let most = case.options.max_replicas_per_expert;
        let options = BoundOptions { max_replicas_per_expert: most, ..BoundOptions::default() };
        let bounds = bound::lower_bounds_with(&case.loads, &case.cluster, &options);
        for (layer, bound) in quality.layers.iter().zip(&bounds) {
            assert!(*bound <= layer.max_gpu_load * (1.0 + 1e-9), "seed {seed}: {bound} {layer:?}");
        }
        let counts = plan.replica_counts();
        assert!(most.is_none_or(|most| counts.iter().all(|&count| count <= most)), "seed {seed}: {counts:?}");
        let nodes = case.cluster.planned_nodes();
        let (experts, gpus) = (case.loads.experts() / nodes, case.cluster.num_gpus() / nodes);
        let avoidable = experts * gpus >= case.cluster.num_replicas() / nodes;
        if case.options.duplicates == Duplicates::Avoid && avoidable {
            assert_eq!(quality.same_gpu_duplicates(), 0, "seed {seed}");
        }
        let (slots, experts) = (plan.slots(), plan.experts());
        let maps = (plan.physical_to_logical(), plan.logical_to_physical(), plan.replica_counts());
        check::check_maps(experts, slots, maps.0, maps.1, maps.2).unwrap();
    }
}

#[test]
fn no_plan_is_worse_than_greedy_under_the_same_rule_on_duplicates() {
    let budgets = [
        PlanOptions::default(),
        PlanOptions { starts: 4, iterations: 50, assignments: Some(3), ..PlanOptions::default() },
        PlanOptions { starts: 1, iterations: 0, assignments: Some(1), ..PlanOptions::default() },
        Preset::FAST.options(),
    ];
    for seed in 0..150 {
        let case = random_case(40_000 + seed, 1 << 13);
        for duplicates in [Duplicates::Allow, Duplicates::Avoid] {
            let greedy = PlanOptions { duplicates, ..Preset::GREEDY.options() };
            let greedy = max_loads(&case.loads, &case.cluster, &greedy);
            for options in &budgets {
                let options = PlanOptions { duplicates, ..options.clone() };
                let ours = max_loads(&case.loads, &case.cluster, &options);
                for (layer, (ours, greedy)) in ours.iter().zip(&greedy).enumerate() {
                    let better = *ours <= greedy * rounding(&case.cluster);
                    assert!(better, "seed {seed}, layer {layer}, {options:?}: {ours} > {greedy}");
                }
            }
        }
    }
}

#[test]
fn a_larger_budget_is_never_worse() {
    // Each row is one kind of budget that grows, then all of them together.
    let budgets: [&[(u32, u32, u32)]; 4] = [
        &[(1, 60, 16), (2, 60, 16), (7, 60, 16), (16, 60, 16), (40, 60, 16)],
        &[(3, 0, 32), (3, 1, 32), (3, 10, 32), (3, 100, 32), (3, 400, 32)],
        &[(3, 400, 0), (3, 400, 1), (3, 400, 8), (3, 400, 32), (3, 400, 100)],
        &[(1, 0, 0), (1, 9, 8), (8, 50, 16), (16, 200, 32), (32, 400, 64)],
    ];
    for seed in 0..30 {
        let case = random_case(50_000 + seed, 1 << 10);
        for (kind, exact) in [(0, true), (1, true), (2, true), (3, true), (3, false)] {
            let base = PlanOptions { seed, assignments: Some(4), ..PlanOptions::default() };
            let base = if exact { PlanOptions { stop_gap_ppm: 0, start_gap_ppm: 0, ..base } } else { base };
            // All within the gap at which there are no further starts are equally good.
            let gap = 1.0 + f64::from(base.start_gap_ppm) / 1e6;
            // Where several starts bring nothing a node gets no more, so that longer ones may mean fewer.
            let gap = if kind == 3 { f64::max(gap, 1.0001) } else { gap };
            let mut before = vec![f64::INFINITY; case.loads.layers()];
            for &(starts, iterations, patience) in budgets[kind] {
                let options = PlanOptions { starts, iterations, patience, ..base.clone() };
                let loads = max_loads(&case.loads, &case.cluster, &options);
                for (layer, (now, before)) in loads.iter().zip(&before).enumerate() {
                    let equal = *now <= before * gap * rounding(&case.cluster);
                    let budget = (starts, iterations, patience);
                    assert!(equal, "seed {seed}, layer {layer}, {budget:?}: {now} > {before}");
                }
                before = loads.iter().zip(before).map(|(a, b)| a.min(b)).collect();
            }
        }
    }
}

#[test]
fn more_assignments_of_groups_are_never_worse() {
    let mut better = 0;
    for seed in 0..300 {
        let case = random_case(55_000 + seed, 1 << 11);
        let base = PlanOptions { starts: 2, stop_gap_ppm: 0, start_gap_ppm: 0, ..PlanOptions::default() };
        let mut before = vec![f64::INFINITY; case.loads.layers()];
        for assignments in [Some(1), Some(2), Some(8), None] {
            if case.cluster.planned_nodes() == 1 {
                break;
            }
            let options = PlanOptions { assignments, ..base.clone() };
            let loads = max_loads(&case.loads, &case.cluster, &options);
            for (layer, (now, before)) in loads.iter().zip(&before).enumerate() {
                let equal = *now <= before * rounding(&case.cluster);
                assert!(equal, "seed {seed}, layer {layer}, {assignments:?}: {now} > {before}");
                better += usize::from(before.is_finite() && *now < before * 0.99999);
            }
            before = loads;
        }
    }
    assert!(better > 0, "more assignments helped {better} times");
}

#[test]
fn several_windows_are_planned_by_the_trajectory_alone() {
    let window = Loads::from_counts(1, 3, &[3, 2, 1]).unwrap();
    let two = Loads::from_windows(&[window.clone(), window], &[1.0, 1.0]).unwrap();
    let cluster = Cluster::new(4, 1, 1, 2).unwrap();
    for preset in Preset::all() {
        let plan = planner().plan(&two, &cluster, &preset.options());
        if preset.options().search == Search::Trajectory {
            assert!(plan.is_ok(), "{preset}");
        } else {
            let error = plan.unwrap_err().to_string();
            assert!(error.starts_with("windows 2 are planned by the trajectory alone"), "{preset}: {error}");
        }
    }
}

#[test]
fn a_layer_does_not_depend_on_the_others_in_the_call() {
    let case = (0..).map(|i| random_case(60_000 + i, 1 << 12)).find(|c| c.loads.layers() == 3).unwrap();
    let options = PlanOptions::default();
    let all = planner().plan(&case.loads, &case.cluster, &options).unwrap();
    for layer in 0..3 {
        let one = Loads::from_f64(1, case.loads.experts(), case.loads.layer(layer)).unwrap();
        let alone = planner().plan(&one, &case.cluster, &options).unwrap();
        let slots = alone.slots();
        assert_eq!(
            alone.physical_to_logical(),
            &all.physical_to_logical()[layer * slots..(layer + 1) * slots]
        );
    }
}

#[test]
fn thread_counts_give_equal_plans() {
    let case = random_case(70_001, 1 << 13);
    let plan = || planner().plan(&case.loads, &case.cluster, &case.options).unwrap().fingerprint();
    let fingerprints = [1, 2, 5]
        .map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(plan));
    assert!(fingerprints.iter().all(|f| *f == fingerprints[0]), "{fingerprints:?}");
}

/// Tiny calls where all plans can be tried: the plan is one of the best.
#[test]
fn tiny_plans_are_optimal() {
    let mut random = crate::cases::Random(7);
    let mut known = 0;
    for _ in 0..240 {
        let gpus = 2 + random.below(2);
        let slots = 1 + random.below(2);
        let experts = 2 + random.below(3);
        let replicas = gpus * slots;
        if replicas < experts {
            continue;
        }
        let counts: Vec<u64> = (0..experts).map(|_| random.next() % 100).collect();
        let cluster = Cluster::new(replicas, 1, 1, gpus).unwrap();
        let loads = Loads::from_counts(1, experts, &counts).unwrap();
        for duplicates in [Duplicates::Allow, Duplicates::Avoid] {
            let best = brute_force::best_max_load(&counts, &cluster, duplicates == Duplicates::Allow);
            if best.is_finite() {
                let options = PlanOptions { duplicates, ..PlanOptions::default() };
                let found = max_loads(&loads, &cluster, &options)[0];
                assert!(found >= best * (1.0 - 1e-9), "{counts:?}: {found} < {best}");
                assert!(found <= best * rounding(&cluster), "{counts:?}, {cluster:?}: {found} > {best}");
                known += 1;
            }
        }
    }
    assert!(known > 250, "{known} of all");
}

/// Joint search over counts and placement finds what greedy counts cannot.
#[test]
fn the_small_skewed_case_reaches_200() {
    let loads = Loads::from_counts(1, 8, &[600, 560, 120, 120, 20, 10, 10, 10]).unwrap();
    let cluster = Cluster::new(16, 1, 1, 8).unwrap();
    assert!(max_loads(&loads, &cluster, &PlanOptions::default())[0] <= 200.0);
    assert_relative_eq!(max_loads(&loads, &cluster, &Preset::GREEDY.options())[0], 232.0);
}

#[test]
fn repair_and_variance_aware_groups_never_lose_to_their_start() {
    for seed in 0..40 {
        let case = random_case(80_000 + seed, 1 << 12);
        let start = PlanOptions { groups: GroupRule::Lpt, ..Preset::GEN10.options() };
        let repaired = PlanOptions { repair: true, ..start.clone() };
        let before = max_loads(&case.loads, &case.cluster, &start);
        for (after, before) in max_loads(&case.loads, &case.cluster, &repaired).iter().zip(before) {
            assert!(*after <= before * (1.0 + 1e-6), "seed {seed}: {after} > {before}");
        }
    }
}

/// As a device does, which is asked for the trajectories of all layers at once.
#[test]
fn who_follows_the_trajectories_changes_no_plan() {
    for seed in 0..60 {
        let Call { loads, cluster, options, previous, limits, .. } = call(56_000 + seed);
        let params = Params::new(&loads, &cluster, &options).unwrap();
        let (rows, windows) = (previous.rows(&cluster), loads.fixed_windows());
        let limits = (&limits, cluster.num_gpus() / cluster.num_nodes());
        let watch = Watch::default();
        let attempt = watch.attempt(&loads, &cluster, &options);
        let made = |follow: Option<&Follow<'_>>| {
            let paths = replan::paths(&params, windows, &rows, limits, &attempt, follow).unwrap();
            let chosen = replan::choose(&params, &paths, &rows, limits.0).into_iter();
            let polished = replan::polish(&params, windows, &rows, &attempt, follow).unwrap();
            (chosen.map(|layer| (layer.row, layer.moved, layer.repairs)).collect::<Vec<_>>(), polished)
        };
        let follow = |tasks: &[TrailTask<'_>]| {
            let mut search = TrailSearch::default();
            Ok(tasks.iter().map(|task| task.run(&mut search)).collect())
        };
        assert_eq!(made(Some(&follow)), made(None), "seed {seed}");
    }
}
