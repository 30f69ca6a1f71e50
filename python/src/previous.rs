//! Any map as one to start from. The planner starts from maps that are valid for the cluster; what an engine hands
//! over need not be: slots come and go with GPUs, and the map that a server starts with has groups across nodes.
//! What can stay stays. This is the one place that mends maps, until the core starts from any by itself.

use std::cmp::Reverse;

use eplb_wgpu::{Cluster, Loads};

use crate::loads::fixed;

/// A layer of a map, mended.
pub struct Layer {
    /// The map as given, in the cluster's slots: -1 where it has no slot or no expert of this model there.
    pub old: Vec<i32>,
    /// A valid row that keeps of it what can stay.
    pub row: Vec<i32>,
    /// Experts that the map does not hold.
    pub lost: Vec<usize>,
    /// Whether replicas were given up because groups were across nodes.
    pub apart: bool,
}

impl Layer {
    /// Slots of the mended row whose GPU receives an expert.
    pub fn repairs(&self, cluster: &Cluster) -> usize {
        received(cluster, &self.old, &self.row)
    }
}

/// Every layer of a map `[layers][columns]`, mended for the cluster. Columns beyond the cluster's slots are GPUs that
/// are gone, and those that lack are new.
pub fn fit(
    loads: &Loads,
    cluster: &Cluster,
    map: &[i64],
    columns: usize,
    avoid_duplicates: bool,
) -> Vec<Layer> {
    let (slots, experts) = (cluster.num_slots(), loads.experts());
    let layer = |(layer, given): (usize, &[i64])| {
        let expert = |id: i64| i32::try_from(id).ok().filter(|&e| e >= 0 && (e as usize) < experts);
        let held = given.iter().map(|&id| expert(id).unwrap_or(-1));
        let old: Vec<i32> = held.chain(std::iter::repeat(-1)).take(slots).collect();
        let lost = (0..experts).filter(|&e| !old.contains(&(e as i32))).collect();
        let (row, apart) = mend(&fixed(loads, layer), cluster, &old, avoid_duplicates);
        Layer { old, row, lost, apart }
    };
    map.chunks_exact(columns.max(1)).take(loads.layers()).enumerate().map(layer).collect()
}

/// Slots whose GPU receives an expert that it did not hold.
pub fn received(cluster: &Cluster, old: &[i32], new: &[i32]) -> usize {
    let per_gpu = cluster.slots_per_gpu();
    let gpus = old.chunks_exact(per_gpu).zip(new.chunks_exact(per_gpu));
    gpus.map(|(old, new)| {
        let mut old = old.to_vec();
        let kept = |e: &&i32| match old.iter().position(|held| held == *e) {
            Some(at) => {
                old.swap_remove(at);
                true
            }
            None => false,
        };
        let filled = new.iter().filter(|&&e| e >= 0);
        filled.clone().count() - filled.filter(kept).count()
    })
    .sum()
}

/// `new` with every replica that its GPU held before in the slot it had.
pub fn in_place(old: &[i32], new: &[i32], per_gpu: usize) -> Vec<i32> {
    let mut out = Vec::with_capacity(new.len());
    for (old, new) in old.chunks_exact(per_gpu).zip(new.chunks_exact(per_gpu)) {
        let mut rest = new.to_vec();
        let mut take = |held: &i32| {
            let at = rest.iter().position(|e| e == held && *e >= 0)?;
            Some(rest.remove(at))
        };
        let kept: Vec<Option<i32>> = old.iter().map(&mut take).collect();
        let mut rest = rest.into_iter();
        out.extend(kept.into_iter().map(|slot| slot.or_else(|| rest.next()).unwrap_or(-1)));
    }
    out
}

/// A valid row from an old one, and whether groups were across nodes.
fn mend(loads: &[u32], cluster: &Cluster, old: &[i32], avoid_duplicates: bool) -> (Vec<i32>, bool) {
    let nodes = cluster.planned_nodes();
    let node_slots = old.len() / nodes;
    let home = homes(loads.len(), cluster, old);
    let group_size = loads.len() / cluster.planned_groups();
    let mut row = old.to_vec();
    for (slot, held) in row.iter_mut().enumerate() {
        if usize::try_from(*held).is_ok_and(|e| home[e / group_size] != slot / node_slots) {
            *held = -1;
        }
    }
    let apart = row != old;
    let wanted = cluster.num_replicas() / nodes;
    for (node, slots) in row.chunks_exact_mut(node_slots).enumerate() {
        let experts: Vec<usize> = (0..loads.len()).filter(|&e| home[e / group_size] == node).collect();
        // Every GPU may hold an expert once, so that they suffice where this many replicas fit.
        let room = experts.len() * (cluster.num_gpus() / nodes);
        let mut node = Node {
            loads,
            per_gpu: cluster.slots_per_gpu(),
            avoid: avoid_duplicates && room >= wanted,
            counts: vec![0; loads.len()],
            slots,
        };
        node.count();
        node.fill(&experts, wanted);
    }
    // What was given up and came back takes the slot it had.
    (in_place(old, &row, cluster.slots_per_gpu()), apart)
}

