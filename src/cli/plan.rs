//! `eplb plan`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Part, percent, print, table};
use crate::check::Quality;
use crate::trace::{plan_json, write_whole};
use crate::{Cluster, DeviceChoice, Duplicates, Error, PlanOptions, Planner, Preset};

#[derive(Args)]
pub struct Plan {
    /// Load file: .json, .npy or .csv
    loads: Option<PathBuf>,
    #[command(flatten)]
    part: Part,
    /// Replicas of a layer
    #[arg(long)]
    replicas: Option<usize>,
    /// GPUs
    #[arg(long)]
    gpus: Option<usize>,
    /// Groups of experts that are routed together
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Nodes
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Slots on a GPU, where some may stay free
    #[arg(long)]
    slots_per_gpu: Option<usize>,
    /// auto, cpu, gpu, an index or a part of a name (see `eplb devices`)
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// default, fast, thorough, gen00..gen19, rec1..rec5; help lists them
    #[arg(long, default_value = "default")]
    preset: String,
    /// Restarts instead of the preset's
    #[arg(long)]
    restarts: Option<u32>,
    /// Kicks instead of the preset's
    #[arg(long)]
    kicks: Option<u32>,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Let a GPU hold an expert twice, as the peers do
    #[arg(long)]
    allow_duplicates: bool,
    /// Plan file to write
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Plan {
    pub fn run(self) -> Result<ExitCode, Error> {
        if self.preset == "help" {
            let line = |preset: Preset| format!("{:9} {}", preset.name(), preset.summary());
            print(&Preset::all().map(line).collect::<Vec<_>>().join("\n"));
            return Ok(ExitCode::SUCCESS);
        }
        let missing = |field: &str| Error::invalid(field, "(none)", "is needed");
        let file = self.loads.as_ref().ok_or_else(|| missing("LOADS"))?;
        let replicas = self.replicas.ok_or_else(|| missing("--replicas"))?;
        let gpus = self.gpus.ok_or_else(|| missing("--gpus"))?;
        let options = self.options()?;
        let cluster = match self.slots_per_gpu {
            Some(slots) => Cluster::with_slots_per_gpu(replicas, self.groups, self.nodes, gpus, slots)?,
            None => Cluster::new(replicas, self.groups, self.nodes, gpus)?,
        };
        if let Some(out) = &self.out {
            check_writable(out)?;
        }
        let loads = self.part.read(file)?;
        let planner = Planner::new(self.device.clone())?;
        let plan = planner.plan(&loads, &cluster, &options)?;
        // What DeepSeek's rule gives, for comparison, by the CPU backend.
        let greedy: Preset = "gen00".parse()?;
        let greedy = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &greedy.options())?;
        if let Some(out) = &self.out {
            let mut bytes = plan_json(&plan).to_string().into_bytes();
            bytes.push(b'\n');
            write_whole(out, &bytes)?;
        }
        for warning in plan.warnings() {
            eprintln!("eplb: warning: {warning}");
        }
        print(&if self.json {
            json_report(&plan, greedy.quality())
        } else {
            report(&plan, greedy.quality())
        });
        Ok(ExitCode::SUCCESS)
    }

    fn options(&self) -> Result<PlanOptions, Error> {
        let mut options = self.preset.parse::<Preset>()?.options();
        options.seed = self.seed;
        options.restarts = self.restarts.unwrap_or(options.restarts);
        options.kicks = self.kicks.unwrap_or(options.kicks);
        if self.allow_duplicates {
            options.duplicates = Duplicates::Allow;
        }
        Ok(options)
    }
}

/// Fails before any work where the plan could not be written after it.
fn check_writable(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refuse = |reason: String| Error::Write { path: path.to_path_buf(), reason };
    if path.is_dir() {
        return Err(refuse("it is a folder".into()));
    }
    tempfile::tempfile_in(folder).map(drop).map_err(|error| refuse(error.to_string()))
}

fn json_report(plan: &crate::Plan, greedy: &Quality) -> String {
    let quality = plan.quality();
    json!({
        "balancedness": quality.balancedness(),
        "max_over_mean": quality.max_over_mean(),
        "mean_gap": quality.mean_gap(),
        "worst_gap": quality.worst_gap(),
        "worst_layer": quality.worst_layer(),
        "replica_balancedness": quality.replica_balancedness(),
        "same_gpu_duplicates": quality.same_gpu_duplicates(),
        "fingerprint": format!("{:016x}", plan.fingerprint()),
        "device": plan.device(),
        "backend": plan.backend(),
        "plan_ms": plan.elapsed().as_secs_f64() * 1e3,
        "restarts": plan.options().restarts,
        "kicks": plan.options().kicks,
        "layers": plan.layers(),
        "layers_without_load": quality.layers_without_load(),
        "policy": plan.cluster().policy().name(),
        "greedy_balancedness": greedy.balancedness(),
        "warnings": plan.warnings(),
    })
    .to_string()
}

fn report(plan: &crate::Plan, greedy: &Quality) -> String {
    let quality = plan.quality();
    let cluster = plan.cluster();
    let shape = format!(
        "{} layers x {} experts, {} replicas on {} GPUs, {}",
        plan.layers(),
        plan.experts(),
        cluster.num_replicas(),
        cluster.num_gpus(),
        cluster.policy().name()
    );
    let worst = format!("{} (layer {})", percent(quality.worst_gap()), quality.worst_layer().unwrap_or(0));
    table(&[
        ("plan", shape),
        ("device", format!("{} ({})", plan.device(), plan.backend())),
        ("time", format!("{:.1} ms", plan.elapsed().as_secs_f64() * 1e3)),
        ("balancedness", format!("{:.5}   (greedy: {:.5})", quality.balancedness(), greedy.balancedness())),
        ("mean gap to the bound", percent(quality.mean_gap())),
        ("worst gap", worst),
        (
            "duplicates on a GPU",
            format!("{}   (greedy: {})", quality.same_gpu_duplicates(), greedy.same_gpu_duplicates()),
        ),
        ("layers without load", quality.layers_without_load().to_string()),
        ("fingerprint", format!("{:016x}", plan.fingerprint())),
    ])
}
