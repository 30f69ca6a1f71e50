//! A tighter bound of one node problem with few slots a GPU, where the mean is far out of reach.
//!
//! With two slots a heavy replica needs a light partner, and light ones are few: every expert
//! needs a replica, and splitting an expert costs replicas. This module proves such shortages.
//!
//! **Rows.** Fix a target `T`; suppose a plan whose GPUs all carry at most `T`. For a threshold `a` with
//! `T / (m + 1) < a <= T / m` call a replica heavy if its load is at least `a`. A GPU holds at most `m` heavy
//! replicas. If it holds `m`, its other `k - m` replicas share at most `T - m a`, so for each `j` in
//! `1..=k - m` at least `j` of them are light: at most `(T - m a) / s` with `s = k - m - j + 1` (else `s` of
//! them would weigh more). A free slot counts as a replica of load 0. In both cases
//! `heavy - light / j <= m - 1` on that GPU, and summed over all GPUs
//! ```text
//! row (m, j, a):   heavy - light / j - (m - 1) P <= 0
//! ```
//! Where GPUs are of unequal speed, the one of speed `s` carries at most `T s`, and the right side is what GPUs can have of
//! the left one at most, each for itself: a slow one holds fewer heavy replicas, or none, and its others are lighter.
//!
//! With two slots there is only `m = j = 1`: each heavy replica has a light partner. These rows together are
//! then also sufficient for given counts, since they are what makes the fold of largest with smallest fit.
//!
//! **Prices.** Any mix of rows with weights `>= 0` holds too, and its left side is a sum over experts that
//! depends on each expert's count alone. So its least value over all counts is found expert by expert, with a
//! multiplier for `sum of counts = R` (Lagrange: for any multiplier the result is at most the true least).
//! A least value above 0 contradicts the row mix: no plan reaches `T`. The weights are searched for by
//! multiplicative updates towards the rows that the cheapest counts break most; *how* they were found does not
//! matter for the proof. Nor does rounding: a load compared wrongly by a relative 1e-15 moves `T` by as much,
//! which the slack of [`super::lower_bounds`] outweighs.
//!
//! The gap that remains between the result and the optimum is that between whole counts and the linear relaxation.

mod target;

use super::Room;
use target::{LoadTarget, Pick};

/// Replicas beyond this are not worth the time.
const MAX_REPLICAS: usize = 4096;
/// How long the search for weights goes on.
pub(super) struct Pace {
    /// Sets of groups that may share a node get this bound each where there are at most this many: 28 for 8 groups in 4
    /// nodes, 70 for 8 in 2. With more, only all nodes as one get it.
    pub(super) most_sets: usize,
    /// Rounds at one target.
    rounds: usize,
    /// Relative steps of the target: the first, and the last.
    first_step: f64,
    last_step: f64,
    /// How far the counts of a stretch reach, beyond those looked at one by one.
    stretch: f64,
    /// How far weights move in a round at first, and in how many rounds that falls to a 1.4th.
    rate: f64,
    slowing: f64,
}

impl Pace {
    pub(super) const QUICK: Self = Self {
        most_sets: 28,
        rounds: 20,
        first_step: 4e-3,
        last_step: 4e-4,
        stretch: 1.5,
        rate: 0.15,
        slowing: 5.0,
    };
    pub(super) const TIGHT: Self = Self {
        most_sets: 100,
        rounds: 1000,
        first_step: 4e-3,
        last_step: 2e-5,
        stretch: 1.2,
        rate: 0.1,
        slowing: 10.0,
    };
}

/// Loads below this are left alone: their quotients may be denormal, and comparisons of those prove nothing.
const LEAST_LOAD: f64 = 1e-280;
/// The least value that counts as above 0: far more than rounding can make of 0.
const ABOVE_ZERO: f64 = 1e-6;

/// Raises `bound`, which is a bound on the node problem already, as far as rows can prove, or to `enough`.
///
/// `speeds` are those of the GPUs, relative to the fastest; none where all are equal.
pub(super) fn raise(
    row: &[f64],
    (room, speeds): (Room, &[f64]),
    bound: f64,
    enough: f64,
    pace: &Pace,
) -> f64 {
    let slots = room.slots;
    let sizes = row.len()..=MAX_REPLICAS;
    let worth_it = (2..=3).contains(&slots) && room.gpus > 1 && sizes.contains(&room.replicas);
    if !worth_it || bound < LEAST_LOAD {
        return bound;
    }
    let mut best = bound;
    let mut step = pace.first_step;
    let mut prices: Option<Prices> = None;
    let mut growing = true;
    // Triples the step while targets are refuted, then closes in by halves. A refuted target is a bound.
    while step >= pace.last_step && best < enough {
        let target = LoadTarget::new(row, (room, speeds), enough.min(best * (1.0 + step)), pace.stretch);
        let mut tried = Prices::new(&target, prices.as_ref());
        if tried.refute(&target, pace) {
            best = target.load;
            prices = Some(tried);
            step *= if growing { 3.0 } else { 0.5 };
        } else if prices.is_none() {
            // Not even the first step: a smaller one is not worth the time.
            break;
        } else {
            growing = false;
            step *= 0.5;
        }
    }
    best
}

