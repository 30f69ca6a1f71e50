//! The options of a plan: the budget, the move set, the rules, and presets of them.

use crate::check::{CheckOptions, Dispatch};

/// The most starts a node.
pub const MAX_STARTS: u32 = 1 << 16;

/// The most iterations of a start.
pub const MAX_ITERATIONS: u32 = 1 << 20;

/// The most group assignments tried a layer.
pub const MAX_ASSIGNMENTS: u32 = 1 << 10;

/// The most pairs of GPUs that share with the heaviest one.
pub const MAX_THREE_GPUS: u32 = 1 << 16;

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

/// The objective that a swap must improve.
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

/// How the packed candidates are improved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Search {
    /// Not at all: the packing is the plan.
    None,
    /// One trajectory a start: the best move of the heaviest GPU again and again, even where it makes things
    /// worse for a while (tabu search). With two slots a GPU it searches replica counts.
    Trajectory,
    /// A descent of the lineage: moves that help, until none does.
    Descent(Descent),
}

/// A local search of the lineage, which ends where no move helps.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..Descent::default()`, and later versions compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descent {
    /// The quantity that a 1-1 swap must improve. The other moves always lower the heaviest GPU. Default: `Max`.
    pub objective: Objective,
    /// How many of the heaviest GPUs propose a swap in one step, each with distinct partners; 0 means all.
    /// Default: 1.
    pub heaviest: u32,
    /// How many of the lightest GPUs may be partners; 0 means every other GPU. Default: 0.
    pub lightest: u32,
    /// Whether 1-1 swaps are tried. Default: `true`.
    pub swaps: bool,
    /// Whether 2-for-2 swaps of the heaviest GPU (2-for-1 where a slot is free) are tried when no 1-1 swap helps. Default:
    /// `false`.
    pub pair_swaps: bool,
    /// Whether the items of the heaviest and the lightest GPU are partitioned anew, exactly, when no swap helps. Default:
    /// `false`.
    pub bipartition: bool,
    /// The most steps. Any number. Default: 1,000.
    pub steps: u32,
}

/// Everything a caller may choose about a plan; start from `default()` or a [`crate::Preset`]. The reference of each option is
/// at its field: its meaning, range and default.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..PlanOptions::default()`, and later versions compile.
///
/// ```
/// use eplb_wgpu::PlanOptions;
/// let options = PlanOptions { starts: 64, seed: 7, ..PlanOptions::default() };
/// assert_eq!(options.iterations, PlanOptions::default().iterations);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// Seed of every choice that is drawn; equal seeds give equal plans. Any number. Default: `0`.
    pub seed: u64,
    /// Independent starts a node at most: the first is built without noise, and the others follow only where it ends
    /// more than [`PlanOptions::start_gap_ppm`] above the bound. From 1 to [`MAX_STARTS`]. Default: `16`.
    pub starts: u32,
    /// Iterations of a start at most. From 0 to [`MAX_ITERATIONS`]. Default: `1024`.
    pub iterations: u32,
    /// A start ends after this many iterations without a new best. Any number; by the slots of a GPU the planner takes more or
    /// fewer. Default: `32`.
    pub patience: u32,
    /// Assignments of groups to nodes that a layer tries at most, from 1 to [`MAX_ASSIGNMENTS`]; the one with the lowest bound
    /// comes first. `None`: where all of them can be enumerated, each that could win; else the best few of a sample. Other
    /// rules than [`GroupRule::BestFirst`] try one. Default: `None`.
    pub assignments: Option<u32>,
    /// How groups are given to nodes. Default: `BestFirst`.
    pub groups: GroupRule,
    /// Post-hierarchical repair: swap a group of the heaviest GPU's node with one of the lightest node.
    /// (It is left out where a node has more than 4,096 pairs of groups to weigh.) Default: `false`.
    pub repair: bool,
    /// Whether starts other than the first add noise to the loads that decide replica counts. Default: `true`.
    pub count_noise: bool,
    /// Whether starts other than the first add noise to the choice of GPU during packing. Default: `true`.
    pub packing_noise: bool,
    /// How candidates are improved. Default: `Trajectory`.
    pub search: Search,
    /// Whether a GPU may hold two replicas of one expert. Default: `Avoid`.
    pub duplicates: Duplicates,
    /// The most replicas of an expert, at least 1; `None` for as many as are useful. Default: `None`.
    pub max_replicas_per_expert: Option<u32>,
    /// Connect the GPUs, for shares of each batch ([`crate::Plan::batch_shares`]): any two of a node (of the cluster
    /// under the global policy) are linked by GPUs of which each and the next hold replicas of one expert. It costs up to
    /// .002 of balance, and does nothing where a node has fewer further replicas than GPUs less one. Default: `false`.
    pub connected: bool,
    /// The most foreign replicas of a layer, those outside the home node of their group (hierarchical policy only):
    /// every expert keeps a replica at home, and a node its number of replicas. Fewer than a group has experts; 0 for none.
    /// Default: `0`.
    pub max_foreign: u32,
    /// With [`PlanOptions::max_foreign`]: the heaviest GPU over the mean, in millionths, at which a layer gets no more of
    /// them. At least 1,000,000, which is even: then their number alone decides. Default: `1000000`.
    pub foreign_target_ppm: u32,
    /// A start ends when its heaviest GPU is within this many millionths of the bound. Any number; 999,999 and above are alike.
    /// Default: `200`.
    pub stop_gap_ppm: u32,
    /// A node gets no further starts once one of them is within this many millionths of the bound. Any number; less than
    /// [`PlanOptions::stop_gap_ppm`] counts as that. Default: `400`.
    pub start_gap_ppm: u32,
    /// How tokens are dealt to replicas: what plans are judged by, where nodes are known under the global policy. Under the
    /// hierarchical one, and with one node, all of them come to the same. Default: `Equal`.
    pub dispatch: Dispatch,
    /// At the end the heaviest GPU shares its replicas anew with two others, again and again, where that makes it
    /// lighter; it tries this many pairs of others at most, up to [`MAX_THREE_GPUS`], 0 for none. In a node that has so few
    /// pairs that they can all be tried several times, further starts end the same way. For one window and 3 to 6 slots a
    /// GPU. Default: `320`.
    pub three_gpus: u32,
}

