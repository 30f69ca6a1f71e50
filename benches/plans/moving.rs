//! Plans over time on loads that no constant was chosen on: generated series, and noise on a profile.

use eplb_wgpu::rebalance::{RebalanceOptions, ReplayOptions, ReplayRow, Strategy, replay};
use eplb_wgpu::trace::{Family, Generate, LoadHistory, Window};
use eplb_wgpu::{Cluster, Error, Loads, MaxMoves, MoveLimits, PlanOptions, check};

use crate::Bench;
use crate::report::{Report, columns};

/// Windows of a series.
const WINDOWS: usize = 24;
/// Layers of a series.
const LAYERS: usize = 8;
/// Series of each kind.
const SERIES: u64 = 4;
/// Windows from one regime to the next, where there are several.
const REGIME: usize = 6;
/// Routings of a layer in a window, for each expert.
const TOKENS: u64 = 100;

/// Draws of noise on a profile, one after the other.
const DRAWS: usize = 20;

/// How a series moves.
struct Kind {
    name: &'static str,
    family: Family,
    drift: f64,
    /// Sources of loads that take turns, window by window in runs.
    regimes: u64,
}

const KINDS: [Kind; 4] = [
    Kind { name: "at rest", family: Family::Lognormal(0.7), drift: 0.0, regimes: 1 },
    Kind { name: "smooth", family: Family::Lognormal(0.7), drift: 0.05, regimes: 1 },
    Kind { name: "steep, fast", family: Family::Zipf(1.0), drift: 0.3, regimes: 1 },
    Kind { name: "violent", family: Family::Lognormal(1.0), drift: 0.1, regimes: 3 },
];

/// About standard normal, the same in every run.
struct Normal(u64);

impl Normal {
    fn next(&mut self) -> f64 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        };
        (0..12).map(|_| uniform()).sum::<f64>() - 6.0
    }
}

impl Kind {
    /// A series with the noise of counts.
    fn series(&self, experts: usize, seed: u64) -> Result<Vec<Loads>, Error> {
        let regime = |number| {
            let generate = Generate {
                family: self.family,
                windows: WINDOWS,
                layers: LAYERS,
                experts,
                tokens: TOKENS * experts as u64,
                drift: self.drift,
                seed: 1000 + seed * self.regimes + number,
                ..Generate::default()
            };
            generate.history()
        };
        let regimes = (0..self.regimes).map(regime).collect::<Result<Vec<LoadHistory>, _>>()?;
        let mut normal = Normal(seed + 1);
        let window = |at: usize| {
            let loads = regimes[at / REGIME % regimes.len()].loads(Window::Index(at))?;
            let noisy =
                loads.values().iter().map(|load| (load + load.sqrt() * normal.next()).max(0.0).round());
            Loads::from_f64(LAYERS, experts, &noisy.collect::<Vec<f64>>())
        };
        (0..WINDOWS).map(window).collect()
    }
}

/// The mean from the second plan on.
fn later(row: &ReplayRow) -> f64 {
    let scores = &row.balancedness.scores[1..];
    scores.iter().sum::<f64>() / scores.len() as f64
}

impl Bench {
    /// Next-window balancedness on generated series, and what noise on a profile moves.
    pub fn moving(&self, report: &mut Report) -> Result<(), Error> {
        report.table(
            "moving: next-window balancedness on generated series, moves a step",
            &columns(["series", "cluster", "fresh", "at most 5 %", "15 %", "greedy", "never move"]),
        );
        let clusters = [
            (32, Cluster::new(40, 1, 1, 8)?, "40 replicas, 8 GPUs"),
            (64, Cluster::new(72, 1, 1, 8)?, "72 replicas, 8 GPUs"),
            (256, Cluster::new(288, 8, 4, 32)?, "288 replicas, 4 nodes, 32 GPUs"),
            (256, Cluster::new(288, 1, 1, 32)?, "288 replicas, 32 GPUs"),
        ];
        for kind in &KINDS {
            for (experts, cluster, name) in &clusters {
                let mut sums = [[0.0; 2]; 5];
                for seed in 0..SERIES {
                    let windows = kind.series(*experts, seed)?;
                    for (at, found) in self.replays(&windows, cluster)?.into_iter().enumerate() {
                        sums[at][0] += found[0] / SERIES as f64;
                        sums[at][1] += found[1] / SERIES as f64;
                    }
                }
                let cell = |[score, moved]: [f64; 2]| match moved {
                    0.0 => format!("{score:.4}"),
                    _ => format!("{score:.4}, {:.1} %", moved * 100.0),
                };
                let cells = sums.map(cell);
                report.row(&[&[kind.name.to_string(), name.to_string()], &cells[..]].concat());
            }
        }
        match &self.data {
            Some(folder) => self.noise(&LoadHistory::read(&folder.join(crate::targets::PREFILL))?, report),
            None => Ok(()),
        }
    }

