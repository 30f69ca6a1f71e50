//! The plans of all cases are the same on every device and on any number of threads.
//!
//! On the device that `EPLB_TEST_DEVICE` names, or any; where there is none these fail, unless
//! `EPLB_ALLOW_NO_ADAPTER=1`. `EPLB_TEST_SHORT=1`, for slow drivers, takes fewer layers
//! and smaller budgets.

use std::sync::LazyLock;

use eplb_wgpu::{Cluster, DeviceChoice, Loads, Plan, PlanOptions, Planner, Preset};

use crate::golden::Case;
use crate::{assert_none, cases, gen00};

/// The planner on the device, one for all tests.
static DEVICE: LazyLock<Option<Planner>> = LazyLock::new(|| {
    let choice = std::env::var("EPLB_TEST_DEVICE").map_or(Ok(DeviceChoice::Gpu), |name| name.parse());
    match choice.and_then(Planner::new) {
        Ok(device) => Some(device),
        Err(error) if std::env::var("EPLB_ALLOW_NO_ADAPTER").as_deref() == Ok("1") => {
            eprintln!("not run: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
});

fn is_short() -> bool {
    std::env::var("EPLB_TEST_SHORT").as_deref() == Ok("1")
}

fn cpu() -> Planner {
    Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always there")
}

/// The part of `found` that is not as in `expected`, if there is one.
fn difference(found: &Plan, expected: &Plan) -> Option<String> {
    let equal = found.physical_to_logical() == expected.physical_to_logical()
        && found.stops() == expected.stops()
        && found.fingerprint() == expected.fingerprint();
    // A plan that another device finished says nothing about this one.
    (!equal || !found.warnings().is_empty()).then(|| format!("{:?}", found.warnings()))
}

/// The last `layers` of a case: the first ones of some have no load. Layers do not know of each other.
fn last_layers(case: &Case, layers: usize) -> (Loads, &Cluster) {
    let loads = &case.loads;
    let layers = layers.min(loads.layers());
    let rows = &loads.values()[(loads.layers() - layers) * loads.experts()..];
    let loads = Loads::from_f64(layers, loads.experts(), rows);
    (loads.unwrap_or_else(|e| panic!("{}: {e}", case.name)), &case.cluster)
}

/// Every preset, with at most the default's budget or so: more of the same search takes minutes.
fn presets() -> impl Iterator<Item = (Preset, PlanOptions)> {
    let (starts, patience) = if is_short() { (9, 8) } else { (40, 64) };
    Preset::all().map(move |preset| {
        let options = preset.options();
        let (starts, patience) = (options.starts.min(starts), options.patience.min(patience));
        (preset, PlanOptions { starts, patience, ..options })
    })
}

#[test]
fn the_device_makes_the_same_plan_of_every_case_at_every_number_of_starts() {
    let Some(device) = cases().first().and_then(|_| DEVICE.as_ref()) else { return };
    let cpu = cpu();
    let mut complaints = Vec::new();
    for case in cases() {
        for starts in [1, 7, 16, 100] {
            // The whole default budget at its own number of starts, fewer iterations at the others.
            let default = PlanOptions::default();
            let iterations = if starts == default.starts { default.iterations } else { 60 };
            for options in [
                PlanOptions { starts, iterations, ..PlanOptions::default() },
                PlanOptions { starts, ..gen00() },
            ] {
                let plan = |planner: &Planner| planner.plan(&case.loads, &case.cluster, &options).unwrap();
                if let Some(difference) = difference(&plan(device), &plan(&cpu)) {
                    complaints.push(format!("{}, {starts} starts: {difference}", case.name));
                }
            }
        }
    }
    println!("\n{} cases on {}", cases().len(), device.device().label());
    assert_none(&complaints);
}

#[test]
fn the_device_makes_the_same_plan_of_every_case_with_every_preset() {
    let Some(device) = cases().first().and_then(|_| DEVICE.as_ref()) else { return };
    let cpu = cpu();
    let mut complaints = Vec::new();
    for case in cases() {
        let (loads, cluster) = last_layers(case, if is_short() { 1 } else { 2 });
        for (preset, options) in presets() {
            let plan = |planner: &Planner| planner.plan(&loads, cluster, &options).unwrap();
            if let Some(difference) = difference(&plan(device), &plan(&cpu)) {
                complaints.push(format!("{}, {preset}: {difference}", case.name));
            }
        }
    }
    assert_none(&complaints);
}

#[test]
fn the_cpu_backend_makes_the_same_plan_of_every_case_on_any_number_of_threads() {
    let cpu = cpu();
    let pools = [1, 2, 5].map(|threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads can be started")
    });
    let mut complaints = Vec::new();
    for case in cases() {
        let (loads, cluster) = last_layers(case, 5);
        for (preset, options) in presets() {
            let plan = || cpu.plan(&loads, cluster, &options).unwrap();
            let [expected, others @ ..] = pools.each_ref().map(|pool| pool.install(plan));
            for (found, threads) in others.iter().zip([2, 5]) {
                if let Some(difference) = difference(found, &expected) {
                    complaints.push(format!("{}, {preset}, {threads} threads: {difference}", case.name));
                }
            }
        }
    }
    assert_none(&complaints);
}
