//! The plan that `eplb plan` tells of.

use super::Plan;
use crate::check::CheckOptions;
use crate::cli::compared::MapScores;
use crate::cli::joined::join;
use crate::cli::progress::ShownProgress;
use crate::cli::words;
use crate::rebalance::{Proposal, RebalanceOptions, Rebalancer, Strategy};
use crate::trace::Window;
use crate::{
    Cluster, Duplicates, Error, MoveLimits, PlanOptions, Planner, Policy, Preset, PreviousMap, Replan,
};

/// A plan, and how it came about.
pub struct Made {
    pub replan: Replan,
    pub strategy: Option<Strategy>,
    /// The scores of the map that runs, on the same loads; where it fits the cluster.
    pub before: Option<MapScores>,
}

impl Made {
    fn new(
        replan: Replan,
        strategy: Option<Strategy>,
        previous: Option<&PreviousMap>,
        rules: &CheckOptions,
    ) -> Self {
        let before = previous.and_then(|map| MapScores::of_previous(replan.plan(), map, rules));
        Self { replan, strategy, before }
    }
}

impl Plan {
    /// The plan, from the previous one if there is one: that depends on the layers of the loads, and has rules of its own.
    pub(super) fn make(
        &self,
        cluster: &Cluster,
        (previous, rules): (impl Fn(&[u32]) -> Result<Option<PreviousMap>, Error>, &CheckOptions),
        progress: &ShownProgress,
    ) -> Result<Made, Error> {
        let planner = Planner::new(self.device.clone())?.with_fallback(self.fallback);
        let planner = progress.watch(planner);
        if planner.device().backend != "cpu" {
            words::check_effect(&[(self.threads.is_some(), "--threads")], "the CPU backend: --device cpu")?;
        }
        let foreign = if cluster.policy() == Policy::Hierarchical { rules.max_foreign } else { 0 };
        if let Some(strategy) = self.strategy {
            let [file] = self.loads.as_slice() else {
                let rule = "is for the windows of one load file";
                return Err(Error::invalid("strategy", strategy, rule));
            };
            let limits = self.limits.limits(&MoveLimits::each_window());
            let options = RebalanceOptions { strategy, ..self.outlook.options(limits) };
            let options = RebalanceOptions {
                plan: self.options(options.plan.clone(), foreign)?,
                scenario_plan: self.options(options.scenario_plan.clone(), foreign)?,
                ..options
            };
            let history = self.part.history(file)?;
            let previous = previous(history.layer_ids())?;
            progress.expect(history.layers());
            let mut rebalancer = Rebalancer::new(planner, cluster.clone(), options)?;
            for window in 0..history.windows() {
                rebalancer.observe(history.loads(Window::Index(window))?)?;
            }
            if let Some(previous) = &previous {
                rebalancer.apply(previous.clone())?;
            }
            let Proposal { replan, strategy, .. } = rebalancer.propose()?;
            return Ok(Made::new(replan, Some(strategy), previous.as_ref(), rules));
        }
        let windows = self.loads.iter().map(|file| self.part.read(file)).collect::<Result<Vec<_>, _>>()?;
        let loads = join(&self.loads, &windows, self.weights.as_deref())?;
        let previous = previous(loads.layer_ids())?;
        words::check_experts(cluster, loads.experts(), self.slots_per_gpu)?;
        let preset = if windows.len() > 1 { Preset::SCENARIOS.options() } else { PlanOptions::default() };
        progress.expect(loads.layers());
        let options = self.options(preset, foreign)?;
        let replan = match (&previous, self.time_limit) {
            (None, Some(limit)) => planner.plan_within(&loads, cluster, &options, limit)?.into(),
            (Some(previous), _) => {
                let limits = self.limits.limits(&MoveLimits::default());
                planner.replan(&loads, cluster, previous.clone(), &options, &limits)?
            }
            (None, None) => Replan::from(planner.plan(&loads, cluster, &options)?),
        };
        Ok(Made::new(replan, None, previous.as_ref(), rules))
    }

    /// The preset's options, or these where none is given, with what the flags change. The plan that runs may have this many
    /// foreign replicas.
    fn options(&self, default: PlanOptions, foreign: u32) -> Result<PlanOptions, Error> {
        let mut options = match &self.preset {
            Some(name) => name.parse::<Preset>()?.options(),
            None => default,
        };
        options.seed = self.seed;
        options.starts = self.starts.unwrap_or(options.starts);
        options.iterations = self.iterations.unwrap_or(options.iterations);
        options.assignments = self.assignments.or(options.assignments);
        options.max_replicas_per_expert = self.max_replicas_per_expert.or(options.max_replicas_per_expert);
        options.connected |= self.connected;
        options.max_foreign = foreign;
        self.foreign.set(&mut options);
        if self.allow_duplicates {
            options.duplicates = Duplicates::Allow;
        }
        options.dispatch = self.dispatch.unwrap_or(options.dispatch);
        Ok(options)
    }
}
