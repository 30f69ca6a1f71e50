//! Each move of the lineage on small random candidates, against a search over all moves of that kind.

use super::{has_duplicates, shuffled};
use crate::cases::Random;
use crate::mirror::candidate::Candidate;
use crate::mirror::s5_descend::{bipartition, pair_swap, swap};
use crate::params::{FREE, Params};
use crate::{Cluster, Descent, Duplicates, Loads, PlanOptions, Search};

const GPUS: usize = 4;

/// A small node with some free slots and a random valid placement, without duplicates where that is the rule.
struct Small {
    params: Params,
    loads: Vec<u32>,
    candidate: Candidate,
}

impl Small {
    fn new(seed: u64, duplicates: Duplicates, descent: Descent) -> Self {
        let mut random = Random(seed);
        let slots = 2 + random.below(3);
        let experts = 4 + random.below(3);
        let replicas = (experts + random.below(4)).min(GPUS * slots);
        let counts: Vec<u64> = (0..experts).map(|_| 1 + random.next() % 1000).collect();
        let loads = Loads::from_counts(1, experts, &counts).unwrap();
        let cluster = Cluster::with_slots_per_gpu(replicas, 1, 1, GPUS, slots).unwrap();
        let options = PlanOptions { duplicates, search: Search::Descent(descent), ..PlanOptions::default() };
        let params = Params::new(&loads, &cluster, &options).unwrap();
        loop {
            let placed = shuffled(&mut random, experts, replicas, GPUS * slots);
            if duplicates == Duplicates::Allow || !has_duplicates(&placed, slots) {
                let mut candidate = Candidate { expert: placed, ..Candidate::default() };
                weigh(&mut candidate, loads.fixed(), slots);
                return Self { params, loads: loads.fixed().to_vec(), candidate };
            }
        }
    }

    fn slots(&self) -> usize {
        self.params.slots_per_gpu as usize
    }

    /// The sorted GPU loads of every placement one exchange of these slots away, if it is allowed.
    fn exchanged(&self, pairs: &[(usize, usize)]) -> Option<Vec<u32>> {
        let mut expert = self.candidate.expert.clone();
        pairs.iter().for_each(|&(a, b)| expert.swap(a, b));
        let allowed = !self.params.avoid_duplicates || !has_duplicates(&expert, self.slots());
        let mut after = Candidate { expert, ..Candidate::default() };
        weigh(&mut after, &self.loads, self.slots());
        allowed.then_some(after.gpu_load)
    }

    /// Largest load of two GPUs.
    fn larger(loads: &[u32], a: usize, b: usize) -> u32 {
        loads[a].max(loads[b])
    }

    /// After a move the candidate's loads must be those of its placement.
    fn assert_consistent(&self) {
        let mut again = Candidate { expert: self.candidate.expert.clone(), ..Candidate::default() };
        weigh(&mut again, &self.loads, self.slots());
        assert_eq!(again.load, self.candidate.load);
        assert_eq!(again.gpu_load, self.candidate.gpu_load);
        assert_eq!(again.counts, self.candidate.counts);
        assert!(!self.params.avoid_duplicates || !has_duplicates(&again.expert, self.slots()));
    }
}

/// Fills counts and loads from the placement.
fn weigh(candidate: &mut Candidate, loads: &[u32], slots: usize) {
    candidate.counts = vec![0; loads.len()];
    for &e in candidate.expert.iter().filter(|&&e| e != FREE) {
        candidate.counts[e as usize] += 1;
    }
    let load = |&e: &u32| if e == FREE { 0 } else { loads[e as usize] / candidate.counts[e as usize] };
    candidate.load = candidate.expert.iter().map(load).collect();
    candidate.gpu_load = candidate.load.chunks(slots).map(|gpu| gpu.iter().sum()).collect();
}

const RULES: [Duplicates; 2] = [Duplicates::Allow, Duplicates::Avoid];

