//! The moves of replanning, over several windows, against placements weighed from scratch.

use super::{has_duplicates, shuffled};
use crate::cases::Random;
use crate::params::{FREE, Params};
use crate::planner::warm_moves::{Candidate, Kind, Move, Quad, pair_swap, swap, transfer};
use crate::{Cluster, Duplicates, Loads, PlanOptions};

const GPUS: usize = 4;

/// A small node with some free slots, 1 to 16 windows and a random valid placement.
struct Small {
    params: Params,
    loads: Vec<Quad>,
    candidate: Candidate,
}

impl Small {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let duplicates = [Duplicates::Allow, Duplicates::Avoid][random.below(2)];
        let slots = 2 + random.below(3);
        let experts = 4 + random.below(3);
        let replicas = (experts + random.below(4)).min(GPUS * slots);
        let windows: Vec<Loads> = (0..1 + random.below(16))
            .map(|_| {
                let counts: Vec<u64> = (0..experts).map(|_| 1 + random.next() % 1000).collect();
                Loads::from_counts(1, experts, &counts).unwrap()
            })
            .collect();
        let all = Loads::from_windows(&windows, &vec![1.0; windows.len()]).unwrap();
        let cluster = Cluster::with_slots_per_gpu(replicas, 1, 1, GPUS, slots).unwrap();
        let options = PlanOptions { duplicates, ..PlanOptions::default() };
        let params = Params::new(&all, &cluster, &options).unwrap();
        let quads = params.quads() as usize;
        let mut loads = vec![Quad::default(); experts * quads];
        for (window, row) in all.fixed_windows().chunks_exact(experts).enumerate() {
            for (expert, &load) in row.iter().enumerate() {
                loads[expert * quads + window / 4][window % 4] = load;
            }
        }
        let mut floors = vec![Quad::default(); quads];
        if random.below(2) == 0 {
            // As in a node of several: in some windows another node is the busiest.
            for window in 0..windows.len() {
                floors[window / 4][window % 4] = (random.next() % (1 << 24)) as u32;
            }
        }
        let mut candidate = Candidate::default();
        candidate.floors = floors;
        loop {
            let placed = shuffled(&mut random, experts, replicas, GPUS * slots);
            if duplicates == Duplicates::Allow || !has_duplicates(&placed, slots) {
                candidate.place(&params, &loads, &placed);
                candidate.find_tops(&params);
                return Self { params, loads, candidate };
            }
        }
    }

    fn slots(&self) -> usize {
        self.params.slots_per_gpu as usize
    }

    /// The heaviest load of each window among some GPUs of a placement, not below the floors, in sum; `None`
    /// where the placement breaks the rule on duplicates.
    fn weighed(&self, placement: &[u32], gpus: &[usize]) -> Option<u32> {
        if self.params.avoid_duplicates && has_duplicates(placement, self.slots()) {
            return None;
        }
        let count = |e: u32| placement.iter().filter(|&&other| other == e).count() as u32;
        let quads = self.params.quads() as usize;
        let load = |gpu: usize, window: usize| -> u32 {
            let held = placement[gpu * self.slots()..(gpu + 1) * self.slots()].iter();
            held.filter(|&&e| e != FREE)
                .map(|&e| self.loads[e as usize * quads + window / 4][window % 4] / count(e))
                .sum()
        };
        let heaviest = |window: usize| gpus.iter().map(|&gpu| load(gpu, window)).max().unwrap();
        let floor = |window: usize| self.candidate.floors[window / 4][window % 4];
        Some((0..self.params.windows as usize).map(|w| heaviest(w).max(floor(w))).sum())
    }

    fn value(&self, placement: &[u32]) -> Option<u32> {
        self.weighed(placement, &[0, 1, 2, 3])
    }

    /// Value and local value of the placement after exchanges between two GPUs, if they are allowed.
    fn exchanged(&self, pairs: &[(usize, usize)]) -> Option<(u32, u32)> {
        let mut placement = self.candidate.expert.clone();
        pairs.iter().for_each(|&(a, b)| placement.swap(a, b));
        let (a, b) = (pairs[0].0 / self.slots(), pairs[0].1 / self.slots());
        Some((self.value(&placement)?, self.weighed(&placement, &[a, b])?))
    }

    /// The GPUs that may propose moves.
    fn critical(&self) -> Vec<usize> {
        (0..self.params.windows).filter_map(|window| self.candidate.critical(window)).collect()
    }

    /// The least value and local value of some exchanges that make one of the two lower than it is.
    fn best_exchange(&self, all: impl Iterator<Item = Vec<(usize, usize)>>) -> Option<(u32, u32)> {
        let now = self.value(&self.candidate.expert).unwrap();
        all.filter_map(|pairs| {
            let (a, b) = (pairs[0].0 / self.slots(), pairs[0].1 / self.slots());
            let local = self.weighed(&self.candidate.expert, &[a, b])?;
            self.exchanged(&pairs).filter(|after| after.0 <= now && (after.0 < now || after.1 < local))
        })
        .min()
    }
}

