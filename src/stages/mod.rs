//! The host side of the shaders, one file a stage: what a shader is made of, and one `record` that adds its
//! dispatches, cut to the budget, to a recording.

pub mod queue;
pub mod s1_group_loads;
pub mod s2_groups_to_nodes;
pub mod s3_replicate;
pub mod s4_pack;
pub mod s4_pack_windows;
pub mod s5_refine;
pub mod s5_refine_windows;
pub mod s6_select;

use crate::engine::recording::Fixed;
use crate::layout::GpuParams;
use crate::params;

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
    pub fixed: &'static [Fixed],
}

/// The queue, then all stages in the order they run, then those that several windows have in place of some.
pub const STAGES: [Stage; 9] = [
    queue::STAGE,
    s1_group_loads::STAGE,
    s2_groups_to_nodes::STAGE,
    s3_replicate::STAGE,
    s4_pack::STAGE,
    s5_refine::STAGE,
    s6_select::STAGE,
    s4_pack_windows::STAGE,
    s5_refine_windows::STAGE,
];

const PROBLEM: &str = include_str!("../../shaders/shared/problem.wgsl");
const WIDE_U64: &str = include_str!("../../shaders/shared/wide_u64.wgsl");
const RNG: &str = include_str!("../../shaders/shared/rng.wgsl");
const CANDIDATE: &str = include_str!("../../shaders/shared/candidate.wgsl");
const ORDER: &str = include_str!("../../shaders/shared/order.wgsl");
const WINDOWS: &str = include_str!("../../shaders/shared/windows.wgsl");

impl Stage {
    /// The whole shader: its sources, then the constants of `params.rs` that shaders share.
    pub fn wgsl(&self) -> String {
        let constants = [
            ("PACKING_NOISE_SHIFT", params::PACKING_NOISE_SHIFT),
            ("ASSIGNMENT_GAIN_SHIFT", params::ASSIGNMENT_GAIN_SHIFT),
            ("TURN", params::TURN),
            ("COPY_BLOCK", params::COPY_BLOCK),
            ("REGISTER_GPUS", params::REGISTER_GPUS),
            ("EXPERT_BLOCK", params::EXPERT_BLOCK),
            ("SEVERAL_BLOCK", params::SEVERAL_BLOCK),
            ("TILE", params::TILE),
            ("PAIR_SLOTS", params::PAIR_SLOTS),
            ("ITEMS", 2 * params::TILE),
            ("PAIRS", params::pairs(params::PAIR_SLOTS)),
            ("BIPARTITION_SLOTS", params::BIPARTITION_SLOTS),
            ("BIPARTITION_CHUNK", params::BIPARTITION_CHUNK),
            ("SPLIT_ITEMS", 2 * params::BIPARTITION_SLOTS),
            ("TRANSFER_CHUNK", params::TRANSFER_CHUNK),
            ("WINDOW_TILE", params::WINDOW_TILE),
            ("WINDOW_PAIR_SLOTS", params::WINDOW_PAIR_SLOTS),
            ("WINDOW_GPUS", params::WINDOW_GPUS),
            ("WINDOW_EXPERTS", params::WINDOW_EXPERTS),
            ("WINDOW_SLOTS", params::WINDOW_SLOTS),
        ];
        let mut wgsl = self.sources.concat();
        wgsl.push_str("\n// Constants of src/params.rs.\n");
        for (name, value) in constants {
            wgsl.push_str(&format!("const {name}: u32 = {value}u;\n"));
        }
        wgsl.push_str(&format!("const NEVER: i32 = {};\n", params::NEVER));
        wgsl
    }
}

/// A set of candidates that run side by side: some layers, all their nodes, some restarts.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// Which of the layer's assignments.
    pub assignment: u32,
    /// First layer and number of layers.
    pub layers: (u32, u32),
    /// First restart and number of restarts.
    pub restarts: (u32, u32),
    /// The search is recorded for this part of the work that a restart could come to; 1 is all of it.
    pub haste: u32,
}

impl Batch {
    /// `base` for this batch.
    pub fn params(&self, base: &GpuParams) -> GpuParams {
        GpuParams {
            assignment: self.assignment,
            layer_begin: self.layers.0,
            layer_count: self.layers.1,
            restart_begin: self.restarts.0,
            restart_count: self.restarts.1,
            candidates: self.layers.1 * base.nodes * self.restarts.1,
            ..*base
        }
    }
}
