//! Feasibility and score of a plan, by code that shares nothing with the planner.
//!
//! Reads the plan as the maps a serving system gets, and the loads as the user gave them (not in fixed point).

use crate::cluster::{Cluster, Policy};
use crate::error::Error;
use crate::loads::Loads;

/// One layer of a plan, scored. Loads are in the user's unit.
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
    /// What no valid plan can go below, see [`crate::bound`]; 0 until [`Quality::with_bounds`].
    pub lower_bound: f64,
    /// Slots that repeat an expert already on their GPU.
    pub same_gpu_duplicates: usize,
}

impl LayerQuality {
    /// `max_gpu_load / lower_bound - 1`; 0 without load or bound.
    #[must_use]
    pub fn gap(&self) -> f64 {
        if self.lower_bound > 0.0 { self.max_gpu_load / self.lower_bound - 1.0 } else { 0.0 }
    }

    /// Whether the layer has any load.
    #[must_use]
    pub fn has_load(&self) -> bool {
        self.mean_gpu_load > 0.0
    }
}

/// How good a plan is on some loads.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// Layer by layer.
    pub layers: Vec<LayerQuality>,
}

impl Quality {
    /// The same quality with a lower bound for each layer, `[layers]`.
    #[must_use]
    pub fn with_bounds(mut self, bounds: &[f64]) -> Self {
        for (layer, &bound) in self.layers.iter_mut().zip(bounds) {
            layer.lower_bound = bound;
        }
        self
    }

    /// Sum over layers of the mean GPU load over the sum of the max GPU load: 1 is perfect. 1 without load.
    #[must_use]
    pub fn balancedness(&self) -> f64 {
        ratio(self.sum(|l| l.mean_gpu_load), self.sum(|l| l.max_gpu_load))
    }

    /// The same ratio over replicas; it depends on the replica counts alone.
    #[must_use]
    pub fn replica_balancedness(&self) -> f64 {
        ratio(self.sum(|l| l.mean_replica_load), self.sum(|l| l.max_replica_load))
    }

    /// Sum over layers of the max GPU load over the sum of the mean: the inverse of [`Quality::balancedness`].
    #[must_use]
    pub fn max_over_mean(&self) -> f64 {
        ratio(self.sum(|l| l.max_gpu_load), self.sum(|l| l.mean_gpu_load))
    }

    /// Mean gap over the layers with load.
    #[must_use]
    pub fn mean_gap(&self) -> f64 {
        let loaded = self.layers.len() - self.layers_without_load();
        if loaded == 0 { 0.0 } else { self.sum(LayerQuality::gap) / loaded as f64 }
    }

    /// The largest gap of a layer.
    #[must_use]
    pub fn worst_gap(&self) -> f64 {
        self.layers.iter().map(LayerQuality::gap).fold(0.0, f64::max)
    }

    /// The layer with the largest gap, the first of equals.
    #[must_use]
    pub fn worst_layer(&self) -> usize {
        let worst = self.worst_gap();
        self.layers.iter().position(|layer| layer.gap() >= worst).unwrap_or(0)
    }

    /// Slots that repeat an expert already on their GPU, over all layers.
    #[must_use]
    pub fn same_gpu_duplicates(&self) -> usize {
        self.layers.iter().map(|layer| layer.same_gpu_duplicates).sum()
    }

    /// Layers whose loads are all zero.
    #[must_use]
    pub fn layers_without_load(&self) -> usize {
        self.layers.iter().filter(|layer| !layer.has_load()).count()
    }

    fn sum(&self, of: impl Fn(&LayerQuality) -> f64) -> f64 {
        self.layers.iter().map(of).sum()
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}

/// Checks a plan against every rule and scores it on `loads`.
///
/// `physical_to_logical` is `[layers][slots]`, -1 for a free slot. The rules: each entry is an expert or free;
/// exactly `num_replicas` slots are filled and every expert is among them; under the hierarchical policy a
/// node holds whole groups, `num_groups / num_nodes` of them, with an equal share of the replicas.
///
/// # Errors
/// [`Error::Invalid`] where the shapes do not fit together, [`Error::InvalidPlan`] with the first layer that
/// breaks a rule.
///
/// ```
/// use eplb_wgpu::{Cluster, Loads, check};
/// let loads = Loads::from_counts(1, 3, &[6, 2, 2])?;
/// let cluster = Cluster::new(4, 1, 1, 2)?;
/// let quality = check::score(&loads, &cluster, &[0, 1, 0, 2])?;
/// assert_eq!(quality.layers[0].max_gpu_load, 5.0);
/// assert!(check::score(&loads, &cluster, &[0, 1, 0, 1]).is_err()); // expert 2 is missing
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
pub fn score(loads: &Loads, cluster: &Cluster, physical_to_logical: &[i32]) -> Result<Quality, Error> {
    cluster.check_experts(loads.experts())?;
    let slots = cluster.num_slots();
    let expected = loads.layers() * slots;
    if physical_to_logical.len() != expected {
        let rule = format!("is not layers {} x slots {slots} = {expected}", loads.layers());
        return Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule));
    }
    let layers = physical_to_logical
        .chunks_exact(slots)
        .enumerate()
        .map(|(layer, row)| {
            let placed = read_row(row, loads.experts(), cluster)
                .and_then(|placed| check_nodes(&placed, loads.experts(), cluster).map(|()| placed))
                .map_err(|rule| Error::InvalidPlan { layer, rule })?;
            Ok(score_layer(loads.layer(layer), cluster, &placed))
        })
        .collect::<Result<_, Error>>()?;
    Ok(Quality { layers })
}

