//! GPUs of unequal speed: the judge, the bound and the planner against every plan of tiny instances.

use approx::assert_relative_eq;
use eplb_wgpu::bound::{BoundEffort, BoundOptions};
use eplb_wgpu::{
    Cluster, DeviceChoice, Dispatch, Duplicates, Loads, PlanOptions, Planner, Preset, bound, check,
};

use crate::ROUNDING;
use crate::brute_force::best_max_load;
use crate::instances::{Instance, Rng};

/// Speeds of GPUs, few of them, so that some GPUs are alike.
const SPEEDS: [f64; 6] = [1.0, 1.0, 0.5, 0.75, 0.3, 0.1];

/// An instance whose GPUs are of unequal speed, or `None` where they came out equal.
fn random(rng: &mut Rng) -> Option<Instance> {
    let Instance { row, cluster } = Instance::random(rng);
    let speeds: Vec<f64> = (0..cluster.num_gpus()).map(|_| SPEEDS[rng.below(SPEEDS.len())]).collect();
    let cluster = cluster.with_gpu_speeds(&speeds).unwrap();
    (!cluster.has_equal_speeds()).then_some(Instance { row, cluster })
}

#[test]
fn the_bound_is_never_above_the_best_plan_and_no_plan_below_it() {
    let mut rng = Rng::new(31);
    let (mut loaded, mut met, mut sum, mut near) = (0.0, 0.0, 0.0, 0);
    for case in 0..700 {
        let Some(instance) = random(&mut rng) else { continue };
        let (loads, cluster) = (instance.loads(), &instance.cluster);
        let best = best_max_load(&instance.row, cluster, true);
        let bound = bound::lower_bounds(&loads, cluster)[0];
        assert!(bound <= best * (1.0 + ROUNDING), "case {case}: {bound} above {best} for {instance:?}");
        for _ in 0..8 {
            let plan = instance.random_plan(&mut rng);
            let layer = &check::score(&loads, cluster, &plan).unwrap().layers[0];
            assert!(layer.max_gpu_load >= best * (1.0 - ROUNDING), "case {case}: {plan:?} of {instance:?}");
            near += usize::from(layer.max_gpu_load <= best * (1.0 + ROUNDING));
        }
        if best > 0.0 {
            loaded += 1.0;
            met += f64::from(u8::from(bound >= best * (1.0 - ROUNDING)));
            sum += bound / best;
        }
    }
    let (met, ratio) = (met / loaded, sum / loaded);
    println!(
        "{loaded} instances, met {met:.3}, bound over optimum {ratio:.4}, {near} random plans are optimal"
    );
    assert!(loaded > 400.0 && near > 100 && met > 0.45 && ratio > 0.8, "{loaded}, {near}, {met}, {ratio}");
}

#[test]
fn few_slots_have_a_bound_that_knows_slow_gpus() {
    let mut rng = Rng::new(34);
    let (mut loaded, mut raised, mut sum) = (0.0, 0, 0.0);
    for case in 0..80 {
        let Instance { row, cluster } = Instance::with_few_slots(&mut rng, 2 + case % 2);
        let speeds: Vec<f64> = (0..cluster.num_gpus()).map(|_| SPEEDS[rng.below(4)]).collect();
        let instance = Instance { row, cluster: cluster.with_gpu_speeds(&speeds).unwrap() };
        let (loads, cluster) = (instance.loads(), &instance.cluster);
        let best = best_max_load(&instance.row, cluster, true);
        let bound = |effort| {
            let options = BoundOptions { effort, ..BoundOptions::default() };
            bound::lower_bounds_with(&loads, cluster, &options)[0]
        };
        let (quick, tight) = (bound(BoundEffort::Quick), bound(BoundEffort::Tight));
        assert!(
            quick <= tight && tight <= best * (1.0 + ROUNDING),
            "case {case}: {tight} {best} {instance:?}"
        );
        if best > 0.0 {
            let mean = instance.row.iter().map(|&load| load as f64).sum::<f64>() / speeds_of(cluster);
            loaded += 1.0;
            sum += tight / best;
            raised += usize::from(tight > mean * 1.01);
        }
    }
    println!("{loaded} instances, {raised} above the mean, bound over optimum {:.4}", sum / loaded);
    assert!(loaded > 60.0 && raised > 30 && sum / loaded > 0.92, "{loaded} {raised} {}", sum / loaded);
}

