//! The search of counts for GPUs of two slots, against all counts and all pairings of small calls.

use crate::cases::Random;
use crate::mirror::candidate::{Candidate, Outcome};
use crate::mirror::{rng, s3_replicate, s4_pack, s5_counts};
use crate::params::Params;
use crate::params::SearchKind;
use crate::plan::Stop;
use crate::{Cluster, Duplicates, Loads, PlanOptions};

/// One node of GPUs with two slots, packed.
struct Call {
    params: Params,
    loads: Vec<u32>,
    key: u32,
    packed: Candidate,
}

impl Call {
    /// Of random loads; a third of these are skewed, and a third have many equal ones.
    fn random(seed: u64, experts: usize, gpus: usize, duplicates: Duplicates) -> Self {
        let mut random = Random(seed);
        let mut load = || match seed % 3 {
            0 => random.next() % 1000,
            1 => (random.next() % 50).pow(3) + 1,
            _ => 1 + random.next() % 4,
        };
        let counts: Vec<u64> = (0..experts).map(|_| load()).collect();
        Self::new(&counts, gpus, seed, duplicates)
    }

    fn new(counts: &[u64], gpus: usize, seed: u64, duplicates: Duplicates) -> Self {
        let loads = Loads::from_counts(1, counts.len(), counts).unwrap();
        let cluster = Cluster::new(2 * gpus, 1, 1, gpus).unwrap();
        let options = PlanOptions { seed, duplicates, ..PlanOptions::default() };
        let params = Params::new(&loads, &cluster, &options).unwrap();
        assert!(params.search_kind() == SearchKind::Counts);
        let start = (seed % 5) as u32;
        let key = rng::key(&params, 0, start);
        let mut packed = Candidate::default();
        let Candidate { counts, scratch, .. } = &mut packed;
        s3_replicate::replicate(&params, key, start, loads.fixed(), counts, scratch);
        s4_pack::pack(&params, key, start, loads.fixed(), &mut packed);
        Self { params, loads: loads.fixed().to_vec(), key, packed }
    }

    /// The search of the packing; what holds of every result is checked.
    fn search(&self, iterations: u32, patience: u32, stop_load: u32) -> (Outcome, Candidate) {
        let params =
            Params { iterations, patience: patience * s5_counts::PATIENCE_SHARE, ..self.params.clone() };
        let mut found = Candidate {
            expert: self.packed.expert.clone(),
            gpu_load: self.packed.gpu_load.clone(),
            counts: self.packed.counts.clone(),
            ..Candidate::default()
        };
        let mut tables = s5_counts::Tables::default();
        let outcome = s5_counts::search(&params, self.key, &self.loads, stop_load, &mut found, &mut tables);
        let mut counts = vec![0; self.loads.len()];
        found.snapshot.iter().for_each(|&e| counts[e as usize] += 1);
        assert_eq!(counts, found.counts);
        assert!(counts.iter().all(|&n| (1..=params.max_count).contains(&n)), "{counts:?}");
        let gpus = found.snapshot.as_chunks::<2>().0;
        assert!(!params.avoid_duplicates || gpus.iter().all(|[a, b]| a != b), "{:?}", found.snapshot);
        assert_eq!(outcome.max, gpus.iter().map(|gpu| self.load(&counts, gpu)).max().unwrap());
        assert!(outcome.max <= self.packed.max_load());
        assert_eq!(outcome.end == Stop::BoundReached, outcome.max <= stop_load);
        (outcome, found)
    }

    fn load(&self, counts: &[u32], gpu: &[u32]) -> u32 {
        gpu.iter().map(|&e| self.loads[e as usize] / counts[e as usize]).sum()
    }

    /// The least load of the heaviest GPU over all pairings of the replicas of some counts.
    fn best_pairing(&self, counts: &[u32]) -> u32 {
        let replicas = counts.iter().zip(0..).flat_map(|(&n, e)| std::iter::repeat_n(e, n as usize));
        self.best_of(counts, &mut replicas.collect())
    }

    fn best_of(&self, counts: &[u32], left: &mut Vec<u32>) -> u32 {
        let Some(a) = left.pop() else { return 0 };
        let mut best = u32::MAX;
        for at in 0..left.len() {
            let b = left.remove(at);
            if !(self.params.avoid_duplicates && a == b) {
                best = best.min(self.load(counts, &[a, b]).max(self.best_of(counts, left)));
            }
            left.insert(at, b);
        }
        left.push(a);
        best
    }

