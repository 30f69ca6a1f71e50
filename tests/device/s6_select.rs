use super::*;
use crate::planner::{cpu, gpu};
use crate::stages::s5_refine::Shape;

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
    for &restarts in budgets {
        let params = Params { restarts, ..bench.params.clone() };
        let expected = cpu::plan(&params, bench.case.loads.fixed(), bench.case.loads.fixed_windows());
        // The search over several windows has one shape.
        let shapes = if params.windows == 1 { &[Shape::Narrow, Shape::Wide][..] } else { &[Shape::Narrow] };
        for &shape in shapes {
            let loads = &bench.case.loads;
            let found = gpu::plan_as(device, &params, loads.fixed(), loads.fixed_windows(), Some(shape))
                .expect("the device works");
            assert_same("plan", bench.case.seed, &expected.slots, &found.slots);
            assert_eq!(expected.ends, found.ends, "ends, {shape:?}, seed {}", bench.case.seed);
        }
    }
}
