//! `eplb check`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::traffic::{Served, parse_dispatch};
use super::{
    FilePart, MapForm, bound_effort, fingerprints, io, milliseconds, percent, print, speeds, table, words,
    worst_gap,
};
use crate::bound::BoundOptions;
use crate::check::{CheckOptions, Quality};
use crate::maps::MapFile;
use crate::trace::{SharesFile, Window};
use crate::{Cluster, DeviceChoice, Dispatch, Error, Loads, PARTS, Placement, Shares, bound, check};

#[derive(Args)]
#[command(after_help = "Examples:
  eplb check loads.json plan.json
  eplb check loads.json expert_map.json --strict         fails on duplicates and on a gap above 1 %
  eplb check loads.json map.npy --gpus 32 --groups 8 --nodes 4
  eplb check loads.json plan.json --json --with-gpu-loads  the load of each GPU in each layer
  eplb check loads.npy plan.json --sources sent.npy      what stays on GPUs and in nodes, token by token
  eplb check --fingerprints --device gpu
  eplb check --fingerprints --only fast --only steep     on a slow device: the cases of these names

A plan file tells its cluster; of a map without one, --gpus, --groups and --nodes do. Judged are its map, cluster and rules:
its summary, layers and options are its planner's own words, about the loads it was made from.
Exit codes: 0 valid, 1 not valid or not strictly so, 2 bad input.")]
pub struct Check {
    /// Load file (needed), as for `eplb plan`; - is standard input
    #[arg(required_unless_present = "fingerprints")]
    loads: Option<PathBuf>,
    /// Plan or map (needed), in any format of `eplb convert`; - is standard input
    #[arg(required_unless_present = "fingerprints")]
    plan: Option<PathBuf>,
    #[command(flatten)]
    part: FilePart,
    #[command(flatten)]
    maps: MapForm,
    /// Score under a table of shares, as `eplb split` writes it, instead of even ones
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprints")]
    shares: Option<PathBuf>,
    /// Fail where a GPU holds an expert twice, or a layer's gap to the bound is above --max-gap
    #[arg(long, conflicts_with = "fingerprints")]
    strict: bool,
    /// The gap that --strict allows: 0.01 is 1 % [default: 0.01]
    #[arg(long, requires = "strict")]
    max_gap: Option<f64>,
    /// Instead of files: plan a fixed list of cases, and compare with what every device has to come to
    #[arg(long, conflicts_with_all = ["loads", "plan", "window", "layers", "load_format", "experts", "format", "gpus", "groups", "nodes", "gpu_speeds"])]
    fingerprints: bool,
    /// Of --fingerprints only the cases with this in their name; may be given several times
    #[arg(long, value_name = "PART", requires = "fingerprints")]
    only: Vec<String>,
    /// The device of --fingerprints: auto, cpu, gpu, an index or a part of a name (see `eplb devices`)
    #[arg(long, default_value = "auto", conflicts_with = "loads")]
    device: DeviceChoice,
    /// The dispatch whose traffic is told: equal, nearest or own-gpu, as for `eplb plan` [default where there are several
    /// nodes: nearest]
    #[arg(long, conflicts_with = "fingerprints", value_parser = parse_dispatch())]
    dispatch: Option<Dispatch>,
    /// Tokens that each GPU sends to each expert, [gpus][layers][experts], as a load file with a window for each GPU:
    /// traffic is told of these
    #[arg(long, conflicts_with = "fingerprints", value_name = "FILE")]
    sources: Option<PathBuf>,
    /// The most replicas of a layer outside the home node of their group, as for `eplb plan` [default: as the plan file
    /// tells, else 0]
    #[arg(long, conflicts_with = "fingerprints")]
    max_foreign: Option<u32>,
    /// A closer bound of 2 and 3 slots a GPU, for some fifty times the work
    #[arg(long, conflicts_with = "fingerprints")]
    tight_bound: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The load of each GPU in that object too, in the unit of the loads, as gpu_loads: [layers][gpus]
    #[arg(long, requires = "json", conflicts_with = "fingerprints")]
    with_gpu_loads: bool,
}

impl Check {
    /// The most foreign replicas of a layer.
    fn most_foreign(&self, map: &MapFile) -> u32 {
        self.max_foreign.unwrap_or(map.max_foreign())
    }

