//! The shape of the serving cluster: replicas, groups, nodes, GPUs, and the rules between them.

mod speeds;

use crate::error::Error;
#[cfg(feature = "cli")]
pub(crate) use speeds::{lose_equally, parts_of};

/// The most slots a cluster may have in one layer.
pub const MAX_SLOTS: usize = 1 << 14;

/// The most slots a GPU may have.
pub const MAX_SLOTS_PER_GPU: usize = 1 << 8;

/// How replicas may spread over the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Each node holds whole groups, and all replicas of a group's experts stay in its node.
    Hierarchical,
    /// Any replica may sit on any GPU.
    Global,
}

impl Policy {
    /// `hierarchical` or `global`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Policy::Hierarchical => "hierarchical",
            Policy::Global => "global",
        }
    }
}

/// Where replicas can go: `num_gpus` GPUs in `num_nodes` equal nodes, `slots_per_gpu` slots each.
///
/// Slot `s` is on GPU `s / slots_per_gpu`; nodes are contiguous runs of GPUs. The policy is DeepSeek's rule:
/// hierarchical where `num_groups` is a multiple of `num_nodes` and there is more than one node, else global.
///
/// ```
/// use eplb_wgpu::{Cluster, Policy};
/// let cluster = Cluster::new(288, 8, 4, 32)?;
/// assert_eq!((cluster.slots_per_gpu(), cluster.policy()), (9, Policy::Hierarchical));
/// let error = Cluster::new(289, 8, 4, 32).unwrap_err().to_string();
/// assert_eq!(error, "num_replicas 289 is not a multiple of num_gpus 32");
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    num_replicas: usize,
    num_groups: usize,
    num_nodes: usize,
    num_gpus: usize,
    slots_per_gpu: usize,
    /// See [`Cluster::with_gpu_speeds`]: in millionths of the fastest, empty where all are equal.
    speeds: Vec<u32>,
}

impl Cluster {
    /// A cluster whose slots are all filled: `slots_per_gpu = num_replicas / num_gpus`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a number is 0 or too large, GPUs are not a multiple of nodes, or replicas not
    /// a multiple of GPUs.
    pub fn new(
        num_replicas: usize,
        num_groups: usize,
        num_nodes: usize,
        num_gpus: usize,
    ) -> Result<Self, Error> {
        check_counts(num_replicas, num_groups, num_nodes, num_gpus)?;
        if !num_replicas.is_multiple_of(num_gpus) {
            let rule = format!("is not a multiple of num_gpus {num_gpus}");
            return Err(Error::invalid("num_replicas", num_replicas, rule));
        }
        let slots_per_gpu = num_replicas / num_gpus;
        check_slots_per_gpu(slots_per_gpu)?;
        Ok(Self { num_replicas, num_groups, num_nodes, num_gpus, slots_per_gpu, speeds: Vec::new() })
    }

    /// A cluster that may have free slots: `num_replicas` replicas in `num_gpus x slots_per_gpu` slots.
    ///
    /// A free slot is -1 in a plan's `physical_to_logical`. Under the hierarchical policy every node gets the
    /// same number of replicas.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a number is 0 or too large, GPUs are not a multiple of nodes, there are more
    /// replicas than slots, or (hierarchical) replicas are not a multiple of nodes.
    pub fn with_slots_per_gpu(
        num_replicas: usize,
        num_groups: usize,
        num_nodes: usize,
        num_gpus: usize,
        slots_per_gpu: usize,
    ) -> Result<Self, Error> {
        check_counts(num_replicas, num_groups, num_nodes, num_gpus)?;
        check_slots_per_gpu(slots_per_gpu)?;
        let slots = num_gpus * slots_per_gpu;
        if slots > MAX_SLOTS {
            let rule = format!("x num_gpus {num_gpus} is more than {MAX_SLOTS} slots");
            return Err(Error::invalid("slots_per_gpu", slots_per_gpu, rule));
        }
        if num_replicas > slots {
            let rule = format!("is more than num_gpus {num_gpus} x slots_per_gpu {slots_per_gpu} = {slots}");
            return Err(Error::invalid("num_replicas", num_replicas, rule));
        }
        let cluster =
            Self { num_replicas, num_groups, num_nodes, num_gpus, slots_per_gpu, speeds: Vec::new() };
        if !num_replicas.is_multiple_of(cluster.planned_nodes()) {
            let rule = format!("is not a multiple of num_nodes {num_nodes}");
            return Err(Error::invalid("num_replicas", num_replicas, rule));
        }
        Ok(cluster)
    }