/// The weights of the rows, and the search for them.
struct Prices {
    /// Logarithms of the weights up to a common factor, `[class][threshold]`.
    logs: Vec<Vec<f64>>,
    thresholds: Vec<Vec<f64>>,
    lambda: f64,
}

impl Prices {
    /// Even weights, or those of an earlier target at the nearest thresholds.
    fn new(target: &LoadTarget, earlier: Option<&Self>) -> Self {
        let thresholds: Vec<Vec<f64>> = target.classes.iter().map(|c| c.thresholds.clone()).collect();
        let mut logs: Vec<Vec<f64>> = thresholds.iter().map(|t| vec![0.0; t.len()]).collect();
        let mut lambda = 0.0;
        if let Some(earlier) = earlier {
            lambda = earlier.lambda;
            for (class, row) in logs.iter_mut().enumerate() {
                let old = &earlier.thresholds[class];
                for (log, &a) in row.iter_mut().zip(&thresholds[class]) {
                    let at = old.partition_point(|&o| o < a).min(old.len().saturating_sub(1));
                    *log = earlier.logs[class].get(at).copied().unwrap_or(0.0);
                }
            }
        }
        Self { logs, thresholds, lambda }
    }

    /// Whether weights were found that prove the target out of reach.
    fn refute(&mut self, target: &LoadTarget, pace: &Pace) -> bool {
        if target.spare < 0.0 {
            return true;
        }
        if self.logs.iter().all(Vec::is_empty) {
            return false;
        }
        let mut values = vec![0.0; target.counts.len()];
        let mut sums: Vec<Vec<f64>> = self.logs.iter().map(|row| vec![0.0; row.len()]).collect();
        let (mut few, mut many) = (Pick::default(), Pick::default());
        for round in 0..pace.rounds {
            let constant = self.price(target, &mut values);
            target.bracket(&values, self.lambda, &mut few, &mut many);
            self.lambda = few.lambda;
            if few.least.max(many.least) - constant > ABOVE_ZERO {
                return true;
            }
            // The mix of the two whose replicas are as many as there are.
            let between = many.extras - few.extras;
            let share =
                if between > 0.0 { ((target.spare - few.extras) / between).clamp(0.0, 1.0) } else { 0.0 };
            let rate = pace.rate / (1.0 + round as f64 / pace.slowing).sqrt();
            let mix = [(&few.chosen, 1.0 - share), (&many.chosen, share)];
            if !self.update(target, &mix, rate, &mut sums) {
                return false;
            }
        }
        false
    }

    /// Sets `values` to what each choice adds to the mix of rows, `count x price of one replica`; returns what
    /// the mix subtracts whatever the counts are. The weights sum to 1.
    fn price(&self, target: &LoadTarget, values: &mut [f64]) -> f64 {
        let largest = self.logs.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        // A weight once, since exp takes as long as all else here.
        let weights: Vec<Vec<f64>> =
            self.logs.iter().map(|logs| logs.iter().map(|log| (log - largest).exp()).collect()).collect();
        let sum: f64 = weights.iter().flatten().sum();
        let mut constant = 0.0;
        values.fill(0.0);
        for (class, weights) in target.classes.iter().zip(&weights) {
            // before[i]: the weight of the first i rows.
            let mut before = vec![0.0];
            let mut weight = 0.0;
            for (own, limit) in weights.iter().zip(&class.limits) {
                weight += own / sum;
                before.push(weight);
                constant += own / sum * limit;
            }
            constant += weight * class.light * target.free_slots;
            for (value, (&h, &l)) in values.iter_mut().zip(class.heavy_until.iter().zip(&class.light_until)) {
                *value += before[h as usize] - class.light * before[l as usize];
            }
        }
        for (value, count) in values.iter_mut().zip(&target.counts) {
            *value *= count;
        }
        constant
    }

    /// Moves weight to the rows that the given counts, a mix of two, break most, and adds what they are broken
    /// by to `sums`. False if no row is broken by the counts of all rounds together: then any weights have a
    /// least value of at most 0, and there is nothing to find.
    fn update(
        &mut self,
        target: &LoadTarget,
        mix: &[(&Vec<usize>, f64)],
        rate: f64,
        sums: &mut [Vec<f64>],
    ) -> bool {
        let mut broken = false;
        for ((class, logs), sums) in target.classes.iter().zip(&mut self.logs).zip(sums) {
            // Replicas by the row at which they cease to be heavy and light.
            let (mut heavy, mut light) = (vec![0.0; logs.len() + 1], vec![0.0; logs.len() + 1]);
            for &(chosen, share) in mix {
                for &at in chosen {
                    heavy[class.heavy_until[at] as usize] += share * target.counts[at];
                    light[class.light_until[at] as usize] += share * target.counts[at];
                }
            }
            let (mut heavies, mut lights) = (0.0, target.free_slots);
            for i in (0..logs.len()).rev() {
                heavies += heavy[i + 1];
                lights += light[i + 1];
                let excess = heavies - class.light * lights - class.limits[i];
                logs[i] += rate * excess;
                sums[i] += excess;
                broken |= sums[i] > 0.0;
            }
        }
        let largest = self.logs.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max);
        self.logs.iter_mut().flatten().for_each(|log| *log -= largest);
        broken
    }
}

