use super::*;
use crate::planner::{cpu, gpu};

#[test]
fn the_plan_kept_equals_the_mirror_for_every_budget() {
    let Some(device) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(30) {
        assert_equal_plans(device, &Bench::new(5000 + seed), &[1, 7, 9, 40]);
    }
}

#[test]
fn the_plan_over_several_windows_equals_the_mirror_for_every_budget() {
    let Some(device) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(15) {
        assert_equal_plans(device, &Bench::with_windows(5100 + seed), &[1, 3, 9]);
    }
}

fn assert_equal_plans(device: &Gpu, bench: &Bench, budgets: &[u32]) {
    for &starts in budgets {
        let params = Params { starts, iterations: bench.params.iterations.min(100), ..bench.params.clone() };
        let loads = &bench.case.loads;
        let watch = Watch::default();
        let attempt = watch.attempt(loads, &bench.case.cluster, &PlanOptions::default());
        let (fixed, windows) = (loads.fixed(), loads.fixed_windows());
        let expected = cpu::plan(&params, fixed, windows, &attempt).expect("nobody stops it");
        let found = pollster::block_on(gpu::plan(device, &params, fixed, windows, &attempt))
            .expect("the device works");
        assert_same("plan", bench.case.seed, &expected.slots, &found.slots);
        assert_eq!(expected.ends, found.ends, "ends, seed {}", bench.case.seed);
    }
}
