//! How even three maps are, on the loads of a plan together and on each of its workloads alone: the plan's map, greedy's, and
//! the one that runs. Numbers stand side by side only where they are of the same loads.

use serde_json::{Value, json};

use crate::check::{self, CheckOptions, Quality};
use crate::{DeviceChoice, Error, Loads, Plan, PlanOptions, Planner, Preset, PreviousMap};

/// The scores of a map.
pub struct MapScores {
    /// On the weighted mean of the workloads.
    pub mean: Quality,
    /// On each workload alone; none where there is one.
    pub alone: Vec<Quality>,
}

impl MapScores {
    /// The scores of the plan itself, with bounds.
    pub fn of_plan(plan: &Plan) -> Result<Self, Error> {
        let alone = if is_several(plan) { plan.window_quality()? } else { Vec::new() };
        Ok(Self { mean: plan.quality().clone(), alone })
    }

    /// The plan of DeepSeek's rule on the mean of the workloads, under the same most replicas of an expert, by the CPU backend.
    /// Without a bound of its own, which nothing here tells.
    pub fn of_greedy(plan: &Plan, max_replicas_per_expert: Option<u32>) -> Result<Self, Error> {
        let options = PlanOptions { max_replicas_per_expert, ..Preset::GREEDY.options() };
        let greedy = Planner::new(DeviceChoice::Cpu)?.plan(&mean_of(plan)?, plan.cluster(), &options)?;
        Self::of_map(plan, greedy.physical_to_logical(), &CheckOptions::default())
    }

    /// Of the map that runs, where it fits the cluster, perhaps by the rules that it was made by alone.
    pub fn of_previous(plan: &Plan, map: &PreviousMap, rules: &CheckOptions) -> Option<Self> {
        let map = map.map_on(plan.cluster());
        let plain = CheckOptions::default();
        Self::of_map(plan, &map, &plain).or_else(|_| Self::of_map(plan, &map, rules)).ok()
    }

    fn of_map(plan: &Plan, map: &[i32], rules: &CheckOptions) -> Result<Self, Error> {
        let score = |loads: &Loads| check::score_with(loads, plan.cluster(), map, rules);
        let windows = plan.loads().windows().filter(|_| is_several(plan));
        Ok(Self { mean: score(&mean_of(plan)?)?, alone: windows.map(score).collect::<Result<_, _>>()? })
    }

    /// The first numbers of a report: the balancedness of each workload alone, where there are several.
    fn read_first(&self) -> Vec<f64> {
        match self.alone.as_slice() {
            [] => vec![self.mean.balancedness()],
            alone => alone.iter().map(Quality::balancedness).collect(),
        }
    }

    /// The same for people.
    pub fn text(&self, weights: &[f64]) -> String {
        mean_and_worst_text(&self.read_first(), weights)
    }

    /// The same as numbers; null where there is one workload.
    pub fn json(&self, weights: &[f64]) -> Value {
        mean_and_worst(&self.read_first(), weights)
            .map_or(Value::Null, |(mean, worst)| json!({ "mean": mean, "worst": worst }))
    }
}

/// The weighted mean of each workload's balancedness, and the worst of those that weigh anything; where there are several.
fn mean_and_worst(each: &[f64], weights: &[f64]) -> Option<(f64, f64)> {
    let pairs = || each.iter().zip(weights).filter(|_| each.len() > 1);
    let worst = pairs().filter(|(_, weight)| **weight > 0.0).map(|(score, _)| *score).reduce(f64::min)?;
    Some((pairs().map(|(score, weight)| score * weight).sum(), worst))
}

/// The balancedness of one workload, or of several the mean and the worst.
pub fn mean_and_worst_text(each: &[f64], weights: &[f64]) -> String {
    match (mean_and_worst(each, weights), each) {
        (Some((mean, worst)), _) => {
            let part = if weights.contains(&0.0) { " of weight above 0" } else { "" };
            format!("{mean:.5} mean, {worst:.5} worst{part}")
        }
        (None, each) => format!("{:.5}", each.first().copied().unwrap_or(1.0)),
    }
}

/// Whether a plan is for several workloads.
fn is_several(plan: &Plan) -> bool {
    plan.loads().windows().len() > 1
}

/// The mean of a plan's workloads, as the loads of one.
fn mean_of(plan: &Plan) -> Result<Loads, Error> {
    Loads::from_f64(plan.layers(), plan.experts(), plan.loads().values())
}
