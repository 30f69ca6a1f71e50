//! Targets of the planner: the quality and the time of each row, with what it must be and what it aims at.
//!
//! Real loads are read from a folder (`--data`) and are not part of the repository; rows without a file of their own
//! are log-normal(1) of three seeds.

use std::path::Path;

use eplb_wgpu::trace::{Family, LoadHistory, Window};
use eplb_wgpu::{Cluster, Error, Loads, PlanOptions, Preset};
use serde_json::{Value, json};

use crate::greedy::{Shape, rebalance};
use crate::race::{Pair, paired};
use crate::report::{Report, columns};
use crate::shapes::{
    E512, E1024, KIMI_K2, KIMI_K3, QWEN3, V3, V3_GLOBAL, V3_TWO_NODES, cluster, drawn, name, shape, v3_on,
};
use crate::{Bench, load_average};

pub const PREFILL: &str = "deepseek-v3-prefill-512.json";
const DECODE: &str = "deepseek-v3-decode-500out1500.json";
const DRIFT: &str = "deepseek-v3-drift-semisynthetic.npy";
const INTENT: &str = "deepseek-v2-lite-intent.npy";
const SUMMARY: &str = "deepseek-v2-lite-summary.npy";
const GEMMA: &str = "gemma4-26b-general.npy";
const GPT_OSS: &str = "gpt-oss-20b-mmlu.npy";

/// Seeds of generated loads.
const SEEDS: u64 = 3;
/// Windows of a plan over several, and what each weighs of the one after it.
const WINDOWS: usize = 8;
const DECAY: f64 = 0.7;

