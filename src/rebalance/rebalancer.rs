//! The object of a serving loop.

use std::collections::{BTreeMap, VecDeque};

use super::{RebalanceOptions, Strategy, forecast};
use crate::check;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::{Loads, check_same_layers};
use crate::plan::{Placement, Plan};
use crate::planner::{Planner, Replan};
use crate::previous::PreviousMap;

/// The strategies `auto` chooses from; of equal ones the first.
const TRIED: [Strategy; 3] = [Strategy::Scenarios, Strategy::Forecast, Strategy::Last];

/// `auto` takes [`Strategy::Scenarios`] until this many windows were tried.
const LEAST_TRIED: usize = 3;

/// What plans of one strategy scored on the windows after those they were made from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Backtest {
    /// The strategy.
    pub strategy: Strategy,
    /// Mean next-window balancedness of its plans; `None` where none was tried.
    pub balancedness: Option<f64>,
    /// Over how many windows.
    pub windows: usize,
}

/// What [`Rebalancer::propose`] proposes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Proposal {
    /// The plan, and what it moves where one runs already.
    pub replan: Replan,
    /// What the plan was made from; never [`Strategy::Auto`].
    pub strategy: Strategy,
    /// Why, under [`Strategy::Auto`].
    pub backtests: Vec<Backtest>,
}

impl Proposal {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.replan.plan()
    }
}

/// Watches windows of loads and proposes plans for the next one.
///
/// ```
/// use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer};
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, Planner};
///
/// let cluster = Cluster::new(6, 1, 1, 3)?;
/// let mut rebalancer =
///     Rebalancer::new(Planner::new(DeviceChoice::Cpu)?, cluster, RebalanceOptions::default())?;
/// for counts in [[90, 30, 20, 10], [80, 40, 20, 10], [85, 30, 25, 10]] {
///     rebalancer.observe(Loads::from_counts(1, 4, &counts)?)?;
///     let proposal = rebalancer.propose()?;
///     // ... transfer weights, then:
///     rebalancer.apply(proposal.plan().placement().clone())?;
/// }
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Rebalancer {
    planner: Planner,
    cluster: Cluster,
    options: RebalanceOptions,
    /// The last windows, newest last.
    history: VecDeque<Loads>,
    /// Windows observed so far.
    observed: usize,
    /// What each strategy's plan scored on a window, by the window's number.
    scores: BTreeMap<usize, Vec<f64>>,
    /// What each strategy would do for a window, by the window's number.
    drafts: BTreeMap<usize, Vec<Draft>>,
    running: Option<Placement>,
}

/// What a strategy would do for one window.
#[derive(Clone)]
struct Draft {
    /// Its fresh plan.
    fresh: Plan,
    /// The plan that would run, had this strategy been followed all along.
    running: Placement,
}

impl Rebalancer {
    /// Nothing observed yet and no plan running.
    ///
    /// # Errors
    /// [`Error::Invalid`] where an option is out of range.
    pub fn new(planner: Planner, cluster: Cluster, options: RebalanceOptions) -> Result<Self, Error> {
        options.check()?;
        Ok(Self {
            planner,
            cluster,
            options,
            history: VecDeque::new(),
            observed: 0,
            scores: BTreeMap::new(),
            drafts: BTreeMap::new(),
            running: None,
        })
    }

    /// Adds the loads of the window that just ended.
    ///
    /// # Errors
    /// [`Error::Invalid`] where their shape differs from that of the windows before, or does not fit the
    /// cluster.
    pub fn observe(&mut self, window: Loads) -> Result<(), Error> {
        self.cluster.check_experts(window.experts())?;
        let windows = window.windows().len();
        if windows > 1 {
            return Err(Error::invalid("windows of the window", windows, "is not 1: give them one by one"));
        }
        if let (Some(running), true) = (&self.running, self.history.is_empty()) {
            let placement = PreviousMap::from(running).placement(&window, &self.cluster)?;
            check::score(&window, &self.cluster, placement.physical_to_logical())?;
        }
        if let Some(before) = self.history.back() {
            for (field, found, wanted) in [
                ("layers of the window", window.layers(), before.layers()),
                ("experts of the window", window.experts(), before.experts()),
            ] {
                if found != wanted {
                    return Err(Error::invalid(field, found, format!("is not as before, {wanted}")));
                }
            }
            check_same_layers("layers of the window", window.layer_ids(), before.layer_ids())?;
        }
        self.history.push_back(window);
        self.observed += 1;
        let needed = self.options.windows.max(self.options.forecast_windows) + self.options.backtest;
        while self.history.len() > needed {
            self.history.pop_front();
        }
        Ok(())
    }

    /// The plan that runs, from which the next proposal starts.
    #[must_use]
    pub fn running(&self) -> Option<&Placement> {
        self.running.as_ref()
    }

    /// Tells that a plan runs now: the one proposed, or any other.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::InvalidPlan`] where it does not fit the cluster and the windows observed, or is no
    /// [`Placement`] and no window was observed.
    pub fn apply(&mut self, running: impl Into<PreviousMap>) -> Result<(), Error> {
        let running = running.into();
        let placement = match self.history.back() {
            Some(window) => {
                let placement = running.placement(window, &self.cluster)?;
                check::score(window, &self.cluster, placement.physical_to_logical())?;
                placement
            }
            None => running.placement_alone()?,
        };
        self.running = Some(placement);
        Ok(())
    }

