//! Feasibility and score of a plan, by code that shares nothing with the planner.
//!
//! A plan is judged on the loads as given, in `f64`, never on the planner's fixed point. The words of
//! `DESIGN.md` apply: slot `s` sits on GPU `s / slots_per_gpu`, nodes are contiguous runs of GPUs, groups are
//! contiguous runs of experts.

use rayon::prelude::*;

use crate::cluster::{Cluster, Policy};
use crate::error::Error;
use crate::loads::Loads;

/// One layer of a plan, scored with the loads as given (not in fixed point). All loads are in the unit of
/// the given loads, usually tokens.
#[derive(Clone, Debug, PartialEq)]
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
pub struct Quality {
    /// Layer by layer.
    pub layers: Vec<LayerQuality>,
}

impl Quality {
    /// The same quality with a lower bound per layer, as [`crate::bound::lower_bounds`] gives them. Layers
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
    if physical_to_logical.len() != loads.layers() * slots {
        let rule = format!("is not layers {} x slots {slots}", loads.layers());
        return Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule));
    }
    let layers = physical_to_logical.par_chunks_exact(slots).enumerate().map(|(layer, row)| {
        let experts = experts_of_slots(row, loads.experts());
        experts
            .and_then(|experts| {
                let counts = check_layer(cluster, &experts, loads.experts())?;
                Ok(score_layer(loads.layer(layer), cluster, &experts, &counts))
            })
            .map_err(|rule| Error::InvalidPlan { layer, rule })
    });
    // In order, so that the first layer that breaks a rule is the one named.
    let layers: Vec<Result<LayerQuality, Error>> = layers.collect();
    Ok(Quality { layers: layers.into_iter().collect::<Result<_, _>>()? })
}

/// One row of `physical_to_logical` with free slots as `None`, or the rule it breaks.
fn experts_of_slots(row: &[i32], experts: usize) -> Result<Vec<Option<usize>>, String> {
    let expert_of = |(slot, &entry): (usize, &i32)| match usize::try_from(entry) {
        Ok(expert) if expert < experts => Ok(Some(expert)),
        Err(_) if entry == -1 => Ok(None),
        _ => Err(format!("slot {slot} holds {entry}, not an expert in 0..{experts} or -1")),
    };
    row.iter().enumerate().map(expert_of).collect()
}

/// The replica count of each expert, or the first rule the layer breaks.
fn check_layer(cluster: &Cluster, expert_of: &[Option<usize>], experts: usize) -> Result<Vec<usize>, String> {
    let filled = expert_of.iter().flatten().count();
    if filled != cluster.num_replicas() {
        let first_free = expert_of.iter().position(Option::is_none);
        let free = first_free.map_or_else(String::new, |slot| format!(", slot {slot} is free"));
        return Err(format!("{filled} slots are filled, not num_replicas {}{free}", cluster.num_replicas()));
    }
    let mut counts = vec![0; experts];
    for &expert in expert_of.iter().flatten() {
        counts[expert] += 1;
    }
    if let Some(missing) = counts.iter().position(|&c| c == 0) {
        return Err(format!("expert {missing} has no replica"));
    }
    if cluster.policy() == Policy::Hierarchical {
        check_nodes(cluster, expert_of, experts)?;
    }
    Ok(counts)
}

