//! The formats of load files.

use std::path::Path;

use super::packed;
use crate::error::Error;

/// The formats of load files. Each may be packed by gzip (`.gz`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadFormat {
    /// `{"logical_count": …}` as SGLang's recorder has it, `{"load_history": [{"logical_expert_load": …}, …]}`, or a bare
    /// array; `"layer_ids"` tells the numbers of the layers.
    Json,
    /// A NumPy array of 2 or 3 dimensions.
    Npy,
    /// An archive of NumPy arrays: the one named `logical_count`, or the only one.
    Npz,
    /// Comma-separated values, [`LoadFormat::Table`] or [`LoadFormat::Rows`] by the header; three columns of whole numbers
    /// without one could be either, and are refused.
    Csv,
    /// One row a layer, one column an expert; the header `expert_0,expert_1,…` may stand above.
    Table,
    /// Rows `layer_id,expert_id,count`, as SGLang's recorder has them: counts of one expert are added up, and experts that
    /// have no row have no load. The header may be left out.
    Rows,
    /// Megatron's router trace, JSON lines: a window a step. Layers for multi-token prediction follow the last other layer.
    /// Of a folder, all `*.jsonl` are added up.
    Megatron,
    /// TensorRT-LLM's statistics: a folder of `meta_info.json` and `rank*.safetensors`, which are added up, a window an
    /// iteration; or one such `.safetensors`.
    TensorRtLlm,
}

impl LoadFormat {
    /// All formats.
    pub const ALL: [Self; 8] = [
        Self::Json,
        Self::Npy,
        Self::Npz,
        Self::Csv,
        Self::Table,
        Self::Rows,
        Self::Megatron,
        Self::TensorRtLlm,
    ];

    /// The name: `json`, `npy`, `npz`, `csv`, `table`, `rows`, `megatron` or `tensorrt-llm`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Csv => "csv",
            Self::Table => "table",
            Self::Rows => "rows",
            Self::Megatron => "megatron",
            Self::TensorRtLlm => "tensorrt-llm",
        }
    }

    /// The format that a file's ending says, without `.gz`; `None` for an ending that says nothing.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        match ending(path).as_str() {
            "json" => Some(Self::Json),
            "jsonl" => Some(Self::Megatron),
            "npy" => Some(Self::Npy),
            "npz" => Some(Self::Npz),
            "csv" => Some(Self::Csv),
            "safetensors" => Some(Self::TensorRtLlm),
            _ => None,
        }
    }

    /// Why [`LoadFormat::of_path`] has none for a path.
    pub(super) fn none_of(path: &Path) -> String {
        let would_do = match packed::is_torch_name(path) {
            true => {
                "the Python package reads torch's files: numpy.save(\"loads.npy\", eplb_wgpu.read_loads(PATH).loads)"
            }
            false => "a load format tells what it is",
        };
        format!("extension {:?} is not json, jsonl, npy, npz, csv or safetensors; {would_do}", ending(path))
    }

    /// The format of bytes with no name.
    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let text = packed::without_mark(bytes).trim_ascii_start();
        let first_line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let traced = first_line.windows(13).any(|word| word == b"\"top_indices\"");
        match text.first() {
            _ if bytes.starts_with(b"\x93NUMPY") => Self::Npy,
            _ if bytes.starts_with(b"PK") => Self::Npz,
            _ if is_safetensors(bytes) => Self::TensorRtLlm,
            Some(b'{') if traced => Self::Megatron,
            Some(b'{' | b'[') => Self::Json,
            _ => Self::Csv,
        }
    }
}

/// Whether bytes begin as safetensors do: the length of a JSON object, and that object.
fn is_safetensors(bytes: &[u8]) -> bool {
    bytes.split_first_chunk::<8>().is_some_and(|(length, rest)| {
        rest.starts_with(b"{") && u64::from_le_bytes(*length) <= rest.len() as u64
    })
}

fn ending(path: &Path) -> String {
    let stem = if packed::is_gzip_name(path) { path.file_stem().map(Path::new) } else { Some(path) };
    stem.and_then(Path::extension).and_then(|e| e.to_str()).unwrap_or("").to_lowercase()
}

impl std::fmt::Display for LoadFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for LoadFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|format| format.name()).collect();
            Error::invalid("load format", text, format!("is not one of {}", names.join(", ")))
        })
    }
}
