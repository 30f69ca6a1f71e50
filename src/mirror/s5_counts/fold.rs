//! The fold: the best placement of some counts where GPUs have two slots.
//!
//! Replicas go in falling order, the heaviest with the lightest, the next with the next lightest, and so on. A GPU that
//! has one expert twice then exchanges a replica with another GPU.

use super::Tables;
use crate::params::Params;

impl Tables {
    /// The heaviest GPU of the fold of some counts, once duplicates are parted.
    pub fn value(&self, params: &Params, counts: &[u32]) -> u32 {
        let (order, share) = (&self.order, &self.share);
        let (mut heavy, mut light) = (0, order.len() - 1);
        let (mut of_heavy, mut of_light) = (counts[order[heavy] as usize], counts[order[light] as usize]);
        let (mut most, mut left) = (0, params.node_gpus);
        while heavy < light && left > 0 {
            let pairs = of_heavy.min(of_light).min(left);
            most = most.max(share[order[heavy] as usize] + share[order[light] as usize]);
            of_heavy -= pairs;
            of_light -= pairs;
            left -= pairs;
            if of_heavy == 0 {
                heavy += 1;
                of_heavy = counts[order[heavy] as usize];
            }
            if of_light == 0 {
                light -= 1;
                of_light = counts[order[light] as usize];
            }
        }
        if left > 0 {
            most = most.max(2 * share[order[heavy] as usize]);
            if params.avoid_duplicates {
                let partner = self.duplicates(params, counts, heavy).last_partner;
                most = most.max(share[order[heavy] as usize] + share[self.expert_at(counts, partner)]);
            }
        }
        most
    }

    /// The expert of a replica, by its place in the order of replicas.
    fn expert_at(&self, counts: &[u32], replica: u32) -> usize {
        let mut end = 0;
        let found = self.order.iter().find(|&&e| {
            end += counts[e as usize];
            replica < end
        });
        found.map_or(0, |&e| e as usize)
    }

    /// The GPUs to which the fold gives the expert at a place of the order twice: the last ones, from `first` on.
    ///
    /// Each exchanges a replica with one that has two others: both then have one of the expert and one of these, and
    /// the heavier is the first of these with the expert. It is least for the last GPU without the expert, then for the
    /// one before it, and so on. There are enough, as the expert has at most a replica for each GPU.
    fn duplicates(&self, params: &Params, counts: &[u32], place: usize) -> FoldDuplicates {
        let count_of = |e: &u32| counts[*e as usize];
        let begin: u32 = self.order[..place].iter().map(count_of).sum();
        let after: u32 = self.order[place + 1..].iter().map(count_of).sum();
        let first = begin.max(after);
        let without = begin.min(after);
        FoldDuplicates { first, without, last_partner: without - (params.node_gpus - first).min(without) }
    }

    /// Writes the fold to slots, and parts duplicates.
    pub fn fold(&self, params: &Params, counts: &[u32], slots: &mut [u32]) {
        let gpus = params.node_gpus as usize;
        let replicas = self.order.iter().flat_map(|&e| std::iter::repeat_n(e, counts[e as usize] as usize));
        for (replica, e) in replicas.enumerate() {
            let slot = if replica < gpus { 2 * replica } else { 2 * (2 * gpus - 1 - replica) + 1 };
            slots[slot] = e;
        }
        let last = slots[2 * gpus - 2];
        let place = self.order.iter().position(|&e| e == last).unwrap_or(0);
        let duplicates = self.duplicates(params, counts, place);
        if params.avoid_duplicates {
            for (gpu, other) in (duplicates.first..params.node_gpus).zip((0..duplicates.without).rev()) {
                slots.swap(2 * gpu as usize, 2 * other as usize);
            }
        }
    }
}

/// See [`Tables::duplicates`].
struct FoldDuplicates {
    /// The first GPU with the expert twice.
    first: u32,
    /// GPUs before the first with the expert.
    without: u32,
    /// The lowest of these with which one exchanges.
    last_partner: u32,
}
