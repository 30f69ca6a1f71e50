//! The best transfer: a slot becomes a replica of another expert.
//!
//! The expert that loses a replica, `x`, weighs more on the GPUs that still hold it; the one that gains, `y`, weighs
//! less. Only transfers with one of the two on the proposing GPU can lower it: a slot of the GPU goes to the expert
//! whose replicas are then the lightest, or an expert of the GPU gains a replica elsewhere.

use super::exchange::first_slots;
use super::{NodeMove, NodeMoveKind, NodeSearch, Now};
use crate::mirror::abreast::{Top, refill};
use crate::mirror::rng;
use crate::params::{BLOCKED, FREE, over_speed};

/// Experts with several replicas, and where these are.
#[derive(Default)]
pub struct SharedExperts {
    /// The iteration in which an expert may lose a replica.
    may_lose: Vec<u32>,
    /// The two heaviest holders of an expert once it has a replica less, `[expert][window]`; of the experts
    /// that may lose one.
    peaks: Vec<[Top; 2]>,
    /// Their replicas, by GPU and slot.
    replicas: Vec<Replica>,
    /// Load of a replica of each expert once it has one more, `[expert][window]`.
    lighter: Vec<i32>,
}

/// A replica of an expert that may lose one.
#[derive(Clone, Copy)]
struct Replica {
    gpu: usize,
    slot: usize,
    expert: usize,
}

impl NodeSearch {
    /// The best transfer below `limit`. Ties go to slots of the heaviest GPU, then to the lower expert of it, GPU and
    /// slot.
    #[inline(always)]
    pub(super) fn best_transfer(&mut self, now: &Now<'_>, limit: i32) -> NodeMove {
        self.find_peaks(now);
        let mut best = NodeMove { value: limit, kind: NodeMoveKind::None };
        self.replace_own(now, &mut best);
        self.add_elsewhere(now, &mut best);
        best
    }

    /// Forgets an earlier candidate.
    #[inline(always)]
    pub(super) fn begin_transfers(&mut self) {
        let (experts, windows) = (self.counts.len(), self.windows);
        let none = [Top { gpu: usize::MAX, load: -1 }; 2];
        let SharedExperts { may_lose, peaks, lighter, .. } = &mut self.transfer;
        refill(may_lose, experts, 0);
        refill(peaks, experts * windows, none);
        refill(lighter, experts * windows, 0);
        for expert in 0..experts {
            self.weigh_lighter(expert);
        }
    }

    /// Sets what a replica of an expert weighs once it has one more.
    #[inline(always)]
    fn weigh_lighter(&mut self, expert: usize) {
        for at in expert * self.windows..(expert + 1) * self.windows {
            self.transfer.lighter[at] = self.weight[at] / (self.counts[expert] as i32 + 1);
        }
    }

    /// Finds the peaks of the experts that may lose a replica, and their replicas: of all with several, or of some of
    /// them where that would take too long.
    #[inline(always)]
    fn find_peaks(&mut self, now: &Now<'_>) {
        let (windows, iteration) = (self.windows, now.iteration);
        let (several, most) = (self.replicated.len(), now.params.losers as usize);
        let word = rng::draw(now.key, rng::LOSERS + iteration);
        let first = if several <= most { 0 } else { rng::below(word, several as u32) as usize };
        let SharedExperts { may_lose, peaks, replicas, .. } = &mut self.transfer;
        let factors = &self.factors;
        for i in 0..several.min(most) {
            let x = self.replicated[(first + i) % several] as usize;
            if self.no_loss[x] <= iteration {
                may_lose[x] = iteration;
                peaks[x * windows..(x + 1) * windows].fill([Top { gpu: usize::MAX, load: -1 }; 2]);
            }
        }
        replicas.clear();
        for gpu in 0..self.gpus {
            for slot in 0..self.slots {
                let expert = self.expert[slot * self.lanes + gpu];
                if expert == FREE || may_lose[expert as usize] != iteration {
                    continue;
                }
                let x = expert as usize;
                replicas.push(Replica { gpu, slot, expert: x });
                for w in 0..windows {
                    let lost = self.load[(slot * windows + w) * self.lanes + gpu];
                    let then = self.weight[x * windows + w] / (self.counts[x] as i32 - 1);
                    let then = match factors.is_empty() {
                        true => then,
                        false => over_speed(then as u32, factors[gpu]) as i32,
                    };
                    let load = self.gpu[w * self.lanes + gpu] + then - lost;
                    let [first, second] = &mut peaks[x * windows + w];
                    if load > first.load {
                        *second = *first;
                        *first = Top { gpu, load };
                    } else {
                        second.load = second.load.max(load);
                    }
                }
            }
        }
    }

    /// The heaviest holder of `x` other than `gpu` once it has a replica less.
    #[inline(always)]
    fn peak_without(&self, x: usize, window: usize, gpu: usize) -> i32 {
        let [first, second] = self.transfer.peaks[x * self.windows + window];
        if first.gpu == gpu { second.load } else { first.load }
    }