    /// Balancedness and moves: fresh, at most 5 and 15 % a step, the greedy rule, the first plan for good.
    fn replays(&self, windows: &[Loads], cluster: &Cluster) -> Result<[[f64; 2]; 5], Error> {
        let mut found = [[0.0; 2]; 5];
        for (at, most) in [None, Some(50_000), Some(150_000)].into_iter().enumerate() {
            let limits = MoveLimits { max_moves: most.map(MaxMoves::Ppm), ..MoveLimits::default() };
            let options = RebalanceOptions { fresh: most.is_none(), limits, ..RebalanceOptions::default() };
            let setup =
                ReplayOptions { strategies: vec![Strategy::Scenarios], options, ..ReplayOptions::default() };
            let rows = replay(&self.cpu, windows, cluster, &setup, |_| ())?;
            let score = |row: &ReplayRow| [later(row), row.moved.mean()];
            found[at] = score(&rows[0]);
            for row in &rows {
                match row.name.as_str() {
                    "greedy" => found[3] = score(row),
                    "never move" => found[4] = score(row),
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// A profile times lognormal(0, .02), drawn again and again: each draw is planned from the plan before, and anew.
    fn noise(&self, profile: &LoadHistory, report: &mut Report) -> Result<(), Error> {
        report.table(
            "moving: a profile times lognormal(0, .02), one draw after the other",
            &columns([
                "limit",
                "cluster",
                "moved a step",
                "balancedness",
                "fresh",
                "mean of the ratio",
                "worst",
            ]),
        );
        let before = profile.loads(Window::Sum)?;
        let clusters = [("4 nodes", Cluster::new(288, 8, 4, 32)?), ("global", Cluster::new(288, 1, 1, 32)?)];
        let limits = [("none", MoveLimits::default()), ("5 %", MoveLimits::each_window())];
        for (limit, limits) in limits {
            for (name, cluster) in &clusters {
                let options = PlanOptions::default();
                let mut running = self.cpu.plan(&before, cluster, &options)?.placement().clone();
                let mut normal = Normal(1);
                let (mut moved, mut reached, mut fresh, mut ratio, mut worst) =
                    (0.0, 0.0, 0.0, 0.0, f64::INFINITY);
                for _ in 0..DRAWS {
                    let noisy = before.values().iter().map(|load| load * (0.02 * normal.next()).exp());
                    let noisy: Vec<f64> = noisy.collect();
                    let now = Loads::from_f64(before.layers(), before.experts(), &noisy)?;
                    let replan = self.cpu.replan(&now, cluster, &running, &options, &limits)?;
                    running = replan.plan().placement().clone();
                    let score =
                        |map: &[i32]| Ok::<_, Error>(check::score(&now, cluster, map)?.balancedness());
                    let ours = score(running.physical_to_logical())?;
                    let anew = score(self.cpu.plan(&now, cluster, &options)?.physical_to_logical())?;
                    moved += replan.moves().share() / DRAWS as f64;
                    reached += ours / DRAWS as f64;
                    fresh += anew / DRAWS as f64;
                    ratio += ours / anew / DRAWS as f64;
                    worst = worst.min(ours / anew);
                }
                let parts = [ratio, worst].map(|ratio| format!("{ratio:.4}"));
                let [ratio, worst] = parts;
                let cells =
                    [format!("{:.2} %", moved * 100.0), format!("{reached:.4}"), format!("{fresh:.4}")];
                let first = [limit.to_string(), name.to_string()];
                report.row(&[&first[..], &cells[..], &[ratio, worst]].concat());
            }
        }
        Ok(())
    }
}
