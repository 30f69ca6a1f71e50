//! Whole plans and single stages on every backend here, as ratios to `greedy` in the same run, and what the planner
//! has to reach: `cargo bench --bench plans -- --only targets --data DIR`.
//!
//! `greedy` is DeepSeek's rule in plain Rust (`greedy.rs`); `native` is the CPU backend on one thread.

mod curves;
mod device_rows;
mod greedy;
mod lpt;
mod moving;
mod race;
mod report;
mod sections;
mod shapes;
mod shares;
mod stages;
mod targets;
mod tunings;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use eplb_wgpu::profile::Profiler;
use eplb_wgpu::trace::{LoadHistory, Window};
use eplb_wgpu::{DeviceChoice, Error, Loads, Planner, devices};
use serde_json::json;

use report::Report;
use sections::SOFTWARE_LIMIT;

#[derive(Parser)]
#[command(about = "Plans and stages as ratios to a plain greedy planner in the same run")]
struct Arguments {
    /// Write the tables to this file as well
    #[arg(long)]
    table: Option<PathBuf>,
    /// Loads of a model with 256 experts (.json, .npy, .csv) instead of generated ones
    #[arg(long)]
    loads: Option<PathBuf>,
    /// Folder of the load files that `targets` names; rows of files are left out without it
    #[arg(long)]
    data: Option<PathBuf>,
    /// Adapters, each by index or a part of its name; `cpu` for none. Default: all usable ones
    #[arg(long)]
    device: Vec<DeviceChoice>,
    /// Sections whose names hold this. Default: presets, clusters, sizes, stages, lpt, fits, targets. Others are
    /// thorough (targets of that preset), iterations, families, devices, starts, tunings, moving (plans over time), shares
    #[arg(long)]
    only: Option<String>,
    /// Seconds each contender may use a row, beside its first four runs
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// With `--only devices`, `starts`, `tunings`: a few small rows
    #[arg(long)]
    short: bool,
    /// With these: begin no row after this many seconds
    #[arg(long, default_value_t = 300.0)]
    seconds: f64,
    /// One JSON object a row
    #[arg(long)]
    json: bool,
    /// As cargo calls it
    #[arg(long, hide = true)]
    bench: bool,
}

/// Sections' names, and whether they run unasked; `--only` picks among all.
const SECTIONS: [(&str, bool); 15] = [
    ("presets", true),
    ("clusters", true),
    ("sizes", true),
    ("stages", true),
    ("lpt", true),
    ("fits", true),
    ("targets", true),
    ("thorough", false),
    ("iterations", false),
    ("families", false),
    ("devices", false),
    ("starts", false),
    ("tunings", false),
    ("moving", false),
    ("shares", false),
];

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.json);
    let bench = Bench::new(&arguments)?;
    bench.head(&mut report);
    let chosen = |&(name, unasked): &(&str, bool)| match &arguments.only {
        Some(only) => name.contains(only.as_str()),
        None => unasked,
    };
    for (section, _) in SECTIONS.into_iter().filter(chosen) {
        match section {
            "presets" => bench.presets(&mut report)?,
            "clusters" => bench.clusters(&mut report)?,
            "sizes" => bench.sizes(&mut report)?,
            "stages" => bench.stages(&mut report)?,
            "lpt" => bench.lpt(&mut report)?,
            "fits" => bench.fits(&mut report)?,
            "targets" => bench.targets(&mut report)?,
            "thorough" => bench.thorough(&mut report)?,
            "iterations" => bench.iterations(&mut report)?,
            "families" => bench.families(&mut report)?,
            "devices" => bench.device_rows(&mut report, arguments.short, arguments.seconds)?,
            "moving" => bench.moving(&mut report)?,
            "shares" => bench.shares(&mut report)?,
            "starts" => bench.starts(&mut report, arguments.short, arguments.seconds)?,
            _ => bench.tunings(&mut report, arguments.short, arguments.seconds)?,
        }
    }
    match &arguments.table {
        Some(path) => std::fs::write(path, report.lines.join("\n") + "\n").map_err(|error| {
            eprintln!("cannot write {}: {error}", path.display());
            std::process::exit(2)
        }),
        None => Ok(()),
    }
}

