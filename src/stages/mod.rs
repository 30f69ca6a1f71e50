//! The host side of the shaders, one file a stage: what a shader is made of, and one `record` that adds its
//! dispatches, cut to the budget, to a recording.

pub mod foreign;
pub mod gather;
pub mod queue;
pub mod replan;
pub mod s1_group_loads;
pub mod s2_groups_to_nodes;
pub mod s3_replicate;
pub mod s4_pack;
pub mod s5_counts;
pub mod s5_descend;
pub mod s5_search;
pub mod s6_select;
pub mod shares;

use crate::engine::recording::{Override, Recording};
use crate::foreign::{layer as node_shares, tabu as handover, target as aims};
use crate::layout::{ForeignParts, GpuParams, words};
use crate::loads::FIXED_TOTAL;
use crate::mirror::s5_counts as counts;
use crate::params::{self, Params, SearchKind};
use crate::replan::search as trajectory;
use crate::shares::task::SCENARIOS;
use crate::shares::windows;

/// A stage: the shader's source in the order it is put together, and its entry points.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// Stem of its files.
    pub stem: &'static str,
    /// The stage's own file first, so that a compiler's line numbers are its lines.
    pub sources: &'static [&'static str],
    /// Entry points, in the order they run.
    pub entries: &'static [&'static str],
    /// `override` constants: what is the same in all dispatches of a plan, so that a compiler drops what the plan
    /// does not need. Each set of values costs a compilation.
    pub overrides: &'static [Override],
    /// Whether a workgroup is a team of lanes that share a candidate, of the size that the device wants.
    pub teams: bool,
}

/// The queue, then all stages in the order they run, `gather` after stage 2. Stage 5 is the trajectory here: the search of counts
/// and the descent, which take its place in some calls, come after stage 6. The search of plans over time, tables of shares and foreign replicas are
/// the last.
pub const STAGES: [Stage; 13] = [
    queue::STAGE,
    s1_group_loads::STAGE,
    s2_groups_to_nodes::STAGE,
    gather::STAGE,
    s3_replicate::STAGE,
    s4_pack::STAGE,
    s5_search::STAGE,
    s6_select::STAGE,
    s5_counts::STAGE,
    s5_descend::STAGE,
    replan::STAGE,
    shares::STAGE,
    foreign::STAGE,
];

/// One lane does this many experts of a node.
const EXPERT_BLOCK: u32 = 16;

/// One lane copies this many slots of a plan.
const COPY_BLOCK: u32 = 8;

const PROBLEM: &str = include_str!("../../shaders/shared/problem.wgsl");
const WIDE_U64: &str = include_str!("../../shaders/shared/wide_u64.wgsl");
const RNG: &str = include_str!("../../shaders/shared/rng.wgsl");
const CANDIDATE: &str = include_str!("../../shaders/shared/candidate.wgsl");
const TEAM: &str = include_str!("../../shaders/shared/team.wgsl");
const BOUND: &str = include_str!("../../shaders/shared/bound.wgsl");
const ORDER: &str = include_str!("../../shaders/shared/order.wgsl");

