//! The end of a plan with few slots a GPU: the heaviest GPU shares its replicas anew with two others. The host does this, for
//! every backend.
//!
//! The trajectory exchanges replicas of two GPUs. It ends where the heaviest GPU and any other are as even as the two can
//! be. Three GPUs of `k` slots can hold their replicas in `(3k)! / (k!^3 3!)` ways, 280 for three slots and 126,126 for
//! five, so some of them are lighter still. Few ways come into question: each of the GPUs has to end below the
//! heaviest one, which leaves a narrow window for the load of the first, and then for that of the second ([`pair`]).
//!
//! Where a node has few GPUs, there are few pairs of others to share with, and the heaviest GPU soon cannot go lower. Then
//! further starts, with other replica counts and a short trajectory, end the same way, and the best one is the node's.

mod pair;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;

use crate::mirror::Starts;
use crate::params::{FREE, Params, pairs};
use pair::{GpuPair, Three, Ways};

/// Further starts of a node at most. (A thorough plan of gpt-oss on 8 GPUs: .0202 % with 7 of them, .0193 % with 10 in 1.2 times
/// the time, which is more than a hundred times greedy's; V2-Lite on 16 GPUs: .0116 % and .0099 %.)
const MOST_STARTS: u32 = 7;
/// Iterations of a further start without a new best: three GPUs find sooner what more would. (Patience 16 and 0 took as long
/// for the same gaps.)
const PATIENCE: u32 = 8;

/// A node looks into this many sets for the first GPU, for each pair that it may try. Loads that are not steep need fewer. Where
/// loads are steep, thousands of sets leave the two other GPUs no way without a duplicate, and finding that out takes
/// milliseconds a node.
const SETS_OF_PAIR: u32 = 4;

/// Further starts of a node: as many as there are pairs left to try.
fn further_starts(params: &Params) -> u32 {
    (params.three_gpus / pairs(params.node_gpus - 1)).saturating_sub(1).min(MOST_STARTS)
}

/// Improves the layers of a call. A thread uses it again from layer to layer.
pub struct Improver {
    /// The call's sizes, with the patience of further starts.
    params: Params,
    /// See [`further_starts`].
    further_starts: u32,
    ways: Ways,
    three: Three,
    starts: Starts,
    /// The node's experts.
    experts: Vec<u32>,
    /// Load of a replica of each of them.
    each: Vec<u32>,
    /// The expert of each slot, by its place in `experts`, and the best so far.
    slots: Vec<u32>,
    best: Vec<u32>,
}

impl Improver {
    /// For plans of this shape, where `three_gpus` is not 0.
    pub fn new(params: &Params) -> Self {
        Self {
            params: Params { later_patience: PATIENCE, ..params.clone() },
            further_starts: further_starts(params),
            ways: Ways::of(params.slots_per_gpu),
            three: Three::default(),
            starts: Starts::default(),
            experts: Vec::new(),
            each: Vec::new(),
            slots: Vec::new(),
            best: Vec::new(),
        }
    }

    /// Lowers the heaviest GPU of each node of a layer until it is at most `stop`, or nothing tried here helps; the load of
    /// the heaviest GPU then. `slots` holds the expert of each slot, [`FREE`] for a free one, and `loads` the load of
    /// each expert.
    pub fn improve(&mut self, stop: u32, loads: &[u32], slots: &mut [u32]) -> u32 {
        let node_slots = self.params.node_slots as usize;
        slots.chunks_exact_mut(node_slots).map(|node| self.improve_node(stop, loads, node)).max().unwrap_or(0)
    }

    fn improve_node(&mut self, stop: u32, loads: &[u32], slots: &mut [u32]) -> u32 {
        self.experts.clear();
        self.experts.extend(slots.iter().filter(|&&expert| expert != FREE));
        self.experts.sort_unstable();
        self.experts.dedup();
        let place = |expert: u32| self.experts.partition_point(|&other| other < expert) as u32;
        self.slots.clear();
        self.slots.extend(slots.iter().map(|&expert| if expert == FREE { FREE } else { place(expert) }));
        self.starts.combined.clear();
        self.starts.combined.extend(self.experts.iter().map(|&expert| loads[expert as usize]));
        self.starts.loads.clone_from(&self.starts.combined);

        self.three.sets_left = SETS_OF_PAIR * self.params.three_gpus;
        let mut least = self.lower(stop);
        self.best.clone_from(&self.slots);
        let group = self.experts.first().map_or(0, |&expert| expert / self.params.group_size);
        for further in 0..self.further_starts {
            if least <= stop || self.three.sets_left == 0 {
                break;
            }
            let start = self.params.starts + further;
            self.starts.run(&self.params, (group, start), (&[0], stop), &mut |_| ());
            self.slots.clone_from(&self.starts.candidate.snapshot);
            let max = self.lower(stop);
            if max < least {
                least = max;
                self.best.clone_from(&self.slots);
            }
        }
        for (slot, &place) in slots.iter_mut().zip(&self.best) {
            *slot = if place == FREE { FREE } else { self.experts[place as usize] };
        }
        least
    }

