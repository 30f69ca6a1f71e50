//! Replays of a recorded trace: plan on the windows so far, score on the next.

use std::str::FromStr;
use std::time::Duration;

use web_time::Instant;

use super::{RebalanceOptions, Rebalancer, Strategy};
use crate::check::{self, Quality};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::mirror::rng;
use crate::moves::Moves;
use crate::options::PlanOptions;
use crate::plan::{Placement, Plan};
use crate::planner::Planner;
use crate::presets::Preset;
use crate::shares::Shares;

/// How a trace is replayed.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..ReplayOptions::default()`, and later versions compile.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// The strategies to replay, one row each. Default: all.
    pub strategies: Vec<Strategy>,
    /// A new plan every this many windows, at least 1. Default: 1.
    pub interval: usize,
    /// Tables of shares to deal the next window out by, besides evenly: a row each for every strategy. They are made anew
    /// at every window. Default: none.
    pub shares: Vec<SharesFrom>,
    /// Score on a batch of this many routings a layer, drawn from the next window, instead of on all of it.
    /// Default: `None`.
    pub batch_routings: Option<u32>,
    /// The options that all strategies share; the strategy in it is not looked at.
    pub options: RebalanceOptions,
}

impl Default for ReplayOptions {
    /// All strategies, a new plan at every window.
    fn default() -> Self {
        Self {
            strategies: Strategy::ALL.to_vec(),
            interval: 1,
            shares: Vec::new(),
            batch_routings: None,
            options: RebalanceOptions::default(),
        }
    }
}

/// Scores over the windows of a trace.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Series {
    /// One score a window.
    pub scores: Vec<f64>,
}

impl Series {
    /// The mean; 0 of nothing.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.scores.is_empty() { 0.0 } else { self.scores.iter().sum::<f64>() / self.scores.len() as f64 }
    }

    /// The lowest; 0 of nothing.
    #[must_use]
    pub fn worst(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The value that a share `q` of the windows is at or below (nearest rank); 0 of nothing.
    #[must_use]
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.scores.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    }
}

/// The loads that a table of shares is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SharesFrom {
    /// The windows before: [`crate::Plan::shares`].
    Windows,
    /// They, and a tenth of the window itself, drawn: [`crate::Plan::shares_with_sample`].
    Sample,
    /// The window itself, as one batch whose loads are known: [`crate::Plan::batch_shares`].
    Batch,
}

impl SharesFrom {
    /// All of them.
    pub const ALL: &'static [SharesFrom] = &[Self::Windows, Self::Sample, Self::Batch];

    /// `windows`, `sample` or `batch`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SharesFrom::Windows => "windows",
            SharesFrom::Sample => "sample",
            SharesFrom::Batch => "batch",
        }
    }
}

impl FromStr for SharesFrom {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().copied().find(|from| from.name() == text);
        found.ok_or_else(|| Error::invalid("shares", text, "is not windows, sample or batch"))
    }
}

/// The results of one way of planning on a trace.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayRow {
    /// A strategy's name, with what its table of shares is made from as in `scenarios + batch`; or `oracle`, `greedy`,
    /// `never move`.
    pub name: String,
    /// Next-window balancedness (over GPUs).
    pub balancedness: Series,
    /// Next-window replica balancedness (over slots).
    pub replica_balancedness: Series,
    /// Share of the slots that moved at each new plan but the first.
    pub moved: Series,
    /// Milliseconds of each new plan, or of each table of shares.
    pub milliseconds: Series,
}

