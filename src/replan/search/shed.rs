//! Where GPUs are of unequal speed: the best transfer of a slot of one GPU from its expert to a light one. A slow GPU wants the
//! lightest replicas, and where experts have several it may hold most experts already. Then no exchange makes it lighter, nor
//! does a further replica of an expert that is heavy on it.

use super::{TrailMove, TrailMoveKind, TrailSearch};
use crate::replan::objective::{LayerObjective, Square};

/// The lightest experts that a slot is offered.
const OFFERED: usize = 32;

#[derive(Default)]
pub struct ShedScratch {
    /// Experts that are offered, by what a further replica carries.
    offered: Vec<(i32, usize)>,
    /// Loads of GPUs once the other replicas of the losing expert have grown, `[window][lane]`.
    after: Vec<i32>,
    /// The heaviest of them but for the GPU itself, not below the floor, and what that carries without the slot: `[window]`.
    rest: Vec<i32>,
    own: Vec<i32>,
}

impl TrailSearch {
    /// The best one, or `best` where that is as good. Ties to the lower slot, then to the lighter expert, then to the lower.
    pub(super) fn best_shed(
        &mut self,
        objective: &LayerObjective,
        iteration: u32,
        a: usize,
        mut best: TrailMove,
    ) -> TrailMove {
        let mut scratch = std::mem::take(&mut self.shed);
        self.lay_offered(objective, iteration, a, &mut scratch.offered);
        for slot in 0..self.slots {
            let x = self.expert[slot * self.lanes + a] as usize;
            if self.counts[x] < 2 || self.no_loss[x] > iteration {
                continue;
            }
            let base = self.lay_grown(objective, (x, slot), a, &mut scratch);
            self.work += ((scratch.offered.len() + self.node_lanes) * self.windows) as u32;
            for &(_, y) in scratch.offered.iter().filter(|(_, y)| *y != x) {
                let value = base + self.gain(objective, y, a, &scratch) + self.cost(objective, y, a)
                    - self.cost(objective, x, a);
                if value < best.value {
                    best = TrailMove { value, kind: TrailMoveKind::Transfer { gpu: a, slot, expert: y } };
                }
            }
        }
        self.shed = scratch;
        best
    }

    /// The experts of a GPU's node that it does not hold and that may have a further replica, the lightest of them.
    fn lay_offered(
        &self,
        objective: &LayerObjective,
        iteration: u32,
        a: usize,
        offered: &mut Vec<(i32, usize)>,
    ) {
        offered.clear();
        let node = a / self.node_lanes;
        for y in 0..self.free {
            let is_open = self.counts[y] < self.max_count && self.no_gain[y] <= iteration;
            let is_here = || self.lanes_of(y).next().is_some_and(|lane| lane / self.node_lanes == node);
            if is_open && is_here() && !self.has(&self.held, y, a) {
                let loads = &objective.weight[y * self.windows..(y + 1) * self.windows];
                offered.push((loads.iter().sum::<i32>() / (self.counts[y] + 1) as i32, y));
            }
        }
        offered.sort_unstable();
        offered.truncate(OFFERED);
    }

    /// Lays out the loads once a slot of `a` is taken from `x`; returns the squares of all but `a`, and the price of moves.
    fn lay_grown(
        &self,
        objective: &LayerObjective,
        (x, slot): (usize, usize),
        a: usize,
        scratch: &mut ShedScratch,
    ) -> i32 {
        let mut squares = self.all_squares - self.squares[a];
        let share = |window: usize, count: u32| objective.weight[x * self.windows + window] / count as i32;
        scratch.after.clone_from(&self.gpu);
        scratch.rest.clear();
        scratch.own.clear();
        for window in 0..self.windows {
            let (now, then) = (share(window, self.counts[x]), share(window, self.counts[x] - 1));
            let after = &mut scratch.after[window * self.lanes..(window + 1) * self.lanes];
            let square = objective.squares[window];
            for lane in self.lanes_of(x).filter(|lane| *lane != a) {
                let grown = after[lane] + self.speeds.on_gpu(then, lane) - self.speeds.on_gpu(now, lane);
                squares += self.pulled_change(square, (after[lane], grown), lane);
                after[lane] = grown;
            }
            let load = self.load[(slot * self.windows + window) * self.lanes + a];
            scratch.own.push(after[a] - load);
            after[a] = -1;
            let most = after.iter().fold(self.floors[window], |most, &load| most.max(load));
            scratch.rest.push(most);
        }
        squares + self.price_now(objective)
    }

    /// The heaviest GPUs where that slot becomes a replica of `y`, plus the squares of `a` and the change of those of others.
    /// The heaviest GPU is not looked for anew: where it holds `y`, the result is too large.
    fn gain(&self, objective: &LayerObjective, y: usize, a: usize, scratch: &ShedScratch) -> i32 {
        let mut value = 0;
        for window in 0..self.windows {
            let weight = objective.weight[y * self.windows + window];
            let (now, then) = (weight / self.counts[y] as i32, weight / (self.counts[y] + 1) as i32);
            let own = scratch.own[window] + self.speeds.on_gpu(then, a);
            let square = objective.squares[window];
            value += own.max(scratch.rest[window]) + self.speeds.pulled(square.of(own), a);
            for lane in self.lanes_of(y) {
                let before = scratch.after[window * self.lanes + lane];
                let shrunk = before + self.speeds.on_gpu(then, lane) - self.speeds.on_gpu(now, lane);
                value += self.pulled_change(square, (before, shrunk), lane);
            }
        }
        value
    }

    /// By how much the square of a GPU changes.
    fn pulled_change(&self, square: Square, (before, after): (i32, i32), lane: usize) -> i32 {
        self.speeds.pulled(square.of(after), lane) - self.speeds.pulled(square.of(before), lane)
    }

    /// The lanes that hold an expert.
    fn lanes_of(&self, expert: usize) -> impl Iterator<Item = usize> + '_ {
        let words = &self.held[expert * self.words..(expert + 1) * self.words];
        words.iter().enumerate().flat_map(|(at, &word)| {
            let mut held = word;
            std::iter::from_fn(move || {
                let bit = (held != 0).then(|| held.trailing_zeros() as usize)?;
                held &= held - 1;
                Some(at * 32 + bit)
            })
        })
    }
}
