use super::*;

#[test]
fn packings_of_every_start_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(40) {
        let bench = Bench::new(3000 + seed);
        let base = &bench.layout.base;
        let mut recording = bench.record_to_nodes();
        stages::s3_replicate::record(&mut recording, base, &bench.batch);
        stages::s4_pack::record(&mut recording, base, &bench.batch);
        if seed % 2 == 1 {
            cut_packing(&mut recording, 1 + seed as u32 % 7);
        }
        // The loads of the slots lie after their experts.
        let slots = bench.run_candidates(gpu, &recording, base.at_expert, 2 * base.node_slots);
        let gpus = bench.run_candidates(gpu, &recording, base.at_gpu_load, base.node_gpus);
        bench.each_candidate(|packed, candidate| {
            let expected = [candidate.expert.as_slice(), &candidate.load].concat();
            assert_same("slots", bench.case.seed, &expected, &slots[packed.number]);
            let found = &gpus[packed.number];
            assert_same("GPU loads", bench.case.seed, &candidate.gpu_load, found);
        });
    }
}
