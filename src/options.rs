//! What a caller may choose: the budget, the move set, the rules, and presets of them.

/// The most restarts a (layer, node).
pub const MAX_RESTARTS: u32 = 1 << 16;

/// The most kicks a restart.
pub const MAX_KICKS: u32 = 1 << 16;

/// The most iterations of a start.
pub const MAX_ITERATIONS: u32 = 1 << 20;

/// The most group assignments tried a layer.
pub const MAX_ASSIGNMENTS: u32 = 1 << 10;

/// How groups are given to nodes (hierarchical policy only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupRule {
    /// Largest group first to the least loaded node with room (DeepSeek's rule).
    Lpt,
    /// LPT on the node load plus a penalty on the spread of group loads inside the node (`rec4`).
    LptVariance,
    /// The best balanced assignments by `max(node load per GPU, heaviest replica)`: exact where there are at
    /// most a few thousand of them, LPT with group swaps and seeded samples beyond.
    BestFirst,
}

/// What a swap must improve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objective {
    /// The larger load of the two GPUs.
    Max,
    /// The sum of squared GPU loads.
    Variance,
    /// Variance until no swap helps, then the larger load.
    VarianceThenMax,
}

/// Whether a GPU may hold two replicas of one expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Duplicates {
    /// As the peers do: nothing prevents it.
    Allow,
    /// Never, wherever it is possible at all; what could not be avoided is counted in the plan's quality.
    Avoid,
}

/// The local search that refines one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// What a 1-1 swap must improve. The other moves always lower the heaviest GPU.
    pub objective: Objective,
    /// How many of the heaviest GPUs propose a swap in one step, each with distinct partners; 0 means all.
    pub heaviest: u32,
    /// How many of the lightest GPUs may be partners; 0 means every other GPU.
    pub lightest: u32,
    /// 1-1 swaps.
    pub swaps: bool,
    /// 2-for-2 swaps of the heaviest GPU (2-for-1 where a slot is free), tried when no 1-1 swap helps.
    pub pair_swaps: bool,
    /// Re-partition the items of the heaviest and the lightest GPU exactly, tried when no swap helps.
    pub bipartition: bool,
    /// Replica transfers (a replica of one expert becomes one of another), tried when no swap helps.
    pub transfers: bool,
    /// The most steps of one descent.
    pub steps: u32,
}

/// Everything a caller may choose about a plan; start from `default()` or a [`crate::Preset`].
///
/// ```
/// use eplb_wgpu::PlanOptions;
/// let options = PlanOptions { restarts: 64, seed: 7, ..PlanOptions::default() };
/// assert_eq!(options.kicks, PlanOptions::default().kicks);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Seed of every choice that is drawn; equal seeds give equal plans.
    pub seed: u64,
    /// Independent candidates a (layer, node); the first is built without noise. From 1 to
    /// [`MAX_RESTARTS`].
    pub restarts: u32,
    /// Perturbations a restart may try after its first descent, at most [`MAX_KICKS`].
    pub kicks: u32,
    /// Iterations of the search of a start at most, from 0 to [`MAX_ITERATIONS`].
    pub iterations: u32,
    /// The search of a start ends after this many iterations without a new best.
    pub patience: u32,
    /// Group assignments tried a layer, best first (with [`GroupRule::BestFirst`]). From 1 to
    /// [`MAX_ASSIGNMENTS`].
    pub assignments: u32,
    /// How groups are given to nodes.
    pub groups: GroupRule,
    /// Post-hierarchical repair: swap a group of the heaviest GPU's node with one of the lightest node.
    /// (Not with so many groups that a node has more than 4,096 pairs of them to weigh.)
    pub repair: bool,
    /// Perturb the loads that decide replica counts in restarts other than the first.
    pub count_noise: bool,
    /// Perturb the choice of GPU during packing in restarts other than the first.
    pub packing_noise: bool,
    /// The local search, or none.
    pub search: Option<Search>,
    /// Whether a GPU may hold two replicas of one expert.
    pub duplicates: Duplicates,
    /// The search of a layer stops when its heaviest GPU is within this many millionths of its bound.
    pub stop_gap_ppm: u32,
    /// Counts other than the clean ones must win by this many millionths of the clean descent's result.
    pub count_margin_ppm: u32,
}

impl Search {
    /// 1-1 swaps of the heaviest GPU with every other, nothing else.
    pub(crate) const SWAPS: Search = Search {
        objective: Objective::Max,
        heaviest: 1,
        lightest: 0,
        swaps: true,
        pair_swaps: false,
        bipartition: false,
        transfers: false,
        steps: 1000,
    };
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            restarts: 32,
            kicks: 8,
            iterations: 1 << 10,
            patience: 32,
            assignments: 1,
            groups: GroupRule::BestFirst,
            repair: false,
            count_noise: true,
            packing_noise: true,
            search: Some(Search { pair_swaps: true, transfers: true, ..Search::SWAPS }),
            duplicates: Duplicates::Avoid,
            stop_gap_ppm: 40,
            count_margin_ppm: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cluster, DeviceChoice, Loads, Planner};

    #[test]
    fn budgets_past_their_limits_are_refused_by_name() {
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let (loads, cluster) =
            (Loads::from_counts(1, 2, &[3, 1]).unwrap(), Cluster::new(4, 1, 1, 2).unwrap());
        let said = |restarts, kicks, assignments| {
            let options = PlanOptions { restarts, kicks, assignments, ..PlanOptions::default() };
            planner.plan(&loads, &cluster, &options).err().map(|error| error.to_string())
        };
        assert_eq!(said(MAX_RESTARTS, MAX_KICKS, MAX_ASSIGNMENTS), None);
        for (found, rule) in [
            (said(MAX_RESTARTS + 1, 0, 1), "restarts 65537 is not between 1 and 65536"),
            (said(u32::MAX, 0, 1), "restarts 4294967295 is not between 1 and 65536"),
            (said(0, 0, 1), "restarts 0 is not between 1 and 65536"),
            (said(1, MAX_KICKS + 1, 1), "kicks 65537 is not between 0 and 65536"),
            (said(1, 0, 0), "assignments 0 is not between 1 and 1024"),
            (said(1, 0, MAX_ASSIGNMENTS + 1), "assignments 1025 is not between 1 and 1024"),
        ] {
            assert_eq!(found.as_deref(), Some(rule));
        }
    }
}
