//! The end of a thorough plan: the heaviest GPU shares its replicas anew with two others, on the host for every backend.
//!
//! The trajectory exchanges replicas of two GPUs. It ends where the heaviest GPU and any other are as even as the two can
//! be. Three GPUs of `k` slots can hold their replicas in `(3k)! / (k!^3 3!)` ways, 280 for three slots and 126,126 for
//! five, so some of them are lighter still. Few ways come into question: each of the GPUs has to end below the
//! heaviest one, which leaves a narrow window for the load of the first, and then for that of the second.
//!
//! The first GPU's replicas are a set of the heaviest GPU and one of the others, plus a set of the third. Loads of the
//! former are worked out once for each other GPU, those of one size side by side, so that a vector of them is held against
//! the window at a time.
//!
//! Counts stay as they are, and replicas stay in their node. Of all ways the one whose heaviest GPU is lightest is taken,
//! and the first of equal ones.

use std::cmp::Reverse;
use std::ops::Range;

use crate::params::{FREE, MOST_THREE_SLOTS, Params};

/// The most replicas of three GPUs.
const MOST: usize = 3 * MOST_THREE_SLOTS as usize;
/// The most sets of one GPU's replicas.
const MOST_SETS: usize = 1 << MOST_THREE_SLOTS;

/// Sets of replicas, each a word with a bit for each replica, the smaller ones first.
#[derive(Clone)]
struct Sets {
    sets: Vec<u32>,
    /// The first set of each size, and the end of the last.
    from: Vec<usize>,
}

impl Sets {
    /// Those of up to `most` of so many replicas that are wanted.
    fn of(replicas: u32, most: u32, is_wanted: impl Fn(u32) -> bool) -> Self {
        let (mut sets, mut from) = (Vec::new(), vec![0]);
        for size in 0..=most {
            sets.extend((0..1 << replicas).filter(|&set: &u32| set.count_ones() == size && is_wanted(set)));
            from.push(sets.len());
        }
        Self { sets, from }
    }

    fn of_size(&self, size: usize) -> Range<usize> {
        self.from[size]..self.from[size + 1]
    }
}

/// The sets of the replicas of one GPU and of two, and scratch for their loads. Used again from layer to layer.
#[derive(Clone)]
pub struct Ways {
    slots: usize,
    /// All sets of one GPU's replicas.
    one: Sets,
    /// The sets of two GPUs' replicas that fit a GPU and hold the first replica. That one always goes to the first GPU, so
    /// that no way comes twice.
    two: Sets,
    /// Loads of the sets of the heaviest GPU, in the order of their words.
    heaviest: [u32; MOST_SETS],
    /// Loads of the sets of each other GPU, `[other][set of one]`.
    alone: Vec<u32>,
    /// Loads of the sets of the heaviest GPU and each other one, `[other][set of two]`.
    with: Vec<u32>,
}

/// Three GPUs' replicas: those of the heaviest GPU, then those of the two others.
struct Three {
    expert: [u32; MOST],
    load: [u32; MOST],
    total: u32,
    /// Replicas that must not meet on a GPU, two in a set; and how many such sets there are.
    apart: ([u32; MOST], usize),
}

/// A layer's replicas.
pub struct Layer<'a> {
    pub params: &'a Params,
    /// The expert of each slot, [`FREE`] for a free one.
    pub slots: &'a mut [u32],
    /// Load of a replica of each expert.
    pub each: &'a [u32],
}

/// Whether plans of this shape can be improved here.
pub fn is_for(params: &Params) -> bool {
    params.windows == 1 && params.three_gpus > 0 && params.node_gpus > 2 && params.slots_per_gpu > 1
}

