//! The plans of random calls, those of a kind in one number: no rule says which of several good plans is made, and yet every
//! machine must make the same. `src/suite/fingerprints.json` holds one call of each preset; the numbers here hold the plans
//! of random options, windows, speeds and running plans.

use approx::assert_relative_eq;
use xxhash_rust::xxh64::xxh64;

use crate::bound::{self, BoundEffort, BoundOptions};
use crate::cases::{Call, Case, Random, call, random_case, random_windows_case};
use crate::{Cluster, DeviceChoice, Duplicates, Error, Loads, MaxMoves, MoveLimits, PlanOptions, Planner};

/// A hash of what follows one another.
#[derive(Default)]
struct Pin {
    hash: u64,
    /// How many came out, and how many were refused.
    made: usize,
    refused: usize,
}

impl Pin {
    fn add<T>(&mut self, result: Result<T, Error>, told: impl FnOnce(T) -> String) {
        let text = match result {
            Ok(made) => {
                self.made += 1;
                told(made)
            }
            Err(Error::Invalid { field, .. }) => {
                self.refused += 1;
                field
            }
            Err(error) => panic!("{error}"),
        };
        self.hash = xxh64(text.as_bytes(), self.hash);
    }

    /// Against what was written down. A change that is meant raises `PLAN_VERSION` and writes down the new one.
    #[track_caller]
    fn assert(&self, hash: u64, made: usize) {
        assert!(self.made >= made, "{} made, {} refused", self.made, self.refused);
        assert_eq!(self.hash, hash, "plans changed: they come to {:#018x} now", self.hash);
    }
}

fn planner() -> Planner {
    Planner::new(DeviceChoice::Cpu).unwrap()
}

/// The cluster with GPUs of unequal speed, none of them gone.
fn unequal(cluster: &Cluster, random: &mut Random) -> Cluster {
    let speeds: Vec<f64> = (0..cluster.num_gpus()).map(|_| [1.0, 1.0, 0.5, 0.83][random.below(4)]).collect();
    cluster.clone().with_gpu_speeds(&speeds).unwrap()
}

#[test]
fn plans_are_those_of_this_version() {
    let (planner, mut pin) = (planner(), Pin::default());
    for seed in 0..600 {
        let mut random = Random(seed);
        let case = match seed % 3 {
            0 => random_windows_case(50_000 + seed, 1 << 11),
            1 => random_case(50_000 + seed, 1 << 12),
            _ => {
                // Few slots and several windows; GPUs that are to be connected.
                let Call { seed, loads, cluster, options, .. } = call(50_000 + seed);
                let options = PlanOptions { starts: 4, connected: random.below(2) == 0, ..options };
                Case { seed, loads, cluster, options }
            }
        };
        let cluster = if seed % 5 == 4 { unequal(&case.cluster, &mut random) } else { case.cluster };
        let options = PlanOptions { iterations: case.options.iterations.min(100), ..case.options };
        pin.add(planner.plan(&case.loads, &cluster, &options), |plan| {
            format!("{:016x} {:?}", plan.fingerprint(), plan.stops())
        });
    }
    pin.assert(0xcc06_523f_239a_aaf4, 500);
}

#[test]
fn plans_from_ones_that_run_are_those_of_this_version() {
    let (planner, mut pin) = (planner(), Pin::default());
    for seed in 0..600 {
        let mut random = Random(seed);
        let Call { loads, cluster, options, previous, limits, .. } = call(51_000 + seed);
        let cluster = if seed % 4 == 3 { unequal(&cluster, &mut random) } else { cluster };
        let options = PlanOptions { connected: seed % 8 == 0, ..options };
        let most = |random: &mut Random| {
            let (slots, ppm) = (random.below(9), 1000 * random.below(300) as u32);
            [None, None, Some(MaxMoves::Slots(slots)), Some(MaxMoves::Ppm(ppm))][random.below(4)]
        };
        let limits = MoveLimits {
            max_moves: most(&mut random),
            max_moves_per_layer: most(&mut random),
            max_rounds_per_layer: [None, Some(random.below(4))][random.below(2)],
            skip_if_balanced_ppm: [None, Some(900_000)][random.below(2)],
            ..limits
        };
        pin.add(planner.replan(&loads, &cluster, previous, &options, &limits), |replan| {
            let gains: Vec<String> =
                replan.layers().iter().map(|layer| format!("{:.6e}", layer.gain)).collect();
            let warnings = replan.plan().warnings().len();
            format!("{:016x} {:?} {gains:?} {warnings}", replan.plan().fingerprint(), replan.moves())
        });
    }
    pin.assert(0x9d32_91bd_8b46_2208, 500);
}

