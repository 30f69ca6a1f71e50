//! Small layers with known right answers, and random ones against a search of all plans.
//!
//! The short form is part of the tests. More of the random layers:
//!
//!     EPLB_CASES_LAYERS=2000 cargo test --test cases

#[path = "oracle/brute_force.rs"]
mod brute_force;
#[allow(dead_code)]
#[path = "oracle/instances.rs"]
mod instances;

use approx::assert_relative_eq;
use brute_force::{best_capped_load, best_max_load};
use eplb_wgpu::bound::{self, BoundOptions};
use eplb_wgpu::check;
use eplb_wgpu::{Cluster, DeviceChoice, Duplicates, Loads, Plan, PlanOptions, Planner, Preset};
use instances::Rng;

/// Loads in fixed point are that close to those given, relatively to the heaviest GPU of small layers.
const ROUNDING: f64 = 1e-6;

fn loads(rows: &[&[u64]]) -> Loads {
    Loads::from_counts(rows.len(), rows[0].len(), &rows.concat()).unwrap()
}

fn plan(loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Plan {
    let plan = Planner::new(DeviceChoice::Cpu).unwrap().plan(loads, cluster, options).unwrap();
    let again = check::score(loads, cluster, plan.physical_to_logical()).unwrap();
    for (layer, scored) in plan.quality().layers.iter().zip(&again.layers) {
        assert_eq!(layer.max_gpu_load, scored.max_gpu_load);
        assert!(layer.lower_bound <= layer.max_gpu_load * (1.0 + 1e-9), "{layer:?}");
    }
    plan
}

fn heaviest(plan: &Plan) -> Vec<f64> {
    plan.quality().layers.iter().map(|layer| layer.max_gpu_load).collect()
}

fn preset(name: &str) -> PlanOptions {
    name.parse::<Preset>().unwrap().options()
}

#[track_caller]
fn assert_near(found: f64, right: f64) {
    assert_relative_eq!(found, right, max_relative = ROUNDING);
}

/// The example of DeepSeek's readme: another assignment of groups than the one with the best bound wins.
#[test]
fn the_readme_example_is_optimal() {
    let loads = loads(&[
        &[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        &[20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]);
    let cluster = Cluster::new(16, 4, 2, 8).unwrap();
    for name in ["default", "thorough", "fast"] {
        let plan = plan(&loads, &cluster, &preset(name));
        let [first, second] = heaviest(&plan)[..] else { panic!("two layers") };
        assert_near(first, 151.0);
        assert_near(second, 179.5);
        assert_eq!(plan.quality().same_gpu_duplicates(), 0);
    }
}

#[test]
fn nine_slots_of_six_experts_are_optimal() {
    let loads = loads(&[&[22, 99, 64, 213, 43, 18]]);
    let cluster = Cluster::new(9, 1, 1, 3).unwrap();
    for name in ["default", "thorough", "fast"] {
        assert_near(heaviest(&plan(&loads, &cluster, &preset(name)))[0], 156.5);
    }
}

/// Groups to nodes of two slots a GPU: the bound of an assignment does not decide.
#[test]
fn a_recorded_hierarchical_layer_finds_its_assignment() {
    // Layer 0 of a recording of DeepSeek-V2-Lite.
    let loads = loads(&[&[
        496, 589, 871, 393, 402, 646, 2086, 1185, 3219, 503, 580, 584, 474, 487, 148, 273, 300, 235, 415,
        353, 1967, 419, 891, 234, 914, 1372, 2280, 730, 200, 196, 504, 637, 1582, 1196, 384, 423, 319, 303,
        369, 824, 516, 297, 418, 1709, 338, 470, 793, 565, 954, 877, 797, 539, 1081, 270, 318, 2144, 1270,
        1465, 163, 342, 1525, 369, 1682, 411,
    ]]);
    let cluster = Cluster::new(72, 8, 4, 36).unwrap();
    let plan = plan(&loads, &cluster, &PlanOptions::default());
    assert!(heaviest(&plan)[0] <= 1730.0 * (1.0 + ROUNDING), "{}", heaviest(&plan)[0]);
    assert!(plan.quality().worst_gap() < 1e-3, "{}", plan.quality().worst_gap());
}

/// Without loads no expert is favoured: each has as many replicas as any other, but for one.
#[test]
fn a_layer_without_load_has_even_counts() {
    for (experts, replicas, groups, nodes, gpus) in [
        (256, 288, 1, 1, 32),
        (256, 288, 8, 4, 32),
        (256, 320, 8, 2, 64),
        (64, 100, 1, 1, 10),
        (6, 8, 1, 1, 4),
        (12, 16, 4, 2, 8),
        (8, 8, 1, 1, 8),
    ] {
        let cluster = Cluster::new(replicas, groups, nodes, gpus).unwrap();
        // A layer with load beside it changes nothing.
        let hot: Vec<u64> = (0..experts as u64).map(|expert| 1000 / (expert + 1)).collect();
        let loads = loads(&[&vec![0; experts], &hot]);
        for name in ["default", "thorough", "fast", "scenarios"] {
            let plan = plan(&loads, &cluster, &preset(name));
            let counts = &plan.replica_counts()[..experts];
            let even = (replicas / experts) as u32;
            let all_even = counts.iter().all(|count| (even..=even + 1).contains(count));
            assert!(all_even, "{name}, {cluster:?}: {counts:?}");
            assert_eq!(plan.quality().layers[0].same_gpu_duplicates, 0);
        }
    }
}

#[test]
fn replicas_of_an_expert_are_limited() {
    // One expert has nearly all the load.
    let mut row = vec![1; 256];
    row[7] = 50_000;
    let (hot, cluster) = (loads(&[&row]), Cluster::new(320, 1, 1, 64).unwrap());
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let free = plan(&hot, &cluster, &PlanOptions::default());
    assert_eq!((free.replica_counts()[7], free.max_replicas()), (64, 64));
    for most in [2, 4, 16, 64, 1000] {
        for (name, duplicates) in
            [("default", Duplicates::Avoid), ("fast", Duplicates::Allow), ("gen10", Duplicates::Allow)]
        {
            let options = PlanOptions { max_replicas_per_expert: Some(most), duplicates, ..preset(name) };
            let plan = plan(&hot, &cluster, &options);
            assert!(plan.max_replicas() <= most as usize, "{name}, {most}: {}", plan.max_replicas());
            // The bound knows of the limit, so that the plan is not far from it.
            let gap = plan.quality().worst_gap();
            assert!(gap < 0.01 || most > 64, "{name}, {most}: {gap}");
            let limited = BoundOptions { max_replicas_per_expert: Some(most), ..BoundOptions::default() };
            let bound = bound::lower_bounds_with(&hot, &cluster, &limited)[0];
            assert_eq!(plan.quality().layers[0].lower_bound, bound, "{name}, {most}");
            if most <= 16 {
                let unlimited = free.quality().layers[0].lower_bound;
                assert!(bound >= 49_950.0 / f64::from(most) && bound > 2.0 * unlimited, "{most}: {bound}");
            }
        }
    }
    let refused = |most: u32, cluster: &Cluster| {
        let options = PlanOptions { max_replicas_per_expert: Some(most), ..PlanOptions::default() };
        planner.plan(&hot, cluster, &options).unwrap_err().to_string()
    };
    let rule = "is too few: 320 replicas of 256 experts need 2";
    assert_eq!(refused(1, &cluster), format!("max_replicas_per_expert 1 {rule}"));
    assert_eq!(refused(0, &cluster), format!("max_replicas_per_expert 0 {rule}"));
    let nodes = Cluster::new(320, 8, 4, 64).unwrap();
    assert!(
        refused(1, &nodes).starts_with("max_replicas_per_expert 1 is too few: 80 replicas of 64 experts")
    );
}

/// Small layers under a limit, against all plans that keep it.
#[test]
fn limited_layers_are_optimal() {
    let mut rng = Rng::new(12);
    for _ in 0..layers() / 4 {
        let row: Vec<u64> = (0..5).map(|_| rng.below(200) as u64).collect();
        let cluster = Cluster::new(8, 1, 1, 4).unwrap();
        for most in [2, 3] {
            let options = PlanOptions { max_replicas_per_expert: Some(most), ..PlanOptions::default() };
            let found = heaviest(&plan(&loads(&[&row]), &cluster, &options))[0];
            assert_optimal(found, best_capped_load(&row, &cluster, false, most as usize), &row);
        }
    }
}

/// Where nothing is replicated and all GPUs are alike, nothing has to move.
#[test]
fn nothing_moves_where_nothing_is_gained() {
    for row in [[30, 20, 10], [10, 20, 30], [0, 0, 0], [5, 5, 5]] {
        let cluster = Cluster::new(3, 1, 1, 3).unwrap();
        let plan = plan(&loads(&[&row]), &cluster, &PlanOptions::default());
        assert_eq!(plan.physical_to_logical(), [0, 1, 2], "{row:?}");
    }
    // Of a size that is not searched to the end, too.
    let row: Vec<u64> = (0..128).map(|expert| (expert * 37) % 101).collect();
    let cluster = Cluster::new(128, 1, 1, 128).unwrap();
    for name in ["default", "fast", "thorough"] {
        let plan = plan(&loads(&[&row]), &cluster, &preset(name));
        assert!(plan.physical_to_logical().iter().copied().eq(0..128), "{name}");
    }
}

/// The best plan without a second replica of an expert on a GPU, and the best one with.
#[test]
fn duplicates_are_avoided_at_the_least_cost() {
    let cluster = Cluster::new(8, 1, 1, 4).unwrap();
    for (row, avoid, allow) in [([44, 30, 20, 10, 7, 7], 33.5, 30.0), ([36, 23, 21, 5, 2, 1], 23.5, 23.0)] {
        for name in ["default", "fast", "thorough"] {
            let of = |duplicates| {
                let options = PlanOptions { duplicates, ..preset(name) };
                let plan = plan(&loads(&[&row]), &cluster, &options);
                (heaviest(&plan)[0], plan.quality().same_gpu_duplicates())
            };
            let (reached, duplicates) = of(Duplicates::Avoid);
            assert_near(reached, avoid);
            assert_eq!(duplicates, 0);
            assert_near(of(Duplicates::Allow).0, allow);
        }
    }
}

/// Seven groups on three nodes make one node of all; 18 slots of 8 experts.
#[test]
fn a_plan_without_duplicates_is_found_where_one_is_best() {
    let loads = loads(&[&[948, 628, 0, 0, 54, 66, 0, 0]]);
    let cluster = Cluster::with_slots_per_gpu(18, 7, 3, 9, 2).unwrap();
    let plan = plan(&loads, &cluster, &PlanOptions::default());
    assert_near(heaviest(&plan)[0], 190.0);
    assert_eq!(plan.quality().same_gpu_duplicates(), 0);
}

/// Two equal experts, three replicas, two GPUs: greedy has one expert twice on a GPU, and is better for it. That is
/// the rule, and with duplicates allowed the plan is as good.
#[test]
fn greedy_wins_by_duplicates_alone() {
    let loads = loads(&[&[1001, 1001]]);
    let cluster = Cluster::with_slots_per_gpu(3, 5, 2, 2, 2).unwrap();
    let greedy = plan(&loads, &cluster, &Preset::GREEDY.options());
    assert_near(heaviest(&greedy)[0], 1001.0);
    assert_eq!(greedy.quality().same_gpu_duplicates(), 1);
    let ours = plan(&loads, &cluster, &PlanOptions::default());
    assert_near(heaviest(&ours)[0], 1501.5);
    assert_eq!(ours.quality().same_gpu_duplicates(), 0);
    let allowed = PlanOptions { duplicates: Duplicates::Allow, ..PlanOptions::default() };
    assert_near(heaviest(&plan(&loads, &cluster, &allowed))[0], 1001.0);
}

/// How many random layers of each shape.
fn layers() -> usize {
    std::env::var("EPLB_CASES_LAYERS").map_or(200, |text| text.parse().expect("a number of layers"))
}

#[track_caller]
fn assert_optimal(found: f64, best: f64, row: &[u64]) {
    assert!(found >= best * (1.0 - 1e-9), "{row:?}: {found} is below the best of all plans, {best}");
    assert!(found <= best * (1.0 + ROUNDING), "{row:?}: {found}, where {best} is possible");
}

/// Loads of one of several kinds.
fn random_row(rng: &mut Rng, experts: usize) -> Vec<u64> {
    let kind = rng.below(5);
    let load = |expert: usize, rng: &mut Rng| match kind {
        0 => rng.below(200),
        1 => 1000 / (1 + expert) + rng.below(10),
        2 => 1 << rng.below(12),
        3 => 90 + rng.below(20),
        _ => rng.below(30) * rng.below(30),
    };
    (0..experts).map(|expert| load(expert, rng) as u64).collect()
}

/// Every plan of random layers of a shape, under both rules on duplicates.
fn compare(seed: u64, experts: usize, cluster: &Cluster) {
    let mut rng = Rng::new(seed);
    for layer in 0..layers() {
        let row = random_row(&mut rng, experts);
        // Every second layer under the one rule, the others under the other.
        let duplicates = [Duplicates::Avoid, Duplicates::Allow][layer % 2];
        let best = best_max_load(&row, cluster, duplicates == Duplicates::Allow);
        for name in ["default", "fast"] {
            let options = PlanOptions { duplicates, ..preset(name) };
            assert_optimal(heaviest(&plan(&loads(&[&row]), cluster, &options))[0], best, &row);
        }
    }
}

#[test]
fn layers_of_six_experts_are_optimal() {
    compare(1, 6, &Cluster::new(8, 1, 1, 4).unwrap());
}

#[test]
fn layers_of_twelve_experts_in_four_groups_are_optimal() {
    compare(2, 12, &Cluster::new(16, 4, 2, 8).unwrap());
}

#[test]
fn with_duplicates_a_layer_does_not_depend_on_the_others() {
    // The search of the first layer ends at the bound, that of the second does not.
    let closed = [2290, 8808, 10993, 1138, 714, 990, 247, 270, 228, 21759, 998, 1030, 11957, 286, 2832, 4235];
    let open = [195729, 7770, 218, 119, 470, 1123, 1791, 1248, 83, 69, 462, 308, 32, 114, 1222, 143];
    let cluster = Cluster::new(20, 1, 1, 2).unwrap();
    let options = PlanOptions { duplicates: Duplicates::Allow, seed: 6, ..PlanOptions::default() };
    let plan = |layers: usize, counts: &[u64]| {
        let loads = Loads::from_counts(layers, 16, counts).unwrap();
        Planner::new(DeviceChoice::Cpu).unwrap().plan(&loads, &cluster, &options).unwrap()
    };
    let (alone, both) = (plan(1, &closed), plan(2, &[closed, open].concat()));
    assert_eq!(both.physical_to_logical()[..20], *alone.physical_to_logical());
}
