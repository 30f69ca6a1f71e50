//! Loads that are a folder: a file for each rank, which are added up.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::{LoadFormat, LoadHistory, megatron, packed, read_file, tensors};
use crate::error::{Error, ParseError};

/// TensorRT-LLM's description of its statistics.
pub const META: &str = "meta_info.json";

/// The most files of a folder: ranks of a large cluster.
const MOST: usize = 1 << 14;

pub fn read(path: &Path, format: Option<LoadFormat>) -> Result<LoadHistory, Error> {
    let refuse = |reason: &str| Error::parse(path, ParseError::content(reason));
    let names = names(path)?;
    let of = |wanted: fn(&str) -> bool| -> Vec<PathBuf> {
        names.iter().filter(|file| wanted(&name_of(file))).cloned().collect()
    };
    let (ranks, traces) = (of(is_rank), of(is_trace));
    let format = match (format, ranks.is_empty(), traces.is_empty()) {
        (Some(format), ..) => format,
        (None, false, false) => {
            let reason = "it could be two things: TensorRT-LLM's statistics (rank*.safetensors) and Megatron's traces \
                          (*.jsonl); the format tensorrt-llm or megatron tells";
            return Err(refuse(reason));
        }
        (None, false, true) => LoadFormat::TensorRtLlm,
        (None, true, false) => LoadFormat::Megatron,
        (None, true, true) => {
            return Err(refuse(
                "a folder without TensorRT-LLM's rank*.safetensors and without Megatron's *.jsonl",
            ));
        }
    };
    let files = match format {
        LoadFormat::TensorRtLlm => ranks,
        LoadFormat::Megatron => traces,
        other => return Err(refuse(&format!("a folder is not of the format {other}"))),
    };
    let texts = files.iter().map(|file| unpacked(file)).collect::<Result<Vec<_>, _>>()?;
    let length = texts.iter().map(Vec::len).sum();
    let files = texts.iter().map(Vec::as_slice);
    let history = match format {
        LoadFormat::TensorRtLlm => tensors::read(Some(experts(path)?), files, length),
        _ => megatron::read(files, length),
    };
    history.and_then(LoadHistory::checked).map_err(|source| Error::parse(path, source))
}

fn name_of(file: &Path) -> String {
    file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_lowercase()
}

fn is_rank(name: &str) -> bool {
    name.starts_with("rank") && name.ends_with(".safetensors") && !name.ends_with("_raw.safetensors")
}

fn is_trace(name: &str) -> bool {
    name.ends_with(".jsonl") || name.ends_with(".jsonl.gz")
}

/// Whether loads of this name are in a folder, and the file is one of those that are read there.
#[cfg(feature = "cli")]
pub fn reads(loads: &Path, file: &Path) -> bool {
    let name = name_of(file);
    let folder = if name_of(loads) == META { loads.parent() } else { Some(loads) };
    file.parent() == folder && (is_rank(&name) || is_trace(&name) || name == META)
}

/// The files of a folder by name.
fn names(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let refuse = |error| Error::read(path, error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(refuse)? {
        names.push(entry.map_err(refuse)?.path());
        if names.len() > MOST {
            return Err(Error::parse(
                path,
                ParseError::content(format!("a folder of more than {MOST} files")),
            ));
        }
    }
    names.sort();
    Ok(names)
}

fn unpacked(file: &Path) -> Result<Vec<u8>, Error> {
    let bytes = read_file(file)?;
    packed::unpacked(&bytes).map(Cow::into_owned).map_err(|source| Error::parse(file, source))
}

/// The number of experts that TensorRT-LLM tells.
fn experts(path: &Path) -> Result<usize, Error> {
    #[derive(serde::Deserialize)]
    struct Meta {
        num_experts: usize,
    }
    let file = path.join(META);
    let meta: Result<Meta, _> = serde_json::from_slice(&read_file(&file)?);
    meta.map(|meta| meta.num_experts)
        .map_err(|error| Error::parse(&file, ParseError::not("JSON with num_experts", error)))
}
