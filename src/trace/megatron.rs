//! Megatron's router trace: JSON lines, a record for each step, layer and rank, with the experts of every token.

use serde::Deserialize;

use super::LoadHistory;
use super::sparse::{Sparse, as_they_are};
use crate::error::ParseError;

/// One line. Others of its fields are passed over.
#[derive(Deserialize)]
struct MegatronLine {
    step: u32,
    /// `decoder`, or `mtp` for multi-token prediction.
    #[serde(default)]
    block: Option<String>,
    layer: u32,
    #[serde(default)]
    mtp_idx: Option<u32>,
    top_indices: Vec<Vec<u32>>,
}

/// Layers for multi-token prediction sort after all others.
const PREDICTS: u64 = 1 << 63;

/// The records of all ranks, added up.
pub fn read<'a>(files: impl IntoIterator<Item = &'a [u8]>, length: usize) -> Result<LoadHistory, ParseError> {
    let mut loads = Sparse::default();
    for bytes in files {
        let lines = bytes.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        for (line, text) in (1..).zip(lines).filter(|(_, text)| !text.is_empty()) {
            let record: MegatronLine = serde_json::from_slice(text)
                .map_err(|error| ParseError::not(&format!("a router trace: line {line}"), error))?;
            let predicts = record.block.as_deref() == Some("mtp") || record.mtp_idx.is_some();
            let layer = match predicts {
                true => PREDICTS | u64::from(record.mtp_idx.unwrap_or(0)) << 32 | u64::from(record.layer),
                false => u64::from(record.layer),
            };
            for &expert in record.top_indices.iter().flatten() {
                let added = loads.add(record.step.into(), layer, expert.into(), 1);
                added.map_err(|reason| ParseError::content(format!("line {line}: {reason}")))?;
            }
        }
    }
    loads.history(length, |layers| {
        // The number after that of the layer before.
        let mut next = 0;
        let number = |&layer: &u64| {
            let number = if layer < PREDICTS { layer } else { next };
            next = number + 1;
            number
        };
        let numbers: Vec<u64> = layers.iter().map(number).collect();
        as_they_are(&numbers)
    })
}
