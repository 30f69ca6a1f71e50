//! Many threads on one planner, many planners, and plans that nobody waits for: every plan is right, and memory,
//! threads and open files stay flat.
//!
//! The short form is part of the tests. The full one (16 threads x 200 plans, 40 planners or more; minutes on a software
//! driver) prints what it measured:
//!
//!     EPLB_LOAD=full cargo test --test load -- --nocapture
//!
//! `EPLB_TEST_DEVICE` and `EPLB_ALLOW_NO_ADAPTER` are as in `tests/device/common.rs`.

#[path = "device/common.rs"]
mod common;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use eplb_wgpu::{Cluster, DeviceChoice, DeviceInfo, Loads, PlanOptions, Planner};

fn is_full() -> bool {
    std::env::var("EPLB_LOAD").as_deref() == Ok("full")
}

/// One call, and its plan as made alone, by the CPU backend.
struct Case {
    loads: Loads,
    cluster: Cluster,
    options: PlanOptions,
    fingerprint: u64,
}

/// Small shapes of every kind: global, hierarchical, with free slots, with and without duplicates.
fn cases() -> Vec<Case> {
    let cpu = Planner::new(DeviceChoice::Cpu).unwrap();
    let shapes = [
        (1, 8, 1, 1, 8, 16, 2),
        (2, 16, 4, 2, 4, 24, 6),
        (3, 32, 8, 4, 8, 40, 5),
        (1, 60, 1, 1, 6, 70, 12),
        (2, 64, 8, 2, 16, 80, 5),
        (4, 24, 1, 1, 12, 30, 3),
    ];
    shapes
        .into_iter()
        .enumerate()
        .map(|(at, (layers, experts, groups, nodes, gpus, replicas, per_gpu))| {
            let seed = at as u64 + 1;
            let counts: Vec<u64> =
                (0..layers as u64 * experts as u64).map(|i| 1 + (i * i * 7919 + i * seed) % 10_007).collect();
            let loads = Loads::from_counts(layers, experts, &counts).unwrap();
            let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, per_gpu).unwrap();
            let options = PlanOptions { seed, starts: 4, iterations: 100, ..PlanOptions::default() };
            let fingerprint = cpu.plan(&loads, &cluster, &options).unwrap().fingerprint();
            Case { loads, cluster, options, fingerprint }
        })
        .collect()
}

#[track_caller]
fn plan(planner: &Planner, case: &Case) {
    let plan = planner.plan(&case.loads, &case.cluster, &case.options).unwrap();
    assert_eq!(plan.warnings(), [] as [String; 0]);
    assert_eq!(plan.fingerprint(), case.fingerprint);
}

/// Memory, threads and files that the process holds; zeros where the system does not say.
#[derive(Clone, Copy, Debug)]
struct Held {
    kib: u64,
    threads: usize,
    files: usize,
}

fn held() -> Held {
    let count = |folder| std::fs::read_dir(folder).map_or(0, Iterator::count);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
    let kib = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    Held { kib, threads: count("/proc/self/task"), files: count("/proc/self/fd") }
}

/// Threads that end, end soon.
fn settled(threads: usize) -> Held {
    for _ in 0..200 {
        if held().threads <= threads {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    held()
}

/// `threads` threads make `plans` plans each, in two halves: after the first memory stays as it is.
fn threads_on_one_planner(planner: &Planner, threads: usize, plans: usize) {
    let cases = cases();
    let start = Instant::now();
    let before = held();
    let round = || {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let cases = &cases;
                scope.spawn(move || {
                    (0..plans / 2).for_each(|i| plan(planner, &cases[(thread + i) % cases.len()]));
                });
            }
        });
    };
    round();
    let warm = settled(before.threads);
    round();
    let after = settled(warm.threads);
    println!(
        "{}: {threads} threads x {plans} plans in {:.1} s; before {before:?}, half way {warm:?}, after {after:?}",
        planner.device().label(),
        start.elapsed().as_secs_f64()
    );
    assert_flat("plans", warm, after);
}

/// Allocators and drivers take memory in steps: the most that was seen is 6 MiB, in the short form, and 0.1 MiB in
/// the full one. A planner that is kept takes 35, on
/// lavapipe.
const SLACK_KIB: u64 = 16 << 10;

/// Nothing is kept: memory within the slack, threads and files to the last one.
#[track_caller]
fn assert_flat(what: &str, before: Held, after: Held) {
    assert!(after.kib <= before.kib + SLACK_KIB, "{what} keep memory: {before:?}, then {after:?}");
    assert!(after.threads <= before.threads, "{what} keep threads: {before:?}, then {after:?}");
    assert!(after.files <= before.files, "{what} keep files open: {before:?}, then {after:?}");
}

/// Planners that are made, used and dropped, some at a time, until memory stays as it is: first the allocator fills up,
/// which has an arena for each of the many threads of drivers and planners. What a planner kept would come again each time.
fn planners_come_and_go(device: &DeviceInfo) {
    let choice = DeviceChoice::Name(format!("{} {}", device.name, device.backend));
    let cases = cases();
    let open_and_drop = || plan(&Planner::new(choice.clone()).unwrap(), &cases[1]);
    let (planners, most_rounds) = match (is_full(), common::is_short()) {
        (true, _) => (20, 4),
        (false, true) => (2, 6),
        (false, false) => (4, 6),
    };
    let mut before = held();
    for round in 1..=most_rounds {
        let start = Instant::now();
        (0..planners).for_each(|_| open_and_drop());
        let after = settled(before.threads);
        println!(
            "{}: round {round} of {planners} planners in {:.1} s; before {before:?}, after {after:?}",
            device.label(),
            start.elapsed().as_secs_f64()
        );
        let is_flat = after.kib <= before.kib + SLACK_KIB;
        if is_flat || round == most_rounds {
            assert_flat("planners", before, after);
            return;
        }
        before = after;
    }
}

/// A future that is polled once and dropped: its plan ends unseen, and the planner goes on.
fn drop_futures(planner: &Planner) {
    let cases = cases();
    let before = held();
    for round in 0..if is_full() { 200 } else { 12 } {
        let case = &cases[round % cases.len()];
        let mut future = pin!(planner.plan_async(&case.loads, &case.cluster, &case.options));
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            assert_eq!(done.unwrap().fingerprint(), case.fingerprint);
        }
    }
    cases.iter().for_each(|case| plan(planner, case));
    let case = &cases[0];
    let waited = pollster::block_on(planner.plan_async(&case.loads, &case.cluster, &case.options));
    assert_eq!(waited.unwrap().fingerprint(), case.fingerprint);
    // The threads of the dropped futures have ended, or do.
    let after = settled(before.threads);
    assert!(after.threads <= before.threads, "{before:?}, then {after:?}");
    println!("{}: futures dropped; before {before:?}, after {after:?}", planner.device().label());
}

/// One test, for what is measured is the whole process.
#[test]
fn load() {
    let cpu = Planner::new(DeviceChoice::Cpu).unwrap();
    threads_on_one_planner(&cpu, 16, if is_full() { 200 } else { 12 });
    drop_futures(&cpu);
    let Some(planner) = common::planner() else { return };
    threads_on_one_planner(planner, 16, if is_full() { 200 } else { 4 });
    drop_futures(planner);
    planners_come_and_go(planner.device());
}
