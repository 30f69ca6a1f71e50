//! Feasibility and score of a plan, by code that shares nothing with the planner.
//!
//! A plan is judged on the loads as given, in `f64`, never on the planner's fixed point. Slot `s` sits on GPU
//! `s / slots_per_gpu`, nodes are contiguous runs of GPUs, groups are contiguous runs of experts.

use crate::cluster::{Cluster, Policy};
use crate::error::Error;
use crate::loads::Loads;
use crate::threads;

/// One layer of a plan, scored with the loads as given (not in fixed point). All loads are in the unit of
/// the given loads, usually tokens.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerQuality {
    /// Load of the busiest GPU.
    pub max_gpu_load: f64,
    /// Mean load of a GPU.
    pub mean_gpu_load: f64,
    /// Load of the heaviest replica.
    pub max_replica_load: f64,
    /// Mean load of a replica.
    pub mean_replica_load: f64,
    /// What no valid plan can go below; 0 until [`Quality::with_bounds`].
    pub lower_bound: f64,
    /// Slots that repeat an expert already on their GPU.
    pub same_gpu_duplicates: usize,
}

impl LayerQuality {
    /// `max GPU load / lower bound - 1`, at least 0; `None` for a layer without load.
    ///
    /// The mean GPU load is a lower bound too and stands in where [`LayerQuality::lower_bound`] is smaller,
    /// as it is before [`Quality::with_bounds`].
    #[must_use]
    pub fn gap(&self) -> Option<f64> {
        let bound = self.lower_bound.max(self.mean_gpu_load);
        (self.has_load() && bound > 0.0).then(|| (self.max_gpu_load / bound - 1.0).max(0.0))
    }

    /// Whether any expert of the layer has load.
    fn has_load(&self) -> bool {
        self.max_gpu_load > 0.0
    }
}

/// How good a plan is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Quality {
    /// Layer by layer.
    pub layers: Vec<LayerQuality>,
}

impl Quality {
    /// The same quality with a lower bound per layer, as [`crate::bound`] gives them. Layers
    /// beyond the end of `bounds` keep the bound they have.
    #[must_use]
    pub fn with_bounds(mut self, bounds: &[f64]) -> Self {
        for (layer, &bound) in self.layers.iter_mut().zip(bounds) {
            layer.lower_bound = bound;
        }
        self
    }

    /// Sum over layers of the mean GPU load / sum over layers of the max GPU load: 1 is perfect. 1 where
    /// nothing has load.
    #[must_use]
    pub fn balancedness(&self) -> f64 {
        self.ratio_of_sums(|l| l.mean_gpu_load, |l| l.max_gpu_load)
    }

    /// [`Quality::balancedness`] over replicas instead of GPUs: sum of mean replica load / sum of heaviest
    /// replica load. It depends on the replica counts alone, not on where replicas sit.
    #[must_use]
    pub fn replica_balancedness(&self) -> f64 {
        self.ratio_of_sums(|l| l.mean_replica_load, |l| l.max_replica_load)
    }

    /// Max GPU load / mean GPU load of the layer where that is largest; 1 where nothing has load.
    #[must_use]
    pub fn max_over_mean(&self) -> f64 {
        // The mean of denormal loads can be 0.
        let loaded = self.layers.iter().filter(|l| l.mean_gpu_load > 0.0);
        loaded.map(|l| l.max_gpu_load / l.mean_gpu_load).fold(1.0, f64::max)
    }

    /// Mean of [`LayerQuality::gap`] over the layers with load; 0 where there are none.
    #[must_use]
    pub fn mean_gap(&self) -> f64 {
        let gaps: Vec<f64> = self.layers.iter().filter_map(LayerQuality::gap).collect();
        if gaps.is_empty() { 0.0 } else { gaps.iter().sum::<f64>() / gaps.len() as f64 }
    }

    /// The largest [`LayerQuality::gap`]; 0 where nothing has load.
    #[must_use]
    pub fn worst_gap(&self) -> f64 {
        self.layers.iter().filter_map(LayerQuality::gap).fold(0.0, f64::max)
    }

    /// The layer with the largest gap, the lower of equals; `None` where nothing has load.
    #[must_use]
    pub fn worst_layer(&self) -> Option<usize> {
        let gaps = self.layers.iter().enumerate().filter_map(|(i, l)| Some((i, l.gap()?)));
        gaps.reduce(|worst, next| if next.1 > worst.1 { next } else { worst }).map(|(layer, _)| layer)
    }

