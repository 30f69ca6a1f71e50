//! The `eplb` command, one file a verb.

mod advise;
#[cfg(feature = "gpu")]
mod bench;
mod check;
mod compared;
mod convert;
mod devices;
mod fingerprints;
mod foreign;
mod generate;
mod io;
mod joined;
mod limits;
mod map_form;
mod pages;
mod plan;
mod pool;
mod presets;
mod progress;
mod replay;
mod report;
pub mod speeds;
mod split;
mod traffic;
mod words;

use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bound::BoundEffort;
use crate::check::Quality;
use crate::maps::PlanFormat;
use crate::trace::{LoadFormat, LoadHistory, Window};
use crate::{Error, PLAN_VERSION};

use foreign::ForeignArgs;
use io::{complain, print};
use limits::{MoveLimitArgs, Outlook};
use map_form::MapForm;

/// The text of `eplb --version`: ranks compare the version of plans during a rolling upgrade.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (plan version {PLAN_VERSION})", env!("CARGO_PKG_VERSION")));

/// Exit code of bad input.
const BAD_INPUT: u8 = 2;

#[derive(Parser)]
#[command(
    name = "eplb",
    version = VERSION.as_str(),
    about = "Plans where the experts of a Mixture-of-Experts model live",
    after_help = "Examples:
  eplb plan loads.json --replicas 288 --groups 8 --nodes 4 --gpus 32 --out plan.json
  eplb check loads.json plan.json
  eplb convert plan.json init.json --format sglang
  eplb help plan                                     all about one verb

Exit codes: 0 done; 1 a check failed; 2 bad input, or a file that could not be read or written; 130 stopped by Ctrl-C."
)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a plan from a load file
    Plan(Box<plan::Plan>),
    /// Walk a trace: plan on the windows so far, score on the next one
    Replay(replay::ReplayTrace),
    /// Make a table of shares: which part of an expert's tokens each of its replicas serves
    Split(split::Split),
    /// Check and score a plan or a map, by code that shares nothing with the planner
    Check(check::Check),
    /// Make a page to look at: loads of GPUs, balancedness, hot experts, moves
    Report(report::Report),
    /// Tell how many replicas pay, and what to type
    Advise(advise::Advise),
    /// Turn a plan or a map into the form of another program
    Convert(convert::Convert),
    /// List every adapter, what it can do, and which one `auto` takes
    Devices(devices::Devices),
    /// Run the benchmark suite on every adapter, join records, or compare every preset
    #[cfg(feature = "gpu")]
    Bench(bench::Bench),
    /// Generate synthetic loads
    Generate(generate::GenerateLoads),
    /// Print what a shell completes this command with
    Completions(pages::Completions),
    /// Print a manual page
    Man(pages::Man),
}

/// Which part of a load file is meant.
#[derive(Args)]
struct FilePart {
    /// Windows of the file: sum, last, or a number from 0
    #[arg(long, default_value = "sum")]
    window: Window,
    /// Layers of the file by number, as A..B: from A on, up to but not B
    #[arg(long, value_parser = parse_range, value_name = "A..B")]
    layers: Option<std::ops::Range<usize>>,
    #[command(flatten)]
    form: Form,
}

/// Facts that a load file does not tell itself.
#[derive(Args)]
struct Form {
    /// Format of the load files, where their content could be two
    #[arg(long, value_name = "FORMAT", value_parser = parse_load_format())]
    load_format: Option<LoadFormat>,
    /// Experts of a layer, where the file names those with tokens alone; the largest number in it tells otherwise
    #[arg(long)]
    experts: Option<usize>,
}

impl Form {
    fn read(&self, loads: &Path) -> Result<LoadHistory, Error> {
        let history = io::read_loads(loads, self.load_format)?;
        match self.experts {
            Some(experts) => history.with_experts(experts),
            None => Ok(history),
        }
    }
}

impl FilePart {
    fn read(&self, loads: &Path) -> Result<crate::Loads, Error> {
        self.history(loads)?.loads(self.window)
    }

