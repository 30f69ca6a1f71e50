//! Stage times on a device: every stage by name, and no more in all than the host has waited.
#![cfg(feature = "cli")]

#[path = "device/common.rs"]
mod common;

use std::time::{Duration, Instant};

use eplb_wgpu::profile::{Batch, Profiler, StageTimes};
use eplb_wgpu::trace::{Generate, Window};
use eplb_wgpu::{Cluster, DeviceChoice, PlanOptions};

#[test]
fn every_stage_is_timed_within_the_time_of_the_whole() {
    let profiler = match Profiler::new(&DeviceChoice::Gpu) {
        Ok(profiler) => profiler.expect("gpu is never the CPU backend"),
        Err(error) if common::may_lack_adapter() => return eprintln!("not run: {error}"),
        Err(error) => panic!("{}", common::no_adapter(&error.to_string())),
    };
    let loads = Generate { layers: 2, experts: 64, ..Generate::default() }.history().unwrap();
    let loads = loads.loads(Window::Sum).unwrap();
    let cluster = Cluster::new(72, 8, 2, 8).unwrap();
    let options = PlanOptions { restarts: 4, ..PlanOptions::default() };
    let stages = [
        "s1_group_loads",
        "s2_groups_to_nodes",
        "queue",
        "s3_replicate",
        "s4_pack",
        "s5_refine",
        "s6_select",
    ];
    let check = |times: &StageTimes, whole: Duration| {
        if !profiler.is_timed() {
            return assert!(times.is_empty());
        }
        assert_eq!(times.iter().map(|(stem, _)| *stem).collect::<Vec<_>>(), stages);
        let sum: Duration = times.iter().map(|(_, time)| *time).sum();
        assert!(Duration::ZERO < sum && sum <= whole, "{times:?} in {whole:?}");
    };
    // Twice: times are those since the last call.
    for _ in 0..2 {
        let start = Instant::now();
        let times = profiler.plan(&loads, &cluster, &options).unwrap();
        check(&times, start.elapsed());
    }
    let batch = Batch::new(&loads, &cluster, &options).unwrap();
    let (times, whole) = batch.on_device(&profiler).unwrap();
    check(&times, whole);
    assert!(profiler.device_bytes() > 0);
    assert_eq!(batch.candidates(), 2 * 2 * 4);
}
