//! The checker and the bound against every valid plan of tiny instances, and the checker against broken plans.

#[path = "oracle/broken_plans.rs"]
mod broken_plans;
#[path = "oracle/brute_force.rs"]
mod brute_force;
#[path = "oracle/foreign.rs"]
mod foreign;
#[path = "oracle/instances.rs"]
mod instances;
#[path = "oracle/speeds.rs"]
mod speeds;

use approx::{assert_relative_eq, relative_eq};
use brute_force::{best_capped_load, best_max_load};
use eplb_wgpu::bound::{BoundEffort, BoundOptions};
use eplb_wgpu::{Cluster, Loads, Policy, bound, check};
use instances::{Instance, Rng};

/// Counts and whole products of them are exact in the oracle; `f64` sums in the library are not.
const ROUNDING: f64 = 1e-9;

#[test]
fn the_bound_is_a_bound_and_often_the_optimum() {
    let mut rng = Rng::new(1);
    // By policy, then without and with free slots: [instances with load, optimum met, sum of bound/optimum].
    let mut seen = [[(0usize, 0usize, 0.0f64); 2]; 2];
    for case in 0..1200 {
        let instance = Instance::random(&mut rng);
        let (row, cluster) = (&instance.row, &instance.cluster);
        let bound = bound::lower_bounds(&instance.loads(), cluster)[0];
        let optimum = best_max_load(row, cluster, true);
        assert!(bound <= optimum * (1.0 + ROUNDING), "case {case}: {bound} > {optimum} for {instance:?}");
        let distinct = best_max_load(row, cluster, false);
        assert!(distinct >= optimum, "case {case}: fewer plans cannot be better");
        if optimum > 0.0 {
            let free = usize::from(cluster.num_slots() > cluster.num_replicas());
            let entry = &mut seen[usize::from(cluster.policy() == Policy::Hierarchical)][free];
            entry.0 += 1;
            entry.1 += usize::from(bound >= optimum * (1.0 - ROUNDING));
            entry.2 += bound / optimum;
        }
    }
    for (policy, kinds) in ["global", "hierarchical"].into_iter().zip(seen) {
        for (free, (instances, met, ratio)) in ["no free slot", "free slots"].into_iter().zip(kinds) {
            let (share, ratio) = (met as f64 / instances as f64, ratio / instances as f64);
            println!("{policy}, {free}: {instances} instances, met {share:.3}, bound/optimum {ratio:.4}");
            assert!(instances >= 50, "{policy}, {free}: only {instances} instances");
            assert!(share >= 0.85, "{policy}, {free}: the optimum is met on {share} of the instances");
            assert!(ratio >= 0.985, "{policy}, {free}: bound/optimum is {ratio} on average");
        }
    }
}

#[test]
fn few_slots_have_a_tight_bound() {
    let mut rng = Rng::new(4);
    // Without the bound of few slots: met .51 and .43, bound/optimum .952 and .966.
    for (slots, least_met, least_ratio) in [(2, 0.9, 0.99), (3, 0.5, 0.975)] {
        let (mut instances, mut met, mut ratio) = (0.0, 0.0, 0.0);
        for case in 0..150 {
            let instance = Instance::with_few_slots(&mut rng, slots);
            let bound = bound::lower_bounds(&instance.loads(), &instance.cluster)[0];
            let optimum = best_max_load(&instance.row, &instance.cluster, true);
            assert!(bound <= optimum * (1.0 + ROUNDING), "case {case}: {bound} > {optimum} for {instance:?}");
            if optimum > 0.0 {
                instances += 1.0;
                // The bound closes in by steps, so it may stop a little short.
                met += if bound >= optimum * (1.0 - 1e-3) { 1.0 } else { 0.0 };
                ratio += bound / optimum;
            }
        }
        let (met, ratio) = (met / instances, ratio / instances);
        println!("{slots} slots: {instances} instances, met {met:.3}, bound/optimum {ratio:.4}");
        assert!(met >= least_met && ratio >= least_ratio, "{slots} slots: met {met}, bound/optimum {ratio}");
    }
}

fn bound_by(instance: &Instance, effort: BoundEffort, most: Option<u32>) -> f64 {
    let options = BoundOptions { effort, max_replicas_per_expert: most, ..BoundOptions::default() };
    bound::lower_bounds_with(&instance.loads(), &instance.cluster, &options)[0]
}

