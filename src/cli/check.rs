//! `eplb check`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Part, fingerprints, percent, print, table};
use crate::trace::PlanFile;
use crate::{DeviceChoice, Error, bound, check};

#[derive(Args)]
pub struct Check {
    /// Load file: .json, .npy or .csv
    #[arg(required_unless_present = "fingerprints")]
    loads: Option<PathBuf>,
    /// Plan file
    #[arg(required_unless_present = "fingerprints")]
    plan: Option<PathBuf>,
    #[command(flatten)]
    part: Part,
    /// Instead of files: plan a fixed list of cases, and compare with what every device has to come to
    #[arg(long, conflicts_with_all = ["loads", "plan", "window", "layers"])]
    fingerprints: bool,
    /// The device of --fingerprints: auto, cpu, gpu, an index or a part of a name (see `eplb devices`)
    #[arg(long, default_value = "auto", conflicts_with = "loads")]
    device: DeviceChoice,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Exit code 0 for a valid plan or equal fingerprints, 1 for a plan that breaks a rule or ones that differ.
    pub fn run(self) -> Result<ExitCode, Error> {
        let (Some(loads), Some(plan)) = (&self.loads, &self.plan) else {
            let equal = fingerprints::run(self.device, self.json)?;
            return Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        };
        let loads = self.part.read(loads)?;
        let PlanFile { cluster, placement } = PlanFile::read(plan)?;
        let quality = match check::score(&loads, &cluster, placement.physical_to_logical()) {
            Ok(quality) => quality.with_bounds(&bound::lower_bounds(&loads, &cluster)),
            Err(Error::InvalidPlan { layer, rule }) => {
                print(&if self.json {
                    json!({ "valid": false, "layer": layer, "rule": rule }).to_string()
                } else {
                    format!("not valid: layer {layer}: {rule}")
                });
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error),
        };
        let fingerprint = format!("{:016x}", placement.fingerprint());
        print(&if self.json {
            json!({
                "valid": true,
                "balancedness": quality.balancedness(),
                "max_over_mean": quality.max_over_mean(),
                "mean_gap": quality.mean_gap(),
                "worst_gap": quality.worst_gap(),
                "replica_balancedness": quality.replica_balancedness(),
                "same_gpu_duplicates": quality.same_gpu_duplicates(),
                "layers_without_load": quality.layers_without_load(),
                "layers": quality.layers.len(),
                "fingerprint": fingerprint,
            })
            .to_string()
        } else {
            table(&[
                ("valid", "yes".into()),
                ("balancedness", format!("{:.5}", quality.balancedness())),
                ("replica balancedness", format!("{:.5}", quality.replica_balancedness())),
                ("mean gap to the bound", percent(quality.mean_gap())),
                (
                    "worst gap",
                    format!(
                        "{} (layer {})",
                        percent(quality.worst_gap()),
                        quality.worst_layer().unwrap_or(0)
                    ),
                ),
                ("duplicates on a GPU", quality.same_gpu_duplicates().to_string()),
                ("fingerprint", fingerprint),
            ])
        });
        Ok(ExitCode::SUCCESS)
    }
}
