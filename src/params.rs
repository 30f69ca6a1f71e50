//! The numbers of one call that every stage reads, and the constants that shape plans, each with its reason.

mod assignments;
mod budgets;
mod scan;
mod speeds;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::FIXED_TOTAL;
use crate::loads::Loads;
use crate::options::{
    Descent, Duplicates, GroupRule, MAX_ASSIGNMENTS, MAX_ITERATIONS, MAX_STARTS, MAX_THREE_GPUS, Objective,
    PlanOptions, Search,
};

use budgets::Budgets;
use scan::Scan;

pub use assignments::enumerate_assignments;
pub use budgets::MOST_THREE_SLOTS;
pub use speeds::{Factors, PULL_BITS, over_speed};

/// A slot that holds no replica, in the planner's own maps.
pub const FREE: u32 = u32::MAX;

/// Slots of the planner as maps have them: -1 for a free one.
pub fn to_map(slots: &[u32]) -> impl Iterator<Item = i32> + '_ {
    slots.iter().map(|&e| if e == FREE { -1 } else { e as i32 })
}

/// Inner loops run over blocks of this many values; compilers unroll a loop of constant length. Work is counted in blocks.
///
/// llvmpipe and lavapipe end a loop after 65,535 trips, silently. An unrolled loop has no trips, so blocks keep their number
/// low. Four wastes little on the usual 2 to 18 slots a GPU.
pub const BLOCK: u32 = 4;

/// 2-for-2 swaps look at the first this many slots of a GPU: 120 pairs, which a shader can keep to itself.
/// With more slots than this, 1-1 swaps alone have thousands of differences to choose from.
pub const PAIR_SLOTS: u32 = 16;

/// Bipartition handles GPUs of at most this many slots: C(19, 9) = 92,378 ways to split 20 items.
pub const BIPARTITION_SLOTS: u32 = 10;

/// The load of a slot that must not move, while exchanges are weighed: the most that a layer can weigh, so that no exchange
/// with such a slot wins. On the GPU that gives it is taken as negative. Five of them, the worst sum, fit `i32`.
pub const BLOCKED: i32 = FIXED_TOTAL as i32;

/// A slot that moved stays for this many iterations, and up to two more.
pub const SLOT_TENURE: u32 = 2;

/// An expert that lost a replica gains none for this many iterations, and up to twice as many; one that gained loses
/// none.
pub const EXPERT_TENURE: u32 = 5;

/// With more than three slots a GPU, transfers wait for this many iterations without a new best: exchanges alone go
/// further at first.
pub const TRANSFER_WAIT: u32 = 20;

/// Assignments whose nodes get all their starts, in the order of bounds; those after them are compared by the first start
/// of their nodes, and the nodes of the best get the others. (All 128 in full take 2 to 3 times as long where the bound is
/// out of reach, and were never better than 16 in a family.)
pub const FULL_ASSIGNMENTS: u32 = 16;

/// A packing that is drawn with noise adds up to `load of the replica / 2^3` to each GPU before the argmin, cut to a power
/// of two.
pub const PACKING_NOISE_SHIFT: u32 = 3;

/// Strength of the noise on replica counts by start, in 1/256: 0, .05, .2, .1, .3, .2, .05, .4.
pub const COUNT_NOISE: [i32; 8] = [0, 13, 51, 26, 77, 51, 13, 102];

/// Starts of a node with given replicas at most: with counts that stay further ones bring little.
pub const MOST_GIVEN_STARTS: u32 = 4;

/// Group assignments built by LPT and swaps where they cannot be enumerated; the first is without noise.
pub const SAMPLED_ASSIGNMENTS: u32 = 32;

/// Assignments whose exact score may be computed while choosing the best ones, at least.
pub const ASSIGNMENT_WALK: u32 = 16;

/// Swaps between sampled assignments' nodes are tried while (groups a node) x groups is at most this.
pub const GROUP_SWAP_PAIRS: u32 = 4096;

/// Rounds of group swaps a sampled assignment gets.
pub const GROUP_SWAP_STEPS: u32 = 64;

/// See [`Params::part_price_ppm`]. With three times as much, plans over time of eleven series lost .0024 of their balancedness
/// with even shares.
const PART_PRICE_PPM: u32 = 10_000;

