//! Functions that the pages call besides plans. No part of the package: it may change in any version.

use eplb_wgpu::suite::{bench, fingerprints};
use eplb_wgpu::{DeviceChoice, Planner};
use js_sys::Function;
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::{thrown, to_js};

/// The calls whose fingerprints are committed, those with one of `only` in their names if there is any: what
/// `eplb check --fingerprints --json` prints.
#[wasm_bindgen(skip_typescript)]
pub async fn fingerprints(choice: &str, only: Vec<String>) -> Result<JsValue, JsError> {
    let choice: DeviceChoice = choice.parse().map_err(thrown)?;
    let planner = Planner::new_async(choice).await.map_err(thrown)?;
    let outcome = fingerprints::run(&planner, &only, |_, _| ()).await.map_err(thrown)?;
    to_js(&outcome.json(&planner.device().label()))
}

/// The suite of `eplb bench` on the GPU and on the CPU backend; `tell` gets the steps that are done, how many there are,
/// what runs now, and the device so far. Gives the text of the record that `eplb bench --out` writes, with this platform and this name of a
/// GPU that has none.
#[wasm_bindgen(skip_typescript)]
pub async fn bench(
    choice: Option<String>,
    only: &str,
    platform: &str,
    gpu: &str,
    tell: &Function,
) -> Result<String, JsError> {
    let choice = choice.map(|text| text.parse()).transpose().map_err(thrown)?;
    let mut listener = |told: bench::Told<'_>| {
        let bench::Told { done, all, now, device } = told;
        let told = to_js(&json!({ "done": done, "all": all, "now": now, "device": device }));
        // An error that the listener throws is its own business.
        let _ = told.map(|told| tell.call1(&JsValue::UNDEFINED, &told));
    };
    let (mut record, _) = bench::run(choice, only, &mut listener).await.map_err(thrown)?;
    record.platform = platform.to_string();
    for device in record.devices.iter_mut().filter(|device| device.backend == "webgpu" && !gpu.is_empty()) {
        device.name = gpu.to_string();
    }
    Ok(record.text())
}