/// The sum of the speeds.
fn speeds_of(cluster: &Cluster) -> f64 {
    cluster.gpu_speeds().iter().sum()
}

#[test]
fn nodes_of_mostly_equal_gpus_are_planned_as_closely_as_equal_ones() {
    // 96 experts with steep loads, on 54 GPUs of two slots or 36 of three, some of them at half.
    let row: Vec<u64> = (0..96u64).map(|e| 20_000 / (8 + e) + e * 7919 % 101).collect();
    let loads = Loads::from_counts(1, 96, &row).unwrap();
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    for (gpus, slow, most) in [(54, 6, 0.012), (36, 4, 0.004)] {
        let mut speeds = vec![1.0; gpus];
        speeds[..slow].fill(0.5);
        let cluster = Cluster::new(108, 1, 1, gpus).unwrap().with_gpu_speeds(&speeds).unwrap();
        let gap = planner.plan(&loads, &cluster, &PlanOptions::default()).unwrap().quality().mean_gap();
        assert!(gap < most, "{gpus}: {gap}");
    }
}

#[test]
fn scores_a_plan_by_hand() {
    // GPUs {0, 1}, {0, 2}, {3, -}: 20 + 6 on speed 1, 20 + 12 on 1, 10 on a quarter.
    let loads = Loads::from_counts(1, 4, &[40, 6, 12, 10]).unwrap();
    let cluster = Cluster::with_slots_per_gpu(5, 1, 1, 3, 2).unwrap();
    let cluster = cluster.with_gpu_speeds(&[4.0, 4.0, 1.0]).unwrap();
    let plan = [0, 1, 0, 2, 3, -1];
    let quality = check::score(&loads, &cluster, &plan).unwrap();
    assert_relative_eq!(quality.layers[0].max_gpu_load, 40.0);
    assert_relative_eq!(quality.layers[0].mean_gpu_load, 68.0 / 2.25);
    assert_relative_eq!(quality.balancedness(), 68.0 / 2.25 / 40.0);
    // The best plan has 20 beside 12: the mean is less, but a replica of 20 needs a partner.
    let bound = bound::lower_bounds(&loads, &cluster)[0];
    assert!((31.9..=32.0).contains(&bound), "{bound}");
    let gone = cluster.with_gpu_speeds(&[1.0, 0.0, 1.0]).unwrap_err().to_string();
    assert_eq!(gone, "num_replicas 5 is more than the 2 GPUs that are not at speed 0 have slots: 4");
    let gone = Cluster::with_slots_per_gpu(4, 1, 1, 3, 2).unwrap().with_gpu_speeds(&[1.0, 0.0, 1.0]).unwrap();
    let said = check::score(&loads, &gone, &[0, 1, 2, -1, 3, -1]).unwrap_err().to_string();
    assert_eq!(said, "plan is not valid: layer 0: slot 2 on GPU 1, which is gone (speed 0), holds expert 2");
    let layer = &check::score(&loads, &gone, &[0, 1, -1, -1, 3, 2]).unwrap().layers[0];
    assert_eq!((layer.max_gpu_load, layer.mean_gpu_load), (46.0, 34.0));
}

