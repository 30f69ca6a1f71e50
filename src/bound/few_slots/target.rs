//! One target load, and what counts can say to it: the rows and the cheapest counts at given prices.

use super::super::Room;

/// How near the two multipliers of a bracket come. A narrower one costs little, since few experts change
/// their counts within it.
const WIDTH: f64 = 0.005;
/// How far from the last multiplier a bracket is looked for first.
const FIRST_WIDTH: f64 = 0.05;

/// The rows of one `(m, j)`, by threshold.
pub(super) struct Class {
    /// `1 / j`, what a light replica counts.
    pub(super) light: f64,
    /// The thresholds `a`, ascending: the possible replica loads in range, as others say nothing more.
    pub(super) thresholds: Vec<f64>,
    /// How many thresholds each option's replica reaches: it is heavy in the rows before this.
    pub(super) heavy_until: Vec<u32>,
    /// In how many rows, from the first, each option's replica is light.
    pub(super) light_until: Vec<u32>,
    /// The right side of each row without free slots: the sum over GPUs of the most that each can have of the left side.
    pub(super) limits: Vec<f64>,
}

/// A row, as one GPU of any speed sees it.
struct RowForGpu {
    slots: usize,
    /// The most heavy replicas that the fastest GPU can hold.
    most: f64,
    /// The load from which on a replica is heavy.
    a: f64,
    /// The count of a light replica, and the most that one carries.
    light: f64,
    of_light: f64,
}

impl RowForGpu {
    /// The most that a GPU which carries at most `load` has of `heavy - light / j`: of any number of heavy replicas that fit,
    /// with the fewest light ones. Of the other slots at least as many are light as could not all be heavier.
    fn limit(&self, load: f64) -> f64 {
        // Rounding is on the safe side.
        let fits = |h: &usize| *h as f64 * self.a <= load * (1.0 + 1e-12);
        let of_heavy = |h: usize| {
            let (others, left) = (self.slots - h, (load - h as f64 * self.a).max(0.0));
            let is_light = |j: &usize| left / (others - j + 1) as f64 <= self.of_light * (1.0 - 1e-12);
            let least = (1..=others).take_while(is_light).count();
            h as f64 - least as f64 * self.light
        };
        (0..=self.slots)
            .take_while(fits)
            .map(of_heavy)
            .fold(-(self.slots as f64), f64::max)
            .min(self.most - 1.0)
    }
}

/// The question whether any plan keeps every GPU at or below `load`.
pub(super) struct LoadTarget {
    pub(super) load: f64,
    /// Replicas above the least counts; negative if even those are too many.
    pub(super) spare: f64,
    pub(super) free_slots: f64,
    /// The counts that experts may take, expert by expert.
    pub(super) counts: Vec<f64>,
    /// Each count above its expert's least.
    pub(super) extras: Vec<f64>,
    /// Where each expert's counts end.
    pub(super) ends: Vec<usize>,
    pub(super) classes: Vec<Class>,
}

impl LoadTarget {
    /// `speeds` are those of the GPUs, relative to the fastest; none where all are equal.
    pub(super) fn new(row: &[f64], (room, speeds): (Room, &[f64]), load: f64, stretch: f64) -> Self {
        let slots = room.slots;
        let fewest = |w: f64| (w / load).ceil().max(1.0);
        let spare = room.replicas as f64 - row.iter().map(|&w| fewest(w)).sum::<f64>();
        let (mut counts, mut extras, mut loads, mut ends) = (vec![], vec![], vec![], vec![]);
        for &w in row {
            let least = fewest(w);
            let last = (least + spare).min(room.most.max(1) as f64);
            let mut count = least;
            while count <= last {
                // Twice the least count and two more are looked at one by one. Beyond, a stretch of counts is
                // relaxed to the lightest replica in it: as light in every row, or lighter. Value and
                // multiplier are then linear over the stretch, so its two ends stand for all of it.
                let until =
                    if count <= 2.0 * least + 2.0 { count } else { (count * stretch).floor().min(last) };
                let load = w / until;
                let mut push = |count: f64| {
                    counts.push(count);
                    extras.push(count - least);
                    loads.push(load);
                };
                push(count);
                if until > count {
                    push(until);
                }
                count = until + 1.0;
            }
            ends.push(counts.len());
        }
        let mut sorted: Vec<f64> = loads.iter().copied().filter(|&x| x > load / slots as f64).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        let mut classes = vec![];
        for m in 1..slots {
            let most = m as f64;
            let range = |a: &&f64| **a > load / (most + 1.0) && **a <= load / most;
            let thresholds: Vec<f64> = sorted.iter().filter(range).copied().collect();
            for j in 1..=slots - m {
                let sharers = (slots - m - j + 1) as f64;
                let heavy_until = reached(&thresholds, &loads, |x, a| a <= x);
                let light_until = reached(&thresholds, &loads, |x, a| sharers * x <= load - most * a);
                let (light, thresholds) = (1.0 / j as f64, thresholds.clone());
                let limit = |a: &f64| match speeds {
                    [] => (most - 1.0) * room.gpus as f64,
                    speeds => {
                        let kind =
                            RowForGpu { slots, most, a: *a, light, of_light: (load - most * a) / sharers };
                        speeds.iter().map(|speed| kind.limit(load * speed)).sum()
                    }
                };
                let limits = thresholds.iter().map(limit).collect();
                classes.push(Class { light, thresholds, heavy_until, light_until, limits });
            }
        }
        let free_slots = (room.gpus * slots - room.replicas) as f64;
        Self { load, spare, free_slots, counts, extras, ends, classes }
    }

