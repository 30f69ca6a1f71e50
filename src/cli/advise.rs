//! `eplb advise`: how many replicas pay, and where balance stops paying.

mod spread;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::progress::ShownProgress;
use super::report::data::{bytes_text, trivial};
use super::{FilePart, limit, mean_and_most, print, words};
use crate::check::{self, Quality};
use crate::{Cluster, DeviceChoice, Error, Loads, Planner, Preset, bound};

/// A smaller difference in the time of a step does not count.
const NOTICED: f64 = 0.01;

/// Numbers of slots a GPU that are tried beyond the least.
const MOST_MORE: usize = 8;

#[derive(Args)]
#[command(after_help = "Examples:
  eplb advise loads.json --gpus 32 --expert-bytes 18874368
  eplb advise loads.json --gpus 32 --nodes 1,4 --groups 8 --knee 1.1 --json

Exit codes: 0 advised, 2 bad input or a file that could not be read.")]
pub struct Advise {
    /// Load file, as for `eplb plan`; - is standard input
    loads: PathBuf,
    #[command(flatten)]
    part: FilePart,
    /// GPUs
    #[arg(long)]
    gpus: usize,
    /// Numbers of nodes to try: 1,2,4
    #[arg(long, value_delimiter = ',', default_value = "1")]
    nodes: Vec<usize>,
    /// Groups of experts that are routed together
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Bytes of an expert's weights, as 44040192 or 42MiB, to tell what replicas cost
    #[arg(long, default_value_t = 0, value_parser = words::parse_bytes)]
    expert_bytes: u64,
    /// Heaviest GPU over mean from which a layer gets slower. The default is of published measurements, which the guide's
    /// page "How many replicas" names: measure it on your engine
    #[arg(long, default_value_t = 1.05, value_parser = parse_knee)]
    knee: f64,
    /// Part of an even step by which a step gets longer when the heaviest GPU over the mean rises by 1 above the knee, such as
    /// 0.33. Times of whole steps are told then [default: 1 / knee; times of the experts' part of a step are told]
    #[arg(long, value_parser = parse_slope)]
    slope: Option<f64>,
    /// auto, cpu, gpu, an index or a part of a name (see `eplb devices`)
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Preset of the plans: fast, default, thorough or scenarios (see `eplb plan --preset help`)
    #[arg(long, default_value = "fast")]
    preset: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One way to set up a layer.
struct SetupRow {
    cluster: Cluster,
    balancedness: f64,
    /// The balancedness that no plan passes.
    limit: f64,
    /// Heaviest GPU over mean, the worst layer.
    worst: f64,
    /// Mean time of a layer; 1 is that of an even spread.
    time: f64,
    /// The time of each layer, in the same unit.
    layers: Vec<f64>,
    with_load: usize,
}

impl Advise {
    pub fn run(self) -> Result<ExitCode, Error> {
        let loads = self.part.read(&self.loads)?;
        let options = self.preset.parse::<Preset>()?.options();
        let clusters = self.clusters(&loads)?;
        let planner = Planner::new(self.device.clone())?;
        let names = clusters.iter().map(|cluster| format!("now {} replicas", cluster.num_replicas()));
        let progress = ShownProgress::of_rows(names.collect::<Vec<_>>(), 1, "plans");
        let mut rows = Vec::new();
        for cluster in clusters {
            let plan = planner.plan(&loads, &cluster, &options)?;
            let bounds = bound::lower_bounds(&loads, &cluster);
            let quality = check::score(&loads, &cluster, plan.physical_to_logical())?.with_bounds(&bounds);
            rows.push(self.row(cluster, &quality));
            progress.step_with(|| quality.mean_gap());
        }
        drop(progress);
        words::tell_idle_groups(self.groups, self.nodes.iter().copied().find(|&nodes| nodes != 1));
        let Some(first) = rows.first() else {
            return Err(Error::invalid("gpus", self.gpus, "leaves no number of replicas to try"));
        };
        let now = self.trivial_time(&loads, &first.cluster)?;
        let advice = Advice::of(&self, &rows, now);
        print(&if self.json { advice.json(&rows).to_string() } else { advice.text(&rows) });
        Ok(ExitCode::SUCCESS)
    }