/// How many of a word's values a fraction of parts per million is: `x * fraction / 2^32`.
fn fraction_of_ppm(ppm: u32) -> u32 {
    (u64::from(ppm.min(999_999)) * (1 << 32) / 1_000_000) as u32
}

/// `n` in blocks of [`BLOCK`], rounded up.
pub const fn blocks(n: u32) -> u32 {
    n.div_ceil(BLOCK)
}

/// Pairs among `n` things.
pub const fn pairs(n: u32) -> u32 {
    n * n.saturating_sub(1) / 2
}

/// Sizes and rules of one call: all that the stages see of loads, cluster and options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Layers in the call.
    pub layers: u32,
    /// Logical experts in a layer.
    pub experts: u32,
    /// Groups kept whole; 1 under the global policy.
    pub groups: u32,
    /// Nodes planned apart; 1 under the global policy.
    pub nodes: u32,
    /// Experts in a group.
    pub group_size: u32,
    /// Groups in a node.
    pub node_groups: u32,
    /// Experts in a node.
    pub node_experts: u32,
    /// Replicas in a node.
    pub node_replicas: u32,
    /// GPUs in a node.
    pub node_gpus: u32,
    /// Slots on a GPU.
    pub slots_per_gpu: u32,
    /// Slots in a node.
    pub node_slots: u32,
    /// Windows whose heaviest GPUs the plan minimises together.
    pub windows: u32,
    /// The most replicas an expert may have in its node.
    pub max_count: u32,
    /// Whether construction and moves refuse a second replica of an expert on a GPU.
    pub avoid_duplicates: bool,
    /// Whether replica counts are given and the search leaves them as they are, see [`crate::given`].
    pub fixed_counts: bool,
    /// What each part of a node's GPUs beyond the first costs where plans are to be connected (see
    /// [`PlanOptions::connected`]), in millionths of the mean GPU; else 0.
    pub part_price_ppm: u32,
    /// The most foreign replicas of a layer. Stages know of none: plans made anew get them at the end.
    pub most_foreign: u32,
    /// The heaviest GPU over the mean at which a layer gets no more foreign replicas, in millionths.
    pub foreign_target_ppm: u32,
    /// The most replicas an expert may have in all nodes.
    pub most_count: u32,
    /// Nodes that copies of an expert are spread over, in plans from one that runs; 1 where it does not matter.
    pub spread_nodes: u32,
    /// The factors of GPUs of unequal speed. On the host alone.
    pub factors: Factors,
    /// Low and high word of the seed.
    pub seed: [u32; 2],
    /// Starts a node at most.
    pub starts: u32,
    /// Starts without a new best after which a node gets no more.
    pub start_patience: u32,
    /// Iterations of a start at most.
    pub iterations: u32,
    /// Iterations without a new best after which the first start ends, and any other.
    pub patience: u32,
    /// See [`Params::patience`].
    pub later_patience: u32,
    /// Group assignments tried a layer at most.
    pub assignments: u32,
    /// How groups are given to nodes.
    pub group_rule: GroupRule,
    /// Whether the last assignment tried is a repair of the best so far.
    pub repair: bool,
    /// Whether starts after the first add noise to the loads by which counts are chosen.
    pub count_noise: bool,
    /// Whether starts after the first add noise to the packing.
    pub packing_noise: bool,
    /// Whether stage 5 is the trajectory.
    pub trajectory: bool,
    /// The descent of the lineage; `steps: 0` means none.
    pub descent: Descent,
    /// A start ends at `bound + bound * stop_fraction / 2^32`.
    pub stop_fraction: u32,
    /// A node gets no further starts at `bound + bound * start_fraction / 2^32`.
    pub start_fraction: u32,
    /// Pairs of other GPUs that share with the heaviest one at the end, at most.
    pub three_gpus: u32,
    /// Slots of a GPU that an iteration offers for exchange.
    pub exchange_slots: u32,
    /// Slots of a GPU that an iteration offers for exchange in pairs.
    pub pair_slots: u32,
    /// Experts that an iteration lets lose a replica.
    pub losers: u32,
    /// Slots of the proposing GPU whose experts an iteration lets gain a replica.
    pub gainers: u32,
}

/// The search of stage 5 that a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchKind {
    /// Of replica counts: with two slots a GPU, none of them free, they decide the placement.
    Counts,
    /// One trajectory a start.
    Trajectory,
    /// A descent of the lineage, which may have no steps.
    Descent,
}

