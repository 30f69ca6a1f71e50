//! The best exchange of a slot of one GPU for a slot of another of its node.

use super::{ABREAST, TrailMove, TrailMoveKind, TrailSearch};
use crate::loads::MAX_WINDOWS;
use crate::mirror::abreast::refill;
use crate::mirror::rng;
use crate::params::over_speed;
use crate::replan::objective::{LayerObjective, pulled};

/// GPUs abreast.
type Abreast = [i32; ABREAST];

/// An iteration weighs about this many loads at most: with more slots than that allows, some of the GPU's are offered.
const SCAN: usize = 1 << 20;

/// How many of a GPU's slots an iteration offers, where nodes have this many lanes.
pub fn offered(slots: usize, node_lanes: usize, windows: usize) -> usize {
    slots.min((SCAN / (slots * node_lanes * windows)).max(1))
}

/// The value of an exchange that must not be made: above all others.
const NEVER: i32 = i32::MAX;

#[derive(Default)]
pub struct ExchangeScratch {
    /// How far above the mean the heaviest of the GPUs is that an exchange leaves alone, raised to the floor:
    /// `[window][lane]`.
    rest: Vec<i32>,
    /// The price of taking each slot; and [`NEVER`] where it must not be taken, 0 where it may: `[slot][lane]`.
    take: Vec<i32>,
    never: Vec<i32>,
    /// Whether any slot of a block of GPUs may be taken: `[slot][block]`.
    open: Vec<bool>,
    /// With unequal speeds, what each slot counts on the GPU that takes it: `[slot][window][lane]`.
    taken: Vec<i32>,
    /// And what the slot that it gives counts on each of the others: `[window][lane]`.
    given: Vec<i32>,
    /// The value of an exchange with each slot of a block of GPUs.
    values: Vec<Abreast>,
}

/// A slot that a GPU offers, with what its exchanges have in common.
struct Offer {
    /// The GPU, the first lane of its node, the slot and its expert.
    gpu: usize,
    low: usize,
    slot: usize,
    expert: usize,
    /// How far above the mean the GPU is without the slot, and the load of the slot, window by window.
    rest: [i32; MAX_WINDOWS],
    load: [i32; MAX_WINDOWS],
    /// The means of all windows, the squares of all GPUs but this one, and the price of the moves as they are.
    others: i32,
    /// The price of the expert where it is.
    leaves: i32,
}

/// The best exchange so far: its value, and its number, by which ties go.
type BestExchange = (i32, usize);

impl TrailSearch {
    /// The best exchange of GPU `a`. Ties go to the lower slot of `a`, then of the other, then to the lower GPU.
    #[inline(always)]
    pub(super) fn best_exchange<const SPEEDS: bool>(
        &mut self,
        objective: &LayerObjective,
        key: u32,
        iteration: u32,
        a: usize,
    ) -> TrailMove {
        let mut scratch = std::mem::take(&mut self.exchange);
        let (n, slots, windows) = (self.node_lanes, self.slots, self.windows);
        let low = a / n * n;
        self.lay_rest(objective, a, low, &mut scratch);
        self.lay_takes(objective, iteration, a, low, &mut scratch);
        if SPEEDS {
            self.lay_taken(a, low, &mut scratch);
        }
        let is_near = !SPEEDS && self.is_before_line(objective, low);
        let others = self.all_squares.wrapping_sub(self.squares[a]).wrapping_add(self.price_now(objective));
        let others = others.wrapping_add(objective.mean);
        let offered = offered(slots, n, windows);
        let first = match offered == slots {
            true => 0,
            false => rng::below(rng::draw(key, rng::OFFERS + iteration), slots as u32) as usize,
        };
        self.work += (offered * slots * n * windows) as u32;
        let mut best = (NEVER, usize::MAX);
        for slot in (0..offered).map(|i| (first + i) % slots) {
            if self.tabu[slot * self.lanes + a] > iteration {
                continue;
            }
            let expert = self.expert[slot * self.lanes + a] as usize;
            let leaves = self.cost(objective, expert, a);
            let (mut rest, mut load) = ([0; MAX_WINDOWS], [0; MAX_WINDOWS]);
            for window in 0..windows {
                load[window] = self.load[(slot * windows + window) * self.lanes + a];
                rest[window] =
                    self.gpu[window * self.lanes + a] - load[window] - objective.squares[window].mean();
            }
            if SPEEDS {
                self.lay_given(slot, a, low, &mut scratch);
            }
            let offer = Offer { gpu: a, low, slot, expert, rest, load, others, leaves };
            for block in (0..n).step_by(ABREAST) {
                match is_near {
                    true => self.offer_to::<SPEEDS, false>(objective, &offer, block, &mut scratch, &mut best),
                    false => self.offer_to::<SPEEDS, true>(objective, &offer, block, &mut scratch, &mut best),
                }
            }
        }
        self.exchange = scratch;
        if best.0 == NEVER {
            return TrailMove { value: NEVER, kind: TrailMoveKind::None };
        }
        let (pair, g) = (best.1 / n, low + best.1 % n);
        TrailMove {
            value: best.0,
            kind: TrailMoveKind::Exchange { gpus: [a, g], slots: [pair / slots, pair % slots] },
        }
    }

