//! `eplb generate`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{io, print, progress, words};
use crate::Error;
use crate::trace::{Family, Generate};

#[derive(Args)]
#[command(after_help = "Examples:
  eplb generate --out loads.json
  eplb generate --family zipf:1.2 --windows 24 --drift 0.1 --seed 7 --out trace.npy

Exit codes: 0 written, 2 not written.")]
pub struct GenerateLoads {
    /// uniform, lognormal:S (S the deviation of logarithms), zipf:S (S the exponent), hot-group or hot-experts
    #[arg(long, default_value = "lognormal:1")]
    family: Family,
    /// Windows, one after the other
    #[arg(long, default_value_t = 1)]
    windows: usize,
    /// Layers
    #[arg(long, default_value_t = 58)]
    layers: usize,
    /// Experts
    #[arg(long, default_value_t = 256)]
    experts: usize,
    /// First layers without load
    #[arg(long, default_value_t = 0)]
    dense_layers: usize,
    /// Routed tokens of a layer in a window
    #[arg(long, default_value_t = 262_144)]
    tokens: u64,
    /// How far log popularity moves from window to window, 0 to 4
    #[arg(long, default_value_t = 0.0)]
    drift: f64,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File to write (needed): .json, .npy or .csv
    #[arg(long)]
    out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl GenerateLoads {
    pub fn run(self) -> Result<ExitCode, Error> {
        let Self { family, windows, layers, experts, dense_layers, tokens, drift, seed, .. } = self;
        words::check_effect(&[(drift != 0.0 && windows == 1, "--drift")], "several windows: --windows")?;
        let what = Generate { family, windows, layers, experts, dense_layers, tokens, drift, seed };
        io::Inputs::new([], None)?.check_writable(&self.out)?;
        let history = what.history()?;
        progress::write(&self.out, &history.bytes_for(&self.out)?)?;
        let out = self.out.display().to_string();
        print(&if self.json {
            json!({ "out": out, "windows": windows, "layers": layers, "experts": experts }).to_string()
        } else {
            format!("{out}: {windows} windows x {layers} layers x {experts} experts")
        });
        Ok(ExitCode::SUCCESS)
    }
}
