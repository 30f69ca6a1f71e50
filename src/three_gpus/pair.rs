//! The heaviest GPU and two others share their replicas: of all ways, the one whose heaviest GPU is lightest, the first of
//! equal ones, or the first one that is light enough. Counts stay as they are.
//!
//! The first GPU holds a set of the replicas of the heaviest GPU and one of the others, and a set of the third
//! GPU's. The loads of the former are worked out once for each other GPU, those of one size side by side, so that a vector
//! of them is held against the window at a time.

use std::ops::Range;

use crate::params::{FREE, MOST_THREE_SLOTS};

/// The most replicas of three GPUs.
const MOST: usize = 3 * MOST_THREE_SLOTS as usize;
const LANES: usize = 8;
/// The most sets of one GPU's replicas.
const MOST_SETS: usize = 1 << MOST_THREE_SLOTS;

/// And of those in [`ReplicaSets`].
const MOST_VECTORS: usize = MOST_SETS + (MOST_THREE_SLOTS as usize + 1) * LANES;

/// Sets of replicas, each a word with a bit for each replica, the smaller ones first.
struct ReplicaSets {
    /// The last one of each size comes again until a vector is full.
    sets: Vec<u32>,
    /// Where the sets of each size begin.
    from: Vec<usize>,
    /// Where they end, but for those that come again.
    to: Vec<usize>,
}

impl ReplicaSets {
    /// Those of up to `most` of this many replicas that are wanted.
    fn of(replicas: u32, most: u32, is_wanted: impl Fn(u32) -> bool) -> Self {
        let (mut sets, mut from, mut to) = (Vec::new(), vec![0], Vec::new());
        for size in 0..=most {
            sets.extend((0..1 << replicas).filter(|&set: &u32| set.count_ones() == size && is_wanted(set)));
            to.push(sets.len());
            let last = sets.last().copied().unwrap_or_default();
            sets.resize(sets.len().next_multiple_of(LANES), last);
            from.push(sets.len());
        }
        Self { sets, from, to }
    }

    fn of_size(&self, size: usize) -> Range<usize> {
        self.from[size]..self.to[size]
    }

    /// With those that come again.
    fn vectors_of_size(&self, size: usize) -> Range<usize> {
        self.from[size]..self.from[size + 1]
    }
}

/// The sets of the replicas of one GPU and of two, and their loads.
pub struct Ways {
    slots: usize,
    /// All sets of one GPU's replicas.
    one: ReplicaSets,
    /// The sets of two GPUs' replicas that fit a GPU and hold the first replica. That one always goes to the first GPU, so
    /// that no way comes twice.
    two: ReplicaSets,
    /// Loads of the sets of the heaviest GPU, in the order of their words.
    heaviest: [u32; MOST_SETS],
    /// Loads of the sets of each other GPU, `[other][set of one]`.
    alone: Vec<u32>,
    /// Loads of the sets of the heaviest GPU and each other one, `[other][set of two]`.
    with: Vec<u32>,
}

impl Ways {
    /// All sets for GPUs of this many slots.
    pub fn of(slots: u32) -> Self {
        Self {
            slots: slots as usize,
            one: ReplicaSets::of(slots, slots, |_| true),
            two: ReplicaSets::of(2 * slots, slots, |set| set & 1 == 1),
            heaviest: [0; MOST_SETS],
            alone: Vec::new(),
            with: Vec::new(),
        }
    }

    /// Begins with the replicas of the heaviest GPU, each an expert and a load.
    pub fn start(&mut self, replicas: impl Iterator<Item = (u32, u32)>) {
        sums(replicas.map(|(_, load)| load), &mut self.heaviest);
        self.alone.clear();
        self.with.clear();
    }

    /// Adds another GPU.
    pub fn add(&mut self, replicas: impl Iterator<Item = (u32, u32)>) {
        let mut of_other = [0; MOST_SETS];
        sums(replicas.map(|(_, load)| load), &mut of_other);
        let (slots, mask, heaviest) = (self.slots, (1 << self.slots) - 1, &self.heaviest);
        let with = |set: u32| heaviest[(set & mask) as usize] + of_other[(set >> slots) as usize];
        self.alone.extend(self.one.sets.iter().map(|&set| of_other[set as usize]));
        self.with.extend(self.two.sets.iter().map(|&set| with(set)));
    }
}

