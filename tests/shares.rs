//! Tables of shares: they sum up, are the same whatever makes them, and level what can be levelled.

use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer};
use eplb_wgpu::{Cluster, DeviceChoice, Loads, PARTS, PlanOptions, Planner, Shares, check};
use proptest::prelude::*;

/// A map of `gpus x slots` slots, whose first slots hold each expert once, and loads of them.
#[derive(Clone, Debug)]
struct Case {
    cluster: Cluster,
    map: Vec<i32>,
    loads: Vec<Vec<u64>>,
}

impl Case {
    fn experts(&self) -> usize {
        self.loads[0].len()
    }

    fn gpus(&self) -> usize {
        self.cluster.num_gpus()
    }

    fn window(&self, at: usize) -> Loads {
        Loads::from_counts(1, self.experts(), &self.loads[at]).unwrap()
    }

    fn windows(&self) -> Vec<Loads> {
        (0..self.loads.len()).map(|at| self.window(at)).collect()
    }

    /// The heaviest GPU of a window under a table.
    fn peak(&self, window: usize, shares: &Shares) -> f64 {
        let quality = check::score_shares(&self.window(window), &self.cluster, &self.map, shares.parts());
        quality.unwrap().layers[0].max_gpu_load
    }
}

fn cases(gpus: std::ops::RangeInclusive<usize>, most_windows: usize) -> impl Strategy<Value = Case> {
    let shape = (gpus, 1usize..=3, 1..=most_windows);
    let shape =
        shape.prop_flat_map(|(gpus, slots, windows)| (1..=gpus * slots, Just((gpus, slots, windows))));
    shape.prop_flat_map(|(experts, (gpus, slots, windows))| {
        let all = gpus * slots;
        let further = proptest::collection::vec(0..experts as i32, all - experts);
        let load = prop_oneof![3 => 0u64..1000, 1 => 0u64..100_000];
        let loads = proptest::collection::vec(proptest::collection::vec(load, experts), windows);
        let order = Just((0..all).collect::<Vec<_>>()).prop_shuffle();
        (further, loads, order).prop_map(move |(further, loads, order)| {
            let held: Vec<i32> = (0..experts as i32).chain(further).collect();
            let map = order.iter().map(|&at| held[at]).collect();
            Case { cluster: Cluster::new(all, 1, 1, gpus).unwrap(), map, loads }
        })
    })
}

/// A load that no table goes below: for each set of GPUs, the load of the experts that live there alone, over its speed.
fn bound(case: &Case) -> f64 {
    let (gpus, slots) = (case.cluster.num_gpus(), case.cluster.slots_per_gpu());
    let mut on = vec![0u32; case.experts()];
    for (slot, &expert) in case.map.iter().enumerate() {
        on[expert as usize] |= 1 << (slot / slots);
    }
    let carried = |set: u32| -> f64 {
        let inside = on.iter().zip(&case.loads[0]).filter(|(on, _)| **on & !set == 0);
        inside.map(|(_, &load)| load as f64).sum()
    };
    let speed = |set: u32| {
        (0..gpus).filter(|gpu| set >> gpu & 1 == 1).map(|gpu| case.cluster.gpu_speeds()[gpu]).sum::<f64>()
    };
    (1..1u32 << gpus).map(|set| carried(set) / speed(set)).fold(0.0, f64::max)
}

