//! The best exchange of one GPU with any other: a slot for a slot, or two for two.
//!
//! To exchange slots whose loads differ by `d` takes `d` from the first GPU and gives it to the other. A slot that
//! must not move has a load that no exchange wants: far below zero on the giving side, far above on the other.
//!
//! Where GPUs are of unequal speed a load counts otherwise on each of the two GPUs: there are two lists of loads.

use super::{ABREAST, NodeMove, NodeMoveKind, NodeSearch, Now};
use crate::mirror::rng;
use crate::params::{BLOCKED, FREE, over_speed, pairs};

/// GPUs abreast.
type Abreast = [i32; ABREAST];

/// The loads that may be exchanged.
#[derive(Default)]
pub struct ExchangeLoads {
    /// Slots of the heaviest GPU, as each other GPU may have them: `[slot][window][lanes]`.
    give: Vec<i32>,
    /// Slots of each GPU, as the heaviest one may have them: `[slot][window][lanes]`.
    take: Vec<i32>,
    /// For each window the heaviest of the GPUs that an exchange leaves alone, not below the floor: `[window][lanes]`.
    rest: Vec<i32>,
    /// For some GPUs abreast, the loads that the heaviest one gives, and those it takes: `[slot or pair][window]`.
    gives: Vec<Abreast>,
    takes: Vec<Abreast>,
    /// With unequal speeds, the same four as they count on the other GPU.
    give_there: Vec<i32>,
    take_there: Vec<i32>,
    gives_there: Vec<Abreast>,
    takes_there: Vec<Abreast>,
    /// For the same GPUs, the loads of the two after the first gave: `[window]`.
    own: Vec<Abreast>,
    other: Vec<Abreast>,
}

/// The best exchange so far of each of some GPUs abreast.
struct BestExchanges {
    value: Abreast,
    code: Abreast,
}

impl NodeSearch {
    /// The best exchange. Ties go to one slot for one, then to the lower GPU, then to lower slots.
    #[inline(always)]
    pub(super) fn best_exchange(&mut self, now: &Now<'_>) -> NodeMove {
        let &Now { params, heavy: a, .. } = now;
        let (own, other) = first_slots(now);
        let slots = self.slots;
        let at = |first: usize, i: usize| (first + i) % slots;
        self.offer_slots(now, own, other);
        let n = params.exchange_slots as usize;
        let mut found = NodeMove::NONE;
        let (best, gpu, code) = self.weigh_all::<false>(n, a);
        if best < BLOCKED {
            let first = (at(own, code / n), at(other, code % n));
            found = NodeMove { value: best, kind: NodeMoveKind::Exchange { gpu, first, second: None } };
        }
        let n = params.pair_slots as usize;
        if n >= 4 && self.windows == 1 && (n <= 5 || found.value >= now.value) {
            let (best, gpu, code) = self.weigh_all::<true>(n, a);
            if best < found.value {
                let pairs = pairs(n as u32) as usize;
                let ((i, i2), (j, j2)) = (pair(n, code / pairs), pair(n, code % pairs));
                let (first, second) = ((at(own, i), at(other, j)), Some((at(own, i2), at(other, j2))));
                found = NodeMove { value: best, kind: NodeMoveKind::Exchange { gpu, first, second } };
            }
        }
        found
    }