/// The plan's heaviest GPU, over its speed.
fn heaviest(loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> f64 {
    let plan = Planner::new(DeviceChoice::Cpu).unwrap().plan(loads, cluster, options).unwrap();
    let layer = &plan.quality().layers[0];
    assert!(layer.max_gpu_load >= layer.lower_bound * (1.0 - ROUNDING), "{layer:?}");
    layer.max_gpu_load
}

#[test]
fn plans_are_near_the_best_one_and_never_worse_than_the_greedy_one() {
    let mut rng = Rng::new(32);
    let (mut loaded, mut met, mut sum, mut beaten, mut most) = (0.0, 0.0, 0.0, 0, 1.0f64);
    for case in 0..400 {
        let Some(instance) = random(&mut rng) else { continue };
        let (loads, cluster) = (instance.loads(), &instance.cluster);
        let may = rng.below(2) == 0;
        let duplicates = if may { Duplicates::Allow } else { Duplicates::Avoid };
        let found = heaviest(&loads, cluster, &PlanOptions { duplicates, ..PlanOptions::default() });
        let greedy = heaviest(&loads, cluster, &PlanOptions { duplicates, ..Preset::GREEDY.options() });
        // In fixed point each replica is rounded on its own.
        let rounding = 1.0 + 1e-5;
        assert!(found <= greedy * rounding, "case {case}: {found}, greedy {greedy} for {instance:?}");
        beaten += usize::from(found < greedy / rounding);
        let best = best_max_load(&instance.row, cluster, may);
        assert!(found >= best * (1.0 - ROUNDING) || best.is_infinite(), "case {case}: {found} below {best}");
        if best > 0.0 && best.is_finite() {
            loaded += 1.0;
            met += f64::from(u8::from(found <= best * rounding));
            sum += found / best;
            most = most.max(found / best);
        }
    }
    let (met, ratio) = (met / loaded, sum / loaded);
    println!(
        "{loaded} instances, optimal {met:.3}, over the optimum {ratio:.4}, at most {most:.2}, {beaten} beat greedy"
    );
    assert!(loaded > 250.0 && beaten > 60 && met > 0.95 && ratio < 1.02, "{met}, {ratio}, {beaten}");
}

#[test]
fn every_combination_is_planned_or_refused_by_name() {
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let mut rng = Rng::new(33);
    let (mut planned, mut refused) = (0, 0);
    for case in 0..250 {
        let (groups, nodes) = [(1, 1), (1, 2), (4, 2), (8, 4)][rng.below(4)];
        let cluster = Cluster::with_slots_per_gpu([40, 36][rng.below(2)], groups, nodes, 8, 5).unwrap();
        let mut speeds = [1.0; 8];
        (0..1 + rng.below(5)).for_each(|_| speeds[rng.below(8)] = SPEEDS[1 + rng.below(5)]);
        let cluster = cluster.with_gpu_speeds(&speeds).unwrap();
        let one = |rng: &mut Rng| {
            let counts: Vec<u64> = (0..64).map(|_| (rng.below(50) * rng.below(50)) as u64).collect();
            Loads::from_counts(2, 32, &counts).unwrap()
        };
        let loads = match rng.below(3) {
            0 => Loads::from_windows(&[one(&mut rng), one(&mut rng)], &[1.0, 2.0]).unwrap(),
            _ => one(&mut rng),
        };
        let presets: Vec<Preset> = Preset::all().collect();
        let base = if rng.below(2) == 0 {
            PlanOptions::default()
        } else {
            presets[rng.below(presets.len())].options()
        };
        let is_rare = |rng: &mut Rng| rng.below(8) == 0;
        let options = PlanOptions {
            connected: is_rare(&mut rng),
            max_foreign: u32::from(is_rare(&mut rng)),
            dispatch: if is_rare(&mut rng) { Dispatch::Nearest } else { Dispatch::Equal },
            duplicates: if is_rare(&mut rng) { Duplicates::Allow } else { Duplicates::Avoid },
            max_replicas_per_expert: is_rare(&mut rng).then_some(2),
            ..base
        };
        match planner.plan(&loads, &cluster, &options) {
            Ok(plan) => {
                planned += 1;
                let quality = plan.quality();
                assert!(quality.layers.iter().all(|l| l.max_gpu_load >= l.lower_bound * (1.0 - ROUNDING)));
                let again = planner.plan(&loads, &cluster, &options).unwrap();
                assert_eq!(again.fingerprint(), plan.fingerprint(), "case {case}");
                let known = cluster.has_equal_speeds() || (options.max_foreign == 0 && !options.connected);
                assert!(known, "case {case}: {options:?}");
            }
            Err(error) => {
                refused += 1;
                let said = error.to_string();
                let by_speeds = said.contains("gpu_speeds") && said.contains("wants equal ones: ");
                let otherwise = said.starts_with("windows") || said.starts_with("max_foreign");
                assert!(by_speeds || otherwise, "case {case}: {said}");
            }
        }
    }
    println!("{planned} planned, {refused} refused");
    assert!(planned > 60 && refused > 60, "{planned} {refused}");
}

#[test]
fn gpus_that_are_gone_stay_empty_and_the_others_have_the_plan_without_them() {
    let row: Vec<u64> = (0..24).map(|e| (e * 7919) % 101 + 1).collect();
    let (loads, planner) =
        (Loads::from_counts(1, 24, &row).unwrap(), Planner::new(DeviceChoice::Cpu).unwrap());
    let options = PlanOptions::default();
    let all = Cluster::with_slots_per_gpu(28, 1, 2, 8, 4).unwrap();
    let gone = all.clone().with_gpu_speeds(&[1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]).unwrap();
    let plan = planner.plan(&loads, &gone, &options).unwrap();
    assert_eq!(plan.physical_to_logical()[8..12], [-1; 4]);
    let of_others = planner.plan(&loads, &Cluster::new(28, 1, 1, 7).unwrap(), &options).unwrap();
    let filled: Vec<i32> = plan.physical_to_logical().iter().copied().filter(|&e| e >= 0).collect();
    assert_eq!(filled, of_others.physical_to_logical());
    assert_relative_eq!(plan.quality().balancedness(), of_others.quality().balancedness());
    // Speeds that are equal change nothing.
    let equal = all.clone().with_gpu_speeds(&[0.7; 8]).unwrap();
    assert_eq!(equal, all);
}

#[test]
fn bad_speeds_are_refused() {
    let cluster = Cluster::new(6, 1, 1, 3).unwrap();
    let said = |speeds: &[f64]| cluster.clone().with_gpu_speeds(speeds).unwrap_err().to_string();
    for (found, rule) in [
        (said(&[1.0, 1.0]), "gpu_speeds names 2 speeds for num_gpus 3: one for each GPU is needed"),
        (
            said(&[1.0, -0.5, 1.0]),
            "gpu_speeds -0.5 of GPU 1 is not a number, at least 0; 0 is for a GPU that is gone",
        ),
        (
            said(&[1.0, 1.0, f64::NAN]),
            "gpu_speeds NaN of GPU 2 is not a number, at least 0; 0 is for a GPU that is gone",
        ),
        (
            said(&[f64::INFINITY; 3]),
            "gpu_speeds inf of GPU 0 is not a number, at least 0; 0 is for a GPU that is gone",
        ),
        (said(&[0.0; 3]), "gpu_speeds 0 is the speed of every GPU: at least one must not be gone"),
        (
            said(&[50.0, 0.4, 50.0]),
            "gpu_speeds 0.4 of GPU 1 is less than a hundredth of the fastest, 50; 0 leaves the GPU empty",
        ),
        (
            said(&[1.0, 0.0, 1.0]),
            "num_replicas 6 is more than the 2 GPUs that are not at speed 0 have slots: 4",
        ),
    ] {
        assert_eq!(found, rule);
    }
    assert!(cluster.with_gpu_speeds(&[f64::MAX, f64::MAX, f64::MAX / 2.0]).is_ok());
}