    /// Weighs the exchanges of an offered slot with all slots of a block of GPUs.
    #[inline(always)]
    fn offer_to<const SPEEDS: bool, const LINE: bool>(
        &mut self,
        objective: &LayerObjective,
        offer: &Offer,
        block: usize,
        scratch: &mut ExchangeScratch,
        best: &mut BestExchange,
    ) {
        let (n, slots, e) = (self.node_lanes, self.slots, offer.expert);
        let (mut least, mut at) = ([NEVER; ABREAST], [0; ABREAST]);
        let (mut base, mut never) = ([0; ABREAST], [0; ABREAST]);
        for lane in 0..ABREAST {
            let g = offer.low + block + lane;
            base[lane] = offer.others - self.squares[g] + self.cost(objective, e, g) - offer.leaves;
            let may = !self.has(&self.held, e, g) && self.may_go(e, offer.gpu, g);
            never[lane] = if may { 0 } else { NEVER };
        }
        refill(&mut scratch.values, slots, base);
        self.weigh_exchanges::<SPEEDS, LINE>(objective, offer, block, scratch);
        for (j, value) in scratch.values.iter().enumerate() {
            if !scratch.open[j * (n / ABREAST) + block / ABREAST] {
                continue;
            }
            let here = j * n + block;
            let (take, closed): (&Abreast, &Abreast) =
                (lanes(&scratch.take, here), lanes(&scratch.never, here));
            if self.links.price > 0 {
                let bar = best.0.saturating_add(self.links.hope(2));
                for lane in 0..ABREAST {
                    let value = value[lane].wrapping_add(take[lane]);
                    if never[lane].max(closed[lane]) == NEVER || value >= bar {
                        continue;
                    }
                    let g = offer.low + block + lane;
                    let other = self.expert[j * self.lanes + g] as usize;
                    let value = value.saturating_add(self.exchange_links((e, offer.gpu), (other, g)));
                    *best = (*best).min((value, (offer.slot * slots + j) * n + block + lane));
                }
                continue;
            }
            for lane in 0..ABREAST {
                let value = value[lane].wrapping_add(take[lane]).max(never[lane]).max(closed[lane]);
                let is_less = value < least[lane];
                least[lane] = if is_less { value } else { least[lane] };
                at[lane] = if is_less { j as i32 } else { at[lane] };
            }
        }
        for lane in 0..ABREAST {
            let number = (offer.slot * slots + at[lane] as usize) * n + block + lane;
            if least[lane] < NEVER {
                *best = (*best).min((least[lane], number));
            }
        }
    }

    /// Adds to the values of a block what its GPUs and this one come to once an offered slot has changed places with each of
    /// their slots. Window after window, so that what a window has in common is laid out once.
    #[inline(always)]
    fn weigh_exchanges<const SPEEDS: bool, const LINE: bool>(
        &self,
        objective: &LayerObjective,
        offer: &Offer,
        block: usize,
        scratch: &mut ExchangeScratch,
    ) {
        let (n, windows, at) = (self.node_lanes, self.windows, offer.low + block);
        for window in 0..windows {
            let square = objective.squares[window];
            let rest = *lanes(&scratch.rest, window * n + block);
            let given: &Abreast = if SPEEDS {
                lanes(&scratch.given, window * n + block)
            } else {
                &[offer.load[window]; ABREAST]
            };
            let mut there = *lanes(&self.gpu, window * self.lanes + at);
            for lane in 0..ABREAST {
                there[lane] += given[lane] - square.mean();
            }
            let without = offer.rest[window];
            for (j, value) in scratch.values.iter_mut().enumerate() {
                let loads = *lanes(&self.load, (j * windows + window) * self.lanes + at);
                if SPEEDS {
                    let taken: &Abreast = lanes(&scratch.taken, (j * windows + window) * n + block);
                    let pulls: &Abreast = lanes(&self.speeds.pulls, at);
                    for lane in 0..ABREAST {
                        let x = without.wrapping_add(taken[lane]);
                        let y = there[lane].wrapping_sub(loads[lane]);
                        let most = x.max(y).max(rest[lane]);
                        value[lane] = value[lane]
                            .wrapping_add(most)
                            .wrapping_add(pulled(square.of_above::<LINE>(x), self.speeds.pulls[offer.gpu]))
                            .wrapping_add(pulled(square.of_above::<LINE>(y), pulls[lane]));
                    }
                    continue;
                }
                let mut sum = *value;
                for lane in 0..ABREAST {
                    let x = without.wrapping_add(loads[lane]);
                    let y = there[lane].wrapping_sub(loads[lane]);
                    let most = x.max(y).max(rest[lane]);
                    sum[lane] = sum[lane]
                        .wrapping_add(most)
                        .wrapping_add(square.of_above::<LINE>(x))
                        .wrapping_add(square.of_above::<LINE>(y));
                }
                *value = sum;
            }
        }
    }

