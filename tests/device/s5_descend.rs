use super::*;
use crate::Preset;
use crate::mirror::s5_descend::descend;
use crate::stages::s5_descend;

/// A random descent, or with the options of one of the lineage's presets.
fn bench(seed: u64) -> Bench {
    let mut case = random_case(seed, 1 << 14);
    let lineage: Vec<Preset> = Preset::all().skip(4).collect();
    if seed % 2 == 1 {
        case.options = lineage[(seed / 2) as usize % lineage.len()].options();
    }
    // Turns for all steps are recorded, and empty ones take a driver long too.
    case.options.search = match case.options.search {
        Search::Descent(descent) => Search::Descent(Descent { steps: descent.steps.min(50), ..descent }),
        Search::Trajectory | Search::None => Search::None,
    };
    Bench::of(case)
}

#[test]
fn placements_and_ends_of_every_descent_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(120) {
        assert_equal_descents(gpu, &bench(7000 + seed), |_, _| ());
    }
}

#[test]
fn shaders_of_the_form_for_gpus_equal_the_mirror() {
    let Some(gpu) = with_tuning(Tuning::GPU) else { return };
    for seed in 0..cases(16) {
        assert_equal_descents(&gpu, &bench(7200 + seed), |_, _| ());
    }
}

#[test]
fn dispatches_may_be_cut_anywhere() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(60) {
        // Turns before all others that do little; an even number, so that the list is in its place again.
        assert_equal_descents(gpu, &bench(7300 + seed), |recording, bench| {
            for turns in 1..8 {
                let few = (1 + 40 * (turns - 1), 2 * turns);
                s5_descend::record_turns(recording, &bench.layout.base, &bench.batch, few);
            }
        });
    }
}

#[test]
fn a_descent_that_is_cut_short_says_so() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(8) {
        let bench = bench(7401 + 2 * seed);
        let base = &bench.layout.base;
        let mut recording = record_to_packing(&bench);
        s5_descend::record_turns(&mut recording, base, &bench.batch, (1, 2));
        let control = bench.run_candidates(gpu, &recording, base.at_control, 1);
        bench.each_candidate(|packed, candidate| {
            let ends_at_once = candidate.max_load() <= packed.stop_load || bench.params.descent.steps == 0;
            assert_eq!(control[packed.number][END] != 0, ends_at_once, "seed {}", bench.case.seed);
        });
    }
}

fn record_to_packing(bench: &Bench) -> Recording {
    let mut recording = bench.record_to_nodes();
    stages::s3_replicate::record(&mut recording, &bench.layout.base, &bench.batch);
    stages::s4_pack::record(&mut recording, &bench.layout.base, &bench.batch);
    recording
}

fn assert_equal_descents(gpu: &Gpu, bench: &Bench, before: impl Fn(&mut Recording, &Bench)) {
    let base = &bench.layout.base;
    let mut recording = record_to_packing(bench);
    before(&mut recording, bench);
    s5_descend::record(&mut recording, base, &bench.batch);
    let control = bench.run_candidates(gpu, &recording, base.at_control, 2);
    let snapshots = bench.run_candidates(gpu, &recording, base.at_snapshot, base.node_slots);
    bench.each_candidate(|packed, candidate| {
        let outcome = descend(&bench.params, packed.stop_load, candidate);
        let found = &control[packed.number];
        let expected = [outcome.end as u32, outcome.max];
        assert_same("end and max", bench.case.seed, &expected, &[found[END], found[BEST_MAX]]);
        assert_same("placement", bench.case.seed, &candidate.snapshot, &snapshots[packed.number]);
    });
}