/// The load of each set of up to [`MOST_THREE_SLOTS`] replicas.
#[inline(always)]
fn sums(loads: impl Iterator<Item = u32>, sums: &mut [u32; MOST_SETS]) {
    sums[0] = 0;
    for (at, load) in loads.enumerate() {
        let (below, with) = sums[..2 << at].split_at_mut(1 << at);
        with.iter_mut().zip(below).for_each(|(with, below)| *with = *below + load);
    }
}

/// The best way so far: its heaviest GPU, and the sets of the three GPUs once there is one.
type BestSharing = (u32, Option<[u32; 3]>);

/// Two of the other GPUs, and the question of how the heaviest one best shares with them.
pub struct GpuPair<'a> {
    /// By their place among those that were added.
    pub others: [usize; 2],
    pub ways: &'a Ways,
    pub three: &'a mut Three,
    /// The load of the heaviest GPU.
    pub top: u32,
    /// The load of the three GPUs.
    pub total: u32,
    /// A heaviest GPU of this load is light enough: no better way is looked for.
    pub stop: u32,
}

impl GpuPair<'_> {
    /// The sets of the three GPUs with the least heaviest GPU, where that is lighter than now; [`Three::replicas`] knows
    /// them. `replicas` are those of the three GPUs, the heaviest first, each an expert and a load.
    pub fn share<I: Iterator<Item = (u32, u32)>>(
        self,
        avoid_duplicates: bool,
        replicas: impl Fn() -> I,
    ) -> Option<[u32; 3]> {
        pulp::Arch::new().dispatch(SharingTask { pair: self, avoid_duplicates, replicas })
    }

    /// The loads `x` of a set that, with `more`, leave all three GPUs room to end below `best`: `x + shift < width`,
    /// wrapping.
    #[inline(always)]
    fn window(&self, best: u32, more: u32) -> (u32, u32) {
        // Two GPUs below the best cannot carry more than twice that less one each.
        let least = self.total.saturating_sub(2 * (best - 1));
        (more.wrapping_sub(least), best.saturating_sub(least))
    }
}

/// The arguments of [`GpuPair::share`].
struct SharingTask<'a, F> {
    pair: GpuPair<'a>,
    avoid_duplicates: bool,
    replicas: F,
}

impl<I: Iterator<Item = (u32, u32)>, F: Fn() -> I> pulp::NullaryFnOnce for SharingTask<'_, F> {
    type Output = Option<[u32; 3]>;

    /// Compiled once for each set of vector instructions; the widest that the processor has is taken.
    #[inline(always)]
    fn call(self) -> Self::Output {
        let Self { pair, avoid_duplicates, replicas } = self;
        let Ways { slots, one, two, alone, with, .. } = pair.ways;
        let [a, b] = pair.others;
        let with = &with[a * two.sets.len()..][..two.sets.len()];
        let alone = &alone[b * one.sets.len()..][..one.sets.len()];
        let (mut best, mut is_known) = ((pair.top, None), false);
        for size in 0..*slots {
            let (run, vectors) = (two.of_size(slots - size), two.vectors_of_size(slots - size));
            for of_one in one.of_size(size) {
                let (mut shift, mut width) = pair.window(best.0, alone[of_one]);
                if !is_any_below(&with[vectors.clone()], shift, width) {
                    continue;
                }
                for of_two in run.clone() {
                    if with[of_two].wrapping_add(shift) < width {
                        if !is_known {
                            pair.three.take(*slots, avoid_duplicates, replicas());
                            is_known = true;
                        }
                        let first = two.sets[of_two] | one.sets[of_one] << (2 * slots);
                        best = pair.three.split(first, with[of_two] + alone[of_one], one, best);
                        pair.three.sets_left -= 1;
                        if best.0 <= pair.stop || pair.three.sets_left == 0 {
                            return best.1;
                        }
                        (shift, width) = pair.window(best.0, alone[of_one]);
                    }
                }
            }
        }
        best.1
    }
}

/// Whether there is a load `x` with `x + shift < width`, wrapping.
#[inline(always)]
fn is_any_below(loads: &[u32], shift: u32, width: u32) -> bool {
    let mut least = [u32::MAX; LANES];
    for loads in loads.as_chunks::<LANES>().0 {
        for (least, load) in least.iter_mut().zip(loads) {
            *least = (*least).min(load.wrapping_add(shift));
        }
    }
    least.into_iter().fold(u32::MAX, u32::min) < width
}