    /// Whether no exchange in the node from `low` on brings a GPU to where the line of the squares begins.
    #[inline(always)]
    fn is_before_line(&self, objective: &LayerObjective, low: usize) -> bool {
        let mut most = [[0; ABREAST]; MAX_WINDOWS];
        for slot in 0..self.slots {
            for (window, most) in most.iter_mut().enumerate().take(self.windows) {
                let first = (slot * self.windows + window) * self.lanes + low;
                for block in (0..self.node_lanes).step_by(ABREAST) {
                    let loads: &Abreast = lanes(&self.load, first + block);
                    for lane in 0..ABREAST {
                        most[lane] = most[lane].max(loads[lane]);
                    }
                }
            }
        }
        let mut windows = self.tops.iter().zip(&objective.squares).zip(most);
        windows.all(|((tops, square), most)| {
            let most = most.into_iter().fold(0, i32::max);
            tops[0].load.saturating_add(most) <= square.line()
        })
    }

    /// Lays out the loads of the node's slots as they count on `a`, where speeds are unequal.
    #[inline(always)]
    fn lay_taken(&self, a: usize, low: usize, scratch: &mut ExchangeScratch) {
        scratch.taken.clear();
        for at in (0..self.slots * self.windows).map(|at| at * self.lanes + low) {
            let plain = &self.speeds.plain[at..at + self.node_lanes];
            scratch
                .taken
                .extend(plain.iter().map(|&load| over_speed(load as u32, self.speeds.factors[a]) as i32));
        }
    }

    /// Lays out the load of slot `i` of `a` as it counts on the GPUs of the node, where speeds are unequal.
    #[inline(always)]
    fn lay_given(&self, i: usize, a: usize, low: usize, scratch: &mut ExchangeScratch) {
        scratch.given.clear();
        let factors = &self.speeds.factors[low..low + self.node_lanes];
        for window in 0..self.windows {
            let load = self.speeds.plain[(i * self.windows + window) * self.lanes + a] as u32;
            scratch.given.extend(factors.iter().map(|&factor| over_speed(load, factor) as i32));
        }
    }

    /// Lays out, for each window and each other GPU of the node, how far above the mean the heaviest GPU but that one and `a`
    /// is, raised to the floor.
    #[inline(always)]
    fn lay_rest(&self, objective: &LayerObjective, a: usize, low: usize, scratch: &mut ExchangeScratch) {
        let n = self.node_lanes;
        scratch.rest.clear();
        for ((tops, &floor), square) in self.tops.iter().zip(&self.floors).zip(&objective.squares) {
            let above = |load: i32| load.max(floor) - square.mean();
            let mut others = tops.iter().filter(|top| top.gpu != a);
            let (first, second) = (others.next(), others.next());
            let most = above(first.map_or(0, |top| top.load));
            let begin = scratch.rest.len();
            scratch.rest.resize(begin + n, most);
            if let Some(first) = first.filter(|top| (low..low + n).contains(&top.gpu)) {
                scratch.rest[begin + first.gpu - low] = above(second.map_or(0, |top| top.load));
            }
        }
    }

    /// Lays out the price of taking each slot of the node for `a`, and which of them must not be taken.
    #[inline(always)]
    fn lay_takes(
        &self,
        objective: &LayerObjective,
        iteration: u32,
        a: usize,
        low: usize,
        scratch: &mut ExchangeScratch,
    ) {
        let n = self.node_lanes;
        scratch.take.clear();
        scratch.never.clear();
        scratch.open.clear();
        for j in 0..self.slots {
            for block in (0..n).step_by(ABREAST) {
                let mut open = false;
                for lane in block..block + ABREAST {
                    let (g, at) = (low + lane, j * self.lanes + low + lane);
                    let e = self.expert[at] as usize;
                    let may = lane < self.node_gpus
                        && g != a
                        && self.tabu[at] <= iteration
                        && !self.has(&self.held, e, a)
                        && self.may_go(e, g, a);
                    scratch.never.push(if may { 0 } else { NEVER });
                    let cost = if may { self.cost(objective, e, a) - self.cost(objective, e, g) } else { 0 };
                    scratch.take.push(cost);
                    open |= may;
                }
                scratch.open.push(open);
            }
        }
    }
}

/// Lanes from a place on.
#[inline(always)]
pub fn lanes(array: &[i32], at: usize) -> &Abreast {
    array[at..].first_chunk().unwrap_or(&[0; ABREAST])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iteration_weighs_about_a_million_loads_and_offers_one_slot_at_least() {
        for (slots, node_lanes, windows, expected) in [
            (8, 64, 4, 8),
            (64, 256, 1, 64),
            (64, 256, 2, 32),
            (64, 256, 16, 4),
            (32, 512, 5, 12),
            (1024, 1024, 1, 1),
            (1024, 2048, 16, 1),
        ] {
            assert_eq!(offered(slots, node_lanes, windows), expected, "{slots} {node_lanes} {windows}");
        }
    }
}
