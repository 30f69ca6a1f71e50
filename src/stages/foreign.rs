//! Foreign replicas: which replicas each node of a layer had best hold.

use super::{CANDIDATE, PROBLEM, RNG, Stage, TEAM, WIDE_U64};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, LANES, Recording, Tuning};
use crate::foreign::layer::STEPS;
use crate::foreign::tabu;
use crate::foreign::target::PRECISION;
use crate::layout::GpuParams;

const FIND_AIM: Kernel = Kernel { stem: "foreign", entry: "find_aim" };
const CONSTRUCT: Kernel = Kernel { stem: "foreign", entry: "construct" };
const HAND_OVER: Kernel = Kernel { stem: "foreign", entry: "hand_over" };
const CHOOSE: Kernel = Kernel { stem: "foreign", entry: "choose" };

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "foreign",
    sources: &[
        include_str!("../../shaders/foreign.wgsl"),
        include_str!("../../shaders/foreign/target.wgsl"),
        include_str!("../../shaders/foreign/construct.wgsl"),
        include_str!("../../shaders/foreign/tabu.wgsl"),
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
        TEAM,
    ],
    entries: &[FIND_AIM.entry, CONSTRUCT.entry, HAND_OVER.entry, CHOOSE.entry],
    overrides: &[],
    teams: true,
};

/// Iterations of a dispatch at most: a slow device is not to be kept for long.
const MOST_PER_DISPATCH: u64 = 20;

/// The choices of all layers, whose targets lie in ranges of `limits`: the floor, and what is above.
pub fn record(recording: &mut Recording, base: &GpuParams, limits: impl Iterator<Item = (i64, i64)>) {
    let left = u64::from(budget::TRIPS).saturating_sub(trips_of_sums(base));
    let each = (left / trips_of_iteration(base)).clamp(1, MOST_PER_DISPATCH) as u32;
    let (of_layers, of_candidates) = (Grid::Lanes(base.layers * LANES), Grid::Lanes(base.candidates * LANES));
    // The last one lists assignments.
    for begin in 0..limits.map(halvings).max().unwrap_or(0) + 1 {
        recording.dispatch(FIND_AIM, of_layers, GpuParams { begin, ..*base });
    }
    for step in STEPS {
        recording.dispatch(CONSTRUCT, of_candidates, GpuParams { begin: step as u32, ..*base });
    }
    for (begin, end) in budget::ranges(tabu::ITERATIONS, each) {
        recording.dispatch(HAND_OVER, of_candidates, GpuParams { begin, end, ..*base });
    }
    recording.dispatch(CHOOSE, of_layers, *base);
}

/// How often the range of a target is halved, at most.
fn halvings((floor, above): (i64, i64)) -> u32 {
    let (mut range, mut halvings) = (above - (floor - 1), 0);
    while range > ((floor - 1) >> PRECISION).max(1) {
        range -= range / 2;
        halvings += 1;
    }
    halvings
}

/// Whether software drivers run all loops to their end.
pub fn fits(base: &GpuParams) -> bool {
    let search = trips_of_sums(base) + trips_of_iteration(base);
    trips_of_aim(base).max(trips_of_construction(base)).max(search) < budget::LIMIT
}

/// Loop trips of a lane that lays out a layer, and halves the range of its target.
fn trips_of_aim(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let (groups, size, nodes) = (wide(base.groups), wide(base.group_size), wide(base.nodes));
    let (experts, foreign, steps) = (wide(base.experts), wide(base.most_foreign), wide(base.most_steps));
    let (sets, assignments) = (wide(base.sets), wide(base.enumerated));
    let kept = groups * foreign + 1;
    let lay = shared(experts) * (size + 1)
        + shared(groups) * (size + 1)
        + shared(sets) * (wide(base.node_groups) + 1);
    let of_steps = shared(groups) * (size + 1)
        + shared(experts) * (size + foreign + 2)
        + shared(kept)
        + shared(groups * steps) * (steps + 1);
    let merged = shared(kept) * (groups * (foreign + 1) + 1);
    let of_sets = shared(sets) * (wide(base.node_groups) + 1 + kept);
    let of_assignments = shared(assignments) * (nodes + 2 + nodes * (nodes + 1 + kept))
        + 3 * (shared(assignments) + reports());
    lay + of_steps + merged + of_sets + of_assignments + reports()
}

/// Loop trips of a lane that lays out nodes, and constructs once.
fn trips_of_construction(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let (nodes, active, foreign) = (wide(base.nodes), wide(base.active_experts), wide(base.most_foreign));
    let lay = shared(wide(base.experts)) * (wide(base.node_experts) + 1)
        + shared(nodes) * (wide(base.node_experts) + 1);
    // Nodes share the foreign replicas; each looks once more in vain.
    let choose = (foreign + nodes) * (shared(active) + reports())
        + nodes * (2 * (active + 1 + active.min(foreign) * shared(active) + reports()) + 4);
    let home = shared(nodes * active) * (nodes + 1) + shared(nodes) * (active + 1) + reports();
    let place = (foreign + 1) * (shared(nodes * active) + reports() + nodes + 1);
    let fill = shared(nodes) * (wide(base.spare) + 1) * (active + 2) + reports();
    shared(nodes * active) + lay + choose + home + place + fill + trips_of_sums(base)
}

/// Loop trips of a lane in an iteration.
fn trips_of_iteration(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let (nodes, active) = (wide(base.nodes), wide(base.nodes) * wide(base.active_experts));
    let pairs = (tabu::LOSERS * tabu::GAINERS) as u64;
    // The loops over what is listed are short enough to be unrolled, but not on all drivers.
    let offers = shared(2 * nodes) * (active + 1) * (tabu::GAINERS as u64 + 1);
    let weigh = shared(active) * 2 * (nodes + 1);
    weigh
        + offers
        + shared(pairs * nodes) * (nodes + 1)
        + reports()
        + 2 * shared(active)
        + trips_of_sums(base)
}

/// Loop trips of a lane that sums up what nodes hold, and keeps it.
fn trips_of_sums(base: &GpuParams) -> u64 {
    let (nodes, active) = (u64::from(base.nodes), u64::from(base.nodes) * u64::from(base.active_experts));
    let finish = shared(active) * (nodes + 1) + shared(nodes) * (active + 1);
    finish + 2 * shared(nodes) + 2 * shared(active) + 2 * reports() + shared(active * nodes)
}

/// Trips of a loop over this many items that the lanes share.
fn shared(items: u64) -> u64 {
    items.div_ceil(u64::from(Tuning::SOFTWARE.team)) + 1
}

/// Lane after lane, what each of a team reports.
fn reports() -> u64 {
    u64::from(Tuning::SOFTWARE.team) + 1
}
