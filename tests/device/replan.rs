//! Trajectories of plans over time: states and changes of a device and of the host.

use super::*;
use crate::cases::Random;
use crate::loads::MAX_WINDOWS;
use crate::planner::gpu::replan::{follow, follows, run};
use crate::replan::search::{MOST_ITERATIONS, Search as Trajectories, Task, Trail};
use crate::stages::replan::record_turns;
use crate::{Cluster, Duplicates, Error, Loads, MoveLimits, PreviousMap, replan};

/// A call from a plan that runs.
struct Call {
    seed: u64,
    loads: Loads,
    cluster: Cluster,
    options: PlanOptions,
    previous: PreviousMap,
    limits: MoveLimits,
    /// Whether to go further, as where nothing runs yet.
    cold: bool,
}

/// 1 to 3 nodes of GPUs with 1 to 9 slots, some of them free; up to 5 windows, or 16; any map, of any width; moves cost
/// nothing, a little, or much.
fn call(seed: u64) -> Call {
    let mut random = Random(seed);
    loop {
        let wide = random.below(8) == 0;
        let (nodes, gpus, slots) =
            (1 + random.below(3), 1 + random.below(if wide { 40 } else { 5 }), 1 + random.below(9));
        let experts = 1 + random.below(if wide { 200 } else { 30 });
        let groups = [1, nodes, 2 * nodes][random.below(3)];
        let free = if random.below(3) == 0 { random.below(gpus * slots) * nodes } else { 0 };
        let all = gpus * nodes * slots;
        let Ok(cluster) = Cluster::with_slots_per_gpu(all - free, groups, nodes, gpus * nodes, slots) else {
            continue;
        };
        if cluster.check_experts(experts).is_err() {
            continue;
        }
        let layers = 1 + random.below(3);
        let windows = if random.below(6) == 0 { 1 + random.below(MAX_WINDOWS) } else { 1 + random.below(5) };
        let windows: Vec<Loads> = (0..windows).map(|_| window(&mut random, layers, experts)).collect();
        let options = PlanOptions {
            duplicates: if random.below(3) == 0 { Duplicates::Allow } else { Duplicates::Avoid },
            max_replicas_per_expert: [None, Some(2 + random.below(3) as u32)][random.below(2)],
            seed: random.next(),
            ..PlanOptions::default()
        };
        let limits =
            MoveLimits { min_gain_ppm: [0, 10_000, 300_000][random.below(3)], ..MoveLimits::default() };
        let loads =
            Loads::from_windows(&windows, &vec![1.0; windows.len()]).expect("windows are alike in shape");
        if Params::new(&loads, &cluster, &options).is_ok() {
            let previous = map(&mut random, layers, experts, all);
            return Call { seed, loads, cluster, options, previous, limits, cold: true };
        }
    }
}

/// Even, skewed, without load, with one hot expert.
fn window(random: &mut Random, layers: usize, experts: usize) -> Loads {
    let kind = random.below(6);
    let load = |random: &mut Random| match kind {
        0 => 100,
        1 => 100_000 / (1 + random.below(50)) as u64,
        2 => u64::from(random.below(experts) == 0) * 1_000_000,
        3 => random.next() % 3,
        _ => 50 + random.next() % 1000,
    };
    let counts: Vec<u64> = (0..layers * experts).map(|_| load(random)).collect();
    Loads::from_counts(layers, experts, &counts).expect("the shape is valid")
}

/// Experts in turn, at random, some of them alone, or none.
fn map(random: &mut Random, layers: usize, experts: usize, slots: usize) -> PreviousMap {
    let slots = if random.below(4) == 0 { 1 + random.below(2 * slots) } else { slots };
    let kind = random.below(5);
    let entry = |random: &mut Random, at: usize| match kind {
        0 | 1 => (at % slots % experts) as i32,
        2 => random.below(experts + 1) as i32 - 1,
        3 => random.below(1 + experts / 3) as i32,
        _ => -1,
    };
    let entries = (0..layers * slots).map(|at| entry(random, at)).collect();
    PreviousMap::new(slots, entries).expect("the entries are valid")
}

/// What the trails of some tests have come to.
#[derive(Default)]
struct Seen {
    states: usize,
    changes: usize,
}

/// Runs the tasks of a call on the host and as `device` does.
fn compare(call: &Call, device: impl Fn(&Params, &[Task<'_>]) -> Vec<Trail> + Sync) -> Seen {
    let Call { loads, cluster, options, previous, limits, .. } = call;
    let params = Params::new(loads, cluster, options).expect("the case is valid");
    let watch = Watch::default();
    let attempt = watch.attempt(loads, cluster, options);
    let seen = std::sync::Mutex::new(Seen::default());
    let follow = |tasks: &[Task<'_>]| {
        let expected: Vec<Trail> = tasks.iter().map(|task| task.run(&mut Trajectories::default())).collect();
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

/// A device's plans say that they are its own; where GPUs are to be hung together the CPU backend makes them.
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
        let connected = Params::new(&call.loads, &call.cluster, &options).expect("valid").connected;
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
        let limits = MoveLimits { min_gain_ppm: 0, ..MoveLimits::default() };
        let seen = by_device(gpu, &Call { seed, loads, cluster, options, previous, limits, cold: false });
        assert!(seen.states > 1, "{experts} experts on {gpus} GPUs stay as they are");
    }
}
