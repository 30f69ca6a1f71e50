//! Stage times on a device: every stage by name, and no more in all than the host has waited.

use std::time::{Duration, Instant};

use eplb_wgpu::profile::{Batch, Profiler, StageTimes};
use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions};

use crate::common;

#[test]
fn every_stage_is_timed_within_the_time_of_the_whole() {
    let Some(planner) = common::planner() else { return };
    let device = planner.device();
    let choice = DeviceChoice::Name(format!("{} {}", device.name, device.backend));
    let profiler = pollster::block_on(Profiler::new(&choice))
        .unwrap()
        .expect("the tested device is never the CPU backend");
    let counts: Vec<u64> = (0..2 * 64).map(|i| 1_000 + i * 7919 % 5_003).collect();
    let loads = Loads::from_counts(2, 64, &counts).unwrap();
    let cluster = Cluster::new(72, 8, 2, 8).unwrap();
    let options = PlanOptions { starts: 4, ..PlanOptions::default() };
    let stages = [
        "s1_group_loads",
        "s2_groups_to_nodes",
        "gather",
        "queue",
        "s3_replicate",
        "s4_pack",
        "s5_search",
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
        let times = pollster::block_on(profiler.plan(&loads, &cluster, &options)).unwrap();
        check(&times, start.elapsed());
    }
    let batch = Batch::new(&loads, &cluster, &options).unwrap();
    let (times, whole) = pollster::block_on(batch.on_device(&profiler)).unwrap();
    check(&times, whole);
    assert!(pollster::block_on(profiler.device_bytes()) > 0);
    assert_eq!(batch.candidates(), 2 * 2 * 4);
}
