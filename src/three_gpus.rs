//! The end of a thorough plan: the heaviest GPU shares its replicas anew with two others, on the host for every backend.
//!
//! The trajectory exchanges replicas of two GPUs. It ends where the heaviest GPU and any other are as even as the two can
//! be. Three GPUs of `k` slots can hold their replicas in `(3k)! / (k!^3 3!)` ways, 280 for three slots and 126,126 for
//! five, so some of them are lighter still. Few ways come into question: each of the GPUs has to end below the
//! heaviest one, which leaves a narrow window for the load of the first, and then for that of the second.
//!
//! Counts stay as they are, and replicas stay in their node. Of all ways the one whose heaviest GPU is lightest is taken,
//! and the first of equal ones.

use std::cmp::Reverse;

use crate::params::{FREE, MOST_THREE_SLOTS, Params};

/// The most replicas of three GPUs.
const MOST: usize = 3 * MOST_THREE_SLOTS as usize;

/// Which replicas the first GPU may take, and which of those left the second.
///
/// A set of replicas is a word with a bit each. The heaviest replica goes to the first GPU, and the heaviest one left to
/// the second, so that no way comes twice.
#[derive(Clone)]
pub struct Ways {
    first: Vec<u32>,
    second: Vec<u32>,
    /// Scratch: the load of each set of the heavier half of the replicas, and of the lighter half.
    sums: [Vec<u32>; 2],
}

/// A layer's replicas.
pub struct Layer<'a> {
    pub params: &'a Params,
    /// The expert of each slot, [`FREE`] for a free one.
    pub slots: &'a mut [u32],
    /// Load of a replica of each expert.
    pub each: &'a [u32],
}

/// Three GPUs' replicas, heaviest first.
struct Three {
    /// How many there are.
    count: usize,
    load: [u32; MOST],
    expert: [u32; MOST],
    total: u32,
    /// Replicas whose expert is that of the next one, and of the one after the next; none where duplicates are allowed.
    same: [u32; 2],
}

impl Ways {
    /// All sets for GPUs of this many slots.
    pub fn of(slots: u32) -> Self {
        let sets =
            |of: u32| (0..1u32 << of).filter(|set| set.count_ones() == slots).filter(|set| set & 1 == 1);
        let sums = [vec![0; 1 << (3 * slots / 2)], vec![0; 1 << (3 * slots).div_ceil(2)]];
        Self { first: sets(3 * slots).collect(), second: sets(2 * slots).collect(), sums }
    }
}

/// Whether plans of this shape can be improved here.
pub fn is_for(params: &Params) -> bool {
    params.windows == 1
        && !params.has_speeds()
        && params.three_gpus > 0
        && params.node_gpus > 2
        && params.slots_per_gpu > 1
}

impl Layer<'_> {
    /// Lowers the heaviest GPU again and again, until it is at most `stop` or none of the pairs tried helps; the load of
    /// the heaviest GPU then.
    pub fn improve(&mut self, stop: u32, ways: &mut Ways) -> u32 {
        let params = self.params;
        let (slots, node_gpus) = (params.slots_per_gpu as usize, params.node_gpus as usize);
        let mut loads: Vec<u32> = self.slots.chunks_exact(slots).map(|gpu| self.load(gpu)).collect();
        let mut others = Vec::new();
        loop {
            let Some(heavy) = (0..loads.len()).max_by_key(|&gpu| (loads[gpu], Reverse(gpu))) else {
                return 0;
            };
            let top = loads[heavy];
            if top <= stop {
                return top;
            }
            let node = heavy / node_gpus * node_gpus;
            others.clear();
            others.extend((node..node + node_gpus).filter(|&gpu| gpu != heavy));
            others.sort_unstable_by_key(|&gpu| (loads[gpu], gpu));
            let pairs = (1..others.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
            let found = pairs.take(params.three_gpus as usize).find_map(|(a, b)| {
                let gpus = [heavy, others[a], others[b]];
                let three = Three::of(self, gpus);
                three.fill(slots, top, ways).map(|sets| (gpus, three, sets))
            });
            let Some((gpus, three, sets)) = found else { return top };
            for (gpu, set) in gpus.into_iter().zip(sets) {
                let chosen = (0..three.count).filter(|at| set >> at & 1 == 1);
                for (slot, at) in chosen.enumerate() {
                    self.slots[gpu * slots + slot] = three.expert[at];
                }
                loads[gpu] = self.load(&self.slots[gpu * slots..(gpu + 1) * slots]);
            }
        }
    }

    fn load(&self, gpu: &[u32]) -> u32 {
        gpu.iter().map(|&expert| self.of_replica(expert)).sum()
    }

    fn of_replica(&self, expert: u32) -> u32 {
        if expert == FREE { 0 } else { self.each[expert as usize] }
    }
}