impl ReplayRow {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            balancedness: Series::default(),
            replica_balancedness: Series::default(),
            moved: Series::default(),
            milliseconds: Series::default(),
        }
    }

    /// Scores a window; where a plan was made for it, what that cost.
    fn add(&mut self, window: &Loads, cluster: &Cluster, running: &Plan) -> Result<(), Error> {
        let rules = running.options().rules();
        self.add_quality(&check::score_with(window, cluster, running.physical_to_logical(), &rules)?);
        Ok(())
    }

    fn add_quality(&mut self, quality: &Quality) {
        self.balancedness.scores.push(quality.balancedness());
        self.replica_balancedness.scores.push(quality.replica_balancedness());
    }

    fn add_plan(
        &mut self,
        cluster: &Cluster,
        before: Option<&Placement>,
        now: &Placement,
        time: Duration,
    ) -> Result<(), Error> {
        if let Some(before) = before {
            self.moved.scores.push(Moves::between(cluster, before, now)?.share());
        }
        self.milliseconds.scores.push(time.as_secs_f64() * 1e3);
        Ok(())
    }
}

/// Replays `windows` with every strategy, then with an oracle (a fresh plan on the window it is scored on),
/// with the greedy rule (preset `gen00`) on the last window, and with a first plan that stays for good.
///
/// `progress` is told after every window of a row, `windows - 1` times for each of the rows, with the plan that ran in it.
///
/// # Errors
/// [`Error::Invalid`] where there are fewer than 2 windows, the interval is 0, or a plan cannot be made.
pub fn replay(
    planner: &Planner,
    windows: &[Loads],
    cluster: &Cluster,
    replay: &ReplayOptions,
    progress: impl FnMut(&Plan),
) -> Result<Vec<ReplayRow>, Error> {
    replay_one_by_one(planner, windows.len(), |at| Ok(windows[at].clone()), cluster, replay, progress)
}

