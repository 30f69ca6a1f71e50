//! Where tokens go: the load of each GPU, and what stays on the GPU and in the node that it comes from.

use std::fmt;
use std::str::FromStr;

use super::rules::{check_entries, check_length, filled};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::threads;

/// How the tokens of an expert are dealt to its replicas.
///
/// ```
/// use eplb_wgpu::Dispatch;
/// assert_eq!("nearest".parse::<Dispatch>()?, Dispatch::Nearest);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dispatch {
    /// Equally, wherever a token comes from: a replica carries `load / replicas`.
    #[default]
    Equal,
    /// To a replica on the token's own GPU; else to those in its own node, equally; else to all, equally.
    Nearest,
    /// To a replica on the token's own GPU. Every other GPU sends all its tokens of an expert to one replica: the GPUs
    /// are dealt to the replicas in turn (SGLang draws which replicas get one more).
    OwnGpu,
}

impl Dispatch {
    /// All of them.
    pub const ALL: [Dispatch; 3] = [Dispatch::Equal, Dispatch::Nearest, Dispatch::OwnGpu];

    /// `equal`, `nearest` or `own-gpu`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Dispatch::Equal => "equal",
            Dispatch::Nearest => "nearest",
            Dispatch::OwnGpu => "own-gpu",
        }
    }
}

impl fmt::Display for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dispatch {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|dispatch| dispatch.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Dispatch::name).join(", ");
            Error::invalid("dispatch", name, format!("is not one of {names}"))
        })
    }
}

/// Where the tokens of one layer go. Loads are in the unit of the given loads.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerTraffic {
    /// Load of the busiest GPU, over its speed as [`super::LayerQuality::max_gpu_load`].
    pub max_gpu_load: f64,
    /// Mean load of a GPU, as [`super::LayerQuality::mean_gpu_load`].
    pub mean_gpu_load: f64,
    /// Load that is served by the GPU that it comes from.
    pub on_gpu: f64,
    /// Load that is served in the node that it comes from, what stays on the GPU included.
    pub in_node: f64,
}

/// Where the tokens of a placement go under a dispatch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// How tokens are dealt.
    pub dispatch: Dispatch,
    /// Layer by layer.
    pub layers: Vec<LayerTraffic>,
    /// Load of each GPU, `[layers][gpus]`.
    pub gpu_loads: Vec<f64>,
    /// The sum of the GPUs' speeds.
    capacity: f64,
}

impl Traffic {
    /// Of no layers.
    pub(crate) fn none(dispatch: Dispatch) -> Self {
        Self { dispatch, layers: Vec::new(), gpu_loads: Vec::new(), capacity: 0.0 }
    }

    /// Sum over layers of the mean GPU load / sum over layers of the max GPU load: 1 is perfect. 1 where nothing has
    /// load.
    #[must_use]
    pub fn balancedness(&self) -> f64 {
        let most = self.sum(|layer| layer.max_gpu_load);
        if most > 0.0 { (self.sum(|layer| layer.mean_gpu_load) / most).min(1.0) } else { 1.0 }
    }

    /// The share of the load that is served by the GPU that it comes from; 0 where nothing has load.
    #[must_use]
    pub fn on_gpu(&self) -> f64 {
        self.share(self.sum(|layer| layer.on_gpu))
    }

    /// The share of the load that is served in the node that it comes from, what stays on the GPU included; 0 where
    /// nothing has load.
    #[must_use]
    pub fn in_node(&self) -> f64 {
        self.share(self.sum(|layer| layer.in_node))
    }

    fn sum(&self, of: impl Fn(&LayerTraffic) -> f64) -> f64 {
        self.layers.iter().map(of).sum()
    }

    fn share(&self, load: f64) -> f64 {
        let all = self.sum(|layer| layer.mean_gpu_load) * self.capacity;
        if all > 0.0 { (load / all).min(1.0) } else { 0.0 }
    }
}

