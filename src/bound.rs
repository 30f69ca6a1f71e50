//! Lower bounds on the max GPU load of any valid plan, by code that shares nothing with the planner.
//!
//! Write `w[e]` for an expert's load, `c[e]` for its replica count, `P` for GPUs, `R` for replicas and `k` for
//! slots a GPU. Within one *node problem* (some experts, their `R` replicas, `P` GPUs of `k` slots) no plan is
//! better than
//! - the mean, `sum of w / P`: the largest is at least the mean;
//! - the heaviest replica under best replication (`bound/heaviest.rs`): some GPU holds it.
//!
//! The global policy is one node problem. Under the hierarchical policy a plan first assigns groups to nodes
//! and is then one node problem a node, so the least over assignments of the largest node's bound is a bound
//! (`bound/groups.rs`): exact over assignments while they are few, a weaker relaxation beyond.

mod groups;
mod heaviest;

use rayon::prelude::*;

use crate::cluster::{Cluster, Policy};
use crate::loads::Loads;

/// A bound on each layer's max GPU load, `[layers]`, in the unit of the loads: no valid plan of these loads on
/// this cluster, with or without two replicas of an expert on one GPU, goes below it. 0 for a layer without
/// load.
///
/// Computed in `f64` and then lowered by a relative 1e-12 and more, which outweighs every rounding on the way.
/// Where the experts do not fit the cluster at all ([`Cluster::check_experts`]) there is no valid plan to
/// bound, and the result is the mean GPU load.
#[must_use]
pub fn lower_bounds(loads: &Loads, cluster: &Cluster) -> Vec<f64> {
    let experts = loads.experts();
    let fits = cluster.check_experts(experts).is_ok();
    // A sum of n non-negative floats, in whatever order, is off by at most n half-epsilons.
    let slack = 1e-12 + experts as f64 * f64::EPSILON;
    let bound = |layer: usize| {
        let row = loads.layer(layer);
        let bound = match cluster.policy() {
            _ if !fits => row.iter().sum::<f64>() / cluster.num_gpus() as f64,
            Policy::Global => node_bound(row, Room::of_cluster(cluster)),
            Policy::Hierarchical => groups::bound(row, cluster),
        };
        // The constant covers loads so small that their quotients are denormal and lose relative precision.
        (bound * (1.0 - slack) - f64::MIN_POSITIVE).max(0.0)
    };
    (0..loads.layers()).into_par_iter().map(bound).collect()
}

/// The room of one node problem.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Replicas to place, at least one an expert.
    replicas: usize,
    gpus: usize,
}

impl Room {
    /// All nodes as one.
    fn of_cluster(cluster: &Cluster) -> Self {
        Self { replicas: cluster.num_replicas(), gpus: cluster.num_gpus() }
    }

    /// One node of the hierarchical policy.
    fn of_node(cluster: &Cluster) -> Self {
        let nodes = cluster.num_nodes();
        Self { replicas: cluster.num_replicas() / nodes, gpus: cluster.num_gpus() / nodes }
    }
}

/// The bound of one node problem, up to rounding.
fn node_bound(row: &[f64], room: Room) -> f64 {
    let mean = row.iter().sum::<f64>() / room.gpus as f64;
    mean.max(heaviest::least_heaviest_replica(row, room.replicas))
}
