//! The planner for browsers, as JavaScript sees it. This crate holds only what needs the core.
//!
//! Names are JavaScript's. What fails throws an `Error` with the core's message.

mod options;
mod pages;
mod plan;
mod planner;

use eplb_wgpu::check::Quality;
use eplb_wgpu::trace::{LoadHistory, Window};
use eplb_wgpu::{DeviceInfo, Error, PLAN_VERSION};
use js_sys::JsString;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = include_str!("types.d.ts");

/// An `Error` of JavaScript.
fn thrown(error: impl std::fmt::Display) -> JsError {
    JsError::new(&error.to_string())
}

/// A value of JavaScript.
fn to_js(value: &Value) -> Result<JsValue, JsError> {
    js_sys::JSON::parse(&value.to_string()).map_err(|_| JsError::new("a result could not be told"))
}

/// An object of JavaScript; nothing where it is undefined or null. `what` names it in errors.
fn of_js<T: DeserializeOwned + Default>(what: &str, value: &JsValue) -> Result<T, JsError> {
    if value.is_undefined() || value.is_null() {
        return Ok(T::default());
    }
    let text = js_sys::JSON::stringify(value).map(String::from);
    let text = text.map_err(|_| thrown(format!("{what} is no object of plain values")))?;
    serde_json::from_str(&text).map_err(|error| thrown(format!("{what}: {error}")))
}

/// The version of the plans: equal calls give equal bytes where it is the same.
#[wasm_bindgen(js_name = planVersion)]
pub fn plan_version() -> u32 {
    PLAN_VERSION
}

/// Every adapter that the browser offers: one, or none.
#[wasm_bindgen(unchecked_return_type = "Device[]")]
pub async fn devices() -> Result<JsValue, JsError> {
    to_js(&eplb_wgpu::devices_async().await.iter().map(device).collect())
}

/// A device, as JavaScript is told.
fn device(info: &DeviceInfo) -> Value {
    json!({
        "name": info.name, "backend": info.backend, "kind": info.kind, "software": info.is_software,
        "unusableBecause": info.unusable_because,
    })
}

/// How many tokens each expert of each layer received.
#[wasm_bindgen]
pub struct Loads(eplb_wgpu::Loads);

#[wasm_bindgen]
impl Loads {
    /// From `[layers][experts]`, row-major.
    #[wasm_bindgen(constructor)]
    pub fn new(layers: u32, experts: u32, values: &[f64]) -> Result<Loads, JsError> {
        eplb_wgpu::Loads::from_f64(layers as usize, experts as usize, values).map(Self).map_err(thrown)
    }

    /// From the bytes of a load file of any format that `eplb plan` reads, windows added up, or this one: `sum`, `last`, or
    /// a number.
    pub fn read(bytes: &[u8], window: Option<String>) -> Result<Loads, JsError> {
        let window = window.map_or(Ok(Window::Sum), |text| text.parse()).map_err(thrown)?;
        let history = LoadHistory::of_bytes(bytes, None).map_err(thrown)?;
        history.loads(window).map(Self).map_err(thrown)
    }

    #[wasm_bindgen(getter)]
    pub fn layers(&self) -> u32 {
        self.0.layers() as u32
    }

    #[wasm_bindgen(getter)]
    pub fn experts(&self) -> u32 {
        self.0.experts() as u32
    }

    /// `[layers][experts]`.
    #[wasm_bindgen(getter)]
    pub fn values(&self) -> Vec<f64> {
        self.0.values().to_vec()
    }
}

/// Where the replicas go.
#[wasm_bindgen]
pub struct Cluster(eplb_wgpu::Cluster);

#[wasm_bindgen]
impl Cluster {
    /// `replicas` of a layer on `gpus` GPUs of `nodes` nodes, experts in `groups` groups. `slotsPerGpu` leaves slots free
    /// where that is more than they take.
    #[wasm_bindgen(constructor)]
    pub fn new(
        replicas: u32,
        groups: u32,
        nodes: u32,
        gpus: u32,
        #[wasm_bindgen(js_name = slotsPerGpu)] slots_per_gpu: Option<u32>,
    ) -> Result<Cluster, JsError> {
        let [replicas, groups, nodes, gpus] = [replicas, groups, nodes, gpus].map(|n| n as usize);
        let cluster = match slots_per_gpu {
            None => eplb_wgpu::Cluster::new(replicas, groups, nodes, gpus),
            Some(slots) => {
                eplb_wgpu::Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots as usize)
            }
        };
        cluster.map(Self).map_err(thrown)
    }

    /// Slots of a layer.
    #[wasm_bindgen(getter)]
    pub fn slots(&self) -> u32 {
        self.0.num_slots() as u32
    }
}

/// Checks a map, `[layers][slots]` with -1 for a free slot, by code that shares nothing with the planner, and scores it.
#[wasm_bindgen(unchecked_return_type = "Quality")]
pub fn check(loads: &Loads, cluster: &Cluster, map: &[i32]) -> Result<JsValue, JsError> {
    let quality = eplb_wgpu::check::score(&loads.0, &cluster.0, map).map_err(thrown)?;
    let bounds = eplb_wgpu::bound::lower_bounds(&loads.0, &cluster.0);
    quality_to_js(&quality.with_bounds(&bounds))
}

/// A quality, as JavaScript is told.
fn quality_to_js(quality: &Quality) -> Result<JsValue, JsError> {
    let layers: Vec<Value> = quality
        .layers
        .iter()
        .map(|layer| {
            json!({
                "maxGpuLoad": layer.max_gpu_load, "meanGpuLoad": layer.mean_gpu_load,
                "lowerBound": layer.lower_bound, "gap": layer.gap(),
                "sameGpuDuplicates": layer.same_gpu_duplicates,
            })
        })
        .collect();
    to_js(&json!({
        "balancedness": quality.balancedness(), "maxOverMean": quality.max_over_mean(),
        "meanGap": quality.mean_gap(), "worstGap": quality.worst_gap(),
        "sameGpuDuplicates": quality.same_gpu_duplicates(), "layers": layers,
    }))
}

/// The name of a preset, or the default one.
fn preset(name: Option<&str>) -> Result<eplb_wgpu::Preset, Error> {
    name.map_or(Ok(eplb_wgpu::Preset::DEFAULT), str::parse)
}

/// The names of all presets.
#[wasm_bindgen]
pub fn presets() -> Vec<JsString> {
    eplb_wgpu::Preset::all().map(|preset| preset.name().into()).collect()
}