    /// Every number of slots a GPU from the least that holds all experts on, and every number of nodes.
    fn clusters(&self, loads: &Loads) -> Result<Vec<Cluster>, Error> {
        if self.gpus == 0 {
            return Err(Error::invalid("gpus", 0, "is not at least 1"));
        }
        let least = loads.experts().div_ceil(self.gpus);
        // More than one more replica of every expert is memory that nobody has.
        let most = (2 * least).min(least + MOST_MORE).max(least + 2);
        let mut clusters = Vec::new();
        for nodes in BTreeSet::from_iter(self.nodes.iter().copied()) {
            for slots in least..=most {
                let cluster = Cluster::new(slots.saturating_mul(self.gpus), self.groups, nodes, self.gpus);
                // The least is asked for; what is too large beyond it is only not tried.
                match cluster.and_then(|cluster| cluster.check_experts(loads.experts()).map(|()| cluster)) {
                    Ok(cluster) => clusters.push(cluster),
                    Err(error) if slots == least => return Err(error),
                    Err(_) => {}
                }
            }
        }
        Ok(clusters)
    }

    fn row(&self, cluster: Cluster, quality: &Quality) -> SetupRow {
        let ratio = |layer: &check::LayerQuality| match layer.mean_gpu_load {
            mean if mean > 0.0 => layer.max_gpu_load / mean,
            _ => 1.0,
        };
        let layers: Vec<f64> = quality.layers.iter().map(|layer| self.slow(ratio(layer))).collect();
        SetupRow {
            balancedness: quality.balancedness(),
            limit: limit(quality),
            worst: quality.max_over_mean(),
            time: mean(&layers),
            layers,
            with_load: quality.layers.len() - quality.layers_without_load(),
            cluster,
        }
    }

    /// The time of a layer, where an even spread takes 1. Up to the knee it stays 1; above, it grows with the heaviest GPU over
    /// the mean.
    fn slow(&self, ratio: f64) -> f64 {
        1.0 + (ratio - self.knee).max(0.0) * self.slope.unwrap_or(1.0 / self.knee)
    }

    /// Names the work that times are told for.
    fn timed(&self) -> &'static str {
        if self.slope.is_some() { "a step" } else { "the experts' part of a step" }
    }

    /// The time of the trivial placement without further replicas.
    fn trivial_time(&self, loads: &Loads, cluster: &Cluster) -> Result<f64, Error> {
        let gpus = check::gpu_loads(loads, cluster, &trivial(loads, cluster))?;
        let ratio = |row: &[f64]| match mean_and_most(row) {
            (mean, most) if mean > 0.0 => most / mean,
            _ => 1.0,
        };
        Ok(mean(&gpus.chunks(cluster.num_gpus()).map(|row| self.slow(ratio(row))).collect::<Vec<_>>()))
    }
}

/// The advice that follows from the rows.
struct Advice<'a> {
    ask: &'a Advise,
    /// The time of the trivial placement.
    now: f64,
    /// The row to take.
    best: usize,
    /// Where several numbers of nodes are tried: the rows to take in the other ones.
    others: Vec<usize>,
    says: Vec<String>,
    /// The slots a GPU of each layer, where a fixed total may be spread over layers.
    spread: Option<Vec<usize>>,
    command: Option<String>,
}

