//! The object of a serving loop.

use std::collections::VecDeque;

use super::{RebalanceOptions, Status, Strategy, forecast};
use crate::check;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::{Loads, check_same_layers};
use crate::moves;
use crate::outlook::scenarios;
use crate::plan::Plan;
use crate::planner::{Planner, Replan};
use crate::previous::PreviousMap;
use crate::shares::Shares;

/// A plan that [`Rebalancer::propose`] proposes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Proposal {
    /// The plan, and what it moves where one runs already.
    pub replan: Replan,
    /// How the plan was made.
    pub strategy: Strategy,
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
    running: Option<PreviousMap>,
    status: Status,
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
            running: None,
            status: Status::default(),
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
            running.check(&window)?;
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
        self.status.windows += 1;
        self.status.balancedness = self.running.as_ref().and_then(|running| self.score(running, &window));
        self.history.push_back(window);
        let needed = self.options.windows.max(self.options.forecast_windows);
        while self.history.len() > needed {
            self.history.pop_front();
        }
        Ok(())
    }

    /// The map that runs, from which the next proposal starts.
    #[must_use]
    pub fn running(&self) -> Option<&PreviousMap> {
        self.running.as_ref()
    }

    /// Tells that a plan runs now: the one proposed, or any other map, see [`crate::Planner::replan`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where its layers or experts are not those of the windows observed.
    pub fn apply(&mut self, running: impl Into<PreviousMap>) -> Result<(), Error> {
        let running = running.into();
        if let Some(window) = self.history.back() {
            running.check(window)?;
        }
        if let Some(before) = &self.running {
            let (old, new) = (before.rows(&self.cluster), running.rows(&self.cluster));
            self.status.moves_made += moves::received(self.cluster.slots_per_gpu(), &old, &new) as u64;
        }
        self.running = Some(running);
        Ok(())
    }

    /// Tells that GPUs are gone or new: the cluster from now on, and the map that runs on it. The windows are kept.
    ///
    /// ```
    /// use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer};
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, Planner, PreviousMap};
    /// let planner = Planner::new(DeviceChoice::Cpu)?;
    /// let mut rebalancer = Rebalancer::new(planner, Cluster::new(6, 1, 1, 3)?, RebalanceOptions::default())?;
    /// rebalancer.observe(Loads::from_counts(1, 4, &[90, 30, 20, 10])?)?;
    /// let running = rebalancer.propose()?.plan().placement().clone();
    /// // GPU 1 of 3 fails.
    /// let left = PreviousMap::from(running).with_slots_per_gpu(2)?.without_gpus(&[1])?;
    /// rebalancer.change_cluster(Cluster::new(4, 1, 1, 2)?, left)?;
    /// assert_eq!(rebalancer.propose()?.plan().slots(), 4);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] where the windows or the map do not fit the cluster; nothing is changed then.
    pub fn change_cluster(&mut self, cluster: Cluster, running: impl Into<PreviousMap>) -> Result<(), Error> {
        let running = running.into();
        if let Some(window) = self.history.back() {
            cluster.check_experts(window.experts())?;
            running.check(window)?;
        }
        self.cluster = cluster;
        self.running = Some(running);
        Ok(())
    }

    /// The numbers of the loop, for graphs.
    ///
    /// ```
    /// use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer};
    /// use eplb_wgpu::{Cluster, DeviceChoice, Planner};
    /// let planner = Planner::new(DeviceChoice::Cpu)?;
    /// let rebalancer = Rebalancer::new(planner, Cluster::new(6, 1, 1, 3)?, RebalanceOptions::default())?;
    /// assert!(rebalancer.status().prometheus().contains("eplb_windows_total 0\n"));
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Balancedness of a map on a window; `None` where it is not a plan of this cluster.
    fn score(&self, running: &PreviousMap, window: &Loads) -> Option<f64> {
        let map = running.map_on(&self.cluster);
        let rules = self.options.plan.rules();
        check::score_with(window, &self.cluster, &map, &rules).ok().map(|quality| quality.balancedness())
    }

    /// A plan for the next window, from the plan that runs if there is one.
    ///
    /// # Errors
    /// [`Error::Invalid`] before the first window, and where options, loads and cluster break a rule together.
    pub fn propose(&mut self) -> Result<Proposal, Error> {
        let loads = self.loads()?;
        let options = &self.options;
        let several = loads.windows().len() > 1;
        let plan = if several { &options.scenario_plan } else { &options.plan };
        let replan = match self.running.as_ref().filter(|_| !options.fresh) {
            Some(running) => {
                self.planner.replan(&loads, &self.cluster, running.clone(), plan, &options.limits)?
            }
            None => self.planner.plan_over_time(&loads, &self.cluster, plan)?.into(),
        };
        let strategy = options.strategy;
        let plan = replan.plan();
        let map = plan.physical_to_logical();
        let expected = check::score_with(&loads, &self.cluster, map, &plan.options().rules())?.balancedness();
        self.status.proposals += 1;
        self.status.expected_balancedness = Some(expected);
        let moved = match &self.running {
            Some(running) if options.fresh => {
                let new = PreviousMap::from(plan.placement()).rows(&self.cluster);
                moves::received(self.cluster.slots_per_gpu(), &running.rows(&self.cluster), &new)
            }
            _ => replan.moves().received,
        };
        self.status.moves_proposed += moved as u64;
        self.status.repairs_proposed += replan.moves().repairs as u64;
        self.status.last_plan = plan.elapsed();
        self.status.planning += plan.elapsed();
        Ok(Proposal { replan, strategy })
    }

    /// A table of shares for the next window, of the map that runs: see [`Plan::shares`]. It moves no weights, and can be
    /// made at every window, a new plan or not.
    ///
    /// # Errors
    /// [`Error::Invalid`] before the first window, and where no map runs.
    pub fn shares(&self) -> Result<Shares, Error> {
        let Some(running) = &self.running else {
            let rule = "is not at least 1: tell which one runs by `apply` first";
            return Err(Error::invalid("maps that run", 0, rule));
        };
        let map = running.map_on(&self.cluster);
        let windows: Vec<Loads> = self.history.iter().cloned().collect();
        self.planner.shares(&self.cluster, &map, &windows)
    }

    /// The loads that stand for the next window.
    fn loads(&self) -> Result<Loads, Error> {
        let history: Vec<&Loads> = self.history.iter().collect();
        if history.is_empty() {
            return Err(Error::invalid("windows observed", 0, "is not at least 1"));
        }
        let known = &history[history.len().saturating_sub(self.options.forecast_windows)..];
        match self.options.strategy {
            Strategy::Forecast => forecast(&known.iter().map(|&window| window.clone()).collect::<Vec<_>>()),
            Strategy::Scenarios => {
                let options = &self.options;
                self.planner.on_threads(|| scenarios(known, options.windows, options.decay))
            }
        }
    }
}