    /// Two picks at near multipliers, one with at most and one with at least as many replicas as there are.
    /// Any multiplier gives a valid `least`; near the crossing it is largest.
    pub(super) fn bracket(&self, values: &[f64], lambda: f64, few: &mut Pick, many: &mut Pick) {
        let mut width = FIRST_WIDTH;
        self.pick(values, lambda, few);
        many.clone_from(few);
        while few.extras > self.spare && width < 1e4 {
            std::mem::swap(few, many);
            self.pick(values, many.lambda - width, few);
            width *= 2.0;
        }
        while many.extras < self.spare && width < 1e4 {
            std::mem::swap(few, many);
            self.pick(values, few.lambda + width, many);
            width *= 2.0;
        }
        if few.extras < self.spare && many.extras > self.spare {
            self.narrow(values, few, many);
        }
    }

    /// Brings the multipliers of a bracket nearer. What an expert picks at both of them is its cheapest choice
    /// between them too, so only the others are looked at.
    fn narrow(&self, values: &[f64], few: &mut Pick, many: &mut Pick) {
        let mut open: Vec<(usize, usize, usize)> = vec![];
        let (mut value, mut extras) = (0.0, 0.0);
        for (expert, (&low, &high)) in few.chosen.iter().zip(&many.chosen).enumerate() {
            if low == high {
                value += values[low];
                extras += self.extras[low];
            } else {
                let start = if expert == 0 { 0 } else { self.ends[expert - 1] };
                open.push((expert, start, self.ends[expert]));
            }
        }
        let mut middle = many.clone();
        while few.extras < self.spare && many.extras > self.spare && many.lambda - few.lambda > WIDTH {
            let lambda = f64::midpoint(few.lambda, many.lambda);
            middle.lambda = lambda;
            middle.least = lambda * self.spare + value - lambda * extras;
            middle.extras = extras;
            for &(expert, start, end) in &open {
                let (best, least) = self.cheapest(values, lambda, start, end);
                middle.chosen[expert] = best;
                middle.least += least;
                middle.extras += self.extras[best];
            }
            let side = if middle.extras > self.spare { &mut *many } else { &mut *few };
            std::mem::swap(&mut middle, side);
        }
    }

    /// The cheapest choice of each expert at multiplier `lambda`, by value - lambda x extra.
    fn pick(&self, values: &[f64], lambda: f64, pick: &mut Pick) {
        pick.lambda = lambda;
        pick.least = lambda * self.spare;
        pick.extras = 0.0;
        pick.chosen.clear();
        let mut start = 0;
        for &end in &self.ends {
            let (best, least) = self.cheapest(values, lambda, start, end);
            pick.chosen.push(best);
            pick.least += least;
            pick.extras += self.extras[best];
            start = end;
        }
    }

    /// The cheapest of the choices from `start` up to `end`, and its value.
    fn cheapest(&self, values: &[f64], lambda: f64, start: usize, end: usize) -> (usize, f64) {
        let (mut best, mut least) = (start, f64::INFINITY);
        for (at, (value, extra)) in values[start..end].iter().zip(&self.extras[start..end]).enumerate() {
            let value = value - lambda * extra;
            // Two selections and no branch: which choice wins is not foreseeable.
            let better = value < least;
            best = if better { start + at } else { best };
            least = if better { value } else { least };
        }
        (best, least)
    }
}

/// How many of the ascending thresholds each load reaches. Most loads reach none or all of them.
fn reached(thresholds: &[f64], loads: &[f64], reaches: impl Fn(f64, f64) -> bool) -> Vec<u32> {
    let (Some(&first), Some(&last)) = (thresholds.first(), thresholds.last()) else {
        return vec![0; loads.len()];
    };
    let count = |&x: &f64| match () {
        () if !reaches(x, first) => 0,
        () if reaches(x, last) => thresholds.len(),
        () => thresholds.partition_point(|&a| reaches(x, a)),
    };
    loads.iter().map(|x| count(x) as u32).collect()
}

/// One choice for each expert.
#[derive(Clone, Default)]
pub(super) struct Pick {
    pub(super) chosen: Vec<usize>,
    /// The multiplier it is the cheapest at.
    pub(super) lambda: f64,
    /// At most the least value over all counts of the right sum.
    pub(super) least: f64,
    /// Replicas above the least counts.
    pub(super) extras: f64,
}
