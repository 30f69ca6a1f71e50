//! Foreign replicas, under the hierarchical policy: a layer whose nodes cannot be even with whole groups alone gets some
//! replicas outside the home node of their group, [`PlanOptions::max_foreign`] at most. Every expert keeps a replica at
//! home, and a node its number of replicas.
//!
//! Layer by layer, from the plan without foreign replicas, which a layer keeps where it is good enough or where nothing better
//! is found. This is the mirror of `shaders/foreign.wgsl`: the planner's device chooses what each node holds, the same as the
//! host would, and places it.
//! - `target`: the load that the heaviest GPU of no plan with this many foreign replicas goes below, and the assignments of
//!   groups to homes that could reach it, in the order of the surplus of their nodes.
//! - `construct`: which experts of a heavy node have foreign replicas, and where, for a target: node totals alone.
//! - `tabu`: replicas change from one expert to another, by node totals.
//! - [`crate::given`]: each node's replicas on its GPUs.

mod anew;
mod construct;
pub mod layer;
pub mod nodes;
pub mod tabu;
pub mod target;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::given::Placed;
use crate::options::{PlanOptions, Search};
use crate::params::{Params, enumerate_assignments};
use crate::plan::Stop;
use crate::rows;
use crate::threads;
use crate::watch::Attempt;
pub use anew::choose_anew;
use layer::ForeignScratch;
pub use layer::{ForeignLayer, Improvable};
pub use target::GroupSets;

/// Iterations of a node's placement.
const PLACE_ITERATIONS: u32 = 400;

/// Even loads, in millionths.
const EVEN: u32 = 1_000_000;

/// Checks the options of foreign replicas.
///
/// # Errors
/// [`Error::Invalid`] where options, loads and cluster break a rule together.
pub fn check(params: &Params, cluster: &Cluster, options: &PlanOptions) -> Result<(), Error> {
    let (foreign, target_ppm) = (options.max_foreign, options.foreign_target_ppm);
    if target_ppm < EVEN {
        return Err(Error::invalid(
            "foreign_target_ppm",
            target_ppm,
            format!("is less than {EVEN}, which is even"),
        ));
    }
    if foreign == 0 {
        let rule = "is for foreign replicas alone: give max_foreign too, or leave it at 1000000";
        let idle = target_ppm == EVEN;
        return if idle { Ok(()) } else { Err(Error::invalid("foreign_target_ppm", target_ppm, rule)) };
    }
    cluster.check_foreign(params.experts as usize, foreign)?;
    let refuse = |rule: &str| Err(Error::invalid("max_foreign", foreign, rule));
    if options.search != Search::Trajectory {
        return refuse("is not for rules of earlier programs: take the preset default, fast or thorough");
    }
    if options.connected {
        return refuse("does not go together with connected: give 0, or leave out connected");
    }
    Ok(())
}

/// Checks the options of foreign replicas in a plan that is made anew.
///
/// # Errors
/// Those of [`check`], and where there are several windows.
pub fn check_one_window(params: &Params, cluster: &Cluster, options: &PlanOptions) -> Result<(), Error> {
    check(params, cluster, options)?;
    if options.max_foreign > 0 && params.windows > 1 {
        let rule = "is for one window where no plan runs: give one load file, or 0";
        return Err(Error::invalid("max_foreign", options.max_foreign, rule));
    }
    Ok(())
}

/// The numbers of a call by which nodes are placed: one start of few iterations, since node totals have decided most.
pub fn of_placement(params: &Params) -> Params {
    Params { starts: 1, iterations: PLACE_ITERATIONS, ..params.clone() }
}

/// The layers whose plan without foreign replicas is not good enough; `None` for others. `loads` is `[layers][experts]`,
/// `planned` the slots of that plan.
pub fn open_layers<'a>(
    params: &'a Params,
    loads: &'a [u32],
    planned: &'a [u32],
) -> Vec<Option<ForeignLayer<'a>>> {
    let (experts, slots) = (params.experts as usize, (params.nodes * params.node_slots) as usize);
    let rows = loads.chunks_exact(experts).zip(planned.chunks_exact(slots));
    rows.map(|(loads, row)| ForeignLayer::new(params, loads, row)).collect()
}

/// All assignments of groups to nodes; none where they are too many to look at each.
pub fn all_sets(params: &Params) -> GroupSets {
    GroupSets::new(params, enumerate_assignments(params.groups, params.nodes))
}

/// The layers whose heaviest GPU gets lighter by foreign replicas, by node totals; `None` for others.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped.
pub fn improvable(
    sets: &GroupSets,
    layers: &[Option<ForeignLayer<'_>>],
    attempt: &Attempt<'_>,
) -> Result<Vec<Option<Improvable>>, Error> {
    let found = threads::each(layers.len(), |at, scratch: &mut ForeignScratch| {
        attempt.go_on()?;
        Ok(layers[at].as_ref().and_then(|layer| layer.nodes(sets, scratch)))
    });
    found.into_iter().collect()
}

/// Takes over the placements of the improvable layers' nodes where they are better, and why their search ended.
pub fn take(
    params: &Params,
    layers: &[Option<Improvable>],
    placed: &[Placed],
    (planned, ends): (&mut [u32], &mut [Stop]),
) {
    let slots = (params.nodes * params.node_slots) as usize;
    let mut placed = placed.chunks_exact(params.nodes as usize);
    for (at, layer) in layers.iter().enumerate() {
        let Some((layer, placed)) = layer.as_ref().and_then(|layer| Some((layer, placed.next()?))) else {
            continue;
        };
        if let Some(found) = layer.placed(placed, params.slots_per_gpu) {
            planned[at * slots..(at + 1) * slots].copy_from_slice(&found.slots);
            ends[at] = if found.reached { Stop::BoundReached } else { Stop::NoMoveLeft };
        }
    }
}

/// The groups at home in each node of a valid row, node after node.
fn homes(params: &Params, row: &[u32]) -> Vec<u32> {
    let homes = rows::homes(params, row);
    let first = |group: &u32| homes[(group * params.group_size) as usize];
    let mut groups: Vec<u32> = (0..params.groups).collect();
    groups.sort_by_key(|group| (first(group), *group));
    groups
}