impl<'a> Advice<'a> {
    fn of(ask: &'a Advise, rows: &[SetupRow], now: f64) -> Self {
        let (best, least) = to_take(rows, |_| true, now);
        let replicas = |row: &SetupRow| row.cluster.num_replicas();
        let row = &rows[best];
        let gain = |row: &SetupRow| (1.0 - row.time / now) * 100.0;
        let mut advice =
            Self { ask, now, best, others: Vec::new(), says: Vec::new(), spread: None, command: None };
        if 1.0 - least / now < NOTICED {
            advice.says.push(format!(
                "Not worth it: where experts are by default, {} takes {:.1} % longer than at an even spread (knee {}), and no \
                 number of replicas up to {} makes it {} % shorter.",
                ask.timed(),
                (now - 1.0) * 100.0,
                ask.knee,
                rows.iter().map(replicas).max().unwrap_or(0),
                NOTICED * 100.0
            ));
            return advice;
        }
        let several: Vec<usize> =
            BTreeSet::from_iter(rows.iter().map(|row| row.cluster.num_nodes())).into_iter().collect();
        advice.says.push(format!(
            "Take {} replicas on {} GPUs{}: {} gets {:.1} % shorter than without balancing{}.",
            replicas(row),
            ask.gpus,
            match several.len() {
                1 => String::new(),
                _ => format!(" in {}", nodes_text(row.cluster.num_nodes())),
            },
            ask.timed(),
            gain(row),
            match ask.slope {
                Some(_) => "",
                None => ", and a whole step by less: --slope tells by how much",
            }
        ));
        let more = rows.iter().any(|other| replicas(other) > replicas(row));
        if more {
            let left = (row.time - least).max(0.0) / now * 100.0;
            advice.says.push(match left {
                ..0.05 => "More replicas bring nothing more.".to_string(),
                _ => format!("More replicas bring at most {left:.1} % more."),
            });
        }
        if row.time <= 1.0 + 1e-9 {
            advice.says.push(format!(
                "Every layer is below the knee of {}: closer balance brings nothing.",
                ask.knee
            ));
        }
        for nodes in several.into_iter().filter(|&nodes| nodes != row.cluster.num_nodes()) {
            let (other, _) = to_take(rows, |row| row.cluster.num_nodes() == nodes, now);
            advice.says.push(format!(
                "In {} take {} replicas: {:.1} % shorter.",
                nodes_text(nodes),
                replicas(&rows[other]),
                gain(&rows[other])
            ));
            advice.others.push(other);
        }
        if !advice.others.is_empty() {
            advice.says.push(
                "Numbers of nodes are compared by balance alone, not by what crosses between nodes: take the number that your \
                 cluster has."
                    .into(),
            );
        }
        advice.spread_over_layers(rows);
        advice.command = Some(advice.command(row));
        advice
    }

    /// The best spread over layers of the slots that the row to take has.
    fn spread_over_layers(&mut self, rows: &[SetupRow]) {
        let nodes = rows[self.best].cluster.num_nodes();
        let same: Vec<&SetupRow> = rows.iter().filter(|row| row.cluster.num_nodes() == nodes).collect();
        let slots: Vec<usize> = same.iter().map(|row| row.cluster.slots_per_gpu()).collect();
        let times: Vec<&[f64]> = same.iter().map(|row| row.layers.as_slice()).collect();
        let total = rows[self.best].cluster.slots_per_gpu() * rows[self.best].layers.len();
        let Some((spread, time)) = spread::best(&slots, &times, total) else { return };
        let saved = (rows[self.best].time - time / spread.len() as f64) / self.now;
        if saved >= NOTICED / 10.0 {
            let range =
                (spread.iter().min().copied().unwrap_or(0), spread.iter().max().copied().unwrap_or(0));
            self.says.push(format!(
                "An engine whose layers may differ in slots saves another {:.1} % with the same memory: {} to {} slots a GPU \
                 (--json lists them).",
                saved * 100.0,
                range.0,
                range.1
            ));
            self.spread = Some(spread);
        }
    }

    fn command(&self, row: &SetupRow) -> String {
        let file = self.ask.loads.display().to_string();
        let plain = file.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        let file = if plain { file } else { format!("'{}'", file.replace('\'', r"'\''")) };
        let cluster = &row.cluster;
        let part = self.ask.part.typed();
        let mut command =
            format!("eplb plan {file}{part} --replicas {} --gpus {}", cluster.num_replicas(), self.ask.gpus);
        // Groups are for several nodes.
        if cluster.num_nodes() > 1 {
            command += &format!(" --nodes {}", cluster.num_nodes());
            if cluster.num_groups() > 1 {
                command += &format!(" --groups {}", cluster.num_groups());
            }
        }
        command + " --out plan.json"
    }

    /// Slots of a GPU beyond the least, all layers with load together: others have no experts.
    fn more_slots(&self, rows: &[SetupRow], row: &SetupRow) -> usize {
        let least = rows.iter().map(|row| row.cluster.slots_per_gpu()).min().unwrap_or(0);
        (row.cluster.slots_per_gpu() - least) * row.with_load
    }