/// Where the tokens of a placement go under a dispatch, where every GPU sends an equal part of every expert's load.
///
/// `physical_to_logical` is `[layers][slots]`: the expert of each slot, -1 where the slot is free. As for
/// [`super::gpu_loads`] the rows may break any other rule; an expert without a replica has no load.
///
/// # Errors
/// [`Error::Invalid`] where the length is not layers x slots, [`Error::InvalidPlan`] where an entry is neither an expert
/// nor -1.
///
/// ```
/// use eplb_wgpu::{Cluster, Dispatch, Loads, check};
/// // Two nodes of one GPU; expert 0 is in both.
/// let (loads, cluster) = (Loads::from_counts(1, 3, &[40, 12, 8])?, Cluster::new(4, 1, 2, 2)?);
/// let traffic = check::traffic(&loads, &cluster, &[0, 1, 0, 2], Dispatch::Nearest)?;
/// assert_eq!(traffic.gpu_loads, [32.0, 28.0]);
/// assert_eq!(traffic.in_node(), 50.0 / 60.0);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
pub fn traffic(
    loads: &Loads,
    cluster: &Cluster,
    physical_to_logical: &[i32],
    dispatch: Dispatch,
) -> Result<Traffic, Error> {
    check_length(loads, cluster, physical_to_logical)?;
    let each = 1.0 / cluster.num_gpus() as f64;
    of_layers(loads, cluster, physical_to_logical, dispatch, |layer, expert, held, flow| {
        let load = loads.layer(layer)[expert];
        match dispatch {
            Dispatch::OwnGpu => (0..cluster.num_gpus()).for_each(|gpu| flow.send(held, gpu, load * each)),
            _ => flow.send_evenly(held, load),
        }
    })
}

/// As [`traffic`], for the tokens that each GPU sends: `sources[gpu]` are the loads that come from that GPU.
///
/// # Errors
/// As for [`traffic`], and [`Error::Invalid`] where there are not as many sources as GPUs, or they are not of the same
/// layers and experts.
pub fn traffic_from(
    sources: &[Loads],
    cluster: &Cluster,
    physical_to_logical: &[i32],
    dispatch: Dispatch,
) -> Result<Traffic, Error> {
    let Some(first) = sources.first().filter(|_| sources.len() == cluster.num_gpus()) else {
        let rule = format!("is not num_gpus {}: one for each GPU is needed", cluster.num_gpus());
        return Err(Error::invalid("number of sources", sources.len(), rule));
    };
    let shape = |loads: &Loads| (loads.layers(), loads.experts());
    if let Some(gpu) = sources.iter().position(|source| shape(source) != shape(first)) {
        let rule = format!("is of other layers or experts than source 0, {:?}", shape(first));
        return Err(Error::invalid("source", gpu, rule));
    }
    check_length(first, cluster, physical_to_logical)?;
    of_layers(first, cluster, physical_to_logical, dispatch, |layer, expert, held, flow| {
        for (gpu, source) in sources.iter().enumerate() {
            flow.send(held, gpu, source.layer(layer)[expert]);
        }
    })
}

/// Has `send` send the load of every expert of every layer that has replicas.
fn of_layers(
    shape: &Loads,
    cluster: &Cluster,
    physical_to_logical: &[i32],
    dispatch: Dispatch,
    send: impl Fn(usize, usize, &ExpertReplicas, &mut Flow) + Sync,
) -> Result<Traffic, Error> {
    let (slots, gpus) = (cluster.num_slots(), cluster.num_gpus());
    let layers = threads::each(shape.layers(), |layer, (): &mut ()| {
        let row = &physical_to_logical[layer * slots..(layer + 1) * slots];
        check_entries(row, shape.experts()).map_err(|rule| Error::InvalidPlan { layer, rule })?;
        let mut holders = vec![vec![]; shape.experts()];
        filled(row).for_each(|(slot, expert)| holders[expert].push(slot / cluster.slots_per_gpu()));
        let mut flow = Flow { gpus: vec![0.0; gpus], on_gpu: 0.0, in_node: 0.0 };
        for (expert, holders) in holders.into_iter().enumerate().filter(|(_, gpus)| !gpus.is_empty()) {
            send(layer, expert, &ExpertReplicas::new(holders, expert, cluster, dispatch), &mut flow);
        }
        Ok(flow)
    });
    let mut traffic = Traffic { capacity: cluster.capacity(), ..Traffic::none(dispatch) };
    for flow in layers {
        let Flow { gpus: loads, on_gpu, in_node } = flow?;
        traffic.layers.push(LayerTraffic {
            max_gpu_load: heaviest(cluster, &loads),
            mean_gpu_load: loads.iter().sum::<f64>() / cluster.capacity(),
            on_gpu,
            in_node,
        });
        traffic.gpu_loads.extend(loads);
    }
    Ok(traffic)
}

/// The largest load over speed of a GPU with load.
fn heaviest(cluster: &Cluster, loads: &[f64]) -> f64 {
    let loaded = loads.iter().enumerate().filter(|(_, load)| **load > 0.0);
    loaded.map(|(gpu, load)| load / cluster.speed(gpu)).fold(0.0, f64::max)
}

