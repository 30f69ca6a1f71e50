//! Stage 2: which groups each node holds.

use super::{BOUND, CANDIDATE, PROBLEM, RNG, Stage, WIDE_U64};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, Recording};
use crate::layout::GpuParams;
use crate::options::GroupRule;
use crate::params::{ASSIGNMENT_WALK, GROUP_SWAP_PAIRS, GROUP_SWAP_STEPS, blocks};

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "s2_groups_to_nodes",
    sources: &[
        include_str!("../../shaders/s2_groups_to_nodes.wgsl"),
        include_str!("../../shaders/s2_groups_to_nodes/build.wgsl"),
        BOUND,
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
    ],
    entries: &["build", "swap_groups", "average", "add_average", "walk", "choose", "repair"],
    overrides: &[],
    teams: false,
};

fn kernel(entry: &'static str) -> Kernel {
    Kernel { stem: STAGE.stem, entry }
}

/// Candidates, their scores, and the assignments chosen, of all layers.
pub fn record(recording: &mut Recording, base: &GpuParams) {
    let built = base.layers * (base.samples + 1);
    let items = budget::steps_per_dispatch(u64::from(base.nodes) + 2);
    for (begin, end) in budget::ranges(base.groups, items) {
        recording.dispatch(kernel("build"), Grid::Lanes(built), GpuParams { begin, end, ..*base });
    }
    let swaps = base.samples > 0
        && base.group_rule == GroupRule::BestFirst as u32
        && base.node_groups * base.groups <= GROUP_SWAP_PAIRS;
    for _ in 0..if swaps { GROUP_SWAP_STEPS } else { 0 } {
        recording.dispatch(kernel("swap_groups"), Grid::Lanes(built), *base);
    }
    let candidates = base.enumerated + base.samples;
    let lanes = Grid::Lanes(base.layers * candidates);
    let mut weighed = ASSIGNMENT_WALK.max(base.assignments).min(candidates);
    if base.windows == 1 {
        recording.dispatch(kernel("average"), lanes, *base);
    } else {
        for begin in 0..base.quads {
            recording.dispatch(kernel("add_average"), lanes, GpuParams { begin, ..*base });
        }
        // The average is all there is to weigh.
        weighed = 1;
    }
    // And DeepSeek's assignment first.
    for (begin, end) in budget::ranges(1 + weighed, budget::steps_per_dispatch(weighing_trips(base))) {
        recording.dispatch(kernel("walk"), Grid::Lanes(base.layers), GpuParams { begin, end, ..*base });
    }
    recording.dispatch(kernel("choose"), Grid::Lanes(base.layers * (base.assignments + 1)), *base);
}

/// Loop trips of weighing one assignment, at worst: the next one is looked for, then in every node a bisection over
/// loads up to 2^30, from a node's share up to its load, looks at all its experts each time.
fn weighing_trips(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let looks = wide(base.node_gpus.next_power_of_two().ilog2()) + 31;
    let bisection = looks * (wide(blocks(base.node_experts)) + 2) + 4;
    let share = wide(base.groups) + wide(base.quads) * wide(base.groups + 1);
    share + wide(base.enumerated + base.samples) + wide(base.nodes) * bisection + wide(base.assignments) + 4
}

/// The repaired assignment of all layers.
pub fn record_repair(recording: &mut Recording, base: &GpuParams) {
    recording.dispatch(kernel("repair"), Grid::Lanes(base.layers), *base);
}
