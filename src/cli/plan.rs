//! `eplb plan`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{Limits, Outlook, Part, bound_effort, check_writable, milliseconds, percent, print, table};
use crate::check::{self, Quality};
use crate::rebalance::{Backtest, Proposal, RebalanceOptions, Rebalancer, Strategy};
use crate::trace::{PlanFile, PlanFormat, Window, write_plan};
use crate::{
    Cluster, DeviceChoice, Duplicates, Error, Fallback, Loads, MoveLimits, PLAN_VERSION, ParseError,
    PlanOptions, Planner, Preset, PreviousMap, Replan,
};

#[derive(Args)]
pub struct Plan {
    /// Load file: .json, .npy or .csv; one plan for all of them where there are several
    loads: Vec<PathBuf>,
    /// Weights of several load files, in their order: 1,2,1
    #[arg(long, value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    /// What the windows of the file say about the next one: last, scenarios, forecast or auto
    #[arg(long, conflicts_with_all = ["window", "weights"])]
    strategy: Option<Strategy>,
    #[command(flatten)]
    outlook: Outlook,
    /// Plan file of the plan that runs: the new one starts from it
    #[arg(long)]
    previous: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    /// Bytes of an expert's weights, to tell what must be transferred
    #[arg(long, default_value_t = 0)]
    expert_bytes: u64,
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
    /// Where the device fails: cpu has the CPU backend make the same plan, with a warning; never fails
    #[arg(long, default_value = "cpu", value_parser = parse_fallback)]
    fallback: Fallback,
    /// default, fast, thorough, scenarios, gen00..gen19, rec1..rec5; help lists them. Where none is given:
    /// default for one window, scenarios for several
    #[arg(long)]
    preset: Option<String>,
    /// Starts of a node at most, instead of the preset's
    #[arg(long)]
    starts: Option<u32>,
    /// Iterations of a start at most, instead of the preset's
    #[arg(long)]
    iterations: Option<u32>,
    /// Group assignments tried a layer at most, instead of all that could win
    #[arg(long)]
    assignments: Option<u32>,
    /// The most replicas of an expert
    #[arg(long)]
    max_replicas_per_expert: Option<u32>,
    /// Threads of the CPU backend; all cores where it is not given
    #[arg(long)]
    threads: Option<usize>,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Let a GPU hold an expert twice, as the peers do
    #[arg(long)]
    allow_duplicates: bool,
    /// A closer bound of 2 and 3 slots a GPU, for some fifty times the work
    #[arg(long)]
    tight_bound: bool,
    /// Plan file to write
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A plan, and how it came about.
struct Made {
    replan: Replan,
    strategy: Option<(Strategy, Vec<Backtest>)>,
}

impl Plan {
    pub fn run(self) -> Result<ExitCode, Error> {
        if self.preset.as_deref() == Some("help") {
            let line = |preset: Preset| format!("{:9} {}", preset.name(), preset.summary());
            print(&Preset::all().map(line).collect::<Vec<_>>().join("\n"));
            return Ok(ExitCode::SUCCESS);
        }
        let missing = |field: &str| Error::invalid(field, "(none)", "is needed");
        if self.loads.is_empty() {
            return Err(missing("LOADS"));
        }
        let replicas = self.replicas.ok_or_else(|| missing("--replicas"))?;
        let gpus = self.gpus.ok_or_else(|| missing("--gpus"))?;
        let cluster = match self.slots_per_gpu {
            Some(slots) => Cluster::with_slots_per_gpu(replicas, self.groups, self.nodes, gpus, slots)?,
            None => Cluster::new(replicas, self.groups, self.nodes, gpus)?,
        };
        if let Some(out) = &self.out {
            check_writable(out, self.loads.iter().chain(&self.previous))?;
        }
        let previous = self.previous.as_deref().map(|path| read_previous(path, &cluster)).transpose()?;
        let mut made = self.make(&cluster, previous.as_ref())?;
        made.replan.set_bound(bound_effort(self.tight_bound));
        let plan = made.replan.plan();
        // What DeepSeek's rule gives, for comparison, by the CPU backend.
        let greedy = Preset::GREEDY;
        let mean = Loads::from_f64(plan.layers(), plan.experts(), plan.loads().values())?;
        let greedy = Planner::new(DeviceChoice::Cpu)?.plan(&mean, &cluster, &greedy.options())?;
        // Without a bound of its own, which nothing here tells.
        let greedy = check::score(&mean, &cluster, greedy.physical_to_logical())?;
        if let Some(out) = &self.out {
            write_plan(plan, PlanFormat::Eplb, out)?;
        }
        for warning in plan.warnings() {
            eprintln!("eplb: warning: {warning}");
        }
        print(&if self.json {
            self.json_report(&made, &greedy)?.to_string()
        } else {
            self.report(&made, &greedy)?
        });
        Ok(ExitCode::SUCCESS)
    }