/// Three GPUs' replicas: those of the heaviest GPU, then those of the two others.
pub struct Three {
    /// How many sets for the first GPU may still be looked into.
    pub sets_left: u32,
    slots: usize,
    expert: [u32; MOST],
    load: [u32; MOST],
    total: u32,
    /// Replicas that must not meet on a GPU, two in a set.
    apart: Vec<u32>,
    /// Replicas of an expert that has three: each GPU gets one. Three in a set.
    one_each: Vec<u32>,
    /// Scratch: the loads of the sets of the second half of what the first GPU leaves, in the order of [`Ways::one`].
    by_size: [u32; MOST_VECTORS],
}

impl Default for Three {
    fn default() -> Self {
        let (expert, load, by_size) = ([FREE; MOST], [0; MOST], [0; MOST_VECTORS]);
        Self {
            sets_left: 0,
            slots: 0,
            expert,
            load,
            total: 0,
            apart: Vec::new(),
            one_each: Vec::new(),
            by_size,
        }
    }
}

impl Three {
    /// Expert and load of each replica in a set.
    pub fn replicas(&self, set: u32) -> impl Iterator<Item = (u32, u32)> {
        (0..3 * self.slots).filter(move |at| set >> at & 1 == 1).map(|at| (self.expert[at], self.load[at]))
    }

    fn take(&mut self, slots: usize, avoid_duplicates: bool, replicas: impl Iterator<Item = (u32, u32)>) {
        self.slots = slots;
        self.total = 0;
        self.apart.clear();
        self.one_each.clear();
        for (at, (expert, load)) in replicas.enumerate() {
            (self.expert[at], self.load[at]) = (expert, load);
            self.total += load;
            if expert != FREE && avoid_duplicates {
                let mut all = 1u32 << at;
                for other in (0..at).filter(|&other| self.expert[other] == expert) {
                    self.apart.push(1 << at | 1 << other);
                    all |= 1 << other;
                }
                if all.count_ones() == 3 {
                    self.one_each.push(all);
                }
            }
        }
    }

    /// Shares what the first GPU leaves between the two others: the better of the best way so far and of these.
    #[inline(always)]
    fn split(&mut self, first: u32, load: u32, one: &ReplicaSets, mut best: BestSharing) -> BestSharing {
        if self.one_each.iter().any(|all| all & first == 0) || self.repeats(first) {
            return best;
        }
        let slots = self.slots;
        let all = (1u32 << (3 * slots)) - 1;
        let mut at = [0; 2 * MOST_THREE_SLOTS as usize];
        let mut rest = all & !first;
        for to in &mut at[..2 * slots] {
            *to = rest.trailing_zeros() as usize;
            rest &= rest - 1;
        }
        let (mut low, mut high) = ([0; MOST_SETS], [0; MOST_SETS]);
        sums(at[..slots].iter().map(|&at| self.load[at]), &mut low);
        sums(at[slots..2 * slots].iter().map(|&at| self.load[at]), &mut high);
        for (load, &set) in self.by_size.iter_mut().zip(&one.sets) {
            *load = high[set as usize];
        }
        let left = self.total - load;
        // The first replica that is left always goes to the second GPU, so that no way comes twice.
        for of_low in (1..1 << slots).step_by(2) {
            let size = slots - (of_low as u32).count_ones() as usize;
            // The third GPU ends below the best too.
            let least = left.saturating_sub(best.0 - 1);
            let (shift, width) = (low[of_low].wrapping_sub(least), best.0.saturating_sub(least));
            if !is_any_below(&self.by_size[one.vectors_of_size(size)], shift, width) {
                continue;
            }
            for of_high in one.of_size(size) {
                let with = low[of_low] + self.by_size[of_high];
                let heaviest = load.max(with).max(left - with);
                if heaviest < best.0 {
                    let set = of_low as u32 | one.sets[of_high] << slots;
                    let chosen = (0..2 * slots).filter(|i| set >> i & 1 == 1);
                    let second = chosen.fold(0, |second, i| second | 1 << at[i]);
                    let third = all & !first & !second;
                    if !self.repeats(second) && !self.repeats(third) {
                        best = (heaviest, Some([first, second, third]));
                    }
                }
            }
        }
        best
    }

    /// Whether a set holds an expert twice.
    fn repeats(&self, set: u32) -> bool {
        self.apart.iter().any(|&two| !set & two == 0)
    }
}
