use super::*;

#[test]
fn packings_over_several_windows_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(40) {
        let bench = Bench::with_windows(6000 + seed);
        let base = &bench.layout.base;
        let mut recording = bench.record_to_nodes();
        stages::s3_replicate::record(&mut recording, base, &bench.batch);
        stages::s4_pack_windows::record(&mut recording, base, &bench.batch);
        if seed % 2 == 1 {
            cut_packing(&mut recording, 1 + seed as u32 % 7);
        }
        // Expert and loads of each slot lie behind each other.
        let each = 4 * base.quads;
        let slots = bench.run_candidates(gpu, &recording, base.at_expert, (1 + each) * base.node_slots);
        let gpus = bench.run_candidates(gpu, &recording, base.at_gpu_load, each * base.node_gpus);
        bench.each_windows_candidate(|number, _, _, _, candidate| {
            let expected = [candidate.expert.as_slice(), candidate.load.as_flattened()].concat();
            assert_same("slots", bench.case.seed, &expected, &slots[number]);
            let found = &gpus[number];
            assert_same("GPU loads", bench.case.seed, candidate.gpu_load.as_flattened(), found);
        });
    }
}