    /// The plan, from the previous one if there is one.
    fn make(&self, cluster: &Cluster, previous: Option<&PreviousMap>) -> Result<Made, Error> {
        let mut planner = Planner::new(self.device.clone())?.with_fallback(self.fallback);
        if let Some(threads) = self.threads {
            planner = planner.with_threads(threads)?;
        }
        if let Some(strategy) = self.strategy {
            let [file] = self.loads.as_slice() else {
                let rule = "is for the windows of one load file";
                return Err(Error::invalid("strategy", strategy, rule));
            };
            let limits = self.limits.limits(&MoveLimits::each_window());
            let options = RebalanceOptions { strategy, ..self.outlook.options(limits) };
            let options = RebalanceOptions {
                plan: self.options(options.plan.clone())?,
                scenario_plan: self.options(options.scenario_plan.clone())?,
                ..options
            };
            let history = self.part.history(file)?;
            let mut rebalancer = Rebalancer::new(planner, cluster.clone(), options)?;
            for window in 0..history.windows() {
                rebalancer.observe(history.loads(Window::Index(window))?)?;
            }
            if let Some(previous) = previous {
                rebalancer.apply(previous.clone())?;
            }
            let Proposal { replan, strategy, backtests, .. } = rebalancer.propose()?;
            return Ok(Made { replan, strategy: Some((strategy, backtests)) });
        }
        let windows = self.loads.iter().map(|file| self.part.read(file)).collect::<Result<Vec<_>, _>>()?;
        let weights = self.weights.clone().unwrap_or_else(|| vec![1.0; windows.len()]);
        let loads = Loads::from_windows(&windows, &weights)?;
        let preset = if windows.len() > 1 { Preset::SCENARIOS.options() } else { PlanOptions::default() };
        let options = self.options(preset)?;
        let replan = match previous {
            Some(previous) => {
                let limits = self.limits.limits(&MoveLimits::default());
                planner.replan(&loads, cluster, previous.clone(), &options, &limits)?
            }
            None => Replan::from(planner.plan(&loads, cluster, &options)?),
        };
        Ok(Made { replan, strategy: None })
    }

    /// The preset's options, or these where none is given, with what the flags change.
    fn options(&self, default: PlanOptions) -> Result<PlanOptions, Error> {
        let mut options = match &self.preset {
            Some(name) => name.parse::<Preset>()?.options(),
            None => default,
        };
        options.seed = self.seed;
        options.starts = self.starts.unwrap_or(options.starts);
        options.iterations = self.iterations.unwrap_or(options.iterations);
        options.assignments = self.assignments.or(options.assignments);
        options.max_replicas_per_expert = self.max_replicas_per_expert.or(options.max_replicas_per_expert);
        if self.allow_duplicates {
            options.duplicates = Duplicates::Allow;
        }
        Ok(options)
    }

