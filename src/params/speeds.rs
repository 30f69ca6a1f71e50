//! GPUs of unequal speed: what a load counts on each.
//!
//! A load counts divided by the speed of its GPU. So that this is whole, and fits where loads fit, it is relative to the
//! slowest GPU: there a load counts as it is, and less on any other. Each replica is rounded down on its own, so that what a
//! GPU carries is a sum; [`over_speed`] alone does it.

use super::Params;
use crate::check::Dispatch;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::options::{GroupRule, PlanOptions, Search};

/// A factor of 1, the largest.
const ONE: u64 = 1 << 31;

/// See [`Params::pulls`].
pub const PULL_BITS: u32 = 16;

/// Load over speed, by the factor of a GPU or node.
#[inline(always)]
pub fn over_speed(load: u32, factor: u32) -> u32 {
    (u64::from(load) * u64::from(factor) / ONE) as u32
}

/// The factors of GPUs, and of nodes as a whole, which are equal where speeds are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Factors {
    /// Of each GPU, node after node; empty where all are equally fast.
    pub gpus: Vec<u32>,
    /// Of each planned node; empty where all GPUs are equally fast.
    pub nodes: Vec<u32>,
    /// Of all GPUs together.
    pub all: u32,
}

impl Factors {
    /// Those of a cluster without GPUs that are gone.
    fn new(cluster: &Cluster) -> Self {
        let speeds = cluster.speed_parts();
        let slowest = speeds.iter().copied().min().map_or(0, u64::from);
        let factor = |speed: u64| (slowest * ONE / speed.max(1)) as u32;
        let node = |speeds: &[u32]| factor(speeds.iter().map(|&speed| u64::from(speed)).sum());
        let node_gpus = cluster.num_gpus() / cluster.planned_nodes();
        Self {
            gpus: speeds.iter().map(|&speed| factor(speed.into())).collect(),
            nodes: speeds.chunks(node_gpus).map(node).collect(),
            all: node(speeds),
        }
    }

    /// Those of a cluster, where the options know of unequal speeds.
    ///
    /// # Errors
    /// [`Error::Invalid`] where they do not, or a GPU is gone.
    pub fn checked(cluster: &Cluster, options: &PlanOptions) -> Result<Self, Error> {
        if let Some(gpu) = cluster.gone_gpus().first() {
            let rule = format!("of GPU {gpu} is of one that is gone: plan for the GPUs that remain");
            return Err(Error::invalid("gpu_speeds", 0, rule));
        }
        let lineage = matches!(&options.search, Search::Descent(_))
            || options.groups == GroupRule::LptVariance
            || options.repair;
        let presets = "take the preset default, fast, thorough or gen00";
        for (is_asked, what, would_do) in [
            (lineage, "a rule of earlier programs (preset)", presets),
            (options.max_foreign > 0, "max_foreign", "give max_foreign 0"),
            (options.connected, "connected", "leave it out"),
            (options.dispatch != Dispatch::Equal, "a dispatch other than equal", "take the dispatch equal"),
        ] {
            if is_asked {
                cluster.check_equal_speeds(what, would_do)?;
            }
        }
        Ok(Self::new(cluster))
    }
}

impl Params {
    /// Whether GPUs are of unequal speed.
    pub fn has_speeds(&self) -> bool {
        !self.factors.gpus.is_empty()
    }

    /// A load as it counts on a GPU.
    #[inline(always)]
    pub fn on_gpu(&self, load: u32, gpu: usize) -> u32 {
        self.factors.gpus.get(gpu).map_or(load, |&factor| over_speed(load, factor))
    }

    /// The mean GPU where all of them carry this load, all nodes together.
    pub fn mean_gpu(&self, load: u32) -> u32 {
        match self.has_speeds() {
            true => over_speed(load, self.factors.all),
            false => load / (self.node_gpus * self.nodes),
        }
    }

    /// The mean GPU of a node that carries this load, rounded down.
    pub fn node_gpu(&self, load: i32, node: usize) -> i32 {
        match self.factors.nodes.get(node) {
            Some(&factor) => over_speed(load as u32, factor) as i32,
            None => load / self.node_gpus as i32,
        }
    }

    /// The speed of each GPU over the mean one's, in 1 / 2^[`PULL_BITS`]; empty where all are equally fast. What a GPU is
    /// above the mean pulls as strongly on its load, whatever its speed, where its square counts this often.
    pub fn pulls(&self) -> impl Iterator<Item = i32> + '_ {
        let gpus = u64::from(self.node_gpus) * u64::from(self.nodes);
        // Of a factor that is `slowest / speed`, and of `slowest / all speeds`.
        let pull = move |&factor: &u32| {
            (((u64::from(self.factors.all) * gpus) << PULL_BITS) / u64::from(factor.max(1))) as i32
        };
        self.factors.gpus.iter().map(pull)
    }

    /// The load that counts this much on a GPU, about.
    pub fn at_speed(&self, counts: i64, gpu: usize) -> i64 {
        self.factors.gpus.get(gpu).map_or(counts, |&factor| counts * ONE as i64 / i64::from(factor.max(1)))
    }

    /// A load as it counts on the fastest GPU of a node.
    pub fn on_fastest(&self, load: u32, node: usize) -> u32 {
        let of_node = self.factors.gpus.chunks_exact(self.node_gpus as usize).nth(node);
        of_node.and_then(|gpus| gpus.iter().min()).map_or(load, |&factor| over_speed(load, factor))
    }

    /// The mean GPU of a node that carries this load: what none of its placements goes below.
    pub fn node_mean(&self, load: u32, node: usize) -> u32 {
        self.factors.nodes.get(node).map_or(load.div_ceil(self.node_gpus), |&factor| over_speed(load, factor))
    }

    /// The numbers of one of the nodes alone, where GPUs are of unequal speed.
    pub fn of_node(&self, node: usize) -> Self {
        let gpus = self.node_gpus as usize;
        let factors = Factors {
            gpus: self.factors.gpus[node * gpus..(node + 1) * gpus].to_vec(),
            nodes: vec![self.factors.nodes[node]],
            all: self.factors.nodes[node],
        };
        Self { factors, ..self.clone() }
    }

    /// The numbers of some GPUs of a node that are equally fast, taken as a node of their own, with these experts and
    /// replicas.
    pub fn of_equal(&self, gpus: u32, (experts, replicas): (u32, u32)) -> Self {
        Self {
            max_count: if self.avoid_duplicates { self.max_count.min(gpus) } else { self.max_count },
            factors: Factors::default(),
            ..self.one_node(gpus, (experts, replicas))
        }
    }
}