/// An adapter, opened for plans and for the times of stages.
struct Device {
    choice: DeviceChoice,
    planner: Planner,
    profiler: Profiler,
}

impl Device {
    fn label(&self) -> String {
        self.planner.device().label()
    }
}

struct Bench {
    start: Instant,
    share: Duration,
    /// The model's loads: 256 experts.
    loads: Loads,
    source: String,
    data: Option<PathBuf>,
    cpu: Planner,
    one_thread: rayon::ThreadPool,
    two_threads: rayon::ThreadPool,
    devices: Vec<Device>,
}

impl Bench {
    fn new(arguments: &Arguments) -> Result<Self, Error> {
        let start = Instant::now();
        let (loads, source) = match &arguments.loads {
            Some(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (LoadHistory::read(path)?.loads(Window::Sum)?, name)
            }
            None => {
                let loads = shapes::generated(shapes::V3_LAYERS, shapes::V3.experts)?;
                (loads, "generated, log-normal(0.6)".to_string())
            }
        };
        let usable = |(index, device): (usize, eplb_wgpu::DeviceInfo)| {
            device.unusable_because.is_none().then_some(DeviceChoice::Index(index))
        };
        let choices = match &arguments.device[..] {
            [] => devices().into_iter().enumerate().filter_map(usable).collect(),
            choices => choices.to_vec(),
        };
        let mut opened = Vec::new();
        for choice in choices {
            if let Some(profiler) = pollster::block_on(Profiler::new(&choice))? {
                opened.push(Device { planner: Planner::new(choice.clone())?, choice, profiler });
            }
        }
        Ok(Self {
            start,
            share: Duration::from_secs_f64(arguments.share.clamp(0.0, 600.0)),
            loads,
            source,
            data: arguments.data.clone(),
            cpu: Planner::new(DeviceChoice::Cpu)?,
            one_thread: pool(1),
            two_threads: pool(2),
            devices: opened,
        })
    }

    fn head(&self, report: &mut Report) {
        let threads = rayon::current_num_threads();
        let load = load_average();
        report.line(format!("Commit {}, release build, {threads} threads, load {load}. Devices:", commit()));
        let mut listed = Vec::new();
        for device in &self.devices {
            let info = device.planner.device();
            let what = if info.is_software { "software driver" } else { info.kind.as_str() };
            report.line(format!("- {}: {what}, {} {}", info.label(), info.driver, info.driver_info));
            listed.push(json!({
                "name": info.name, "backend": info.backend, "kind": info.kind, "software": info.is_software,
                "driver": info.driver, "driver_info": info.driver_info,
                "timestamps": device.profiler.is_timed(),
            }));
        }
        if self.devices.is_empty() {
            report.line("- none but the CPU".to_string());
        }
        report.record(json!({
            "commit": commit(), "version": env!("CARGO_PKG_VERSION"), "threads": threads, "load": load,
            "devices": listed,
        }));
        report.line(String::new());
        report.line(format!(
            "Method: each cell is the ratio to `greedy` (one thread) in the same run, and the time in ms. Rounds of \
             greedy and every contender in turn; medians of 3 to 31 rounds of the ratio taken in each, after a \
             first run that does not count. `native` is the CPU backend on one thread; \
             software drivers are left out where it takes more than {} ms. Loads of {} layers x {} \
             experts: {}; other sizes: generated, log-normal(0.6). Tables with a method of their own say so.",
            SOFTWARE_LIMIT.as_millis(),
            self.loads.layers(),
            self.loads.experts(),
            self.source
        ));
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("the system starts two threads")
}

/// Processes that wanted to run in the last minutes, where the system tells.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minutes: Vec<&str> = text.split_whitespace().take(3).collect();
    if minutes.is_empty() { "unknown".to_string() } else { minutes.join(" ") }
}

/// The commit this is built from, marked where files differ from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_string() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
    format!("{}{}", head.trim(), if changed { ", changed since" } else { "" })
}