#[cfg(test)]
mod tests {
    use super::super::{node_bound, simple_bound};
    use super::*;

    fn bounds(row: &[f64], replicas: usize, gpus: usize, slots: usize) -> (f64, f64) {
        let room = Room { replicas, gpus, slots, most: usize::MAX };
        (simple_bound(row, room), node_bound(row, room, &Pace::QUICK))
    }

    /// The bound is within the last step of the optimum, which is known by hand.
    #[track_caller]
    fn meets(optimum: f64, simple: f64, (found_simple, bound): (f64, f64)) {
        assert_eq!(found_simple, simple);
        assert!(
            bound <= optimum && bound >= optimum * (1.0 - 2.0 * Pace::QUICK.last_step),
            "{bound} for {optimum}"
        );
    }

    #[test]
    fn two_slots_need_light_partners() {
        // Nothing to split: the fold is 6 + 5.
        meets(11.0, 9.0, bounds(&[6.0, 6.0, 6.0, 5.0, 2.0, 2.0], 6, 3, 2));
        // A spare replica splits a 6, and still one 6 has a partner of at least 3.
        meets(9.0, 7.5, bounds(&[6.0, 6.0, 6.0, 6.0, 6.0, 0.0, 0.0], 8, 4, 2));
    }

    #[test]
    fn three_slots_hold_two_heavy_replicas_only_beside_a_light_one() {
        meets(15.0, 12.0, bounds(&[7.0, 7.0, 7.0, 1.0, 1.0, 1.0], 6, 2, 3));
        // Six replicas of 5 and three GPUs: two of the GPUs take three of them, or one joins the 10.
        let row = [10.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 0.0, 0.0];
        meets(15.0, 40.0 / 3.0, bounds(&row, 9, 3, 3));
        // A 10 on each of four GPUs, and light partners for two of them only.
        let row = [10.0, 10.0, 10.0, 10.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 0.0, 0.0];
        meets(16.0, 14.5, bounds(&row, 12, 4, 3));
    }

    #[test]
    fn free_slots_are_light_partners() {
        meets(6.0, 6.0, bounds(&[6.0, 3.0, 3.0, 3.0, 3.0], 5, 3, 2));
        meets(8.0, 22.0 / 3.0, bounds(&[6.0, 4.0, 4.0, 4.0, 4.0], 5, 3, 2));
    }

    #[test]
    fn no_fold_of_any_counts_goes_below() {
        // 40 experts, 48 replicas, 24 GPUs of two slots; counts from Adams' method with noise on the loads.
        let mut seed = 1u32;
        let mut uniform = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(seed >> 8) / f64::from(1 << 24)
        };
        let (mut raised, mut near) = (0, 0);
        for case in 0..60 {
            let skew = f64::from(case % 6) * 0.5;
            let row: Vec<f64> = (0..40).map(|_| (skew * 2.0 * uniform()).exp() * 100.0).collect();
            let (simple, bound) = bounds(&row, 48, 24, 2);
            let mut best = f64::INFINITY;
            for trial in 0..400 {
                let noisy: Vec<f64> =
                    row.iter().map(|w| w * (1.0 + f64::from(trial % 8) * 0.1 * uniform())).collect();
                let mut counts = [1.0f64; 40];
                for _ in 0..8 {
                    let by_share =
                        |a: &usize, b: &usize| (noisy[*a] / counts[*a]).total_cmp(&(noisy[*b] / counts[*b]));
                    let top = (0..40).max_by(by_share).unwrap();
                    counts[top] += 1.0;
                }
                let mut replicas: Vec<f64> =
                    (0..40).flat_map(|e| vec![row[e] / counts[e]; counts[e] as usize]).collect();
                replicas.sort_by(f64::total_cmp);
                best = best.min((0..24).map(|i| replicas[i] + replicas[47 - i]).fold(0.0, f64::max));
            }
            assert!(bound <= best * (1.0 + 1e-12), "case {case}: {bound} above {best}");
            raised += usize::from(bound > simple * 1.01);
            near += usize::from(bound > best * 0.98);
        }
        println!("raised {raised}, near {near}");
        assert!(raised >= 30 && near >= 40, "raised {raised}, near {near} of 60");
    }
}