    /// Slots that repeat an expert already on their GPU, all layers together.
    #[must_use]
    pub fn same_gpu_duplicates(&self) -> usize {
        self.layers.iter().map(|l| l.same_gpu_duplicates).sum()
    }

    /// Layers in which no expert has load, as a model's dense layers are recorded.
    #[must_use]
    pub fn layers_without_load(&self) -> usize {
        self.layers.iter().filter(|l| !l.has_load()).count()
    }

    fn ratio_of_sums(&self, mean: fn(&LayerQuality) -> f64, max: fn(&LayerQuality) -> f64) -> f64 {
        let (means, maxima) = self.layers.iter().fold((0.0, 0.0), |sum, l| (sum.0 + mean(l), sum.1 + max(l)));
        // Rounding can pass 1, that of denormal loads by far.
        if maxima > 0.0 { (means / maxima).min(1.0) } else { 1.0 }
    }
}

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
/// - an expert has no replica;
/// - hierarchical policy: replicas of one group sit in two nodes, or a node does not hold
///   `num_groups / num_nodes` groups, or does not hold `num_replicas / num_nodes` replicas.
pub fn score(loads: &Loads, cluster: &Cluster, physical_to_logical: &[i32]) -> Result<Quality, Error> {
    cluster.check_experts(loads.experts())?;
    let slots = cluster.num_slots();
    check_length(loads, cluster, physical_to_logical)?;
    let rules = Rules::new(cluster, loads.experts());
    let layers = threads::each(loads.layers(), |layer, (): &mut ()| {
        let row = &physical_to_logical[layer * slots..(layer + 1) * slots];
        let counts = rules.check_layer(row).map_err(|rule| Error::InvalidPlan { layer, rule })?;
        Ok(score_layer(loads.layer(layer), cluster, row, &counts))
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

/// Checks that there is an entry for each slot of each layer.
fn check_length(loads: &Loads, cluster: &Cluster, physical_to_logical: &[i32]) -> Result<(), Error> {
    let slots = cluster.num_slots();
    if physical_to_logical.len() == loads.layers() * slots {
        return Ok(());
    }
    let rule = format!("is not layers {} x slots {slots}", loads.layers());
    Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule))
}

/// The filled slots of a row of `physical_to_logical` that [`check_entries`] has passed, each with its expert.
fn filled(row: &[i32]) -> impl Iterator<Item = (usize, usize)> {
    row.iter().enumerate().filter_map(|(slot, &entry)| Some((slot, usize::try_from(entry).ok()?)))
}

/// Whether all entries of a row of `physical_to_logical` are experts or -1.
fn check_entries(row: &[i32], experts: usize) -> Result<(), String> {
    let is_entry = |entry: i32| usize::try_from(entry).map_or(entry == -1, |expert| expert < experts);
    match row.iter().position(|&entry| !is_entry(entry)) {
        Some(slot) => Err(format!("slot {slot} holds {}, not an expert in 0..{experts} or -1", row[slot])),
        None => Ok(()),
    }
}

/// What every layer is held against.
struct Rules<'a> {
    cluster: &'a Cluster,
    experts: usize,
    /// The group of each expert, where groups matter.
    group_of: Vec<usize>,
}

impl<'a> Rules<'a> {
    /// `experts` is known to fit the cluster.
    fn new(cluster: &'a Cluster, experts: usize) -> Self {
        let groups = if cluster.policy() == Policy::Hierarchical { cluster.num_groups() } else { 0 };
        let group_of = (0..groups).flat_map(|group| std::iter::repeat_n(group, experts / groups)).collect();
        Self { cluster, experts, group_of }
    }

    /// The replica count of each expert, or the first rule that a row of `physical_to_logical` breaks.
    fn check_layer(&self, row: &[i32]) -> Result<Vec<u32>, String> {
        let Self { cluster, experts, .. } = *self;
        let replicas = cluster.num_replicas();
        check_entries(row, experts)?;
        let mut counts = vec![0; experts];
        let mut found = 0;
        for (_, expert) in filled(row) {
            counts[expert] += 1;
            found += 1;
        }
        if found != replicas {
            let first_free = row.iter().position(|&entry| entry == -1);
            let free = first_free.map_or_else(String::new, |slot| format!(", slot {slot} is free"));
            return Err(format!("{found} slots are filled, not num_replicas {replicas}{free}"));
        }
        if let Some(missing) = counts.iter().position(|&count| count == 0) {
            return Err(format!("expert {missing} has no replica"));
        }
        if cluster.policy() == Policy::Hierarchical {
            self.check_nodes(row)?;
        }
        Ok(counts)
    }

