//! `eplb check`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{Part, bound_effort, fingerprints, milliseconds, percent, print, table};
use crate::bound::BoundOptions;
use crate::trace::PlanFile;
use crate::{DeviceChoice, Error, bound};

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
    /// A closer bound of 2 and 3 slots a GPU, for some fifty times the work
    #[arg(long, conflicts_with = "fingerprints")]
    tight_bound: bool,
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
        let file = PlanFile::read(plan)?;
        let (quality, bound_time) = match file.score(&loads) {
            Ok(quality) => {
                let start = Instant::now();
                let effort = bound_effort(self.tight_bound);
                let options = BoundOptions { effort, ..BoundOptions::default() };
                let bounds = bound::lower_bounds_with(&loads, &file.cluster, &options);
                (quality.with_bounds(&bounds), start.elapsed())
            }
            Err(Error::InvalidPlan { layer, rule, .. }) => {
                print(&if self.json {
                    json!({ "valid": false, "layer": layer, "rule": rule }).to_string()
                } else {
                    format!("not valid: layer {layer}: {rule}")
                });
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error),
        };
        let fingerprint = format!("{:016x}", file.placement.fingerprint());
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
                "plan_version": file.plan_version,
                "bound_ms": bound_time.as_secs_f64() * 1e3,
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
                (
                    "fingerprint",
                    match file.plan_version {
                        Some(version) => format!("{fingerprint}   (plan version {version})"),
                        None => fingerprint,
                    },
                ),
                ("time of the bound", milliseconds(bound_time)),
            ])
        });
        Ok(ExitCode::SUCCESS)
    }
}
