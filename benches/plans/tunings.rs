//! Times of a device with more starts, and with other shapes of its work than the usual one: rows of
//! `benches/gpu.sh`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use eplb_wgpu::trace::Family;
use eplb_wgpu::{Error, Fallback, Loads, PlanOptions, Planner, Preset, testing};
use serde_json::json;

use crate::greedy::{Shape, rebalance};
use crate::race::{Time, Work, median, milliseconds, race};
use crate::report::{Report, columns};
use crate::shapes::{V3, V3_LAYERS, cluster, drawn, name, v3_on};
use crate::{Bench, Device};

/// Starts of one layer, and how many of these there are where `short`.
const STARTS: [u32; 9] = [1, 4, 16, 64, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16];
const SHORT_STARTS: usize = 5;

/// Iterations of each.
const ITERATIONS: u32 = 100;

/// Plans after the first, fewer where they take longer than this together.
const LATER: usize = 5;
const LONG: Duration = Duration::from_secs(2);

/// Layers, layers where `short`, and the shape: one of many slots a GPU and one of four, which exchanges search, and one of two
/// slots, whose counts are searched.
const SHAPES: [(usize, usize, Shape); 3] = [(V3_LAYERS, 8, V3), (16, 2, v3_on(72)), (16, 4, v3_on(144))];

/// Lanes of a workgroup, and MiB of the arena.
const TEAMS: [u32; 5] = [8, 16, 32, 64, 128];
const ARENAS: [u64; 3] = [16, 64, 128];

impl Bench {
    fn is_late(&self, seconds: f64) -> bool {
        self.start.elapsed().as_secs_f64() > seconds
    }

    /// One layer with 3 slots a GPU, from 1 start to the most: none ends for being near the bound.
    pub fn starts(&self, report: &mut Report, short: bool, seconds: f64) -> Result<(), Error> {
        let shape = v3_on(96);
        let title = format!(
            "Starts of {ITERATIONS} iterations: 1 layer of 256 experts, log-normal(1), {}, `default` without an early end",
            name(shape)
        );
        let names = ["device", "starts", "first ms", "ms", "CPU ms", "balancedness", "as the CPU's"];
        report.table(&title, &columns(names));
        let (loads, cluster) = (drawn(Family::Lognormal(1.0), 1, shape.experts, 0)?, cluster(shape)?);
        for device in &self.devices {
            let planner = device.planner.clone().with_fallback(Fallback::Never);
            let list = if short { &STARTS[..SHORT_STARTS] } else { &STARTS[..] };
            for &starts in list.iter().take_while(|_| !self.is_late(seconds)) {
                let options =
                    PlanOptions { starts, iterations: ITERATIONS, stop_gap_ppm: 0, ..PlanOptions::default() };
                let timed = |planner: &Planner| {
                    let start = Instant::now();
                    let plan = planner.plan(&loads, &cluster, &options)?;
                    Ok::<_, Error>((milliseconds(start), plan))
                };
                let (cpu_ms, expected) = timed(&self.cpu)?;
                let (first_ms, plan) = timed(&planner)?;
                let mut equal = plan.fingerprint() == expected.fingerprint();
                let (mut later, begin) = (Vec::new(), Instant::now());
                while later.is_empty() || (later.len() < LATER && begin.elapsed() < LONG) {
                    let (ms, plan) = timed(&planner)?;
                    later.push(ms);
                    equal &= plan.fingerprint() == expected.fingerprint();
                }
                let (ms, balancedness) = (median(later), expected.quality().balancedness());
                let cells = [
                    device.label(),
                    starts.to_string(),
                    format!("{first_ms:.1}"),
                    format!("{ms:.1}"),
                    format!("{cpu_ms:.1}"),
                    format!("{balancedness:.5}"),
                    if equal { "yes".to_string() } else { "**no**".to_string() },
                ];
                let object = json!({
                    "device": device.label(), "starts": starts, "first_ms": first_ms, "ms": ms, "cpu_ms": cpu_ms,
                    "balancedness": balancedness, "equal": equal,
                });
                report.entry(&cells, object);
            }
        }
        Ok(())
    }

