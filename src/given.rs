//! Given replicas on the GPUs of a node: stage 4 and the exchanges of stage 5, with counts that stay as they are. It runs
//! on the host, by the mirror of the stages, for every backend.

use crate::mirror::Starts;
use crate::mirror::rng;
use crate::mirror::{s4_pack, s5_search};
use crate::params::{FREE, Params};

/// Starts of a node at most: with given counts further ones bring little.
const MOST_STARTS: u32 = 4;

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

/// The GPUs of a node, and when the search for their placement ends.
#[derive(Clone, Copy, Debug)]
pub struct GivenNode {
    /// Its number, which tells its draws apart from those of other nodes.
    pub number: u32,
    /// GPUs.
    pub gpus: u32,
    /// The load of the heaviest GPU that is good enough.
    pub enough: u32,
}

/// Memory that a thread reuses from node to node.
#[derive(Default)]
pub struct Placer {
    starts: Starts,
    best: Vec<u32>,
}

impl Placer {
    /// Places the replicas of one window's loads on the GPUs of a node, and appends the logical expert of each slot to
    /// `slots`, [`FREE`] where there is none. Returns the load of the heaviest GPU. They have to fit the slots.
    ///
    /// No GPU holds an expert twice where that can be: where no expert has more replicas here than there are GPUs.
    pub fn place(&mut self, params: &Params, node: GivenNode, held: &[Held], slots: &mut Vec<u32>) -> u32 {
        let most = held.iter().map(|held| held.count).max().unwrap_or(0);
        let replicas = held.iter().map(|held| held.count).sum();
        let params = params.of_given(node.gpus, (held.len() as u32, replicas), most <= node.gpus);
        let Starts { candidate, combined, .. } = &mut self.starts;
        combined.clear();
        combined.extend(held.iter().map(|held| held.load));
        candidate.counts.clear();
        candidate.counts.extend(held.iter().map(|held| held.count));
        let mut least = u32::MAX;
        for start in 0..params.starts.min(MOST_STARTS) {
            let max = self.start(&params, node, start);
            if max < least {
                least = max;
                self.best.clone_from(&self.starts.candidate.snapshot);
            }
            if least <= node.enough {
                break;
            }
        }
        slots.extend(self.best.iter().map(|&at| if at == FREE { FREE } else { held[at as usize].expert }));
        least
    }

    /// One start: the heaviest GPU of the placement in `candidate.snapshot`.
    fn start(&mut self, params: &Params, node: GivenNode, start: u32) -> u32 {
        let Starts { candidate, combined, search, .. } = &mut self.starts;
        let key = rng::key(params, node.number, start);
        s4_pack::pack(params, key, start, combined, candidate);
        let ends = (&[0][..], node.enough);
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

    #[test]
    fn counts_stay_as_they_are_and_the_load_is_that_of_the_slots() {
        let mut placer = Placer::default();
        for (gpus, slots_per_gpu, replicas) in [(4, 3, 12), (4, 3, 10), (2, 6, 12), (5, 1, 5), (8, 2, 16)] {
            let params = params(16, slots_per_gpu);
            let mut held: Vec<Held> = (0..replicas)
                .map(|e| Held { expert: 7 * e, load: 1000 + (e * 7919) % 9001, count: 1 })
                .collect();
            // The heaviest gets the replicas of the last two.
            held.truncate(replicas as usize - 1);
            held[0] = Held { expert: 0, load: 30_000, count: 2 };
            let node = GivenNode { number: 3, gpus, enough: 0 };
            let mut slots = Vec::new();
            let max = placer.place(&params, node, &held, &mut slots);
            assert_eq!(slots.len(), gpus as usize * slots_per_gpu);
            let gpu_load = |gpu: &[u32]| -> u32 {
                let of = |e: &u32| held.iter().find(|held| held.expert == *e).map_or(0, |h| h.load / h.count);
                gpu.iter().map(of).sum()
            };
            assert_eq!(slots.chunks(slots_per_gpu).map(gpu_load).max(), Some(max));
            for held in &held {
                assert_eq!(slots.iter().filter(|&&e| e == held.expert).count(), held.count as usize);
                assert!(
                    slots
                        .chunks(slots_per_gpu)
                        .all(|gpu| gpu.iter().filter(|&&e| e == held.expert).count() < 2)
                );
            }
            let mut again = Vec::new();
            assert_eq!((placer.place(&params, node, &held, &mut again), &again), (max, &slots));
        }
    }

    #[test]
    fn more_replicas_than_gpus_are_held_twice() {
        let mut slots = Vec::new();
        let held = [Held { expert: 5, load: 90, count: 3 }, Held { expert: 1, load: 20, count: 1 }];
        let node = GivenNode { number: 0, gpus: 2, enough: 0 };
        let max = Placer::default().place(&params(4, 2), node, &held, &mut slots);
        slots.sort_unstable();
        assert_eq!((max, slots), (60, vec![1, 5, 5, 5]));
    }
}