    /// The rules beyond those of the cluster: of the plan file, but for what an option says.
    fn rules(&self, map: &MapFile) -> CheckOptions {
        CheckOptions { max_foreign: self.most_foreign(map), ..map.rules() }
    }

    /// How the plan would be valid, where only foreign replicas make it invalid.
    fn hint(&self, map: &MapFile, loads: &Loads, cluster: &Cluster) -> String {
        let most = (loads.experts() / cluster.planned_groups()).saturating_sub(1) as u32;
        if self.most_foreign(map) > 0 || most == 0 {
            return String::new();
        }
        let foreign = map
            .score_with(loads, cluster, &CheckOptions { max_foreign: most, ..self.rules(map) })
            .map(|quality| quality.layers.iter().map(|layer| layer.foreign_replicas).max().unwrap_or(0));
        foreign.map_or(String::new(), |most| {
            format!("; with foreign replicas it is valid: --max-foreign {most}")
        })
    }

    pub fn run(self) -> Result<ExitCode, Error> {
        let (Some(loads), Some(plan)) = (&self.loads, &self.plan) else {
            let equal = fingerprints::run(self.device, &self.only, self.json)?;
            return Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        };
        let max_gap = self.max_gap.unwrap_or(0.01);
        if !(max_gap >= 0.0 && max_gap.is_finite()) {
            return Err(Error::invalid("--max-gap", max_gap, "is not a number, at least 0"));
        }
        io::Inputs::new([loads, plan].into_iter().chain(&self.sources), None)?;
        let loads = self.part.read(loads)?;
        let map = self.maps.read(plan)?;
        let cluster = self.maps.cluster(std::slice::from_ref(&map))?;
        let map = words::of_loads(&map, loads.layer_ids())?;
        words::check_tight_bound(self.tight_bound, &cluster)?;
        let start = Instant::now();
        let score = match &self.shares {
            Some(path) => score_shares(path, &map, &loads, &cluster, &self.rules(&map)),
            None => map.score_with(&loads, &cluster, &self.rules(&map)).map(|quality| (quality, None)),
        };
        let (quality, shares) = match score {
            Ok((quality, shares)) => {
                let options = BoundOptions {
                    effort: bound_effort(self.tight_bound),
                    max_foreign: self.most_foreign(&map),
                    max_replicas_per_expert: map.rules().max_replicas_per_expert,
                };
                (quality.with_bounds(&bound::lower_bounds_with(&loads, &cluster, &options)), shares)
            }
            Err(Error::InvalidPlan { layer, rule, .. }) => {
                let layer = loads.layer_ids().get(layer).copied().unwrap_or(0);
                let rule = format!("{rule}{}", self.hint(&map, &loads, &cluster));
                print(&if self.json {
                    json!({ "valid": false, "layer": layer, "rule": rule }).to_string()
                } else {
                    format!("not valid: layer {layer}: {}", words::in_options(&rule))
                });
                return Ok(ExitCode::FAILURE);
            }
            Err(error) => return Err(error),
        };
        let sources = self.sources.as_deref().map(|path| self.sent(path, &loads)).transpose()?;
        let served = Served {
            loads: &loads,
            cluster: &cluster,
            map: map.physical_to_logical(),
            sources: sources.as_deref(),
            dispatch: self.dispatch,
        };
        let faults = if self.strict { faults(&map, &cluster, &loads, &quality, max_gap) } else { vec![] };
        let parts = check::parts(&cluster, map.physical_to_logical())?;
        let joined = parts.iter().filter(|&&parts| parts == cluster.planned_nodes()).count();
        let gpus = match &shares {
            _ if !self.with_gpu_loads => None,
            Some(shares) => Some(gpu_loads_of_shares(&served, shares)),
            None => Some(check::gpu_loads(&loads, &cluster, served.map)?),
        };
        let time = start.elapsed();
        let judged = Judged { map: &map, served, quality: &quality, joined, gpus, faults: &faults, time };
        print(&if self.json { self.json_report(&judged)?.to_string() } else { self.report(&judged)? });
        Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The tokens that each GPU sends.
    fn sent(&self, path: &Path, loads: &Loads) -> Result<Vec<Loads>, Error> {
        let history = self.part.history(path)?;
        if (history.layers(), history.experts()) != (loads.layers(), loads.experts()) {
            let value = format!("{} layers x {} experts", history.layers(), history.experts());
            let rule = format!("are not those of the loads, {} x {}", loads.layers(), loads.experts());
            return Err(Error::invalid("--sources", value, rule));
        }
        (0..history.windows()).map(|gpu| history.loads(Window::Index(gpu))).collect()
    }

    /// The part of the load that foreign replicas serve, and the least that any plan as good does.
    fn foreign_shares(&self, quality: &Quality, served: &Served<'_>) -> (f64, f64) {
        let heaviest: Vec<f64> = quality.layers.iter().map(|layer| layer.max_gpu_load).collect();
        let least = bound::least_foreign_loads(served.loads, served.cluster, &heaviest);
        quality.clone().with_least_foreign(&least).foreign_shares(served.cluster.num_gpus())
    }

    /// The report as JSON.
    fn json_report(&self, judged: &Judged<'_>) -> Result<serde_json::Value, Error> {
        let Judged { map, served, quality, .. } = judged;
        let (plan, most_foreign) = (map.plan(), self.most_foreign(map));
        let mut report = json!({
            "valid": true,
            "balancedness": quality.balancedness(),
            "max_over_mean": quality.max_over_mean(),
            "mean_gap": quality.mean_gap(),
            "worst_gap": quality.worst_gap(),
            "replica_balancedness": quality.replica_balancedness(),
            "same_gpu_duplicates": quality.same_gpu_duplicates(),
            "layers_connected": judged.joined,
            "layers_without_load": quality.layers_without_load(),
            "layers": quality.layers.len(),
            "layer_ids": served.loads.layer_ids(),
            "format": map.format().name(),
            "fingerprint": plan.map(|plan| format!("{:016x}", plan.placement.fingerprint())),
            "plan_version": plan.and_then(|plan| plan.plan_version),
            "told_balancedness": plan.and_then(|plan| plan.told_balancedness),
            "bound_ms": judged.time.as_secs_f64() * 1e3,
        });
        if self.strict {
            report["strict"] = json!({ "passed": judged.faults.is_empty(), "faults": judged.faults });
        }
        report["traffic"] = served.json()?;
        if let Some(loads) = &judged.gpus {
            report["gpu_loads"] = json!(loads.chunks(served.cluster.num_gpus()).collect::<Vec<_>>());
        }
        if !served.cluster.has_equal_speeds() {
            report["gpu_speeds"] = json!(served.cluster.gpu_speeds());
        }
        if most_foreign > 0 {
            let (share, least) = self.foreign_shares(quality, served);
            report["foreign"] = json!({
                "max_foreign": most_foreign, "replicas": quality.foreign_replicas(),
                "share": share, "least_share": least,
            });
        }
        Ok(report)
    }

    /// The report for people.
    fn report(&self, judged: &Judged<'_>) -> Result<String, Error> {
        let Judged { map, served, quality, .. } = judged;
        let (plan, most_foreign) = (map.plan(), self.most_foreign(map));
        let mut rows = vec![
            ("valid", "yes".to_string()),
            ("balancedness", format!("{:.5}", quality.balancedness())),
            ("replica balancedness", format!("{:.5}", quality.replica_balancedness())),
            ("mean gap to the bound", percent(quality.mean_gap())),
            ("worst gap", worst_gap(quality, served.loads.layer_ids())),
            ("duplicates on a GPU", quality.same_gpu_duplicates().to_string()),
            ("GPUs connected", format!("in {} of {} layers", judged.joined, quality.layers.len())),
        ];
        if most_foreign > 0 {
            let (replicas, shares) = (quality.foreign_replicas(), self.foreign_shares(quality, served));
            rows.push(("foreign replicas", foreign_text(replicas, most_foreign, shares)));
        }
        rows.extend(speeds::row(served.cluster));
        rows.splice(2..2, served.rows()?);
        rows.push(match plan {
            Some(plan) => {
                let version = plan.plan_version.map(|version| format!("   (plan version {version})"));
                let print = format!("{:016x}{}", plan.placement.fingerprint(), version.unwrap_or_default());
                ("fingerprint", print)
            }
            None => ("format", map.format().to_string()),
        });
        let told = plan.and_then(|plan| plan.told_balancedness);
        if let Some(told) = told.filter(|told| (told - quality.balancedness()).abs() > 1e-9) {
            rows.push(("in the plan file", format!("balancedness {told:.5}, of the loads it was made from")));
        }
        rows.push(("time", milliseconds(judged.time)));
        rows.extend(judged.faults.iter().map(|fault| ("not strictly valid", fault.clone())));
        let says = "balancedness: mean over heaviest GPU; of replicas the same. gap: heaviest GPU over what no plan goes below.";
        Ok(format!("{}\n{says}", table(&rows)))
    }
}

/// A valid plan or map, and the figures of its report.
struct Judged<'a> {
    map: &'a MapFile,
    served: Served<'a>,
    quality: &'a Quality,
    /// Layers whose GPUs are connected.
    joined: usize,
    /// The load of each GPU, `[layers][gpus]`, where it is asked for.
    gpus: Option<Vec<f64>>,
    /// The complaints of `--strict`.
    faults: &'a [String],
    /// The time of judging.
    time: Duration,
}

