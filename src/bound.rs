//! Lower bounds on the max GPU load of any valid plan, by code that shares nothing with the planner.
//!
//! Write `w[e]` for an expert's load, `c[e]` for its replica count, `P` for GPUs, `R` for replicas and `k` for
//! slots a GPU. Within one *node problem* (some experts, their `R` replicas, `P` GPUs of `k` slots) no plan is
//! better than
//! - the mean, `sum of w / P`: the largest is at least the mean;
//! - the heaviest replica under best replication (`bound/heaviest.rs`): some GPU holds it;
//! - with 2 or 3 slots a GPU, what heavy replicas need in light partners (`bound/few_slots.rs`): on real loads
//!   of 256 experts in 144 x 2 slots 6 to 8 % above the other two.
//!
//! Where an expert may have at most `m` replicas, none of them is lighter than `w / m`, and the counts that the
//! last two look at end at `m`.
//!
//! The global policy is one node problem. Under the hierarchical policy a plan first assigns groups to nodes
//! and is then one node problem a node, so the least over assignments of the largest node's bound is a bound
//! (`bound/groups.rs`): exact over assignments while they are few, a weaker relaxation beyond. Where some replicas
//! may be foreign (`bound/foreign.rs`), it is what an assignment's busy nodes cannot send away. Where GPUs are of unequal
//! speed all of it is over speeds (`bound/speeds.rs`).

mod few_slots;
mod foreign;
mod groups;
mod heaviest;
mod speeds;

use crate::cluster::{Cluster, Policy};
use crate::loads::Loads;
use crate::threads;
use few_slots::Pace;

/// How much work goes into a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoundEffort {
    /// Some tenths of a millisecond to two milliseconds a layer of 256 experts where a GPU has 2 slots, less
    /// elsewhere.
    #[default]
    Quick,
    /// Prices that have nearly converged, at 2 and 3 slots a GPU: never below the quick bound, for some
    /// fifty times its work. With other numbers of slots it is the quick bound.
    Tight,
}

/// The plans that a bound is to hold for, and the work that goes into it.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..BoundOptions::default()`, and later versions compile.
///
/// ```
/// use eplb_wgpu::bound::{BoundEffort, BoundOptions, lower_bounds, lower_bounds_with};
/// use eplb_wgpu::{Cluster, Loads};
///
/// let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
/// let cluster = Cluster::new(8, 1, 1, 4)?;
/// let options = BoundOptions { effort: BoundEffort::Tight, ..BoundOptions::default() };
/// assert!(lower_bounds_with(&loads, &cluster, &options) >= lower_bounds(&loads, &cluster));
/// // Two replicas of the 90 weigh 45 each, whatever the mean of 37.5 says.
/// let options = BoundOptions { max_replicas_per_expert: Some(2), ..options };
/// assert!(lower_bounds_with(&loads, &cluster, &options)[0] > 44.9);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BoundOptions {
    /// How much work goes into it. Default: [`BoundEffort::Quick`].
    pub effort: BoundEffort,
    /// The most replicas of an expert in the plans it holds for; `None`, the default, where only the cluster limits them.
    pub max_replicas_per_expert: Option<u32>,
    /// The most replicas of a layer outside the home of their group in the plans it holds for, see
    /// [`PlanOptions::max_foreign`](crate::PlanOptions::max_foreign). Of no effect under the global policy. Default: 0.
    pub max_foreign: u32,
}

/// A bound on each layer's max GPU load, `[layers]`, in the unit of the loads: no valid plan of these loads on
/// this cluster, with or without two replicas of an expert on one GPU, goes below it. 0 for a layer without
/// load. Over the GPU's speed, where these are unequal. [`lower_bounds_with`] default options.
#[must_use]
pub fn lower_bounds(loads: &Loads, cluster: &Cluster) -> Vec<f64> {
    lower_bounds_with(loads, cluster, &BoundOptions::default())
}

/// A bound on each layer's max GPU load as [`lower_bounds`] gives it, by these options.
///
/// Computed in `f64` and then lowered by a relative 1e-12 and more, which outweighs every rounding on the way.
/// Where the experts do not fit the cluster at all ([`Cluster::check_experts`]), or as many replicas as it holds
/// break the limit of an expert, there is no valid plan to bound, and the result is the mean GPU load.
#[must_use]
pub fn lower_bounds_with(loads: &Loads, cluster: &Cluster, options: &BoundOptions) -> Vec<f64> {
    let experts = loads.experts();
    let most = options.max_replicas_per_expert.map_or(usize::MAX, |most| most as usize);
    let fits =
        cluster.check_experts(experts).is_ok() && experts.saturating_mul(most) >= cluster.num_replicas();
    // A sum of n non-negative floats, in whatever order, is off by at most n half-epsilons.
    let slack = 1e-12 + experts as f64 * f64::EPSILON;
    let of_row = |row: &[f64], pace: &Pace| match cluster.policy() {
        _ if !cluster.has_equal_speeds() => speeds::bound(row, cluster, most, options.max_foreign == 0, pace),
        Policy::Global => node_bound(row, Room::of_cluster(cluster, most), pace),
        Policy::Hierarchical if options.max_foreign > 0 => {
            foreign::bound(row, cluster, most, options.max_foreign as usize, pace)
        }
        Policy::Hierarchical => groups::bound(row, cluster, most, pace),
    };
    threads::each(loads.layers(), |layer, (): &mut ()| {
        let row = loads.layer(layer);
        let bound = match options.effort {
            _ if !fits => row.iter().sum::<f64>() / cluster.capacity(),
            BoundEffort::Quick => of_row(row, &Pace::QUICK),
            // Both, since a longer search for prices takes another way and may end lower.
            BoundEffort::Tight => of_row(row, &Pace::QUICK).max(of_row(row, &Pace::TIGHT)),
        };
        // The constant covers loads so small that their quotients are denormal and lose relative precision.
        (bound * (1.0 - slack) - f64::MIN_POSITIVE).max(0.0)
    })
}

