//! The best transfer: a slot of a node becomes a further replica of the heaviest expert on one of its GPUs.

use super::exchange::lanes;
use super::{ABREAST, TrailMove, TrailMoveKind, TrailSearch};
use crate::params::over_speed;
use crate::replan::objective::{LayerObjective, pulled};

#[derive(Default)]
pub struct TransferScratch {
    /// Loads of GPUs once the replicas of the gaining expert have shrunk, `[window][lane]`.
    after: Vec<i32>,
    /// The heaviest of them but for each lane of the node, not below the floor: `[window][lane of the node]`.
    rest: Vec<i32>,
    /// The load of a new replica, window by window.
    share: Vec<i32>,
    /// With unequal speeds, that load as it counts on each GPU of the node: `[window][lane of the node]`.
    counts: Vec<i32>,
}

impl TrailSearch {
    /// The best transfer that relieves GPU `a`, or `found` where that is as good. Ties to the lower slot, then GPU.
    #[inline(always)]
    pub(super) fn best_transfer<const SPEEDS: bool>(
        &mut self,
        objective: &LayerObjective,
        iteration: u32,
        a: usize,
        found: TrailMove,
    ) -> TrailMove {
        let load = |slot: usize| -> i32 {
            (0..self.windows).map(|w| self.load[(slot * self.windows + w) * self.lanes + a]).sum()
        };
        let heaviest =
            (0..self.slots).fold(0, |most, slot| if load(slot) > load(most) { slot } else { most });
        let y = self.expert[heaviest * self.lanes + a] as usize;
        if y == self.free || self.counts[y] >= self.max_count || self.no_gain[y] > iteration {
            return found;
        }
        let mut scratch = std::mem::take(&mut self.transfer);
        let best = self.transfers_of::<SPEEDS>(objective, iteration, a, y, found, &mut scratch);
        self.transfer = scratch;
        best
    }

    #[inline(always)]
    fn transfers_of<const SPEEDS: bool>(
        &mut self,
        objective: &LayerObjective,
        iteration: u32,
        a: usize,
        y: usize,
        mut best: TrailMove,
        scratch: &mut TransferScratch,
    ) -> TrailMove {
        let windows = self.windows;
        let (low, n) = self.reach(a);
        self.work += (self.slots * n * windows) as u32;
        let shrunk = self.shrink(objective, y, (low, n), scratch);
        let base = self.all_squares + shrunk + self.price_now(objective);
        for q in 0..self.slots {
            for block in (0..n).step_by(ABREAST) {
                let mut may = [false; ABREAST];
                for (lane, may) in may.iter_mut().enumerate() {
                    let g = low + block + lane;
                    let x = self.expert[q * self.lanes + g] as usize;
                    *may = self.counts[x] > 1
                        && x != y
                        && self.no_loss[x] <= iteration
                        && !self.has(&self.held, y, g)
                        && self.may_hand_over(x, y, g);
                }
                if !may.contains(&true) {
                    continue;
                }
                let mut value = [base; ABREAST];
                for window in 0..windows {
                    let square = objective.squares[window];
                    let at = low + block;
                    let loads = lanes(&self.load, (q * windows + window) * self.lanes + at);
                    let gpus = lanes(&scratch.after, window * self.lanes + at);
                    let rest = lanes(&scratch.rest, window * n + block);
                    if SPEEDS {
                        let counts = lanes(&scratch.counts, window * n + block);
                        let pulls = lanes(&self.speeds.pulls, at);
                        for lane in 0..ABREAST {
                            let here = gpus[lane].wrapping_sub(loads[lane]).wrapping_add(counts[lane]);
                            let squares = pulled(square.of(here), pulls[lane]);
                            value[lane] =
                                value[lane].wrapping_add(here.max(rest[lane])).wrapping_add(squares);
                        }
                        continue;
                    }
                    for lane in 0..ABREAST {
                        let here = gpus[lane].wrapping_sub(loads[lane]).wrapping_add(scratch.share[window]);
                        value[lane] =
                            value[lane].wrapping_add(here.max(rest[lane])).wrapping_add(square.of(here));
                    }
                }
                for lane in 0..ABREAST {
                    let g = low + block + lane;
                    let x = self.expert[q * self.lanes + g] as usize;
                    if !may[lane] {
                        continue;
                    }
                    let paid = self.cost(objective, y, g) - self.cost(objective, x, g);
                    let value = value[lane].wrapping_sub(self.squares[g]).wrapping_add(paid);
                    let hope = self.links.hope(1);
                    if value < best.value.saturating_add(hope) {
                        let mut value =
                            value.wrapping_add(self.growth(objective, x, (q, g), (block + lane, n), scratch));
                        if self.links.price > 0 && value < best.value.saturating_add(hope) {
                            value = value.saturating_add(self.transfer_links(x, y, g));
                        }
                        if value < best.value {
                            best = TrailMove {
                                value,
                                kind: TrailMoveKind::Transfer { gpu: g, slot: q, expert: y },
                            };
                        }
                    }
                }
            }
        }
        best
    }

