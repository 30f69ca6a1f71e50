//! A descent for small layers of one window: step by step the move that makes the heaviest GPU lightest, of all exchanges and
//! transfers. The search of `search.rs` weighs squares too and lets only heavy experts gain replicas, so it may miss that move.

use super::objective::LayerObjective;
use super::search::{State, Trail};
use crate::moves;
use crate::params::{FREE, Params};

/// Layers of more GPUs are left to the search, which has many exchanges to choose from there.
const MOST_GPUS: u32 = 8;

/// So are layers where a step weighs more moves than this.
const MOST_MOVES: u32 = 1 << 14;

/// Steps at most: small layers take fewer than ten.
const MOST_STEPS: usize = 64;

/// Whether layers are of one window, small enough, and such that nodes forbid no move.
pub fn applies(params: &Params) -> bool {
    let slots = params.node_slots * params.nodes;
    params.windows == 1
        && params.most_foreign == 0
        && params.spread_nodes == 1
        && params.node_gpus * params.nodes <= MOST_GPUS
        && params.slots_per_gpu.saturating_mul(slots.saturating_add(params.experts)) <= MOST_MOVES
}

/// The way down from `start`, with at most `most` slots moved for balance. The value of a state is its heaviest GPU.
pub fn descend(
    params: &Params,
    objective: &LayerObjective,
    previous: &[u32],
    start: &[u32],
    most: usize,
) -> Trail {
    let row = start.to_vec();
    let mut descent =
        LayerDescent { params, objective, previous, row, counts: Vec::new(), loads: Vec::new() };
    descent.weigh();
    let mut trail = Trail::default();
    trail.states.push(descent.state(0));
    let most = most.saturating_add(trail.states[0].moved);
    for _ in 0..MOST_STEPS {
        let now = trail.states[trail.states.len() - 1];
        let Some(changes) = descent.best(now, most) else { break };
        for &(slot, expert) in &changes {
            descent.row[slot] = expert;
        }
        descent.weigh();
        let next = descent.state(trail.changes.len() + changes.len());
        // With duplicates a move may come to more moved slots than was weighed.
        if next.priced >= now.priced || next.moved > most {
            break;
        }
        trail.changes.extend(changes);
        trail.states.push(next);
    }
    trail
}

/// A layer on its way.
struct LayerDescent<'a> {
    params: &'a Params,
    objective: &'a LayerObjective,
    previous: &'a [u32],
    row: Vec<u32>,
    /// Replicas of each expert.
    counts: Vec<i32>,
    /// Load of each GPU.
    loads: Vec<i32>,
}

/// Slots and what they hold then.
type Changes = Vec<(usize, u32)>;

/// The heaviest GPU after a move, and how many slots more have moved then.
struct Weighed {
    peak: i32,
    moved: i32,
}