/// The least that any plan whose heaviest GPUs weigh this much, `[layers]`, serves outside the homes of the groups, in the unit of
/// the loads: 0 under the global policy, and where assignments of groups to nodes are too many to look at each.
#[must_use]
pub fn least_foreign_loads(loads: &Loads, cluster: &Cluster, max_gpu_loads: &[f64]) -> Vec<f64> {
    if cluster.policy() == Policy::Global || cluster.check_experts(loads.experts()).is_err() {
        return vec![0.0; loads.layers()];
    }
    let layers = (0..loads.layers()).zip(max_gpu_loads);
    layers.map(|(layer, &most)| foreign::least_away(loads.layer(layer), cluster, most)).collect()
}

/// The room of one node problem.
#[derive(Clone, Copy, Debug)]
struct Room {
    /// Replicas to place, at least one an expert.
    replicas: usize,
    gpus: usize,
    /// Slots on a GPU.
    slots: usize,
    /// The most replicas of an expert, which all experts together suffice for; [`usize::MAX`] is no limit.
    most: usize,
}

impl Room {
    /// All nodes as one.
    fn of_cluster(cluster: &Cluster, most: usize) -> Self {
        let slots = cluster.slots_per_gpu();
        Self { replicas: cluster.num_replicas(), gpus: cluster.num_gpus(), slots, most }
    }

    /// One node of the hierarchical policy.
    fn of_node(cluster: &Cluster, most: usize) -> Self {
        let nodes = cluster.num_nodes();
        let slots = cluster.slots_per_gpu();
        Self { replicas: cluster.num_replicas() / nodes, gpus: cluster.num_gpus() / nodes, slots, most }
    }
}

/// The bound of one node problem, up to rounding.
fn node_bound(row: &[f64], room: Room, pace: &Pace) -> f64 {
    few_slots::raise(row, (room, &[]), simple_bound(row, room), f64::INFINITY, pace)
}

/// The bound from the mean and the heaviest replica alone.
fn simple_bound(row: &[f64], room: Room) -> f64 {
    let mean = row.iter().sum::<f64>() / room.gpus as f64;
    mean.max(heaviest::least_heaviest_replica(row, room.replicas, room.most))
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    /// Bounds of one layer of `row` on several clusters: 2, 3 and many slots a GPU, both policies.
    fn bounds_of(row: &[f64]) -> Vec<f64> {
        let loads = Loads::from_f64(1, row.len(), row).unwrap();
        [(16, 1, 1, 8), (18, 1, 1, 6), (24, 4, 2, 4), (24, 4, 2, 12), (16, 4, 4, 16)]
            .map(|(replicas, groups, nodes, gpus)| {
                lower_bounds(&loads, &Cluster::new(replicas, groups, nodes, gpus).unwrap())[0]
            })
            .to_vec()
    }

    #[test]
    fn odd_loads_end_and_stay_below_their_total() {
        let tiny = f64::from_bits(3);
        for load in [tiny, f64::MIN_POSITIVE, 1e-290, 0.1, 1.8e19] {
            let rows =
                [vec![load; 8], [vec![load], vec![0.0; 7]].concat(), [vec![load; 7], vec![1e19]].concat()];
            for row in rows {
                let total: f64 = row.iter().sum();
                for bound in bounds_of(&row) {
                    assert!((0.0..=total).contains(&bound), "{bound} for {row:?}");
                    assert!(load < 1e-300 || bound >= total / 24.0, "{bound} for {row:?}");
                }
            }
        }
        assert_eq!(bounds_of(&[0.0; 8]), [0.0; 5]);
        assert_eq!(
            bounds_of(&[-0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0])[0],
            0.0625 * (1.0 - 1e-12 - 8.0 * f64::EPSILON)
        );
    }

    #[test]
    fn bounds_scale_with_the_loads() {
        let row = [600.0, 560.0, 120.0, 120.0, 20.0, 10.0, 10.0, 10.0];
        let scaled: Vec<f64> = row.iter().map(|w| w * 1024.0).collect();
        for (small, large) in bounds_of(&row).into_iter().zip(bounds_of(&scaled)) {
            assert_relative_eq!(small * 1024.0, large, max_relative = 1e-9);
        }
    }

    #[test]
    fn experts_that_do_not_fit_have_the_mean() {
        let loads = Loads::from_counts(1, 5, &[4, 4, 4, 4, 4]).unwrap();
        let few = lower_bounds(&loads, &Cluster::new(4, 1, 1, 4).unwrap())[0];
        let ragged = lower_bounds(&loads, &Cluster::new(8, 2, 2, 4).unwrap())[0];
        assert_relative_eq!(few, 5.0, max_relative = 1e-9);
        assert_relative_eq!(ragged, 5.0, max_relative = 1e-9);
    }
}
