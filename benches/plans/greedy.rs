//! DeepSeek's greedy rule in plain Rust: one thread, `f64`, a heap where it beats a scan. The yardstick: every
//! time in the table is a ratio to this one's.
//!
//! Hierarchical: groups to nodes by balanced packing, replicas to the expert with the highest load per replica,
//! replicas to the node's GPUs by balanced packing. Global: the same with one node and one group. Shares no
//! code with the planner.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Up to this many packs a scan finds the least loaded sooner than a heap.
const SCAN: usize = 16;

/// The cluster, as DeepSeek's `rebalance_experts` takes it.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub experts: usize,
    pub replicas: usize,
    pub groups: usize,
    pub nodes: usize,
    pub gpus: usize,
}

/// DeepSeek's three maps.
#[derive(Debug, Default)]
pub struct Maps {
    /// `[layers][replicas]`
    pub physical_to_logical: Vec<u32>,
    /// `[layers][experts][max_replicas]`, padded with -1
    pub logical_to_physical: Vec<i32>,
    /// `[layers][experts]`
    pub replica_counts: Vec<u32>,
}

/// Plans all layers of `loads`, `[layers][experts]`.
pub fn rebalance(loads: &[f64], shape: Shape) -> Maps {
    let hierarchical = shape.groups.is_multiple_of(shape.nodes);
    let shape = if hierarchical { shape } else { Shape { groups: 1, nodes: 1, ..shape } };
    let mut maps = Maps::default();
    let mut scratch = Scratch::default();
    for layer in loads.chunks_exact(shape.experts) {
        plan_layer(layer, shape, &mut scratch, &mut maps);
    }
    invert(shape, &mut maps);
    maps
}

/// Memory that layers reuse.
#[derive(Default)]
struct Scratch {
    group_loads: Vec<f64>,
    /// Groups of each node, in the order they were given.
    node_groups: Vec<Vec<u32>>,
    /// Experts of a node, their loads and counts.
    experts: Vec<u32>,
    loads: Vec<f64>,
    counts: Vec<u32>,
    /// Of each replica of a node: its expert, by the node's numbers, and its load.
    replicas: Vec<u32>,
    weights: Vec<f64>,
    heaviest: BinaryHeap<(Key, Reverse<u32>)>,
    packing: Packing,
}

fn plan_layer(layer: &[f64], shape: Shape, scratch: &mut Scratch, maps: &mut Maps) {
    let Shape { groups, nodes, gpus, replicas, experts } = shape;
    let group_size = experts / groups;
    let Scratch { group_loads, node_groups, packing, .. } = scratch;
    group_loads.clear();
    group_loads.extend(layer.chunks_exact(group_size).map(|group| group.iter().sum::<f64>()));
    node_groups.resize(nodes, Vec::new());
    node_groups.iter_mut().for_each(Vec::clear);
    packing.pack(group_loads, nodes, |group, node, _| node_groups[node].push(group));

    let counts_at = maps.replica_counts.len();
    maps.replica_counts.resize(counts_at + experts, 0);
    let slots_at = maps.physical_to_logical.len();
    maps.physical_to_logical.resize(slots_at + replicas, 0);
    let (node_replicas, node_gpus) = (replicas / nodes, gpus / nodes);
    let slots_per_gpu = node_replicas / node_gpus;
    for node in 0..nodes {
        let Scratch { experts, loads, node_groups, .. } = scratch;
        experts.clear();
        let first = |&group: &u32| group * group_size as u32;
        experts.extend(node_groups[node].iter().map(first).flat_map(|e| e..e + group_size as u32));
        loads.clear();
        loads.extend(experts.iter().map(|&e| layer[e as usize]));
        replicate(scratch, node_replicas);
        let Scratch { experts, counts, replicas, weights, packing, .. } = scratch;
        for (&expert, &count) in experts.iter().zip(counts.iter()) {
            maps.replica_counts[counts_at + expert as usize] = count;
        }
        let node_slots = &mut maps.physical_to_logical[slots_at + node * node_replicas..][..node_replicas];
        packing.pack(weights, node_gpus, |replica, gpu, rank| {
            let expert = experts[replicas[replica as usize] as usize];
            node_slots[gpu * slots_per_gpu + rank] = expert;
        });
    }
}

