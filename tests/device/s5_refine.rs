use super::*;
use crate::engine::recording::{Dispatch, Grid};
use crate::mirror::s5_refine::refine;
use crate::stages::s5_refine::{Shape, WIDE};

/// Words of the control block, as in `candidate.wgsl`.
const END: usize = 0;
const WORK: usize = 2;
const BEST_MAX: usize = 6;
const FIRST: usize = 7;

#[test]
fn placements_work_and_ends_of_every_restart_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(60) {
        assert_equal_searches(gpu, &Bench::new(4000 + seed), Shape::Narrow, |_| ());
    }
}

#[test]
fn the_wide_shape_equals_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(60) {
        assert_equal_searches(gpu, &Bench::wide(4000 + seed), Shape::Wide, |_| ());
    }
}

#[test]
fn shaders_of_the_form_for_gpus_equal_the_mirror() {
    let Some(gpu) = with_form(Form::GPU) else { return };
    for seed in 0..cases(24) {
        assert_equal_searches(&gpu, &Bench::wide(4100 + seed), Shape::Wide, |_| ());
    }
    for seed in 0..cases(8) {
        assert_equal_searches(&gpu, &Bench::wide(4150 + seed), Shape::Narrow, |_| ());
    }
}

/// Turns that are added.
const FEW: u32 = 12;

/// The shapes in turns, dispatch by dispatch.
#[test]
fn either_shape_goes_on_where_the_other_stopped() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(40) {
        assert_equal_searches(gpu, &Bench::wide(4200 + seed), Shape::Narrow, |recording| {
            // Turns before all others that do little, so that scans are cut anywhere.
            let early =
                |dispatch: &Dispatch| dispatch.kernel.entry == "refine" && dispatch.params.spread == 1;
            let first = recording.dispatches.iter().position(early);
            // Two turns and their tallies come again and again, in the same order.
            let pair = |at: usize| recording.dispatches.get(at..at + 4).map(<[_]>::to_vec);
            if let Some((first, pair)) = first.and_then(|first| Some((first, pair(first)?))) {
                let again = std::iter::repeat_n(pair, FEW as usize / 2).flatten();
                recording.dispatches.splice(first..first, again);
            }
            // Late turns, in which a lane has a vector to itself, have more fuel than a team may have.
            for (number, turn) in (0..).zip(recording.dispatches.iter_mut().filter(|d| early(d))) {
                if number < FEW {
                    turn.params.fuel = 1 + 60 * (number / 2);
                }
                if number % 2 == 1 {
                    turn.kernel.entry = WIDE;
                    turn.grid = Grid::QueuedTeams;
                }
            }
        });
    }
}

fn assert_equal_searches(gpu: &Gpu, bench: &Bench, shape: Shape, change: impl Fn(&mut Recording)) {
    let base = &bench.layout.base;
    let mut recording = bench.record_to_nodes();
    stages::s3_replicate::record(&mut recording, base, &bench.batch);
    stages::s4_pack::record(&mut recording, base, &bench.batch);
    stages::s5_refine::record(&mut recording, base, &bench.batch, shape);
    change(&mut recording);
    let control = bench.run_candidates(gpu, &recording, base.at_control, 8);
    let snapshots = bench.run_candidates(gpu, &recording, base.at_snapshot, base.node_slots);
    bench.each_candidate(|number, loads, key, stop, candidate| {
        let outcome = refine(&bench.params, key, loads, stop, candidate);
        let found = &control[number];
        let expected = [outcome.end as u32, outcome.max, outcome.first, candidate.work];
        let found = [found[END], found[BEST_MAX], found[FIRST], found[WORK]];
        assert_same("end, max, first and work", bench.case.seed, &expected, &found);
        let found = &snapshots[number];
        assert_same("placement", bench.case.seed, &candidate.snapshot, found);
    });
}