/// The rules of the hierarchical policy; every expert is known to have a replica.
fn check_nodes(cluster: &Cluster, expert_of: &[Option<usize>], experts: usize) -> Result<(), String> {
    let (groups, nodes) = (cluster.num_groups(), cluster.num_nodes());
    let (group_size, node_slots) = (experts / groups, cluster.num_slots() / nodes);
    let mut node_of_group = vec![None; groups];
    let mut replicas_of_node = vec![0; nodes];
    let group_of: Vec<usize> = (0..groups).flat_map(|group| std::iter::repeat_n(group, group_size)).collect();
    for (node, slots) in expert_of.chunks_exact(node_slots).enumerate() {
        for (index, expert) in slots.iter().enumerate() {
            let Some(expert) = *expert else { continue };
            let group = group_of[expert];
            replicas_of_node[node] += 1;
            let home = *node_of_group[group].get_or_insert(node);
            if home != node {
                let slot = node * node_slots + index;
                return Err(format!(
                    "slot {slot} in node {node} holds expert {expert} of group {group}, which is in node {home}"
                ));
            }
        }
    }
    for (node, &replicas) in replicas_of_node.iter().enumerate() {
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

/// Scores a layer that [`check_layer`] has passed: a replica carries `load / count` of its expert.
fn score_layer(
    row: &[f64],
    cluster: &Cluster,
    expert_of: &[Option<usize>],
    counts: &[usize],
) -> LayerQuality {
    let share = |expert: usize| row[expert] / counts[expert] as f64;
    let mut max_gpu_load = 0.0f64;
    let mut same_gpu_duplicates = 0;
    // The GPU each expert was last seen on, so that a repeat on the same GPU shows.
    let mut last_gpu = vec![None; row.len()];
    for (gpu, slots) in expert_of.chunks_exact(cluster.slots_per_gpu()).enumerate() {
        let mut load = 0.0;
        for &expert in slots.iter().flatten() {
            load += share(expert);
            same_gpu_duplicates += usize::from(last_gpu[expert].replace(gpu) == Some(gpu));
        }
        max_gpu_load = max_gpu_load.max(load);
    }
    let total: f64 = row.iter().sum();
    LayerQuality {
        max_gpu_load,
        mean_gpu_load: total / cluster.num_gpus() as f64,
        max_replica_load: (0..row.len()).map(share).fold(0.0, f64::max),
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
    let mut slots_of = vec![vec![]; counts.len()];
    for (slot, expert) in experts_of_slots(row, counts.len())?.into_iter().enumerate() {
        if let Some(expert) = expert {
            slots_of[expert].push(slot);
        }
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
        assert_eq!(quality.balancedness(), 30.0 / 40.0);
        assert_eq!(quality.replica_balancedness(), 7.5 / 20.0);
        assert_eq!(quality.max_over_mean(), 1.5);
        assert_eq!((quality.same_gpu_duplicates(), quality.layers_without_load()), (3, 1));
        assert_eq!((quality.worst_layer(), quality.worst_gap()), (Some(1), 0.5), "gaps over the mean");
        let bounded = quality.with_bounds(&[0.0, 12.0, 20.0]);
        assert_eq!(bounded.layers[1].lower_bound, 12.0);
        assert_eq!((bounded.worst_layer(), bounded.worst_gap()), (Some(1), 0.25), "the lower of equals");
        assert_eq!(bounded.mean_gap(), 0.25);
    }

    #[test]
    fn nothing_loaded_is_perfectly_balanced() {
        for layers in [vec![], vec![layer(0.0, 0.0, 0.0)]] {
            let quality = Quality { layers };
            assert_eq!((quality.balancedness(), quality.replica_balancedness()), (1.0, 1.0));
            assert_eq!((quality.max_over_mean(), quality.mean_gap(), quality.worst_gap()), (1.0, 0.0, 0.0));
            assert_eq!(quality.worst_layer(), None);
        }
    }

    #[test]
    fn scores_a_plan_by_hand() {
        // GPUs {0, 0}, {1, 2}, {0, 1}: expert 0 has three replicas of 10, expert 1 two of 6.
        let loads = Loads::from_counts(1, 3, &[30, 12, 3]).unwrap();
        let cluster = Cluster::new(6, 1, 1, 3).unwrap();
        let layer = score(&loads, &cluster, &[0, 0, 1, 2, 0, 1]).unwrap().layers.remove(0);
        assert_eq!((layer.max_gpu_load, layer.mean_gpu_load), (20.0, 15.0));
        assert_eq!((layer.max_replica_load, layer.mean_replica_load), (10.0, 7.5));
        assert_eq!((layer.same_gpu_duplicates, layer.lower_bound), (1, 0.0));
    }
}