    /// Workgroups of other sizes, and other arenas, in turns.
    pub fn tunings(&self, report: &mut Report, short: bool, seconds: f64) -> Result<(), Error> {
        let title = "Lanes of a workgroup, and MiB of candidates at once: `default` on log-normal(1) loads, in turns; `own` \
                     is what the device is given";
        let names = [
            "device",
            "layers x experts, cluster",
            "lanes",
            "MiB",
            "first ms",
            "ms",
            "of own",
            "as the CPU's",
        ];
        report.table(title, &columns(names));
        for device in &self.devices {
            for (layers, few, shape) in SHAPES {
                if !self.is_late(seconds) {
                    let layers = if short { few } else { layers };
                    let loads = drawn(Family::Lognormal(1.0), layers, shape.experts, 0)?;
                    self.tunings_of(report, device, &loads, shape)?;
                }
            }
        }
        Ok(())
    }

    fn tunings_of(
        &self,
        report: &mut Report,
        device: &Device,
        loads: &Loads,
        shape: Shape,
    ) -> Result<(), Error> {
        let info = device.planner.device();
        let vector =
            info.limits.iter().find(|(name, _)| *name == "subgroup_max_size").map_or(0, |limit| limit.1);
        // A software driver has teams of at least its vector: see `Tuning::of`.
        let teams = TEAMS.iter().filter(|&&team| !info.is_software || u64::from(team) >= vector.min(16));
        let of_team = teams.map(|&team| (team, 64)).collect::<Vec<_>>();
        let own_team = if info.is_software { of_team[0].0 } else { 64 };
        let of_arena = ARENAS.into_iter().filter(|&mib| mib != 64).map(|mib| (own_team, mib));
        let tunings: Vec<(u32, u64)> = of_team.iter().copied().chain(of_arena).collect();
        let (cluster, options) = (cluster(shape)?, Preset::DEFAULT.options());
        let expected = self.cpu.plan(loads, &cluster, &options)?.fingerprint();
        let planners =
            tunings.iter().map(|&(team, mib)| testing::tuned(device.choice.clone(), team, mib << 18));
        let planners = planners.collect::<Result<Vec<_>, Error>>()?;
        let equal = vec![Cell::new(true); tunings.len()];
        let mut contenders: Vec<Work> = Vec::new();
        for (planner, equal) in planners.into_iter().zip(&equal) {
            let planner = planner.with_fallback(Fallback::Never);
            let (cluster, options) = (&cluster, &options);
            contenders.push(Box::new(move || {
                let plan = planner.plan(loads, cluster, options)?;
                equal.set(equal.get() && plan.fingerprint() == expected);
                Ok(())
            }));
        }
        let greedy = || drop(rebalance(loads.values(), shape));
        let (_, times) = race(self.share, greedy, &mut contenders)?;
        drop(contenders);
        let own =
            tunings.iter().position(|&tuning| tuning == (own_team, 64)).map_or(f64::NAN, |at| times[at].ms);
        let what = format!("{} x {}, {}", loads.layers(), shape.experts, name(shape));
        for ((&(team, mib), &Time { first_ms, ms, .. }), equal) in tunings.iter().zip(&times).zip(&equal) {
            let equal = equal.get();
            let cells = [
                device.label(),
                what.clone(),
                if team == own_team { format!("{team}, own") } else { team.to_string() },
                mib.to_string(),
                format!("{first_ms:.1}"),
                format!("{ms:.2}"),
                format!("{:.2}", ms / own),
                if equal { "yes".to_string() } else { "**no**".to_string() },
            ];
            let object = json!({
                "device": device.label(), "shape": what, "lanes": team, "own_lanes": own_team, "arena_mib": mib,
                "first_ms": first_ms, "ms": ms, "of_own": ms / own, "equal": equal,
            });
            report.entry(&cells, object);
        }
        Ok(())
    }
}