    /// The rules of the hierarchical policy; every expert is known to have a replica.
    fn check_nodes(&self, row: &[i32]) -> Result<(), String> {
        let cluster = self.cluster;
        let (groups, nodes) = (cluster.num_groups(), cluster.num_nodes());
        let node_slots = cluster.num_slots() / nodes;
        let mut node_of_group = vec![None; groups];
        let mut replicas_of_node = Vec::with_capacity(nodes);
        for (node, slots) in row.chunks_exact(node_slots).enumerate() {
            let mut replicas = 0;
            for (index, expert) in filled(slots) {
                replicas += 1;
                let group = self.group_of[expert];
                let home = *node_of_group[group].get_or_insert(node);
                if home != node {
                    let slot = node * node_slots + index;
                    return Err(format!(
                        "slot {slot} in node {node} holds expert {expert} of group {group}, which is in node {home}"
                    ));
                }
            }
            replicas_of_node.push(replicas);
        }
        for (node, replicas) in replicas_of_node.into_iter().enumerate() {
            let held = node_of_group.iter().filter(|&&home| home == Some(node)).count();
            if held != groups / nodes {
                return Err(format!("node {node} holds {held} groups, not {}", groups / nodes));
            }
            if replicas != cluster.num_replicas() / nodes {
                let wanted = cluster.num_replicas() / nodes;
                return Err(format!("node {node} holds {replicas} replicas, not {wanted}"));
            }
        }
        Ok(())
    }
}

/// Scores a layer that [`Rules::check_layer`] has passed: a replica carries `load / count` of its expert.
fn score_layer(loads: &[f64], cluster: &Cluster, row: &[i32], counts: &[u32]) -> LayerQuality {
    let shares: Vec<f64> = loads.iter().zip(counts).map(|(load, &count)| load / f64::from(count)).collect();
    let (mut total, mut max_replica_load) = (0.0, 0.0);
    for (&load, &share) in loads.iter().zip(&shares) {
        total += load;
        max_replica_load = if share > max_replica_load { share } else { max_replica_load };
    }
    let mut max_gpu_load = 0.0f64;
    let mut same_gpu_duplicates = 0;
    // The GPU each expert was last seen on, so that a repeat on the same GPU shows.
    let mut last_gpu = vec![usize::MAX; loads.len()];
    for (gpu, slots) in row.chunks_exact(cluster.slots_per_gpu()).enumerate() {
        let mut load = 0.0;
        for (_, expert) in filled(slots) {
            load += shares[expert];
            same_gpu_duplicates += usize::from(last_gpu[expert] == gpu);
            last_gpu[expert] = gpu;
        }
        max_gpu_load = max_gpu_load.max(load);
    }
    LayerQuality {
        max_gpu_load,
        mean_gpu_load: total / cluster.num_gpus() as f64,
        max_replica_load,
        mean_replica_load: total / cluster.num_replicas() as f64,
        lower_bound: 0.0,
        same_gpu_duplicates,
    }
}

