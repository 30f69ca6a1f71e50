//! A map as an engine hands it over.

use eplb_wgpu::{Error, PreviousMap};

/// A map `[layers][columns]`. A slot whose id is no expert of the model holds nothing.
pub fn previous(map: &[i64], columns: usize, experts: usize) -> Result<PreviousMap, Error> {
    let expert = |&id: &i64| i32::try_from(id).ok().filter(|&e| e >= 0 && (e as usize) < experts);
    PreviousMap::new(columns, map.iter().map(|id| expert(id).unwrap_or(-1)).collect())
}