    /// A plan for the next window, from the plan that runs if there is one.
    ///
    /// # Errors
    /// [`Error::Invalid`] before the first window, and where options, loads and cluster break a rule together.
    pub fn propose(&mut self) -> Result<Proposal, Error> {
        if self.history.is_empty() {
            return Err(Error::invalid("windows observed", 0, "is not at least 1"));
        }
        let strategy = match self.options.strategy {
            Strategy::Auto => {
                self.try_strategies()?;
                self.best_strategy()
            }
            given => given,
        };
        let loads = self.loads_for(strategy, self.history.len())?;
        let fresh = match self.drafts.get(&self.observed) {
            Some(drafts) => drafts[TRIED.iter().position(|s| *s == strategy).unwrap_or(0)].fresh.clone(),
            None => self.plan_fresh(&loads)?,
        };
        let running = self.running.as_ref().filter(|_| !self.options.fresh);
        let replan = self.planner.replan_from(fresh, running, &self.options.limits)?;
        let backtests = match self.options.strategy {
            Strategy::Auto => self.backtests(),
            _ => Vec::new(),
        };
        Ok(Proposal { replan, strategy, backtests })
    }

    /// Mean scores of the strategies that `auto` chooses from, on the last windows.
    #[must_use]
    pub fn backtests(&self) -> Vec<Backtest> {
        let recent: Vec<&Vec<f64>> = self.scores.values().rev().take(self.options.backtest).collect();
        let mean = |i: usize| recent.iter().map(|scores| scores[i]).sum::<f64>() / recent.len() as f64;
        TRIED
            .into_iter()
            .enumerate()
            .map(|(i, strategy)| Backtest {
                strategy,
                balancedness: (!recent.is_empty()).then(|| mean(i)),
                windows: recent.len(),
            })
            .collect()
    }

    fn best_strategy(&self) -> Strategy {
        let backtests = self.backtests();
        if backtests[0].windows < LEAST_TRIED {
            return Strategy::Scenarios;
        }
        let better = |a: Backtest, b: Backtest| if b.balancedness > a.balancedness { b } else { a };
        backtests.into_iter().reduce(better).map_or(Strategy::Scenarios, |b| b.strategy)
    }

    /// Scores every strategy on the last windows, and drafts what it would do for the next one: each plans from
    /// the windows before, and starts from its own plan before, under the same limits.
    fn try_strategies(&mut self) -> Result<(), Error> {
        let known = self.history.len();
        // Windows by number: history[i] is number `first + i`; a draft is named by the window it is for.
        let first = self.observed - known;
        for end in known.saturating_sub(self.options.backtest).max(1)..=known {
            let number = first + end;
            if self.scores.contains_key(&number) {
                continue;
            }
            if !self.drafts.contains_key(&number) {
                let before = self.drafts.values().next_back();
                let drafts = TRIED.iter().enumerate().map(|(i, &strategy)| {
                    let fresh = self.plan_fresh(&self.loads_for(strategy, end)?)?;
                    let before = before.map(|drafts| &drafts[i].running).filter(|_| !self.options.fresh);
                    let replan = self.planner.replan_from(fresh.clone(), before, &self.options.limits)?;
                    Ok(Draft { fresh, running: replan.plan().placement().clone() })
                });
                let drafts = drafts.collect::<Result<Vec<Draft>, Error>>()?;
                self.drafts.insert(number, drafts);
            }
            if let (Some(window), Some(drafts)) = (self.history.get(end), self.drafts.get(&number)) {
                let score = |draft: &Draft| {
                    let map = draft.running.physical_to_logical();
                    check::score(window, &self.cluster, map).map(|q| q.balancedness())
                };
                let scores = drafts.iter().map(score).collect::<Result<Vec<f64>, Error>>()?;
                self.scores.insert(number, scores);
            }
        }
        while self.scores.len() > self.options.backtest {
            self.scores.pop_first();
        }
        while self.drafts.len() > 1 {
            self.drafts.pop_first();
        }
        Ok(())
    }

    /// What a strategy plans on after the first `end` windows of the history.
    fn loads_for(&self, strategy: Strategy, end: usize) -> Result<Loads, Error> {
        let last = |count: usize| -> Vec<Loads> {
            self.history.range(end.saturating_sub(count)..end).cloned().collect()
        };
        match strategy {
            Strategy::Last => Loads::from_windows(&last(1), &[1.0]),
            Strategy::Forecast => forecast(&last(self.options.forecast_windows)),
            Strategy::Scenarios | Strategy::Auto => {
                let windows = last(self.options.windows);
                // The newest weighs 1; products, not powers, are the same on every machine.
                let mut weights = vec![1.0; windows.len()];
                for age in 1..windows.len() {
                    let at = windows.len() - 1 - age;
                    weights[at] = weights[at + 1] * self.options.decay;
                }
                Loads::from_windows(&windows, &weights)
            }
        }
    }

    fn plan_fresh(&self, loads: &Loads) -> Result<Plan, Error> {
        let several = loads.windows().len() > 1;
        let options = if several { &self.options.scenario_plan } else { &self.options.plan };
        self.planner.plan(loads, &self.cluster, options)
    }
}