    /// The heaviest GPU of a window that is neither of two, not below the floor; with one window nothing, since the
    /// objective is then that of the GPUs that change.
    #[inline(always)]
    fn rest_of(&self, window: usize, a: usize, b: usize) -> i32 {
        if self.windows == 1 {
            return 0;
        }
        let mut load = -1;
        for top in self.tops[window].iter().rev() {
            load = if top.gpu != a && top.gpu != b { top.load } else { load };
        }
        load.max(self.floors[window])
    }

    /// The load of a replica of `y` on a GPU once it has one more.
    #[inline(always)]
    fn lighter(&self, y: usize, window: usize, gpu: usize) -> i32 {
        self.on_gpu(self.transfer.lighter[y * self.windows + window], gpu)
    }

    /// Whether an expert may gain a replica.
    #[inline(always)]
    fn may_gain(&self, now: &Now<'_>, y: usize) -> bool {
        self.counts[y] < now.params.max_count && self.no_gain[y] <= now.iteration
    }

    /// A slot of the heaviest GPU goes to the expert that is not on it and whose replicas are the lightest then.
    #[inline(always)]
    fn replace_own(&mut self, now: &Now<'_>, best: &mut NodeMove) {
        let (windows, a) = (self.windows, now.heavy);
        let mut lightest = (BLOCKED, usize::MAX);
        for y in 0..self.counts.len() {
            let mut load = 0;
            for w in 0..windows {
                load += self.lighter(y, w, a);
            }
            if load < lightest.0 && self.may_gain(now, y) && !self.holds(a, y as u32) {
                lightest = (load, y);
            }
        }
        let y = lightest.1;
        if y == usize::MAX {
            return;
        }
        for slot in 0..self.slots {
            let x = self.expert[slot * self.lanes + a];
            if x == FREE || self.transfer.may_lose[x as usize] != now.iteration {
                continue;
            }
            let x = x as usize;
            let value = |w: usize| {
                let lost = self.load[(slot * windows + w) * self.lanes + a];
                let own = self.gpu[w * self.lanes + a] - lost + self.lighter(y, w, a);
                own.max(self.peak_without(x, w, a)).max(self.rest_of(w, a, a))
            };
            let value = total(windows, value);
            if value < best.value {
                *best = NodeMove { value, kind: NodeMoveKind::Transfer { gpu: a, slot, expert: y as u32 } };
            }
        }
    }

    /// An expert of the heaviest GPU gains a replica in a slot elsewhere.
    #[inline(always)]
    fn add_elsewhere(&mut self, now: &Now<'_>, best: &mut NodeMove) {
        let &Now { params, heavy: a, .. } = now;
        let windows = self.windows;
        let (first, _) = first_slots(now);
        for i in 0..params.gainers as usize {
            let own = (first + i) % self.slots;
            let y = self.expert[own * self.lanes + a];
            if y == FREE || !self.may_gain(now, y as usize) {
                continue;
            }
            let y = y as usize;
            for at in 0..self.transfer.replicas.len() {
                let Replica { gpu, slot, expert: x } = self.transfer.replicas[at];
                if gpu == a || x == y {
                    continue;
                }
                let value = |w: usize| {
                    let at_home = self.load[(own * windows + w) * self.lanes + a];
                    let lost = self.load[(slot * windows + w) * self.lanes + gpu];
                    let own = self.gpu[w * self.lanes + a] - at_home + self.lighter(y, w, a);
                    let there = self.gpu[w * self.lanes + gpu] - lost + self.lighter(y, w, gpu);
                    own.max(there).max(self.peak_without(x, w, gpu)).max(self.rest_of(w, a, gpu))
                };
                let value = total(windows, value);
                if value < best.value && !(params.avoid_duplicates && self.holds(gpu, y as u32)) {
                    *best = NodeMove { value, kind: NodeMoveKind::Transfer { slot, gpu, expert: y as u32 } };
                }
            }
        }
    }

    /// Makes a transfer: the counts of two experts change, and with them the loads of all their replicas.
    #[inline(always)]
    pub(super) fn transfer(&mut self, slot: usize, gpu: usize, y: u32) {
        let x = std::mem::replace(&mut self.expert[slot * self.lanes + gpu], y);
        self.counts[x as usize] -= 1;
        self.counts[y as usize] += 1;
        if self.counts[x as usize] == 1 {
            let at = self.replicated.iter().position(|&e| e == x);
            at.map(|at| self.replicated.swap_remove(at));
        }
        if self.counts[y as usize] == 2 {
            self.replicated.push(y);
        }
        self.weigh_lighter(x as usize);
        self.weigh_lighter(y as usize);
        for slot in 0..self.slots {
            for gpu in 0..self.gpus {
                let expert = self.expert[slot * self.lanes + gpu];
                if expert == x || expert == y {
                    self.weigh_slot(slot, gpu);
                }
            }
        }
    }
}

/// The sum over windows, not above what is blocked.
#[inline(always)]
fn total(windows: usize, value: impl Fn(usize) -> i32) -> i32 {
    let mut sum = 0;
    for window in 0..windows {
        sum = (sum + value(window)).min(BLOCKED);
    }
    sum
}