#[test]
fn the_tight_bound_is_a_bound_and_never_below_the_quick_one() {
    let mut rng = Rng::new(5);
    let mut raised = 0;
    for case in 0..200 {
        let instance = match case % 4 {
            0 => Instance::random(&mut rng),
            kind => Instance::with_few_slots(&mut rng, if kind == 3 { 3 } else { 2 }),
        };
        let quick = bound_by(&instance, BoundEffort::Quick, None);
        let tight = bound_by(&instance, BoundEffort::Tight, None);
        let optimum = best_max_load(&instance.row, &instance.cluster, true);
        assert!(tight >= quick, "case {case}: {tight} below {quick} for {instance:?}");
        assert!(tight <= optimum * (1.0 + ROUNDING), "case {case}: {tight} > {optimum} for {instance:?}");
        raised += usize::from(tight > quick);
    }
    assert!(raised >= 20, "raised on {raised} only");
}

#[test]
fn a_limit_of_replicas_has_a_bound_of_its_own() {
    let mut rng = Rng::new(6);
    let (mut instances, mut met, mut raised) = (0.0, 0.0, 0);
    for case in 0..400 {
        let instance = match case % 4 {
            0 | 1 => Instance::random(&mut rng),
            kind => Instance::with_few_slots(&mut rng, kind),
        };
        let most = 1 + rng.below(3);
        let limit = Some(most as u32);
        let optimum = best_capped_load(&instance.row, &instance.cluster, true, most);
        let effort = if case % 3 == 0 { BoundEffort::Tight } else { BoundEffort::Quick };
        let bound = bound_by(&instance, effort, limit);
        assert!(bound.is_finite(), "case {case}: {instance:?}");
        assert!(
            bound <= optimum * (1.0 + ROUNDING),
            "case {case}: {bound} > {optimum}, {most} for {instance:?}"
        );
        if optimum > 0.0 && optimum.is_finite() {
            instances += 1.0;
            met += if bound >= optimum * (1.0 - 1e-3) { 1.0 } else { 0.0 };
            raised += usize::from(bound > bound_by(&instance, effort, None) * 1.01);
        }
    }
    println!(
        "{instances} instances, met {:.3}, above the bound without a limit on {raised}",
        met / instances
    );
    assert!(instances >= 150.0 && met / instances >= 0.8 && raised >= 10, "{instances}, {met}, {raised}");
}

#[test]
fn the_oracle_finds_known_optima() {
    // The fold of 6 5 4 3 2 1 is 7 a GPU; a third replica cannot help.
    assert_relative_eq!(best_max_load(&[6, 5, 4, 3, 2, 1], &Cluster::new(6, 1, 1, 3).unwrap(), true), 7.0);
    // 9 in three replicas of 3, with 3 and 3 beside them: 3+3, 3+3, 3 with a free slot.
    let free = Cluster::with_slots_per_gpu(5, 1, 1, 3, 2).unwrap();
    assert_relative_eq!(best_max_load(&[9, 3, 3], &free, true), 6.0);
    // One expert on one GPU with two slots is its own duplicate.
    let one = Cluster::new(2, 1, 1, 1).unwrap();
    assert_relative_eq!(best_max_load(&[5], &one, true), 5.0);
    assert_eq!(best_max_load(&[5], &one, false), f64::INFINITY);
    // Whole groups: 8+1 against 1+1 in two nodes of one GPU each, though 8/2+1 = 5.5 would be even.
    assert_relative_eq!(best_max_load(&[8, 1, 1, 1], &Cluster::new(4, 2, 2, 2).unwrap(), true), 9.0);
    // Five replicas of three experts with one each there are not; two of the 9 have 4.5, and 4.5 beside 1.5.
    for (most, optimum) in [(1, f64::INFINITY), (2, 6.0), (3, 6.0)] {
        assert_relative_eq!(best_capped_load(&[9, 3, 3], &free, true, most), optimum);
    }
    // Nothing can be split below one third: 10/3 with 8 on its own.
    assert_relative_eq!(best_max_load(&[10, 8], &Cluster::new(4, 1, 1, 4).unwrap(), true), 5.0);
    assert_eq!(
        best_max_load(&[u64::MAX; 3], &Cluster::new(3, 1, 1, 1).unwrap(), true),
        u64::MAX as f64 * 3.0
    );
}