    /// Checks that `experts` logical experts fit: one replica each, and whole groups.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are fewer replicas than experts, or where groups are a multiple of nodes
    /// (so that groups matter, as in DeepSeek's contract) and experts are not a multiple of groups.
    pub fn check_experts(&self, experts: usize) -> Result<(), Error> {
        if self.num_replicas < experts {
            let rule = format!("is less than the number of experts {experts}: each needs a replica");
            return Err(Error::invalid("num_replicas", self.num_replicas, rule));
        }
        let grouped = self.num_groups.is_multiple_of(self.num_nodes);
        if grouped && !experts.is_multiple_of(self.num_groups) {
            let rule = format!("is not a multiple of num_groups {}", self.num_groups);
            return Err(Error::invalid("number of experts", experts, rule));
        }
        Ok(())
    }

    /// Checks a number of foreign replicas: groups have homes, and fewer of them than a group has experts, so that no
    /// other node can hold a group whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is more than 0 under the global policy, or not less than the experts of a group.
    pub(crate) fn check_foreign(&self, experts: usize, max_foreign: u32) -> Result<(), Error> {
        if max_foreign == 0 {
            return Ok(());
        }
        if self.policy() == Policy::Global {
            let rule = "is for groups that have a home node: num_groups a multiple of num_nodes, and more nodes than one";
            return Err(Error::invalid("max_foreign", max_foreign, rule));
        }
        let size = experts / self.num_groups;
        if max_foreign as usize >= size {
            let rule = format!(
                "is not less than the {size} experts of a group, so that a group could have two homes: at most {}",
                size.saturating_sub(1)
            );
            return Err(Error::invalid("max_foreign", max_foreign, rule));
        }
        Ok(())
    }

    /// DeepSeek's rule, except that one node is global: with one node both policies allow the same plans.
    #[must_use]
    pub fn policy(&self) -> Policy {
        if self.num_nodes > 1 && self.num_groups.is_multiple_of(self.num_nodes) {
            Policy::Hierarchical
        } else {
            Policy::Global
        }
    }

    /// Whether plans are judged by how tokens are dispatched: copies of an expert may be in any of several nodes.
    pub(crate) fn weighs_dispatch(&self) -> bool {
        self.num_nodes > 1 && self.policy() == Policy::Global
    }

    /// Replicas of one layer.
    #[must_use]
    pub fn num_replicas(&self) -> usize {
        self.num_replicas
    }

    /// Groups of experts that are routed together.
    #[must_use]
    pub fn num_groups(&self) -> usize {
        self.num_groups
    }

    /// Nodes.
    #[must_use]
    pub fn num_nodes(&self) -> usize {
        self.num_nodes
    }

    /// GPUs, all nodes together.
    #[must_use]
    pub fn num_gpus(&self) -> usize {
        self.num_gpus
    }

    /// Slots on a GPU.
    #[must_use]
    pub fn slots_per_gpu(&self) -> usize {
        self.slots_per_gpu
    }

    /// Slots of one layer, filled or free.
    #[must_use]
    pub fn num_slots(&self) -> usize {
        self.num_gpus * self.slots_per_gpu
    }

    /// Nodes the planner treats apart: `num_nodes` under the hierarchical policy, 1 under the global one.
    #[must_use]
    pub fn planned_nodes(&self) -> usize {
        if self.policy() == Policy::Hierarchical { self.num_nodes } else { 1 }
    }

    /// Groups the planner keeps whole: `num_groups` under the hierarchical policy, 1 under the global one.
    #[must_use]
    pub fn planned_groups(&self) -> usize {
        if self.policy() == Policy::Hierarchical { self.num_groups } else { 1 }
    }
}

fn check_slots_per_gpu(slots_per_gpu: usize) -> Result<(), Error> {
    if slots_per_gpu == 0 || slots_per_gpu > MAX_SLOTS_PER_GPU {
        let rule = format!("is not between 1 and {MAX_SLOTS_PER_GPU}");
        return Err(Error::invalid("slots_per_gpu", slots_per_gpu, rule));
    }
    Ok(())
}

fn check_counts(replicas: usize, groups: usize, nodes: usize, gpus: usize) -> Result<(), Error> {
    let fields =
        [("num_replicas", replicas), ("num_groups", groups), ("num_nodes", nodes), ("num_gpus", gpus)];
    for (field, value) in fields {
        if value == 0 || value > MAX_SLOTS {
            return Err(Error::invalid(field, value, format!("is not between 1 and {MAX_SLOTS}")));
        }
    }
    if !gpus.is_multiple_of(nodes) {
        return Err(Error::invalid("num_gpus", gpus, format!("is not a multiple of num_nodes {nodes}")));
    }
    Ok(())
}
