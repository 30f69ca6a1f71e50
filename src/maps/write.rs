//! Maps and plans as files of any format.

use std::path::Path;

use super::{MapFile, PlanFormat, json, yaml};
use crate::error::Error;
use crate::plan::Plan;
use crate::trace::{self, plan_bytes};

/// Layers that a map may lack and SGLang's must have.
const MOST_MISSING: usize = 256;

impl MapFile {
    /// The bytes of a file of this map.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the format cannot hold the map, with the reason: a slot that is free, or what the format
    /// tells and the map does not.
    pub fn bytes(&self, format: PlanFormat) -> Result<Vec<u8>, Error> {
        let refuse = |rule: &str| Err(Error::invalid("format", format, rule));
        let rows = || self.rows.chunks_exact(self.slots);
        let holds_free_slots = matches!(format, PlanFormat::Npy | PlanFormat::Ascend);
        if let Some(at) = self.rows.iter().position(|&expert| expert < 0).filter(|_| !holds_free_slots) {
            let (layer, slot, entry) = (self.id(at / self.slots), at % self.slots, self.rows[at]);
            return refuse(&format!("cannot hold a free slot: layer {layer}, slot {slot} is {entry}"));
        }
        let with_ids = || -> Vec<(u32, &[i32])> { (0..).map(|layer| self.id(layer)).zip(rows()).collect() };
        Ok(match format {
            PlanFormat::Eplb => {
                return refuse("is that of a plan made here: it needs loads and a cluster (eplb plan)");
            }
            PlanFormat::Sglang => {
                json::write_sglang(&self.all_layers()?.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            PlanFormat::Vllm => json::write_vllm(&rows().collect::<Vec<_>>()),
            PlanFormat::TensorRtLlm => yaml::write(&with_ids(), self.slots),
            PlanFormat::Ascend => match self.gpus {
                Some(gpus) => json::write_ascend(&with_ids(), gpus),
                None => {
                    return refuse(
                        "tells the experts of each GPU, and the map does not tell how many there are",
                    );
                }
            },
            PlanFormat::Npy => return trace::npy_of_rows(self.slots, &self.rows),
        }
        .into_bytes())
    }

    /// Writes a file of this map, whole or not at all, in the format of its ending where none is given.
    ///
    /// # Errors
    /// [`Error::Write`] where the file cannot be written, or its ending says no format; and as for [`MapFile::bytes`].
    pub fn write(&self, path: &Path, format: Option<PlanFormat>) -> Result<(), Error> {
        trace::write_whole(path, &self.bytes(PlanFormat::to_write(path, format)?)?)
    }

    /// The differences between a file of this format and the map, in words.
    #[must_use]
    pub fn losses(&self, format: PlanFormat) -> Vec<String> {
        let mut said = Vec::new();
        let in_order = (0..self.layers()).all(|layer| self.id(layer) as usize == layer);
        if !in_order && matches!(format, PlanFormat::Vllm | PlanFormat::Npy) {
            said.push(format!("{format} has no layer numbers: row 0 is layer {}", self.id(0)));
        }
        let is_numbered = matches!(format, PlanFormat::Sglang | PlanFormat::TensorRtLlm | PlanFormat::Ascend);
        if self.layer_ids.is_none() && is_numbered {
            said.push(
                "the map does not tell the numbers of its layers: row 0 is taken for layer 0".to_string(),
            );
        }
        let missing = self.last() as usize + 1 - self.layers();
        if !in_order && format == PlanFormat::Sglang && missing > 0 {
            said.push(format!(
                "sglang has a row for every layer from 0 on: the {missing} that the map lacks hold what SGLang starts with"
            ));
        }
        if format != PlanFormat::Eplb
            && let Some(cluster) = self.cluster.as_ref().filter(|cluster| !cluster.has_equal_speeds())
        {
            let gone: Vec<String> = cluster.gone_gpus().iter().map(usize::to_string).collect();
            let gone = if gone.is_empty() { String::new() } else { format!(" (gone: {})", gone.join(",")) };
            said.push(format!(
                "{format} does not tell the speeds of GPUs{gone}: who reads it needs gpu_speeds"
            ));
        }
        if format == PlanFormat::Ascend && self.rows.contains(&-1) {
            said.push("vllm-ascend has no free slots: GPUs have lists of unequal length".to_string());
        }
        said
    }

    /// The number of a layer.
    fn id(&self, layer: usize) -> u32 {
        self.layer_ids.as_ref().and_then(|ids| ids.get(layer).copied()).unwrap_or(layer as u32)
    }

    /// The largest number of a layer.
    fn last(&self) -> u32 {
        (0..self.layers()).map(|layer| self.id(layer)).max().unwrap_or(0)
    }

    /// Rows from layer 0 on; those that are not there are as SGLang starts, expert after expert over and over.
    fn all_layers(&self) -> Result<Vec<Vec<i32>>, Error> {
        let last = self.last() as usize;
        // A map of a few layers must not make us fill the memory.
        let most = self.layers() + self.layers().max(MOST_MISSING);
        if last >= most {
            let rule =
                format!("is too far: the map has {} layers, and SGLang's all from 0 on", self.layers());
            return Err(Error::invalid("layer id", last, rule));
        }
        let largest = self.rows.iter().copied().max().unwrap_or(0).max(0);
        let experts = largest.saturating_add(1);
        let start: Vec<i32> = (0..self.slots as i32).map(|slot| slot % experts).collect();
        let mut all = vec![start; last + 1];
        for (layer, row) in self.rows.chunks_exact(self.slots).enumerate() {
            all[self.id(layer) as usize] = row.to_vec();
        }
        Ok(all)
    }
}

/// A plan as the bytes of a file of any format.
///
/// # Errors
/// [`Error::Invalid`] where the format cannot hold the plan; `eplb-plan/1` holds every one.
pub fn bytes_of_plan(plan: &Plan, format: PlanFormat) -> Result<Vec<u8>, Error> {
    match format {
        PlanFormat::Eplb => Ok(plan_bytes(plan)),
        _ => MapFile::from(plan).bytes(format),
    }
}

/// Writes a plan to a file of any format, whole or not at all: that of its ending where none is given.
///
/// # Errors
/// [`Error::Write`] where the file cannot be written, or its ending says no format; and as for [`bytes_of_plan`].
pub fn write_plan(plan: &Plan, path: &Path, format: Option<PlanFormat>) -> Result<(), Error> {
    trace::write_whole(path, &bytes_of_plan(plan, PlanFormat::to_write(path, format)?)?)
}
