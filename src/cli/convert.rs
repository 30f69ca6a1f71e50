//! `eplb convert`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::io::{self, complain, print};
use super::{format_of, parse_format, words};
use crate::Error;
use crate::maps::{MapFile, PlanFormat};

#[derive(Args)]
#[command(after_help = "Examples:
  eplb convert plan.json init.json --format sglang       for sglang --init-expert-location
  eplb convert plan.json moe_load_balancer.yaml          for TensorRT-LLM's load_balancer
  eplb convert running.npy map.json --format vllm-ascend --gpus 32
  eplb convert plan.json - --format vllm | jq length     to standard output

Layers keep their numbers where the format has them; what a format cannot say is told as a warning.
Exit codes: 0 written, 2 not written.")]
pub struct Convert {
    /// The map to read: a plan file or any of the formats; - is standard input
    map: PathBuf,
    /// The file to write, in the format of its ending (.json: sglang; .yaml: tensorrt-llm; .npy); - is standard output, as sglang
    out: PathBuf,
    /// Format of the file to read, where its content could be two
    #[arg(long, value_name = "FORMAT", value_parser = parse_format())]
    from: Option<PlanFormat>,
    /// Format of the file to write
    #[arg(long, value_parser = parse_format())]
    format: Option<PlanFormat>,
    /// GPUs, for vllm-ascend, where the map does not tell how many there are
    #[arg(long)]
    gpus: Option<usize>,
    /// Numbers of the map's layers, where it does not tell them, as A..B: from A on, up to but not B [default: from 0 on]
    #[arg(long, value_parser = super::parse_range, value_name = "A..B")]
    layers: Option<std::ops::Range<usize>>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Convert {
    /// The map with the numbers of layers that are given.
    fn numbered(&self, map: MapFile) -> Result<MapFile, Error> {
        let Some(layers) = &self.layers else { return Ok(map) };
        let refuse =
            |rule: String| Err(Error::invalid("--layers", format!("{}..{}", layers.start, layers.end), rule));
        if map.layer_ids().is_some() {
            return refuse("does nothing here: the map tells the numbers of its layers".into());
        }
        if layers.len() != map.layers() {
            let would_do = layers.start.saturating_add(map.layers());
            return refuse(format!(
                "is not of the {} layers of the map: {}..{would_do} would do",
                map.layers(),
                layers.start
            ));
        }
        let ids: Vec<u32> = layers.clone().map(|id| u32::try_from(id).unwrap_or(u32::MAX)).collect();
        map.with_layer_ids(&ids)
    }

    pub fn run(self) -> Result<ExitCode, Error> {
        io::Inputs::new([&self.map], None)?.check_writable(&self.out)?;
        let format = match self.format {
            None if io::is_standard(&self.out)
                || self.out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) =>
            {
                PlanFormat::Sglang
            }
            format => format_of(format, &self.out)?,
        };
        words::check_effect(
            &[(self.gpus.is_some() && format != PlanFormat::Ascend, "--gpus")],
            "--format vllm-ascend",
        )?;
        if self.json && io::is_standard(&self.out) {
            let rule = "is for the report, and OUT - has the map alone on standard output";
            return Err(Error::invalid("--json", "", rule));
        }
        let map = io::read_map(&self.map, self.from)?;
        let tells = self.gpus.is_some() && map.num_gpus().is_some();
        words::check_effect(&[(tells, "--gpus")], "a map that does not tell its GPUs, and this one does")?;
        let map = match self.gpus {
            Some(gpus) => map.with_gpus(gpus)?,
            None => map,
        };
        if format == PlanFormat::Ascend && map.num_gpus().is_none() {
            return Err(words::needed(
                "--gpus",
                "vllm-ascend tells the experts of each GPU, and this map does not",
            ));
        }
        let map = self.numbered(map)?;
        let bytes = map.bytes(format)?;
        io::write(&self.out, &bytes)?;
        for loss in map.losses(format) {
            complain(&format!("warning: {}", words::in_options(&loss)));
        }
        let out = self.out.display().to_string();
        if io::is_standard(&self.out) {
            return Ok(ExitCode::SUCCESS);
        }
        print(&if self.json {
            json!({
                "out": out, "from": map.format().name(), "format": format.name(),
                "layers": map.layers(), "slots": map.slots(),
            })
            .to_string()
        } else {
            format!("{out}: {format}, {} layers x {} slots, from {}", map.layers(), map.slots(), map.format())
        });
        Ok(ExitCode::SUCCESS)
    }
}