    fn json_report(&self, made: &Made, greedy: &Quality) -> Result<Value, Error> {
        let plan = made.replan.plan();
        let mut report = json_report(plan, greedy);
        let windows = several_windows(plan)?;
        if !windows.is_empty() {
            report["windows"] = windows
                .iter()
                .zip(plan.loads().window_weights())
                .map(|(window, weight)| {
                    json!({ "weight": weight, "balancedness": window.balancedness(), "mean_gap": window.mean_gap() })
                })
                .collect();
        }
        if let Some((strategy, backtests)) = &made.strategy {
            report["strategy"] = json!(strategy.name());
            report["backtests"] = backtests
                .iter()
                .map(|b| json!({ "strategy": b.strategy.name(), "balancedness": b.balancedness, "windows": b.windows }))
                .collect();
        }
        if self.previous.is_some() {
            let moves = made.replan.moves();
            report["moves"] = json!({
                "changed_slots": moves.changed_slots, "received": moves.received, "slots": moves.slots,
                "share": moves.share(),
                "bytes": u64::try_from(moves.bytes(self.expert_bytes)).unwrap_or(u64::MAX),
                "layers_to_move": made.replan.layers_to_move(),
                "layers": made.replan.layers().iter().map(|layer| json!({
                    "received": layer.received, "gain": layer.gain, "loss": layer.loss, "fresh": layer.fresh,
                })).collect::<Vec<_>>(),
            });
        }
        Ok(report)
    }