impl Stage {
    /// The whole shader: its sources, then what it shares with Rust.
    pub fn wgsl(&self) -> String {
        let constants = [
            ("PACKING_NOISE_SHIFT", params::PACKING_NOISE_SHIFT),
            ("COPY_BLOCK", COPY_BLOCK),
            ("REGISTER_GPUS", s4_pack::REGISTER_GPUS),
            ("EXPERT_BLOCK", EXPERT_BLOCK),
            ("REPLICATED_BLOCK", s4_pack::REPLICATED_BLOCK),
            ("DESCENT_WALK", s5_descend::DESCENT_WALK),
            ("PAIR_SLOTS", params::PAIR_SLOTS),
            ("FULL_ASSIGNMENTS", params::FULL_ASSIGNMENTS),
            ("FIXED_TOTAL", FIXED_TOTAL),
            ("ROLLED_DEPTH", s5_counts::ROLLED_DEPTH),
            ("GAINERS", counts::GAINERS as u32),
            ("LOSERS", counts::LOSERS as u32),
            ("FIRST_SHIFT", counts::FIRST_SHIFT),
            ("LAST_SHIFT", counts::LAST_SHIFT),
            ("HALVED_AFTER", counts::HALVED_AFTER),
            ("PATIENCE_SHARE", counts::PATIENCE_SHARE),
            ("INDEX", counts::INDEX),
            ("SLOT_TENURE", params::SLOT_TENURE),
            ("EXPERT_TENURE", params::EXPERT_TENURE),
            ("TRANSFER_WAIT", params::TRANSFER_WAIT),
            ("TRAJECTORY_WORK", trajectory::WORK_LIMIT),
            ("TRAJECTORY_ITERATIONS", trajectory::MOST_ITERATIONS),
            ("TRAJECTORY_SLOT_TENURE", trajectory::SLOT_TENURE),
            ("TRAJECTORY_EXPERT_TENURE", trajectory::EXPERT_TENURE),
            ("SCENARIOS", SCENARIOS as u32),
            ("WHOLE_BITS", windows::WHOLE_BITS),
            ("TRIED_ASSIGNMENTS", node_shares::ASSIGNMENTS as u32),
            ("AIM_PRECISION", aims::PRECISION),
            ("ENOUGH_SHIFT", node_shares::ENOUGH),
            ("STEP_PARTS", node_shares::STEP_PARTS as u32),
            ("HANDOVER_ITERATIONS", handover::ITERATIONS),
            ("HANDOVER_PATIENCE", handover::PATIENCE),
            ("HANDOVER_LOSERS", handover::LOSERS as u32),
            ("HANDOVER_GAINERS", handover::GAINERS as u32),
            ("HANDOVER_FIRST_SHIFT", handover::FIRST_SHIFT),
            ("HANDOVER_LAST_SHIFT", handover::LAST_SHIFT),
            ("HANDOVER_HALVED_AFTER", handover::HALVED_AFTER),
            ("HANDOVER_TENURE", handover::TENURE),
            ("HANDOVER_TENURES", handover::TENURES),
            ("BIPARTITION_SLOTS", params::BIPARTITION_SLOTS),
            ("BIPARTITION_CHUNK", s5_descend::BIPARTITION_CHUNK),
            ("SPLIT_ITEMS", 2 * params::BIPARTITION_SLOTS),
        ];
        let mut wgsl = self.sources.concat();
        wgsl.push_str("\n// Of src/layout.\n");
        wgsl.push_str(&GpuParams::wgsl());
        wgsl.push_str(&words::wgsl());
        if self.stem == foreign::STAGE.stem {
            wgsl.push_str(&ForeignParts::wgsl_with_head());
        }
        wgsl.push_str("\n// Constants of Rust.\n");
        for (name, value) in constants {
            wgsl.push_str(&format!("const {name}: u32 = {value}u;\n"));
        }
        wgsl.push_str(&format!("const BLOCKED: i32 = {};\n", params::BLOCKED));
        wgsl
    }
}

/// A set of candidates that run side by side: some layers, all their nodes, some starts.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Which of the layer's assignments.
    pub assignment: u32,
    /// First layer and number of layers.
    pub layers: (u32, u32),
    /// First start and number of starts.
    pub starts: (u32, u32),
    /// The search is recorded for this part of the work that a start could come to; 1 is all of it.
    pub work_divisor: u32,
}

/// The candidates of a batch, from their replica counts to the best of each node: stages 3 to 6, as
/// [`crate::mirror::Starts::run`] has them.
pub fn record_candidates(recording: &mut Recording, params: &Params, base: &GpuParams, batch: &Batch) {
    s3_replicate::record(recording, base, batch);
    s4_pack::record(recording, base, batch);
    match params.search_kind() {
        SearchKind::Counts => s5_counts::record(recording, base, batch),
        SearchKind::Trajectory => s5_search::record(recording, base, batch),
        SearchKind::Descent => s5_descend::record(recording, base, batch),
    }
    s6_select::record(recording, base, batch);
}

impl Batch {
    /// `base` for this batch.
    pub fn params(&self, base: &GpuParams) -> GpuParams {
        GpuParams {
            assignment: self.assignment,
            layer_begin: self.layers.0,
            layer_count: self.layers.1,
            start_begin: self.starts.0,
            start_count: self.starts.1,
            candidates: self.layers.1 * base.nodes * self.starts.1,
            ..*base
        }
    }
}
