use super::*;
use crate::mirror::s5_refine_windows::refine;

/// Words of the control block, as in `candidate.wgsl`.
const END: usize = 0;
const WORK: usize = 2;
const BEST_MAX: usize = 6;
const FIRST: usize = 7;

#[test]
fn placements_work_and_ends_over_several_windows_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(60) {
        assert_equal_searches(gpu, &Bench::with_windows(7000 + seed));
    }
}

#[test]
fn shaders_of_the_form_for_gpus_equal_the_mirror() {
    let Some(gpu) = with_form(Form::GPU) else { return };
    for seed in 0..cases(4) {
        assert_equal_searches(&gpu, &Bench::with_windows(7000 + seed));
    }
}

fn assert_equal_searches(gpu: &Gpu, bench: &Bench) {
    let base = &bench.layout.base;
    let mut recording = bench.record_to_nodes();
    stages::s3_replicate::record(&mut recording, base, &bench.batch);
    stages::s4_pack_windows::record(&mut recording, base, &bench.batch);
    stages::s5_refine_windows::record(&mut recording, base, &bench.batch);
    let control = bench.run_candidates(gpu, &recording, base.at_control, 8);
    let snapshots = bench.run_candidates(gpu, &recording, base.at_snapshot, base.node_slots);
    bench.each_windows_candidate(|number, loads, key, stop, candidate| {
        let outcome = refine(&bench.params, key, loads, stop, candidate);
        let found = &control[number];
        let expected = [outcome.end as u32, outcome.max, outcome.first, candidate.work];
        let found = [found[END], found[BEST_MAX], found[FIRST], found[WORK]];
        assert_same("end, value, first and work", bench.case.seed, &expected, &found);
        let found = &snapshots[number];
        assert_same("placement", bench.case.seed, &candidate.snapshot, found);
    });
}