/// The row about foreign replicas: how many there are, the most that a layer may have, the part of the load that they serve,
/// and the least part that they must serve.
pub(super) fn foreign_text(replicas: usize, most: u32, (share, least): (f64, f64)) -> String {
    let (share, least) = (percent(share), percent(least));
    format!("{replicas}, at most {most} a layer; {share} of the load served there, {least} at least")
}

/// The score under a table of shares, and the table.
fn score_shares(
    path: &Path,
    map: &MapFile,
    loads: &Loads,
    cluster: &Cluster,
    rules: &CheckOptions,
) -> Result<(Quality, Option<Shares>), Error> {
    // A fault of the map alone is told first.
    map.score_with(loads, cluster, rules)?;
    let rows = map.physical_to_logical();
    let placement = Placement::new(loads.experts(), map.slots(), rows.to_vec())?;
    let shares = SharesFile::read(path)?.shares(cluster, &placement)?;
    let quality = check::score_shares_with(loads, cluster, rows, shares.parts(), rules)?;
    Ok((quality, Some(shares)))
}

/// The load of each GPU under a table of shares, of a map that is valid.
fn gpu_loads_of_shares(served: &Served<'_>, shares: &Shares) -> Vec<f64> {
    let slots = served.cluster.num_slots();
    let mut gpus = vec![0.0; served.map.len() / served.cluster.slots_per_gpu()];
    for (at, (expert, parts)) in served.map.iter().zip(shares.parts()).enumerate() {
        let load = usize::try_from(*expert).map_or(0.0, |expert| served.loads.layer(at / slots)[expert]);
        gpus[at / served.cluster.slots_per_gpu()] += load * f64::from(*parts) / f64::from(PARTS);
    }
    gpus
}

