//! Whole plans and single stages on every backend here, as ratios to `greedy` in the same run:
//! `cargo bench --bench plans -- --table FILE`.
//!
//! `greedy` is DeepSeek's rule in plain Rust (`greedy.rs`); `native search` is the CPU backend on one thread.

mod greedy;
mod lpt;
mod race;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use eplb_wgpu::profile::{Batch, Profiler};
use eplb_wgpu::trace::{Family, Generate, LoadHistory, Window, write_whole};
use eplb_wgpu::{Cluster, DeviceChoice, Error, Loads, PlanOptions, Planner, Policy, Preset, devices};

use greedy::{Shape, rebalance};
use race::{Time, Work, line, race};

#[derive(Parser)]
#[command(about = "Plans and stages as ratios to a plain greedy planner in the same run")]
struct Arguments {
    /// Write the tables to this file as well
    #[arg(long)]
    table: Option<PathBuf>,
    /// Loads of a model with 256 experts (.json, .npy, .csv) instead of generated ones
    #[arg(long)]
    loads: Option<PathBuf>,
    /// Adapters, each by index or a part of its name; `cpu` for none. Default: all usable ones
    #[arg(long)]
    device: Vec<DeviceChoice>,
    /// Sections whose names hold this
    #[arg(long, default_value = "")]
    only: String,
    /// Seconds each contender may use a row, beside its first four runs
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// As cargo calls it
    #[arg(long, hide = true)]
    bench: bool,
}

/// Presets that run on every cluster, size and device.
const MAIN: [&str; 3] = ["gen00", "fast", "default"];

/// `experts, replicas, groups, nodes, gpus`.
const fn shape(experts: usize, replicas: usize, groups: usize, nodes: usize, gpus: usize) -> Shape {
    Shape { experts, replicas, groups, nodes, gpus }
}

const V3: Shape = shape(256, 288, 8, 4, 32);

const CLUSTERS: [Shape; 4] =
    [V3, shape(256, 288, 8, 2, 16), shape(256, 288, 1, 1, 32), shape(256, 288, 1, 1, 72)];

/// A software driver takes tens of times as long as this, the CPU backend on one thread.
const SOFTWARE_LIMIT: Duration = Duration::from_millis(120);

/// Layers, shape.
const SIZES: [(usize, Shape); 5] = [
    (94, shape(128, 160, 1, 1, 32)),
    (61, shape(384, 448, 1, 1, 64)),
    (48, shape(512, 576, 1, 1, 64)),
    (64, shape(1024, 1152, 1, 1, 128)),
    (256, shape(256, 288, 8, 4, 32)),
];

/// Sections' names; `--only` picks among them.
const SECTIONS: [&str; 6] = ["presets", "clusters", "sizes", "stages", "lpt", "fits"];

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let mut report = Report { lines: Vec::new() };
    let bench = Bench::new(&arguments)?;
    bench.head(&mut report);
    for section in SECTIONS.into_iter().filter(|name| name.contains(&arguments.only)) {
        match section {
            "presets" => bench.presets(&mut report)?,
            "clusters" => bench.clusters(&mut report)?,
            "sizes" => bench.sizes(&mut report)?,
            "stages" => bench.stages(&mut report)?,
            "lpt" => bench.lpt(&mut report)?,
            _ => bench.fits(&mut report)?,
        }
    }
    match &arguments.table {
        Some(path) => write_whole(path, (report.lines.join("\n") + "\n").as_bytes()),
        None => Ok(()),
    }
}

/// Lines, printed as they come.
struct Report {
    lines: Vec<String>,
}

impl Report {
    fn line(&mut self, line: String) {
        println!("{line}");
        self.lines.push(line);
    }

    fn row(&mut self, cells: &[String]) {
        self.line(format!("| {} |", cells.join(" | ")));
    }