/// One replica for each expert of the node, each further one to the highest load per replica, the lower expert
/// of equals.
fn replicate(scratch: &mut Scratch, node_replicas: usize) {
    let Scratch { loads, counts, replicas, weights, heaviest, .. } = scratch;
    counts.clear();
    counts.resize(loads.len(), 1);
    replicas.clear();
    replicas.extend(0..loads.len() as u32);
    heaviest.clear();
    if node_replicas > loads.len() {
        heaviest.extend((0..).zip(loads.iter()).map(|(e, &load)| (Key::of(load), Reverse(e))));
    }
    for _ in loads.len()..node_replicas {
        let Some(mut top) = heaviest.peek_mut() else { break };
        let expert = top.1.0;
        let count = &mut counts[expert as usize];
        *count += 1;
        top.0 = Key::of(loads[expert as usize] / f64::from(*count));
        drop(top);
        replicas.push(expert);
    }
    weights.clear();
    weights.extend(replicas.iter().map(|&e| loads[e as usize] / f64::from(counts[e as usize])));
}

/// Balanced packing: heaviest first, each item to the least loaded pack with room, the lower of equals; every
/// pack gets the same number.
#[derive(Default)]
struct Packing {
    order: Vec<(Key, u32)>,
    load: Vec<f64>,
    used: Vec<usize>,
    lightest: BinaryHeap<Reverse<(Key, u32)>>,
}

impl Packing {
    /// Calls `place` with each item, its pack and its rank there.
    fn pack(&mut self, weights: &[f64], packs: usize, mut place: impl FnMut(u32, usize, usize)) {
        let room = weights.len() / packs;
        self.order.clear();
        self.order.extend((0..).zip(weights).map(|(item, &weight)| (Key::of(weight), item)));
        self.order.sort_unstable_by_key(|&(weight, item)| (Reverse(weight), item));
        self.load.clear();
        self.load.resize(packs, 0.0);
        self.used.clear();
        self.used.resize(packs, 0);
        self.lightest.clear();
        let scans = packs <= SCAN;
        if !scans {
            self.lightest.extend((0..packs as u32).map(|pack| Reverse((Key::of(0.0), pack))));
        }
        for &(_, item) in &self.order {
            let pack = if scans { first_min(&self.load) } else { self.top() };
            place(item, pack, self.used[pack]);
            self.used[pack] += 1;
            self.load[pack] += weights[item as usize];
            if self.used[pack] == room {
                // Full: no longer the least loaded.
                self.load[pack] = f64::INFINITY;
            }
            if let Some(mut top) = self.lightest.peek_mut() {
                top.0.0 = Key::of(self.load[pack]);
            }
        }
    }

    fn top(&self) -> usize {
        self.lightest.peek().map_or(0, |top| top.0.1 as usize)
    }
}

fn first_min(loads: &[f64]) -> usize {
    let mut best = 0;
    for pack in 1..loads.len() {
        if loads[pack] < loads[best] {
            best = pack;
        }
    }
    best
}

/// A load that is ordered: bits of floats that are not negative are in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u64);

impl Key {
    fn of(load: f64) -> Self {
        Self(load.to_bits())
    }
}

/// The slots of each expert, from the experts of the slots.
fn invert(shape: Shape, maps: &mut Maps) {
    let width = maps.replica_counts.iter().copied().max().unwrap_or(0) as usize;
    maps.logical_to_physical = vec![-1; maps.replica_counts.len() * width];
    let mut found = vec![0; shape.experts];
    let layers = maps.physical_to_logical.chunks_exact(shape.replicas);
    for (slots, out) in layers.zip(maps.logical_to_physical.chunks_exact_mut(shape.experts * width)) {
        found.fill(0);
        for (slot, &expert) in (0..).zip(slots) {
            let expert = expert as usize;
            out[expert * width + found[expert]] = slot;
            found[expert] += 1;
        }
    }
}