    /// Fills the scratch with the slots that may be exchanged: `exchange_slots` of each GPU, from `own` on of the
    /// heaviest, from `other` on of the others.
    #[inline(always)]
    fn offer_slots(&mut self, now: &Now<'_>, own: usize, other: usize) {
        let &Now { params, iteration, heavy: a, .. } = now;
        let (lanes, windows) = (self.lanes, self.windows);
        let n = params.exchange_slots as usize;
        let ExchangeLoads { give, take, rest, .. } = &mut self.exchange;
        give.resize(n * windows * lanes, 0);
        take.resize(n * windows * lanes, 0);
        rest.resize(windows * lanes, 0);
        for j in 0..n {
            let slot = (other + j) % self.slots;
            let to = &mut take[j * windows * lanes..(j + 1) * windows * lanes];
            to.copy_from_slice(&self.load[slot * windows * lanes..(slot + 1) * windows * lanes]);
            for (to, &until) in to[..lanes].iter_mut().zip(&self.tabu[slot * lanes..(slot + 1) * lanes]) {
                *to = if until > iteration { BLOCKED } else { *to };
            }
            to[a] = BLOCKED;
            to[self.gpus..lanes].fill(BLOCKED);
        }
        for i in 0..n {
            let slot = (own + i) % self.slots;
            for window in 0..windows {
                let load = self.load[(slot * windows + window) * lanes + a];
                give[(i * windows + window) * lanes..(i * windows + window + 1) * lanes].fill(load);
            }
            let to = &mut give[i * windows * lanes..i * windows * lanes + lanes];
            let expert = self.expert[slot * lanes + a];
            if self.tabu[slot * lanes + a] > iteration {
                to.fill(-BLOCKED);
            } else if expert == FREE || (params.avoid_duplicates && self.counts[expert as usize] > 1) {
                // Not to a GPU that holds the expert; and a free slot for a free slot is no move.
                for held in self.expert.chunks_exact(lanes) {
                    for (to, &held) in to.iter_mut().zip(held) {
                        *to = if held == expert { -BLOCKED } else { *to };
                    }
                }
            }
        }
        for slot in 0..if params.avoid_duplicates { self.slots } else { 0 } {
            let expert = self.expert[slot * lanes + a];
            if expert == FREE || self.counts[expert as usize] < 2 {
                continue;
            }
            for j in 0..n {
                let slot = (other + j) % self.slots;
                let to = &mut take[j * windows * lanes..j * windows * lanes + lanes];
                for (to, &held) in to.iter_mut().zip(&self.expert[slot * lanes..(slot + 1) * lanes]) {
                    *to = if held == expert { BLOCKED } else { *to };
                }
            }
        }
        self.offer_there(n, own, other, a);
        if self.windows > 1 {
            let ExchangeLoads { rest, .. } = &mut self.exchange;
            for ((rest, tops), &floor) in rest.chunks_exact_mut(lanes).zip(&self.tops).zip(&self.floors) {
                let others = tops.iter().filter(|top| top.gpu != a);
                let mut others = others.map(|top| (top.gpu, top.load.max(floor)));
                let first = others.next().unwrap_or((0, floor));
                let second = others.next().map_or(floor, |top| top.1);
                rest.fill(first.1);
                rest[first.0] = second;
            }
        }
    }

    /// With unequal speeds, what is given counts on the other GPU, and what is taken on this one. What must not move is known
    /// by what counts here.
    #[inline(always)]
    fn offer_there(&mut self, n: usize, own: usize, other: usize, a: usize) {
        if self.factors.is_empty() {
            return;
        }
        let (lanes, windows) = (self.lanes, self.windows);
        let ExchangeLoads { take, give_there, take_there, .. } = &mut self.exchange;
        give_there.resize(n * windows * lanes, 0);
        take_there.resize(n * windows * lanes, 0);
        let factor = self.factors[a];
        for i in 0..n {
            let (given, taken) = ((own + i) % self.slots, (other + i) % self.slots);
            for window in 0..windows {
                let to = (i * windows + window) * lanes..(i * windows + window + 1) * lanes;
                let load = self.plain[(given * windows + window) * lanes + a] as u32;
                for (to, &factor) in give_there[to.clone()].iter_mut().zip(&self.factors) {
                    *to = over_speed(load, factor) as i32;
                }
                let from = (taken * windows + window) * lanes..(taken * windows + window + 1) * lanes;
                take_there[to.clone()].copy_from_slice(&self.load[from.clone()]);
                for (to, &load) in take[to].iter_mut().zip(&self.plain[from]) {
                    *to = if *to == BLOCKED { BLOCKED } else { over_speed(load as u32, factor) as i32 };
                }
            }
        }
    }

