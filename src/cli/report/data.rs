//! What a page is about: loads, plans, and what the plans are compared with.

use std::path::{Path, PathBuf};

use super::page::Tile;
use crate::check::{self, Quality};
use crate::cli::{MapForm, Part, mean_and_most, percent, words};
use crate::maps::MapFile;
use crate::trace::{LoadHistory, PlanFile};
use crate::{
    Cluster, DeviceChoice, Dispatch, Error, Loads, ParseError, Planner, Preset, PreviousMap, bound, moves,
};

/// What moves in one layer from one plan to the next.
pub struct Transfers {
    /// Slots whose GPU receives an expert that it does not hold.
    pub slots: usize,
    /// Those whose expert comes from another node.
    pub between_nodes: usize,
    /// Rounds in which a GPU exchanges experts with at most one other.
    pub rounds: usize,
}

impl Transfers {
    fn of(cluster: &Cluster, old: &[i32], new: &[i32]) -> Self {
        let (slots, node_gpus) = (cluster.slots_per_gpu(), cluster.num_gpus() / cluster.num_nodes());
        let (rounds, between_nodes) = moves::transfers(slots, node_gpus, old, new);
        Self { slots: moves::received(slots, old, new), between_nodes, rounds }
    }
}

/// The numbers of a cluster.
fn said(cluster: &Cluster) -> String {
    let (replicas, gpus) = (cluster.num_replicas(), cluster.num_gpus());
    let (nodes, groups) = (cluster.num_nodes(), cluster.num_groups());
    let speeds = match cluster.gone_gpus().as_slice() {
        [] if cluster.has_equal_speeds() => String::new(),
        [] => " of unequal speed".into(),
        gone => format!(" (gone: {})", listed(gone)),
    };
    format!("{replicas} replicas, {gpus} GPUs{speeds}, {nodes} nodes, {groups} groups")
}

