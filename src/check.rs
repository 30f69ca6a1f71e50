//! Feasibility and score of a plan, by code that shares nothing with the planner.
//!
//! A plan is judged on the loads as given, in `f64`, never on the planner's fixed point. Slot `s` sits on GPU
//! `s / slots_per_gpu`, nodes are contiguous runs of GPUs, groups are contiguous runs of experts. Where GPUs are of unequal
//! speed ([`Cluster::with_gpu_speeds`]) what a GPU carries counts divided by its speed, relative to the fastest.
mod maps;
mod quality;
mod rules;
mod shares;
mod traffic;

use rules::{Rules, check_entries, check_length, filled};

use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::threads;

pub use maps::check_maps;
pub use quality::{LayerQuality, Quality};
pub use shares::{parts, score_shares, score_shares_with};
pub use traffic::{Dispatch, LayerTraffic, Traffic, traffic, traffic_from};

/// Checks every rule of a valid plan, then scores it. Lower bounds are left at 0; see
/// [`Quality::with_bounds`].
///
/// `physical_to_logical` is `[layers][slots]`: the expert of each slot, -1 where the slot is free.
///
/// # Errors
/// [`Error::Invalid`] where the experts do not fit the cluster ([`Cluster::check_experts`]) or the length is
/// not layers x slots. [`Error::InvalidPlan`], with the first layer that breaks a rule, where
/// - an entry is neither an expert nor -1;
/// - the number of filled slots is not `num_replicas` (so no slot may be free where there are as many slots
///   as replicas);
/// - a GPU of speed 0 holds a replica;
/// - an expert has no replica;
/// - hierarchical policy: replicas of one group sit in two nodes, or a node does not hold
///   `num_groups / num_nodes` groups, or does not hold `num_replicas / num_nodes` replicas.
pub fn score(loads: &Loads, cluster: &Cluster, physical_to_logical: &[i32]) -> Result<Quality, Error> {
    score_with(loads, cluster, physical_to_logical, &CheckOptions::default())
}

/// The rules of a plan beyond those of its cluster.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..CheckOptions::default()`, and later versions compile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Hierarchical policy: the most replicas of a layer outside the home of their group, which is the one node that holds
    /// a replica of each of its experts. Fewer than a group has experts; see
    /// [`PlanOptions::max_foreign`](crate::PlanOptions::max_foreign). Default: 0.
    pub max_foreign: u32,
    /// The most replicas of an expert; `None`, the default, where only the cluster limits them. See
    /// [`PlanOptions::max_replicas_per_expert`](crate::PlanOptions::max_replicas_per_expert).
    pub max_replicas_per_expert: Option<u32>,
}

/// [`score`] by these options.
///
/// # Errors
/// As for [`score`], but that with foreign replicas [`Error::InvalidPlan`] says which group has no home, or which slot has
/// one replica too many outside the home of its group, and which expert has more replicas than it may. [`Error::Invalid`]
/// where `max_foreign` is more than the cluster and the experts allow.
///
/// ```
/// use eplb_wgpu::check::{CheckOptions, score, score_with};
/// use eplb_wgpu::{Cluster, Loads};
/// let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
/// let cluster = Cluster::new(6, 2, 2, 2)?; // experts 0 and 1 at home in one node, 2 and 3 in the other
/// let map = [0, 0, 1, 2, 3, 0]; // a foreign replica of expert 0
/// assert!(score(&loads, &cluster, &map).is_err());
/// let layer = &score_with(&loads, &cluster, &map, &CheckOptions { max_foreign: 1, ..CheckOptions::default() })?.layers[0];
/// assert_eq!((layer.max_gpu_load, layer.foreign_replicas, layer.foreign_load), (90.0, 1, 30.0));
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
pub fn score_with(
    loads: &Loads,
    cluster: &Cluster,
    physical_to_logical: &[i32],
    options: &CheckOptions,
) -> Result<Quality, Error> {
    cluster.check_experts(loads.experts())?;
    cluster.check_foreign(loads.experts(), options.max_foreign)?;
    if options.max_foreign > 0 {
        cluster.check_equal_speeds("max_foreign", "give max_foreign 0")?;
    }
    let slots = cluster.num_slots();
    check_length(loads, cluster, physical_to_logical)?;
    let rules = Rules::new(cluster, loads.experts(), options);
    let layers = threads::each(loads.layers(), |layer, (): &mut ()| {
        let row = &physical_to_logical[layer * slots..(layer + 1) * slots];
        let (counts, homes) = rules.check_layer(row).map_err(|rule| Error::InvalidPlan { layer, rule })?;
        let loads = loads.layer(layer);
        let served = |_, expert: usize| loads[expert] / f64::from(counts[expert]);
        let mut quality = score_layer(loads, cluster, row, served);
        (quality.foreign_replicas, quality.foreign_load) = rules.foreign(row, &homes, served);
        Ok(quality)
    });
    // In order, so that the first layer that breaks a rule is the one named.
    Ok(Quality { layers: layers.into_iter().collect::<Result<_, _>>()? })
}