    fn json(&self, rows: &[SetupRow]) -> Value {
        let row = |row: &SetupRow| {
            json!({
                "replicas": row.cluster.num_replicas(), "slots_per_gpu": row.cluster.slots_per_gpu(),
                "nodes": row.cluster.num_nodes(), "policy": row.cluster.policy().name(),
                "balancedness": row.balancedness, "limit": row.limit, "max_over_mean": row.worst,
                "time": row.time, "gain": 1.0 - row.time / self.now,
                "more_bytes_per_gpu": (self.more_slots(rows, row) as u64).saturating_mul(self.ask.expert_bytes),
            })
        };
        json!({
            "knee": self.ask.knee,
            "slope": self.ask.slope,
            "trivial_time": self.now,
            "rows": rows.iter().map(row).collect::<Vec<_>>(),
            "worth_it": self.command.is_some(),
            "replicas": self.command.as_ref().map(|_| rows[self.best].cluster.num_replicas()),
            "slots_per_gpu_by_layer": self.spread,
            "says": self.says,
            "command": self.command,
            "other_commands": self.others.iter().map(|&row| self.command(&rows[row])).collect::<Vec<_>>(),
        })
    }

    fn text(&self, rows: &[SetupRow]) -> String {
        let mut lines = vec![format!(
            "{:>8} {:>5} {:>9} {:>12} {:>8} {:>10} {:>9}  {}",
            "replicas", "nodes", "slots/GPU", "balancedness", "limit", "worst max", "time", "memory a GPU"
        )];
        for (at, row) in rows.iter().enumerate() {
            let memory = match (self.more_slots(rows, row), self.ask.expert_bytes) {
                (0, _) => "least".to_string(),
                (slots, 0) => format!("+{slots} experts"),
                (slots, bytes) => format!("+{}", bytes_text(slots as u128 * u128::from(bytes))),
            };
            let take = match row.cluster.num_nodes() {
                _ if self.command.is_some() && at == self.best => "  <- take".to_string(),
                nodes if self.others.contains(&at) => format!("  <- take in {}", nodes_text(nodes)),
                _ => String::new(),
            };
            lines.push(format!(
                "{:>8} {:>5} {:>9} {:>12.4} {:>8.4} {:>10.3} {:>7.1} %  {memory}{take}",
                row.cluster.num_replicas(),
                row.cluster.num_nodes(),
                row.cluster.slots_per_gpu(),
                row.balancedness,
                row.limit,
                row.worst,
                row.time / self.now * 100.0,
            ));
        }
        lines.push(format!(
            "limit: no plan is more balanced. worst max: heaviest GPU over mean, worst layer. time: {}, as a part of its time \
             without balancing; a layer gets slower once its heaviest GPU is {} times the mean (--knee). memory a GPU: beyond the \
             least, all layers.",
            self.ask.timed(),
            self.ask.knee
        ));
        lines.push(String::new());
        lines.extend(self.says.iter().cloned());
        lines.extend(self.command.clone());
        lines.extend(self.others.iter().map(|&row| self.command(&rows[row])));
        lines.join("\n")
    }
}

/// Of the rows that are meant: the one with the fewest replicas that is nearly as good as any, and the least time of all.
fn to_take(rows: &[SetupRow], is_meant: impl Fn(&SetupRow) -> bool, now: f64) -> (usize, f64) {
    let meant: Vec<usize> = (0..rows.len()).filter(|&at| is_meant(&rows[at])).collect();
    let least = meant.iter().map(|&at| rows[at].time).fold(f64::INFINITY, f64::min);
    let enough = meant.into_iter().filter(|&at| rows[at].time <= least + NOTICED * now);
    let best = enough.min_by(|&a, &b| {
        let replicas = |at: usize| rows[at].cluster.num_replicas();
        replicas(a).cmp(&replicas(b)).then(rows[a].time.total_cmp(&rows[b].time))
    });
    (best.unwrap_or(0), least)
}

fn nodes_text(nodes: usize) -> String {
    format!("{nodes} {}", if nodes == 1 { "node" } else { "nodes" })
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 1.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn parse_slope(text: &str) -> Result<f64, String> {
    let slope = text.parse::<f64>().ok().filter(|slope| *slope > 0.0 && *slope <= 1.0);
    slope.ok_or_else(|| "is not above 0 and at most 1".to_string())
}

fn parse_knee(text: &str) -> Result<f64, String> {
    let knee = text.parse::<f64>().ok().filter(|knee| (1.0..=100.0).contains(knee));
    knee.ok_or_else(|| "is not between 1 and 100".to_string())
}
