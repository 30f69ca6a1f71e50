//! What every plan of the CPU backend must hold, on random calls and against the brute force of the oracle.

use crate::cases::random_case;
use crate::{
    Cluster, DeviceChoice, Duplicates, GroupRule, Loads, PlanOptions, Planner, Preset, bound, check,
};

#[path = "../oracle/brute_force.rs"]
mod brute_force;

fn planner() -> Planner {
    Planner::new(DeviceChoice::Cpu).unwrap()
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
        let bounds = bound::lower_bounds(&case.loads, &case.cluster);
        for (layer, bound) in quality.layers.iter().zip(&bounds) {
            assert!(*bound <= layer.max_gpu_load * (1.0 + 1e-9), "seed {seed}: {bound} {layer:?}");
        }
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
    for seed in 0..150 {
        let case = random_case(40_000 + seed, 1 << 13);
        for duplicates in [Duplicates::Allow, Duplicates::Avoid] {
            let greedy = PlanOptions { duplicates, .."gen00".parse::<Preset>().unwrap().options() };
            let ours = PlanOptions { duplicates, restarts: 4, kicks: 1, ..PlanOptions::default() };
            let (greedy, ours) = (
                max_loads(&case.loads, &case.cluster, &greedy),
                max_loads(&case.loads, &case.cluster, &ours),
            );
            for (layer, (ours, greedy)) in ours.iter().zip(greedy).enumerate() {
                assert!(*ours <= greedy * (1.0 + 1e-6), "seed {seed}, layer {layer}: {ours} > {greedy}");
            }
        }
    }
}

#[test]
fn a_larger_budget_is_never_worse() {
    for seed in 0..60 {
        let case = random_case(50_000 + seed, 1 << 11);
        for margin in [0, 2000] {
            let base = PlanOptions { count_margin_ppm: margin, seed, ..PlanOptions::default() };
            let budgets = [(1, 0), (1, 4), (7, 4), (8, 8), (32, 8), (40, 16)];
            let mut before = vec![f64::INFINITY; case.loads.layers()];
            for (restarts, kicks) in budgets {
                let loads =
                    max_loads(&case.loads, &case.cluster, &PlanOptions { restarts, kicks, ..base.clone() });
                for (layer, (now, before)) in loads.iter().zip(&before).enumerate() {
                    // All within the stop gap are equally good.
                    let equal = *now <= before * (1.0 + 41e-6);
                    assert!(equal, "seed {seed}, layer {layer}, {restarts}/{kicks}: {now} > {before}");
                }
                before = loads.iter().zip(before).map(|(a, b)| a.min(b)).collect();
            }
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

/// Tiny calls where all plans can be tried.
#[test]
fn tiny_plans_are_close_to_the_optimum() {
    let mut random = crate::cases::Random(7);
    let (mut optimal, mut worst, cases) = (0, 1f64, 120);
    for _ in 0..cases {
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
        let best = brute_force::best_max_load(&counts, &cluster, true);
        let options = PlanOptions { duplicates: Duplicates::Allow, ..PlanOptions::default() };
        let found = max_loads(&loads, &cluster, &options)[0];
        assert!(found >= best * (1.0 - 1e-6), "{counts:?}: {found} < {best}");
        let gap = if best > 0.0 { found / best } else { 1.0 };
        worst = worst.max(gap);
        optimal += usize::from(gap < 1.0 + 1e-4);
    }
    assert!(worst < 1.15, "worst {worst}");
    assert!(optimal * 10 > cases * 6, "{optimal} of {cases} optimal");
}

/// Joint search over counts and placement finds what greedy counts cannot.
#[test]
fn the_small_skewed_case_reaches_200() {
    let loads = Loads::from_counts(1, 8, &[600, 560, 120, 120, 20, 10, 10, 10]).unwrap();
    let cluster = Cluster::new(16, 1, 1, 8).unwrap();
    assert!(max_loads(&loads, &cluster, &PlanOptions::default())[0] <= 200.0);
    assert_eq!(max_loads(&loads, &cluster, &"gen00".parse::<Preset>().unwrap().options())[0], 232.0);
}

#[test]
fn repair_and_variance_aware_groups_never_lose_to_their_start() {
    for seed in 0..40 {
        let case = random_case(80_000 + seed, 1 << 12);
        let start = PlanOptions { groups: GroupRule::Lpt, .."gen10".parse::<Preset>().unwrap().options() };
        let repaired = PlanOptions { repair: true, ..start.clone() };
        let before = max_loads(&case.loads, &case.cluster, &start);
        for (after, before) in max_loads(&case.loads, &case.cluster, &repaired).iter().zip(before) {
            assert!(*after <= before * (1.0 + 1e-6), "seed {seed}: {after} > {before}");
        }
    }
}
