//! Nodes whose replicas are given: a device's placements and the host's, and plans that are made of them.

use super::*;
use crate::cases::Random;
use crate::given::{self, GivenNode, Held};
use crate::planner::gpu::given::place;
use crate::{Cluster, Loads, PlanOptions};

/// Some nodes of a kind, with experts of several replicas and free slots.
fn nodes(random: &mut Random, gpus: usize, slots: usize) -> Vec<GivenNode> {
    let node = |random: &mut Random| {
        let (mut held, mut expert) = (Vec::new(), 0);
        let mut left = gpus * slots - random.below(3).min(gpus * slots - 1);
        while left > 0 {
            expert += 1 + random.below(3) as u32;
            let count = 1 + random.below(2) * random.below(gpus.min(left));
            let load =
                [0, 1 + random.next() as u32 % 1000, 5000 + random.next() as u32 % 9000][random.below(3)];
            held.push(Held { expert, load: load * count as u32, count: count as u32 });
            left -= count;
        }
        GivenNode { held, enough: [0, 20_000][random.below(2)] }
    };
    (0..1 + random.below(5)).map(|_| node(random)).collect()
}

#[test]
fn given_replicas_are_placed_as_the_host_places_them() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    let mut moved = 0;
    for seed in 0..cases(60) {
        let mut random = Random(13_000 + seed);
        // One in ten has more GPUs than a lane keeps to itself.
        let (gpus, slots) = match seed % 10 {
            9 => (65 + random.below(10), 1 + random.below(2)),
            _ => (1 + random.below(10), 1 + random.below(6)),
        };
        let loads = Loads::from_counts(1, 2, &[3, 1]).unwrap();
        let cluster = Cluster::with_slots_per_gpu(gpus * slots, 1, 1, gpus, slots).unwrap();
        let options = PlanOptions {
            starts: [1, 3, 9][random.below(3)],
            iterations: [0, 10, 80][random.below(3)],
            ..PlanOptions::default()
        };
        let Ok(params) = Params::new(&loads, &cluster, &options) else { continue };
        let nodes = nodes(&mut random, gpus, slots);
        let watch = Watch::default();
        let attempt = watch.attempt(&loads, &cluster, &options);
        let expected = given::place(&params, gpus as u32, &nodes, &attempt).unwrap();
        let found = pollster::block_on(place(gpu, &params, gpus as u32, &nodes, &attempt)).unwrap();
        assert_eq!(found.expect("no expert is twice on a GPU"), expected, "seed {seed}");
        moved += expected.len();
    }
    assert!(moved > 100 / if is_short() { 8 } else { 1 }, "{moved}");
}

/// Foreign replicas, and copies spread over nodes.
#[test]
fn plans_with_foreign_and_spread_replicas_equal_those_of_the_cpu_backend() {
    let Some(planner) = planner() else { return };
    let cpu = Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always here");
    for seed in 0..cases(16) {
        let mut random = Random(13_500 + seed);
        let counts: Vec<u64> = (0..3 * 48).map(|_| 60_000 / (1 + random.below(40)) as u64).collect();
        let loads = Loads::from_counts(3, 48, &counts).unwrap();
        let (groups, max_foreign) = if seed % 2 == 0 { (4, 1 + random.below(8) as u32) } else { (1, 0) };
        let cluster = Cluster::new(64, groups, 2, 8).unwrap();
        let options = PlanOptions { max_foreign, starts: 2, iterations: 100, seed, ..PlanOptions::default() };
        let (expected, found) = (
            cpu.plan(&loads, &cluster, &options).unwrap(),
            planner.plan(&loads, &cluster, &options).unwrap(),
        );
        assert_eq!(found.placement(), expected.placement(), "seed {seed}");
        assert_eq!((found.stops(), found.warnings()), (expected.stops(), &[][..]), "seed {seed}");
        assert_eq!(found.backend(), planner.device().backend);
        let strict = PlanOptions { max_foreign: 0, ..options };
        let one = Cluster::new(64, groups, if groups == 1 { 1 } else { 2 }, 8).unwrap();
        let plain = cpu.plan(&loads, &one, &strict).unwrap();
        assert_ne!(found.placement(), plain.placement(), "seed {seed}: nodes make no difference");
    }
}
