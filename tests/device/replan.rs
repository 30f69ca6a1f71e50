//! TrailSearch of plans over time: states and changes of a device and of the host.

use super::*;
use crate::cases::{Call, Random, call};
use crate::planner::gpu::replan::{follow, follows, run};
use crate::replan::search::{MOST_ITERATIONS, Trail, TrailSearch, TrailTask};
use crate::stages::replan::record_turns;
use crate::{Cluster, Error, Loads, MoveLimits, PreviousMap, replan};

/// States and changes in the trails of some tests.
#[derive(Default)]
struct Seen {
    states: usize,
    changes: usize,
}

/// Runs the tasks of a call on the host and as `device` does.
fn compare(call: &Call, device: impl Fn(&Params, &[TrailTask<'_>]) -> Vec<Trail> + Sync) -> Seen {
    let Call { loads, cluster, options, previous, limits, .. } = call;
    let params = Params::new(loads, cluster, options).expect("the case is valid");
    let watch = Watch::default();
    let attempt = watch.attempt(loads, cluster, options);
    let seen = std::sync::Mutex::new(Seen::default());
    let follow = |tasks: &[TrailTask<'_>]| {
        let expected: Vec<Trail> = tasks.iter().map(|task| task.run(&mut TrailSearch::default())).collect();
        let found = device(&params, tasks);
        assert_eq!(found.len(), expected.len());
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "seed {}, task {at}, {params:?}", call.seed);
        }
        let mut seen = seen.lock().unwrap();
        seen.states += expected.iter().map(|trail| trail.states.len() - 1).sum::<usize>();
        seen.changes += expected.iter().map(|trail| trail.changes.len()).sum::<usize>();
        Ok::<_, Error>(expected)
    };
    let rows = previous.rows(cluster);
    let windows = loads.fixed_windows();
    let limits = (limits, cluster.num_gpus() / cluster.num_nodes());
    replan::paths(&params, windows, &rows, limits, &attempt, Some(&follow)).expect("nobody stops it");
    if call.cold {
        replan::polish(&params, windows, &rows, &attempt, Some(&follow)).expect("nobody stops it");
    }
    seen.into_inner().unwrap()
}

fn by_device(gpu: &Gpu, call: &Call) -> Seen {
    compare(call, |params, tasks| {
        assert!(follows(gpu, params), "seed {}", call.seed);
        let watch = Watch::default();
        let attempt = watch.attempt(&call.loads, &call.cluster, &call.options);
        pollster::block_on(follow(gpu, params, tasks, &attempt)).expect("the device works")
    })
}

#[test]
fn trails_equal_the_hosts() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    let mut seen = Seen::default();
    for seed in 0..cases(80) {
        let one = by_device(gpu, &call(9000 + seed));
        seen = Seen { states: seen.states + one.states, changes: seen.changes + one.changes };
    }
    // Most of them go somewhere.
    assert!(seen.states > 500 / if is_short() { 8 } else { 1 }, "{}", seen.states);
    assert!(seen.changes > seen.states);
}

#[test]
fn workgroups_for_gpus_find_the_same_trails() {
    let Some(gpu) = with_tuning(Tuning::GPU) else { return };
    for seed in 0..cases(16) {
        by_device(&gpu, &call(9400 + seed));
    }
}

/// A device's plans say that they are its own; where GPUs are to be connected the CPU backend makes them.
#[test]
fn plans_from_ones_that_run_equal_those_of_the_cpu_backend() {
    let Some(planner) = planner() else { return };
    let cpu = Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always here");
    for seed in 0..cases(24) {
        let call = call(9500 + seed);
        let options = PlanOptions { connected: seed % 4 == 0, ..call.options };
        let replan = |planner: &Planner| {
            let previous = call.previous.clone();
            planner.replan(&call.loads, &call.cluster, previous, &options, &call.limits).expect("valid")
        };
        let (expected, found) = (replan(&cpu), replan(planner));
        assert_eq!(found.plan().placement(), expected.plan().placement(), "seed {}", call.seed);
        assert_eq!((found.moves(), found.layers()), (expected.moves(), expected.layers()));
        assert_eq!(found.plan().warnings(), expected.plan().warnings());
        let connected = Params::new(&call.loads, &call.cluster, &options).expect("valid").connected();
        let by = if connected { &cpu } else { planner };
        assert_eq!(found.plan().backend(), by.device().backend);
    }
}

/// Where dispatches are cut changes nothing.
#[test]
fn trails_do_not_depend_on_the_length_of_dispatches() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(24) {
        let call = call(9600 + seed);
        compare(&call, |params, tasks| {
            let layout = Layout::of_trajectories(params, tasks.len() as u32, MOST_ITERATIONS / 16);
            let mut recording = Recording::default();
            record_turns(&mut recording, &layout.base, 1 + seed as u32 % 3);
            let watch = Watch::default();
            let attempt = watch.attempt(&call.loads, &call.cluster, &call.options);
            let trails = pollster::block_on(run(gpu, &recording, &layout, tasks, &attempt));
            trails.expect("the device works").expect("they are short")
        });
    }
}

/// Layers whose iterations make many trips, with sets of several words, of more slots than are weighed at once, and of more
/// than are offered.
#[test]
fn trails_of_large_layers_equal_the_hosts() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    if is_short() {
        return;
    }
    let shapes = [
        (256, 1, 1, 144, 288, 8),
        (300, 1, 1, 5, 500, 3),
        (300, 1, 1, 6, 1200, 16),
        (384, 8, 8, 64, 448, 13),
        (1024, 1, 1, 256, 1536, 2),
    ];
    for (seed, (experts, groups, nodes, gpus, replicas, windows)) in (9700..).zip(shapes) {
        let mut random = Random(seed);
        let mut window = || {
            let counts: Vec<u64> = (0..experts).map(|_| 1 + random.next() % 100_000).collect();
            Loads::from_counts(1, experts, &counts).expect("the shape is valid")
        };
        let windows: Vec<Loads> = (0..windows).map(|_| window()).collect();
        let loads =
            Loads::from_windows(&windows, &vec![1.0; windows.len()]).expect("windows are alike in shape");
        let cluster = Cluster::new(replicas, groups, nodes, gpus).expect("the numbers fit");
        let entries = (0..replicas).map(|slot| (slot % experts) as i32).collect();
        let previous = PreviousMap::new(replicas, entries).expect("the entries are valid");
        let options = PlanOptions::default();
        let limits = MoveLimits { min_gain_ppm: Some(0), ..MoveLimits::default() };
        let seen = by_device(gpu, &Call { seed, loads, cluster, options, previous, limits, cold: false });
        assert!(seen.states > 1, "{experts} experts on {gpus} GPUs stay as they are");
    }
}
