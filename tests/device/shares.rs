//! Tables of shares: what a device moves and what the host does.

use super::*;
use crate::cases::Random;
use crate::planner::gpu::shares::{level, levels};
use crate::shares::speeds::Speeds;
use crate::shares::task::Task;
use crate::shares::{batch, windows};
use crate::{Cluster, Loads, Shares};

/// A map of some layers, and loads of it.
struct Table {
    cluster: Cluster,
    experts: usize,
    map: Vec<i32>,
    windows: Vec<Loads>,
    sample: Option<Loads>,
}

impl Table {
    fn random(seed: u64) -> Self {
        let mut random = Random(seed);
        let mut below = |n: usize| (random.next() % n as u64) as usize;
        let (gpus, slots) = (1 + below(12), 1 + below(6));
        let all = gpus * slots;
        let (layers, experts) = (1 + below(5), 1 + below(all));
        let entry = |slot: usize, below: &mut dyn FnMut(usize) -> usize| match slot {
            slot if slot < experts => slot as i32,
            _ if below(8) == 0 => -1,
            _ => below(experts) as i32,
        };
        let mut map = Vec::new();
        for _ in 0..layers {
            let mut row: Vec<i32> = (0..all).map(|slot| entry(slot, &mut below)).collect();
            (1..all).for_each(|at| row.swap(at, below(at + 1)));
            map.extend(row);
        }
        let most = [2, 1000, 1_000_000][below(3)];
        let mut counts = || (0..layers * experts).map(|_| below(most) as u64).collect::<Vec<_>>();
        let mut loads = || Loads::from_counts(layers, experts, &counts()).expect("the shape is valid");
        let windows = (0..1 + seed % 10).map(|_| loads()).collect();
        let sample = seed.is_multiple_of(3).then(loads);
        let cluster = Cluster::new(all, 1, 1, gpus).expect("the numbers fit");
        Self { cluster, experts, map, windows, sample }
    }

    fn layers(&self) -> usize {
        self.map.len() / self.cluster.num_slots()
    }

    fn row(&self, layer: usize) -> &[i32] {
        let slots = self.cluster.num_slots();
        &self.map[layer * slots..(layer + 1) * slots]
    }

    fn loads<'a>(&self, loads: &'a Loads, layer: usize) -> &'a [u32] {
        &loads.fixed()[layer * self.experts..(layer + 1) * self.experts]
    }

    /// The tasks of all layers, and the shares that the host comes to: for a batch, the last window, or for the next window.
    fn tasks(&self, is_batch: bool) -> (Vec<Task>, Vec<Vec<i32>>) {
        let speeds = Speeds::new(&self.cluster);
        let (gpus, each) = ((self.cluster.num_gpus(), &speeds), self.cluster.slots_per_gpu());
        let mut parts = vec![0; self.cluster.num_slots()];
        let batch_task = |layer: usize, parts: &mut [u16]| {
            let loads = self.loads(self.windows.last().expect("there is one"), layer);
            let mut scratch = batch::BatchScratch::default();
            scratch.replicas.lay(self.experts, each, self.row(layer));
            let (task, _) = scratch.task(loads, gpus);
            batch::solve(loads, gpus, &mut scratch, parts);
            (task, scratch.have().to_vec())
        };
        let window_task = |layer: usize, parts: &mut [u16]| {
            let loads: Vec<&[u32]> = self.windows.iter().map(|window| self.loads(window, layer)).collect();
            let of_windows = vec![500; loads.len()];
            let windows = || windows::Windows {
                loads: &loads,
                sample: self.sample.as_ref().map(|sample| windows::Sample {
                    loads: self.loads(sample, layer),
                    routings: 300,
                    of_windows: &of_windows,
                }),
            };
            let mut scratch = windows::WindowScratch::default();
            scratch.replicas.lay(self.experts, each, self.row(layer));
            let task = scratch.task(windows(), gpus.0);
            windows::Solve { windows: windows(), gpus, scratch: &mut scratch, parts }.run();
            (task, scratch.have().to_vec())
        };
        let layers = 0..self.layers();
        match is_batch {
            true => layers.map(|layer| batch_task(layer, &mut parts)).unzip(),
            false => layers.map(|layer| window_task(layer, &mut parts)).unzip(),
        }
    }
}

/// Compares the shares of a table's layers; returns in how many of them the device moved any.
fn compare(gpu: &Gpu, table: &Table, is_batch: bool) -> usize {
    let (tasks, expected) = table.tasks(is_batch);
    if !levels(gpu, &tasks, is_batch) {
        assert!(tasks.iter().all(|task| task.pairs.is_empty()));
        return 0;
    }
    let found = pollster::block_on(level(gpu, &tasks, is_batch, &|| Ok(()))).expect("the device works");
    assert_eq!(found, expected);
    tasks.iter().zip(&found).filter(|(task, found)| task.have != **found).count()
}

fn compare_all(gpu: &Gpu, seeds: std::ops::Range<u64>) {
    for is_batch in [false, true] {
        let moved: usize =
            seeds.clone().map(|seed| compare(gpu, &Table::random(7000 + seed), is_batch)).sum();
        assert!(moved as u64 > seeds.end - seeds.start, "{moved} layers");
    }
}

#[test]
fn shares_equal_the_hosts() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    compare_all(gpu, 0..160);
}

#[test]
fn workgroups_for_gpus_move_the_same_shares() {
    let Some(gpu) = with_tuning(Tuning::GPU) else { return };
    compare_all(&gpu, 200..224);
}

#[test]
fn tables_of_a_planner_equal_those_of_the_host() {
    let Some(planner) = planner() else { return };
    for seed in 0..cases(24) {
        let Table { cluster, map, windows, sample, .. } = &Table::random(7400 + seed);
        let found = planner.shares(cluster, map, windows).expect("the case is valid");
        assert_eq!(found, Shares::of_windows(cluster, map, windows).expect("the case is valid"));
        if let Some(sample) = sample {
            let found = planner.shares_with_sample(cluster, map, windows, sample).expect("the case is valid");
            assert_eq!(found, Shares::of_sample(cluster, map, windows, sample).expect("the case is valid"));
        }
        let batch = windows.last().expect("there is one");
        let found = planner.batch_shares(cluster, map, batch).expect("the case is valid");
        assert_eq!(found, Shares::of_batch(cluster, map, batch).expect("the case is valid"));
    }
}

/// A layer of DeepSeek-V3's shape, one of many GPUs, and one whose experts have many replicas.
#[test]
fn shares_of_large_layers_equal_the_hosts() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for (seed, (experts, gpus, slots)) in (7500..).zip([(256, 32, 9), (1024, 128, 9), (8, 40, 2)]) {
        let mut random = Random(seed);
        let mut window = || {
            let counts: Vec<u64> = (0..experts).map(|_| 1 + random.next() % 10_000).collect();
            Loads::from_counts(1, experts, &counts).expect("the shape is valid")
        };
        let windows = (0..9).map(|_| window()).collect();
        let held = |gpu: usize, slot: usize| (slot * gpus + (gpu + slot) % gpus) % experts;
        let map = (0..gpus * slots).map(|at| held(at / slots, at % slots) as i32).collect();
        let cluster = Cluster::new(gpus * slots, 1, 1, gpus).expect("the numbers fit");
        let table = Table { cluster, experts, map, windows, sample: None };
        assert_eq!((compare(gpu, &table, false), compare(gpu, &table, true)), (1, 1));
    }
}
