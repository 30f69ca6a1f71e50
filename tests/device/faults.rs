//! Devices that fail: every call returns, with the bytes of the CPU backend and a warning that names the
//! cause, or with an error where no fallback is wanted; then the planner recovers, or says that it cannot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use super::*;
use crate::engine::device::Opening;
use crate::engine::keeper::REOPENINGS;
use crate::{Cluster, Error, Fallback, Loads, MoveLimits, Plan, PlanOptions, PreviousMap};

/// How to open the device that is tested, as a device of the test's own.
fn opening() -> Option<Opening> {
    let device = planner()?.device();
    Some(Opening::new(DeviceChoice::Name(format!("{} {}", device.name, device.backend))))
}

fn open(opening: Opening) -> Planner {
    pollster::block_on(Planner::open(opening)).expect("the device opens")
}

/// The result of `work`, which must not hang.
#[track_caller]
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(work()));
    receive.recv_timeout(Duration::from_secs(240)).expect("it ends in time")
}

fn problem() -> (Loads, Cluster, PlanOptions) {
    let layers = if is_short() { 1 } else { 6 };
    let counts: Vec<u64> = (0..layers as u64 * 64).map(|i| 1_000 + i * i * 7919 % 50_021).collect();
    let loads = Loads::from_counts(layers, 64, &counts).unwrap();
    // Few assignments, so that what the dispatches are told fits the small limits below.
    let options = PlanOptions {
        starts: 8,
        assignments: Some(3),
        stop_gap_ppm: 0,
        start_gap_ppm: 0,
        ..PlanOptions::default()
    };
    (loads, Cluster::new(80, 8, 2, 16).unwrap(), options)
}

fn plan(planner: &Planner) -> Result<Plan, Error> {
    let (planner, (loads, cluster, options)) = (planner.clone(), problem());
    in_time(move || planner.plan(&loads, &cluster, &options))
}

/// The fingerprint of the CPU backend's plan.
fn expected() -> u64 {
    static EXPECTED: OnceLock<u64> = OnceLock::new();
    *EXPECTED.get_or_init(|| plan(&Planner::new(DeviceChoice::Cpu).unwrap()).unwrap().fingerprint())
}

/// A plan of the CPU backend because of a fault, whose warning has these words.
#[track_caller]
fn assert_fell_back(plan: &Plan, words: &str) {
    assert_eq!(plan.fingerprint(), expected());
    assert_eq!(plan.backend(), "cpu");
    let [warning] = plan.warnings() else { panic!("one warning, not {:?}", plan.warnings()) };
    let device = planner().map(|planner| planner.device().label()).unwrap_or_default();
    assert!(warning.contains(words) && warning.contains(&device), "{warning}");
    assert!(warning.ends_with("; the CPU backend made the plan"), "{warning}");
}

/// A plan of the device.
#[track_caller]
fn assert_on_device(plan: &Plan) {
    assert_eq!(plan.fingerprint(), expected());
    assert_eq!(plan.warnings(), [] as [String; 0]);
    assert_ne!(plan.backend(), "cpu");
}

#[test]
fn a_device_lost_in_mid_plan_is_opened_again_by_the_next_call() {
    let Some(opening) = opening() else { return };
    let planner = open(opening);
    assert_on_device(&plan(&planner).unwrap());
    let mut fell_back = 0;
    let delays: &[u64] = if is_short() { &[0, 5] } else { &[0, 1, 2, 5, 10, 20, 40, 80] };
    for &delay in delays {
        let gpu = planner.lend().unwrap();
        let destroyer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            gpu.device().destroy();
        });
        let hit = plan(&planner).unwrap();
        destroyer.join().unwrap();
        if hit.warnings().is_empty() {
            assert_on_device(&hit);
        } else {
            fell_back += 1;
            assert_fell_back(&hit, "device lost: ");
        }
        // A fault that came too late for that plan is met by this one.
        let next = plan(&planner).unwrap();
        if !next.warnings().is_empty() {
            assert!(hit.warnings().is_empty(), "{:?}", next.warnings());
            assert_fell_back(&next, "device lost: ");
            assert_on_device(&plan(&planner).unwrap());
        }
    }
    assert!(fell_back > 0);
}

