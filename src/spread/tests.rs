use approx::assert_relative_eq;

use super::*;
use crate::cases::Random;
use crate::{Cluster, DeviceChoice, Duplicates, Loads, Plan, PlanOptions, Planner, Preset, check};

/// Skewed loads of some layers.
fn loads(seed: u64, layers: usize, experts: usize) -> Loads {
    let mut random = Random(seed);
    let counts: Vec<u64> = (0..layers * experts).map(|_| 200_000 / (1 + random.below(60) as u64)).collect();
    Loads::from_counts(layers, experts, &counts).unwrap()
}

/// The plan with nodes, and the one for the same GPUs in one node.
fn plans(loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> (Plan, Plan) {
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let (replicas, gpus, slots) = (cluster.num_replicas(), cluster.num_gpus(), cluster.slots_per_gpu());
    let one = Cluster::with_slots_per_gpu(replicas, 1, 1, gpus, slots).unwrap();
    (planner.plan(loads, cluster, options).unwrap(), planner.plan(loads, &one, options).unwrap())
}

/// `replicas` on `gpus` GPUs in `nodes` nodes that hold no whole groups.
fn cluster(replicas: usize, nodes: usize, gpus: usize, slots: usize) -> Cluster {
    Cluster::with_slots_per_gpu(replicas, 1, nodes, gpus, slots).unwrap()
}

/// The heaviest GPU of each layer under a dispatch.
fn heaviest(plan: &Plan, cluster: &Cluster, dispatch: Dispatch) -> Vec<f64> {
    let map = plan.physical_to_logical();
    let traffic = check::traffic(plan.loads(), cluster, map, dispatch).unwrap();
    traffic.layers.iter().map(|layer| layer.max_gpu_load).collect()
}

/// More than what fixed point rounds.
const ROUNDING: f64 = 2e-6;

#[test]
fn whole_numbers_weigh_as_the_judge_does() {
    let mut random = Random(3);
    let mut weigher = Weigher::default();
    for (nodes, gpus, slots, experts) in [(2, 4, 3, 7), (4, 8, 2, 11), (3, 9, 4, 8), (2, 2, 5, 6)] {
        let cluster = cluster(gpus * slots, nodes, gpus, slots);
        let loads = loads(nodes as u64, 1, experts);
        let params = Params::new(&loads, &cluster, &PlanOptions::default()).unwrap();
        weigher.begin(&params, nodes as u32);
        for _ in 0..20 {
            let draw = |_| random.below(experts + 1) as u32;
            let row: Vec<u32> =
                (0..gpus * slots).map(draw).map(|e| e.checked_sub(1).unwrap_or(FREE)).collect();
            let map: Vec<i32> = crate::params::to_map(&row).collect();
            let fixed = loads.fixed_windows();
            let scale = fixed.iter().map(|&load| f64::from(load)).sum::<f64>() * 65_536.0
                / loads.values().iter().sum::<f64>();
            for dispatch in Dispatch::ALL {
                let judged = check::traffic(&loads, &cluster, &map, dispatch).unwrap().layers[0].max_gpu_load;
                let found = weigher.heaviest(dispatch, fixed, &row) as f64;
                assert_relative_eq!(found, judged * scale, max_relative = 1e-6);
            }
        }
    }
}

#[test]
fn the_hottest_experts_are_in_every_node() {
    let loads = [5, 90, 40, 40, 1, 70];
    assert_eq!(counts::hottest(&loads, 6, 3).unwrap(), [1, 3, 3, 1, 1, 3]);
    assert_eq!(counts::hottest(&loads, 5, 4).unwrap(), [1, 4, 2, 1, 1, 2]);
    assert_eq!(counts::hottest(&loads, 11, 3).unwrap(), [3, 3, 3, 3, 2, 3]);
    assert_eq!(counts::hottest(&loads, 12, 3).unwrap(), [3; 6]);
    assert_eq!(counts::hottest(&loads, 13, 3), None);
    assert_eq!(counts::hottest(&loads, 2, 1), None);
}

#[test]
fn replicas_are_in_as_many_nodes_as_can_be_and_nodes_are_even() {
    let cluster = cluster(72, 4, 8, 9);
    let loads = loads(9, 1, 40);
    let params = Params::new(&loads, &cluster, &PlanOptions::default()).unwrap();
    let mut counts = vec![1; 40];
    for (e, count) in [(0, 6), (1, 4), (2, 9), (3, 2), (4, 3), (5, 14)] {
        counts[e] = count;
    }
    for nearest in [false, true] {
        let spread = nodes::SpreadNodes::spread(&params, 4, nearest, loads.fixed_windows(), &counts).unwrap();
        let held: Vec<Vec<crate::given::Held>> = (0..4).map(|node| spread.held(node)).collect();
        let node_loads = held.iter().map(|node| node.iter().map(|held| held.load).sum::<u32>());
        let node_loads: Vec<u32> = node_loads.collect();
        let (most, least) = (node_loads.iter().max().unwrap(), node_loads.iter().min().unwrap());
        assert!(most - least < most / 100, "{node_loads:?}");
        assert!(held.iter().all(|node| node.iter().map(|held| held.count).sum::<u32>() <= 18));
        for (e, &count) in counts.iter().enumerate() {
            let of = held.iter().map(|node| node.iter().find(|held| held.expert == e as u32));
            let of: Vec<u32> = of.map(|held| held.map_or(0, |held| held.count)).collect();
            assert_eq!(of.iter().sum::<u32>(), count);
            assert!(of.iter().max().unwrap() - of.iter().min().unwrap() < 2, "{of:?}");
        }
    }
    counts[6] = 80;
    assert!(nodes::SpreadNodes::spread(&params, 4, false, loads.fixed_windows(), &counts).is_none());
}

#[test]
fn more_stays_in_the_node_and_balance_costs_at_most_100_ppm() {
    // No expert is heavier than a quarter of the mean GPU.
    let mut random = Random(1);
    let counts: Vec<u64> = (0..4 * 128).map(|_| 1000 + random.below(9000) as u64).collect();
    let loads = Loads::from_counts(4, 128, &counts).unwrap();
    for (cluster, options) in [
        (cluster(144, 4, 16, 9), PlanOptions::default()),
        (cluster(160, 2, 16, 10), PlanOptions::default()),
        (cluster(150, 4, 16, 10), PlanOptions::default()),
        (cluster(144, 4, 16, 9), PlanOptions { duplicates: Duplicates::Allow, ..PlanOptions::default() }),
        (cluster(144, 4, 16, 9), PlanOptions { max_replicas_per_expert: Some(2), ..PlanOptions::default() }),
    ] {
        let (spread, today) = plans(&loads, &cluster, &options);
        let most = options.max_replicas_per_expert.unwrap_or(u32::MAX);
        assert!(spread.replica_counts().iter().all(|&count| count <= most));
        assert_eq!(spread.quality().same_gpu_duplicates(), 0);
        let costs = heaviest(&spread, &cluster, Dispatch::Equal);
        for (cost, before) in costs.iter().zip(heaviest(&today, &cluster, Dispatch::Equal)) {
            assert!(*cost <= before * (1.0 + 1e-4 + ROUNDING), "{cost} {before}");
        }
        let before =
            check::traffic(&loads, &cluster, today.physical_to_logical(), Dispatch::Nearest).unwrap();
        let nearest = spread.traffic(Dispatch::Nearest);
        assert!(nearest.in_node() > before.in_node() + 0.005, "{nearest:?} {before:?}");
        assert!(nearest.balancedness() > 0.999, "{nearest:?}");
        // With two replicas an expert the plan made without nodes loses nothing either.
        assert!(nearest.balancedness() > before.balancedness() - 1e-4, "{before:?}");
    }
}

#[test]
fn no_layer_is_worse_than_the_greedy_rule() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let (nodes, node_gpus, slots) = (2 + random.below(3), 1 + random.below(4), 1 + random.below(5));
        let gpus = nodes * node_gpus;
        let experts = (gpus * slots * 2).div_ceil(3);
        let replicas = gpus * slots - random.below(2) * random.below(gpus * slots / 4 + 1);
        let cluster = Cluster::with_slots_per_gpu(replicas, nodes + 1, nodes, gpus, slots).unwrap();
        let loads = loads(seed, 3, experts);
        for duplicates in [Duplicates::Allow, Duplicates::Avoid] {
            let options = PlanOptions { duplicates, ..Preset::FAST.options() };
            let (spread, today) = plans(&loads, &cluster, &options);
            let greedy = PlanOptions { duplicates, ..Preset::GREEDY.options() };
            let (greedy, _) = plans(&loads, &cluster, &greedy);
            for dispatch in Dispatch::ALL {
                let options = PlanOptions { dispatch, ..options.clone() };
                let judged = plans(&loads, &cluster, &options).0;
                let (found, least) =
                    (heaviest(&judged, &cluster, dispatch), heaviest(&greedy, &cluster, dispatch));
                for (found, least) in found.iter().zip(least) {
                    assert!(*found <= least * (1.0 + 8.0 * ROUNDING), "{seed} {dispatch}: {found} {least}");
                }
            }
            let (nearest, before) = (spread.traffic(Dispatch::Nearest), today.physical_to_logical());
            let before = check::traffic(&loads, &cluster, before, Dispatch::Nearest).unwrap();
            assert!(nearest.in_node() >= before.in_node() - 1e-12, "{seed}");
        }
    }
}

#[test]
fn what_cannot_be_spread_is_left_as_it_is() {
    let skewed = loads(5, 2, 24);
    let several = Loads::from_windows(&[skewed.clone(), loads(6, 2, 24)], &[1.0, 1.0]).unwrap();
    let cold = Loads::from_counts(2, 24, &[0; 48]).unwrap();
    let default = PlanOptions::default();
    for (loads, cluster, options) in [
        (&skewed, cluster(24, 4, 8, 3), default.clone()),
        (&skewed, cluster(32, 4, 8, 4), Preset::GREEDY.options()),
        (&skewed, cluster(32, 4, 8, 4), Preset::GEN10.options()),
        (&several, cluster(32, 4, 8, 4), default.clone()),
        (&cold, cluster(32, 4, 8, 4), default.clone()),
    ] {
        let (spread, today) = plans(loads, &cluster, &options);
        assert_eq!(spread.placement(), today.placement());
        assert_eq!(spread.stops(), today.stops());
    }
}