fn outcome(found: Option<Move>) -> Option<(u32, u32)> {
    found.map(|found| (found.value, found.local))
}

#[test]
fn the_value_of_a_placement_is_the_sum_of_its_windows_heaviest_gpus() {
    for seed in 0..100 {
        let small = Small::new(90_000 + seed);
        assert_eq!(Some(small.candidate.value()), small.value(&small.candidate.expert), "seed {seed}");
    }
}

#[test]
fn a_swap_is_the_best_of_all_swaps_of_critical_gpus() {
    let mut moved = 0;
    for seed in 0..300 {
        let mut small = Small::new(91_000 + seed);
        let k = small.slots();
        let pairs = small.critical().into_iter().flat_map(|heavy| {
            let there = move |a: usize| (0..GPUS * k).map(move |b| (a, b)).filter(move |p| p.1 / k != heavy);
            (heavy * k..(heavy + 1) * k).flat_map(there).map(|pair| vec![pair]).collect::<Vec<_>>()
        });
        let best = small.best_exchange(pairs);
        let value = small.candidate.value();
        let found = swap::best(&small.params, value, &mut small.candidate);
        assert_eq!(outcome(found), best, "seed {seed}");
        if let Some(Move { kind: Kind::Swap(a, b), .. }) = found {
            moved += 1;
            assert_eq!(small.exchanged(&[(a, b)]), best, "seed {seed}");
        }
    }
    assert!(moved > 100, "{moved} cases had a swap");
}

/// The rule is that none of the four may meet a twin, even one that is about to leave.
#[test]
fn a_pair_swap_is_the_best_of_all_pair_swaps_of_critical_gpus() {
    let mut moved = 0;
    for seed in 0..200 {
        let mut small = Small::new(92_000 + seed);
        let k = small.slots();
        let two = |gpu: usize| (0..k).flat_map(move |i| (i + 1..k).map(move |j| (gpu * k + i, gpu * k + j)));
        let twin = |slot: usize, gpu: usize| {
            let e = small.candidate.expert[slot];
            small.params.avoid_duplicates
                && e != FREE
                && small.candidate.expert[gpu * k..(gpu + 1) * k].contains(&e)
        };
        let mut pairs = Vec::new();
        for heavy in small.critical() {
            for gpu in (0..GPUS).filter(|&gpu| gpu != heavy) {
                for ((a, b), (c, d)) in two(heavy).flat_map(|here| two(gpu).map(move |there| (here, there))) {
                    if ![twin(a, gpu), twin(b, gpu), twin(c, heavy), twin(d, heavy)].contains(&true) {
                        pairs.push(vec![(a, c), (b, d)]);
                    }
                }
            }
        }
        let best = small.best_exchange(pairs.into_iter());
        let value = small.candidate.value();
        let found = pair_swap::best(&small.params, value, &mut small.candidate);
        assert_eq!(outcome(found), best, "seed {seed}");
        if let Some(Move { kind: Kind::PairSwap([a, b], [c, d]), .. }) = found {
            moved += 1;
            assert_eq!(small.exchanged(&[(a, c), (b, d)]), best, "seed {seed}");
        }
    }
    assert!(moved > 50, "{moved} cases had a pair swap");
}

#[test]
fn the_value_of_a_transfer_is_an_upper_bound() {
    let mut moved = 0;
    for seed in 0..400 {
        let mut small = Small::new(93_000 + seed);
        let value = small.candidate.value();
        let Some(found) = transfer::best(&small.params, &small.loads, value, &mut small.candidate) else {
            continue;
        };
        moved += 1;
        assert!(found.value < value, "seed {seed}");
        small.candidate.make(&small.params, &small.loads, found.kind);
        small.candidate.find_tops(&small.params);
        let after = small.value(&small.candidate.expert).expect("no duplicate");
        assert_eq!(small.candidate.value(), after, "seed {seed}");
        assert!(after <= found.value, "seed {seed}: {after} > {}", found.value);
    }
    assert!(moved > 50, "{moved} cases had a transfer");
}
