//! The `eplb` command, one file a verb.

#[cfg(feature = "gpu")]
mod bench;
mod check;
mod devices;
mod fingerprints;
mod generate;
mod plan;
mod replay;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::bound::BoundEffort;
use crate::rebalance::RebalanceOptions;
use crate::trace::{LoadHistory, Window};
use crate::{Error, MaxMoves, MoveLimits, PLAN_VERSION};

/// What `eplb --version` tells: ranks compare the version of plans during a rolling upgrade.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (plan version {PLAN_VERSION})", env!("CARGO_PKG_VERSION")));

/// Exit code of bad input.
const BAD_INPUT: u8 = 2;

#[derive(Parser)]
#[command(name = "eplb", version = VERSION.as_str(), about = "Plans where the experts of a Mixture-of-Experts model live")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a plan from a load file
    Plan(plan::Plan),
    /// Walk a trace: plan on the windows so far, score on the next one, strategy by strategy
    Replay(replay::ReplayTrace),
    /// Check and score a plan file, by code that shares nothing with the planner
    Check(check::Check),
    /// List every adapter, what it can do, and which one `auto` takes
    Devices(devices::Devices),
    /// Run the benchmark suite on every adapter, join records, or compare every preset
    #[cfg(feature = "gpu")]
    Bench(bench::Bench),
    /// Generate synthetic loads
    Generate(generate::GenerateLoads),
}

/// Which part of a load file is meant.
#[derive(Args)]
struct Part {
    /// Windows of the file: sum, last, or a number from 0
    #[arg(long, default_value = "sum")]
    window: Window,
    /// Layers of the file, as A..B
    #[arg(long, value_parser = parse_range)]
    layers: Option<std::ops::Range<usize>>,
}

impl Part {
    fn read(&self, loads: &Path) -> Result<crate::Loads, Error> {
        self.history(loads)?.loads(self.window)
    }

    /// All windows of the file.
    fn history(&self, loads: &Path) -> Result<LoadHistory, Error> {
        read_layers(loads, self.layers.as_ref())
    }
}

/// The layers of a file, all where no range is given.
fn read_layers(loads: &Path, layers: Option<&std::ops::Range<usize>>) -> Result<LoadHistory, Error> {
    let history = LoadHistory::read(loads)?;
    match layers {
        Some(range) => history.select_layers(range.clone()),
        None => Ok(history),
    }
}

/// The bound of `plan` and `check`.
fn bound_effort(tight: bool) -> BoundEffort {
    if tight { BoundEffort::Tight } else { BoundEffort::Quick }
}

/// How a plan may move away from the one before.
#[derive(Args)]
struct Limits {
    /// The most slots that may move, all layers together: a number, or a part of all slots as in 15%
    #[arg(long, value_parser = parse_most)]
    max_moves: Option<MaxMoves>,
    /// The most slots of a layer that may move: a number, or a part of its slots as in 15%
    #[arg(long, value_parser = parse_most)]
    max_moves_per_layer: Option<MaxMoves>,
    /// What moving all slots of a layer must bring, as a part of its objective: 0.08 is 8 %
    #[arg(long, value_parser = parse_part)]
    min_gain: Option<u32>,
    /// How much worse than a fresh plan a layer may stay: 0.005 is 0.5 %
    #[arg(long, value_parser = parse_part)]
    max_loss: Option<u32>,
    /// Leave layers alone whose balancedness is at least this
    #[arg(long, value_parser = parse_part)]
    skip_if_balanced: Option<u32>,
}

impl Limits {
    /// What the flags change of some limits.
    fn limits(&self, default: &MoveLimits) -> MoveLimits {
        MoveLimits {
            max_moves: self.max_moves.or(default.max_moves),
            max_moves_per_layer: self.max_moves_per_layer.or(default.max_moves_per_layer),
            min_gain_ppm: self.min_gain.unwrap_or(default.min_gain_ppm),
            max_loss_ppm: self.max_loss.unwrap_or(default.max_loss_ppm),
            skip_if_balanced_ppm: self.skip_if_balanced.or(default.skip_if_balanced_ppm),
        }
    }
}

/// What the next window is planned from.
#[derive(Args)]
struct Outlook {
    /// Windows that `scenarios` plans on
    #[arg(long)]
    windows: Option<usize>,
    /// What a window weighs of the one after it, under `scenarios`
    #[arg(long)]
    decay: Option<f64>,
    /// Windows that `auto` tries the strategies on
    #[arg(long)]
    backtest: Option<usize>,
}

impl Outlook {
    fn options(&self, limits: MoveLimits) -> RebalanceOptions {
        let default = RebalanceOptions::default();
        RebalanceOptions {
            windows: self.windows.unwrap_or(default.windows),
            decay: self.decay.unwrap_or(default.decay),
            backtest: self.backtest.unwrap_or(default.backtest),
            limits,
            ..default
        }
    }
}

fn parse_most(text: &str) -> Result<MaxMoves, String> {
    let rule = "is neither a number of slots nor a part as in 15%";
    match text.strip_suffix('%').map(str::parse::<f64>) {
        None => text.parse().map(MaxMoves::Slots).map_err(|_| rule.to_string()),
        Some(Ok(percent)) => parse_part(&(percent / 100.0).to_string()).map(MaxMoves::Ppm),
        Some(Err(_)) => Err(rule.to_string()),
    }
}

/// A part of one, in millionths.
fn parse_part(text: &str) -> Result<u32, String> {
    let part = text.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
    part.map(|part| (part * 1e6).round() as u32).ok_or_else(|| "is not between 0 and 1".to_string())
}

fn parse_range(text: &str) -> Result<std::ops::Range<usize>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parts.ok_or_else(|| "is not A..B".to_string())
}

/// Fails before any work where its result could not be written after it, or would take the place of an input.
fn check_writable<'a>(path: &Path, inputs: impl IntoIterator<Item = &'a PathBuf>) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(Error::unwritable(path, "it is a folder"));
    }
    // A file that is not there is none of the inputs.
    if let Ok(place) = path.canonicalize()
        && inputs.into_iter().any(|input| input.canonicalize().is_ok_and(|input| input == place))
    {
        return Err(Error::unwritable(path, "it is an input of this command; give --out another name"));
    }
    tempfile::tempfile_in(folder).map(drop).map_err(|error| Error::write(path, error))
}

/// Runs the command with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let command = match Command::try_parse() {
        Ok(command) => command,
        Err(error) => {
            let help = !error.use_stderr();
            // A closed pipe is no reason to fail.
            let _ = error.print();
            return if help { ExitCode::SUCCESS } else { ExitCode::from(BAD_INPUT) };
        }
    };
    let done = match command.verb {
        Verb::Plan(verb) => verb.run(),
        Verb::Replay(verb) => verb.run(),
        Verb::Check(verb) => verb.run(),
        Verb::Devices(verb) => verb.run(),
        #[cfg(feature = "gpu")]
        Verb::Bench(verb) => verb.run(),
        Verb::Generate(verb) => verb.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            let _ = writeln!(std::io::stderr(), "eplb: {line}");
            ExitCode::from(BAD_INPUT)
        }
    }
}

/// Prints to stdout; a closed pipe is not an error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Rows of a name and a value, aligned.
fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

fn percent(ratio: f64) -> String {
    format!("{:.4} %", ratio * 100.0)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