    /// Lowers the heaviest GPU of `slots` again and again, until it is at most `stop` or none of the pairs tried helps;
    /// the load of the heaviest GPU then.
    fn lower(&mut self, stop: u32) -> u32 {
        let counts = &mut self.starts.candidate.counts;
        counts.clear();
        counts.resize(self.experts.len(), 0);
        self.slots.iter().filter(|&&at| at != FREE).for_each(|&at| counts[at as usize] += 1);
        self.each.clear();
        self.each
            .extend(self.starts.combined.iter().zip(counts).map(|(&load, &mut count)| load / count.max(1)));
        let Self { params, ways, three, each, slots, .. } = self;
        NodeReplicas { params, each, slots }.lower(stop, ways, three)
    }
}

/// A node's replicas.
struct NodeReplicas<'a> {
    params: &'a Params,
    /// The expert of each slot, [`FREE`] for a free one.
    slots: &'a mut [u32],
    /// Load of a replica of each expert.
    each: &'a [u32],
}

impl NodeReplicas<'_> {
    fn lower(&mut self, stop: u32, ways: &mut Ways, three: &mut Three) -> u32 {
        let mut loads: Vec<u32> = (0..self.params.node_gpus as usize)
            .map(|gpu| self.of_gpu(gpu).map(|(_, load)| load).sum())
            .collect();
        let mut order: Vec<usize> = (0..loads.len()).collect();
        loop {
            // But for the three that shared last they are in order, which this sort makes use of.
            order.sort_by_key(|&gpu| (loads[gpu], Reverse(gpu)));
            let Some((&heavy, others)) = order.split_last() else { return 0 };
            if loads[heavy] <= stop || !self.share((heavy, others), stop, &mut loads, ways, three) {
                return loads[heavy];
            }
        }
    }

    /// Shares the replicas of the heaviest GPU anew with the first two others that make it lighter; the lightest others come
    /// first. Whether there are such two.
    fn share(
        &mut self,
        (heavy, others): (usize, &[usize]),
        stop: u32,
        loads: &mut [u32],
        ways: &mut Ways,
        three: &mut Three,
    ) -> bool {
        let slots = self.params.slots_per_gpu as usize;
        // Its heaviest replica comes first. That one stays on the first GPU, so ways in which it cannot are found early.
        let mut heaviest: Vec<(u32, u32)> = self.of_gpu(heavy).collect();
        heaviest.sort_unstable_by_key(|&(expert, load)| (Reverse(load), expert));
        ways.start(heaviest.iter().copied());
        ways.add(self.of_gpu(others[0]));
        let mut left = self.params.three_gpus as usize;
        for b in 1..others.len() {
            ways.add(self.of_gpu(others[b]));
            for a in 0..b.min(left) {
                if three.sets_left == 0 {
                    return false;
                }
                let gpus = [heavy, others[a], others[b]];
                let of_others = || gpus[1..].iter().flat_map(|&gpu| self.of_gpu(gpu));
                let replicas = || heaviest.iter().copied().chain(of_others());
                let (top, total) = (loads[heavy], gpus.iter().map(|&gpu| loads[gpu]).sum());
                let pair = GpuPair { others: [a, b], ways, three, top, total, stop };
                let Some(sets) = pair.share(self.params.avoid_duplicates, replicas) else { continue };
                for (gpu, set) in gpus.into_iter().zip(sets) {
                    loads[gpu] = 0;
                    for (slot, (expert, load)) in three.replicas(set).enumerate() {
                        self.slots[gpu * slots + slot] = expert;
                        loads[gpu] += load;
                    }
                }
                return true;
            }
            left = left.saturating_sub(b);
        }
        false
    }

    /// Expert and load of each slot of a GPU.
    fn of_gpu(&self, gpu: usize) -> impl Iterator<Item = (u32, u32)> {
        let slots = self.params.slots_per_gpu as usize;
        let load = |expert| if expert == FREE { 0 } else { self.each[expert as usize] };
        self.slots[gpu * slots..(gpu + 1) * slots].iter().map(move |&expert| (expert, load(expert)))
    }
}