/// The same case on GPUs of these speeds.
fn with_speeds(case: Case, speeds: &[f64; 8]) -> Case {
    let cluster = case.cluster.clone().with_gpu_speeds(&speeds[..case.gpus()]).unwrap();
    Case { cluster, ..case }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, rng_seed: prop::test_runner::RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_is_levelled_as_far_as_its_plan_allows(case in cases(2..=6, 1)) {
        let batch = case.window(0);
        let shares = Shares::of_batch(&case.cluster, &case.map, &batch).unwrap();
        let even = Shares::even(case.experts(), &case.cluster, &case.map).unwrap();
        let peak = case.peak(0, &shares);
        prop_assert!(peak <= case.peak(0, &even) * (1.0 + 1e-6));
        // Sweeps end near the optimum, which is the bound (flow through cuts); parts are rounded to 1/256 of an expert.
        let rounding: f64 = case.loads[0].iter().map(|&load| load as f64).fold(0.0, f64::max) / 256.0;
        let most = bound(&case) * 1.02 + rounding * 2.0;
        prop_assert!(peak >= bound(&case) * (1.0 - 1e-9) && peak <= most, "{peak} {}", bound(&case));
    }

    #[test]
    fn a_slow_gpu_has_less_of_a_batch(case in cases(2..=6, 1), speeds in speeds()) {
        let case = with_speeds(case, &speeds);
        let shares = Shares::of_batch(&case.cluster, &case.map, &case.window(0)).unwrap();
        let rounding: f64 = case.loads[0].iter().map(|&load| load as f64).fold(0.0, f64::max) / 256.0;
        let most = bound(&case) * 1.05 + rounding * 2.0 / 0.25;
        let peak = case.peak(0, &shares);
        prop_assert!(peak >= bound(&case) * (1.0 - 1e-9) && peak <= most, "{peak} {}", bound(&case));
    }

    #[test]
    fn tables_for_windows_lower_the_squares_over_speed(case in cases(2..=8, 1), speeds in speeds()) {
        let case = with_speeds(case, &speeds);
        let shares = Shares::of_windows(&case.cluster, &case.map, &case.windows()).unwrap();
        let even = Shares::even(case.experts(), &case.cluster, &case.map).unwrap();
        let (dealt, even) = (squares(&case, &shares), squares(&case, &even));
        prop_assert!(dealt <= even * (1.0 + 1e-3), "{dealt} {even}");
    }

    #[test]
    fn tables_for_windows_lower_the_squares(case in cases(2..=8, 6)) {
        let shares = Shares::of_windows(&case.cluster, &case.map, &case.windows()).unwrap();
        let table = Shares::new(case.experts(), &case.cluster, &case.map, shares.parts().to_vec());
        prop_assert_eq!(table.unwrap(), shares.clone());
        if case.loads.len() == 1 {
            // One window is its own scenario.
            let squares = |shares: &Shares| squares(&case, shares);
            let even = Shares::even(case.experts(), &case.cluster, &case.map).unwrap();
            prop_assert!(squares(&shares) <= squares(&even) * (1.0 + 1e-3));
        }
    }

    #[test]
    fn a_sample_is_believed_the_more_the_larger_it_is(case in cases(2..=6, 5), scale in 1u64..1000) {
        let counts: Vec<u64> = case.loads[0].iter().map(|load| load * scale).collect();
        let sample = Loads::from_counts(1, case.experts(), &counts).unwrap();
        let shares = Shares::of_sample(&case.cluster, &case.map, &case.windows(), &sample).unwrap();
        let table = Shares::new(case.experts(), &case.cluster, &case.map, shares.parts().to_vec());
        prop_assert_eq!(table.unwrap(), shares);
    }
}

/// The squares of the GPUs' loads in the first window, and the pull to even shares.
fn squares(case: &Case, shares: &Shares) -> f64 {
    let total: f64 = case.loads[0].iter().map(|&load| load as f64).sum::<f64>().max(1.0);
    let mut gpus = vec![0.0; case.cluster.num_gpus()];
    let mut pull = 0.0;
    for (slot, (&expert, &part)) in case.map.iter().zip(shares.parts()).enumerate() {
        let load = case.loads[0][expert as usize] as f64 / total * f64::from(part) / f64::from(PARTS);
        let gpu = slot / case.cluster.slots_per_gpu();
        gpus[gpu] += load;
        pull += 0.1 * load * load / case.cluster.gpu_speeds()[gpu];
    }
    let over_speed = gpus.iter().zip(case.cluster.gpu_speeds()).map(|(load, speed)| load * load / speed);
    over_speed.sum::<f64>() + pull
}

fn speeds() -> impl Strategy<Value = [f64; 8]> {
    proptest::array::uniform8(prop_oneof![Just(1.0), Just(0.5), 0.25..1.0])
}

