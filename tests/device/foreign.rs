//! Foreign replicas: what a device chooses and what the host does.

use super::*;
use crate::cases::Random;
use crate::foreign::layer::{ForeignScratch, NodeShares};
use crate::foreign::{ForeignLayer, GroupSets, all_sets};
use crate::params::FREE;
use crate::planner::gpu::foreign::{chooses, share_out};
use crate::{Cluster, Loads};

/// Layers of a call, and a plan of theirs in which nodes hold the groups in order.
struct Layers {
    params: Params,
    cluster: Cluster,
    loads: Loads,
    options: PlanOptions,
    rows: Vec<u32>,
}

impl Layers {
    fn new(loads: Loads, cluster: Cluster, options: PlanOptions) -> Option<Self> {
        let params = Params::new(&loads, &cluster, &options).ok()?;
        let replicas = |node: u32| {
            let first = node * params.node_experts;
            let held = (0..params.node_replicas).map(move |at| first + at % params.node_experts);
            held.chain((params.node_replicas..params.node_slots).map(|_| FREE))
        };
        let row: Vec<u32> = (0..params.nodes).flat_map(replicas).collect();
        let rows = row.repeat(params.layers as usize);
        Some(Self { params, cluster, loads, options, rows })
    }

    /// Some of any shape.
    fn random(seed: u64) -> Option<Self> {
        let mut random = Random(seed);
        let nodes = 2 + random.below(7);
        let groups = nodes * (1 + random.below(4));
        let size = [2, 3, 8, 16, 32][random.below(5)];
        let gpus = 1 + random.below(8);
        let node_experts = groups / nodes * size;
        let slots = node_experts.div_ceil(gpus) + random.below(4);
        let free = random.below(1 + gpus * slots - node_experts).min(random.below(4));
        let layers = 1 + random.below(3);
        let counts = (0..layers * groups * size).map(|_| match (seed % 8, random.below(20)) {
            // Experts of few loads, of which many are equal; and almost all load on one or two experts.
            (6, kind) => 1 + kind as u64 / 8,
            (7, kind) => {
                if kind == 0 {
                    1_000_000
                } else {
                    kind as u64 / 19
                }
            }
            (_, 0) => 0,
            (_, 1) => 1_000_000 + random.below(1000) as u64,
            _ => (100_000 / (1 + random.below(200))) as u64,
        });
        let loads = Loads::from_counts(layers, groups * size, &counts.collect::<Vec<_>>()).ok()?;
        let replicas = nodes * (gpus * slots - free);
        let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, nodes * gpus, slots).ok()?;
        let options = PlanOptions {
            max_foreign: 1 + random.below(24.min(size - 1)) as u32,
            foreign_target_ppm: 1_000_000 + [0, 20_000][random.below(2)],
            max_replicas_per_expert: [None, Some(2), Some(5)][random.below(3)],
            seed,
            ..PlanOptions::default()
        };
        Self::new(loads, cluster, options)
    }

    fn open(&self) -> Vec<ForeignLayer<'_>> {
        let experts = self.loads.fixed().chunks_exact(self.params.experts as usize);
        let rows = self.rows.chunks_exact((self.params.nodes * self.params.node_slots) as usize);
        experts.zip(rows).filter_map(|(loads, row)| ForeignLayer::new(&self.params, loads, row)).collect()
    }

    fn by_host(&self, sets: &GroupSets) -> Vec<Option<NodeShares>> {
        let mut scratch = ForeignScratch::default();
        self.open().iter().map(|layer| layer.share_out(sets, &mut scratch)).collect()
    }

    /// Compares the choices of all layers; in how many there is one.
    fn compare(&self, gpu: &Gpu, seed: u64) -> usize {
        let sets = all_sets(&self.params);
        let open = self.open();
        let layers: Vec<&ForeignLayer<'_>> = open.iter().collect();
        if !chooses(gpu, &self.params, &sets, &layers) {
            return 0;
        }
        let watch = Watch::default();
        let attempt = watch.attempt(&self.loads, &self.cluster, &self.options);
        let found = pollster::block_on(share_out(gpu, &self.params, &sets, &layers, &attempt));
        let (found, expected) = (found.expect("the device works"), self.by_host(&sets));
        assert_eq!(found, expected, "seed {seed}");
        found.iter().flatten().count()
    }
}

fn compare_all(gpu: &Gpu, seeds: std::ops::Range<u64>) -> usize {
    seeds.filter_map(|seed| Some(Layers::random(14_000 + seed)?.compare(gpu, seed))).sum()
}

#[test]
fn choices_equal_the_hosts() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    let chosen = compare_all(gpu, 0..cases(160));
    assert!(chosen as u64 > cases(70), "{chosen} layers");
}

#[test]
fn workgroups_for_gpus_choose_the_same() {
    let Some(gpu) = with_tuning(Tuning::GPU) else { return };
    let chosen = compare_all(&gpu, 200..200 + cases(48));
    assert!(chosen as u64 > cases(16), "{chosen} layers");
}

/// Layers of DeepSeek-V3's shape, and of one with so many assignments that software drivers just come to their end.
#[test]
fn choices_of_large_layers_equal_the_hosts() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    let v3 = (256, Cluster::new(288, 8, 4, 32).expect("the numbers fit"));
    let many = (240, Cluster::new(280, 10, 5, 40).expect("the numbers fit"));
    for (seed, ((experts, cluster), max_foreign)) in (14_900..).zip([(&v3, 8), (&v3, 24), (&many, 7)]) {
        let mut random = Random(seed);
        let counts: Vec<u64> = (0..2 * experts)
            .map(|_| 1_000_000 / (10 + random.below(100) * random.below(20)) as u64)
            .collect();
        let loads = Loads::from_counts(2, *experts, &counts).expect("the shape is valid");
        let options = PlanOptions { max_foreign, ..PlanOptions::default() };
        let layers = Layers::new(loads, cluster.clone(), options).expect("the numbers fit");
        assert_eq!(layers.compare(gpu, seed), 2, "seed {seed}");
    }
}
