//! The data of a page: loads, plans, and the placements that the plans are compared with.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::page::Tile;
use crate::check::{self, Quality};
use crate::cli::{FilePart, MapForm, mean_and_most, percent, words};
use crate::maps::MapFile;
use crate::trace::{LoadHistory, PlanFile};
use crate::{
    Cluster, DeviceChoice, Dispatch, Error, Loads, ParseError, Planner, Preset, PreviousMap, bound, moves,
};

/// The moves of one layer from one plan to the next.
pub struct Transfers {
    /// Slots whose GPU receives an expert that it does not hold.
    pub slots: usize,
    /// Those whose expert comes from another node.
    pub between_nodes: usize,
    /// Rounds in which a GPU exchanges experts with at most one other.
    pub rounds: usize,
    /// Experts that no GPU which is left holds.
    pub lost: usize,
}

impl Transfers {
    fn of(cluster: &Cluster, old: &[i32], new: &[i32]) -> Self {
        let (slots, node_gpus) = (cluster.slots_per_gpu(), cluster.num_gpus() / cluster.num_nodes());
        let (rounds, between_nodes) = moves::transfers(slots, node_gpus, old, new);
        let lost: BTreeSet<i32> = new.iter().filter(|e| **e >= 0 && !old.contains(e)).copied().collect();
        Self { slots: moves::received(slots, old, new), between_nodes, rounds, lost: lost.len() }
    }
}

/// GPUs that are not gone.
#[derive(Clone, PartialEq)]
pub struct Present {
    pub cluster: Cluster,
    gone: Vec<usize>,
    /// Their numbers among all.
    ids: Vec<usize>,
}

impl Present {
    fn of(all: &Cluster) -> Result<Self, Error> {
        let gone = all.gone_gpus();
        let cluster = if gone.is_empty() { all.clone() } else { all.of_remaining()? };
        let ids = (0..all.num_gpus()).filter(|gpu| !gone.contains(gpu)).collect();
        Ok(Self { cluster, gone, ids })
    }

    /// The map of all GPUs on these.
    fn part(&self, map: &[i32]) -> Result<Vec<i32>, Error> {
        let slots = self.cluster.slots_per_gpu();
        let all = PreviousMap::new((self.ids.len() + self.gone.len()) * slots, map.to_vec())?;
        let rest = all.with_slots_per_gpu(slots)?.without_gpus(&self.gone)?;
        Ok(rest.physical_to_logical().to_vec())
    }

    /// The layers and the cluster in words, and the GPUs that are gone.
    fn said(&self, loads: &Loads) -> String {
        let (cluster, nodes) = (&self.cluster, self.cluster.num_nodes());
        format!(
            "{} layers of {} experts; {} replicas on {} GPUs, {} slots each, in {nodes} {}; {}.{}",
            loads.layers(),
            loads.experts(),
            cluster.num_replicas(),
            cluster.num_gpus(),
            cluster.slots_per_gpu(),
            if nodes == 1 { "node" } else { "nodes" },
            cluster.policy().name(),
            match self.gone.as_slice() {
                [] => String::new(),
                [gpu] => format!(" GPU {gpu} is gone, and not shown."),
                gpus => format!(" GPUs {} are gone, and not shown.", listed(gpus)),
            }
        )
    }

    /// Whether they are not numbered from 0 on.
    pub fn have_gaps(&self) -> bool {
        self.ids.iter().enumerate().any(|(at, gpu)| at != *gpu)
    }

    /// The number that a GPU has among all.
    pub fn name(&self, gpu: usize) -> String {
        self.ids.get(gpu).unwrap_or(&gpu).to_string()
    }
}