/// The node of each group: the one that holds most of it, largest holdings first, while there is room.
fn homes(experts: usize, cluster: &Cluster, old: &[i32]) -> Vec<usize> {
    let (groups, nodes) = (cluster.planned_groups(), cluster.planned_nodes());
    let (group_size, node_slots) = (experts / groups, old.len() / nodes);
    let mut held = vec![0usize; groups * nodes];
    for (slot, &e) in old.iter().enumerate() {
        if let Ok(e) = usize::try_from(e) {
            held[e / group_size * nodes + slot / node_slots] += 1;
        }
    }
    let mut order: Vec<usize> = (0..held.len()).collect();
    order.sort_by_key(|&at| (Reverse(held[at]), at));
    let mut home = vec![usize::MAX; groups];
    let mut room = vec![groups / nodes; nodes];
    for at in order {
        let (group, node) = (at / nodes, at % nodes);
        if home[group] == usize::MAX && room[node] > 0 {
            home[group] = node;
            room[node] -= 1;
        }
    }
    home
}

/// The slots of a node while they are filled.
struct Node<'a> {
    loads: &'a [u32],
    per_gpu: usize,
    avoid: bool,
    /// Replicas of each expert.
    counts: Vec<u32>,
    slots: &'a mut [i32],
}

impl Node<'_> {
    /// Counts replicas; a second one on a GPU goes where it need not be there.
    fn count(&mut self) {
        for slot in 0..self.slots.len() {
            let Ok(e) = usize::try_from(self.slots[slot]) else { continue };
            let first = slot / self.per_gpu * self.per_gpu;
            if self.avoid && self.slots[first..slot].contains(&(e as i32)) {
                self.slots[slot] = -1;
            } else {
                self.counts[e] += 1;
            }
        }
    }

    /// Gives every expert a replica, and the rest to those with most load a replica, until `wanted` slots are filled.
    fn fill(&mut self, experts: &[usize], wanted: usize) {
        let mut missing: Vec<usize> = experts.iter().copied().filter(|&e| self.counts[e] == 0).collect();
        missing.sort_by_key(|&e| (Reverse(self.loads[e]), e));
        let mut filled = self.slots.iter().filter(|&&e| e >= 0).count();
        while filled + missing.len() > wanted {
            let Some(slot) = self.least_needed() else { return };
            self.counts[self.slots[slot] as usize] -= 1;
            self.slots[slot] = -1;
            filled -= 1;
        }
        for e in missing {
            filled += usize::from(self.place(e));
        }
        while filled < wanted {
            let share =
                |e: &usize| (self.loads[*e] / self.counts[*e].max(1), Reverse(self.counts[*e]), Reverse(*e));
            let mut order = experts.to_vec();
            order.sort_by_key(|e| Reverse(share(e)));
            if !order.into_iter().any(|e| self.place(e)) {
                self.avoid = false;
            }
            filled += 1;
        }
    }

    /// The slot whose replica costs least to give up, of those whose expert has another.
    fn least_needed(&self) -> Option<usize> {
        let slots =
            (0..self.slots.len()).filter_map(|slot| Some((slot, usize::try_from(self.slots[slot]).ok()?)));
        let spare = slots.filter(|&(_, e)| self.counts[e] > 1);
        spare
            .min_by_key(|&(slot, e)| (self.loads[e] / (self.counts[e] - 1), Reverse(slot)))
            .map(|(slot, _)| slot)
    }

    /// Puts a replica of `e` on the lightest GPU with a free slot, not beside another where that is avoided.
    fn place(&mut self, e: usize) -> bool {
        let load = |&held: &i32| match usize::try_from(held) {
            Ok(held) => u64::from(self.loads[held] / self.counts[held].max(1)),
            Err(_) => 0,
        };
        let gpus = self.slots.chunks_exact(self.per_gpu).enumerate();
        let open = gpus.filter(|(_, gpu)| gpu.contains(&-1) && !(self.avoid && gpu.contains(&(e as i32))));
        let lightest = open.min_by_key(|(at, gpu)| (gpu.iter().map(load).sum::<u64>(), *at));
        let Some((gpu, held)) = lightest else { return false };
        let free = held.iter().position(|&held| held == -1).unwrap_or(0);
        self.slots[gpu * self.per_gpu + free] = e as i32;
        self.counts[e] += 1;
        true
    }
}
