//! The weight of a placement under a dispatch, in whole numbers.

use super::filled;
use crate::check::Dispatch;
use crate::params::Params;

/// Bits of a unit of load: what is divided loses less than that.
const SHIFT: u32 = 16;

/// A weight in the unit of loads, rounded down.
pub fn in_units(weight: u64) -> u32 {
    u32::try_from(weight >> SHIFT).unwrap_or(u32::MAX)
}

/// Weighs placements of one shape.
#[derive(Default)]
pub struct Weigher {
    gpus: usize,
    node_gpus: usize,
    slots_per_gpu: usize,
    /// Where the GPUs of each expert begin in `held`, and the end of the last.
    begins: Vec<usize>,
    /// The GPUs of each expert's replicas, ascending.
    held: Vec<usize>,
    /// The load of each GPU.
    loads: Vec<u64>,
}

impl Weigher {
    /// Takes over a shape.
    pub fn begin(&mut self, params: &Params, nodes: u32) {
        self.gpus = params.node_gpus as usize;
        self.node_gpus = (params.node_gpus / nodes) as usize;
        self.slots_per_gpu = params.slots_per_gpu as usize;
    }

    /// Finds the GPUs of each expert.
    fn look(&mut self, experts: usize, row: &[u32]) {
        self.begins.clear();
        self.begins.resize(experts + 2, 0);
        filled(row).for_each(|(_, expert)| self.begins[expert + 2] += 1);
        for e in 1..self.begins.len() {
            self.begins[e] += self.begins[e - 1];
        }
        self.held.clear();
        self.held.resize(self.begins[experts + 1], 0);
        for (slot, expert) in filled(row) {
            self.held[self.begins[expert + 1]] = slot / self.slots_per_gpu;
            self.begins[expert + 1] += 1;
        }
    }

    /// The load of the heaviest GPU.
    pub fn heaviest(&mut self, dispatch: Dispatch, loads: &[u32], row: &[u32]) -> u64 {
        self.look(loads.len(), row);
        self.loads.clear();
        self.loads.resize(self.gpus, 0);
        for (expert, &load) in loads.iter().enumerate() {
            let held = &self.held[self.begins[expert]..self.begins[expert + 1]];
            let load = u64::from(load) << SHIFT;
            if held.is_empty() {
                continue;
            }
            let shape = (self.gpus, self.node_gpus);
            match dispatch {
                Dispatch::Equal => held.iter().for_each(|&gpu| self.loads[gpu] += load / held.len() as u64),
                Dispatch::Nearest => nearest(shape, held, load, &mut self.loads),
                Dispatch::OwnGpu => own_gpu(shape.0, held, (expert, load), &mut self.loads),
            }
        }
        self.loads.iter().copied().max().unwrap_or(0)
    }

    /// The load of each expert times the nodes that hold it.
    pub fn kept_in_node(&mut self, loads: &[u32], row: &[u32]) -> u64 {
        self.look(loads.len(), row);
        let nodes = |expert: usize| {
            let held = &self.held[self.begins[expert]..self.begins[expert + 1]];
            held.chunk_by(|a, b| a / self.node_gpus == b / self.node_gpus).count() as u64
        };
        loads.iter().enumerate().map(|(expert, &load)| u64::from(load) * nodes(expert)).sum()
    }
}

/// Deals an expert's load to the nearest of the GPUs that hold it.
fn nearest((gpus, node_gpus): (usize, usize), held: &[usize], load: u64, out: &mut [u64]) {
    let (all, each_node) = (gpus as u64, (gpus / node_gpus) as u64);
    let nodes = held.chunk_by(|a, b| a / node_gpus == b / node_gpus);
    let far = load / each_node * (each_node - nodes.clone().count() as u64) / held.len() as u64;
    for beside in nodes {
        let own = beside.chunk_by(|a, b| a == b);
        let near = load / all * (node_gpus - own.clone().count()) as u64 / beside.len() as u64;
        for own in own {
            out[own[0]] += load / all + (near + far) * own.len() as u64;
        }
    }
}

/// Deals an expert's load: what comes from a GPU that holds it stays there, the other GPUs are dealt whole, in turn.
fn own_gpu(gpus: usize, held: &[usize], (expert, load): (usize, u64), out: &mut [u64]) {
    let (source, holders) = (load / gpus as u64, held.chunk_by(|a, b| a == b));
    let strangers = gpus - holders.clone().count();
    holders.for_each(|own| out[own[0]] += source);
    for (at, &gpu) in held.iter().enumerate() {
        // The first turn of this replica.
        let first = (at + held.len() - expert % held.len()) % held.len();
        let turns = strangers.saturating_sub(first).div_ceil(held.len());
        out[gpu] += source * turns as u64;
    }
}
