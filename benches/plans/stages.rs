//! Single stages on fixed batches, packing against scalar code, and how time grows with the work.

use std::time::Duration;

use eplb_wgpu::profile::Batch;
use eplb_wgpu::{Error, Loads, PlanOptions, Preset, Search};

use crate::greedy::rebalance;
use crate::race::{Work, line, race};
use crate::report::Report;
use crate::shapes::{V3, V3_GLOBAL, cluster, generated, name};
use crate::{Bench, Device, lpt};

/// Results of [`Bench::race_batch`].
struct Raced {
    yardstick_ms: f64,
    /// The stages' times in ms: of the CPU backend, then of each device.
    stages: Vec<Vec<(&'static str, f64)>>,
}

impl Bench {
    /// Fixed batches, stage by stage: the native code's time on one thread, and a device's by its own clock.
    pub fn stages(&self, report: &mut Report) -> Result<(), Error> {
        let options = PlanOptions { starts: 8, ..PlanOptions::default() };
        for shape in [V3, V3_GLOBAL] {
            let batch = Batch::new(&self.loads, &cluster(shape)?, &options)?;
            let greedy = || drop(rebalance(self.loads.values(), shape));
            let starts = options.starts;
            let title = format!("Stages: {}, `default` search, {starts} starts of every node", name(shape));
            let columns = self.columns("stage");
            report.table(&title, &[&columns[..3], &columns[4..]].concat());
            let Raced { yardstick_ms: greedy_ms, stages: all } = self.race_batch(&batch, greedy)?;
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
            let mut cells = vec!["thousand candidates/s of stage 5".to_string(), String::new()];
            cells.extend(all.iter().map(|times| {
                let search = times.iter().find(|(stem, _)| stem.starts_with("s5_"));
                search.map_or("-".into(), |(_, ms)| format!("{:.1}", batch.candidates() as f64 / ms))
            }));
            report.row(&cells);
        }
        Ok(())
    }

    /// Times one batch of candidates on one thread of the CPU backend and on each device. The yardstick is timed too: the same
    /// fixed computation on every machine, so that their times can be compared.
    fn race_batch(&self, batch: &Batch, yardstick: impl FnMut()) -> Result<Raced, Error> {
        let mut native = Vec::new();
        let mut timed = vec![Vec::new(); self.devices.len()];
        let mut contenders: Vec<Work> = vec![Box::new(|| {
            native.push(batch.on_cpu());
            Ok(())
        })];
        for (device, timed) in self.devices.iter().zip(&mut timed) {
            contenders.push(Box::new(move || {
                timed.push(pollster::block_on(batch.on_device(&device.profiler))?.0);
                Ok(())
            }));
        }
        let (yardstick_ms, _) = race(self.share, yardstick, &mut contenders)?;
        drop(contenders);
        let stages = std::iter::once(&native).chain(&timed).map(|runs| middle(runs)).collect();
        Ok(Raced { yardstick_ms, stages })
    }

    /// Stage 4 alone, 64 starts, as ratios to scalar code on one thread. With `LP_NUM_THREADS=1` a Mesa software
    /// driver has one too.
    pub fn lpt(&self, report: &mut Report) -> Result<(), Error> {
        let shape = V3_GLOBAL;
        let mut columns = vec!["64 starts".to_string(), "scalar ms".into(), "native".into()];
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
            let options =
                PlanOptions { starts: 64, search: Search::None, count_noise, ..PlanOptions::default() };
            let batch = Batch::new(&self.loads, &cluster(shape)?, &options)?;
            let (mut packing, mut order, mut heaviest) = (lpt::Packing::default(), Vec::new(), 0);
            let scalar = || {
                for (loads, counts) in
                    loads.chunks_exact(shape.experts).zip(counts.chunks_exact(shape.experts))
                {
                    for start in 0..options.starts {
                        if count_noise || start == 0 {
                            lpt::order(loads, counts, &mut order);
                        }
                        heaviest = packing.pack(&order, slots, start).max(heaviest);
                    }
                }
            };
            let Raced { yardstick_ms: scalar_ms, stages } = self.race_batch(&batch, scalar)?;
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

    /// Time against layers and starts, with a line through it.
    pub fn fits(&self, report: &mut Report) -> Result<(), Error> {
        // The same layers again and again, and no early end: the work grows with the number alone.
        let tile = generated(16, V3.experts)?;
        let fast = PlanOptions { stop_gap_ppm: 0, ..(Preset::FAST.options()) };
        let layers: Vec<_> = [1usize, 2, 4, 8, 16]
            .into_iter()
            .map(|times| {
                let loads = Loads::from_f64(16 * times, V3.experts, &tile.values().repeat(times))?;
                Ok(((16 * times) as f64, loads, fast.clone()))
            })
            .collect::<Result<_, Error>>()?;
        // Of every node all starts, and a search that is short in each of them.
        let all = PlanOptions { start_gap_ppm: 0, iterations: 16, patience: 16, ..fast.clone() };
        let starts: Vec<_> = [4, 8, 16, 32, 64]
            .into_iter()
            .map(|n| (f64::from(n), tile.clone(), PlanOptions { starts: n, ..all.clone() }))
            .collect();
        let series = [("layers 16 to 256", V3, layers), ("starts 4 to 64, 16 layers", V3_GLOBAL, starts)];
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
