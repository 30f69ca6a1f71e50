//! A plan, as JavaScript sees it.

use eplb_wgpu::maps::{PlanFormat, bytes_of_plan};
use serde_json::json;
use wasm_bindgen::prelude::*;

use crate::{quality_to_js, thrown, to_js};

/// A plan: which expert each slot holds, and who made it.
#[wasm_bindgen]
pub struct Plan {
    pub(crate) plan: eplb_wgpu::Plan,
    pub(crate) moves: Option<eplb_wgpu::Moves>,
    /// Why `auto` was the CPU backend, where it was.
    pub(crate) no_gpu: Option<String>,
}

#[wasm_bindgen]
impl Plan {
    #[wasm_bindgen(getter)]
    pub fn layers(&self) -> u32 {
        self.plan.layers() as u32
    }

    /// Slots of a layer.
    #[wasm_bindgen(getter)]
    pub fn slots(&self) -> u32 {
        self.plan.slots() as u32
    }

    /// `[layers][slots]`: the expert of each slot, -1 where it is free.
    #[wasm_bindgen(getter, js_name = physicalToLogical)]
    pub fn physical_to_logical(&self) -> Vec<i32> {
        self.plan.physical_to_logical().to_vec()
    }

    /// `[layers][experts][maxReplicas]`: the slots of each expert, filled up with -1.
    #[wasm_bindgen(getter, js_name = logicalToPhysical)]
    pub fn logical_to_physical(&self) -> Vec<i32> {
        self.plan.logical_to_physical().to_vec()
    }

    #[wasm_bindgen(getter, js_name = maxReplicas)]
    pub fn max_replicas(&self) -> u32 {
        self.plan.max_replicas() as u32
    }

    /// `[layers][experts]`.
    #[wasm_bindgen(getter, js_name = replicaCounts)]
    pub fn replica_counts(&self) -> Vec<u32> {
        self.plan.replica_counts().to_vec()
    }

    /// 16 hexadecimal digits, the same on every device.
    #[wasm_bindgen(getter)]
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", self.plan.fingerprint())
    }

    /// Who made it: `webgpu` or `cpu`.
    #[wasm_bindgen(getter)]
    pub fn backend(&self) -> String {
        self.plan.backend().to_string()
    }

    /// The name of the device that made it.
    #[wasm_bindgen(getter)]
    pub fn device(&self) -> String {
        self.plan.device().to_string()
    }

    /// Warnings for the user: a device failed, or `auto` found no GPU, and the CPU backend made the plan.
    #[wasm_bindgen(getter)]
    pub fn warnings(&self) -> Vec<String> {
        let warnings = self.plan.warnings();
        // A device that failed is there.
        let no_gpu = self.no_gpu.iter().filter(|_| warnings.is_empty());
        warnings.iter().chain(no_gpu).cloned().collect()
    }

    #[wasm_bindgen(getter, js_name = elapsedMs)]
    pub fn elapsed_ms(&self) -> f64 {
        self.plan.elapsed().as_secs_f64() * 1e3
    }

    /// How even it is, and how far above the least that any plan could have.
    #[wasm_bindgen(unchecked_return_type = "Quality")]
    pub fn quality(&self) -> Result<JsValue, JsError> {
        quality_to_js(self.plan.quality())
    }

    /// The moves of a plan that `replan` made.
    #[wasm_bindgen(getter, unchecked_return_type = "Moves | null")]
    pub fn moves(&self) -> Result<JsValue, JsError> {
        let moves = self.moves.map(|moves| {
            json!({
                "changedSlots": moves.changed_slots, "received": moves.received, "repairs": moves.repairs,
                "slots": moves.slots,
            })
        });
        to_js(&moves.into())
    }

    /// The bytes of a file: `eplb` (a plan file), or the form of another program, as `eplb convert` names them.
    pub fn bytes(&self, format: &str) -> Result<Vec<u8>, JsError> {
        let format: PlanFormat = format.parse().map_err(thrown)?;
        bytes_of_plan(&self.plan, format).map_err(thrown)
    }
}
