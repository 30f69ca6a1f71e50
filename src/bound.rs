//! What no valid plan can go below, by code that shares nothing with the planner.
//!
//! For each layer the largest of these, each a bound by itself:
//! - *Mean*: some GPU of a node carries at least the node's load over its GPUs.
//! - *Heaviest replica*: some GPU carries the heaviest replica, and no counts make that lighter than the best
//!   counts do (highest load per replica next, which is Adams' divisor method and optimal for this).
//! - Under the hierarchical policy both are taken of the assignment of groups to nodes where the larger of the
//!   two is least, over all balanced assignments where those can be searched, else of a relaxation.

use crate::cluster::{Cluster, Policy};
use crate::loads::Loads;

/// Assignments are searched exactly while this many partial ones suffice.
const SEARCH_LIMIT: usize = 20_000;

/// Sums and quotients of `f64` are rounded; a bound gives up this much to stay below the exact value.
const SLACK: f64 = 1e-12;

/// A lower bound on the max GPU load of each layer, `[layers]`, in the unit of the loads.
///
/// Where experts, replicas and cluster do not fit together (see [`Cluster::check_experts`]) it is 0.
///
/// ```
/// use eplb_wgpu::{Cluster, Loads, bound};
/// let loads = Loads::from_counts(1, 4, &[90, 10, 10, 10])?;
/// // 4 replicas: the expert with 90 cannot be split, though the mean GPU load is 60.
/// let bounds = bound::lower_bounds(&loads, &Cluster::new(4, 1, 1, 2)?);
/// assert!(bounds[0] > 89.9 && bounds[0] <= 90.0);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[must_use]
pub fn lower_bounds(loads: &Loads, cluster: &Cluster) -> Vec<f64> {
    if cluster.check_experts(loads.experts()).is_err() {
        return vec![0.0; loads.layers()];
    }
    (0..loads.layers())
        .map(|layer| {
            let loads = loads.layer(layer);
            let bound = match cluster.policy() {
                Policy::Global => {
                    node_bound(loads.iter().copied(), cluster.num_replicas(), cluster.num_gpus())
                }
                Policy::Hierarchical => hierarchical_bound(loads, cluster),
            };
            bound * (1.0 - SLACK)
        })
        .collect()
}

/// The bound of one node that holds these experts.
fn node_bound(loads: impl Iterator<Item = f64> + Clone, replicas: usize, gpus: usize) -> f64 {
    let mean = loads.clone().sum::<f64>() / gpus as f64;
    mean.max(lightest_heaviest(loads, replicas, mean))
}

/// The least weight of the heaviest replica over all counts, if that is above `floor`; else at most `floor`.
fn lightest_heaviest(loads: impl Iterator<Item = f64>, replicas: usize, floor: f64) -> f64 {
    let mut spare = replicas as f64;
    let mut heavy: Vec<(f64, f64)> = Vec::new();
    for load in loads {
        spare -= 1.0;
        if load > floor {
            heavy.push((load, 1.0));
        }
    }
    // Only experts above the floor can hold the heaviest replica.
    loop {
        let worst = heavy.iter_mut().max_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        match worst {
            Some(worst) if worst.0 / worst.1 > floor && spare >= 1.0 => {
                worst.1 += 1.0;
                spare -= 1.0;
            }
            Some(worst) => return worst.0 / worst.1,
            None => return 0.0,
        }
    }
}

/// The least bound over balanced assignments of groups to nodes.
fn hierarchical_bound(loads: &[f64], cluster: &Cluster) -> f64 {
    let nodes = cluster.num_nodes();
    let groups: Vec<&[f64]> = loads.chunks_exact(loads.len() / cluster.num_groups()).collect();
    let mean = loads.iter().sum::<f64>() / cluster.num_gpus() as f64;
    let mut search = Assignments {
        totals: groups.iter().map(|group| group.iter().sum()).collect(),
        groups,
        room: cluster.num_groups() / nodes,
        replicas: cluster.num_replicas() / nodes,
        gpus: cluster.num_gpus() / nodes,
        best: f64::INFINITY,
        visits: 0,
    };
    search.extend(&mut vec![Vec::new(); nodes], &mut vec![0.0; nodes], 0);
    if search.visits < SEARCH_LIMIT {
        return search.best;
    }
    // Too many: the mean over all nodes, the heaviest group's node filled up with the lightest others, and the
    // heaviest replica if a node held nothing but the group it is in.
    let mut totals = search.totals.clone();
    totals.sort_by(f64::total_cmp);
    let heaviest = totals.pop().unwrap_or(0.0) + totals.iter().take(search.room - 1).sum::<f64>();
    let others = (search.room - 1) * (loads.len() / cluster.num_groups());
    let replica = |group: &[f64]| lightest_heaviest(group.iter().copied(), search.replicas - others, mean);
    let replica = search.groups.iter().map(|group| replica(group)).fold(0.0, f64::max);
    mean.max(heaviest / search.gpus as f64).max(replica)
}

/// A depth-first search over balanced assignments, largest groups first, that gives up after a while.
struct Assignments<'a> {
    groups: Vec<&'a [f64]>,
    totals: Vec<f64>,
    room: usize,
    replicas: usize,
    gpus: usize,
    best: f64,
    visits: usize,
}

impl Assignments<'_> {
    fn extend(&mut self, held: &mut Vec<Vec<usize>>, load: &mut Vec<f64>, next: usize) {
        self.visits += 1;
        if self.visits >= SEARCH_LIMIT {
            return;
        }
        if next == self.groups.len() {
            let bound = |node: &Vec<usize>| {
                let loads = node.iter().flat_map(|&g| self.groups[g].iter().copied());
                node_bound(loads, self.replicas, self.gpus)
            };
            self.best = self.best.min(held.iter().map(bound).fold(0.0, f64::max));
            return;
        }
        for node in 0..held.len() {
            let fits = (load[node] + self.totals[next]) / (self.gpus as f64) < self.best;
            if held[node].len() < self.room && fits {
                held[node].push(next);
                load[node] += self.totals[next];
                self.extend(held, load, next + 1);
                load[node] -= self.totals[next];
                held[node].pop();
            }
            if held[node].is_empty() {
                // Empty nodes are alike.
                break;
            }
        }
    }
}
