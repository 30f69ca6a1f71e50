//! The rules that a valid plan keeps.

use super::CheckOptions;
use crate::cluster::{Cluster, Policy};
use crate::error::Error;
use crate::loads::Loads;

/// Checks that there is an entry for each slot of each layer.
pub fn check_length(loads: &Loads, cluster: &Cluster, physical_to_logical: &[i32]) -> Result<(), Error> {
    let slots = cluster.num_slots();
    if physical_to_logical.len() == loads.layers() * slots {
        return Ok(());
    }
    let rule = format!("is not layers {} x slots {slots}", loads.layers());
    Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule))
}

/// The filled slots of a row of `physical_to_logical` that [`check_entries`] has passed, each with its expert.
pub fn filled(row: &[i32]) -> impl Iterator<Item = (usize, usize)> {
    row.iter().enumerate().filter_map(|(slot, &entry)| Some((slot, usize::try_from(entry).ok()?)))
}

/// Whether all entries of a row of `physical_to_logical` are experts or -1.
pub fn check_entries(row: &[i32], experts: usize) -> Result<(), String> {
    let is_entry = |entry: i32| usize::try_from(entry).map_or(entry == -1, |expert| expert < experts);
    match row.iter().position(|&entry| !is_entry(entry)) {
        Some(slot) => Err(format!("slot {slot} holds {}, not an expert in 0..{experts} or -1", row[slot])),
        None => Ok(()),
    }
}

/// The rules that every layer of a plan must keep, for one cluster and number of experts.
pub struct Rules<'a> {
    cluster: &'a Cluster,
    experts: usize,
    /// The most replicas of a layer outside the home of their group, fewer than a group has experts.
    max_foreign: u32,
    /// The most replicas of an expert.
    most: u32,
    /// The group of each expert, where groups matter.
    group_of: Vec<usize>,
}

impl<'a> Rules<'a> {
    /// `experts` is known to fit the cluster.
    pub fn new(cluster: &'a Cluster, experts: usize, options: &CheckOptions) -> Self {
        let groups = if cluster.policy() == Policy::Hierarchical { cluster.num_groups() } else { 0 };
        let group_of = (0..groups).flat_map(|group| std::iter::repeat_n(group, experts / groups)).collect();
        let most = options.max_replicas_per_expert.unwrap_or(u32::MAX);
        Self { cluster, experts, max_foreign: options.max_foreign, most, group_of }
    }

    /// The replica count of each expert and the home of each group, where groups matter, or the first rule that a row of
    /// `physical_to_logical` breaks.
    pub fn check_layer(&self, row: &[i32]) -> Result<(Vec<u32>, Vec<usize>), String> {
        let Self { cluster, experts, .. } = *self;
        let replicas = cluster.num_replicas();
        check_entries(row, experts)?;
        let mut counts = vec![0; experts];
        let mut found = 0;
        for (_, expert) in filled(row) {
            counts[expert] += 1;
            found += 1;
        }
        for gpu in cluster.gone_gpus() {
            let first = gpu * cluster.slots_per_gpu();
            if let Some((slot, expert)) = filled(&row[first..first + cluster.slots_per_gpu()]).next() {
                return Err(format!(
                    "slot {} on GPU {gpu}, which is gone (speed 0), holds expert {expert}",
                    first + slot
                ));
            }
        }
        if found != replicas {
            let first_free = row.iter().position(|&entry| entry == -1);
            let free = first_free.map_or_else(String::new, |slot| format!(", slot {slot} is free"));
            return Err(format!("{found} slots are filled, not num_replicas {replicas}{free}"));
        }
        if let Some(missing) = counts.iter().position(|&count| count == 0) {
            return Err(format!("expert {missing} has no replica"));
        }
        if let Some(expert) = counts.iter().position(|&count| count > self.most) {
            let (count, most) = (counts[expert], self.most);
            return Err(format!(
                "expert {expert} has {count} replicas: more than max_replicas_per_expert {most}"
            ));
        }
        let homes =
            if cluster.policy() == Policy::Hierarchical { self.check_nodes(row)? } else { Vec::new() };
        Ok((counts, homes))
    }