/// The complaints of `--strict` about a valid plan: the first duplicate of each layer that has any, and each gap too wide.
fn faults(map: &MapFile, cluster: &Cluster, loads: &Loads, quality: &Quality, max_gap: f64) -> Vec<String> {
    let mut faults = Vec::new();
    let rows = map.physical_to_logical().chunks_exact(map.slots());
    for ((row, layer), id) in rows.zip(&quality.layers).zip(loads.layer_ids()) {
        if layer.same_gpu_duplicates > 0 {
            let twice = row.chunks_exact(cluster.slots_per_gpu()).enumerate().find_map(|(gpu, slots)| {
                let again = |&(at, expert): &(usize, &i32)| *expert >= 0 && slots[..at].contains(expert);
                slots.iter().enumerate().find(again).map(|(_, expert)| (gpu, *expert))
            });
            let (gpu, expert) = twice.unwrap_or_default();
            let more = layer.same_gpu_duplicates - 1;
            let more = if more > 0 { format!(" (and {more} more in this layer)") } else { String::new() };
            faults.push(format!("layer {id}: GPU {gpu} holds expert {expert} twice{more}"));
        }
        if let Some(gap) = layer.gap().filter(|&gap| gap > max_gap) {
            faults.push(format!("layer {id}: gap {}, above {}", percent(gap), percent(max_gap)));
        }
    }
    faults
}