/// Checks that the three maps of a plan say the same: `logical_to_physical` is `[layers][experts][width]` with
/// each expert's slots in ascending order, padded with -1, and `replica_counts` `[layers][experts]`.
///
/// # Errors
/// [`Error::Invalid`] where lengths do not fit, [`Error::InvalidPlan`] where the maps disagree.
pub fn consistent(
    experts: usize,
    slots: usize,
    physical_to_logical: &[i32],
    logical_to_physical: &[i32],
    replica_counts: &[u32],
) -> Result<(), Error> {
    let layers = physical_to_logical.len() / slots.max(1);
    let rows = layers * experts;
    if rows == 0 || physical_to_logical.len() != layers * slots || replica_counts.len() != rows {
        let rule = format!("do not fit layers x slots {slots} and layers x experts {experts}");
        let value = format!("{} and {}", physical_to_logical.len(), replica_counts.len());
        return Err(Error::invalid("lengths of physical_to_logical and replica_counts", value, rule));
    }
    if !logical_to_physical.len().is_multiple_of(rows) {
        let rule = format!("is not a multiple of layers x experts {rows}");
        return Err(Error::invalid("length of logical_to_physical", logical_to_physical.len(), rule));
    }
    let width = logical_to_physical.len() / rows;
    for (row, &count) in replica_counts.iter().enumerate() {
        let (layer, expert) = (row / experts, row % experts);
        let held = physical_to_logical[layer * slots..(layer + 1) * slots].iter().zip(0i32..);
        let expected: Vec<i32> =
            held.filter(|&(&e, _)| usize::try_from(e) == Ok(expert)).map(|(_, slot)| slot).collect();
        let listed = &logical_to_physical[row * width..(row + 1) * width];
        let same = listed.len() >= expected.len()
            && listed[..expected.len()] == expected
            && listed[expected.len()..].iter().all(|&slot| slot == -1);
        if !same || expected.len() != count as usize {
            let rule = format!(
                "expert {expert} is in slots {expected:?}, but logical_to_physical lists {listed:?} and \
                 replica_counts says {count}"
            );
            return Err(Error::InvalidPlan { layer, rule });
        }
    }
    Ok(())
}

/// The expert of each slot, after the rules that need no node.
fn read_row(row: &[i32], experts: usize, cluster: &Cluster) -> Result<Vec<Option<usize>>, String> {
    let mut placed = Vec::with_capacity(row.len());
    for (slot, &entry) in row.iter().enumerate() {
        placed.push(match usize::try_from(entry) {
            Ok(expert) if expert < experts => Some(expert),
            Err(_) if entry == -1 => None,
            _ => return Err(format!("slot {slot} holds {entry}, not an expert in 0..{experts} or -1")),
        });
    }
    let filled = placed.iter().flatten().count();
    if filled != cluster.num_replicas() {
        return Err(format!("{filled} slots are filled, not num_replicas {}", cluster.num_replicas()));
    }
    let mut present = vec![false; experts];
    placed.iter().flatten().for_each(|&expert| present[expert] = true);
    match present.iter().position(|here| !here) {
        Some(expert) => Err(format!("expert {expert} has no replica")),
        None => Ok(placed),
    }
}

/// The hierarchical rules.
fn check_nodes(placed: &[Option<usize>], experts: usize, cluster: &Cluster) -> Result<(), String> {
    if cluster.policy() == Policy::Global {
        return Ok(());
    }
    let nodes = cluster.num_nodes();
    let group_size = experts / cluster.num_groups();
    let mut home = vec![None; cluster.num_groups()];
    for (node, held) in placed.chunks_exact(placed.len() / nodes).enumerate() {
        let replicas = held.iter().flatten().count();
        if replicas != cluster.num_replicas() / nodes {
            return Err(format!(
                "node {node} holds {replicas} replicas, not {}",
                cluster.num_replicas() / nodes
            ));
        }
        for &expert in held.iter().flatten() {
            let group = expert / group_size;
            match home[group] {
                Some(other) if other != node => {
                    return Err(format!(
                        "group {group} is in node {other} and, with expert {expert}, in node {node}"
                    ));
                }
                _ => home[group] = Some(node),
            }
        }
    }
    let each = cluster.num_groups() / nodes;
    for node in 0..nodes {
        let groups = home.iter().filter(|&&at| at == Some(node)).count();
        if groups != each {
            return Err(format!("node {node} holds {groups} groups, not {each}"));
        }
    }
    Ok(())
}

fn score_layer(loads: &[f64], cluster: &Cluster, placed: &[Option<usize>]) -> LayerQuality {
    let mut counts = vec![0usize; loads.len()];
    placed.iter().flatten().for_each(|&expert| counts[expert] += 1);
    let replica = |expert: usize| loads[expert] / counts[expert] as f64;
    let gpus = placed.chunks_exact(cluster.slots_per_gpu());
    let max_gpu_load =
        gpus.clone().map(|gpu| gpu.iter().flatten().map(|&e| replica(e)).sum()).fold(0.0, f64::max);
    let duplicates = |gpu: &[Option<usize>]| {
        let mut seen: Vec<usize> = gpu.iter().flatten().copied().collect();
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        all - seen.len()
    };
    let total: f64 = loads.iter().sum();
    LayerQuality {
        max_gpu_load,
        mean_gpu_load: total / cluster.num_gpus() as f64,
        max_replica_load: (0..loads.len()).map(replica).fold(0.0, f64::max),
        mean_replica_load: total / cluster.num_replicas() as f64,
        lower_bound: 0.0,
        same_gpu_duplicates: gpus.map(duplicates).sum(),
    }
}
