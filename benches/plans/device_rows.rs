//! Whole plans on the devices, one row a device, shape and preset: the rows of `benches/gpu.sh`.

use std::time::{Duration, Instant};

use eplb_wgpu::trace::Family;
use eplb_wgpu::{Error, Fallback, Loads, Preset};
use serde_json::{Map, json};

use crate::greedy::{Shape, rebalance};
use crate::race::{median, milliseconds};
use crate::report::{Report, columns};
use crate::shapes::{
    E1024, KIMI_K2, QWEN3, V3, V3_GLOBAL, V3_LAYERS, V3_TWO_NODES, cluster, drawn, name, v3_on,
};
use crate::{Bench, Device};

/// Layers, shape.
const SHAPES: [(usize, Shape); 8] = [
    (V3_LAYERS, V3),
    (V3_LAYERS, V3_TWO_NODES),
    (V3_LAYERS, V3_GLOBAL),
    (V3_LAYERS, v3_on(72)),
    (V3_LAYERS, v3_on(144)),
    (94, QWEN3),
    (61, KIMI_K2),
    (64, E1024),
];

const SHORT_SHAPES: [(usize, Shape); 3] = [(4, V3), (4, V3_GLOBAL), (4, QWEN3)];

/// Plans after the first, at least and at most.
const RUNS: (usize, usize) = (3, 31);

/// Plans whose stages are timed.
const TIMED: usize = 3;

/// Results of one device on one shape and preset.
struct Found {
    first_ms: f64,
    ms: f64,
    /// The CPU backend on all threads, and greedy on one, in the same rounds.
    cpu_ms: f64,
    greedy_ms: f64,
    /// Whether all plans have the CPU backend's fingerprint.
    equal: bool,
    fingerprint: u64,
    /// By the device's clock, of the plan with the middle total; empty without one.
    stages_ms: Vec<(&'static str, f64)>,
    mib: f64,
}

impl Bench {
    /// `default`, `fast` and `thorough`, or without the last where `short`. No row begins after `seconds`.
    pub fn device_rows(&self, report: &mut Report, short: bool, seconds: f64) -> Result<(), Error> {
        let title = "Devices: plans of log-normal(1) loads, medians; the CPU backend on all threads and greedy on one \
                     in the same rounds";
        let names = [
            "device",
            "layers x experts, cluster",
            "preset",
            "first ms",
            "ms",
            "CPU ms",
            "greedy ms",
            "stages, ms",
            "MiB",
            "as the CPU's",
        ];
        report.table(title, &columns(names));
        let shapes = if short { &SHORT_SHAPES[..] } else { &SHAPES[..] };
        let presets = if short { &["default", "fast"][..] } else { &["default", "fast", "thorough"][..] };
        // The rows that matter most come first, in case time runs out.
        for preset in presets {
            for device in &self.devices {
                for &(layers, shape) in shapes {
                    let what = format!("{layers} x {}, {}", shape.experts, name(shape));
                    let head = [device.label(), what, format!("`{preset}`")];
                    let left = Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
                        .saturating_sub(self.start.elapsed());
                    if left.is_zero() {
                        let object = json!({
                            "device": head[0], "shape": head[1], "preset": preset, "left_out": "out of time",
                        });
                        report.entry(&[&head[..], &["out of time".to_string()]].concat(), object);
                        continue;
                    }
                    let loads = drawn(Family::Lognormal(1.0), layers, shape.experts, 0)?;
                    let found = self.on_device(device, &loads, shape, preset)?;
                    found.report(report, &head, device, preset);
                }
            }
        }
        Ok(())
    }

    fn on_device(&self, device: &Device, loads: &Loads, shape: Shape, preset: &str) -> Result<Found, Error> {
        let (cluster, options) = (cluster(shape)?, preset.parse::<Preset>()?.options());
        let expected = self.cpu.plan(loads, &cluster, &options)?.fingerprint();
        let planner = device.planner.clone().with_fallback(Fallback::Never);
        let timed_plan = || {
            let start = Instant::now();
            let plan = planner.plan(loads, &cluster, &options)?;
            Ok::<_, Error>((milliseconds(start), plan.fingerprint()))
        };
        let (first_ms, mut fingerprint) = timed_plan()?;
        let [mut cpu, mut greedy, mut ours] = [const { Vec::new() }; 3];
        let begin = Instant::now();
        while ours.len() < RUNS.0 || (ours.len() < RUNS.1 && begin.elapsed() < self.share) {
            let start = Instant::now();
            drop(rebalance(loads.values(), shape));
            greedy.push(milliseconds(start));
            let start = Instant::now();
            self.cpu.plan(loads, &cluster, &options)?;
            cpu.push(milliseconds(start));
            let (ms, found) = timed_plan()?;
            ours.push(ms);
            // One that differs is the one to show.
            fingerprint = if found == expected { fingerprint } else { found };
        }
        let mut runs = Vec::new();
        for _ in 0..if device.profiler.is_timed() { TIMED } else { 1 } {
            let stages = pollster::block_on(device.profiler.plan(loads, &cluster, &options))?;
            runs.push(stages);
        }
        runs.sort_by_key(|stages| stages.iter().map(|(_, time)| *time).sum::<Duration>());
        let middle = runs.swap_remove(runs.len() / 2);
        Ok(Found {
            first_ms,
            ms: median(ours),
            cpu_ms: median(cpu),
            greedy_ms: median(greedy),
            equal: fingerprint == expected,
            fingerprint,
            stages_ms: middle.into_iter().map(|(stem, time)| (stem, time.as_secs_f64() * 1e3)).collect(),
            mib: pollster::block_on(device.profiler.device_bytes()) as f64 / f64::from(1 << 20),
        })
    }
}

impl Found {
    fn report(&self, report: &mut Report, head: &[String; 3], device: &Device, preset: &str) {
        let stages: Vec<String> = self.stages_ms.iter().map(|(stem, ms)| format!("{stem} {ms:.2}")).collect();
        let cells = [
            format!("{:.1}", self.first_ms),
            format!("{:.2}", self.ms),
            format!("{:.2}", self.cpu_ms),
            format!("{:.2}", self.greedy_ms),
            stages.join(", "),
            format!("{:.1}", self.mib),
            if self.equal { "yes".to_string() } else { "**no**".to_string() },
        ];
        let by_stage: Map<_, _> =
            self.stages_ms.iter().map(|(stem, ms)| (stem.to_string(), json!(ms))).collect();
        let info = device.planner.device();
        let object = json!({
            "device": info.name, "backend": info.backend, "kind": info.kind, "software": info.is_software,
            "shape": head[1], "preset": preset, "first_ms": self.first_ms, "ms": self.ms, "cpu_ms": self.cpu_ms,
            "greedy_ms": self.greedy_ms, "stages_ms": by_stage, "largest_mib_so_far": self.mib,
            "fingerprint": format!("{:016x}", self.fingerprint), "equal": self.equal,
        });
        report.entry(&[&head[..], &cells[..]].concat(), object);
    }
}