/// Checks that the three maps of a plan say the same.
///
/// `physical_to_logical` is `[layers][slots]`, the expert of each slot or -1; `logical_to_physical` is
/// `[layers][experts][width]` for any width, the slots of each expert in ascending order, then -1;
/// `replica_counts` is `[layers][experts]`.
///
/// # Errors
/// [`Error::Invalid`] where a length fits no number of layers, [`Error::InvalidPlan`] where an entry is not
/// an expert, a count is not the number of the expert's slots, or a list is not those slots in ascending
/// order followed by -1 alone.
pub fn check_maps(
    experts: usize,
    slots: usize,
    physical_to_logical: &[i32],
    logical_to_physical: &[i32],
    replica_counts: &[u32],
) -> Result<(), Error> {
    let invalid = |field: &str, value: usize, rule: String| Err(Error::invalid(field, value, rule));
    let len = physical_to_logical.len();
    if slots == 0 || len == 0 || !len.is_multiple_of(slots) {
        let rule = format!("is not a positive multiple of the number of slots {slots}");
        return invalid("length of physical_to_logical", len, rule);
    }
    let layers = len / slots;
    let rows = layers.saturating_mul(experts);
    if rows == 0 || replica_counts.len() != rows {
        let rule = format!("is not layers {layers} x experts {experts}");
        return invalid("length of replica_counts", replica_counts.len(), rule);
    }
    let width = logical_to_physical.len() / rows;
    if width == 0 || !logical_to_physical.len().is_multiple_of(rows) {
        let rule = format!("is not a positive multiple of layers {layers} x experts {experts}");
        return invalid("length of logical_to_physical", logical_to_physical.len(), rule);
    }
    for layer in 0..layers {
        let row = &physical_to_logical[layer * slots..(layer + 1) * slots];
        let counts = &replica_counts[layer * experts..(layer + 1) * experts];
        let lists = &logical_to_physical[layer * experts * width..(layer + 1) * experts * width];
        check_maps_of_layer(row, lists, width, counts).map_err(|rule| Error::InvalidPlan { layer, rule })?;
    }
    Ok(())
}

fn check_maps_of_layer(row: &[i32], lists: &[i32], width: usize, counts: &[u32]) -> Result<(), String> {
    check_entries(row, counts.len())?;
    let mut slots_of = vec![vec![]; counts.len()];
    for (slot, expert) in filled(row) {
        slots_of[expert].push(slot);
    }
    for (expert, (slots, list)) in slots_of.iter().zip(lists.chunks_exact(width)).enumerate() {
        if counts[expert] as usize != slots.len() {
            let count = counts[expert];
            return Err(format!("expert {expert} has replica count {count} but fills {} slots", slots.len()));
        }
        if slots.len() > width {
            return Err(format!(
                "expert {expert} fills {} slots, its list has room for {width}",
                slots.len()
            ));
        }
        for (at, &entry) in list.iter().enumerate() {
            let wanted = slots.get(at).and_then(|&slot| i64::try_from(slot).ok()).unwrap_or(-1);
            if i64::from(entry) != wanted {
                return Err(format!("expert {expert} lists {entry} at place {at}, where {wanted} belongs"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn layer(max: f64, mean: f64, bound: f64) -> LayerQuality {
        LayerQuality {
            max_gpu_load: max,
            mean_gpu_load: mean,
            max_replica_load: max / 2.0,
            mean_replica_load: mean / 4.0,
            lower_bound: bound,
            same_gpu_duplicates: 1,
        }
    }

    #[test]
    fn quality_sums_over_layers_and_leaves_out_those_without_load() {
        let quality =
            Quality { layers: vec![layer(0.0, 0.0, 0.0), layer(15.0, 10.0, 0.0), layer(25.0, 20.0, 0.0)] };
        assert_relative_eq!(quality.balancedness(), 30.0 / 40.0);
        assert_relative_eq!(quality.replica_balancedness(), 7.5 / 20.0);
        assert_relative_eq!(quality.max_over_mean(), 1.5);
        assert_eq!((quality.same_gpu_duplicates(), quality.layers_without_load()), (3, 1));
        // Gaps are over the mean where there is no bound.
        assert_eq!(quality.worst_layer(), Some(1));
        assert_relative_eq!(quality.worst_gap(), 0.5);
        let bounded = quality.with_bounds(&[0.0, 12.0, 20.0]);
        assert_relative_eq!(bounded.layers[1].lower_bound, 12.0);
        assert_eq!(bounded.worst_layer(), Some(1), "the lower of equals");
        assert_relative_eq!(bounded.worst_gap(), 0.25);
        assert_relative_eq!(bounded.mean_gap(), 0.25);
    }

    #[test]
    fn nothing_loaded_is_perfectly_balanced() {
        for layers in [vec![], vec![layer(0.0, 0.0, 0.0)]] {
            let quality = Quality { layers };
            for ratio in [quality.balancedness(), quality.replica_balancedness(), quality.max_over_mean()] {
                assert_relative_eq!(ratio, 1.0);
            }
            assert_relative_eq!(quality.mean_gap(), 0.0);
            assert_relative_eq!(quality.worst_gap(), 0.0);
            assert_eq!(quality.worst_layer(), None);
        }
    }

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
