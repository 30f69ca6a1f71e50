use super::*;
use crate::mirror::s5_search;
use crate::params::SearchKind;

fn trajectory(options: &mut PlanOptions) {
    options.search = Search::Trajectory;
    options.iterations = options.iterations.min(150);
}

#[test]
fn placements_and_ends_of_every_start_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(80) {
        assert_equal_searches(gpu, &Bench::with(4000 + seed, trajectory), |_| ());
    }
}

#[test]
fn searches_over_several_windows_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(40) {
        let mut case = random_windows_case(4100 + seed, 1 << 11);
        trajectory(&mut case.options);
        assert_equal_searches(gpu, &Bench::of(case), |_| ());
    }
}

#[test]
fn workgroups_for_gpus_equal_the_mirror() {
    let Some(gpu) = with_tuning(Tuning::GPU) else { return };
    for seed in 0..cases(24) {
        assert_equal_searches(&gpu, &Bench::with(4200 + seed, trajectory), |_| ());
    }
}

/// Where dispatches are cut changes nothing.
#[test]
fn a_search_in_dispatches_of_any_length_equals_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(24) {
        let short = |options: &mut PlanOptions| {
            trajectory(options);
            options.iterations = options.iterations.min(40);
        };
        assert_equal_searches(gpu, &Bench::with(4300 + seed, short), |recording| {
            for dispatch in recording.dispatches.iter_mut().filter(|d| d.kernel.entry == "search") {
                dispatch.params.end = 1 + seed as u32 % 3;
            }
            let search = recording.dispatches.iter().position(|d| d.kernel.entry == "search");
            // Two turns and their tallies come again and again, in the same order.
            if let Some(at) = search {
                let mut pair = recording.dispatches[at..at + 2].to_vec();
                let mut second = pair.clone();
                second[0].params.turn = 1;
                second[1].params.turn = 0;
                pair.extend(second);
                recording.dispatches.truncate(at);
                recording.dispatches.extend(std::iter::repeat_n(pair, 21).flatten());
            }
        });
    }
}

fn assert_equal_searches(gpu: &Gpu, bench: &Bench, change: impl Fn(&mut Recording)) {
    let base = &bench.layout.base;
    if bench.params.search_kind() == SearchKind::Counts {
        return;
    }
    let mut recording = bench.record_to_nodes();
    stages::s3_replicate::record(&mut recording, base, &bench.batch);
    stages::s4_pack::record(&mut recording, base, &bench.batch);
    stages::s5_search::record(&mut recording, base, &bench.batch);
    change(&mut recording);
    let control = bench.run_candidates(gpu, &recording, base.at_control, 2);
    let snapshots = bench.run_candidates(gpu, &recording, base.at_snapshot, base.node_slots);
    let mut search = s5_search::NodeSearch::default();
    bench.each_candidate(|packed, candidate| {
        let (key, floors) = ((packed.key, packed.start), (packed.floors, packed.stop_load));
        let outcome = s5_search::search(&bench.params, key, packed.loads, floors, candidate, &mut search);
        let found = &control[packed.number];
        let expected = [outcome.end as u32, outcome.max];
        assert_same("end and max", bench.case.seed, &expected, &[found[END], found[BEST_MAX]]);
        assert_same("placement", bench.case.seed, &candidate.snapshot, &snapshots[packed.number]);
    });
}
