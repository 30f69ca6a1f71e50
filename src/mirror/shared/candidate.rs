//! One candidate plan of a node, as stages 3 to 5 build and improve it.

use crate::params::Params;
use crate::plan::Stop;

/// A candidate, and the scratch of the stages. Loads and counts are of the node's experts, in its own numbering.
#[derive(Default)]
pub struct Candidate {
    /// Expert of each slot, `FREE` where there is none, GPU after GPU.
    pub expert: Vec<u32>,
    /// Load of each slot's replica.
    pub load: Vec<u32>,
    /// Load of each GPU.
    pub gpu_load: Vec<u32>,
    /// Replicas of each expert.
    pub counts: Vec<u32>,
    /// The best placement so far: the result of stage 5.
    pub snapshot: Vec<u32>,
    /// Stage 4: the replicas in the order of packing, as keys of falling load, whether a further one, expert.
    pub order: Vec<u64>,
    /// Stage 4: load of each GPU with a free slot, for comparison.
    pub open: Vec<i32>,
    /// Stage 4: slots in use of each GPU.
    pub used: Vec<u32>,
    /// Stage 4: the last expert each GPU received.
    pub last: Vec<u32>,
    /// Stage 3: loads as perturbed.
    pub scratch: Vec<u32>,
}

/// The result of stage 5 for a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Load of the heaviest GPU; with several windows the sum over them.
    pub max: u32,
    /// Why it ended.
    pub end: Stop,
}

impl Candidate {
    /// Load of the heaviest GPU.
    pub fn max_load(&self) -> u32 {
        self.gpu_load.iter().copied().max().unwrap_or(0)
    }

    /// The heaviest GPU, ties to the lower index.
    pub fn heaviest(&self) -> usize {
        (0..self.gpu_load.len()).max_by_key(|&g| (self.gpu_load[g], usize::MAX - g)).unwrap_or(0)
    }

    /// The lightest GPU, ties to the lower index.
    pub fn lightest(&self) -> usize {
        (0..self.gpu_load.len()).min_by_key(|&g| (self.gpu_load[g], g)).unwrap_or(0)
    }

    /// Exchanges what two slots of different GPUs hold.
    pub fn exchange(&mut self, params: &Params, a: usize, b: usize) {
        let slots = params.slots_per_gpu as usize;
        let (load_a, load_b) = (self.load[a], self.load[b]);
        self.gpu_load[a / slots] = self.gpu_load[a / slots] - load_a + load_b;
        self.gpu_load[b / slots] = self.gpu_load[b / slots] - load_b + load_a;
        self.expert.swap(a, b);
        self.load.swap(a, b);
    }
}