impl Three {
    fn of(layer: &Layer<'_>, gpus: [usize; 3]) -> Self {
        let slots = layer.params.slots_per_gpu as usize;
        let count = 3 * slots;
        let mut keys = [Reverse(0u64); MOST];
        let replicas = gpus.into_iter().flat_map(|gpu| &layer.slots[gpu * slots..(gpu + 1) * slots]);
        for (key, &expert) in keys.iter_mut().zip(replicas) {
            *key = Reverse(u64::from(layer.of_replica(expert)) << 32 | u64::from(expert));
        }
        keys[..count].sort_unstable();
        let (mut load, mut expert) = ([0; MOST], [0; MOST]);
        for (at, Reverse(key)) in keys[..count].iter().enumerate() {
            (load[at], expert[at]) = ((key >> 32) as u32, *key as u32);
        }
        let mut same = [0; 2];
        if layer.params.avoid_duplicates {
            for (same, step) in same.iter_mut().zip([1, 2]) {
                let is_same = |&at: &usize| expert[at] == expert[at + step] && expert[at] != FREE;
                *same = (0..count - step).filter(is_same).fold(0, |set, at| set | 1 << at);
            }
        }
        Self { count, load, expert, total: load.iter().sum(), same }
    }

    /// The sets of the three GPUs with the least heaviest GPU, where that is below `top`.
    fn fill(&self, slots: usize, top: u32, Ways { first, second, sums }: &mut Ways) -> Option<[u32; 3]> {
        let all = (1u32 << self.count) - 1;
        let mut best = (top, None);
        let half = self.count / 2;
        let [low, high] = sums;
        add_up(&self.load[..half], low);
        add_up(&self.load[half..self.count], high);
        for &first in &*first {
            let load = low[(first & ((1 << half) - 1)) as usize] + high[(first >> half) as usize];
            let left = self.total - load;
            // Two GPUs below the best so far cannot carry more than this.
            if load >= best.0 || left > 2 * (best.0 - 1) || self.repeats(first) {
                continue;
            }
            let mut at = [0u8; 2 * MOST_THREE_SLOTS as usize];
            let free = (0..self.count as u8).filter(|&at| first >> at & 1 == 0);
            at.iter_mut().zip(free).for_each(|(to, from)| *to = from);
            for &second in &*second {
                let chosen = (0..2 * slots).filter(|i| second >> i & 1 == 1).map(|i| usize::from(at[i]));
                let (second, taken) =
                    chosen.fold((0, 0), |(set, sum), at| (set | 1 << at, sum + self.load[at]));
                let heaviest = load.max(taken).max(left - taken);
                let third = all & !first & !second;
                if heaviest < best.0 && !self.repeats(second) && !self.repeats(third) {
                    best = (heaviest, Some([first, second, third]));
                }
            }
        }
        best.1
    }

    /// Whether a set holds an expert twice. Replicas of one expert follow each other, and each GPU brought one at most.
    fn repeats(&self, set: u32) -> bool {
        (set & set >> 1 & self.same[0]) | (set & set >> 2 & self.same[1]) != 0
    }
}

/// The load of each set of some replicas.
fn add_up(loads: &[u32], sums: &mut [u32]) {
    for (at, load) in loads.iter().enumerate() {
        let (below, with) = sums[..2 << at].split_at_mut(1 << at);
        with.iter_mut().zip(below).for_each(|(with, below)| *with = *below + load);
    }
}

#[cfg(test)]
mod tests {
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
        for (seed, slots) in (0..60).map(|seed| (seed, 2 + (seed % 3) as usize)) {
            let (params, mut row, each) = case(seed, slots, seed % 2 == 1);
            let before = row.clone();
            let load = |e: u32| if e == FREE { 0 } else { each[e as usize] };
            let replicas: Vec<(u32, u32)> = row.iter().map(|&e| (e, load(e))).collect();
            let least = by_hand(&replicas, slots, &mut Default::default());
            let found = Layer { params: &params, slots: &mut row, each: &each }
                .improve(0, &mut Ways::of(slots as u32));
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
    fn a_thorough_plan_is_lighter_with_three_gpus_and_never_heavier() {
        use crate::{DeviceChoice, Planner, Preset};
        let counts: Vec<u64> = (0..4 * 64u64).map(|i| i * i * i * 7919 % 1_000_003 + 1).collect();
        let loads = Loads::from_counts(4, 64, &counts).unwrap();
        let cluster = Cluster::new(80, 1, 1, 16).unwrap();
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let short = PlanOptions { patience: 64, ..Preset::THOROUGH.options() };
        let with = planner.plan(&loads, &cluster, &short).unwrap();
        let without = PlanOptions { patience: 16, three_gpus: 0, ..short };
        let without = planner.plan(&loads, &cluster, &without).unwrap();
        let peaks = |plan: &crate::Plan| -> Vec<f64> {
            plan.quality().layers.iter().map(|layer| layer.max_gpu_load).collect()
        };
        let (with, without) = (peaks(&with), peaks(&without));
        assert!(with.iter().zip(&without).all(|(a, b)| a <= b), "{with:?} {without:?}");
        assert!(with.iter().sum::<f64>() < without.iter().sum::<f64>(), "{with:?} {without:?}");
    }
}
