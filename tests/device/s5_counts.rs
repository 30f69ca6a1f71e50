use super::*;
use crate::cases::Random;
use crate::engine::recording::KernelDispatch;
use crate::mirror::s5_counts::{Tables, search};
use crate::params::SearchKind;
use crate::{Cluster, Duplicates, Loads, PlanOptions};

/// Calls with two slots a GPU: some layers of some nodes, loads of any kind.
fn case(seed: u64, most_gpus: usize) -> Case {
    let mut random = Random(seed);
    let nodes = [1, 1, 2, 3][random.below(4)];
    let gpus = random.scale(most_gpus);
    let experts = (2 + random.below(2 * gpus)).min(2 * gpus);
    let layers = 1 + random.below(3);
    let counts: Vec<u64> = (0..layers * nodes * experts)
        .map(|at| match (seed as usize + at / (nodes * experts)) % 5 {
            0 => random.next() % 1000,
            1 => (random.next() % 50).pow(3) + 1,
            2 => 1 + random.next() % 4,
            3 => u64::from(random.below(experts) == 0) * 1000,
            _ => (1 << 40) / (1 + random.next() % 1000),
        })
        .collect();
    let loads = Loads::from_counts(layers, nodes * experts, &counts).expect("shape is right");
    let cluster = Cluster::new(2 * gpus * nodes, nodes, nodes, gpus * nodes).expect("it is valid");
    let options = PlanOptions {
        seed,
        // A sixteenth of them with two slots a GPU.
        starts: 16 * (1 + random.below(5) as u32),
        iterations: [0, 1, 9, 100][random.below(4)],
        patience: [0, 8, 32, 100][random.below(4)],
        duplicates: [Duplicates::Avoid, Duplicates::Avoid, Duplicates::Allow][random.below(3)],
        stop_gap_ppm: [0, 40, 20_000][random.below(3)],
        ..PlanOptions::default()
    };
    Case { seed, loads, cluster, options }
}

fn bench(seed: u64, most_gpus: usize) -> Bench {
    let bench = Bench::of(case(seed, most_gpus));
    assert!(bench.params.search_kind() == SearchKind::Counts);
    bench
}

#[test]
fn counts_placements_and_ends_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(60) {
        assert_equal_searches(gpu, &bench(4300 + seed, 64), |_| ());
    }
}

#[test]
fn teams_of_the_form_for_gpus_equal_the_mirror() {
    let Some(gpu) = with_tuning(Tuning::GPU) else { return };
    for seed in 0..cases(12) {
        assert_equal_searches(&gpu, &bench(4400 + seed, 128), |_| ());
    }
}

#[test]
fn where_dispatches_are_cut_changes_nothing() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(16) {
        assert_equal_searches(gpu, &bench(4500 + seed, 64), |recording| {
            let searches = |d: &KernelDispatch| d.kernel.stem == stages::s5_counts::STAGE.stem;
            let Some(first) = recording.dispatches.iter().position(searches) else { return };
            // Two turns and their tallies again and again, of one or two iterations each.
            let last = recording.dispatches[first..first + 2].to_vec();
            let tallied = |turn: u32| {
                last.iter().cloned().zip([turn, 1 - turn]).map(|(mut dispatch, turn)| {
                    dispatch.params.turn = turn;
                    dispatch.params.end = 1 + turn;
                    dispatch
                })
            };
            recording.dispatches.truncate(first);
            recording.dispatches.extend((1..=101).flat_map(|number| tallied(number % 2)));
        });
    }
}

/// The budget of a dispatch, where one iteration comes near it.
#[test]
fn the_largest_nodes_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for (experts, gpus) in [(4096, 2500), (2045, 1800), (1100, 4096)] {
        let mut random = Random(4600);
        let counts: Vec<u64> = (0..experts).map(|_| 1 + (random.next() % 100).pow(3)).collect();
        let loads = Loads::from_counts(1, experts, &counts).expect("shape is right");
        let cluster = Cluster::new(2 * gpus, 1, 1, gpus).expect("it is valid");
        let options = PlanOptions { starts: 1, iterations: 8, ..PlanOptions::default() };
        assert_equal_searches(gpu, &Bench::of(Case { seed: 4600, loads, cluster, options }), |_| ());
    }
}

fn assert_equal_searches(gpu: &Gpu, bench: &Bench, change: impl Fn(&mut Recording)) {
    let base = &bench.layout.base;
    let mut recording = bench.record_to_nodes();
    stages::s3_replicate::record(&mut recording, base, &bench.batch);
    stages::s4_pack::record(&mut recording, base, &bench.batch);
    stages::s5_counts::record(&mut recording, base, &bench.batch);
    change(&mut recording);
    let control = bench.run_candidates(gpu, &recording, base.at_control, 2);
    let snapshots = bench.run_candidates(gpu, &recording, base.at_snapshot, base.node_slots);
    let counts = bench.run_candidates(gpu, &recording, base.at_counts, base.node_experts);
    let mut tables = Tables::default();
    bench.each_candidate(|packed, candidate| {
        let number = packed.number;
        let outcome =
            search(&bench.params, packed.key, packed.combined, packed.stop_load, candidate, &mut tables);
        let found = &control[number];
        let expected = [outcome.end as u32, outcome.max];
        assert_same("end and max", bench.case.seed, &expected, &[found[END], found[BEST_MAX]]);
        assert_same("counts", bench.case.seed, &candidate.counts, &counts[number]);
        assert_same("placement", bench.case.seed, &candidate.snapshot, &snapshots[number]);
    });
}