#[test]
fn a_device_lost_before_a_plan_from_one_that_runs_is_opened_again_by_the_next() {
    let Some(opening) = opening() else { return };
    let (loads, cluster, options) = problem();
    let previous =
        PreviousMap::new(80, (0..80 * loads.layers()).map(|at| (at % 80 % 64) as i32).collect()).unwrap();
    let replan = |planner: &Planner| {
        let (planner, previous) = (planner.clone(), previous.clone());
        let (loads, cluster, options) = (loads.clone(), cluster.clone(), options.clone());
        in_time(move || planner.replan(&loads, &cluster, previous, &options, &MoveLimits::default()))
    };
    let expected = replan(&Planner::new(DeviceChoice::Cpu).unwrap()).unwrap().plan().fingerprint();
    let planner = open(opening);
    planner.lend().unwrap().device().destroy();
    let hit = replan(&planner).unwrap();
    assert_eq!((hit.plan().fingerprint(), hit.plan().backend()), (expected, "cpu"));
    let [warning] = hit.plan().warnings() else { panic!("one warning, not {:?}", hit.plan().warnings()) };
    assert!(warning.contains("device lost: "), "{warning}");
    let next = replan(&planner).unwrap();
    assert_eq!((next.plan().fingerprint(), next.plan().warnings()), (expected, &[] as &[String]));
    assert_ne!(next.plan().backend(), "cpu");
    planner.lend().unwrap().device().destroy();
    let refused = replan(&planner.clone().with_fallback(Fallback::Never));
    assert!(matches!(refused, Err(Error::Device { .. })), "{refused:?}");
}

#[test]
fn threads_on_a_device_that_is_lost_again_and_again_all_get_their_plans() {
    let Some(opening) = opening() else { return };
    let planner = open(opening);
    let expected = expected();
    let (loads, cluster, options) = problem();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..6 {
                        let plan = planner.plan(&loads, &cluster, &options).unwrap();
                        assert_eq!(plan.fingerprint(), expected, "{:?}", plan.warnings());
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(30));
            // A device that is lost and not open yet is opened by this.
            planner.lend().unwrap().device().destroy();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_on_device(&plan(&planner).unwrap());
}

#[test]
fn a_device_that_is_always_lost_stays_closed() {
    let Some(opening) = opening() else { return };
    let planner = open(opening);
    for _ in 0..=REOPENINGS {
        planner.lend().unwrap().device().destroy();
        assert_fell_back(&plan(&planner).unwrap(), "device lost: ");
    }
    for _ in 0..2 {
        assert_fell_back(&plan(&planner).unwrap(), "lost 4 times in a row and is not opened again; the last");
    }
    let error = plan(&planner.with_fallback(Fallback::Never)).unwrap_err();
    assert!(matches!(&error, Error::Device { reason, .. } if reason.contains("device lost: ")), "{error}");
}

#[test]
fn a_loss_is_an_error_where_no_fallback_is_wanted() {
    let Some(opening) = opening() else { return };
    let planner = open(opening).with_fallback(Fallback::Never);
    planner.lend().unwrap().device().destroy();
    let error = plan(&planner).unwrap_err();
    assert!(matches!(&error, Error::Device { reason, .. } if reason.starts_with("device lost: ")), "{error}");
    assert_on_device(&plan(&planner).unwrap());
}

#[test]
fn a_device_that_does_not_end_its_work_is_given_up() {
    let Some(opening) = opening() else { return };
    let planner = open(Opening { patience: Duration::ZERO, ..opening });
    assert_fell_back(&plan(&planner).unwrap(), "it is hung: a submission did not end within 0ns");
    // The next call opens it again, and so on.
    for _ in 0..REOPENINGS {
        assert_fell_back(&plan(&planner).unwrap(), "it is hung");
    }
    assert_fell_back(&plan(&planner).unwrap(), "lost 4 times in a row");
}

#[test]
fn refused_memory_costs_one_call() {
    let Some(opening) = opening() else { return };
    let planner = open(opening);
    let bench = Bench::new(77);
    let gpu = planner.lend().unwrap();
    let words = gpu.device().limits().max_buffer_size / 4 + 1;
    let run = |arena: u64| {
        let problem = bench.layout.problem(bench.case.loads.fixed(), &[], &bench.table);
        let part = Part::Groups { begin: 0, words: 1 };
        let (recording, layout) = (&bench.record_to_nodes(), &bench.layout);
        let work = Work { recording, layout, problem: &problem, arena_words: arena, part };
        pollster::block_on(gpu.run(&work))
    };
    let error = run(words).unwrap_err().to_string();
    assert!(error.contains(&(4 * words).to_string()), "{error}");
    run(64).unwrap();
    assert_eq!(gpu.lost(), None);
    assert_on_device(&plan(&planner).unwrap());
}