#[test]
fn a_gpu_of_half_the_speed_has_half_the_load() {
    let cluster = Cluster::new(6, 1, 1, 3).unwrap().with_gpu_speeds(&[1.0, 1.0, 0.5]).unwrap();
    let loads = Loads::from_counts(1, 2, &[100, 100]).unwrap();
    let map = [0, 1, 1, 0, 0, 1];
    for shares in [
        Shares::of_batch(&cluster, &map, &loads).unwrap(),
        Shares::of_windows(&cluster, &map, &[loads.clone(), loads.clone()]).unwrap(),
    ] {
        let score = check::score_shares(&loads, &cluster, &map, shares.parts()).unwrap();
        assert!(score.balancedness() > 0.98, "{shares:?}");
        let slow: u16 = shares.parts()[4..].iter().sum();
        assert!((98..=106).contains(&slow), "{shares:?}");
    }
    let gone = Cluster::with_slots_per_gpu(4, 1, 1, 3, 2).unwrap().with_gpu_speeds(&[1.0, 0.0, 1.0]).unwrap();
    let said = Shares::of_batch(&gone, &map, &loads).unwrap_err().to_string();
    assert!(said.ends_with("slot 2 on GPU 1, which is gone (speed 0), holds expert 1"), "{said}");
}

/// Two experts on each of 48 GPUs: of the 256 parts of each, 16 are left over, and no GPU is to get two of them.
#[test]
fn parts_that_are_left_over_go_to_the_lightest_gpus() {
    let cluster = Cluster::new(96, 1, 1, 48).unwrap();
    let loads = Loads::from_counts(1, 2, &[1000, 1000]).unwrap();
    let map = [0, 1].repeat(48);
    let shares = Shares::of_batch(&cluster, &map, &loads).unwrap();
    let most = shares.parts().chunks(2).map(|parts| parts.iter().sum::<u16>()).max();
    assert_eq!(most, Some(11), "the mean is 512 / 48 = 10.7");
}

/// Loads of many layers that drift.
fn series(windows: u64) -> Vec<Loads> {
    let load = |window: u64, layer: u64, expert: u64| {
        let wave = (expert * 7 + layer * 13) % 23 + (window * (expert % 5) + layer) % 17;
        1000 / (1 + expert % 9) + 40 * wave
    };
    let window = |window: u64| {
        let counts: Vec<u64> =
            (0..5u64).flat_map(|layer| (0..24).map(move |expert| load(window, layer, expert))).collect();
        Loads::from_counts(5, 24, &counts).unwrap()
    };
    (0..windows).map(window).collect()
}

#[test]
fn tables_do_not_depend_on_threads_nor_on_other_layers() {
    let windows = series(20);
    let cluster = Cluster::new(32, 1, 1, 8).unwrap();
    let plan = |threads: usize| {
        let planner = Planner::new(DeviceChoice::Cpu).unwrap().with_threads(threads).unwrap();
        planner.plan(&windows[19], &cluster, &PlanOptions::default()).unwrap()
    };
    let (one, many) = (plan(1), plan(7));
    let sample = &windows[3];
    let tables = |plan: &eplb_wgpu::Plan| {
        [
            plan.shares(&windows).unwrap(),
            plan.shares_with_sample(&windows, sample).unwrap(),
            plan.batch_shares(sample).unwrap(),
        ]
    };
    assert_eq!(tables(&one), tables(&many));
    // Written down once, of a map that no planner made: equal bytes on every processor.
    let expert = |slot: i32| if slot < 24 { slot * 5 % 24 } else { (slot * 7 + 1) % 24 };
    let map: Vec<i32> = (0..5 * 32).map(|slot| expert(slot % 32)).collect();
    let made = [
        Shares::of_windows(&cluster, &map, &windows),
        Shares::of_sample(&cluster, &map, &windows, sample),
        Shares::of_batch(&cluster, &map, sample),
    ];
    let fingerprints = made.map(|shares| format!("{:016x}", shares.unwrap().fingerprint()));
    assert_eq!(fingerprints, ["f887253e972f16de", "60977432af528167", "3138addee374070b"]);
    let slots = cluster.num_slots();
    for (layer, row) in one.physical_to_logical().chunks(slots).enumerate() {
        let alone = Loads::from_counts(1, 24, &counts(sample.layer(layer))).unwrap();
        let shares = Shares::of_batch(&cluster, row, &alone).unwrap();
        assert_eq!(shares.parts(), &tables(&one)[2].parts()[layer * slots..(layer + 1) * slots]);
    }
}

fn counts(loads: &[f64]) -> Vec<u64> {
    loads.iter().map(|&load| load as u64).collect()
}