/// Whether two plans can be those of one cluster, of which GPUs may have gone in between, or come back.
fn is_same(a: &Cluster, b: &Cluster) -> bool {
    let alike = (a.num_gpus(), a.slots_per_gpu()) == (b.num_gpus(), b.slots_per_gpu());
    a == b || (alike && a.gone_gpus() != b.gone_gpus())
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

/// The files of a page.
fn sources(loads: &Path, plans: &[PathBuf], last: Option<&PlanFile>) -> String {
    let plans: Vec<String> = plans.iter().map(|path| path.display().to_string()).collect();
    let fingerprint = last.map_or(String::new(), |plan| {
        format!(" Fingerprint of the last: {:016x}.", plan.placement.fingerprint())
    });
    format!("Loads: {}. Plans, in order of time: {}.{fingerprint}", loads.display(), plans.join(", "))
}

/// The GPUs of a plan, which have to be those of the last one but for GPUs that are gone, and its loads these.
fn checked(path: &Path, file: &MapFile, last: &Cluster, loads: &Loads) -> Result<Present, Error> {
    let own = file.plan().map_or(last, |plan| &plan.cluster);
    own.check_equal_or_gone("a page", "eplb check tells of this plan")?;
    if !is_same(own, last) {
        let reason = format!("its {} are not those of the last plan, {}", said(own), said(last));
        return Err(Error::parse(path, ParseError::content(reason)));
    }
    file.score(loads, own).map_err(|error| of_file(path, &error))?;
    Present::of(own)
}

/// One placement.
pub struct View {
    pub name: String,
    /// The class of its lines.
    pub class: &'static str,
    /// Whether it ran before the previous plan: it has lines, and no maps.
    pub is_old: bool,
    /// The GPUs that it has.
    pub on: Present,
    /// `[layers][slots]`
    pub map: Vec<i32>,
    /// `[layers][gpus]`
    pub gpus: Vec<f64>,
}

impl View {
    fn new(
        loads: &Loads,
        name: String,
        class: &'static str,
        on: &Present,
        map: Vec<i32>,
    ) -> Result<Self, Error> {
        let gpus = check::gpu_loads(loads, &on.cluster, &map)?;
        Ok(Self { name, class, is_old: class == OLD, on: on.clone(), gpus, map })
    }
}

/// The class of plans before the previous one.
const OLD: &str = "s4";

/// The trivial placement and greedy's on these GPUs, and the plans in order of time, each on its own.
fn views<'a>(
    loads: &Loads,
    on: &Present,
    plans: impl ExactSizeIterator<Item = (&'a MapFile, &'a Present)>,
) -> Result<Vec<View>, Error> {
    let greedy = Planner::new(DeviceChoice::Cpu)?.plan(loads, &on.cluster, &Preset::GREEDY.options())?;
    let mut views = vec![
        View::new(loads, "trivial".into(), "s0", on, trivial(loads, &on.cluster))?,
        View::new(loads, "greedy".into(), "s1", on, greedy.physical_to_logical().to_vec())?,
    ];
    let count = plans.len();
    for (at, (plan, own)) in plans.enumerate() {
        let (name, class) = match count - 1 - at {
            0 => ("plan".to_string(), "s3"),
            1 => ("previous plan".to_string(), "s2"),
            n => (format!("{n} plans before"), OLD),
        };
        views.push(View::new(loads, name, class, own, own.part(plan.physical_to_logical())?)?);
    }
    Ok(views)
}

pub struct Facts {
    pub history: LoadHistory,
    pub loads: Loads,
    /// Of the GPUs that the plan has.
    pub cluster: Cluster,
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
        part: &FilePart,
        plans: &[PathBuf],
        form: &MapForm,
        expert_bytes: u64,
    ) -> Result<Self, Error> {
        let history = part.history(loads)?;
        let path = loads;
        let loads = history.loads(part.window)?;
        let read = |path: &PathBuf| read_map(form, path, loads.layer_ids());
        let files = plans.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
        let cluster = form.cluster(&files)?;
        let Some(last) = files.last() else {
            return Err(Error::invalid("PLAN", "(none)", "is needed"));
        };
        let on = Present::of(&cluster)?;
        let earlier: Vec<Present> = plans
            .iter()
            .zip(&files)
            .map(|(path, file)| checked(path, file, &cluster, &loads))
            .collect::<Result<_, Error>>()?;
        let views = views(&loads, &on, files.iter().zip(&earlier))?;
        let quality = last.score(&loads, &cluster)?.with_bounds(&bound::lower_bounds(&loads, &on.cluster));
        let transfers = match files.as_slice() {
            [.., old, new] => {
                let (old, new) = (on.part(old.physical_to_logical())?, on.part(new.physical_to_logical())?);
                let slots = on.cluster.num_slots();
                let rows = old.chunks(slots).zip(new.chunks(slots));
                Some(rows.map(|(old, new)| Transfers::of(&on.cluster, old, new)).collect())
            }
            _ => None,
        };
        let others = earlier.iter().any(|own| own.ids != on.ids);
        let lead = vec![
            on.said(&loads) + if others { " Earlier plans are shown on the GPUs that they had." } else { "" },
            sources(path, plans, last.plan()),
        ];
        let cluster = on.cluster;
        Ok(Self { history, loads, cluster, views, quality, transfers, expert_bytes, lead })
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
        let gpus = view.on.cluster.num_gpus();
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

    /// The number that a GPU of the plan has among all.
    pub fn gpu_name(&self, gpu: usize) -> String {
        self.views.last().map_or(gpu.to_string(), |plan| plan.on.name(gpu))
    }

    /// Where an expert of a layer lives in the plan, GPU by GPU, in order.
    pub fn homes(&self, layer: usize, expert: usize) -> Vec<usize> {
        let slots = self.cluster.num_slots();
        let Some(plan) = self.views.last() else { return Vec::new() };
        let row = plan.map[layer * slots..(layer + 1) * slots].iter().enumerate();
        let here = row.filter(|(_, held)| usize::try_from(**held) == Ok(expert));
        here.map(|(slot, _)| slot / self.cluster.slots_per_gpu()).collect()
    }

    /// The tokens that stay in their node, where there are several.
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
