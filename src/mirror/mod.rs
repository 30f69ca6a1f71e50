//! The CPU backend: the six stages as plain sequential Rust, one file a shader.
//!
//! Each file here is the specification of the shader of the same stem, and computes the same integers; the parts of a
//! large stage are in a folder of its name, in files named as the shader's. What several stages need is in `shared`, there and here.
//! Sizes and constants come from [`crate::params`]; nothing here knows wgpu.

use candidate::{Candidate, Outcome};

use crate::params::{Params, SearchKind};

pub use shared::{abreast, bound, candidate, rng};

/// Shared by several stages.
mod shared {
    pub mod abreast;
    pub mod bound;
    pub mod candidate;
    pub mod rng;
}

pub mod gather;
pub mod s1_group_loads;
pub mod s2_groups_to_nodes;
pub mod s3_replicate;
pub mod s4_pack;
pub mod s5_counts;
pub mod s5_descend;
pub mod s5_search;
pub mod s6_select;

/// Shared by the starts of a node: its loads, and scratch that is reused.
#[derive(Default)]
pub struct Starts {
    /// The candidate; afterwards its snapshot is the result.
    pub candidate: Candidate,
    /// Load of each of the node's experts, all windows together.
    pub combined: Vec<u32>,
    /// `[experts][windows]`.
    pub loads: Vec<u32>,
    counts: s5_counts::Tables,
    /// Scratch of the trajectory.
    pub search: s5_search::NodeSearch,
}

impl Starts {
    /// Stages 3 to 5 for one start of the node whose first group is `group`. `floors` has one load a window. `ends` is
    /// called with the stem of each stage when it ends.
    pub fn run(
        &mut self,
        params: &Params,
        (group, start): (u32, u32),
        (floors, stop_load): (&[u32], u32),
        ends: &mut impl FnMut(&'static str),
    ) -> Outcome {
        let Self { candidate, combined, loads, counts, search } = self;
        let key = rng::key(params, group, start);
        s3_replicate::replicate(params, key, start, combined, &mut candidate.counts, &mut candidate.scratch);
        ends("s3_replicate");
        s4_pack::pack(params, key, start, combined, candidate);
        ends("s4_pack");
        let floors = (floors, stop_load);
        let (stem, outcome) = match params.search_kind() {
            SearchKind::Counts => {
                ("s5_counts", s5_counts::search(params, key, combined, stop_load, candidate, counts))
            }
            SearchKind::Trajectory => {
                ("s5_search", s5_search::search(params, (key, start), loads, floors, candidate, search))
            }
            SearchKind::Descent => ("s5_descend", s5_descend::descend(params, stop_load, candidate)),
        };
        ends(stem);
        outcome
    }
}
