//! `eplb replay`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::progress::ShownProgress;
use super::{MoveLimitArgs, Outlook, print, read_layers, speeds, words};
use crate::rebalance::{
    RebalanceOptions, ReplayOptions, ReplayRow, Series, SharesFrom, Strategy, replay_one_by_one,
};
use crate::trace::{LoadHistory, Window};
use crate::{DeviceChoice, Error, MoveLimits, Planner};

#[derive(Args)]
#[command(after_help = "Examples:
  eplb replay trace.npy --replicas 288 --gpus 32
  eplb replay trace.npy --replicas 288 --groups 8 --nodes 4 --gpus 32 --max-moves 10% --csv

Exit codes: 0 replayed, 2 bad input or a file that could not be read.")]
pub struct ReplayTrace {
    /// Load file with several windows, as for `eplb plan`; - is standard input
    trace: PathBuf,
    /// Layers of the file by number, as A..B: from A on, up to but not B
    #[arg(long, value_parser = super::parse_range, value_name = "A..B")]
    layers: Option<std::ops::Range<usize>>,
    #[command(flatten)]
    form: super::Form,
    /// Replicas of a layer
    #[arg(long)]
    replicas: usize,
    /// GPUs
    #[arg(long)]
    gpus: usize,
    /// Speed of each GPU, as for `eplb plan` [default: all equal]
    #[arg(long, value_name = "SPEEDS", allow_hyphen_values = true)]
    gpu_speeds: Option<String>,
    /// Groups of experts that are routed together
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Nodes
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Slots on a GPU, where some may stay free [default: replicas / GPUs]
    #[arg(long)]
    slots_per_gpu: Option<usize>,
    /// Strategies to replay: scenarios, forecast
    #[arg(long, value_delimiter = ',', default_value = "scenarios")]
    strategy: Vec<Strategy>,
    /// Windows from one new plan to the next
    #[arg(long, default_value_t = 1)]
    interval: usize,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Plan anew each time instead of from the plan that runs
    #[arg(long)]
    fresh: bool,
    /// Connect the GPUs, for shares of batches: see `eplb help plan`
    #[arg(long)]
    connected: bool,
    #[command(flatten)]
    foreign: super::ForeignArgs,
    /// Tables of shares to deal the next window out by, besides evenly: windows, sample, batch
    #[arg(long, value_delimiter = ',', value_name = "FROM")]
    shares: Vec<SharesFrom>,
    /// Score on a batch of this many routings a layer, drawn from the next window, instead of on all of it
    #[arg(long, value_name = "ROUTINGS", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    batch_routings: Option<u32>,
    #[command(flatten)]
    outlook: Outlook,
    #[command(flatten)]
    limits: MoveLimitArgs,
    /// auto, cpu, gpu, an index or a part of a name (see `eplb devices`)
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Print one JSON object
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print comma-separated values
    #[arg(long)]
    csv: bool,
}

impl ReplayTrace {
    /// Refuses options that would do nothing.
    fn check_options(&self, windows: usize) -> Result<(), Error> {
        if !self.strategy.contains(&Strategy::Scenarios) {
            words::check_effect(&self.outlook.given(), "--strategy scenarios")?;
        }
        self.outlook.check()?;
        if self.fresh {
            words::check_effect(&self.limits.given(), "plans from the one that runs: leave out --fresh")?;
        }
        words::check_named_once("--strategy", self.strategy.iter().map(|strategy| strategy.name()))?;
        words::check_named_once("--shares", self.shares.iter().map(|from| from.name()))?;
        if self.interval >= windows {
            let rule =
                format!("is not less than the windows of the trace, {windows}: no second plan would be made");
            return Err(Error::invalid("interval", self.interval, rule));
        }
        Ok(())
    }