    /// The rules of the hierarchical policy; every expert is known to have a replica. Returns the home of each group.
    fn check_nodes(&self, row: &[i32]) -> Result<Vec<usize>, String> {
        let cluster = self.cluster;
        let (groups, nodes) = (cluster.num_groups(), cluster.num_nodes());
        let node_slots = cluster.num_slots() / nodes;
        let homes = self.homes(row)?;
        let mut foreign = 0u32;
        let mut replicas_of_node = Vec::with_capacity(nodes);
        for (node, slots) in row.chunks_exact(node_slots).enumerate() {
            let mut replicas = 0;
            for (index, expert) in filled(slots) {
                replicas += 1;
                let group = self.group_of[expert];
                let home = homes[group];
                foreign += u32::from(home != node);
                if foreign > self.max_foreign {
                    let slot = node * node_slots + index;
                    let most = match self.max_foreign {
                        0 => String::new(),
                        most => {
                            format!(": more than max_foreign {most} replicas outside the home of their group")
                        }
                    };
                    return Err(format!(
                        "slot {slot} in node {node} holds expert {expert} of group {group}, which is in node {home}{most}"
                    ));
                }
            }
            replicas_of_node.push(replicas);
        }
        for (node, replicas) in replicas_of_node.into_iter().enumerate() {
            let held = homes.iter().filter(|&&home| home == node).count();
            if held != groups / nodes {
                return Err(format!("node {node} holds {held} groups, not {}", groups / nodes));
            }
            if replicas != cluster.num_replicas() / nodes {
                let wanted = cluster.num_replicas() / nodes;
                return Err(format!("node {node} holds {replicas} replicas, not {wanted}"));
            }
        }
        Ok(homes)
    }

    /// How many replicas of a row that [`Rules::check_layer`] has passed are outside the home of their group, and what they
    /// carry: `served` by slot and expert.
    pub fn foreign(
        &self,
        row: &[i32],
        homes: &[usize],
        served: impl Fn(usize, usize) -> f64,
    ) -> (usize, f64) {
        if homes.is_empty() {
            return (0, 0.0);
        }
        let node_slots = self.cluster.num_slots() / self.cluster.num_nodes();
        let foreign = filled(row).filter(|&(slot, expert)| homes[self.group_of[expert]] != slot / node_slots);
        foreign.fold((0, 0.0), |(replicas, load), (slot, expert)| (replicas + 1, load + served(slot, expert)))
    }

    /// The home of each group: the node that holds it whole. There is only one, since a second would hold as many
    /// foreign replicas as the group has experts, and fewer are allowed. Without foreign replicas it is the first node that
    /// holds any of it.
    fn homes(&self, row: &[i32]) -> Result<Vec<usize>, String> {
        let cluster = self.cluster;
        let (groups, nodes) = (cluster.num_groups(), cluster.num_nodes());
        let size = self.experts / groups;
        // Experts of each group that each node holds.
        let mut held = vec![0; groups * nodes];
        let mut seen = vec![usize::MAX; self.experts];
        for (node, slots) in row.chunks_exact(cluster.num_slots() / nodes).enumerate() {
            for (_, expert) in filled(slots) {
                if seen[expert] != node {
                    seen[expert] = node;
                    held[self.group_of[expert] * nodes + node] += 1;
                }
            }
        }
        let home = |(group, held): (usize, &[usize])| {
            match self.max_foreign {
            0 => Ok(held.iter().position(|&held| held > 0).unwrap_or(0)),
            _ => held.iter().position(|&held| held == size).ok_or_else(|| {
                let most = held.iter().copied().max().unwrap_or(0);
                let node = held.iter().position(|&held| held == most).unwrap_or(0);
                format!("group {group} has no home: no node holds all its {size} experts, node {node} holds {most}")
            }),
        }
        };
        held.chunks_exact(nodes).enumerate().map(home).collect()
    }
}