/// The load of each GPU of a placement, `[layers][gpus]`, in the unit of the loads. A replica carries an equal part of
/// its expert's load, and an expert without a replica none.
///
/// `physical_to_logical` is `[layers][slots]`: the expert of each slot, -1 where the slot is free. Unlike [`score`], this
/// asks for no valid plan: the rows may break any other rule.
///
/// # Errors
/// [`Error::Invalid`] where the length is not layers x slots, [`Error::InvalidPlan`] where an entry is neither an expert
/// nor -1.
///
/// ```
/// use eplb_wgpu::{Cluster, Loads, check};
/// let loads = Loads::from_counts(1, 3, &[30, 12, 3])?;
/// let gpus = check::gpu_loads(&loads, &Cluster::new(6, 1, 1, 3)?, &[0, 0, 1, 2, 0, 1])?;
/// assert_eq!(gpus, [20.0, 9.0, 16.0]);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
pub fn gpu_loads(loads: &Loads, cluster: &Cluster, physical_to_logical: &[i32]) -> Result<Vec<f64>, Error> {
    check_length(loads, cluster, physical_to_logical)?;
    let mut gpus = Vec::with_capacity(loads.layers() * cluster.num_gpus());
    for (layer, row) in physical_to_logical.chunks_exact(cluster.num_slots()).enumerate() {
        check_entries(row, loads.experts()).map_err(|rule| Error::InvalidPlan { layer, rule })?;
        let mut counts = vec![0u32; loads.experts()];
        filled(row).for_each(|(_, expert)| counts[expert] += 1);
        let share = |(_, expert): (usize, usize)| loads.layer(layer)[expert] / f64::from(counts[expert]);
        gpus.extend(row.chunks_exact(cluster.slots_per_gpu()).map(|gpu| filled(gpu).map(share).sum::<f64>()));
    }
    Ok(gpus)
}

/// Scores a layer that [`Rules::check_layer`] has passed, by the load of each slot's replica: of a slot and its expert.
fn score_layer(
    loads: &[f64],
    cluster: &Cluster,
    row: &[i32],
    replica: impl Fn(usize, usize) -> f64,
) -> LayerQuality {
    let total: f64 = loads.iter().sum();
    let (mut max_gpu_load, mut max_replica_load) = (0.0f64, 0.0f64);
    let mut same_gpu_duplicates = 0;
    // The GPU each expert was last seen on, so that a repeat on the same GPU shows.
    let mut last_gpu = vec![usize::MAX; loads.len()];
    let each = cluster.slots_per_gpu();
    for (gpu, slots) in row.chunks_exact(each).enumerate() {
        let mut load = 0.0;
        for (slot, expert) in filled(slots) {
            let served = replica(gpu * each + slot, expert);
            max_replica_load = max_replica_load.max(served);
            load += served;
            same_gpu_duplicates += usize::from(last_gpu[expert] == gpu);
            last_gpu[expert] = gpu;
        }
        if load > 0.0 {
            max_gpu_load = max_gpu_load.max(load / cluster.speed(gpu));
        }
    }
    LayerQuality {
        max_gpu_load,
        mean_gpu_load: total / cluster.capacity(),
        max_replica_load,
        mean_replica_load: total / cluster.num_replicas() as f64,
        lower_bound: 0.0,
        same_gpu_duplicates,
        foreign_replicas: 0,
        foreign_load: 0.0,
        least_foreign_load: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn gpu_loads_need_no_valid_plan() {
        let loads = Loads::from_counts(2, 3, &[30, 12, 3, 1, 2, 4]).unwrap();
        let cluster = Cluster::new(6, 1, 1, 3).unwrap();
        let map = [0, -1, -1, -1, 0, 2, 1, 1, 0, 2, 2, -1];
        let found = gpu_loads(&loads, &cluster, &map).unwrap();
        assert_relative_eq!(found[..], [15.0, 0.0, 18.0, 2.0, 3.0, 2.0][..]);
        let said = |map: &[i32]| gpu_loads(&loads, &cluster, map).unwrap_err().to_string();
        assert_eq!(said(&[0; 6]), "length of physical_to_logical 6 is not layers 2 x slots 6");
        let rule = "plan is not valid: layer 1: slot 2 holds 3, not an expert in 0..3 or -1";
        assert_eq!(said(&[0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]), rule);
    }

    #[test]
    fn scores_a_plan_by_hand() {
        // GPUs {0, 0}, {1, 2}, {0, 1}: expert 0 has three replicas of 10, expert 1 two of 6.
        let loads = Loads::from_counts(1, 3, &[30, 12, 3]).unwrap();
        let cluster = Cluster::new(6, 1, 1, 3).unwrap();
        let layer = score(&loads, &cluster, &[0, 0, 1, 2, 0, 1]).unwrap().layers.remove(0);
        assert_relative_eq!(layer.max_gpu_load, 20.0);
        assert_relative_eq!(layer.mean_gpu_load, 15.0);
        assert_relative_eq!(layer.max_replica_load, 10.0);
        assert_relative_eq!(layer.mean_replica_load, 7.5);
        assert_relative_eq!(layer.lower_bound, 0.0);
        assert_eq!(layer.same_gpu_duplicates, 1);
    }
}
