//! Quality of the search by its iterations, and on loads of every family.

use std::time::Instant;

use eplb_wgpu::trace::{Family, Window};
use eplb_wgpu::{Error, Loads, PlanOptions};

use crate::Bench;
use crate::greedy::Shape;
use crate::race::{median, milliseconds};
use crate::report::{Report, columns};
use crate::shapes::{
    E512, KIMI_K2, QWEN3, V3, V3_GLOBAL, V3_LAYERS, V3_TWO_NODES, cluster, drawn, name, v3_on,
};
use crate::targets::{PREFILL, loaded};

const ITERATIONS: [u32; 8] = [1, 10, 30, 50, 100, 200, 400, 1000];

/// Layers of each family.
const FAMILY_LAYERS: usize = 12;

/// Runs of a budget that are timed, and how long, in ms, they may take before no more are made.
const RUNS: (usize, f64) = (3, 2000.0);

impl Bench {
    /// One start without an early end, from 2 to 9 slots a GPU.
    pub fn iterations(&self, report: &mut Report) -> Result<(), Error> {
        let (v3, source) = match &self.data {
            Some(folder) => (loaded(&folder.join(PREFILL))?.loads(Window::Sum)?, PREFILL),
            None => (drawn(Family::Lognormal(1.0), V3_LAYERS, V3.experts, 0)?, "generated, log-normal(1)"),
        };
        let qwen3 = drawn(Family::Lognormal(1.0), 94, QWEN3.experts, 0)?;
        let title = format!(
            "One start of this many iterations (patience the same, no early end), one thread. 256 experts: {source}; \
             128: generated, log-normal(1)"
        );
        let names = ["cluster", "iterations", "balancedness", "mean gap %", "worst gap %", "us a layer"];
        report.table(&title, &columns(names));
        let points =
            [(v3_on(144), &v3), (v3_on(96), &v3), (v3_on(72), &v3), (QWEN3, &qwen3), (V3_GLOBAL, &v3)];
        for (shape, loads) in points {
            for iterations in ITERATIONS {
                self.budget(report, shape, loads, iterations)?;
            }
        }
        Ok(())
    }

    fn budget(&self, report: &mut Report, shape: Shape, loads: &Loads, iterations: u32) -> Result<(), Error> {
        let cluster = cluster(shape)?;
        let options = PlanOptions {
            starts: 1,
            iterations,
            patience: iterations,
            stop_gap_ppm: 0,
            ..PlanOptions::default()
        };
        let plan = || self.one_thread.install(|| self.cpu.plan(loads, &cluster, &options));
        let first = plan()?;
        let mut times = Vec::new();
        while times.len() < RUNS.0 && times.iter().sum::<f64>() < RUNS.1 {
            let start = Instant::now();
            plan()?;
            times.push(milliseconds(start));
        }
        let quality = first.quality();
        report.row(&[
            format!("{}, {} slots a GPU", name(shape), cluster.slots_per_gpu()),
            iterations.to_string(),
            format!("{:.5}", quality.balancedness()),
            format!("{:.4}", quality.mean_gap() * 100.0),
            format!("{:.4}", quality.worst_gap() * 100.0),
            format!("{:.1}", median(times) * 1e3 / loads.layers() as f64),
        ]);
        Ok(())
    }

    /// The default preset on loads of every family.
    pub fn families(&self, report: &mut Report) -> Result<(), Error> {
        let families = [
            ("log-normal .5", Family::Lognormal(0.5)),
            ("1", Family::Lognormal(1.0)),
            ("1.5", Family::Lognormal(1.5)),
            ("Zipf .8", Family::Zipf(0.8)),
            ("1.2", Family::Zipf(1.2)),
            ("hot group", Family::HotGroup),
            ("hot experts", Family::HotExperts),
        ];
        let title =
            format!("`default` on loads of every family, {FAMILY_LAYERS} layers: mean (worst) gap, %");
        let mut names = vec!["experts, cluster".to_string()];
        names.extend(families.iter().map(|(name, _)| name.to_string()));
        report.table(&title, &names);
        for shape in [V3, V3_TWO_NODES, V3_GLOBAL, QWEN3, KIMI_K2, E512] {
            let mut cells = vec![format!("{}, {}", shape.experts, name(shape))];
            for (_, family) in families {
                let loads = drawn(family, FAMILY_LAYERS, shape.experts, 0)?;
                let plan = self.cpu.plan(&loads, &cluster(shape)?, &PlanOptions::default())?;
                let quality = plan.quality();
                cells.push(format!("{:.4} ({:.4})", quality.mean_gap() * 100.0, quality.worst_gap() * 100.0));
            }
            report.row(&cells);
        }
        Ok(())
    }
}
