//! TensorRT-LLM's statistics: tensors named `iteration_layer`, the tokens of each expert.

use std::collections::BTreeSet;

use safetensors::{Dtype, SafeTensors};

use super::sparse::{Sparse, as_they_are};
use super::{LoadHistory, brief};
use crate::error::ParseError;

/// The files of all ranks, added up. All must have as many experts as the first, or as many as are given.
pub fn read<'a>(
    experts: Option<usize>,
    files: impl IntoIterator<Item = &'a [u8]>,
    length: usize,
) -> Result<LoadHistory, ParseError> {
    let mut wanted = experts;
    let mut loads = Sparse::with_experts(experts.unwrap_or(0));
    let mut there = BTreeSet::new();
    for bytes in files {
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|error| ParseError::not("safetensors", error))?;
        for (name, tensor) in tensors.iter() {
            let shown = brief(name);
            let bad = |what: &str| ParseError::content(format!("tensor {shown:?} {what}"));
            let numbers = name
                .split_once('_')
                .and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)));
            let (window, layer) =
                numbers.ok_or_else(|| bad("is not named iteration_layer, such as 100_3"))?;
            let size = *wanted.get_or_insert(tensor.shape().iter().product());
            if tensor.shape() != [size] {
                return Err(bad(&format!("has the shape {:?}, not [{size}]", tensor.shape())));
            }
            let counts: Vec<i64> = match tensor.dtype() {
                Dtype::I64 => tensor
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64::from_le_bytes(b.try_into().unwrap_or_default()))
                    .collect(),
                Dtype::I32 => tensor
                    .data()
                    .chunks_exact(4)
                    .map(|b| i32::from_le_bytes(b.try_into().unwrap_or_default()).into())
                    .collect(),
                other => return Err(bad(&format!("is of type {other:?}, not I64 or I32"))),
            };
            there.insert((window, layer));
            for (expert, &count) in (0..).zip(&counts) {
                let count = u64::try_from(count)
                    .map_err(|_| bad(&format!("has {count} tokens of expert {expert}")))?;
                loads.add(window.into(), layer.into(), expert, count).map_err(|reason| bad(&reason))?;
            }
        }
    }
    // The files have every layer in every iteration.
    let windows: BTreeSet<u32> = there.iter().map(|one| one.0).collect();
    let layers: BTreeSet<u32> = there.iter().map(|one| one.1).collect();
    if there.is_empty() {
        return Err(ParseError::content("there are no tensors"));
    }
    for window in &windows {
        if let Some(layer) = layers.iter().find(|layer| !there.contains(&(*window, **layer))) {
            return Err(ParseError::content(format!("iteration {window} has no layer {layer}")));
        }
    }
    loads.history(length, as_they_are)
}