#[test]
fn memory_that_runs_out_in_mid_plan_costs_that_plan() {
    let Some(opening) = opening() else { return };
    let planner = open(opening);
    let gpu = planner.lend().unwrap();
    let done = AtomicBool::new(false);
    let hit = std::thread::scope(|scope| {
        // As wgpu's handler of errors says it, again and again until the plan ends.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                gpu.fault().refuse("Out of Memory".into());
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let hit = plan(&planner).unwrap();
        done.store(true, Ordering::Relaxed);
        hit
    });
    assert_fell_back(&hit, "Out of Memory");
    assert_on_device(&plan(&planner).unwrap());
    assert_eq!(gpu.lost(), None);
}

/// Where the driver tells how much memory there is, wgpu refuses buffers beyond a share of it as if there were
/// no more.
#[test]
fn a_device_out_of_memory_hands_its_work_over() {
    let Some(mut opening) = opening() else { return };
    opening.memory.for_resource_creation = Some(0);
    match pollster::block_on(Planner::open(opening)) {
        Err(error) => assert!(error.to_string().to_lowercase().contains("memory"), "{error}"),
        Ok(planner) => assert_on_device(&plan(&planner).unwrap()),
    }
}

/// The same, where wgpu then gives up the whole device, by the callback a driver's loss would take.
#[test]
fn a_device_lost_to_memory_pressure_hands_its_work_over() {
    let Some(mut opening) = opening() else { return };
    opening.memory.for_device_loss = Some(0);
    match pollster::block_on(Planner::open(opening)) {
        Err(error) => assert!(error.to_string().to_lowercase().contains("memory"), "{error}"),
        Ok(planner) => {
            let plan = plan(&planner).unwrap();
            if plan.warnings().is_empty() {
                assert_on_device(&plan)
            } else {
                assert_fell_back(&plan, "emory")
            }
        }
    }
}

#[test]
fn a_device_with_small_limits_makes_the_plan_in_parts_or_hands_it_over() {
    let Some(opening) = opening() else { return };
    let all = planner().and_then(Planner::lend).unwrap().device().limits();
    let with = |bytes: u64| {
        let limits =
            wgpu::Limits { max_storage_buffer_binding_size: bytes, max_buffer_size: bytes, ..all.clone() };
        open(Opening { limits: Some(limits), ..opening.clone() })
    };
    assert_on_device(&plan(&with(1 << 20)).unwrap());
    let planner = with(1 << 10);
    for _ in 0..2 {
        assert_fell_back(&plan(&planner).unwrap(), "1024");
    }
    assert!(matches!(plan(&planner.with_fallback(Fallback::Never)), Err(Error::Device { .. })));
}

#[test]
fn limits_the_adapter_has_not_are_refused_when_the_device_is_opened() {
    let Some(opening) = opening() else { return };
    let limits = wgpu::Limits { max_bind_groups: u32::MAX, ..wgpu::Limits::default() };
    let opened = pollster::block_on(Planner::open(Opening { limits: Some(limits), ..opening }));
    let error = opened.err().expect("no adapter has as many bind groups").to_string();
    assert!(error.contains("max_bind_groups") && error.lines().count() == 1, "{error}");
}

#[test]
fn a_device_that_auto_means_and_cannot_open_is_a_fault_in_every_plan() {
    let error = Error::Device { device: "Radeon 7 (vulkan)".into(), reason: "out of memory".into() };
    assert_eq!(Planner::on(Err(error.clone()), false).err(), Some(error.clone()));
    let planner = Planner::on(Err(error.clone()), true).unwrap();
    assert_eq!(planner.device().backend, "cpu");
    let made = plan(&planner).unwrap();
    assert_eq!(made.fingerprint(), expected());
    assert_eq!(made.warnings(), [format!("{error}; the CPU backend made the plan")]);
    assert_eq!(plan(&planner.with_fallback(Fallback::Never)).unwrap_err(), error);
    let none = Error::NoDevice { wanted: "auto".into(), found: Vec::new() };
    assert_eq!(Planner::on(Err(none.clone()), true).err(), Some(none));
}