fn listed(gpus: &[usize]) -> String {
    gpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// One placement.
pub struct View {
    pub name: String,
    /// The class of its lines.
    pub class: &'static str,
    /// Whether it ran before the previous plan: it has lines, and no maps.
    pub is_old: bool,
    /// `[layers][slots]`
    pub map: Vec<i32>,
    /// `[layers][gpus]`
    pub gpus: Vec<f64>,
}

/// The class of plans before the previous one.
const OLD: &str = "s4";

pub struct Facts {
    pub history: LoadHistory,
    pub loads: Loads,
    /// Of the GPUs that are not gone.
    pub cluster: Cluster,
    /// The numbers of these GPUs among all.
    gpu_ids: Vec<usize>,
    /// The trivial placement, the greedy one, that of earlier plans, and last that of the plan.
    pub views: Vec<View>,
    /// Of the plan, with bounds.
    pub quality: Quality,
    /// From the plan before, where there is one, `[layers]`.
    pub transfers: Option<Vec<Transfers>>,
    pub expert_bytes: u64,
    lead: Vec<String>,
}

/// An error about the map of a file.
fn of_file(path: &Path, error: &Error) -> Error {
    Error::parse(path, ParseError::content(words::of_error(error)))
}

/// The map of a file, of these layers.
fn read_map(form: &MapForm, path: &Path, layers: &[u32]) -> Result<MapFile, Error> {
    words::of_loads(&form.read(path)?, layers).map_err(|error| of_file(path, &error))
}

impl Facts {
    pub fn gather(
        loads: &Path,
        part: &Part,
        plans: &[PathBuf],
        form: &MapForm,
        expert_bytes: u64,
    ) -> Result<Self, Error> {
        let history = part.history(loads)?;
        let file = loads.display().to_string();
        let loads = history.loads(part.window)?;
        let read = |path: &PathBuf| read_map(form, path, loads.layer_ids());
        let files = plans.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        let cluster = form.cluster(&files)?;
        cluster.check_equal_or_gone("a page", "eplb check tells of this plan")?;
        let all_gpus = cluster;
        let gone = all_gpus.gone_gpus();
        let cluster = if gone.is_empty() { all_gpus.clone() } else { all_gpus.of_remaining()? };
        let of_remaining = |map: &[i32]| -> Result<Vec<i32>, Error> {
            let all = PreviousMap::new(all_gpus.num_slots(), map.to_vec())?;
            let rest = all.with_slots_per_gpu(all_gpus.slots_per_gpu())?.without_gpus(&gone)?;
            Ok(rest.physical_to_logical().to_vec())
        };
        let Some(last) = files.last() else {
            return Err(Error::invalid("PLAN", "(none)", "is needed"));
        };
        for (path, file) in plans.iter().zip(&files) {
            let other = file.plan().filter(|plan| plan.cluster != all_gpus);
            if let Some(PlanFile { cluster: other, .. }) = other {
                let reason =
                    format!("its {} are not those of the last plan, {}", said(other), said(&all_gpus));
                return Err(Error::parse(path, ParseError::content(reason)));
            }
            file.score(&loads, &all_gpus).map_err(|error| of_file(path, &error))?;
        }
        let view = |name: String, class, map: Vec<i32>| {
            let gpus = check::gpu_loads(&loads, &cluster, &map)?;
            Ok::<_, Error>(View { name, class, is_old: class == OLD, gpus, map })
        };
        let greedy = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &Preset::GREEDY.options())?;
        let mut views = vec![
            view("trivial".into(), "s0", trivial(&loads, &cluster))?,
            view("greedy".into(), "s1", greedy.physical_to_logical().to_vec())?,
        ];
        let before = files.len() - 1;
        for (at, plan) in files.iter().enumerate() {
            let (name, class) = match before - at {
                0 => ("plan".to_string(), "s3"),
                1 => ("previous plan".to_string(), "s2"),
                n => (format!("{n} plans before"), OLD),
            };
            views.push(view(name, class, of_remaining(plan.physical_to_logical())?)?);
        }
        let quality = last.score(&loads, &all_gpus)?.with_bounds(&bound::lower_bounds(&loads, &cluster));
        let slots = cluster.num_slots();
        let transfers = (before > 0).then(|| {
            let [.., old, new] = views.as_slice() else { return Vec::new() };
            let rows = old.map.chunks(slots).zip(new.map.chunks(slots));
            rows.map(|(old, new)| Transfers::of(&cluster, old, new)).collect()
        });
        let shown: Vec<String> = plans.iter().map(|path| path.display().to_string()).collect();
        let lead = vec![
            format!(
                "{} layers of {} experts; {} replicas on {} GPUs, {} slots each, in {} {}; {}.{}",
                loads.layers(),
                loads.experts(),
                cluster.num_replicas(),
                cluster.num_gpus(),
                cluster.slots_per_gpu(),
                cluster.num_nodes(),
                if cluster.num_nodes() == 1 { "node" } else { "nodes" },
                cluster.policy().name(),
                match gone.as_slice() {
                    [] => String::new(),
                    [gpu] => format!(" GPU {gpu} is gone, and not shown."),
                    gpus => format!(" GPUs {} are gone, and not shown.", listed(gpus)),
                }
            ),
            format!(
                "Loads: {file}. Plans, in order of time: {}.{}",
                shown.join(", "),
                last.plan().map_or(String::new(), |plan| {
                    format!(" Fingerprint of the last: {:016x}.", plan.placement.fingerprint())
                })
            ),
        ];
        let gpu_ids = (0..all_gpus.num_gpus()).filter(|gpu| !gone.contains(gpu)).collect();
        Ok(Self { history, loads, cluster, gpu_ids, views, quality, transfers, expert_bytes, lead })
    }

    /// Whether GPUs are gone, so that the others are not numbered from 0 on.
    pub fn has_gone_gpus(&self) -> bool {
        self.gpu_ids.iter().enumerate().any(|(at, gpu)| at != *gpu)
    }

    /// The number that a GPU has among all, those that are gone too.
    pub fn gpu_name(&self, gpu: usize) -> String {
        self.gpu_ids.get(gpu).unwrap_or(&gpu).to_string()
    }

    pub fn lead(&self) -> Vec<String> {
        self.lead.clone()
    }

    pub fn layers(&self) -> usize {
        self.loads.layers()
    }

    /// The number that a layer has in the model.
    pub fn layer_name(&self, layer: usize) -> String {
        self.loads.layer_ids()[layer].to_string()
    }

    /// The GPUs of a layer.
    pub fn gpus<'a>(&self, view: &'a View, layer: usize) -> &'a [f64] {
        let gpus = self.cluster.num_gpus();
        &view.gpus[layer * gpus..(layer + 1) * gpus]
    }

    /// Mean over largest load of a layer's GPUs; none without load.
    pub fn balance(&self, view: &View, layer: usize) -> Option<f64> {
        let (mean, most) = mean_and_most(self.gpus(view, layer));
        (most > 0.0).then(|| (mean / most).min(1.0))
    }

    /// [`Quality::balancedness`] of a placement, which need not be valid.
    pub fn balancedness(&self, view: &View) -> f64 {
        let sums = (0..self.layers()).map(|layer| mean_and_most(self.gpus(view, layer)));
        let (means, most) = sums.fold((0.0, 0.0), |sum, (mean, most)| (sum.0 + mean, sum.1 + most));
        if most > 0.0 { (means / most).min(1.0) } else { 1.0 }
    }

    /// The layer in which the plan's heaviest GPU is furthest above the mean.
    pub fn hardest_layer(&self) -> usize {
        let balance =
            |layer: usize| self.views.last().and_then(|plan| self.balance(plan, layer)).unwrap_or(1.0);
        let worse = |a: usize, b: usize| if balance(b) < balance(a) { b } else { a };
        (0..self.layers()).reduce(worse).unwrap_or(0)
    }

    /// Experts of a layer, the hottest first.
    pub fn hottest(&self, layer: usize) -> Vec<usize> {
        let row = self.loads.layer(layer);
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
        order
    }

    /// The part of a layer's load that an expert has.
    pub fn share(&self, layer: usize, expert: usize) -> f64 {
        let row = self.loads.layer(layer);
        let sum: f64 = row.iter().sum();
        if sum > 0.0 { row[expert] / sum } else { 0.0 }
    }

    /// Where an expert of a layer lives in the plan, GPU by GPU, in order.
    pub fn homes(&self, layer: usize, expert: usize) -> Vec<usize> {
        let slots = self.cluster.num_slots();
        let Some(plan) = self.views.last() else { return Vec::new() };
        let row = plan.map[layer * slots..(layer + 1) * slots].iter().enumerate();
        let here = row.filter(|(_, held)| usize::try_from(**held) == Ok(expert));
        here.map(|(slot, _)| slot / self.cluster.slots_per_gpu()).collect()
    }

    /// What stays in its node, where there are several.
    fn traffic(&self, view: &View) -> Option<Tile> {
        let told = |dispatch| check::traffic(&self.loads, &self.cluster, &view.map, dispatch).ok();
        let nearest = told(Dispatch::Nearest).filter(|_| self.cluster.num_nodes() > 1)?;
        let text = format!(
            "of tokens, {} on their GPU, where the nearest replica serves them; balancedness is then {:.4}",
            percent(nearest.on_gpu()),
            nearest.balancedness()
        );
        Some(("in their node", percent(nearest.in_node()), text))
    }

    pub fn tiles(&self) -> Vec<Tile> {
        let [trivial, greedy, .., plan] = self.views.as_slice() else { return Vec::new() };
        let number = |view: &View| format!("{:.4}", self.balancedness(view));
        let before = self.transfers.as_ref().and_then(|_| self.views.iter().rev().nth(1));
        let before = before.map_or(String::new(), |view| format!("previous plan {}, ", number(view)));
        let mut tiles: Vec<Tile> = vec![
            (
                "balancedness",
                number(plan),
                format!("{before}trivial {}, greedy {}; 1 is even", number(trivial), number(greedy)),
            ),
            (
                "above the bound",
                percent(self.quality.mean_gap()),
                format!("mean over layers; worst {}", percent(self.quality.worst_gap())),
            ),
            (
                "heaviest GPU over mean",
                format!("{:.4}", self.quality.max_over_mean()),
                "in the worst layer".to_string(),
            ),
        ];
        tiles.extend(self.traffic(plan));
        if let Some(layers) = &self.transfers {
            let slots: usize = layers.iter().map(|layer| layer.slots).sum();
            let rounds: usize = layers.iter().map(|layer| layer.rounds).sum();
            let bytes = match self.expert_bytes {
                0 => String::new(),
                bytes => format!(", {}", bytes_text(slots as u128 * u128::from(bytes))),
            };
            let all = self.layers() * self.cluster.num_slots();
            tiles.push(("slots that move", slots.to_string(), format!("of {all}{bytes}; {rounds} rounds")));
        }
        tiles
    }
}

/// Expert after expert, then the first ones again, over all GPUs as even as can be: what runs before any plan.
pub fn trivial(loads: &Loads, cluster: &Cluster) -> Vec<i32> {
    let (gpus, slots, replicas) = (cluster.num_gpus(), cluster.slots_per_gpu(), cluster.num_replicas());
    let row: Vec<i32> = (0..gpus)
        .flat_map(|gpu| {
            let mine = gpu * replicas / gpus..(gpu + 1) * replicas / gpus;
            let mine = mine.map(|replica| (replica % loads.experts()) as i32);
            mine.chain(std::iter::repeat(-1)).take(slots)
        })
        .collect();
    row.repeat(loads.layers())
}

/// Bytes in a unit that people read.
pub fn bytes_text(bytes: u128) -> String {
    let units = [(1u128 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}
