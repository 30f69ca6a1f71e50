//! Which adapters are here. `tests/run.sh` reads what this prints.

use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner, devices};

use crate::common;

/// Prints one line an adapter, tab-separated: `adapter`, its index, backend, name, then the driver, or why it
/// cannot be used after `unusable:`.
#[test]
fn every_adapter_is_listed() {
    let adapters = devices();
    // The harness may have printed the name of the test without ending the line.
    println!();
    for (index, info) in adapters.iter().enumerate() {
        let remark = match &info.unusable_because {
            None => format!("{}, {} {}", info.kind, info.driver, info.driver_info),
            Some(reason) => format!("unusable: {reason}"),
        };
        println!("adapter\t{index}\t{}\t{}\t{remark}", info.backend, info.name);
    }
    let usable = adapters.iter().any(|info| info.unusable_because.is_none());
    assert!(usable || common::may_lack_adapter(), "{}", common::no_adapter("no adapter is usable"));
}

/// A device that fails hands its work to the CPU backend, with the same result: so look at who did it.
#[test]
fn plans_are_made_on_the_adapter_that_is_tested() {
    let Some(planner) = common::planner() else { return };
    let loads =
        Loads::from_counts(2, 8, &[600, 560, 120, 120, 20, 10, 10, 10, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let cluster = Cluster::new(16, 4, 2, 8).unwrap();
    let plan = planner.plan(&loads, &cluster, &PlanOptions::default()).unwrap();
    assert_eq!(plan.warnings(), &[] as &[String]);
    assert_eq!((plan.device(), plan.backend()), (&*planner.device().name, &*planner.device().backend));
    let cpu =
        Planner::new(DeviceChoice::Cpu).unwrap().plan(&loads, &cluster, &PlanOptions::default()).unwrap();
    assert_eq!(plan.physical_to_logical(), cpu.physical_to_logical());
    assert_eq!(plan.fingerprint(), cpu.fingerprint());
}