/// Every array of entries, valid or not: those that `check` passes and the oracle's plans have the same best.
#[test]
fn the_checker_and_the_oracle_know_the_same_plans() {
    let shapes = [
        // experts, replicas, groups, nodes, gpus, slots
        (3, 6, 1, 1, 3, 2),
        (4, 6, 1, 1, 2, 3),
        (3, 5, 1, 1, 3, 2),
        (4, 6, 2, 2, 2, 3),
        (4, 4, 4, 2, 2, 3),
        (2, 6, 2, 2, 2, 3),
        (4, 6, 3, 2, 6, 1),
        (4, 6, 4, 2, 6, 1),
    ];
    let mut rng = Rng::new(2);
    for (experts, replicas, groups, nodes, gpus, slots) in shapes {
        let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots).unwrap();
        let row: Vec<u64> = (0..experts).map(|_| 1 + rng.below(50) as u64).collect();
        let loads = Loads::from_counts(1, experts, &row).unwrap();
        let all_slots = cluster.num_slots();
        let (mut best, mut best_distinct) = (f64::INFINITY, f64::INFINITY);
        for code in 0..(experts + 1).pow(all_slots as u32) {
            let digit = |slot: usize| code / (experts + 1).pow(slot as u32) % (experts + 1);
            let plan: Vec<i32> = (0..all_slots).map(|slot| digit(slot) as i32 - 1).collect();
            if let Ok(quality) = check::score(&loads, &cluster, &plan) {
                best = best.min(quality.layers[0].max_gpu_load);
                if quality.same_gpu_duplicates() == 0 {
                    best_distinct = best_distinct.min(quality.layers[0].max_gpu_load);
                }
            }
        }
        for (found, duplicates) in [(best, true), (best_distinct, false)] {
            let optimum = best_max_load(&row, &cluster, duplicates);
            let same = relative_eq!(found, optimum, max_relative = ROUNDING);
            assert!(same, "{found} against {optimum} for {row:?} on {cluster:?}, duplicates {duplicates}");
        }
    }
}

#[test]
fn scores_agree_with_whole_numbers() {
    let mut rng = Rng::new(3);
    for case in 0..600 {
        let instance = Instance::random(&mut rng);
        let (row, cluster) = (&instance.row, &instance.cluster);
        let plan = instance.random_plan(&mut rng);
        let quality = check::score(&instance.loads(), cluster, &plan).unwrap();
        let layer = &quality.layers[0];

        let count = |expert: i32| plan.iter().filter(|&&e| e == expert).count() as u128;
        let share =
            |expert: i32| if expert < 0 { 0 } else { u128::from(row[expert as usize]) * 840 / count(expert) };
        let assert_near = |value: f64, whole: u128, name: &str| {
            let wanted = whole as f64 / 840.0;
            let near = relative_eq!(value, wanted, max_relative = ROUNDING);
            assert!(near, "case {case}: {name} {value}, not {wanted}");
        };
        let gpus: Vec<&[i32]> = plan.chunks(cluster.slots_per_gpu()).collect();
        let gpu_loads = gpus.iter().map(|gpu| gpu.iter().map(|&e| share(e)).sum());
        assert_near(layer.max_gpu_load, gpu_loads.max().unwrap(), "max GPU load");
        assert_near(
            layer.max_replica_load,
            plan.iter().map(|&e| share(e)).max().unwrap(),
            "heaviest replica",
        );
        let total: u128 = row.iter().map(|&w| u128::from(w) * 840).sum();
        assert_near(layer.mean_gpu_load * cluster.num_gpus() as f64, total, "mean GPU load");
        assert_near(layer.mean_replica_load * cluster.num_replicas() as f64, total, "mean replica load");
        let duplicates = gpus.iter().map(|gpu| {
            let mut experts: Vec<i32> = gpu.iter().copied().filter(|&e| e >= 0).collect();
            let filled = experts.len();
            experts.sort_unstable();
            experts.dedup();
            filled - experts.len()
        });
        assert_eq!(layer.same_gpu_duplicates, duplicates.sum::<usize>(), "case {case}");
        let bound = bound::lower_bounds(&instance.loads(), cluster)[0];
        assert!(bound <= layer.max_gpu_load * (1.0 + ROUNDING), "case {case}: a plan below the bound");
    }
}