/// Where a row's loads are from.
#[derive(Clone, Copy)]
enum Source {
    /// A file of the folder, its windows added up.
    File(&'static str),
    /// The last windows of such a file.
    Windows(&'static str),
    /// Loads drawn from log-normal(1) with three seeds: this many layers of each seed.
    Drawn(usize),
    /// The counts of one layer.
    Layer(&'static [u64]),
}

/// The quality that a row's plans must have. Gaps in per cent.
#[derive(Clone, Copy)]
enum Quality {
    /// Mean and, where it matters, worst gap over layers at most.
    Gap(f64, Option<f64>),
    /// Balancedness at least.
    Balanced(f64),
    /// The heaviest GPU at most.
    Heaviest(f64),
    Shown,
}

/// The time that a row must keep, and the time that it aims at.
#[derive(Clone, Copy)]
enum Time {
    /// In times of greedy's.
    Greedy(f64, Option<f64>),
    /// Microseconds a layer.
    Layer(f64, f64),
    /// Milliseconds.
    Plan(f64, f64),
    Shown,
}

struct Row {
    source: Source,
    shape: Shape,
    quality: Quality,
    time: Time,
}

fn row(source: Source, shape: Shape, quality: Quality, time: Time) -> Row {
    Row { source, shape, quality, time }
}

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    use Quality::{Balanced, Gap, Heaviest, Shown};
    use Source::{Drawn, File, Layer, Windows};
    let near = Gap(0.02, Some(0.05));
    let times = |must, aim| Time::Greedy(must, Some(aim));
    let v3 = |shape, quality: [Quality; 2], time| {
        [row(File(PREFILL), shape, quality[0], time), row(File(DECODE), shape, quality[1], time)]
    };
    let (v2_lite, kimi) = (shape(64, 72, 8, 2, 8), Gap(0.025, Some(0.05)));
    let gap = |mean, worst| Gap(mean, Some(worst));
    let mut all = Vec::new();
    all.extend(v3(V3, [near; 2], times(4.0, 2.0)));
    all.extend(v3(V3_TWO_NODES, [near; 2], times(4.0, 2.0)));
    all.extend(v3(V3_GLOBAL, [near; 2], times(5.0, 2.5)));
    all.extend(v3(v3_on(72), [gap(0.035, 0.10); 2], times(10.0, 5.0)));
    all.extend(v3(v3_on(96), [Balanced(0.9970), Balanced(0.9945)], times(25.0, 10.0)));
    all.extend(v3(v3_on(144), [Balanced(0.9212), Balanced(0.8665)], times(15.0, 8.0)));
    all.extend([
        row(Drawn(94), QWEN3, gap(0.03, 0.05), times(10.0, 4.0)),
        row(File(GEMMA), QWEN3, gap(0.03, 0.05), times(10.0, 4.0)),
        row(Drawn(61), KIMI_K2, kimi, times(10.0, 4.0)),
        row(Drawn(48), E512, kimi, times(10.0, 4.0)),
        row(Drawn(93), KIMI_K3, gap(0.025, 0.06), times(10.0, 5.0)),
        row(Drawn(64), E1024, gap(0.025, 0.06), times(10.0, 5.0)),
        row(File(INTENT), v2_lite, Gap(0.025, None), Time::Layer(60.0, 30.0)),
        row(File(SUMMARY), shape(64, 80, 1, 1, 16), Gap(0.03, None), Time::Layer(60.0, 30.0)),
        row(File(GPT_OSS), shape(32, 40, 1, 1, 8), Gap(0.035, None), Time::Layer(700.0, 350.0)),
        row(File(INTENT), shape(64, 72, 8, 4, 36), Balanced(0.800), Time::Shown),
        row(File(PREFILL), shape(256, 288, 8, 2, 144), Balanced(0.887), Time::Shown),
        row(Layer(&[600, 560, 120, 120, 20, 10, 10, 10]), shape(8, 16, 1, 1, 8), Heaviest(196.7), Time::Shown),
        row(Layer(&[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86]), shape(12, 16, 4, 2, 8), Heaviest(151.0), Time::Shown),
        row(Windows(DRIFT), V3_GLOBAL, Shown, Time::Plan(60.0, 30.0)),
        row(Windows(DRIFT), V3, Shown, Time::Plan(40.0, 20.0)),
    ]);
    all
}

fn thorough_rows() -> Vec<Row> {
    let (near, time) = (Quality::Gap(0.012, None), Time::Greedy(100.0, None));
    // The best balancedness known to be possible, less .03 %.
    let best = [Quality::Balanced(0.922_11 * 0.9997), Quality::Balanced(0.867_53 * 0.9997)];
    let shapes =
        [(V3, [near; 2]), (V3_GLOBAL, [near; 2]), (v3_on(72), [Quality::Shown; 2]), (v3_on(144), best)];
    let both = |(shape, quality): (Shape, [Quality; 2])| {
        let files = [PREFILL, DECODE].into_iter().zip(quality);
        files.map(move |(file, quality)| row(Source::File(file), shape, quality, time))
    };
    let five = |source, shape| row(source, shape, near, time);
    let five_slots = [
        five(Source::Drawn(94), QWEN3),
        five(Source::File(GEMMA), QWEN3),
        five(Source::File(SUMMARY), shape(64, 80, 1, 1, 16)),
        five(Source::File(GPT_OSS), shape(32, 40, 1, 1, 8)),
    ];
    shapes.into_iter().flat_map(both).chain(five_slots).collect()
}

/// Results of a row, over all its loads.
#[derive(Default)]
struct Found {
    layers: usize,
    balancedness: f64,
    /// In per cent; none where a plan is over several windows, whose bounds no one plan need reach.
    gaps: Option<(f64, f64)>,
    heaviest: f64,
    duplicates: usize,
}

impl Bench {
    pub fn targets(&self, report: &mut Report) -> Result<(), Error> {
        self.target_table(report, "default", &rows())
    }

    pub fn thorough(&self, report: &mut Report) -> Result<(), Error> {
        self.target_table(report, "thorough", &thorough_rows())
    }

    fn target_table(&self, report: &mut Report, preset: &str, rows: &[Row]) -> Result<(), Error> {
        let title = format!(
            "Targets, `{preset}` (several windows: `scenarios`), CPU backend on two threads; greedy and it in turns, \
             medians (the fastest runs of each, and on one thread: what a busy machine disturbs least); gaps over layers to the plan's own bound; load {}",
            load_average()
        );
        report.table(
            &title,
            &columns([
                "layers x experts, loads",
                "cluster",
                "balancedness",
                "mean gap %",
                "worst gap %",
                "must",
                "",
                "us a layer",
                "greedy, us",
                "times greedy",
                "fastest",
                "one thread",
                "must, aim",
                "",
            ]),
        );
        let (mut skipped, mut musts, mut met) = (Vec::new(), 0, 0);
        for row in rows {
            let Some(loads) = row.source.loads(row.shape.experts, self.data.as_deref())? else {
                skipped.push(format!("{}, {}", row.source.label(), name(row.shape)));
                continue;
            };
            let preset = if loads[0].windows().len() > 1 { "scenarios" } else { preset };
            let (found, pair) = self.measure(row.shape, &loads, preset)?;
            let verdicts = [row.quality.verdict(&found), row.time.verdict(&pair, found.layers)];
            musts += verdicts.iter().filter(|verdict| !verdict.is_empty()).count();
            met += verdicts.iter().filter(|verdict| verdict.starts_with("met")).count();
            let experts = loads[0].experts();
            report.entry(&row.cells(experts, &found, &pair, &verdicts), row.json(&found, &pair, &verdicts));
        }
        report.line(String::new());
        report.line(format!("{met} of {musts} musts met; load {}", load_average()));
        if !skipped.is_empty() {
            report.line(format!("Left out, for want of --data DIR: {}.", skipped.join("; ")));
        }
        Ok(())
    }

    /// Quality first, then the time of plans of all loads one after the other.
    fn measure(&self, shape: Shape, loads: &[Loads], preset: &str) -> Result<(Found, Pair), Error> {
        let (cluster, options) = (cluster(shape)?, preset.parse::<Preset>()?.options());
        let greedy = || loads.iter().for_each(|loads| drop(rebalance(loads.values(), shape)));
        let plan = || loads.iter().try_for_each(|l| self.cpu.plan(l, &cluster, &options).map(drop));
        // Greedy too runs on a thread of the pool.
        self.two_threads.install(|| {
            let found = self.judge(loads, &cluster, &options)?;
            let one = || self.one_thread.install(plan);
            Ok((found, paired(self.share, greedy, plan, one)?))
        })
    }

    fn judge(&self, loads: &[Loads], cluster: &Cluster, options: &PlanOptions) -> Result<Found, Error> {
        let mut found = Found::default();
        let share = 1.0 / loads.len() as f64;
        for loads in loads {
            let plan = self.cpu.plan(loads, cluster, options)?;
            let windows = plan.window_quality()?;
            for (window, weight) in windows.iter().zip(loads.window_weights()) {
                found.balancedness += window.balancedness() * weight * share;
            }
            if let [quality] = &windows[..] {
                let gaps = found.gaps.get_or_insert((0.0, 0.0));
                gaps.0 += quality.mean_gap() * share * 100.0;
                gaps.1 = gaps.1.max(quality.worst_gap() * 100.0);
            }
            let quality = plan.quality();
            found.layers += loads.layers();
            found.heaviest = quality.layers.iter().map(|l| l.max_gpu_load).fold(found.heaviest, f64::max);
            found.duplicates += quality.same_gpu_duplicates();
        }
        Ok(found)
    }
}

impl Source {
    /// None where they are in a folder that was not given.
    fn loads(self, experts: usize, data: Option<&Path>) -> Result<Option<Vec<Loads>>, Error> {
        Ok(Some(match (self, data) {
            (Self::File(_) | Self::Windows(_), None) => return Ok(None),
            (Self::File(file), Some(folder)) => vec![loaded(&folder.join(file))?.loads(Window::Sum)?],
            (Self::Windows(file), Some(folder)) => {
                let history = loaded(&folder.join(file))?;
                let last = history.windows().saturating_sub(WINDOWS)..history.windows();
                let weights: Vec<f64> = (0..last.len()).rev().map(|age| DECAY.powi(age as i32)).collect();
                let windows: Result<Vec<Loads>, Error> =
                    last.map(|w| history.loads(Window::Index(w))).collect();
                vec![Loads::from_windows(&windows?, &weights)?]
            }
            (Self::Drawn(layers), _) => {
                let seeds = 0..SEEDS;
                seeds
                    .map(|seed| drawn(Family::Lognormal(1.0), layers, experts, seed))
                    .collect::<Result<_, _>>()?
            }
            (Self::Layer(counts), _) => vec![Loads::from_counts(1, counts.len(), counts)?],
        }))
    }

    fn label(self) -> String {
        match self {
            Self::File(file) => file.to_string(),
            Self::Windows(file) => format!("{file}, last {WINDOWS} windows, decay {DECAY}"),
            Self::Drawn(_) => format!("log-normal(1), {SEEDS} seeds"),
            Self::Layer(counts) => format!("{counts:?}"),
        }
    }
}

/// A file without the layers that have no load, as a model's dense layers are recorded.
pub fn loaded(path: &Path) -> Result<LoadHistory, Error> {
    let history = LoadHistory::read(path)?;
    let all = history.loads(Window::Sum)?;
    let has_load = |&layer: &usize| all.layer(layer).iter().any(|&load| load > 0.0);
    let layers = || (0..all.layers()).filter(has_load);
    match (layers().next(), layers().next_back()) {
        (Some(first), Some(last)) => history.select_layers(first..last + 1),
        _ => Ok(history),
    }
}

impl Quality {
    fn label(self) -> String {
        match self {
            Self::Gap(mean, None) => format!("mean {mean} %"),
            Self::Gap(mean, Some(worst)) => format!("mean {mean} %, worst {worst} %"),
            Self::Balanced(least) => format!("balancedness {least:.4}"),
            Self::Heaviest(most) => format!("heaviest GPU {most}"),
            Self::Shown => String::new(),
        }
    }

    fn verdict(self, found: &Found) -> String {
        let gaps = found.gaps.unwrap_or((f64::NAN, f64::NAN));
        let is_met = match self {
            Self::Gap(mean, worst) => gaps.0 <= mean && worst.is_none_or(|worst| gaps.1 <= worst),
            Self::Balanced(least) => found.balancedness >= least,
            Self::Heaviest(most) => found.heaviest <= most,
            Self::Shown => return String::new(),
        };
        if is_met { "met".to_string() } else { "**missed**".to_string() }
    }
}

impl Time {
    fn label(self) -> String {
        match self {
            Self::Greedy(must, None) => format!("{must} x"),
            Self::Greedy(must, Some(aim)) => format!("{must} x, {aim} x"),
            Self::Layer(must, aim) => format!("{must} us, {aim} us a layer"),
            Self::Plan(must, aim) => format!("{must} ms, {aim} ms"),
            Self::Shown => String::new(),
        }
    }

    fn verdict(self, pair: &Pair, layers: usize) -> String {
        let (taken, must, aim) = match self {
            Self::Greedy(must, aim) => (pair.ratio, must, aim),
            Self::Layer(must, aim) => (pair.ms * 1e3 / layers as f64, must, Some(aim)),
            Self::Plan(must, aim) => (pair.ms, must, Some(aim)),
            Self::Shown => return String::new(),
        };
        match aim {
            _ if taken > must => "**missed**".to_string(),
            Some(aim) if taken > aim => "met, aim missed".to_string(),
            Some(_) => "met, and the aim".to_string(),
            None => "met".to_string(),
        }
    }
}

impl Row {
    fn cells(&self, experts: usize, found: &Found, pair: &Pair, verdicts: &[String; 2]) -> Vec<String> {
        let gap =
            |of: fn((f64, f64)) -> f64| found.gaps.map_or("-".into(), |gaps| format!("{:.4}", of(gaps)));
        let a_layer = |ms: f64| format!("{:.1}", ms * 1e3 / found.layers as f64);
        let time = match self.time {
            Time::Plan(..) => format!("{} ({:.1} ms)", a_layer(pair.ms), pair.ms),
            _ => a_layer(pair.ms),
        };
        let heaviest = match self.quality {
            Quality::Heaviest(_) => format!("{:.5} (heaviest {:.1})", found.balancedness, found.heaviest),
            _ => format!("{:.5}", found.balancedness),
        };
        vec![
            format!("{} x {experts}, {}", found.layers, self.source.label()),
            name(self.shape),
            heaviest,
            gap(|gaps| gaps.0),
            gap(|gaps| gaps.1),
            self.quality.label(),
            verdicts[0].clone(),
            time,
            a_layer(pair.greedy_ms),
            format!("{:.2}", pair.ratio),
            format!("{:.2}", pair.fastest_ratio),
            format!("{:.2}", pair.one_thread_ratio),
            self.time.label(),
            verdicts[1].clone(),
        ]
    }

    fn json(&self, found: &Found, pair: &Pair, verdicts: &[String; 2]) -> Value {
        json!({
            "loads": self.source.label(), "cluster": name(self.shape), "layers": found.layers,
            "balancedness": found.balancedness, "mean_gap_percent": found.gaps.map(|gaps| gaps.0),
            "worst_gap_percent": found.gaps.map(|gaps| gaps.1), "heaviest": found.heaviest,
            "duplicates": found.duplicates, "ms": pair.ms, "greedy_ms": pair.greedy_ms, "ratio": pair.ratio,
            "fastest_ratio": pair.fastest_ratio, "one_thread_ratio": pair.one_thread_ratio,
            "must": [self.quality.label(), self.time.label()], "verdicts": verdicts,
        })
    }
}
