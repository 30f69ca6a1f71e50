//! A machine without a driver, and a device that fails: what the command line says and does.

use std::process::{Command, Output};

use crate::common;

/// `eplb plan` on this device, where the Vulkan loader finds no driver.
fn plan_without_driver(device: &str) -> Output {
    let loads = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/loads.json");
    Command::new(env!("CARGO_BIN_EXE_eplb"))
        .args(["plan", loads, "--replicas", "288", "--groups", "8", "--nodes", "4", "--gpus", "32"])
        .args(["--starts", "1", "--iterations", "9", "--json", "--device", device])
        .env("NODEVICE_SELECT", "1")
        .env("WGPU_BACKEND", "vulkan")
        .env("VK_DRIVER_FILES", "/no/such/driver.json")
        .env("VK_ICD_FILENAMES", "/no/such/driver.json")
        .output()
        .unwrap()
}

#[test]
fn gpu_is_refused_in_one_line_where_no_driver_is() {
    let output = plan_without_driver("gpu");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("device gpu is not here; found: none") && said.lines().count() == 1, "{said}");
}

#[test]
fn auto_takes_the_cpu_backend_where_no_driver_is() {
    let output = plan_without_driver("auto");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["backend"], "cpu");
}

/// `eplb plan` with more work than a device is given at once: this one fails on every device. The loads are equal,
/// so that the CPU backend is done with its first start.
fn plan_too_large_for_a_device(fallback: &[&str]) -> Option<Output> {
    common::planner()?;
    let folder = tempfile::tempdir().unwrap();
    let loads = folder.path().join("loads.json");
    std::fs::write(&loads, serde_json::json!(vec![vec![5; 4096]; 1]).to_string()).unwrap();
    let device = std::env::var("EPLB_TEST_DEVICE").unwrap_or_else(|_| "gpu".to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_eplb"))
        .arg("plan")
        .arg(&loads)
        .args([
            "--replicas",
            "16384",
            "--gpus",
            "64",
            "--starts",
            "65536",
            "--iterations",
            "1048576",
            "--json",
        ])
        .args(["--device", &device])
        .args(fallback)
        .env("NODEVICE_SELECT", "1")
        .output()
        .unwrap();
    Some(output)
}

const TOO_LARGE: &str = "the plan takes more dispatches than a recording may have";

#[test]
fn the_cpu_backend_makes_the_plan_of_a_device_that_fails() {
    let Some(output) = plan_too_large_for_a_device(&[]) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains(TOO_LARGE), "{said}");
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["backend"], "cpu");
    assert!(plan["warnings"][0].as_str().unwrap().contains(TOO_LARGE), "{plan}");
}

#[test]
fn a_device_that_fails_is_an_error_where_nothing_may_take_its_place() {
    let Some(output) = plan_too_large_for_a_device(&["--fallback", "never"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    assert!(said.contains(TOO_LARGE) && said.lines().count() == 1, "{said}");
}