/// [`replay()`] of a long trace: `window` gives the loads of the windows from 0 up to but not `count`, each several times, so
/// that they need not all be in memory.
///
/// ```
/// use eplb_wgpu::rebalance::{ReplayOptions, replay_one_by_one};
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, Planner};
/// let window = |at: usize| Loads::from_counts(1, 4, &[90, 30, 20, at as u64]);
/// let planner = Planner::new(DeviceChoice::Cpu)?;
/// let (cluster, options) = (Cluster::new(6, 1, 1, 3)?, ReplayOptions::default());
/// let rows = replay_one_by_one(&planner, 10, window, &cluster, &options, |_| ())?;
/// assert_eq!(rows[0].balancedness.scores.len(), 9);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
///
/// # Errors
/// As for [`replay()`], and what `window` returns.
pub fn replay_one_by_one(
    planner: &Planner,
    count: usize,
    window: impl Fn(usize) -> Result<Loads, Error>,
    cluster: &Cluster,
    replay: &ReplayOptions,
    mut progress: impl FnMut(&Plan),
) -> Result<Vec<ReplayRow>, Error> {
    if count < 2 {
        return Err(Error::invalid("number of windows", count, "is not at least 2"));
    }
    if replay.interval == 0 {
        return Err(Error::invalid("interval", 0, "is not at least 1"));
    }
    let windows = Trace { count, window: &window };
    let mut rows = Vec::new();
    for &strategy in &replay.strategies {
        let options = RebalanceOptions { strategy, ..replay.options.clone() };
        rows.extend(replay_strategy(planner, &windows, cluster, replay, options, &mut progress)?);
    }
    let greedy = Preset::GREEDY.options();
    let best = &replay.options.plan;
    let references: [(&str, &PlanOptions, usize, bool); 3] = [
        ("oracle", best, 1, true),
        ("greedy", &greedy, replay.interval, false),
        ("never move", best, usize::MAX, false),
    ];
    for (name, options, interval, sees_next) in references {
        let mut row = ReplayRow::new(name);
        let mut running: Option<Plan> = None;
        for t in 0..count - 1 {
            if t.is_multiple_of(interval) || running.is_none() {
                let loads = window(t + usize::from(sees_next))?;
                let start = Instant::now();
                let plan = planner.plan(&loads, cluster, options)?;
                let before = running.as_ref().map(Plan::placement);
                row.add_plan(cluster, before, plan.placement(), start.elapsed())?;
                running = Some(plan);
            }
            if let Some(running) = &running {
                row.add(&windows.next(t, replay)?, cluster, running)?;
                progress(running);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

/// The windows of a trace.
struct Trace<'a> {
    count: usize,
    window: &'a dyn Fn(usize) -> Result<Loads, Error>,
}

impl Trace<'_> {
    /// The window after `t`, or the batch of it that is scored on.
    fn next(&self, t: usize, replay: &ReplayOptions) -> Result<Loads, Error> {
        let next = (self.window)(t + 1)?;
        match replay.batch_routings {
            Some(routings) => drawn(&next, |_| u64::from(routings), t),
            None => Ok(next),
        }
    }
}

/// As many routings of each layer as `routings` makes of all of them, drawn from its loads.
fn drawn(window: &Loads, routings: impl Fn(f64) -> u64, t: usize) -> Result<Loads, Error> {
    let (layers, experts) = (window.layers(), window.experts());
    let mut counts = vec![0u64; layers * experts];
    for (layer, counts) in counts.chunks_exact_mut(experts).enumerate() {
        let mut sum = 0.0;
        let sums: Vec<f64> = window.layer(layer).iter().map(|load| (sum += load, sum).1).collect();
        let key = rng::draw(t as u32, layer as u32);
        for n in 0..if sum > 0.0 { routings(sum) } else { 0 } {
            let place = f64::from(rng::draw(key, n as u32)) / f64::from(u32::MAX) * sum;
            counts[sums.partition_point(|&sum| sum <= place).min(experts - 1)] += 1;
        }
    }
    Loads::from_counts(layers, experts, &counts)?.with_layer_ids(window.layer_ids())
}

/// The rows of a strategy: under even shares, then under each table.
fn replay_strategy(
    planner: &Planner,
    windows: &Trace<'_>,
    cluster: &Cluster,
    replay: &ReplayOptions,
    options: RebalanceOptions,
    progress: &mut impl FnMut(&Plan),
) -> Result<Vec<ReplayRow>, Error> {
    let name = options.strategy.name();
    let mut row = ReplayRow::new(name);
    let mut dealt: Vec<ReplayRow> =
        replay.shares.iter().map(|from| ReplayRow::new(&format!("{name} + {}", from.name()))).collect();
    let mut rebalancer = Rebalancer::new(planner.clone(), cluster.clone(), options)?;
    let mut running: Option<Plan> = None;
    // The loads that tables of shares are made from.
    let mut known: Vec<Loads> = Vec::new();
    for t in 0..windows.count - 1 {
        let window = (windows.window)(t)?;
        if !dealt.is_empty() {
            known.drain(..(known.len() + 1).saturating_sub(Shares::WINDOWS));
            known.push(window.clone());
        }
        rebalancer.observe(window)?;
        if t.is_multiple_of(replay.interval) {
            let start = Instant::now();
            let proposal = rebalancer.propose()?;
            let time = start.elapsed();
            let plan = proposal.plan();
            row.add_plan(cluster, running.as_ref().map(Plan::placement), plan.placement(), time)?;
            running = Some(plan.clone());
            rebalancer.apply(plan.placement())?;
        }
        if let Some(plan) = &running {
            let next = windows.next(t, replay)?;
            row.add(&next, cluster, plan)?;
            for (row, from) in dealt.iter_mut().zip(&replay.shares) {
                let tenth = match from {
                    SharesFrom::Sample => Some(drawn(&next, |all| (all / 10.0) as u64, windows.count + t)?),
                    _ => None,
                };
                let start = Instant::now();
                let shares = match (from, &tenth) {
                    (_, Some(sample)) => plan.shares_with_sample(&known, sample)?,
                    (SharesFrom::Batch, _) => plan.batch_shares(&next)?,
                    _ => plan.shares(&known)?,
                };
                row.milliseconds.scores.push(start.elapsed().as_secs_f64() * 1e3);
                let map = plan.physical_to_logical();
                let rules = plan.options().rules();
                row.add_quality(&check::score_shares_with(&next, cluster, map, shares.parts(), &rules)?);
            }
            progress(plan);
        }
    }
    dealt.insert(0, row);
    Ok(dealt)
}