impl Descent {
    /// 1-1 swaps of the heaviest GPU with every other, nothing else.
    pub(crate) const SWAPS: Descent = Descent {
        objective: Objective::Max,
        heaviest: 1,
        lightest: 0,
        swaps: true,
        pair_swaps: false,
        bipartition: false,
        steps: 1000,
    };
}

impl Default for Descent {
    /// 1-1 swaps of the heaviest GPU with every other.
    fn default() -> Self {
        Self::SWAPS
    }
}

impl PlanOptions {
    /// The rules that plans under these options keep, beyond those of their cluster.
    pub(crate) fn rules(&self) -> CheckOptions {
        CheckOptions { max_foreign: self.max_foreign, max_replicas_per_expert: self.max_replicas_per_expert }
    }
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            starts: 16,
            iterations: 1024,
            patience: 32,
            assignments: None,
            groups: GroupRule::BestFirst,
            repair: false,
            count_noise: true,
            packing_noise: true,
            search: Search::Trajectory,
            duplicates: Duplicates::Avoid,
            max_replicas_per_expert: None,
            connected: false,
            max_foreign: 0,
            foreign_target_ppm: 1_000_000,
            stop_gap_ppm: 200,
            start_gap_ppm: 400,
            dispatch: Dispatch::Equal,
            three_gpus: 320,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cluster, DeviceChoice, Loads, Planner};

    #[test]
    fn the_reference_tells_every_default() {
        let shown = format!("{:#?}", PlanOptions::default());
        let shown = shown.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(": "));
        let mut defaults: Vec<(&str, &str)> = shown.collect();
        let text = include_str!("options.rs").split_once("pub struct PlanOptions {").unwrap().1;
        let mut told = Vec::new();
        for line in text.lines().map(str::trim).take_while(|line| *line != "}") {
            if let Some((_, default)) = line.split_once("Default: `") {
                told.push(default.trim_end_matches("`."));
            } else if let Some(field) = line.strip_prefix("pub ") {
                let field = field.split_once(':').unwrap().0;
                assert_eq!(defaults.remove(0), (field, told.pop().unwrap_or("not told")));
            }
        }
        assert_eq!(defaults, []);
    }

    #[test]
    fn budgets_past_their_limits_are_refused_by_name() {
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let (loads, cluster) =
            (Loads::from_counts(1, 2, &[3, 1]).unwrap(), Cluster::new(4, 1, 1, 2).unwrap());
        let said = |starts, iterations, assignments| {
            let options = PlanOptions { starts, iterations, assignments, ..PlanOptions::default() };
            planner.plan(&loads, &cluster, &options).err().map(|error| error.to_string())
        };
        assert_eq!(said(MAX_STARTS, MAX_ITERATIONS, Some(MAX_ASSIGNMENTS)), None);
        for (found, rule) in [
            (said(MAX_STARTS + 1, 0, None), "starts 65537 is not between 1 and 65536"),
            (said(u32::MAX, 0, None), "starts 4294967295 is not between 1 and 65536"),
            (said(0, 0, None), "starts 0 is not between 1 and 65536"),
            (said(1, MAX_ITERATIONS + 1, None), "iterations 1048577 is not between 0 and 1048576"),
            (said(1, 0, Some(0)), "assignments 0 is not between 1 and 1024"),
            (said(1, 0, Some(MAX_ASSIGNMENTS + 1)), "assignments 1025 is not between 1 and 1024"),
        ] {
            assert_eq!(found.as_deref(), Some(rule));
        }
    }
}