impl LayerDescent<'_> {
    fn weigh(&mut self) {
        self.counts = vec![0; self.params.experts as usize];
        self.row.iter().filter(|&&e| e != FREE).for_each(|&e| self.counts[e as usize] += 1);
        let gpus = self.row.chunks_exact(self.params.slots_per_gpu as usize).enumerate();
        let carried = |(gpu, held): (usize, &[u32])| held.iter().map(|&e| self.share(e, 0, gpu)).sum();
        self.loads = gpus.map(carried).collect();
    }

    /// The load of a replica as it counts on a GPU, where its expert has `more` of them.
    fn share(&self, expert: u32, more: i32, gpu: usize) -> i32 {
        if expert == FREE {
            return 0;
        }
        let load = self.objective.weight[expert as usize] / (self.counts[expert as usize] + more);
        self.params.on_gpu(load as u32, gpu) as i32
    }

    fn state(&self, changes: usize) -> State {
        let moved = moves::received(self.params.slots_per_gpu as usize, self.previous, &self.row);
        State::of_peaks(self.objective, moved, self.loads.iter().copied().max().unwrap_or(0), changes)
    }

    fn gpu(&self, slot: usize) -> usize {
        slot / self.params.slots_per_gpu as usize
    }

    /// The slots of a GPU.
    fn slots(&self, gpu: usize) -> std::ops::Range<usize> {
        let each = self.params.slots_per_gpu as usize;
        gpu * each..(gpu + 1) * each
    }

    /// Whether an expert may come to a GPU.
    fn may(&self, expert: u32, gpu: usize) -> bool {
        expert == FREE || !self.params.avoid_duplicates || !self.row[self.slots(gpu)].contains(&expert)
    }

    /// Moved slots that an expert on a GPU counts as, 0 or 1.
    fn moved(&self, expert: u32, gpu: usize) -> i32 {
        let is_home = expert == FREE || self.previous[self.slots(gpu)].contains(&expert);
        i32::from(!is_home)
    }

    /// The best of all moves that lower the priced value and end with at most `most` slots moved, ties to the first.
    fn best(&self, now: State, most: usize) -> Option<Changes> {
        let heaviest = (0..self.loads.len()).max_by_key(|&gpu| (self.loads[gpu], usize::MAX - gpu))?;
        let node_slots = self.params.node_slots as usize;
        let first = heaviest * self.params.slots_per_gpu as usize / node_slots * node_slots;
        let node = first..first + node_slots;
        let mut experts: Vec<u32> = self.row[node.clone()].iter().copied().filter(|&e| e != FREE).collect();
        experts.sort_unstable();
        experts.dedup();
        let own = self.slots(heaviest);
        let others = || node.clone().filter(|slot| !own.contains(slot));
        let mut best = (now.priced - self.objective.gap, None);
        let mut offer = |found: Option<Weighed>, changes: &dyn Fn() -> Changes| {
            let Some(Weighed { peak, moved }) = found else { return };
            let moved = now.moved as i32 + moved;
            let priced = peak.saturating_add(self.objective.price.saturating_mul(moved));
            if priced < best.0 && moved as usize <= most {
                best = (priced, Some(changes()));
            }
        };
        let mut after = self.loads.clone();
        for i in own.clone() {
            for j in others() {
                let value = self.exchange(i, j, &mut after);
                offer(value, &|| vec![(i, self.row[j]), (j, self.row[i])]);
            }
            // A slot of the heaviest GPU for another expert, and another slot for one of its experts.
            for &y in &experts {
                offer(self.transfer(i, y, &mut after), &|| vec![(i, y)]);
            }
            for slot in others().filter(|_| self.row[i] != FREE) {
                offer(self.transfer(slot, self.row[i], &mut after), &|| vec![(slot, self.row[i])]);
            }
        }
        best.1
    }

    /// Two slots change places. `None` where they must not.
    fn exchange(&self, i: usize, j: usize, after: &mut [i32]) -> Option<Weighed> {
        let (a, g, e, f) = (self.gpu(i), self.gpu(j), self.row[i], self.row[j]);
        if e == f || !self.may(e, g) || !self.may(f, a) {
            return None;
        }
        after.copy_from_slice(&self.loads);
        after[a] += self.share(f, 0, a) - self.share(e, 0, a);
        after[g] += self.share(e, 0, g) - self.share(f, 0, g);
        let moved = self.moved(e, g) + self.moved(f, a) - self.moved(e, a) - self.moved(f, g);
        Some(Weighed { peak: after.iter().copied().max()?, moved })
    }

    /// A slot becomes a replica of `y`. `None` where it must not.
    fn transfer(&self, slot: usize, y: u32, after: &mut [i32]) -> Option<Weighed> {
        let (gpu, x) = (self.gpu(slot), self.row[slot]);
        let count = |expert: u32| self.counts[expert as usize];
        if x == FREE
            || x == y
            || count(x) < 2
            || count(y) as u32 >= self.params.max_count
            || !self.may(y, gpu)
        {
            return None;
        }
        after.copy_from_slice(&self.loads);
        for (at, &held) in self.row.iter().enumerate().filter(|(_, held)| **held == x || **held == y) {
            let gpu = self.gpu(at);
            after[gpu] += match held {
                _ if at == slot => self.share(y, 1, gpu) - self.share(x, 0, gpu),
                held if held == x => self.share(x, -1, gpu) - self.share(x, 0, gpu),
                _ => self.share(y, 1, gpu) - self.share(y, 0, gpu),
            };
        }
        Some(Weighed { peak: after.iter().copied().max()?, moved: self.moved(y, gpu) - self.moved(x, gpu) })
    }
}