#[test]
fn connected_plans_hang_together_and_level_any_batch() {
    let windows = series(2);
    for (groups, nodes, parts) in [(1, 1, 1), (4, 2, 2)] {
        let cluster = Cluster::new(40, groups, nodes, 8).unwrap();
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let options = PlanOptions { connected: true, ..PlanOptions::default() };
        let plan = planner.plan(&windows[0], &cluster, &options).unwrap();
        let free = planner.plan(&windows[0], &cluster, &PlanOptions::default()).unwrap();
        assert_eq!(check::parts(&cluster, plan.physical_to_logical()).unwrap(), [parts; 5]);
        assert!(plan.quality().balancedness() > free.quality().balancedness() - 0.002);
        let shares = plan.batch_shares(&windows[1]).unwrap();
        let score = |map: &[i32], shares: &Shares| {
            check::score_shares(&windows[1], &cluster, map, shares.parts()).unwrap().balancedness()
        };
        let of_free = free.batch_shares(&windows[1]).unwrap();
        let (joined, loose) =
            (score(plan.physical_to_logical(), &shares), score(free.physical_to_logical(), &of_free));
        assert!(joined > loose - 1e-3, "{joined} {loose}");
    }
    // With too few further replicas it is no rule, and nothing changes.
    let cluster = Cluster::new(24, 1, 1, 8).unwrap();
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let options = PlanOptions { connected: true, ..PlanOptions::default() };
    let plan = |options: &PlanOptions| planner.plan(&windows[0], &cluster, options).unwrap().fingerprint();
    assert_eq!(plan(&options), plan(&PlanOptions::default()));
}

#[test]
fn a_serving_loop_hands_them_out() {
    let windows = series(6);
    let cluster = Cluster::new(32, 1, 1, 8).unwrap();
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let mut rebalancer = Rebalancer::new(planner, cluster, RebalanceOptions::default()).unwrap();
    assert!(rebalancer.shares().unwrap_err().to_string().starts_with("maps that run 0 is not at least 1"));
    rebalancer.observe(windows[0].clone()).unwrap();
    let plan = rebalancer.propose().unwrap().plan().clone();
    rebalancer.apply(plan.placement()).unwrap();
    for window in &windows[1..] {
        rebalancer.observe(window.clone()).unwrap();
    }
    assert_eq!(rebalancer.shares().unwrap(), plan.shares(&windows).unwrap());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let cluster = Cluster::with_slots_per_gpu(3, 1, 1, 2, 2).unwrap();
    let map = [0, 1, 0, -1];
    let loads = |experts: usize| Loads::from_counts(1, experts, &vec![1; experts]).unwrap();
    let said = |made: Result<Shares, eplb_wgpu::Error>| made.unwrap_err().to_string();
    let new = |parts: &[u16]| said(Shares::new(2, &cluster, &map, parts.to_vec()));
    assert!(new(&[1, 256, 254, 0]).ends_with("the parts of expert 0 sum to 255, not 256"));
    assert!(new(&[1, 256, 255, 1]).ends_with("slot 3 is free and has 1 parts"));
    assert_eq!(new(&[1]), "length of shares 1 is not that of physical_to_logical, 4");
    let windows = |windows: &[Loads]| said(Shares::of_windows(&cluster, &map, windows));
    assert_eq!(windows(&[]), "number of windows 0 is not at least 1");
    assert_eq!(windows(&[loads(3), loads(2)]), "experts of the window 3 is not 2");
    assert!(windows(&[loads(1)]).contains("slot 1 holds 1, not an expert in 0..1 or -1"));
    let both = Loads::from_windows(&[loads(2), loads(2)], &[1.0, 1.0]).unwrap();
    assert_eq!(said(Shares::of_batch(&cluster, &map, &both)), "windows of the batch 2 is not 1");
    let far = Loads::from_counts(1, 2, &[1, 1]).unwrap().with_layer_ids(&[7]).unwrap();
    let sample = said(Shares::of_sample(&cluster, &map, &[loads(2)], &far));
    assert!(sample.starts_with("layers of the sample 7"), "{sample}");
    // An expert without a replica, and layers without load, are no reason to fail.
    let shares = Shares::of_batch(&cluster, &[0, -1, 0, 0], &loads(2)).unwrap();
    assert_eq!((shares.parts()[..2].to_vec(), shares.parts().iter().sum()), (vec![128, 0], PARTS));
    // Where there is no load all experts are taken as alike.
    let cold = Loads::from_counts(1, 2, &[0, 0]).unwrap();
    assert_eq!(Shares::of_windows(&cluster, &map, &[cold]).unwrap().parts(), [12, 256, 244, 0]);
}