#[test]
fn a_swap_step_makes_the_best_of_all_swaps_of_the_heaviest_gpu() {
    let mut found = 0;
    for seed in 0..400 {
        let mut small = Small::new(seed, RULES[seed as usize % 2], Descent::SWAPS);
        let (k, heavy) = (small.slots(), small.candidate.heaviest());
        let before = small.candidate.gpu_load.clone();
        let gain = |to: usize, after: Vec<u32>| {
            Small::larger(&before, heavy, to / k).saturating_sub(Small::larger(&after, heavy, to / k))
        };
        let best = (heavy * k..(heavy + 1) * k)
            .flat_map(|a| (0..GPUS * k).filter(move |b| b / k != heavy).map(move |b| (a, b)))
            .filter_map(|pair| small.exchanged(&[pair]).map(|after| gain(pair.1, after)))
            .max()
            .unwrap_or(0);
        let moved = swap::step(&small.params, false, &mut small.candidate);
        assert_eq!(moved, best > 0, "seed {seed}");
        if moved {
            found += 1;
            let partner =
                (0..GPUS).find(|&g| g != heavy && small.candidate.gpu_load[g] != before[g]).unwrap();
            let after = Small::larger(&small.candidate.gpu_load, heavy, partner);
            assert_eq!(before[heavy] - after, best, "seed {seed}");
        }
        small.assert_consistent();
    }
    assert!(found > 100, "{found} cases had a swap");
}

#[test]
fn a_variance_step_lowers_the_sum_of_squares_most() {
    let squares = |loads: &[u32]| loads.iter().map(|&l| u128::from(l) * u128::from(l)).sum::<u128>();
    for seed in 0..200 {
        let descent = Descent { objective: crate::Objective::Variance, ..Descent::SWAPS };
        let mut small = Small::new(1000 + seed, RULES[seed as usize % 2], descent);
        let (k, heavy) = (small.slots(), small.candidate.heaviest());
        let before = squares(&small.candidate.gpu_load);
        let best = (heavy * k..(heavy + 1) * k)
            .flat_map(|a| (0..GPUS * k).filter(move |b| b / k != heavy).map(move |b| (a, b)))
            .filter_map(|pair| small.exchanged(&[pair]).map(|after| squares(&after)))
            .min()
            .unwrap_or(before);
        let moved = swap::step(&small.params, true, &mut small.candidate);
        assert_eq!(moved, best < before, "seed {seed}");
        assert_eq!(squares(&small.candidate.gpu_load), best.min(before), "seed {seed}");
    }
}

#[test]
fn several_heavy_gpus_swap_with_distinct_partners_in_one_step() {
    let mut both = 0;
    for seed in 0..200 {
        let descent = Descent { heaviest: 2, lightest: 2, ..Descent::SWAPS };
        let mut small = Small::new(2000 + seed, RULES[seed as usize % 2], descent);
        let before = small.candidate.gpu_load.clone();
        let moved = swap::step(&small.params, false, &mut small.candidate);
        let changed = (0..GPUS).filter(|&g| small.candidate.gpu_load[g] != before[g]).count();
        assert!(
            changed <= 4 && changed.is_multiple_of(2) && moved == (changed > 0),
            "seed {seed}: {changed}"
        );
        both += usize::from(changed == 4);
        let sorted = |mut loads: Vec<u32>| {
            loads.sort_unstable_by(|a, b| b.cmp(a));
            loads
        };
        assert!(sorted(small.candidate.gpu_load.clone()) <= sorted(before), "seed {seed}");
        small.assert_consistent();
    }
    assert!(both > 5, "{both} steps made two swaps");
}

