//! The experts and the move that leave the least excess.

use super::Tables;
use super::table::merged;
use crate::mirror::rng;
use crate::params::Params;

/// An iteration weighs all moves of a replica from the best of these to the best of those.
pub const LOSERS: usize = 4;
/// See [`LOSERS`].
pub const GAINERS: usize = 16;

/// One place in a list of the best: the excess, then a hash, then what it is for.
fn rank(excess: u32, word: u32, index: u32) -> u64 {
    let tie = word.wrapping_add(index.wrapping_mul(rng::PLACE_STEP)) & !INDEX | index;
    u64::from(excess) << 32 | u64::from(tie)
}

/// The bits of [`rank`] that say what it is for: a node has at most 4,096 experts.
pub const INDEX: u32 = 0xfff;

/// The index in a [`rank`].
pub fn index_of(rank: u64) -> usize {
    (rank as u32 & INDEX) as usize
}

/// Puts a rank into a list of the least, rising, `u64::MAX` where it is empty.
fn offer<const N: usize>(list: &mut [u64; N], mut rank: u64) {
    if rank < list[N - 1] {
        for entry in list {
            let (low, high) = (rank.min(*entry), rank.max(*entry));
            *entry = low;
            rank = high;
        }
    }
}

impl Tables {
    /// The experts that leave the least excess with one replica more, or with one less, best first.
    pub fn list<const GAINS: bool, const N: usize>(
        &mut self,
        params: &Params,
        counts: &[u32],
        word: u32,
    ) -> [u64; N] {
        let mut list = [u64::MAX; N];
        for (e, &count) in counts.iter().enumerate() {
            if if GAINS { count >= params.max_count } else { count < 2 } {
                continue;
            }
            let (share, count) = if GAINS { (self.more[e], count + 1) } else { (self.fewer[e], count - 1) };
            let change = self.change(counts, e, share, count);
            self.changes[usize::from(GAINS)][e] = change;
            offer(&mut list, rank(self.excess_after(change.0.into_iter()), word, e as u32));
        }
        list
    }

    /// The move that leaves the least excess, by its places in the lists; experts that are to be left alone take part
    /// where that is less than `least`.
    pub fn best_move(&self, iteration: u32, word: u32, least: u32, losers: &[u64], gainers: &[u64]) -> u64 {
        let mut best = u64::MAX;
        for (i, &loser) in losers.iter().enumerate().take_while(|(_, rank)| **rank < u64::MAX) {
            let x = index_of(loser);
            for (j, &gainer) in gainers.iter().enumerate().take_while(|(_, rank)| **rank < u64::MAX) {
                let y = index_of(gainer);
                if x == y {
                    continue;
                }
                let excess = self.excess_after(merged(&self.changes[0][x], &self.changes[1][y]));
                let is_free = self.tabu[x] <= iteration && self.tabu[y] <= iteration;
                if is_free || excess < least {
                    best = best.min(rank(excess, word, (i * GAINERS + j) as u32));
                }
            }
        }
        best
    }
}