impl Layer<'_> {
    /// Lowers the heaviest GPU again and again, until it is at most `stop` or none of the pairs tried helps; the load of
    /// the heaviest GPU then.
    pub fn improve(&mut self, stop: u32, ways: &mut Ways) -> u32 {
        let slots = self.params.slots_per_gpu as usize;
        let mut loads: Vec<u32> =
            self.slots.chunks_exact(slots).map(|gpu| gpu.iter().map(|&e| self.of_replica(e)).sum()).collect();
        loop {
            let Some(heavy) = (0..loads.len()).max_by_key(|&gpu| (loads[gpu], Reverse(gpu))) else {
                return 0;
            };
            if loads[heavy] <= stop || !self.lower(heavy, &mut loads, ways) {
                return loads[heavy];
            }
        }
    }

    /// Shares the replicas of the heaviest GPU anew with the first two others of its node that make it lighter, the
    /// lightest others first. Whether there are such two.
    fn lower(&mut self, heavy: usize, loads: &mut [u32], ways: &mut Ways) -> bool {
        let (slots, node_gpus) = (self.params.slots_per_gpu as usize, self.params.node_gpus as usize);
        let node = heavy / node_gpus * node_gpus;
        let mut others: Vec<usize> = (node..node + node_gpus).filter(|&gpu| gpu != heavy).collect();
        others.sort_unstable_by_key(|&gpu| (loads[gpu], gpu));
        ways.start(self.of_gpu(heavy));
        ways.add(self.of_gpu(others[0]));
        let mut pairs = 0;
        for b in 1..others.len() {
            ways.add(self.of_gpu(others[b]));
            for a in 0..b.min((self.params.three_gpus - pairs) as usize) {
                pairs += 1;
                let gpus = [heavy, others[a], others[b]];
                let total = gpus.iter().map(|&gpu| loads[gpu]).sum();
                let pair = Pair { layer: self, gpus, ways, others: [a, b], total, top: loads[heavy] };
                let Some((three, sets)) = pulp::Arch::new().dispatch(pair) else { continue };
                for (gpu, set) in gpus.into_iter().zip(sets) {
                    let chosen = (0..3 * slots).filter(|at| set >> at & 1 == 1);
                    for (slot, at) in chosen.clone().enumerate() {
                        self.slots[gpu * slots + slot] = three.expert[at];
                    }
                    loads[gpu] = chosen.map(|at| three.load[at]).sum();
                }
                return true;
            }
        }
        false
    }

    /// The load of each slot of a GPU.
    fn of_gpu(&self, gpu: usize) -> impl Iterator<Item = u32> {
        let slots = self.params.slots_per_gpu as usize;
        self.slots[gpu * slots..(gpu + 1) * slots].iter().map(|&expert| self.of_replica(expert))
    }

    fn of_replica(&self, expert: u32) -> u32 {
        if expert == FREE { 0 } else { self.each[expert as usize] }
    }
}

impl Ways {
    /// All sets for GPUs of this many slots.
    pub fn of(slots: u32) -> Self {
        Self {
            slots: slots as usize,
            one: Sets::of(slots, slots, |_| true),
            two: Sets::of(2 * slots, slots, |set| set & 1 == 1),
            heaviest: [0; MOST_SETS],
            alone: Vec::new(),
            with: Vec::new(),
        }
    }

    /// Begins with the loads of the heaviest GPU's slots.
    fn start(&mut self, loads: impl Iterator<Item = u32>) {
        self.heaviest = sums(loads);
        self.alone.clear();
        self.with.clear();
    }

    /// Adds another GPU.
    fn add(&mut self, loads: impl Iterator<Item = u32>) {
        let sums: [u32; MOST_SETS] = sums(loads);
        let (slots, mask) = (self.slots, (1 << self.slots) - 1);
        let (heaviest, of_other) = (&self.heaviest, |set: u32| sums[set as usize]);
        self.alone.extend(self.one.sets.iter().map(|&set| of_other(set)));
        let with = |&set: &u32| heaviest[(set & mask) as usize] + of_other(set >> slots);
        self.with.extend(self.two.sets.iter().map(with));
    }
}

/// The load of each set of up to [`MOST_THREE_SLOTS`] replicas.
fn sums(loads: impl Iterator<Item = u32>) -> [u32; MOST_SETS] {
    let mut sums = [0; MOST_SETS];
    for (at, load) in loads.enumerate() {
        let (below, with) = sums[..2 << at].split_at_mut(1 << at);
        with.iter_mut().zip(below).for_each(|(with, below)| *with = *below + load);
    }
    sums
}

/// The heaviest GPU and two others, and the question of how they best share their replicas.
struct Pair<'a> {
    layer: &'a Layer<'a>,
    gpus: [usize; 3],
    ways: &'a Ways,
    /// The two others, by their place among those that were added.
    others: [usize; 2],
    /// What the three GPUs carry.
    total: u32,
    /// The load of the heaviest one.
    top: u32,
}

