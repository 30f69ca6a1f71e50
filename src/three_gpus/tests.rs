use super::*;
use crate::{Cluster, Loads, PlanOptions};

/// A placement of one layer on three GPUs, its parameters, and the load of a replica of each expert. There are fewer
/// experts than slots, so some have several replicas; where `free`, the last slot is free.
fn case(seed: u64, slots: usize, free: bool) -> (Params, Vec<u32>, Vec<u32>) {
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let experts = 3 * slots - 2 - usize::from(free);
    let counts: Vec<u64> = (0..experts).map(|_| 1 + draw(1000)).collect();
    let loads = Loads::from_counts(1, experts, &counts).unwrap();
    let cluster = Cluster::new(3 * slots, 1, 1, 3).unwrap();
    let options = PlanOptions { three_gpus: 1, ..PlanOptions::default() };
    let params = Params::new(&loads, &cluster, &options).unwrap();
    // A GPU holds experts that follow each other, so none twice.
    let filled = 3 * slots - usize::from(free);
    let row = (0..3 * slots).map(|at| if at < filled { (at % experts) as u32 } else { FREE }).collect();
    let each = (0..experts).map(|e| (1 + draw(10_000) as u32) / (1 + u32::from(e < 2))).collect();
    (params, row, each)
}

/// The least heaviest GPU of all ways to fill three GPUs without an expert twice on one, by trying every one.
fn by_hand(replicas: &[(u32, u32)], slots: usize, gpus: &mut [Vec<(u32, u32)>; 3]) -> u32 {
    let Some((&replica, left)) = replicas.split_first() else {
        return gpus.iter().map(|gpu| gpu.iter().map(|r| r.1).sum()).max().unwrap_or(0);
    };
    let mut least = u32::MAX;
    for gpu in 0..3 {
        let twice = replica.0 != FREE && gpus[gpu].iter().any(|held| held.0 == replica.0);
        if gpus[gpu].len() < slots && !twice {
            gpus[gpu].push(replica);
            least = least.min(by_hand(left, slots, gpus));
            gpus[gpu].pop();
        }
    }
    least
}

#[test]
fn three_gpus_end_as_light_as_any_way_makes_them() {
    for (seed, slots) in (0..60).map(|seed| (seed, 3 + (seed / 2 % 2) as usize)) {
        let (params, mut row, each) = case(seed, slots, seed % 2 == 1);
        let before = row.clone();
        let load = |e: u32| if e == FREE { 0 } else { each[e as usize] };
        let replicas: Vec<(u32, u32)> = row.iter().map(|&e| (e, load(e))).collect();
        let least = by_hand(&replicas, slots, &mut Default::default());
        let held = |e: usize| replicas.iter().filter(|replica| replica.0 == e as u32).count() as u32;
        let loads: Vec<u32> = each.iter().enumerate().map(|(e, &load)| load * held(e)).collect();
        let mut improver = Improver::new(&params);
        (improver.further_starts, improver.params.three_gpus) = (0, 1000);
        let found = improver.improve(0, &loads, &mut row);
        let heaviest = row.chunks_exact(slots).map(|gpu| gpu.iter().map(|&e| load(e)).sum::<u32>()).max();
        assert_eq!((found, heaviest), (least, Some(least)), "seed {seed}");
        let sorted = |row: &[u32]| {
            let mut row = row.to_vec();
            row.sort_unstable();
            row
        };
        assert_eq!(sorted(&row), sorted(&before), "seed {seed}");
        let has_twice = |gpu: &[u32]| (1..slots).any(|i| gpu[i] != FREE && gpu[..i].contains(&gpu[i]));
        assert!(!row.chunks_exact(slots).any(has_twice), "seed {seed}");
    }
}

#[test]
fn a_thorough_plan_is_lighter_with_three_gpus() {
    use crate::{DeviceChoice, Planner, Preset};
    let counts: Vec<u64> = (0..4 * 64u64).map(|i| i * i * i * 7919 % 1_000_003 + 1).collect();
    let loads = Loads::from_counts(4, 64, &counts).unwrap();
    let cluster = Cluster::new(80, 1, 1, 16).unwrap();
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let short = PlanOptions { patience: 64, ..Preset::THOROUGH.options() };
    let with = planner.plan(&loads, &cluster, &short).unwrap();
    let without = PlanOptions { patience: 16, three_gpus: 0, ..short };
    let without = planner.plan(&loads, &cluster, &without).unwrap();
    let peaks =
        |plan: &crate::Plan| -> f64 { plan.quality().layers.iter().map(|layer| layer.max_gpu_load).sum() };
    let (with, without) = (peaks(&with), peaks(&without));
    assert!(with < without, "{with} {without}");
}

#[test]
fn a_thorough_plan_of_steep_loads_gets_further_starts() {
    use crate::{DeviceChoice, Planner, Preset};
    // One start gives the heavy experts a replica too few or too many.
    let loads = Loads::from_counts(1, 7, &[100, 100, 100, 1, 1, 1, 1]).unwrap();
    let cluster = Cluster::new(12, 1, 1, 3).unwrap();
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let plan = planner.plan(&loads, &cluster, &Preset::THOROUGH.options()).unwrap();
    approx::assert_abs_diff_eq!(plan.quality().balancedness(), 1.0, epsilon = 1e-9);
}