    fn report(&self, made: &Made, greedy: &Quality) -> Result<String, Error> {
        let plan = made.replan.plan();
        let mut rows = report(plan, greedy);
        let windows = several_windows(plan)?;
        if !windows.is_empty() {
            rows.insert(
                3,
                ("loads", format!("{} at once; what follows is of their weighted mean", windows.len())),
            );
        }
        let name = |i: usize| match (self.loads.get(i), self.loads.len()) {
            (Some(file), 2..) => file.display().to_string(),
            _ if i + 1 == windows.len() => "last window".to_string(),
            _ => format!("{} windows before", windows.len() - 1 - i),
        };
        if !windows.is_empty() {
            for (i, (window, weight)) in windows.iter().zip(plan.loads().window_weights()).enumerate() {
                let text = format!("{:.5}   weight {weight:.3}, {}", window.balancedness(), name(i));
                rows.push(("balancedness alone", text));
            }
        }
        if let Some((strategy, backtests)) = &made.strategy {
            let score = |b: &Backtest| match b.balancedness {
                Some(score) => format!("{} {score:.4}", b.strategy),
                None => format!("{} untried", b.strategy),
            };
            let tried = backtests.iter().map(score).collect::<Vec<_>>().join(", ");
            let why = match backtests.first() {
                Some(b) => format!("{strategy}   (on the last {} windows: {tried})", b.windows),
                None => strategy.to_string(),
            };
            rows.push(("planned from", why));
        }
        if self.previous.is_some() {
            let moves = made.replan.moves();
            let first: Vec<String> =
                made.replan.layers_to_move().iter().take(5).map(usize::to_string).collect();
            let share = percent(moves.share());
            rows.push(("slots that move", format!("{} of {}, {share}", moves.received, moves.slots)));
            rows.push(("slots that change", moves.changed_slots.to_string()));
            if self.expert_bytes > 0 {
                rows.push(("bytes to transfer", moves.bytes(self.expert_bytes).to_string()));
            }
            rows.push((
                "layers to move first",
                if first.is_empty() { "none".into() } else { first.join(", ") },
            ));
        }
        Ok(table(&rows))
    }
}

/// The map of a plan file, which must be of this cluster.
fn read_previous(path: &Path, cluster: &Cluster) -> Result<PreviousMap, Error> {
    let file = PlanFile::read(path)?;
    if file.cluster != *cluster {
        let reason = format!("its cluster {:?} is not the one asked for, {cluster:?}", file.cluster);
        return Err(Error::parse(path, ParseError::content(reason)));
    }
    Ok(file.previous_map())
}

/// The quality on each window where there are several: that on a single one is the plan's own, bound and all.
fn several_windows(plan: &crate::Plan) -> Result<Vec<Quality>, Error> {
    if plan.loads().windows().len() > 1 { plan.window_quality() } else { Ok(vec![]) }
}

fn parse_fallback(text: &str) -> Result<Fallback, String> {
    match text {
        "cpu" => Ok(Fallback::Cpu),
        "never" => Ok(Fallback::Never),
        _ => Err("is not cpu or never".to_string()),
    }
}

/// The layers in which DeepSeek's rule, which may put an expert on a GPU twice, is better than a plan that may not: the
/// layer, its heaviest GPU there and here. A plan for several windows aims at each of them, not at their mean, which is
/// what `greedy` plans.
fn where_duplicates_win(plan: &crate::Plan, greedy: &Quality) -> Vec<(usize, f64, f64)> {
    let options = plan.options();
    let several = plan.loads().windows().len() > 1;
    if several || options.duplicates == Duplicates::Allow || options.max_replicas_per_expert.is_some() {
        return Vec::new();
    }
    // Fixed point rounds each replica by less than a millionth of the layer.
    let rounding = 1e-6 * plan.cluster().num_gpus() as f64;
    let pairs = greedy.layers.iter().zip(&plan.quality().layers).enumerate();
    let pairs = pairs.map(|(layer, (greedy, plan))| (layer, greedy.max_gpu_load, plan.max_gpu_load));
    pairs.filter(|&(_, greedy, plan)| greedy < plan * (1.0 - rounding)).collect()
}

fn json_report(plan: &crate::Plan, greedy: &Quality) -> Value {
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
        "plan_version": PLAN_VERSION,
        "device": plan.device(),
        "backend": plan.backend(),
        "plan_ms": plan.elapsed().as_secs_f64() * 1e3,
        "bound_ms": plan.bound_elapsed().as_secs_f64() * 1e3,
        "starts": plan.options().starts,
        "iterations": plan.options().iterations,
        "layers": plan.layers(),
        "layers_without_load": quality.layers_without_load(),
        "policy": plan.cluster().policy().name(),
        "greedy_balancedness": greedy.balancedness(),
        "duplicates_win": where_duplicates_win(plan, greedy).into_iter()
            .map(|(layer, greedy, max)| json!({ "layer": layer, "greedy_max": greedy, "max": max }))
            .collect::<Vec<_>>(),
        "warnings": plan.warnings(),
    })
}

fn report(plan: &crate::Plan, greedy: &Quality) -> Vec<(&'static str, String)> {
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
    let mut rows = vec![
        ("plan", shape),
        ("device", format!("{} ({})", plan.device(), plan.backend())),
        ("time", format!("{}, bound {}", milliseconds(plan.elapsed()), milliseconds(plan.bound_elapsed()))),
        ("balancedness", format!("{:.5}   (greedy: {:.5})", quality.balancedness(), greedy.balancedness())),
        ("mean gap to the bound", percent(quality.mean_gap())),
        ("worst gap", worst),
        (
            "duplicates on a GPU",
            format!("{}   (greedy: {})", quality.same_gpu_duplicates(), greedy.same_gpu_duplicates()),
        ),
        ("layers without load", quality.layers_without_load().to_string()),
        ("fingerprint", format!("{:016x}   (plan version {PLAN_VERSION})", plan.fingerprint())),
    ];
    for (layer, greedy, max) in where_duplicates_win(plan, greedy) {
        let text = format!(
            "heaviest GPU {greedy:.4} with an expert twice on a GPU (greedy), {max:.4} without: --allow-duplicates"
        );
        rows.push(("duplicates win", format!("layer {layer}: {text}")));
    }
    rows
}