    /// The same over all counts.
    fn best(&self, counts: &mut Vec<u32>, left: u32) -> u32 {
        if counts.len() == self.loads.len() {
            return if left == 0 { self.best_pairing(counts) } else { u32::MAX };
        }
        let mut best = u32::MAX;
        for count in 1..=left.min(self.params.max_count) {
            counts.push(count);
            best = best.min(self.best(counts, left - count));
            counts.pop();
        }
        best
    }
}

const RULES: [Duplicates; 2] = [Duplicates::Avoid, Duplicates::Allow];

#[test]
fn results_are_valid_and_never_worse_than_the_packing() {
    for seed in 0..400 {
        let mut random = Random(900 + seed);
        let gpus = 1 + random.below(40);
        let experts = (2 + random.below(79)).min(2 * gpus);
        for duplicates in RULES {
            let call = Call::random(seed, experts, gpus, duplicates);
            call.search(40, 8, 0);
            let least = call.loads.iter().sum::<u32>() / gpus as u32;
            call.search(40, 8, least + least / 64);
        }
    }
}

/// The fold, and how it parts duplicates.
#[test]
fn no_placement_of_the_counts_is_better_than_the_fold() {
    for seed in 0..600 {
        let mut random = Random(1900 + seed);
        let gpus = 1 + random.below(4);
        let experts = (2 + random.below(7)).min(2 * gpus);
        for duplicates in RULES {
            let call = Call::random(seed, experts, gpus, duplicates);
            let (outcome, _) = call.search(0, 8, 0);
            assert_eq!(outcome.max, call.best_pairing(&call.packed.counts), "seed {seed}, {duplicates:?}");
        }
    }
}

#[test]
fn small_calls_come_out_close_to_the_best_of_all_plans() {
    let (mut cases, mut optimal, mut worst) = (0, 0, 1f64);
    for seed in 0..300 {
        let mut random = Random(2900 + seed);
        let gpus = 2 + random.below(3);
        let experts = (2 + random.below(5)).min(2 * gpus);
        let call = Call::random(seed, experts, gpus, Duplicates::Avoid);
        let best = call.best(&mut Vec::new(), 2 * gpus as u32);
        let (outcome, _) = call.search(1000, 8, 0);
        assert!(outcome.max >= best, "seed {seed}");
        cases += 1;
        optimal += usize::from(outcome.max == best);
        worst = worst.max(f64::from(outcome.max) / f64::from(best.max(1)));
    }
    assert!(optimal * 100 >= cases * 95 && worst < 1.25, "{optimal} of {cases}, worst {worst}");
}

#[test]
fn more_iterations_and_more_patience_are_never_worse() {
    for seed in 0..100 {
        let call = Call::random(seed, 48, 40, Duplicates::Avoid);
        let mut before = u32::MAX;
        for (iterations, patience) in [(0, 8), (1, 8), (3, 8), (9, 8), (30, 8), (30, 30), (200, 60)] {
            let (outcome, _) = call.search(iterations, patience, 0);
            assert!(outcome.max <= before, "seed {seed}, {iterations} iterations, patience {patience}");
            before = outcome.max;
        }
    }
}

#[test]
fn where_no_count_can_change_the_search_ends_at_once() {
    let call = Call::new(&[5, 4, 3, 2], 2, 0, Duplicates::Avoid);
    assert_eq!(call.search(1000, 8, 0).0.end, Stop::NoMoveLeft);
    let idle = Call::new(&[0, 0, 0], 2, 0, Duplicates::Avoid);
    assert_eq!(idle.search(1000, 8, 0).0.end, Stop::BoundReached);
}

/// One expert has nearly all load and so most of the replicas: more than a row of the table has columns for.
#[test]
fn counts_beyond_the_columns_of_a_row_are_searched_too() {
    let mut loads = vec![20_000, 3_000];
    loads.extend((0..60).map(|i| i * 37 % 50 * (i * 37 % 50) + 20));
    let call = Call::new(&loads, 64, 0, Duplicates::Avoid);
    let (outcome, found) = call.search(1000, 8, 0);
    assert!(found.counts[0] > 16, "{:?}", found.counts);
    assert!(f64::from(outcome.max) < f64::from(call.packed.max_load()) * 0.999);
}
