//! Stage 6, the mirror of `shaders/s6_select.wgsl`: keep the best start of a node, and the best assignment of a
//! layer.

use crate::mirror::candidate::Outcome;
use crate::params::{FREE, Params};
use crate::plan::Stop;

/// The best placement of one node so far.
#[derive(Clone, Debug)]
pub struct NodeBest {
    /// Load of its heaviest GPU; with several windows the sum over them.
    pub max: u32,
    /// Why its start ended.
    pub end: Stop,
    /// Expert of each slot, in the node's numbering.
    pub slots: Vec<u32>,
    /// Starts made.
    pub starts: u32,
    /// Starts since the best one.
    pub idle: u32,
}

impl NodeBest {
    /// No start yet.
    pub fn none() -> Self {
        Self { max: u32::MAX, end: Stop::BudgetSpent, slots: Vec::new(), starts: 0, idle: 0 }
    }

    /// Keeps the result of a start if it is better; the earlier wins ties.
    pub fn offer(&mut self, outcome: Outcome, slots: &[u32]) {
        self.starts += 1;
        self.idle += 1;
        if outcome.max < self.max {
            self.idle = 0;
            self.max = outcome.max;
            self.end = outcome.end;
            self.slots.clear();
            self.slots.extend_from_slice(slots);
        }
    }
}

/// The best plan of one layer so far.
#[derive(Clone, Debug)]
pub struct LayerBest {
    /// Load of its heaviest GPU.
    pub max: u32,
    /// Why the search of the node that decides it ended.
    pub end: Stop,
    /// The assignment it is for.
    pub groups: Vec<u32>,
    /// Load of each node's heaviest GPU.
    pub node_max: Vec<u32>,
    /// Logical expert of each slot, `FREE` where there is none.
    pub slots: Vec<u32>,
}

impl LayerBest {
    /// No assignment yet.
    pub fn none() -> Self {
        Self { max: u32::MAX, end: Stop::BudgetSpent, groups: vec![], node_max: vec![], slots: vec![] }
    }

    /// Keeps an assignment's plan if it is better; the earlier wins ties.
    pub fn offer(&mut self, params: &Params, groups: &[u32], nodes: &[&NodeBest]) {
        if nodes.iter().all(|node| node.max < self.max) {
            self.take(params, groups, nodes);
        }
    }

    /// Keeps an assignment's plan.
    pub fn take(&mut self, params: &Params, groups: &[u32], nodes: &[&NodeBest]) {
        let deciding = (0..nodes.len()).max_by_key(|&n| (nodes[n].max, usize::MAX - n)).unwrap_or(0);
        self.max = nodes[deciding].max;
        self.end = nodes[deciding].end;
        self.groups = groups.to_vec();
        self.node_max = nodes.iter().map(|n| n.max).collect();
        self.slots.clear();
        let mut logical = Vec::with_capacity(params.node_experts as usize);
        for (groups, best) in groups.chunks_exact(params.node_groups as usize).zip(nodes) {
            // A node numbers its experts group by group.
            logical.clear();
            for group in groups {
                logical.extend(group * params.group_size..(group + 1) * params.group_size);
            }
            self.slots.extend(best.slots.iter().map(|&e| if e == FREE { FREE } else { logical[e as usize] }));
        }
    }
}
