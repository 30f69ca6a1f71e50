//! The `eplb` command, one file a verb.

mod bench;
mod check;
mod devices;
mod fingerprints;
mod generate;
mod plan;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::Error;
use crate::trace::{LoadHistory, Window};

/// Exit code of bad input.
const BAD_INPUT: u8 = 2;

#[derive(Parser)]
#[command(name = "eplb", version, about = "Plans where the experts of a Mixture-of-Experts model live")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a plan from a load file
    Plan(plan::Plan),
    /// Check and score a plan file, by code that shares nothing with the planner
    Check(check::Check),
    /// List every adapter, what it can do, and which one `auto` takes
    Devices(devices::Devices),
    /// Run the benchmark suite on every adapter, join records, or compare every preset
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
    fn read(&self, loads: &std::path::Path) -> Result<crate::Loads, Error> {
        let history = LoadHistory::read(loads)?;
        match &self.layers {
            Some(range) => history.select_layers(range.clone())?.loads(self.window),
            None => history.loads(self.window),
        }
    }
}

fn parse_range(text: &str) -> Result<std::ops::Range<usize>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parts.ok_or_else(|| "is not A..B".to_string())
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
        Verb::Check(verb) => verb.run(),
        Verb::Devices(verb) => verb.run(),
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