/// Two slots a GPU, all of them filled: counts are searched, and folded.
#[test]
fn plans_of_two_slots_are_those_of_this_version() {
    let (planner, mut pin) = (planner(), Pin::default());
    for seed in 0..200 {
        let mut random = Random(seed);
        let experts = 2 + random.below(60);
        let gpus = experts.div_ceil(2) + random.below(30);
        let counts: Vec<u64> = (0..experts).map(|_| 100_000 / (1 + random.below(50)) as u64).collect();
        let loads = Loads::from_counts(1, experts, &counts).unwrap();
        let options = PlanOptions {
            duplicates: if random.below(3) == 0 { Duplicates::Allow } else { Duplicates::Avoid },
            seed: random.next(),
            starts: 4,
            iterations: 100,
            ..PlanOptions::default()
        };
        pin.add(planner.plan(&loads, &Cluster::new(2 * gpus, 1, 1, gpus).unwrap(), &options), |plan| {
            format!("{:016x} {:?}", plan.fingerprint(), plan.stops())
        });
    }
    pin.assert(0xbc0d_5f06_43df_62b3, 200);
}

/// Small layers of one window, which a loop also brings down straight; with duplicates, and few moves.
#[test]
fn plans_of_small_layers_are_those_of_this_version() {
    let (planner, mut pin) = (planner(), Pin::default());
    for seed in 0..4000 {
        let mut random = Random(seed);
        let Call { loads, cluster, options, previous, .. } = call(54_000 + seed);
        if cluster.num_gpus() > 8 || loads.fixed_windows().len() > loads.layers() * loads.experts() {
            continue;
        }
        let most = Some(MaxMoves::Slots(random.below(5)));
        let limits = MoveLimits { max_moves_per_layer: most, min_gain_ppm: Some(0), ..MoveLimits::default() };
        pin.add(planner.replan(&loads, &cluster, previous, &options, &limits), |replan| {
            format!("{:016x} {:?}", replan.plan().fingerprint(), replan.moves())
        });
    }
    pin.assert(0xe2e9_f2a2_de24_3264, 200);
}

#[test]
fn first_plans_of_a_loop_are_those_of_this_version() {
    let (planner, mut pin) = (planner(), Pin::default());
    for seed in 0..150 {
        let Call { loads, cluster, options, .. } = call(52_000 + seed);
        let options = PlanOptions { starts: 4, iterations: 100, ..options };
        pin.add(planner.plan_over_time(&loads, &cluster, &options), |plan| {
            format!("{:016x} {:?}", plan.fingerprint(), plan.stops())
        });
    }
    pin.assert(0xcc1d_080b_32b3_a3c9, 130);
}

/// Sums over random calls of bound over mean: a bound that became weaker or stronger shows. As sums, since a machine's `exp`
/// may round the prices of few slots as it likes.
#[test]
fn bounds_are_as_tight_as_they_were() {
    let mut sums = [0.0; 5];
    for seed in 0..1000 {
        let mut random = Random(seed);
        let case = random_case(53_000 + seed, 1 << 12);
        let cluster = if seed % 5 == 4 { unequal(&case.cluster, &mut random) } else { case.cluster };
        let slots = cluster.slots_per_gpu();
        let kind = match () {
            () if !cluster.has_equal_speeds() => 0,
            () if seed % 5 == 3 => 1,
            () if slots == 2 || slots == 3 => 2,
            () => 3,
        };
        let options = BoundOptions {
            effort: if seed % 16 == 0 { BoundEffort::Tight } else { BoundEffort::Quick },
            max_replicas_per_expert: case.options.max_replicas_per_expert,
            max_foreign: if kind == 1 { 1 + random.below(6) as u32 } else { 0 },
        };
        let bounds = bound::lower_bounds_with(&case.loads, &cluster, &options);
        let least = bound::least_foreign_loads(&case.loads, &cluster, &bounds);
        for (layer, (bound, least)) in bounds.iter().zip(&least).enumerate() {
            let sum: f64 = case.loads.layer(layer).iter().sum();
            if sum > 0.0 {
                sums[kind] += bound * cluster.num_gpus() as f64 / sum;
                sums[4] += least / sum;
            }
        }
    }
    let pinned =
        [456.309_615_763_1, 380.751_157_942_5, 278.916_902_209_3, 1_204.653_854_827_7, 17.609_541_613_68];
    for (found, pinned) in sums.into_iter().zip(pinned) {
        assert_relative_eq!(found, pinned, max_relative = 1e-9);
    }
}