    /// The best exchange of one of `n` slots for one, or of two for two: value, GPU, and a number that counts what `a`
    /// gives, and within it what it takes.
    #[inline(always)]
    fn weigh_all<const PAIRS: bool>(&mut self, n: usize, a: usize) -> (i32, usize, usize) {
        let (lanes, windows) = (self.lanes, self.windows);
        let mut least = (BLOCKED, 0, 0);
        for block in (0..lanes).step_by(ABREAST) {
            let ExchangeLoads { give, take, gives, takes, .. } = &mut self.exchange;
            list::<PAIRS>(give, windows, lanes, block, n, gives);
            list::<PAIRS>(take, windows, lanes, block, n, takes);
            let has_speeds = !self.factors.is_empty();
            if has_speeds {
                let ExchangeLoads { give_there, take_there, gives_there, takes_there, .. } =
                    &mut self.exchange;
                list::<PAIRS>(give_there, windows, lanes, block, n, gives_there);
                list::<PAIRS>(take_there, windows, lanes, block, n, takes_there);
            } else if PAIRS && self.slots == 4 {
                // Of four slots, to exchange two or the other two makes the same two GPUs: those with the first will do.
                // (Pairs are weighed with one window alone.)
                gives.truncate(3);
            }
            let best = match (windows, has_speeds) {
                (1, false) => self.weigh_one::<false>(block, a),
                (1, true) => self.weigh_one::<true>(block, a),
                (_, false) => self.weigh_several::<false>(block, a),
                (_, true) => self.weigh_several::<true>(block, a),
            };
            best.least(block, &mut least);
        }
        least
    }

    /// Weighs every exchange of a load given for one taken, with some GPUs from `block` on. After one the two GPUs carry
    /// `own - given + taken` and `other + given - taken`; the heavier one counts.
    #[inline(always)]
    fn weigh_one<const SPEEDS: bool>(&self, block: usize, a: usize) -> BestExchanges {
        let ExchangeLoads { gives, takes, gives_there, takes_there, .. } = &self.exchange;
        let (gives_there, takes_there) = if SPEEDS { (gives_there, takes_there) } else { (gives, takes) };
        let own = self.gpu[a];
        let other = abreast(&self.gpu, block);
        let mut best = BestExchanges::none();
        let mut code = [0; ABREAST];
        for (given, given_there) in gives.iter().zip(gives_there) {
            let (mut mine, mut theirs) = ([own; ABREAST], other);
            for l in 0..ABREAST {
                mine[l] -= given[l];
                theirs[l] += given_there[l];
            }
            for (i, taken) in takes.iter().enumerate() {
                let taken_there = if SPEEDS { &takes_there[i] } else { taken };
                let mut value = [0; ABREAST];
                for l in 0..ABREAST {
                    value[l] = (mine[l] + taken[l]).max(theirs[l] - taken_there[l]);
                }
                best.offer(value, &mut code);
            }
        }
        best
    }

    /// As [`NodeSearch::weigh_one`] with several windows: in each the GPUs left alone count as well, and the windows add up.
    #[inline(always)]
    fn weigh_several<const SPEEDS: bool>(&mut self, block: usize, a: usize) -> BestExchanges {
        let (lanes, windows) = (self.lanes, self.windows);
        let ExchangeLoads { rest, gives, takes, gives_there, takes_there, own, other, .. } =
            &mut self.exchange;
        let (gives_there, takes_there) =
            if SPEEDS { (&*gives_there, &*takes_there) } else { (&*gives, &*takes) };
        let mut best = BestExchanges::none();
        let mut code = [0; ABREAST];
        for (given, given_there) in gives.chunks_exact(windows).zip(gives_there.chunks_exact(windows)) {
            own.clear();
            other.clear();
            for (w, (given, given_there)) in given.iter().zip(given_there).enumerate() {
                let (mine, theirs) = (self.gpu[w * lanes + a], abreast(&self.gpu, w * lanes + block));
                let (mut mine, mut theirs) = ([mine; ABREAST], theirs);
                for l in 0..ABREAST {
                    mine[l] -= given[l];
                    theirs[l] += given_there[l];
                }
                own.push(mine);
                other.push(theirs);
            }
            for (taken, taken_there) in takes.chunks_exact(windows).zip(takes_there.chunks_exact(windows)) {
                let mut value = [0; ABREAST];
                let there = taken_there.iter();
                for (w, (((taken, there), own), other)) in
                    taken.iter().zip(there).zip(&*own).zip(&*other).enumerate()
                {
                    let rest = abreast(rest, w * lanes + block);
                    for l in 0..ABREAST {
                        value[l] += (own[l] + taken[l]).max(other[l] - there[l]).max(rest[l]);
                    }
                }
                best.offer(value, &mut code);
            }
        }
        best
    }
}

