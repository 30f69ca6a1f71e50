//! The formats of maps, and how they are told apart.

use std::path::Path;

use crate::error::Error;

/// The formats of maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanFormat {
    /// This project's own plan file, JSON: `eplb-plan/1`.
    #[default]
    Eplb,
    /// SGLang's `--init-expert-location`, JSON: `{"physical_to_logical_map": [[…], …]}`.
    Sglang,
    /// vLLM's slot map, JSON: `[[…], …]`, a row for each layer with experts, or one row for all of them.
    Vllm,
    /// TensorRT-LLM's load balancer, YAML: `num_slots` and `initial_global_assignments`.
    TensorRtLlm,
    /// The expert map of vLLM on Ascend, JSON: `{"moe_layer_count": …, "layer_list": […]}`.
    Ascend,
    /// A NumPy array `[layers][slots]`.
    Npy,
}

impl PlanFormat {
    /// All formats.
    pub const ALL: [Self; 6] =
        [Self::Eplb, Self::Sglang, Self::Vllm, Self::TensorRtLlm, Self::Ascend, Self::Npy];

    /// The name, as in the table of [`crate::maps`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Eplb => "eplb",
            Self::Sglang => "sglang",
            Self::Vllm => "vllm",
            Self::TensorRtLlm => "tensorrt-llm",
            Self::Ascend => "vllm-ascend",
            Self::Npy => "npy",
        }
    }

    /// The format that a file's ending says: JSON is a plan file. `None` for an ending that says nothing.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        match ending.as_str() {
            "json" => Some(Self::Eplb),
            "yaml" | "yml" => Some(Self::TensorRtLlm),
            "npy" => Some(Self::Npy),
            _ => None,
        }
    }

    /// The format that a file is to be written in: the one given, or that of its ending.
    pub(crate) fn to_write(path: &Path, format: Option<Self>) -> Result<Self, Error> {
        format.or_else(|| Self::of_path(path)).ok_or_else(|| {
            Error::unwritable(path, "its ending is not json, yaml or npy; a format says what it is")
        })
    }
}

impl std::fmt::Display for PlanFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for PlanFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|format| format.name()).collect();
            Error::invalid("format", text, format!("is not one of {}", names.join(", ")))
        })
    }
}