#[test]
fn a_pair_step_makes_the_best_of_all_pair_swaps_of_the_heaviest_gpu() {
    let mut found = 0;
    for seed in 0..300 {
        let mut small = Small::new(3000 + seed, RULES[seed as usize % 2], Descent::SWAPS);
        let (k, heavy) = (small.slots(), small.candidate.heaviest());
        let before = small.candidate.gpu_load.clone();
        let two = |gpu: usize| (0..k).flat_map(move |i| (i + 1..k).map(move |j| (gpu * k + i, gpu * k + j)));
        // The rule is that none of the four may meet a duplicate, even one that is about to leave.
        let clear = |slot: usize, gpu: usize| {
            let e = small.candidate.expert[slot];
            e == FREE
                || !small.params.avoid_duplicates
                || !small.candidate.expert[gpu * k..(gpu + 1) * k].contains(&e)
        };
        let mut best = 0;
        for gpu in (0..GPUS).filter(|&g| g != heavy) {
            for (a, b) in two(heavy) {
                for (c, d) in two(gpu) {
                    let allowed = clear(a, gpu) && clear(b, gpu) && clear(c, heavy) && clear(d, heavy);
                    if let (true, Some(after)) = (allowed, small.exchanged(&[(a, c), (b, d)])) {
                        best = best.max(before[heavy].saturating_sub(Small::larger(&after, heavy, gpu)));
                    }
                }
            }
        }
        let moved = pair_swap::step(&small.params, &mut small.candidate);
        assert_eq!(moved, best > 0, "seed {seed}");
        if moved {
            found += 1;
            let partner =
                (0..GPUS).find(|&g| g != heavy && small.candidate.gpu_load[g] != before[g]).unwrap();
            assert_eq!(before[heavy] - Small::larger(&small.candidate.gpu_load, heavy, partner), best);
        }
        small.assert_consistent();
    }
    assert!(found > 50, "{found} cases had a pair swap");
}

#[test]
fn two_for_one_finds_what_single_swaps_cannot() {
    // GPU 0 holds 30 + 32 + 50 + 20 = 132, GPU 1 holds 60 + 60 + 8 and a free slot = 128. No single difference
    // is between 0 and 4; 30 + 32 for 60 and the free slot moves 2, and both GPUs have 130.
    let loads = [30, 32, 50, 20, 60, 60, 8];
    let counts: Vec<u64> = loads.iter().map(|&l| u64::from(l)).collect();
    let history = Loads::from_counts(1, 7, &counts).unwrap();
    let cluster = Cluster::with_slots_per_gpu(7, 1, 1, 2, 4).unwrap();
    let params = Params::new(&history, &cluster, &PlanOptions::default()).unwrap();
    let mut candidate = Candidate { expert: vec![0, 1, 2, 3, 4, FREE, 5, 6], ..Candidate::default() };
    weigh(&mut candidate, &loads, 4);
    assert_eq!(candidate.gpu_load, [132, 128]);
    assert!(!swap::step(&params, false, &mut candidate));
    assert!(pair_swap::step(&params, &mut candidate));
    assert_eq!(candidate.gpu_load, [130, 130]);
    assert_eq!(candidate.expert, [4, FREE, 2, 3, 0, 1, 5, 6]);
}

#[test]
fn bipartition_splits_two_gpus_as_well_as_can_be() {
    let mut found = 0;
    for seed in 0..200 {
        let descent = Descent { bipartition: true, ..Descent::SWAPS };
        let mut small = Small::new(4000 + seed, RULES[seed as usize % 2], descent);
        let k = small.slots();
        let (heavy, light) = (small.candidate.heaviest(), small.candidate.lightest());
        let slots: Vec<usize> = (heavy * k..(heavy + 1) * k).chain(light * k..(light + 1) * k).collect();
        let total = small.candidate.gpu_load[heavy] + small.candidate.gpu_load[light];
        let before = small.candidate.gpu_load[heavy];
        let mut best = before;
        for mask in (0u32..1 << (2 * k)).filter(|mask| mask.count_ones() as usize == k) {
            let on = |i: usize| mask >> i & 1 == 1;
            let sum: u32 = (0..2 * k).filter(|&i| on(i)).map(|i| small.candidate.load[slots[i]]).sum();
            let side = |side: bool| {
                let held: Vec<u32> =
                    (0..2 * k).filter(|&i| on(i) == side).map(|i| small.candidate.expert[slots[i]]).collect();
                has_duplicates(&held, k)
            };
            if !small.params.avoid_duplicates || !(side(true) || side(false)) {
                best = best.min(sum.max(total - sum));
            }
        }
        let moved = heavy != light && bipartition::step(&small.params, &mut small.candidate);
        assert_eq!(moved, best < before && heavy != light, "seed {seed}");
        if moved {
            found += 1;
            assert_eq!(Small::larger(&small.candidate.gpu_load, heavy, light), best, "seed {seed}");
        }
        small.assert_consistent();
    }
    assert!(found > 50, "{found} cases had a better split");
}