    fn table(&mut self, title: &str, columns: &[String]) {
        for line in ["", &format!("### {title}"), ""] {
            self.line(line.to_string());
        }
        self.row(columns);
        self.line(format!("|{}", "---|".repeat(columns.len())));
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

/// What [`Bench::race_batch`] came to.
struct Raced {
    yardstick_ms: f64,
    /// The stages' times in ms: of the CPU backend, then of each device.
    stages: Vec<Vec<(&'static str, f64)>>,
    /// The work of the search.
    evaluations: u64,
}

struct Bench {
    share: Duration,
    /// The model's loads: 256 experts.
    loads: Loads,
    source: String,
    cpu: Planner,
    one_thread: rayon::ThreadPool,
    devices: Vec<Device>,
}

impl Bench {
    fn new(arguments: &Arguments) -> Result<Self, Error> {
        let (loads, source) = match &arguments.loads {
            Some(path) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (LoadHistory::read(path)?.loads(Window::Sum)?, name)
            }
            None => (generated(58, V3.experts)?, "generated, log-normal(0.6)".to_string()),
        };
        let usable = |(index, device): (usize, eplb_wgpu::DeviceInfo)| {
            device.why_not.is_none().then_some(DeviceChoice::Index(index))
        };
        let choices = match &arguments.device[..] {
            [] => devices().into_iter().enumerate().filter_map(usable).collect(),
            choices => choices.to_vec(),
        };
        let mut opened = Vec::new();
        for choice in choices {
            if let Some(profiler) = Profiler::new(&choice)? {
                opened.push(Device { planner: Planner::new(choice.clone())?, choice, profiler });
            }
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        let refused = |error: rayon::ThreadPoolBuildError| Error::Device {
            device: "CPU backend".to_string(),
            reason: error.to_string(),
        };
        Ok(Self {
            share: Duration::from_secs_f64(arguments.share.clamp(0.0, 600.0)),
            loads,
            source,
            cpu: Planner::new(DeviceChoice::Cpu)?,
            one_thread: pool.map_err(refused)?,
            devices: opened,
        })
    }

    fn head(&self, report: &mut Report) {
        let threads = rayon::current_num_threads();
        report.line(format!("Commit {}, release build, {threads} threads. Devices:", commit()));
        for device in &self.devices {
            let device = device.planner.device();
            let what = if device.is_software { "software driver" } else { device.kind.as_str() };
            report.line(format!("- {}: {what}, {} {}", device.label(), device.driver, device.driver_info));
        }
        if self.devices.is_empty() {
            report.line("- none but the CPU".to_string());
        }
        report.line(String::new());
        report.line(format!(
            "Method: each cell is the ratio to `greedy` (one thread) in the same run, and the time in ms. Rounds of \
             greedy and every contender in turn; medians of 3 to 31 rounds of the ratio taken in each, after a \
             first run that does not count. `native` is the CPU backend on one thread; \
             software drivers are left out where it takes more than {} ms. Loads of {} layers x {} \
             experts: {}; other sizes: generated, log-normal(0.6).",
            SOFTWARE_LIMIT.as_millis(),
            self.loads.layers(),
            self.loads.experts(),
            self.source
        ));
    }

    fn columns(&self, first: &str) -> Vec<String> {
        let mut columns = vec![first.to_string(), "greedy ms".into(), "native".into()];
        columns.push(format!("CPU, {} threads", rayon::current_num_threads()));
        columns.extend(self.devices.iter().map(Device::label));
        columns
    }

    /// Greedy's time and the contenders' for one plan: native, CPU, and the devices where `on_devices`. Software
    /// drivers are left out where they would take minutes.
    fn plan(
        &self,
        loads: &Loads,
        shape: Shape,
        options: &PlanOptions,
        on_devices: bool,
    ) -> Result<(f64, Vec<Option<Time>>), Error> {
        let cluster = cluster(shape)?;
        let plan = |planner: &Planner| planner.plan(loads, &cluster, options).map(|_| ());
        let native = || self.one_thread.install(|| plan(&self.cpu));
        let start = Instant::now();
        native()?;
        let long = start.elapsed() > SOFTWARE_LIMIT;
        let runs = |device: &&Device| on_devices && !(long && device.planner.device().is_software);
        let mut contenders: Vec<Work> = vec![Box::new(native), Box::new(|| plan(&self.cpu))];
        for device in self.devices.iter().filter(runs) {
            contenders.push(Box::new(|| plan(&device.planner)));
        }
        let (greedy, times) = race(self.share, || drop(rebalance(loads.values(), shape)), &mut contenders)?;
        let mut times = times.into_iter().map(Some);
        let mut all: Vec<Option<Time>> = times.by_ref().take(2).collect();
        all.extend(self.devices.iter().map(|device| if runs(&device) { times.next()? } else { None }));
        Ok((greedy, all))
    }

    /// The cells of such a plan.
    fn cells(name: String, greedy: f64, times: &[Option<Time>]) -> Vec<String> {
        let cell = |time: &Option<Time>| match time {
            Some(time) => format!("{:.2} ({:.1} ms)", time.ratio, time.ms),
            None => "-".to_string(),
        };
        [name, format!("{greedy:.2}")].into_iter().chain(times.iter().map(cell)).collect()
    }

    fn presets(&self, report: &mut Report) -> Result<(), Error> {
        report.table(&format!("Presets, {}", name(V3)), &self.columns("preset"));
        let mut firsts = Vec::new();
        for preset in Preset::all() {
            let on_devices = MAIN.contains(&preset.name()) || preset.name() == "thorough";
            let (greedy, times) = self.plan(&self.loads, V3, &preset.options(), on_devices)?;
            report.row(&Self::cells(format!("`{preset}`"), greedy, &times));
            if on_devices {
                firsts.push((preset, times));
            }
        }
        if self.devices.is_empty() {
            return Ok(());
        }
        let title = "A device's first plan of a preset in this process, and later ones, ms";
        let mut columns = vec!["preset".to_string()];
        columns.extend(self.devices.iter().map(Device::label));
        report.table(title, &columns);
        for (preset, times) in firsts {
            let mut cells = vec![format!("`{preset}`")];
            cells.extend(times[2..].iter().map(|time| match time {
                Some(time) => format!("{:.0}, {:.1}", time.first_ms, time.ms),
                None => "-".to_string(),
            }));
            report.row(&cells);
        }
        Ok(())
    }

    fn clusters(&self, report: &mut Report) -> Result<(), Error> {
        report.table("Clusters", &self.columns("cluster, preset"));
        for shape in CLUSTERS {
            for preset in MAIN {
                let options = preset.parse::<Preset>()?.options();
                let (greedy, times) = self.plan(&self.loads, shape, &options, true)?;
                report.row(&Self::cells(format!("{}, `{preset}`", name(shape)), greedy, &times));
            }
        }
        Ok(())
    }

    fn sizes(&self, report: &mut Report) -> Result<(), Error> {
        let mut columns = self.columns("layers, cluster, preset");
        columns.extend(self.devices.iter().map(|d| format!("{}, device MiB", d.label())));
        report.table("Sizes", &columns);
        for (layers, shape) in SIZES {
            let loads = generated(layers, shape.experts)?;
            for preset in MAIN {
                let options = preset.parse::<Preset>()?.options();
                let (greedy, times) = self.plan(&loads, shape, &options, true)?;
                let what = format!("{layers} x {}, {}, `{preset}`", shape.experts, name(shape));
                let mut cells = Self::cells(what, greedy, &times);
                for (device, time) in self.devices.iter().zip(&times[2..]) {
                    if time.is_none() {
                        cells.push("-".to_string());
                        continue;
                    }
                    // Opened anew: its buffers are of this plan alone.
                    let fresh = Profiler::new(&device.choice)?;
                    let bytes = fresh.map(|fresh| {
                        fresh.plan(&loads, &cluster(shape)?, &options)?;
                        Ok::<_, Error>(fresh.device_bytes())
                    });
                    let mib = bytes.transpose()?.unwrap_or(0) as f64 / f64::from(1 << 20);
                    cells.push(format!("{mib:.0}"));
                }
                report.row(&cells);
            }
        }
        Ok(())
    }

    /// Fixed batches, stage by stage: the native code's time on one thread, and a device's by its own clock.
    fn stages(&self, report: &mut Report) -> Result<(), Error> {
        let options = PlanOptions { restarts: 8, ..PlanOptions::default() };
        for shape in [V3, CLUSTERS[2]] {
            let batch = Batch::new(&self.loads, &cluster(shape)?, &options)?;
            let greedy = || drop(rebalance(self.loads.values(), shape));
            let restarts = options.restarts;
            let title =
                format!("Stages: {}, `default` search, {restarts} restarts of every node", name(shape));
            let columns = self.columns("stage");
            report.table(&title, &[&columns[..3], &columns[4..]].concat());
            let Raced { yardstick_ms: greedy_ms, stages: all, evaluations } =
                self.race_batch(&batch, greedy)?;
            let mut stems: Vec<&str> = Vec::new();
            all.iter().flatten().for_each(|(stem, _)| {
                if !stems.contains(stem) {
                    stems.push(stem);
                }
            });
            for stem in stems {
                let mut cells = vec![format!("`{stem}`"), format!("{greedy_ms:.2}")];
                cells.extend(all.iter().map(|times| {
                    let found = times.iter().find(|(known, _)| *known == stem);
                    found.map_or("-".into(), |(_, ms)| format!("{:.2} ({ms:.1} ms)", ms / greedy_ms))
                }));
                report.row(&cells);
            }
            let mut cells = vec!["million evaluations/s".to_string(), String::new()];
            cells.extend(all.iter().map(|times| {
                let search = times.iter().find(|(stem, _)| *stem == "s5_refine");
                search.map_or("-".into(), |(_, ms)| format!("{:.0}", evaluations as f64 / ms / 1e3))
            }));
            report.row(&cells);
        }
        Ok(())
    }

    /// A batch on the CPU backend, one thread, and on the devices, beside a yardstick in the same run.
    fn race_batch(&self, batch: &Batch, yardstick: impl FnMut()) -> Result<Raced, Error> {
        let mut native = Vec::new();
        let mut timed = vec![Vec::new(); self.devices.len()];
        let mut evaluations = 0;
        let mut contenders: Vec<Work> = vec![Box::new(|| {
            let (times, work) = batch.on_cpu();
            evaluations = work;
            native.push(times);
            Ok(())
        })];
        for (device, timed) in self.devices.iter().zip(&mut timed) {
            contenders.push(Box::new(move || {
                timed.push(batch.on_device(&device.profiler)?.0);
                Ok(())
            }));
        }
        let (yardstick_ms, _) = race(self.share, yardstick, &mut contenders)?;
        drop(contenders);
        let stages = std::iter::once(&native).chain(&timed).map(|runs| middle(runs)).collect();
        Ok(Raced { yardstick_ms, stages, evaluations })
    }

    /// Stage 4 alone, 64 restarts, as ratios to scalar code on one thread. With `LP_NUM_THREADS=1` a Mesa software
    /// driver has one too.
    fn lpt(&self, report: &mut Report) -> Result<(), Error> {
        let shape = CLUSTERS[2];
        let mut columns = vec!["64 restarts".to_string(), "scalar ms".into(), "native".into()];
        columns.extend(self.devices.iter().map(Device::label));
        report.table(&format!("LPT packing, {}", name(shape)), &columns);
        let slots = lpt::Slots { gpus: shape.gpus, per_gpu: shape.replicas / shape.gpus };
        let counts = rebalance(self.loads.values(), shape).replica_counts;
        // Loads that add up to less than 2^32 a layer, as a planner in integers has them.
        let heaviest = self.loads.values().iter().copied().fold(1.0, f64::max);
        let scaled = |load: &f64| (load / heaviest * f64::from(1 << 22)) as u32;
        let loads: Vec<u32> = self.loads.values().iter().map(scaled).collect();
        let rows = [("noise on counts and on packing", true), ("noise on packing, one order a layer", false)];
        for (what, count_noise) in rows {
            let options = PlanOptions { restarts: 64, search: None, count_noise, ..PlanOptions::default() };
            let batch = Batch::new(&self.loads, &cluster(shape)?, &options)?;
            let (mut packing, mut order, mut heaviest) = (lpt::Packing::default(), Vec::new(), 0);
            let scalar = || {
                for (loads, counts) in
                    loads.chunks_exact(shape.experts).zip(counts.chunks_exact(shape.experts))
                {
                    for restart in 0..options.restarts {
                        if count_noise || restart == 0 {
                            lpt::order(loads, counts, &mut order);
                        }
                        heaviest = packing.pack(&order, slots, restart).max(heaviest);
                    }
                }
            };
            let Raced { yardstick_ms: scalar_ms, stages, .. } = self.race_batch(&batch, scalar)?;
            // The work is done, whoever looks at it.
            std::hint::black_box(heaviest);
            let mut cells = vec![what.to_string(), format!("{scalar_ms:.1}")];
            cells.extend(stages.iter().map(|times| {
                let found = times.iter().find(|(stem, _)| *stem == "s4_pack");
                found.map_or("-".into(), |(_, ms)| format!("{:.2} ({ms:.1} ms)", ms / scalar_ms))
            }));
            report.row(&cells);
        }
        Ok(())
    }

    /// Time against layers and restarts, with a line through it.
    fn fits(&self, report: &mut Report) -> Result<(), Error> {
        let global = CLUSTERS[2];
        // The same layers again and again, and no early end: the work grows with the number alone.
        let tile = generated(16, V3.experts)?;
        let fast = PlanOptions { stop_gap_ppm: 0, ..("fast".parse::<Preset>()?.options()) };
        let layers: Vec<_> = [1usize, 2, 4, 8, 16]
            .into_iter()
            .map(|times| {
                let loads = Loads::from_f64(16 * times, V3.experts, &tile.values().repeat(times))?;
                Ok(((16 * times) as f64, loads, fast.clone()))
            })
            .collect::<Result<_, Error>>()?;
        let restarts: Vec<_> = [4, 8, 16, 32, 64]
            .into_iter()
            .map(|n| (f64::from(n), tile.clone(), PlanOptions { restarts: n, ..fast.clone() }))
            .collect();
        let series = [("layers 16 to 256", V3, layers), ("restarts 4 to 64, 16 layers", global, restarts)];
        let columns = self.columns("n");
        let title = "Linear fits to the fastest runs of `fast`: ms = at 0 + slope x n, largest deviation";
        report.table(title, &[&columns[..1], &columns[2..]].concat());
        for (what, shape, points) in series {
            let cluster = cluster(shape)?;
            let mut cells = vec![format!("{what}, {}", name(shape))];
            let planners = [(&self.cpu, true), (&self.cpu, false)];
            let devices = self.devices.iter().map(|device| (&device.planner, false));
            for (planner, one_thread) in planners.into_iter().chain(devices) {
                // In turns, so that a slow minute of the machine is every point's.
                let works = points.iter().map(|(_, loads, options)| -> Work {
                    let plan = || planner.plan(loads, &cluster, options).map(|_| ());
                    let plan = move || if one_thread { self.one_thread.install(plan) } else { plan() };
                    Box::new(plan)
                });
                let (_, times) = race(self.share, || (), &mut works.collect::<Vec<_>>())?;
                let fastest = points.iter().zip(times).map(|((n, ..), time)| (*n, time.least_ms));
                let fastest: Vec<(f64, f64)> = fastest.collect();
                let (at_0, slope, deviation) = line(&fastest);
                let shown: Vec<String> = fastest.iter().map(|(_, ms)| format!("{ms:.1}")).collect();
                cells.push(format!("{at_0:.2} + {slope:.4} n, {deviation:.0} % ({})", shown.join(", ")));
            }
            report.row(&cells);
        }
        Ok(())
    }
}

/// The run with the middle total, in ms.
fn middle(runs: &[Vec<(&'static str, Duration)>]) -> Vec<(&'static str, f64)> {
    let total = |run: &&Vec<(&str, Duration)>| run.iter().map(|(_, time)| *time).sum::<Duration>();
    // The first run pays for what later ones reuse.
    let mut sorted: Vec<_> = runs.iter().skip(1).collect();
    sorted.sort_by_key(total);
    let middle = sorted.get(sorted.len() / 2);
    middle.map_or_else(Vec::new, |run| {
        run.iter().map(|(stem, time)| (*stem, time.as_secs_f64() * 1e3)).collect()
    })
}

fn cluster(shape: Shape) -> Result<Cluster, Error> {
    Cluster::new(shape.replicas, shape.groups, shape.nodes, shape.gpus)
}

fn name(shape: Shape) -> String {
    let Shape { replicas, groups, nodes, gpus, .. } = shape;
    match cluster(shape).map(|cluster| cluster.policy()) {
        Ok(Policy::Hierarchical) => {
            format!("{replicas} replicas, {groups} groups, {nodes} nodes, {gpus} GPUs")
        }
        _ => format!("{replicas} replicas, global, {gpus} GPUs"),
    }
}

fn generated(layers: usize, experts: usize) -> Result<Loads, Error> {
    // About as uneven as DeepSeek-V3's measured loads.
    let family = Family::Lognormal(0.6);
    Generate { family, layers, experts, ..Generate::default() }.history()?.loads(Window::Sum)
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