    /// Lays out the loads once the replicas of `y` share with one more; returns by how much the squares change.
    #[inline(always)]
    fn shrink(
        &mut self,
        objective: &LayerObjective,
        y: usize,
        (low, n): (usize, usize),
        scratch: &mut TransferScratch,
    ) -> i32 {
        let windows = self.windows;
        scratch.after.clone_from(&self.gpu);
        scratch.rest.clear();
        scratch.share.clear();
        scratch.counts.clear();
        let mut change = 0;
        for window in 0..windows {
            let weight = objective.weight[y * windows + window];
            let (share, before) = (weight / (self.counts[y] + 1) as i32, weight / self.counts[y] as i32);
            scratch.share.push(share);
            let of_node = self.speeds.factors.iter().skip(low).take(n);
            scratch.counts.extend(of_node.map(|&factor| over_speed(share as u32, factor) as i32));
            let after = &mut scratch.after[window * self.lanes..(window + 1) * self.lanes];
            let square = objective.squares[window];
            for (lane, load) in after.iter_mut().enumerate().skip(low).take(n) {
                if self.held[y * self.words + lane / 32] >> (lane % 32) & 1 != 0 {
                    let less = self.speeds.on_gpu(before, lane) - self.speeds.on_gpu(share, lane);
                    change += self.speeds.pulled(square.of(*load - less), lane)
                        - self.speeds.pulled(square.of(*load), lane);
                    *load -= less;
                }
            }
            let (mut first, mut second, mut at) = (-1, -1, 0);
            for (lane, &load) in after.iter().enumerate() {
                if load > first {
                    (second, first, at) = (first, load, lane);
                } else if load > second {
                    second = load;
                }
            }
            let floor = self.floors[window];
            let begin = scratch.rest.len();
            scratch.rest.resize(begin + n, first.max(floor));
            if (low..low + n).contains(&at) {
                scratch.rest[begin + at - low] = second.max(floor);
            }
        }
        change
    }

    /// By how much the value rises as the other replicas of `x` take over the share of the one in slot `q` of `g`.
    #[inline(always)]
    fn growth(
        &self,
        objective: &LayerObjective,
        x: usize,
        (q, g): (usize, usize),
        (lane, n): (usize, usize),
        scratch: &TransferScratch,
    ) -> i32 {
        let windows = self.windows;
        let others = (self.counts[x] - 1) as i32;
        let mut rise = 0;
        for window in 0..windows {
            let at = (q * windows + window) * self.lanes + g;
            let load = self.load[at];
            let weight = objective.weight[x * windows + window];
            let (share, before) =
                (weight / others, if self.speeds.are_equal() { load } else { self.speeds.plain[at] });
            let after = &scratch.after[window * self.lanes..(window + 1) * self.lanes];
            let square = objective.squares[window];
            let here = after[g] - load + self.speeds.on_gpu(scratch.share[window], g);
            let least = here.max(scratch.rest[window * n + lane]);
            let mut most = least;
            for word in 0..self.words {
                let mut held = self.held[x * self.words + word];
                while held != 0 {
                    let other = word * 32 + held.trailing_zeros() as usize;
                    held &= held - 1;
                    if other != g {
                        let grown = after[other] + self.speeds.on_gpu(share, other)
                            - self.speeds.on_gpu(before, other);
                        most = most.max(grown);
                        rise += self.speeds.pulled(square.of(grown), other)
                            - self.speeds.pulled(square.of(after[other]), other);
                    }
                }
            }
            rise += most - least;
        }
        rise
    }
}
