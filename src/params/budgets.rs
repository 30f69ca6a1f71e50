//! How long the search of a node goes on.

use super::COUNT_NOISE;
use crate::options::PlanOptions;

/// With three slots a GPU the bound is out of reach, and a trajectory goes on to gain for longer: the patience is
/// multiplied by this.
const THREE_SLOTS_PATIENCE: u32 = 2;

/// With four to six slots a GPU, three GPUs find what a long patience would, and sooner: there the first start has this
/// patience. (A thorough plan of V3 on 72 GPUs: .0176 % in 877 us a layer on one thread, with the patience of 800 .0165 % in
/// 2,876. gemma4 on 32 GPUs: .0090 % in 933, .0092 % in 1,513. A default plan of gpt-oss on 8 GPUs: .021 % in 300 us, by the
/// trajectory alone with the patience of 32 .0321 % in 474.)
const THREE_GPUS_PATIENCE: u32 = 8;

/// There further starts have this patience at most.
const THREE_GPUS_LATER_PATIENCE: u32 = 200;

/// There further starts follow only where the first one ends above this: three GPUs take care of less. A larger gap is one
/// of the counts, as where loads are steep, and three GPUs leave the counts as they are. (Zipf loads of exponent 1.2, 128
/// experts, 160 replicas in 4 nodes of 8 GPUs: a mean gap of 14.4 % with one start, 1.46 % with sixteen, 1.47 % by the
/// default. At 2,000 three of 108 families and shapes end more than .025 % above the default, at 1,000 none.)
const THREE_GPUS_START_GAP_PPM: u32 = 1000;

/// Three GPUs of at least this many slots share their replicas anew: with two, the search of counts has left nothing to them.
const LEAST_THREE_SLOTS: u32 = 3;

/// And of at most this many: with seven there are 66 million ways.
pub const MOST_THREE_SLOTS: u32 = 6;

/// With more than three slots, a node that gets further starts has counts that are hard to find: the patience of these starts is
/// multiplied by this. (On eight layers of V3's shape in 4 nodes, with Zipf loads of exponent 1.2, the mean gap is 3.0 %
/// without, 0.2 % with it; with a few hot experts 1.1 and 0.02 %.)
const LATER_PATIENCE: u32 = 4;

/// With up to three slots a GPU further starts bring little: by the number of slots, their number is divided by this. With
/// two the first one ends near the optimum.
const FEW_SLOTS_STARTS: [u32; 4] = [16, 16, 16, 8];

/// A node gets no more starts after this many without a new best: by then each strength of [`COUNT_NOISE`] was tried. (Half
/// of them already lose on Zipf loads of exponent 1.2, V3's shape in 4 nodes: a mean gap of .46 % for .25 %.)
const START_PATIENCE: u32 = COUNT_NOISE.len() as u32;

/// Which search a node gets, as far as it decides how long that goes on.
#[derive(Clone, Copy)]
pub struct BudgetKind {
    pub trajectory: bool,
    pub one_window: bool,
    pub has_speeds: bool,
    pub node_gpus: u32,
    pub slots_per_gpu: u32,
}

/// The numbers of [`super::Params`] of the same names.
pub struct Budgets {
    pub starts: u32,
    pub start_patience: u32,
    pub patience: u32,
    pub later_patience: u32,
    pub three_gpus: u32,
    /// Further starts follow where the best one is further above the bound than this.
    pub start_gap_ppm: u32,
}

impl Budgets {
    pub fn new(options: &PlanOptions, kind: BudgetKind) -> Self {
        let BudgetKind { trajectory, has_speeds, slots_per_gpu, .. } = kind;
        let &PlanOptions { mut starts, mut patience, mut start_gap_ppm, .. } = options;
        let mut later_patience = patience.saturating_mul(LATER_PATIENCE);
        let three_gpus = if kind.has_three_gpus() { options.three_gpus } else { 0 };
        // With unequal speeds no search of counts takes their place: on V3 on 144 GPUs, 36 of them at half, they raise
        // balancedness from .953 to .960. (`planner::apart` has one where most GPUs are equal.)
        if trajectory && slots_per_gpu <= 3 && !has_speeds {
            starts = (starts / FEW_SLOTS_STARTS[slots_per_gpu as usize]).max(1);
        }
        if slots_per_gpu == 3 {
            patience = patience.saturating_mul(THREE_SLOTS_PATIENCE);
            later_patience = patience;
        } else if slots_per_gpu > 3 && three_gpus > 0 {
            later_patience = later_patience.min(THREE_GPUS_LATER_PATIENCE);
            patience = patience.min(THREE_GPUS_PATIENCE);
            start_gap_ppm = start_gap_ppm.max(THREE_GPUS_START_GAP_PPM);
        }
        // The lineage's programs make all their starts.
        let start_patience = if trajectory { START_PATIENCE } else { starts };
        Self { starts, start_patience, patience, later_patience, three_gpus, start_gap_ppm }
    }
}

impl BudgetKind {
    /// Whether three GPUs share their replicas anew at the end.
    fn has_three_gpus(self) -> bool {
        self.trajectory
            && self.one_window
            && !self.has_speeds
            && self.node_gpus > 2
            && (LEAST_THREE_SLOTS..=MOST_THREE_SLOTS).contains(&self.slots_per_gpu)
    }
}
