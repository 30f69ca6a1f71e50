//! Whole plans: every preset, then the main ones on clusters and sizes.

use std::time::{Duration, Instant};

use eplb_wgpu::profile::Profiler;
use eplb_wgpu::{Error, Loads, PlanOptions, Planner, Preset};

use crate::greedy::{Shape, rebalance};
use crate::race::{Time, Work, race};
use crate::report::Report;
use crate::shapes::{
    E512, E1024, KIMI_K2, QWEN3, V3, V3_GLOBAL, V3_TWO_NODES, cluster, generated, name, v3_on,
};
use crate::{Bench, Device};

/// Presets that run on every cluster, size and device.
const MAIN: [&str; 3] = ["gen00", "fast", "default"];

const CLUSTERS: [Shape; 4] = [V3, V3_TWO_NODES, V3_GLOBAL, v3_on(72)];

/// A software driver takes up to hundreds of times as long as this, the CPU backend on one thread.
pub const SOFTWARE_LIMIT: Duration = Duration::from_millis(15);

/// Layers, shape.
const SIZES: [(usize, Shape); 5] = [(94, QWEN3), (61, KIMI_K2), (48, E512), (64, E1024), (256, V3)];

impl Bench {
    pub fn columns(&self, first: &str) -> Vec<String> {
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

    pub fn presets(&self, report: &mut Report) -> Result<(), Error> {
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

    pub fn clusters(&self, report: &mut Report) -> Result<(), Error> {
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

    pub fn sizes(&self, report: &mut Report) -> Result<(), Error> {
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
                    let fresh = pollster::block_on(Profiler::new(&device.choice))?;
                    let bytes = fresh.map(|fresh| {
                        pollster::block_on(fresh.plan(&loads, &cluster(shape)?, &options))?;
                        Ok::<_, Error>(pollster::block_on(fresh.device_bytes()))
                    });
                    let mib = bytes.transpose()?.unwrap_or(0) as f64 / f64::from(1 << 20);
                    cells.push(format!("{mib:.0}"));
                }
                report.row(&cells);
            }
        }
        Ok(())
    }
}