    /// The options given.
    fn given(&self) -> [(bool, &'static str); 4] {
        [
            (self.window != Window::Sum, "--window"),
            (self.layers.is_some(), "--layers"),
            (self.form.load_format.is_some(), "--load-format"),
            (self.form.experts.is_some(), "--experts"),
        ]
    }

    /// The options that say which part it is, as they are typed, each with a blank before it.
    fn typed(&self) -> String {
        let window = match self.window {
            Window::Sum => None,
            Window::Last => Some("last".to_string()),
            Window::Index(at) => Some(at.to_string()),
        };
        let options = [
            ("window", window),
            ("layers", self.layers.as_ref().map(|range| format!("{}..{}", range.start, range.end))),
            ("load-format", self.form.load_format.map(|format| format.to_string())),
            ("experts", self.form.experts.map(|experts| experts.to_string())),
        ];
        options.into_iter().filter_map(|(name, value)| Some(format!(" --{name} {}", value?))).collect()
    }

    /// All windows of the file.
    fn history(&self, loads: &Path) -> Result<LoadHistory, Error> {
        read_layers(loads, self.layers.as_ref(), &self.form)
    }
}

/// The layers of a file, all where no range is given.
fn read_layers(
    loads: &Path,
    layers: Option<&std::ops::Range<usize>>,
    form: &Form,
) -> Result<LoadHistory, Error> {
    let history = form.read(loads)?;
    match layers {
        Some(range) => history.select_layers(range.clone()),
        None => Ok(history),
    }
}

fn parse_load_format() -> impl TypedValueParser<Value = LoadFormat> {
    let names = PossibleValuesParser::new(LoadFormat::ALL.iter().map(|format| format.name()));
    names.try_map(|name| name.parse::<LoadFormat>())
}

fn parse_format() -> impl TypedValueParser<Value = PlanFormat> {
    let names = PossibleValuesParser::new(PlanFormat::ALL.iter().map(|format| format.name()));
    names.try_map(|name| name.parse::<PlanFormat>())
}

/// The format to write a map in, by the file's ending where none is given.
fn format_of(format: Option<PlanFormat>, out: &Path) -> Result<PlanFormat, Error> {
    if io::is_standard(out) { Ok(format.unwrap_or_default()) } else { PlanFormat::to_write(out, format) }
}

/// The bound of `plan` and `check`.
fn bound_effort(tight: bool) -> BoundEffort {
    if tight { BoundEffort::Tight } else { BoundEffort::Quick }
}

/// A time in seconds.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "is not a number of seconds".to_string())
}

fn parse_range(text: &str) -> Result<std::ops::Range<usize>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    let rule = "is not A..B: layers by number, from A on, up to but not B; 0..3 are the layers 0, 1 and 2";
    parts.ok_or_else(|| rule.to_string())
}

impl Verb {
    /// How many threads are asked for.
    fn threads(&self) -> Option<usize> {
        match self {
            Verb::Plan(verb) => verb.threads(),
            _ => None,
        }
    }

    /// The work of a verb that has no steps to count, or until it counts them.
    fn doing(&self) -> Option<&'static str> {
        match self {
            Verb::Plan(_) | Verb::Replay(_) | Verb::Advise(_) => Some("reading"),
            Verb::Split(_) => Some("dealing out"),
            Verb::Check(_) => Some("checking"),
            Verb::Report(_) => Some("drawing"),
            Verb::Convert(_) => Some("converting"),
            Verb::Devices(_) => Some("looking for devices"),
            Verb::Generate(_) => Some("generating"),
            _ => None,
        }
    }

    fn run(self) -> Result<ExitCode, Error> {
        let _shown = self.doing().map(progress::ShownProgress::waiting);
        match self {
            Verb::Plan(verb) => verb.run(),
            Verb::Replay(verb) => verb.run(),
            Verb::Split(verb) => verb.run(),
            Verb::Check(verb) => verb.run(),
            Verb::Report(verb) => verb.run(),
            Verb::Advise(verb) => verb.run(),
            Verb::Convert(verb) => verb.run(),
            Verb::Devices(verb) => verb.run(),
            #[cfg(feature = "gpu")]
            Verb::Bench(verb) => verb.run(),
            Verb::Generate(verb) => verb.run(),
            Verb::Completions(verb) => verb.run(),
            Verb::Man(verb) => verb.run(),
        }
    }
}

