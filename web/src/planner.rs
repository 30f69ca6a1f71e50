//! The planner, as JavaScript sees it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use eplb_wgpu::maps::MapFile;
use eplb_wgpu::{Cancel, DeviceChoice, Fallback};
use js_sys::Function;
use wasm_bindgen::prelude::*;

use crate::options::{Limits, Options};
use crate::plan::Plan;
use crate::{Cluster, Loads, device, of_js, thrown, to_js};

thread_local! {
    /// Who is told how far a call is, by the number of the call: a listener of the core may go to other threads, which a
    /// function of JavaScript may not.
    static LISTENERS: RefCell<HashMap<u32, Function>> = RefCell::default();
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// Makes plans on one device.
#[wasm_bindgen]
pub struct Planner {
    planner: eplb_wgpu::Planner,
    cancel: Cancel,
    /// Why `auto` is the CPU backend, where it is.
    no_gpu: Option<String>,
}

#[wasm_bindgen]
impl Planner {
    /// Opens a device: `auto` (a GPU, or the CPU backend in wasm where the browser has none), `gpu`, `cpu`.
    pub async fn open(choice: Option<String>) -> Result<Planner, JsError> {
        let choice = choice.map_or(Ok(DeviceChoice::Auto), |text| text.parse()).map_err(thrown)?;
        let cancel = Cancel::new();
        let planner = eplb_wgpu::Planner::new_async(choice.clone()).await.map_err(thrown)?;
        let is_cpu = choice == DeviceChoice::Auto && planner.device().backend == "cpu";
        let no_gpu = if is_cpu { Some(no_gpu(&eplb_wgpu::devices_async().await)) } else { None };
        Ok(Self { planner: planner.with_cancel(&cancel), cancel, no_gpu })
    }

    /// The same planner, whose calls fail where its device does; else the CPU backend makes the same plan, and a warning
    /// says so.
    #[wasm_bindgen(js_name = withoutFallback)]
    pub fn without_fallback(&self) -> Planner {
        let planner = self.planner.clone().with_fallback(Fallback::Never);
        Self { planner, cancel: self.cancel.clone(), no_gpu: self.no_gpu.clone() }
    }

    /// The device that makes the plans.
    #[wasm_bindgen(getter, unchecked_return_type = "Device")]
    pub fn device(&self) -> Result<JsValue, JsError> {
        to_js(&device(self.planner.device()))
    }

    /// Plans all layers. `progress` is told the layers that are done, and how many there are. The CPU backend blocks: call
    /// it in a worker.
    pub async fn plan(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        #[wasm_bindgen(unchecked_optional_param_type = "PlanOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "(done: number, layers: number) => void")]
        progress: Option<Function>,
    ) -> Result<Plan, JsError> {
        let options = of_js::<Options>("options", &options)?.of_core().map_err(thrown)?;
        self.cancel.reset();
        let mut planner = self.planner.clone();
        let call = CALLS.replace(CALLS.get().wrapping_add(1));
        if let Some(listener) = progress {
            LISTENERS.with_borrow_mut(|listeners| listeners.insert(call, listener));
            planner = planner.with_progress(move |progress| tell(call, progress));
        }
        let plan = planner.plan_async(&loads.0, &cluster.0, &options).await;
        LISTENERS.with_borrow_mut(|listeners| listeners.remove(&call));
        Ok(Plan { plan: plan.map_err(thrown)?, moves: None, no_gpu: self.no_gpu.clone() })
    }

    /// Plans from the map that runs, `[layers][slots]` of now; each moved slot must be worth its transfer.
    pub fn replan(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        previous: Vec<i32>,
        #[wasm_bindgen(unchecked_optional_param_type = "PlanOptions")] options: JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "MoveLimits")] limits: JsValue,
    ) -> Result<Plan, JsError> {
        let options = of_js::<Options>("options", &options)?.of_core().map_err(thrown)?;
        let limits = of_js::<Limits>("limits", &limits)?.of_core();
        let slots = previous.len().checked_div(loads.0.layers()).unwrap_or_default();
        let previous = MapFile::new(slots, previous).and_then(|map| map.with_gpus(cluster.0.num_gpus()));
        let previous = previous.and_then(|map| map.previous_map()).map_err(thrown)?;
        self.cancel.reset();
        let replan =
            self.planner.replan(&loads.0, &cluster.0, previous, &options, &limits).map_err(thrown)?;
        let (plan, moves) = (replan.plan().clone(), Some(*replan.moves()));
        Ok(Plan { plan, moves, no_gpu: self.no_gpu.clone() })
    }

    /// Has a call on a GPU that is under way fail with "cancelled".
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// The warning in a plan where `auto` has found no GPU among these devices.
fn no_gpu(devices: &[eplb_wgpu::DeviceInfo]) -> String {
    let found = match devices.first() {
        None => "WebGPU has no adapter here".to_string(),
        Some(device) => {
            let why = device.unusable_because.as_deref().unwrap_or("a software driver");
            format!("WebGPU has no GPU here, only {}: {why}", device.name)
        }
    };
    format!("{found}; the CPU backend made the plan")
}

/// Tells the listener of a call.
fn tell(call: u32, progress: eplb_wgpu::Progress) {
    let listener = LISTENERS.with_borrow(|listeners| listeners.get(&call).cloned());
    if let Some(listener) = listener {
        let (done, layers) = (progress.layers_done as u32, progress.layers as u32);
        // An error that the listener throws is its own business.
        let _ = listener.call2(&JsValue::UNDEFINED, &done.into(), &layers.into());
    }
}
