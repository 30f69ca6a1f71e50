//! Given replicas on the GPUs of nodes: stage 4 and the exchanges of stage 5, with counts that stay as they are. Here by the
//! mirror of the stages, on the host; a device does it by their shaders, see `planner/gpu/given.rs`.

use crate::error::Error;
use crate::mirror::Starts;
use crate::mirror::rng;
use crate::mirror::{s4_pack, s5_search};
use crate::params::{FREE, Params};
use crate::threads;
use crate::watch::Attempt;

/// The replicas of an expert that a node holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Logical expert.
    pub expert: u32,
    /// The load of these replicas together.
    pub load: u32,
    /// How many they are, at least 1.
    pub count: u32,
}

/// A node whose replicas are given, and when the search for their placement ends.
#[derive(Clone, Debug, Default)]
pub struct GivenNode {
    /// The replicas. They have to fit the slots.
    pub held: Vec<Held>,
    /// The load of the heaviest GPU that is good enough.
    pub enough: u32,
}

impl GivenNode {
    /// Load and number of replicas of each expert, in a node of this many slots. What is without load fills the slots that stay
    /// free, so that all nodes have as many replicas.
    pub fn filled(&self, slots: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let replicas = self.held.iter().map(|held| held.count).sum::<u32>();
        let free = (0..slots.saturating_sub(replicas)).map(|_| (0, 1));
        self.held.iter().map(|held| (held.load, held.count)).chain(free)
    }

    /// The numbers of such a node with GPUs of the call's kind. No GPU is to hold an expert twice where that can be: where no
    /// expert has more replicas here than there are GPUs.
    pub fn params(&self, params: &Params, gpus: u32) -> Params {
        let most = self.held.iter().map(|held| held.count).max().unwrap_or(0);
        let experts = self.filled(gpus * params.slots_per_gpu).count() as u32;
        params.of_given(gpus, experts, most <= gpus)
    }

    /// The placement that a row of the node's own experts is.
    pub fn placed(&self, row: &[u32]) -> Placed {
        let each = |&at: &u32| self.held.get(at as usize);
        Placed { slots: row.iter().map(|at| each(at).map_or(FREE, |held| held.expert)).collect() }
    }
}

/// The placement of a node's replicas: the logical expert of each slot, [`FREE`] where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub slots: Vec<u32>,
}

impl Placed {
    /// The load of the heaviest GPU.
    pub fn heaviest(&self, node: &GivenNode, slots_per_gpu: u32) -> u32 {
        let share = |expert: &u32| {
            let held = node.held.iter().find(|held| held.expert == *expert);
            held.map_or(0, |held| held.load / held.count)
        };
        let gpus = self.slots.chunks_exact(slots_per_gpu as usize);
        gpus.map(|gpu| gpu.iter().map(share).sum()).max().unwrap_or(0)
    }
}

/// Places the replicas of nodes of this many GPUs.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped.
pub fn place(
    params: &Params,
    gpus: u32,
    nodes: &[GivenNode],
    attempt: &Attempt<'_>,
) -> Result<Vec<Placed>, Error> {
    let placed = threads::each(nodes.len(), |at, placer: &mut Placer| {
        attempt.go_on()?;
        let node = &nodes[at];
        Ok(node.placed(placer.place(&node.params(params, gpus), node)))
    });
    placed.into_iter().collect()
}

/// Memory that a thread reuses from node to node.
#[derive(Default)]
struct Placer {
    starts: Starts,
    best: Vec<u32>,
}

impl Placer {
    /// The best of some starts.
    fn place(&mut self, params: &Params, node: &GivenNode) -> &[u32] {
        let Starts { candidate, combined, .. } = &mut self.starts;
        combined.clear();
        candidate.counts.clear();
        for (load, count) in node.filled(params.node_slots) {
            combined.push(load);
            candidate.counts.push(count);
        }
        let mut least = u32::MAX;
        for start in 0..params.starts {
            let max = self.start(params, node.enough, start);
            if max < least {
                least = max;
                self.best.clone_from(&self.starts.candidate.snapshot);
            }
            if least <= node.enough {
                break;
            }
        }
        &self.best
    }

    /// One start: the heaviest GPU of the placement in `candidate.snapshot`.
    fn start(&mut self, params: &Params, enough: u32, start: u32) -> u32 {
        let Starts { candidate, combined, search, .. } = &mut self.starts;
        let key = rng::key(params, 0, start);
        s4_pack::pack(params, key, start, combined, candidate);
        let ends = (&[0][..], enough);
        s5_search::search(params, (key, start), combined, ends, candidate, search).max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cluster, Loads, PlanOptions};

    fn params(gpus: usize, slots: usize) -> Params {
        let loads = Loads::from_counts(1, 4, &[4, 3, 2, 1]).unwrap();
        let cluster = Cluster::with_slots_per_gpu(4, 1, 1, gpus, slots).unwrap();
        Params::new(&loads, &cluster, &PlanOptions::default()).unwrap()
    }

    fn placed(params: &Params, gpus: u32, node: &GivenNode) -> Vec<u32> {
        node.placed(Placer::default().place(&node.params(params, gpus), node)).slots
    }

    #[test]
    fn counts_stay_as_they_are_and_the_load_is_that_of_the_slots() {
        for (gpus, slots_per_gpu, replicas) in [(4, 3, 12), (4, 3, 10), (2, 6, 12), (5, 1, 5), (8, 2, 16)] {
            let params = params(16, slots_per_gpu);
            let mut held: Vec<Held> = (0..replicas)
                .map(|e| Held { expert: 7 * e, load: 1000 + (e * 7919) % 9001, count: 1 })
                .collect();
            // The heaviest gets the replicas of the last two.
            held.truncate(replicas as usize - 1);
            held[0] = Held { expert: 0, load: 30_000, count: 2 };
            let node = GivenNode { held, enough: 0 };
            let slots = placed(&params, gpus, &node);
            assert_eq!(slots.len(), gpus as usize * slots_per_gpu);
            let gpu_load = |gpu: &[u32]| -> u32 {
                let of = |e: &u32| {
                    let held = node.held.iter().find(|held| held.expert == *e);
                    held.map_or(0, |h| h.load / h.count)
                };
                gpu.iter().map(of).sum()
            };
            let max = Placed { slots: slots.clone() }.heaviest(&node, slots_per_gpu as u32);
            assert_eq!(slots.chunks(slots_per_gpu).map(gpu_load).max(), Some(max));
            for held in &node.held {
                assert_eq!(slots.iter().filter(|&&e| e == held.expert).count(), held.count as usize);
                assert!(
                    slots
                        .chunks(slots_per_gpu)
                        .all(|gpu| gpu.iter().filter(|&&e| e == held.expert).count() < 2)
                );
            }
            assert_eq!(placed(&params, gpus, &node), slots);
        }
    }

    #[test]
    fn more_replicas_than_gpus_are_held_twice() {
        let held = vec![Held { expert: 5, load: 90, count: 3 }, Held { expert: 1, load: 20, count: 1 }];
        let mut slots = placed(&params(4, 2), 2, &GivenNode { held, enough: 0 });
        slots.sort_unstable();
        assert_eq!(slots, vec![1, 5, 5, 5]);
    }
}
