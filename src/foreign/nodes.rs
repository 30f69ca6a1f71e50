//! A layer as the search sees it: the experts that may have several replicas, and what the nodes carry.

use super::target::GroupSets;
use crate::params::Params;

/// Of a node's experts at least this many of the heaviest may have several replicas.
const LEAST_ACTIVE: u32 = 32;

/// The experts that may have several replicas under one assignment of groups to homes, node after node, heaviest first in
/// each.
#[derive(Clone, Default)]
pub struct NodeExperts {
    /// Nodes.
    pub nodes: usize,
    /// GPUs of a node.
    pub gpus: i64,
    /// Replicas of a node beyond one for each expert at home.
    pub spare: u32,
    /// Experts of a node that may have several replicas.
    pub active: usize,
    /// Experts of a node that share a GPU with a replica.
    pub lightest: usize,
    /// The most foreign replicas of the layer, and of one expert there.
    pub most_foreign: u32,
    /// The most replicas of an expert in a node, and in all.
    pub most_here: u32,
    pub most: u32,
    /// Logical number of each.
    pub experts: Vec<u32>,
    pub loads: Vec<i64>,
    /// Node of each.
    pub homes: Vec<usize>,
    /// Where the experts of each node begin, and the end.
    pub begins: Vec<usize>,
    /// Load of all experts at home in each node.
    pub totals: Vec<i64>,
    /// The least load that shares a GPU of each node with a replica, about: the lightest experts at home.
    pub beside: Vec<i64>,
}

impl NodeExperts {
    /// The limits of a call's nodes, without experts.
    pub fn of(params: &Params) -> Self {
        let spare = params.node_replicas - params.node_experts;
        let free = params.node_slots - params.node_replicas;
        let lightest = (params.slots_per_gpu - 1).saturating_sub(free.div_ceil(params.node_gpus)) as usize;
        Self {
            nodes: params.nodes as usize,
            gpus: i64::from(params.node_gpus),
            spare,
            active: LEAST_ACTIVE.max(spare.saturating_add(params.most_foreign)).min(params.node_experts)
                as usize,
            // Of few experts the lightest are not light, and further replicas make them lighter: node totals alone decide.
            lightest: if params.node_experts < 2 * params.slots_per_gpu { 0 } else { lightest },
            most_foreign: params.most_foreign,
            most_here: if params.avoid_duplicates { params.node_gpus } else { u32::MAX },
            most: params.most_count,
            ..Self::default()
        }
    }

    /// The nodes of an assignment.
    pub fn new(params: &Params, sets: &GroupSets, assignment: usize, loads: &[u32]) -> Self {
        let mut nodes = Self::of(params);
        for (node, &set) in sets.assignments[assignment].iter().enumerate() {
            let groups = &sets.groups[set];
            let experts =
                groups.iter().flat_map(|group| group * params.group_size..(group + 1) * params.group_size);
            let mut keys: Vec<(i64, u32)> = experts.map(|e| (-i64::from(loads[e as usize]), e)).collect();
            keys.sort_unstable();
            nodes.totals.push(keys.iter().map(|key| -key.0).sum());
            nodes.beside.push(keys.iter().rev().take(nodes.lightest).map(|key| -key.0).sum());
            nodes.begins.push(nodes.experts.len());
            for &(load, expert) in &keys[..nodes.active] {
                nodes.experts.push(expert);
                nodes.loads.push(-load);
                nodes.homes.push(node);
            }
        }
        nodes.begins.push(nodes.experts.len());
        nodes
    }

    /// The most replicas that an expert has for its own load's sake.
    pub fn most_wanted(&self) -> u32 {
        self.most_here.min(self.most).min(self.spare.saturating_add(1))
    }

    /// The most foreign replicas of an expert.
    pub fn most_away(&self) -> u32 {
        self.most_here.saturating_mul(self.nodes as u32 - 1).min(self.most - 1)
    }
}

/// How many replicas of each expert each node holds, and what the nodes carry then.
#[derive(Clone, Default)]
pub struct Copies {
    /// `[experts][nodes]`.
    pub here: Vec<u32>,
    /// Of each expert.
    pub counts: Vec<u32>,
    /// Load of one replica of each.
    pub shares: Vec<i64>,
    /// Load of each node.
    pub totals: Vec<i64>,
    /// Foreign replicas.
    pub foreign: u32,
}

impl Copies {
    /// An estimate of the heaviest GPU from below: the mean GPU of a node, or a replica with the lightest experts of its home.
    pub fn value(&self, nodes: &NodeExperts) -> i64 {
        let even = self.totals.iter().map(|total| (total + nodes.gpus - 1) / nodes.gpus).max().unwrap_or(0);
        let heavy = self.shares.iter().zip(&nodes.homes).map(|(share, &home)| share + nodes.beside[home]);
        heavy.fold(even, i64::max)
    }

    /// Adds a replica of an expert to a node, or takes one away; its replicas in all nodes weigh accordingly.
    pub fn change(&mut self, nodes: &NodeExperts, expert: usize, node: usize, add: bool) {
        let row = expert * nodes.nodes..(expert + 1) * nodes.nodes;
        let share = self.shares[expert];
        for (total, &here) in self.totals.iter_mut().zip(&self.here[row.clone()]) {
            *total -= share * i64::from(here);
        }
        let is_foreign = u32::from(nodes.homes[expert] != node);
        let here = &mut self.here[row.start + node];
        if add {
            *here += 1;
            self.counts[expert] += 1;
            self.foreign += is_foreign;
        } else {
            *here -= 1;
            self.counts[expert] -= 1;
            self.foreign -= is_foreign;
        }
        let share = nodes.loads[expert] / i64::from(self.counts[expert]);
        self.shares[expert] = share;
        for (total, &here) in self.totals.iter_mut().zip(&self.here[row]) {
            *total += share * i64::from(here);
        }
    }
}
