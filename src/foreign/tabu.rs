//! Replicas change from one expert to another, always by the change that leaves the least over a target a little below the
//! best so far, even where that is more than there was (tabu search). Node totals decide, and heavy replicas.

use super::nodes::{Copies, NodeExperts};
use crate::loads::FIXED_TOTAL;
use crate::mirror::rng;

/// Iterations at most, and those without a new best after which it ends.
pub const ITERATIONS: u32 = 60;
pub const PATIENCE: u32 = 20;
/// An iteration looks at this many experts of a node that lose a replica, and as many that gain one, those that leave least
/// alone; and at all pairs of them.
pub const LOSERS: usize = 3;
pub const GAINERS: usize = 8;
/// The target is the best value less a part of it, 1 / 2^5 at first; halved down to 1 / 2^14 after every 4 iterations
/// without a new best.
pub const FIRST_SHIFT: u32 = 5;
pub const LAST_SHIFT: u32 = 14;
pub const HALVED_AFTER: u32 = 4;
/// An expert that took part in a change is left alone for 4 to 9 iterations.
pub const TENURE: u32 = 4;
pub const TENURES: u32 = 6;

/// The excess of an expert's replicas counts up to this, the most that a layer weighs, so that words of 32 bits hold all sums.
const MOST_HEAVY: i64 = FIXED_TOTAL as i64;
/// How much below the excess the least one before it counts, at most: more than any change adds or takes away, which is at
/// most three times what a layer weighs. (A node that is as much below its target stays there, too.)
const MOST_GAP: i64 = 4 * FIXED_TOTAL as i64;

/// Memory that a thread reuses.
#[derive(Default)]
pub struct Tabu {
    no_loss: Vec<u32>,
    no_gain: Vec<u32>,
    /// Of each expert with a replica less, and with one more.
    less: Vec<Changed>,
    more: Vec<Changed>,
    excess: Vec<i64>,
    /// Excess and expert.
    losers: Vec<(i64, usize)>,
    gainers: Vec<(i64, usize)>,
    best: Copies,
}

/// The effect of another number of replicas of an expert.
#[derive(Clone, Copy, Default)]
struct Changed {
    /// Load of a replica then, and by how much it is more than now.
    share: i64,
    step: i64,
    /// By how much heavy replicas exceed the target more than now, and nodes, but for the replica added or taken.
    heavy: i64,
    nodes: i64,
}

/// A replica of one expert becomes one of another.
#[derive(Clone, Copy)]
struct ReplicaHandover {
    node: usize,
    loser: usize,
    gainer: usize,
}

impl Tabu {
    /// Improves on `copies`, down to `enough`; returns their value.
    pub fn search(
        &mut self,
        nodes: &NodeExperts,
        key: u32,
        (floor, enough): (i64, i64),
        copies: &mut Copies,
    ) -> i64 {
        let mut best = copies.value(nodes);
        if best <= enough {
            return best;
        }
        self.best.clone_from(copies);
        for until in [&mut self.no_loss, &mut self.no_gain] {
            until.clear();
            until.resize(nodes.experts.len(), 0);
        }
        let mut shift = FIRST_SHIFT;
        let target = |best: i64, shift: u32| floor.max(best - 1 - (best >> shift));
        // What the least excess with this target is less than that of now; `None` where there is none yet.
        let (mut aim, mut gap, mut since) = (target(best, shift), None, 0);
        for iteration in 1..=ITERATIONS {
            match self.best_move(nodes, copies, iteration, (aim, gap)) {
                Some((added, ReplicaHandover { node, loser, gainer })) => {
                    copies.change(nodes, loser, node, false);
                    copies.change(nodes, gainer, node, true);
                    let word = rng::draw(key, rng::TENURE + iteration);
                    let tenure = |word: u32| iteration + TENURE + (word & 0xffff) % TENURES;
                    self.no_loss[gainer] = tenure(word);
                    self.no_gain[loser] = tenure(word >> 16);
                    gap = Some(gap.map_or(0, |gap: i64| (gap - added).clamp(-MOST_GAP, 0)));
                }
                None => {
                    self.no_loss.fill(0);
                    self.no_gain.fill(0);
                }
            }
            let value = copies.value(nodes);
            if value < best {
                best = value;
                self.best.clone_from(copies);
                if best <= enough {
                    break;
                }
                (aim, gap, since) = (target(best, shift), None, 0);
                continue;
            }
            since += 1;
            if since >= PATIENCE {
                break;
            }
            if since % HALVED_AFTER == 0 && shift < LAST_SHIFT {
                shift += 1;
                (aim, gap) = (target(best, shift), None);
            }
        }
        copies.clone_from(&self.best);
        best
    }