impl pulp::NullaryFnOnce for Pair<'_> {
    /// The sets of the three GPUs with the least heaviest GPU, where that is lighter than now.
    type Output = Option<(Three, [u32; 3])>;

    /// Compiled once for each set of vector instructions; the widest that the processor has is taken.
    #[inline(always)]
    fn call(self) -> Self::Output {
        let Ways { slots, one, two, alone, with, .. } = self.ways;
        let [with, alone] = [(with, two, 0), (alone, one, 1)]
            .map(|(loads, Sets { sets, .. }, i)| &loads[self.others[i] * sets.len()..][..sets.len()]);
        let mut known: Option<Three> = None;
        let mut best = (self.top, None);
        for size in 0..*slots {
            for of_one in one.of_size(size) {
                let run = two.of_size(slots - size);
                let (mut shift, mut width) = self.window(best.0, alone[of_one]);
                if !is_any_below(&with[run.clone()], shift, width) {
                    continue;
                }
                for of_two in run {
                    if with[of_two].wrapping_add(shift) < width {
                        let three = known.get_or_insert_with(|| Three::of(self.layer, self.gpus));
                        let first = two.sets[of_two] | one.sets[of_one] << (2 * slots);
                        best = three.split(first, self.ways, best);
                        (shift, width) = self.window(best.0, alone[of_one]);
                    }
                }
            }
        }
        known.zip(best.1)
    }
}

impl Pair<'_> {
    /// A load `x` that, with `more`, leaves all three GPUs room to end below `best`: `x + shift < width`, wrapping.
    #[inline(always)]
    fn window(&self, best: u32, more: u32) -> (u32, u32) {
        // Two GPUs below the best cannot carry more than twice that less one each.
        let least = self.total.saturating_sub(2 * (best - 1));
        (more.wrapping_sub(least), best.saturating_sub(least))
    }
}

/// Whether there is a load `x` with `x + shift < width`, wrapping.
#[inline(always)]
fn is_any_below(loads: &[u32], shift: u32, width: u32) -> bool {
    loads.iter().fold(u32::MAX, |least, &load| least.min(load.wrapping_add(shift))) < width
}

impl Three {
    fn of(layer: &Layer<'_>, gpus: [usize; 3]) -> Self {
        let slots = layer.params.slots_per_gpu as usize;
        let (mut expert, mut load, mut apart) = ([FREE; MOST], [0; MOST], ([0; MOST], 0));
        let replicas = gpus.into_iter().flat_map(|gpu| &layer.slots[gpu * slots..(gpu + 1) * slots]);
        for (at, &of) in replicas.enumerate() {
            (expert[at], load[at]) = (of, layer.of_replica(of));
            if of != FREE && layer.params.avoid_duplicates {
                // Each GPU has brought an expert once, so there are at most three of these for three replicas.
                for other in (0..at).filter(|&other| expert[other] == of) {
                    apart.0[apart.1] = 1 << at | 1 << other;
                    apart.1 += 1;
                }
            }
        }
        Self { expert, load, total: load.iter().sum(), apart }
    }

    /// Shares what the first GPU leaves between the two others: the heaviest of the three GPUs and their sets, if that is
    /// better than the best so far.
    fn split(
        &self,
        first: u32,
        Ways { slots, two, .. }: &Ways,
        mut best: (u32, Option<[u32; 3]>),
    ) -> (u32, Option<[u32; 3]>) {
        if self.repeats(first) {
            return best;
        }
        let mut at = [0; 2 * MOST_THREE_SLOTS as usize];
        let all = (1u32 << (3 * slots)) - 1;
        let left = || (0..3 * slots).filter(|at| first >> at & 1 == 0);
        at.iter_mut().zip(left()).for_each(|(to, from)| *to = from);
        let [low, high] = [&at[..*slots], &at[*slots..2 * slots]].map(|half| {
            (sums(half.iter().map(|&at| self.load[at])), sums(half.iter().map(|&at| 1 << at)))
        });
        let left = left().map(|at| self.load[at]).sum::<u32>();
        let load = self.total - left;
        let mask = (1 << slots) - 1;
        for &set in &two.sets[two.of_size(*slots)] {
            let [a, b] = [(set & mask) as usize, (set >> slots) as usize];
            let second = low.0[a] + high.0[b];
            let heaviest = load.max(second).max(left - second);
            if heaviest < best.0 {
                let second = low.1[a] | high.1[b];
                let third = all & !first & !second;
                if !self.repeats(second) && !self.repeats(third) {
                    best = (heaviest, Some([first, second, third]));
                }
            }
        }
        best
    }

    /// Whether a set holds an expert twice.
    fn repeats(&self, set: u32) -> bool {
        self.apart.0[..self.apart.1].iter().any(|&two| set & two == two)
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