    pub fn run(self) -> Result<ExitCode, Error> {
        let history = read_layers(&self.trace, self.layers.as_ref(), &self.form)?;
        let windows = history.windows();
        if windows < 2 {
            let rule = "is not at least 2: a replay plans on one and scores on the next (eplb plan is for one alone)";
            return Err(Error::invalid("windows of the trace", windows, rule));
        }
        self.check_options(windows)?;
        let mut cluster =
            words::cluster(self.replicas, self.groups, self.nodes, self.gpus, self.slots_per_gpu, || {
                history.experts()
            })?;
        if let Some(given) = &self.gpu_speeds {
            cluster = cluster.with_gpu_speeds(&speeds::read(given)?)?;
        }
        words::tell_idle_groups(self.groups, Some(self.nodes).filter(|&nodes| nodes != 1));
        words::check_experts(&cluster, history.experts(), self.slots_per_gpu)?;
        let planner = Planner::new(self.device.clone())?;
        let limits = self.limits.limits(&MoveLimits::each_window());
        let mut options = RebalanceOptions { fresh: self.fresh, ..self.outlook.options(limits) };
        (options.plan.seed, options.scenario_plan.seed) = (self.seed, self.seed);
        (options.plan.connected, options.scenario_plan.connected) = (self.connected, self.connected);
        self.foreign.set(&mut options.plan);
        self.foreign.set(&mut options.scenario_plan);
        let setup = ReplayOptions {
            strategies: self.strategy.clone(),
            interval: self.interval,
            shares: self.shares.clone(),
            batch_routings: self.batch_routings,
            options,
        };
        // The oracle, the greedy rule and the plan that never moves come after the strategies.
        let names: Vec<&str> = setup.strategies.iter().map(|strategy| strategy.name()).collect();
        let names = [names, vec!["oracle", "greedy", "never move"]].concat();
        let rows = {
            let progress = ShownProgress::of_rows(names, windows - 1, "windows");
            let window = |at| history.loads(Window::Index(at));
            replay_one_by_one(&planner, windows, window, &cluster, &setup, |plan| {
                progress.step_with(|| plan.quality().mean_gap())
            })?
        };
        print(&if self.json {
            self.json_report(&history, &rows).to_string()
        } else if self.csv {
            csv(&rows)
        } else {
            self.report(&history, &rows)
        });
        Ok(ExitCode::SUCCESS)
    }

    fn report(&self, history: &LoadHistory, rows: &[ReplayRow]) -> String {
        let mut lines = vec![
            format!(
                "{}: {} windows of {} layers x {} experts; {} replicas on {} GPUs in {} node{}; {}, {}",
                self.trace.display(),
                history.windows(),
                history.layers(),
                history.experts(),
                self.replicas,
                self.gpus,
                self.nodes,
                if self.nodes == 1 { "" } else { "s" },
                if self.fresh { "fresh plans" } else { "from the plan that runs" },
                match self.interval {
                    1 => "a plan every window".to_string(),
                    interval => format!("a plan every {interval} windows"),
                },
            ),
            format!("{:<19} {:^26} {:^27}", "", "balancedness of GPUs", "of single replicas"),
            format!(
                "{:<19} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>9}",
                "", "mean", "worst", "p5", "mean", "worst", "p5", "moved", "ms a plan"
            ),
        ];
        for row in rows {
            let [mean, worst, p5, of_replicas @ .., moved, ms] = columns(row);
            let [replica_mean, replica_worst, replica_p5] = of_replicas;
            lines.push(format!(
                "{:<19} {mean:>8.4} {worst:>8.4} {p5:>8.4} {replica_mean:>9.4} {replica_worst:>8.4} {replica_p5:>8.4} {:>6.1} % {ms:>9.1}",
                row.name,
                moved * 100.0,
            ));
        }
        lines.push(
            "Every plan is scored on the window after those it was made from. balancedness: mean over heaviest, 1 is even, of GPUs or of \
             single replicas; worst: of all windows; p5: one window in twenty is worse. moved: slots whose GPU gets another expert, \
             at each new plan. ms a plan: time to make it. oracle: made for the window that it is scored on, which nobody knows \
             before; oracle and greedy (DeepSeek's rule, on the last window) may move all."
                .into(),
        );
        lines.join("\n")
    }

    fn json_report(&self, history: &LoadHistory, rows: &[ReplayRow]) -> Value {
        let scores = |series: &Series| {
            json!({
                "mean": series.mean(), "worst": series.worst(), "p5": series.quantile(0.05),
                "windows": series.scores,
            })
        };
        let row = |row: &ReplayRow| {
            json!({
                "name": row.name,
                "balancedness": scores(&row.balancedness),
                "replica_balancedness": scores(&row.replica_balancedness),
                "moved": row.moved.mean(),
                "plan_ms": row.milliseconds.mean(),
            })
        };
        json!({
            "trace": self.trace.display().to_string(),
            "windows": history.windows(),
            "layers": history.layers(),
            "experts": history.experts(),
            "interval": self.interval,
            "fresh": self.fresh,
            "rows": rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

/// One line a row, with the means.
fn csv(rows: &[ReplayRow]) -> String {
    let mut lines = vec![
        "name,balancedness,balancedness_worst,balancedness_p5,replica_balancedness,replica_balancedness_worst,\
         replica_balancedness_p5,moved,plan_ms"
            .to_string(),
    ];
    for row in rows {
        let numbers = columns(row).map(|number| number.to_string());
        lines.push(format!("{},{}", row.name, numbers.join(",")));
    }
    lines.join("\n")
}

/// The means of a row, in the order of the columns: mean, worst and p5 of GPUs, then of replicas, moves, milliseconds.
fn columns(row: &ReplayRow) -> [f64; 8] {
    let (gpus, replicas) = (&row.balancedness, &row.replica_balancedness);
    [
        gpus.mean(),
        gpus.worst(),
        gpus.quantile(0.05),
        replicas.mean(),
        replicas.worst(),
        replicas.quantile(0.05),
        row.moved.mean(),
        row.milliseconds.mean(),
    ]
}