    /// The change that leaves the least excess over the target, and what it adds to it; one that is forbidden only where it
    /// leaves less than any did.
    fn best_move(
        &mut self,
        nodes: &NodeExperts,
        copies: &Copies,
        iteration: u32,
        (aim, gap): (i64, Option<i64>),
    ) -> Option<(i64, ReplicaHandover)> {
        self.weigh(nodes, copies, aim);
        let mut best: Option<(i64, ReplicaHandover)> = None;
        for node in 0..nodes.nodes {
            self.offer(nodes, copies, node);
            for &(_, loser) in &self.losers {
                for &(_, gainer) in &self.gainers {
                    let back = u32::from(nodes.homes[loser] != node);
                    let away = u32::from(nodes.homes[gainer] != node);
                    if loser == gainer || copies.foreign + away - back > nodes.most_foreign {
                        continue;
                    }
                    let added = self.both(nodes, copies, node, loser, gainer);
                    let forbidden = self.no_loss[loser] > iteration || self.no_gain[gainer] > iteration;
                    let is_least = best.is_none_or(|(least, _)| added < least);
                    if is_least && !(forbidden && gap.is_some_and(|gap| added >= gap)) {
                        best = Some((added, ReplicaHandover { node, loser, gainer }));
                    }
                }
            }
        }
        best
    }

    /// Weighs each expert with a replica less and with one more.
    fn weigh(&mut self, nodes: &NodeExperts, copies: &Copies, aim: i64) {
        self.excess.clear();
        self.excess.extend(copies.totals.iter().map(|total| total - aim * nodes.gpus));
        let excess = &self.excess;
        let weigh = |expert: usize, count: u32| {
            let share = nodes.loads[expert] / i64::from(count);
            let step = share - copies.shares[expert];
            let before = heavy(nodes, expert, copies.shares[expert], copies.counts[expert], aim);
            let here = &copies.here[expert * nodes.nodes..(expert + 1) * nodes.nodes];
            let changed = excess.iter().zip(here).filter(|(_, here)| **here > 0);
            let of_nodes = changed
                .map(|(&excess, &here)| (excess + i64::from(here) * step).max(0) - excess.max(0))
                .sum::<i64>();
            Changed { share, step, heavy: heavy(nodes, expert, share, count, aim) - before, nodes: of_nodes }
        };
        let all = 0..nodes.experts.len();
        self.less.clear();
        self.less.extend(all.clone().map(|expert| match copies.counts[expert] {
            1 => Changed::default(),
            count => weigh(expert, count - 1),
        }));
        self.more.clear();
        self.more.extend(all.map(|expert| weigh(expert, copies.counts[expert] + 1)));
    }

    /// The experts that would leave least with a replica less in a node, and with one more.
    fn offer(&mut self, nodes: &NodeExperts, copies: &Copies, node: usize) {
        self.losers.clear();
        self.gainers.clear();
        let excess = self.excess[node];
        for expert in 0..nodes.experts.len() {
            let here = i64::from(copies.here[expert * nodes.nodes + node]);
            let at_home = nodes.homes[expert] == node;
            let left = |changed: &Changed, added: i64| {
                let then = excess + here * changed.step;
                let replica = (then + added * changed.share).max(0) - then.max(0);
                changed.heavy + changed.nodes + replica
            };
            if here > i64::from(at_home) {
                keep(&mut self.losers, LOSERS, (left(&self.less[expert], -1), expert));
            }
            if here < i64::from(nodes.most_here) && copies.counts[expert] < nodes.most {
                keep(&mut self.gainers, GAINERS, (left(&self.more[expert], 1), expert));
            }
        }
    }

    /// The excess that a change adds.
    fn both(&self, nodes: &NodeExperts, copies: &Copies, node: usize, loser: usize, gainer: usize) -> i64 {
        let (less, more) = (&self.less[loser], &self.more[gainer]);
        let (of_loser, of_gainer) = (loser * nodes.nodes, gainer * nodes.nodes);
        let mut sum = less.heavy + more.heavy;
        for (n, &excess) in self.excess.iter().enumerate() {
            let changed = i64::from(copies.here[of_loser + n]) * less.step
                + i64::from(copies.here[of_gainer + n]) * more.step;
            let replica = if n == node { more.share - less.share } else { 0 };
            sum += (excess + changed + replica).max(0) - excess.max(0);
        }
        sum
    }
}

/// By how much GPUs with an expert's replicas pass the target, all together: each carries the lightest experts of its home too.
fn heavy(nodes: &NodeExperts, expert: usize, share: i64, count: u32, aim: i64) -> i64 {
    let excess = (share + nodes.beside[nodes.homes[expert]] - aim).max(0);
    (excess * i64::from(count)).min(MOST_HEAVY)
}

/// Keeps the least few, in order.
fn keep(list: &mut Vec<(i64, usize)>, most: usize, item: (i64, usize)) {
    if list.len() == most && list.last().is_some_and(|last| item >= *last) {
        return;
    }
    list.truncate(most - 1);
    let at = list.partition_point(|other| *other < item);
    list.insert(at, item);
}
