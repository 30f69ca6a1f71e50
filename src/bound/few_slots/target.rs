//! One target load, and what counts can say to it: the rows and the cheapest counts at given prices.

use super::super::Room;

/// How far the counts of a stretch reach, beyond those looked at one by one.
const STRETCH: f64 = 1.5;
/// How near the two multipliers of a bracket come.
const WIDTH: f64 = 0.02;

/// The rows of one `(m, j)`, by threshold.
pub(super) struct Class {
    /// `m`, the most heavy replicas a GPU can hold.
    pub(super) most: f64,
    /// `1 / j`, what a light replica counts.
    pub(super) light: f64,
    /// The thresholds `a`, ascending: the possible replica loads in range, as others say nothing more.
    pub(super) thresholds: Vec<f64>,
    /// How many thresholds each option's replica reaches: it is heavy in the rows before this.
    pub(super) heavy_until: Vec<u32>,
    /// In how many rows, from the first, each option's replica is light.
    pub(super) light_until: Vec<u32>,
}

/// A count an expert may take.
pub(super) struct Choice {
    pub(super) count: f64,
    /// The count above the expert's least.
    pub(super) extra: f64,
}

/// The question whether any plan keeps every GPU at or below `load`.
pub(super) struct Target {
    pub(super) load: f64,
    /// Replicas above the least counts; negative if even those are too many.
    pub(super) spare: f64,
    pub(super) gpus: f64,
    pub(super) free_slots: f64,
    pub(super) choices: Vec<Choice>,
    /// Where each expert's choices end.
    pub(super) ends: Vec<usize>,
    pub(super) classes: Vec<Class>,
}

impl Target {
    pub(super) fn new(row: &[f64], room: Room, load: f64) -> Self {
        let slots = room.slots;
        let fewest = |w: f64| (w / load).ceil().max(1.0);
        let spare = room.replicas as f64 - row.iter().map(|&w| fewest(w)).sum::<f64>();
        let (mut choices, mut loads, mut ends) = (vec![], vec![], vec![]);
        for &w in row {
            let least = fewest(w);
            let last = least + spare;
            let mut count = least;
            while count <= last {
                // Twice the least count and two more are looked at one by one. Beyond, a stretch of counts is
                // relaxed to the lightest replica in it: as light in every row, or lighter. Value and
                // multiplier are then linear over the stretch, so its two ends stand for all of it.
                let until =
                    if count <= 2.0 * least + 2.0 { count } else { (count * STRETCH).floor().min(last) };
                let load = w / until;
                let mut push = |count: f64| {
                    choices.push(Choice { count, extra: count - least });
                    loads.push(load);
                };
                push(count);
                if until > count {
                    push(until);
                }
                count = until + 1.0;
            }
            ends.push(choices.len());
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
                let until = |reached: &dyn Fn(f64, f64) -> bool| -> Vec<u32> {
                    loads.iter().map(|&x| thresholds.partition_point(|&a| reached(x, a)) as u32).collect()
                };
                let heavy_until = until(&|x, a| a <= x);
                let light_until = until(&|x, a| sharers * x <= load - most * a);
                let (light, thresholds) = (1.0 / j as f64, thresholds.clone());
                classes.push(Class { most, light, thresholds, heavy_until, light_until });
            }
        }
        let free_slots = (room.gpus * slots - room.replicas) as f64;
        Self { load, spare, gpus: room.gpus as f64, free_slots, choices, ends, classes }
    }

    /// Two picks at near multipliers, one with at most and one with at least as many replicas as there are.
    /// Any multiplier gives a valid `least`; near the crossing it is largest.
    pub(super) fn bracket(&self, values: &[f64], lambda: f64, few: &mut Pick, many: &mut Pick) {
        let mut width = 0.05;
        self.pick(values, lambda, few);
        self.pick(values, lambda, many);
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
        let mut middle = Pick::default();
        while few.extras < self.spare && many.extras > self.spare && many.lambda - few.lambda > WIDTH {
            self.pick(values, (few.lambda + many.lambda) / 2.0, &mut middle);
            let side = if middle.extras > self.spare { &mut *many } else { &mut *few };
            std::mem::swap(&mut middle, side);
        }
    }

    /// The cheapest choice of each expert at multiplier `lambda`, by value - lambda x extra.
    fn pick(&self, values: &[f64], lambda: f64, pick: &mut Pick) {
        *pick = Pick {
            chosen: std::mem::take(&mut pick.chosen),
            lambda,
            least: lambda * self.spare,
            extras: 0.0,
        };
        pick.chosen.clear();
        let mut start = 0;
        for &end in &self.ends {
            let (mut best, mut least) = (start, f64::INFINITY);
            for (at, (value, choice)) in values[start..end].iter().zip(&self.choices[start..end]).enumerate()
            {
                let value = value - lambda * choice.extra;
                if value < least {
                    (best, least) = (start + at, value);
                }
            }
            pick.chosen.push(best);
            pick.least += least;
            pick.extras += self.choices[best].extra;
            start = end;
        }
    }
}

/// One choice for each expert.
#[derive(Default)]
pub(super) struct Pick {
    pub(super) chosen: Vec<usize>,
    /// The multiplier it is the cheapest at.
    pub(super) lambda: f64,
    /// At most the least value over all counts of the right sum.
    pub(super) least: f64,
    /// Replicas above the least counts.
    pub(super) extras: f64,
}