/// Parses the arguments of the process. After an option that takes a value, an argument that begins with a minus is that value: so
/// the error names the option.
fn parse() -> Result<Command, clap::Error> {
    let others = ["weights", "without_gpus", "layers", "max_moves", "max_moves_per_layer", "expert_bytes"];
    let takes_minus = |arg: Arg| match arg.get_long() {
        Some(_) if others.contains(&arg.get_id().as_str()) => arg.allow_hyphen_values(true),
        Some(_) if arg.get_action().takes_values() => arg.allow_negative_numbers(true),
        _ => arg,
    };
    let mut command = Command::command().mut_subcommands(|verb| verb.mut_args(takes_minus));
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Command::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Runs the command with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    progress::end_on_interrupt();
    let done = match parse() {
        Ok(command) => pool::run(command.verb.threads(), || command.verb.run()).and_then(|done| done),
        // Nothing was asked for: what can be, on standard error.
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = help.print();
            return ExitCode::from(BAD_INPUT);
        }
        Err(error) if error.use_stderr() => {
            let word = error.get(ContextKind::InvalidSubcommand);
            let said = word.and_then(|word| words::of_unknown_verb(&word.to_string()));
            complain(&said.unwrap_or_else(|| words::of_parser(&error)));
            return ExitCode::from(BAD_INPUT);
        }
        Err(help) => {
            print(help.render().to_string().trim_end());
            Ok(ExitCode::SUCCESS)
        }
    };
    if let Err(error) = &done {
        complain(&words::of_error(error));
        return ExitCode::from(BAD_INPUT);
    }
    if let Some(error) = io::failure() {
        complain(&format!("cannot write to standard output: {error}"));
        return ExitCode::from(BAD_INPUT);
    }
    done.unwrap_or(ExitCode::from(BAD_INPUT))
}

/// Rows of a name and a value, aligned.
fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

/// The most bars of a row: of more values the largest of each run is shown.
const MOST_BARS: usize = 32;

/// A row of bars, from `least` to the largest of the values.
fn bars(values: &[f64], least: f64) -> String {
    let most = values.iter().copied().fold(least, f64::max);
    let runs = values.chunks(values.len().div_ceil(MOST_BARS).max(1));
    let bar = |run: &[f64]| {
        let value = run.iter().copied().fold(least, f64::max);
        // Lower than the highest is not as high.
        let eighths = if value < most { ((value - least) / (most - least) * 8.0) as u32 } else { 8 };
        io::bar(if most > least { eighths } else { 1 })
    };
    runs.map(bar).collect()
}

/// The mean and the largest of some loads.
fn mean_and_most(loads: &[f64]) -> (f64, f64) {
    (loads.iter().sum::<f64>() / loads.len() as f64, loads.iter().copied().fold(0.0, f64::max))
}

/// The balancedness that no plan passes, of a quality with bounds.
fn limit(quality: &Quality) -> f64 {
    let layers = quality.layers.iter();
    let sums = layers.fold((0.0, 0.0), |(means, bounds), layer| {
        (means + layer.mean_gpu_load, bounds + layer.lower_bound.max(layer.mean_gpu_load))
    });
    if sums.1 > 0.0 { (sums.0 / sums.1).min(1.0) } else { 1.0 }
}

/// `0.02 % (layer 11)`
fn worst_gap(quality: &Quality, layer_ids: &[u32]) -> String {
    let layer = quality.worst_layer().and_then(|layer| layer_ids.get(layer));
    let layer = layer.map_or_else(String::new, |layer| format!(" (layer {layer})"));
    percent(quality.worst_gap()) + &layer
}

fn percent(ratio: f64) -> String {
    format!("{:.4} %", ratio * 100.0)
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