impl Params {
    /// Whether plans are to be connected.
    pub fn connected(&self) -> bool {
        self.part_price_ppm > 0
    }

    /// The search of stage 5.
    pub fn search_kind(&self) -> SearchKind {
        let counts_decide = self.slots_per_gpu == 2
            && self.windows == 1
            && !self.has_speeds()
            && self.node_replicas == self.node_slots
            && !self.fixed_counts
            && self.node_experts >= 2;
        match self.trajectory {
            true if counts_decide => SearchKind::Counts,
            true => SearchKind::Trajectory,
            false => SearchKind::Descent,
        }
    }

    /// The numbers for `loads` on `cluster` with `options`, or the rule they break together.
    pub fn new(loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Result<Self, Error> {
        cluster.check_experts(loads.experts())?;
        check_numbers(options)?;
        let (groups, nodes) = (cluster.planned_groups() as u32, cluster.planned_nodes() as u32);
        let experts = loads.experts() as u32;
        let node_experts = experts / nodes;
        let node_replicas = cluster.num_replicas() as u32 / nodes;
        let node_gpus = cluster.num_gpus() as u32 / nodes;
        let slots_per_gpu = cluster.slots_per_gpu() as u32;
        let ReplicaLimits { max_count, avoid_duplicates } =
            ReplicaLimits::new(options, (node_experts, node_replicas), node_gpus)?;
        let none = Descent { steps: 0, ..Descent::SWAPS };
        let (trajectory, descent) = match &options.search {
            Search::None => (false, none),
            Search::Trajectory => (true, none),
            Search::Descent(descent) => (false, descent.clone()),
        };
        let factors = Factors::checked(cluster, options)?;
        let windows = loads.windows().len() as u32;
        let one_window = windows == 1;
        if !one_window && !trajectory {
            let rule = "are planned by the trajectory alone: give one window, or another preset";
            return Err(Error::invalid("windows", windows, rule));
        }
        let has_speeds = !factors.gpus.is_empty();
        let spreads = nodes == 1 && trajectory && !has_speeds && node_replicas > experts;
        let kind = budgets::BudgetKind { trajectory, one_window, has_speeds, node_gpus, slots_per_gpu };
        let budgets = Budgets::new(options, kind);
        let scan = Scan::new(windows, node_gpus, slots_per_gpu);
        let chooses_assignment = groups > 1 && one_window;
        Ok(Self {
            layers: loads.layers() as u32,
            experts,
            groups,
            nodes,
            group_size: experts / groups,
            node_groups: groups / nodes,
            node_experts,
            node_replicas,
            node_gpus,
            slots_per_gpu,
            node_slots: node_gpus * slots_per_gpu,
            windows,
            max_count,
            avoid_duplicates,
            fixed_counts: false,
            part_price_ppm: match node_replicas - node_experts >= node_gpus - 1 {
                true if options.connected && node_gpus > 1 => PART_PRICE_PPM,
                _ => 0,
            },
            most_foreign: options.max_foreign,
            foreign_target_ppm: options.foreign_target_ppm,
            most_count: match options.max_foreign {
                0 => max_count,
                _ => options.max_replicas_per_expert.unwrap_or(u32::MAX),
            },
            spread_nodes: if spreads { cluster.num_nodes() as u32 } else { 1 },
            factors,
            seed: [options.seed as u32, (options.seed >> 32) as u32],
            starts: budgets.starts,
            start_patience: budgets.start_patience,
            iterations: options.iterations,
            patience: budgets.patience,
            later_patience: budgets.later_patience,
            assignments: if chooses_assignment { assignments::tried(options, groups, nodes) } else { 1 },
            group_rule: options.groups,
            repair: options.repair && chooses_assignment && groups / nodes * groups <= GROUP_SWAP_PAIRS,
            count_noise: options.count_noise,
            packing_noise: options.packing_noise,
            trajectory,
            descent,
            stop_fraction: fraction_of_ppm(options.stop_gap_ppm),
            start_fraction: fraction_of_ppm(budgets.start_gap_ppm.max(options.stop_gap_ppm)),
            three_gpus: budgets.three_gpus,
            exchange_slots: scan.exchange_slots,
            pair_slots: scan.pair_slots,
            losers: scan.losers,
            gainers: scan.gainers,
        })
    }

    /// The numbers of one node of this many GPUs, with as many slots each, and one window: of some experts, some replicas in all.
    pub fn one_node(&self, gpus: u32, (experts, replicas): (u32, u32)) -> Self {
        let Scan { exchange_slots, pair_slots, .. } = Scan::new(1, gpus, self.slots_per_gpu);
        Self {
            layers: 1,
            experts,
            groups: 1,
            nodes: 1,
            group_size: experts,
            node_groups: 1,
            node_experts: experts,
            node_replicas: replicas,
            node_gpus: gpus,
            node_slots: gpus * self.slots_per_gpu,
            windows: 1,
            most_foreign: 0,
            spread_nodes: 1,
            exchange_slots,
            pair_slots,
            ..self.clone()
        }
    }

    /// The numbers of a node whose slots are filled by given replicas of some experts.
    pub fn of_given(&self, gpus: u32, experts: u32, avoid_duplicates: bool) -> Self {
        Self {
            avoid_duplicates,
            fixed_counts: true,
            starts: self.starts.min(MOST_GIVEN_STARTS),
            // Each node tells the load at which its search ends, with nothing on top.
            stop_fraction: 0,
            start_fraction: 0,
            assignments: 1,
            repair: false,
            count_noise: false,
            ..self.one_node(gpus, (experts, gpus * self.slots_per_gpu))
        }
    }

    /// Windows in quads, the vectors of four that loads of several windows lie in (padded with zeros).
    pub fn quads(&self) -> u32 {
        self.windows.div_ceil(4)
    }

    /// The load at which a start ends, for a bound.
    pub fn stop_load(&self, bound: u32) -> u32 {
        bound + mul_high(bound, self.stop_fraction)
    }

    /// The load at which a node gets no further starts, for a bound.
    pub fn enough(&self, bound: u32) -> u32 {
        bound + mul_high(bound, self.start_fraction)
    }

    /// Whether DeepSeek's assignment is tried after the others, so that no plan is worse than the greedy one.
    pub fn tries_greedy_assignment(&self) -> bool {
        self.windows == 1 && self.groups > 1 && self.group_rule != GroupRule::Lpt
    }

    /// Whether the search uses the variance objective first.
    pub fn starts_with_variance(&self) -> bool {
        self.descent.objective != Objective::Max
    }
}

/// Refuses numbers outside their range.
fn check_numbers(options: &PlanOptions) -> Result<(), Error> {
    let bounded = [
        ("starts", options.starts, 1, MAX_STARTS),
        ("iterations", options.iterations, 0, MAX_ITERATIONS),
        ("assignments", options.assignments.unwrap_or(1), 1, MAX_ASSIGNMENTS),
        ("three_gpus", options.three_gpus, 0, MAX_THREE_GPUS),
    ];
    for (field, value, least, most) in bounded {
        if !(least..=most).contains(&value) {
            return Err(Error::invalid(field, value, format!("is not between {least} and {most}")));
        }
    }
    Ok(())
}

/// How many replicas an expert may have: the numbers of [`Params`] of the same names.
struct ReplicaLimits {
    max_count: u32,
    avoid_duplicates: bool,
}

impl ReplicaLimits {
    /// For a node of these experts, replicas and GPUs.
    fn new(options: &PlanOptions, (experts, replicas): (u32, u32), gpus: u32) -> Result<Self, Error> {
        let cap = options.max_replicas_per_expert.unwrap_or(replicas).min(replicas);
        if u64::from(experts) * u64::from(cap) < u64::from(replicas) {
            let least = replicas.div_ceil(experts);
            let rule = format!("is too few: {replicas} replicas of {experts} experts need {least}");
            return Err(Error::invalid("max_replicas_per_expert", cap, rule));
        }
        // Where every expert has at most one replica a GPU, a placement without duplicates always exists
        // (deal the replicas out in turn); where that many replicas do not fit, nothing can avoid them.
        let avoidable = u64::from(experts) * u64::from(gpus.min(cap)) >= u64::from(replicas);
        let avoid_duplicates = options.duplicates == Duplicates::Avoid && avoidable;
        Ok(Self { max_count: if avoid_duplicates { gpus.min(cap) } else { cap }, avoid_duplicates })
    }
}

/// The high word of a product, as every stage computes it.
pub fn mul_high(a: u32, b: u32) -> u32 {
    ((u64::from(a) * u64::from(b)) >> 32) as u32
}
