//! A machine without a driver: the command line says so, and `auto` goes without.

use std::process::{Command, Output};

/// `eplb plan` on this device, where the Vulkan loader finds no driver.
fn plan_without_driver(device: &str) -> Output {
    let loads = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/loads.json");
    Command::new(env!("CARGO_BIN_EXE_eplb"))
        .args(["plan", loads, "--replicas", "288", "--groups", "8", "--nodes", "4", "--gpus", "32"])
        .args(["--restarts", "1", "--kicks", "0", "--json", "--device", device])
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