impl BestExchanges {
    /// Nothing found yet.
    #[inline(always)]
    fn none() -> Self {
        Self { value: [BLOCKED; ABREAST], code: [0; ABREAST] }
    }

    /// Keeps the exchange of number `code` where it is better; the earlier wins ties. Counts on.
    #[inline(always)]
    fn offer(&mut self, value: Abreast, code: &mut Abreast) {
        for l in 0..ABREAST {
            let better = value[l] < self.value[l];
            self.value[l] = if better { value[l] } else { self.value[l] };
            self.code[l] = if better { code[l] } else { self.code[l] };
            code[l] += 1;
        }
    }

    /// Keeps the best of these GPUs, which begin at `block`, where it is better than that of earlier ones.
    #[inline(always)]
    fn least(&self, block: usize, least: &mut (i32, usize, usize)) {
        for l in 0..ABREAST {
            if self.value[l] < least.0 {
                *least = (self.value[l], block + l, self.code[l] as usize);
            }
        }
    }
}

/// Lists the loads of `n` slots, or of all pairs of them, of some GPUs abreast. (Loops, since the compiler leaves
/// iterators out of what it makes for wider instructions.)
#[inline(always)]
fn list<const PAIRS: bool>(
    loads: &[i32],
    windows: usize,
    lanes: usize,
    block: usize,
    n: usize,
    list: &mut Vec<Abreast>,
) {
    list.clear();
    let load = |i: usize, w: usize| abreast(loads, (i * windows + w) * lanes + block);
    for i in 0..n {
        if !PAIRS {
            for w in 0..windows {
                list.push(load(i, w));
            }
            continue;
        }
        for i2 in i + 1..n {
            for w in 0..windows {
                let (mut sum, two) = (load(i, w), load(i2, w));
                for l in 0..ABREAST {
                    sum[l] += two[l];
                }
                list.push(sum);
            }
        }
    }
}

/// The words of some GPUs abreast.
#[inline(always)]
fn abreast(words: &[i32], at: usize) -> [i32; ABREAST] {
    words[at..].first_chunk().copied().unwrap_or([0; ABREAST])
}

/// The first slots that an iteration offers, of the heaviest GPU and of the others: 0, unless a GPU has more slots
/// than are offered.
#[inline(always)]
pub fn first_slots(now: &Now<'_>) -> (usize, usize) {
    let params = now.params;
    if params.exchange_slots == params.slots_per_gpu {
        return (0, 0);
    }
    let word = rng::draw(now.key, rng::OFFERS + now.iteration);
    let below = |word: u32| rng::below(word, params.slots_per_gpu) as usize;
    (below(word), below(word.wrapping_mul(rng::PLACE_STEP)))
}

/// The slots of pair number `at` of `n` slots, in the order (0, 1), (0, 2), ..., (1, 2), ...
fn pair(n: usize, at: usize) -> (usize, usize) {
    let (mut first, mut left) = (0, at);
    while left >= n - 1 - first {
        left -= n - 1 - first;
        first += 1;
    }
    (first, first + 1 + left)
}
