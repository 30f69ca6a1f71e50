use super::*;
use crate::mirror::s5_refine::refine;
use crate::stages::s5_refine::Shape;

/// Words of the control block, as in `candidate.wgsl`.
const END: usize = 0;
const WORK: usize = 2;
const BEST_MAX: usize = 6;
const FIRST: usize = 7;

#[test]
fn placements_work_and_ends_of_every_restart_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for (seed, shape) in (0..cases(60)).flat_map(|seed| [(seed, Shape::Narrow), (seed, Shape::Wide)]) {
        let bench = Bench::new(4000 + seed);
        let base = &bench.layout.base;
        let mut recording = bench.record_to_nodes();
        stages::s3_replicate::record(&mut recording, base, &bench.batch);
        stages::s4_pack::record(&mut recording, base, &bench.batch);
        stages::s5_refine::record(&mut recording, base, &bench.batch, shape);
        let control = bench.run(gpu, &recording, bench.arena(base.at_control, 8));
        let snapshots = bench.run(gpu, &recording, bench.arena(base.at_snapshot, base.node_slots));
        let candidates = bench.batch.params(base).candidates as usize;
        bench.each_candidate(|number, loads, key, stop, candidate| {
            let outcome = refine(&bench.params, key, loads, stop, candidate);
            let found = of_candidate(&control, candidates, number);
            let expected = [outcome.end as u32, outcome.max, outcome.first, candidate.work];
            let found = [found[END], found[BEST_MAX], found[FIRST], found[WORK]];
            assert_same("end, max, first and work", bench.case.seed, &expected, &found);
            let found = of_candidate(&snapshots, candidates, number);
            assert_same("placement", bench.case.seed, &candidate.snapshot, &found);
        });
    }
}
