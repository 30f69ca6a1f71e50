//! Plans over time: the trajectories from the plans that run.

use super::{CANDIDATE, PROBLEM, RNG, Stage, TEAM, WIDE_U64, queue};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, LANES, Override, Recording, Tuning};
use crate::layout::GpuParams;

const PLACE: Kernel = Kernel { stem: "replan", entry: "place" };
const FOLLOW: Kernel = Kernel { stem: "replan", entry: "follow" };

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "replan",
    sources: &[
        include_str!("../../shaders/replan.wgsl"),
        include_str!("../../shaders/replan/layer.wgsl"),
        include_str!("../../shaders/replan/exchange.wgsl"),
        include_str!("../../shaders/replan/transfer.wgsl"),
        include_str!("../../shaders/replan/nodes.wgsl"),
        include_str!("../../shaders/replan/make.wgsl"),
        PROBLEM,
        WIDE_U64,
        RNG,
        CANDIDATE,
        TEAM,
    ],
    entries: &[PLACE.entry, FOLLOW.entry],
    overrides: &[
        Override { name: "QUADS", read_by: &[PLACE.entry, FOLLOW.entry], of: |params| params.quads },
        Override { name: "FOREIGN", read_by: &[PLACE.entry, FOLLOW.entry], of: |params| params.foreign },
        Override {
            name: "SPREADS",
            read_by: &[FOLLOW.entry],
            of: |params| u32::from(params.spread_gpus > 0),
        },
    ],
    teams: true,
};

/// Lanes of the smallest workgroup: the fewer lanes, the more trips each makes.
const LEAST_TEAM: u32 = Tuning::SOFTWARE.team;

/// Iterations of a dispatch at most: a slow device is not to be kept for long.
const MOST_PER_DISPATCH: u64 = 64;

/// The trajectories of all tasks, as many dispatches as `params.extent` iterations need. Those after the last trajectory
/// ended are empty.
pub fn record(recording: &mut Recording, base: &GpuParams) {
    let each = iterations_per_dispatch(base);
    record_turns(recording, base, each);
}

/// This many iterations a dispatch.
pub fn record_turns(recording: &mut Recording, base: &GpuParams, each: u32) {
    queue::record_open(recording, base);
    // Each team queues its candidate for the other list.
    recording.dispatch(PLACE, Grid::Lanes(base.candidates * LANES), GpuParams { turn: 1, ..*base });
    queue::record_tally(recording, &GpuParams { turn: 0, ..*base });
    let turns = base.extent.div_ceil(each) + 1;
    queue::record_turns(recording, FOLLOW, Grid::QueuedTeams, &GpuParams { end: each, ..*base }, turns);
}

/// Iterations that fit the trips of a dispatch.
fn iterations_per_dispatch(base: &GpuParams) -> u32 {
    (u64::from(budget::TRIPS) / trips(base)).clamp(1, MOST_PER_DISPATCH) as u32
}

/// Whether software drivers run all loops to their end: of the start, and of one iteration with the look after it. They do
/// not where a node has some hundreds of GPUs: about where their square, times the slots of one, passes half a million.
pub fn fits(base: &GpuParams) -> bool {
    trips_of_start(base).max(trips(base) + trips_of_look(base)) < budget::LIMIT
}

/// Loop trips of a lane that takes over a start.
fn trips_of_start(base: &GpuParams) -> u64 {
    let (gpus, slots) = (u64::from(base.gpus), u64::from(base.slots_per_gpu));
    let set = gpus.div_ceil(32);
    let foreign = shared(gpus) * (slots + 1) * u64::from(base.foreign) + reports();
    let sets = shared(u64::from(base.experts) * set) + shared(set) * (34 + 32 * slots);
    let loads = shared(gpus * 4 * u64::from(base.quads)) * (slots + 1);
    sets + foreign
        + shared(u64::from(base.experts))
        + shared(gpus * slots)
        + loads
        + 3 * shared(gpus)
        + reports()
}

/// Loop trips of a lane in an iteration, at worst.
fn trips(base: &GpuParams) -> u64 {
    let wide = u64::from;
    let (gpus, slots, node_gpus) = (wide(base.gpus), wide(base.slots_per_gpu), wide(base.node_gpus));
    let (offered, windows) = (wide(base.exchange_slots), 4 * wide(base.quads));
    let propose = shared(gpus) * (windows + 1) + reports();
    let chunks = offered.div_ceil(32);
    // What nodes allow: the words of the sets of two nodes, or of all.
    let (two, all) = match base.spread_gpus {
        0 => (0, u64::from(base.foreign) * (node_gpus.div_ceil(32) + 1)),
        node => {
            (2 * (wide(node).div_ceil(32) + 1), (2 * gpus / wide(node) + 2) * (wide(node).div_ceil(32) + 2))
        }
    };
    let marks = shared(node_gpus) * (offered * (1 + two) + 2 * chunks) + shared(offered);
    let exchanges = shared(slots * node_gpus) * (offered + (2 + two) * chunks) + reports();
    // Each replica that shares what a slot loses, of the slots of all lanes, and each word of the sets of them.
    let reach = if base.foreign == 1 { gpus } else { node_gpus };
    let set = reach.div_ceil(32) + 1;
    let sharing = reach.min(wide(LEAST_TEAM).saturating_mul(wide(base.max_count))) + 2 * set;
    let laid = shared(slots) + shared(windows) * (gpus + 2) + shared(reach);
    let transfers = laid + shared(slots * reach) * (sharing + all + 1) + 3 * reports();
    let make = 2 * slots + shared(reach) * (slots + 1) + 2 * shared(slots) * (slots + 2) + 3 * reports();
    trips_of_look(base) + propose + shared(windows) + marks + exchanges + transfers + make + 8
}

/// Loop trips of a lane that looks at all GPUs, before an iteration or at the end of a dispatch.
fn trips_of_look(base: &GpuParams) -> u64 {
    let windows = 4 * u64::from(base.quads);
    shared(windows) * (u64::from(base.gpus) + 2) + 2 * windows
}

/// Trips of a loop over this many items that the lanes share.
fn shared(items: u64) -> u64 {
    items.div_ceil(u64::from(LEAST_TEAM)) + 1
}

/// Lane after lane, what each of a team reports.
fn reports() -> u64 {
    u64::from(LEAST_TEAM) + 1
}
