//! GPUs of unequal speed: the judge, the bound and the planner against every plan of tiny instances.

use approx::assert_relative_eq;
use eplb_wgpu::{Cluster, Loads, bound, check};

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
    // Of four experts and two fast GPUs with four slots none has to be on the slow one; the mean is all there is.
    assert_relative_eq!(bound::lower_bounds(&loads, &cluster)[0], 68.0 / 2.25, max_relative = 1e-9);
    let gone = cluster.with_gpu_speeds(&[1.0, 0.0, 1.0]).unwrap_err().to_string();
    assert_eq!(gone, "num_replicas 5 is more than the 2 GPUs that are not at speed 0 have slots: 4");
    let gone = Cluster::with_slots_per_gpu(4, 1, 1, 3, 2).unwrap().with_gpu_speeds(&[1.0, 0.0, 1.0]).unwrap();
    let said = check::score(&loads, &gone, &[0, 1, 2, -1, 3, -1]).unwrap_err().to_string();
    assert_eq!(said, "plan is not valid: layer 0: slot 2 on GPU 1, which is gone (speed 0), holds expert 2");
    let layer = &check::score(&loads, &gone, &[0, 1, -1, -1, 3, 2]).unwrap().layers[0];
    assert_eq!((layer.max_gpu_load, layer.mean_gpu_load), (46.0, 34.0));
}
