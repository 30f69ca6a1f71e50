//! Replays of a recorded trace: plan on the windows so far, score on the next.

use std::time::Duration;

use web_time::Instant;

use super::{RebalanceOptions, Rebalancer, Strategy};
use crate::check;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::moves::Moves;
use crate::options::PlanOptions;
use crate::plan::Placement;
use crate::planner::Planner;
use crate::presets::Preset;

/// How a trace is replayed.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..ReplayOptions::default()`, and later versions compile.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// The strategies to replay, one row each.
    pub strategies: Vec<Strategy>,
    /// A new plan every this many windows.
    pub interval: usize,
    /// What the strategies have in common; its own strategy is not looked at.
    pub options: RebalanceOptions,
}

impl Default for ReplayOptions {
    /// All strategies, a new plan at every window.
    fn default() -> Self {
        Self { strategies: Strategy::ALL.to_vec(), interval: 1, options: RebalanceOptions::default() }
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

/// What one way of planning came to on a trace.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplayRow {
    /// A strategy's name, or `oracle`, `greedy`, `never move`.
    pub name: String,
    /// Next-window balancedness (over GPUs).
    pub balancedness: Series,
    /// Next-window replica balancedness (over slots).
    pub replica_balancedness: Series,
    /// Share of the slots that moved at each new plan but the first.
    pub moved: Series,
    /// Milliseconds of each new plan.
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
    fn add(&mut self, window: &Loads, cluster: &Cluster, running: &Placement) -> Result<(), Error> {
        let quality = check::score(window, cluster, running.physical_to_logical())?;
        self.balancedness.scores.push(quality.balancedness());
        self.replica_balancedness.scores.push(quality.replica_balancedness());
        Ok(())
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
/// `progress` is told after every window of a row, `windows - 1` times for each of the rows.
///
/// # Errors
/// [`Error::Invalid`] where there are fewer than 2 windows, the interval is 0, or a plan cannot be made.
pub fn replay(
    planner: &Planner,
    windows: &[Loads],
    cluster: &Cluster,
    replay: &ReplayOptions,
    mut progress: impl FnMut(),
) -> Result<Vec<ReplayRow>, Error> {
    if windows.len() < 2 {
        return Err(Error::invalid("number of windows", windows.len(), "is not at least 2"));
    }
    if replay.interval == 0 {
        return Err(Error::invalid("interval", 0, "is not at least 1"));
    }
    let mut rows = Vec::new();
    for &strategy in &replay.strategies {
        let options = RebalanceOptions { strategy, ..replay.options.clone() };
        rows.push(replay_strategy(planner, windows, cluster, replay.interval, options, &mut progress)?);
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
        let mut running: Option<Placement> = None;
        for t in 0..windows.len() - 1 {
            if t.is_multiple_of(interval) || running.is_none() {
                let start = Instant::now();
                let plan = planner.plan(&windows[t + usize::from(sees_next)], cluster, options)?;
                row.add_plan(cluster, running.as_ref(), plan.placement(), start.elapsed())?;
                running = Some(plan.placement().clone());
            }
            if let Some(running) = &running {
                row.add(&windows[t + 1], cluster, running)?;
            }
            progress();
        }
        rows.push(row);
    }
    Ok(rows)
}

fn replay_strategy(
    planner: &Planner,
    windows: &[Loads],
    cluster: &Cluster,
    interval: usize,
    options: RebalanceOptions,
    progress: &mut impl FnMut(),
) -> Result<ReplayRow, Error> {
    let mut row = ReplayRow::new(options.strategy.name());
    let mut rebalancer = Rebalancer::new(planner.clone(), cluster.clone(), options)?;
    let mut running: Option<Placement> = None;
    for t in 0..windows.len() - 1 {
        rebalancer.observe(windows[t].clone())?;
        if t.is_multiple_of(interval) {
            let start = Instant::now();
            let proposal = rebalancer.propose()?;
            let time = start.elapsed();
            let plan = proposal.plan().placement();
            row.add_plan(cluster, running.as_ref(), plan, time)?;
            running = Some(plan.clone());
            rebalancer.apply(plan)?;
        }
        if let Some(running) = &running {
            row.add(&windows[t + 1], cluster, running)?;
        }
        progress();
    }
    Ok(row)
}
