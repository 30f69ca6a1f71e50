use super::*;

#[test]
fn counts_of_every_start_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(40) {
        let bench = Bench::new(2000 + seed);
        let base = &bench.layout.base;
        let mut recording = bench.record_to_nodes();
        stages::s3_replicate::record(&mut recording, base, &bench.batch);
        let found = bench.run_candidates(gpu, &recording, base.at_counts, base.node_experts);
        bench.each_candidate(|packed, candidate| {
            let counts = &found[packed.number];
            assert_same("counts", bench.case.seed, &candidate.counts, counts);
        });
    }
}