/// The replicas of an expert.
struct ExpertReplicas {
    dispatch: Dispatch,
    /// The GPU of each, ascending.
    gpus: Vec<usize>,
    /// GPUs of a node, and of all nodes.
    node_gpus: usize,
    all_gpus: usize,
    /// Turns that the dealing of whole GPUs begins with, so that not the first replica of every expert gets one more.
    turn: usize,
}

impl ExpertReplicas {
    fn new(gpus: Vec<usize>, expert: usize, cluster: &Cluster, dispatch: Dispatch) -> Self {
        let all_gpus = cluster.num_gpus();
        Self { dispatch, gpus, node_gpus: all_gpus / cluster.num_nodes(), all_gpus, turn: expert }
    }

    /// The replicas on GPUs from `first` on, `gpus` of them.
    fn within(&self, first: usize, gpus: usize) -> &[usize] {
        let from = self.gpus.partition_point(|&gpu| gpu < first);
        let to = self.gpus.partition_point(|&gpu| gpu < first + gpus);
        &self.gpus[from..to]
    }

    /// The replicas on a GPU.
    fn on(&self, gpu: usize) -> &[usize] {
        self.within(gpu, 1)
    }

    /// The replicas in the node of a GPU.
    fn beside(&self, gpu: usize) -> &[usize] {
        self.within(gpu / self.node_gpus * self.node_gpus, self.node_gpus)
    }

    /// The replicas that serve the tokens of a GPU, equally.
    fn of_source(&self, gpu: usize) -> &[usize] {
        let (own, node, all) = (self.on(gpu), self.beside(gpu), &self.gpus[..]);
        match self.dispatch {
            Dispatch::Nearest if !own.is_empty() => own,
            Dispatch::Nearest if !node.is_empty() => node,
            Dispatch::OwnGpu if !own.is_empty() => own,
            Dispatch::OwnGpu => {
                let mut before: Vec<usize> = self.within(0, gpu).to_vec();
                before.dedup();
                let turn = (gpu - before.len() + self.turn) % all.len();
                &all[turn..turn + 1]
            }
            Dispatch::Equal | Dispatch::Nearest => all,
        }
    }
}

/// The tokens that are sent in a layer.
struct Flow {
    gpus: Vec<f64>,
    on_gpu: f64,
    in_node: f64,
}

impl Flow {
    /// A source GPU sends this load of an expert.
    fn send(&mut self, held: &ExpertReplicas, source: usize, load: f64) {
        let to = held.of_source(source);
        let each = load / to.len() as f64;
        let node = source / held.node_gpus;
        for &gpu in to {
            self.gpus[gpu] += each;
            self.on_gpu += if gpu == source { each } else { 0.0 };
            self.in_node += if gpu / held.node_gpus == node { each } else { 0.0 };
        }
    }

    /// All GPUs send an equal part of this load, which is then served equally by all replicas, or by the nearest ones.
    fn send_evenly(&mut self, held: &ExpertReplicas, load: f64) {
        let ExpertReplicas { gpus, node_gpus, all_gpus, .. } = held;
        let (source, node) = (load / *all_gpus as f64, load * *node_gpus as f64 / *all_gpus as f64);
        let each = 1.0 / gpus.len() as f64;
        if held.dispatch == Dispatch::Equal {
            gpus.iter().for_each(|&gpu| self.gpus[gpu] += load * each);
            (self.on_gpu, self.in_node) = (self.on_gpu + source, self.in_node + node);
            return;
        }
        let is_first = |at: &usize, size: usize| *at == 0 || gpus[*at] / size != gpus[*at - 1] / size;
        let nodes = (0..gpus.len()).filter(|at| is_first(at, *node_gpus)).count();
        let far = node * (all_gpus / node_gpus - nodes) as f64;
        for (at, &gpu) in gpus.iter().enumerate() {
            let beside = held.beside(gpu);
            let holders = (0..beside.len()).filter(|&at| at == 0 || beside[at] != beside[at - 1]).count();
            let near = source * (node_gpus - holders) as f64 / beside.len() as f64;
            self.gpus[gpu] += source / held.on(gpu).len() as f64 + near + far * each;
            self.on_gpu += if is_first(&at, 1) { source } else { 0.0 };
            self.in_node += if is_first(&at, *node_gpus) { node } else { 0.0 };
        }
    }
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
