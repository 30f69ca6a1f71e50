//! Shares for the next window, from the last ones: the windows around a forecast are its scenarios, and the squares of what
//! GPUs carry in them are made least. A sample of the window itself draws the forecast towards it.

use super::layer::Replicas;
use super::speeds::Speeds;
use super::task::{SCENARIOS, Task, Terms};
use crate::outlook::{ONE, persistence};

/// Windows that the forecast looks at.
pub const HISTORY: usize = 32;

/// Each scenario weighs this much of the one after it, in thousandths.
const DECAY: i64 = 930;

/// The load of a window, all experts together.
const TOTAL: u32 = 1 << TOTAL_BITS;
const TOTAL_BITS: u32 = 24;

/// A whole expert, while shares are worked out.
const WHOLE: i32 = 1 << WHOLE_BITS;
pub const WHOLE_BITS: u32 = 14;

/// How many times all replicated experts are gone over, at most. But for the last time, each move goes a quarter farther than
/// to where the squares of its pair are least, so that load from afar arrives sooner: four such sweeps gain as much as five.
pub const SWEEPS: u32 = 4;

/// A sweep in which no share moves by more than this part of [`WHOLE`] is the last.
pub const STILL: i64 = 1 << 4;

/// The pull to even shares, as a part of [`ONE`]: a tenth, less what a sample tells, and a little always.
const PULL: i64 = ONE / 10;
/// See [`PULL`].
const LEAST_PULL: i64 = 3 * ONE / 1000;

/// The loads of a sample of the window that runs, and how much it is worth.
pub struct Sample<'a> {
    /// `[experts]`
    pub loads: &'a [u32],
    /// Routings of the layer in it.
    pub routings: u64,
    /// Routings of the layer in each of the windows, oldest first.
    pub of_windows: &'a [u64],
}

/// Memory that a thread uses again from layer to layer.
#[derive(Default)]
pub struct WindowScratch {
    pub replicas: Replicas,
    /// Shares of the windows, `[windows][experts]`, as parts of [`TOTAL`].
    rows: Vec<i32>,
    /// The scenarios, `[experts][SCENARIOS]`, scaled by the roots of their weights.
    scenarios: Vec<ScenarioRow>,
    /// The expected load of each expert.
    centre: Vec<i32>,
    /// Share of each replica, as a part of [`WHOLE`].
    have: Vec<i32>,
    /// Load of each GPU in each scenario.
    load: Vec<ScenarioRow>,
}

/// A number a scenario, in one cache line.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct ScenarioRow([i32; SCENARIOS]);

/// One layer, to be solved by the widest vector instructions that the processor has.
pub struct Solve<'a> {
    pub windows: Windows<'a>,
    /// How many, and their speeds.
    pub gpus: (usize, &'a Speeds),
    /// Its `replicas` hold the plan.
    pub scratch: &'a mut WindowScratch,
    /// The parts, by slot.
    pub parts: &'a mut [u16],
}

/// The loads that the shares of a layer are worked out from.
pub struct Windows<'a> {
    /// Loads of the windows, oldest first, each `[experts]`.
    pub loads: &'a [&'a [u32]],
    pub sample: Option<Sample<'a>>,
}

impl Solve<'_> {
    pub fn run(self) {
        pulp::Arch::new().dispatch(self);
    }
}

impl pulp::NullaryFnOnce for Solve<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (gpus, speeds) = self.gpus;
        let pull = self.scratch.expect(self.windows);
        self.scratch.lay_loads(gpus);
        if speeds.are_equal() {
            self.scratch.sweep::<false>(pull, speeds);
        } else {
            self.scratch.count_over(speeds);
            self.scratch.sweep::<true>(pull, speeds);
        }
        self.scratch.replicas.round(&self.scratch.have, self.parts);
    }
}

impl WindowScratch {
    /// The share of each replica.
    #[cfg(all(test, feature = "gpu"))]
    pub fn have(&self) -> &[i32] {
        &self.have
    }

    /// The layer as a device is given it, whose GPUs are equally fast. Its `replicas` hold the plan.
    pub fn task(&mut self, windows: Windows<'_>, gpus: usize) -> Task {
        let pull = self.expect(windows);
        self.lay_loads(gpus);
        let mut task = Task::new(&self.replicas, gpus);
        task.have.clone_from(&self.have);
        task.load = self.load.iter().flat_map(|load| load.0).collect();
        task.still = STILL as i32;
        let experts: std::collections::BTreeSet<u32> = task.pairs.iter().map(|pair| pair.expert).collect();
        let terms = |expert: u32| {
            let (even, squares) =
                terms(self.centre[expert as usize], &self.scenarios[expert as usize].0, pull);
            Terms { expert, loads: self.scenarios[expert as usize].0, even, squares }
        };
        task.terms = experts.into_iter().map(terms).collect();
        task
    }
}

impl WindowScratch {
    /// Lays out the scenarios; returns the pull to even shares.
    #[inline(always)]
    fn expect(&mut self, windows: Windows<'_>) -> i64 {
        let Windows { loads: windows, sample } = windows;
        let experts = windows.first().map_or(0, |window| window.len());
        self.rows.clear();
        self.rows.resize(windows.len() * experts, 0);
        for (row, window) in self.rows.chunks_exact_mut(experts).zip(windows) {
            shares(window, row);
        }
        let rows: Vec<&[i32]> = self.rows.chunks_exact(experts).collect();
        let (phi, means) = persistence(&rows);
        let Some(last) = rows.last() else { return PULL };
        // Loops here and below, not closures, which would be compiled without the vector instructions.
        self.centre.clear();
        self.centre.resize(experts, 0);
        for ((centre, &mean), &last) in self.centre.iter_mut().zip(&means).zip(*last) {
            *centre = mean + ((i64::from(last - mean) * phi) >> ONE.ilog2()) as i32;
        }
        let (mut spread, mut pull) = (ONE, PULL);
        if let Some(sample) = sample {
            let gain = gain(&rows, &means, phi, &sample);
            let mut seen = vec![0; experts];
            shares(sample.loads, &mut seen);
            for (centre, seen) in self.centre.iter_mut().zip(seen) {
                *centre += (i64::from(seen - *centre) * gain / ONE) as i32;
            }
            spread = (((ONE - gain) * ONE) as u64).isqrt() as i64;
            pull = PULL * (ONE - gain) / ONE + LEAST_PULL;
        }
        for centre in &mut self.centre {
            *centre = (*centre).max(0);
        }
        lay_scenarios(&rows, &self.centre, spread, &mut self.scenarios);
        pull
    }

    /// Lays out even shares, and what GPUs carry with them.
    #[inline(always)]
    fn lay_loads(&mut self, gpus: usize) {
        let replicas = &self.replicas;
        replicas.even(|_| WHOLE, &mut self.have);
        self.load.clear();
        self.load.resize(gpus, ScenarioRow([0; SCENARIOS]));
        for (expert, scenarios) in self.scenarios.iter().enumerate() {
            let of_expert = replicas.of(expert);
            let is_one = of_expert.len() == 1;
            for place in of_expert {
                let load = &mut self.load[replicas.gpu(place)];
                let share = self.have[place];
                if is_one {
                    for (load, &x) in load.0.iter_mut().zip(&scenarios.0) {
                        *load += x;
                    }
                } else {
                    for (load, &x) in load.0.iter_mut().zip(&scenarios.0) {
                        *load += scaled(x, share, WHOLE_BITS);
                    }
                }
            }
        }
    }

    /// Counts what GPUs carry over their speed.
    fn count_over(&mut self, speeds: &Speeds) {
        for (gpu, load) in self.load.iter_mut().enumerate() {
            load.0.iter_mut().for_each(|load| *load = speeds.on(*load, gpu));
        }
    }

    /// Moves shares between pairs of an expert's replicas, towards where the squares are least. Where GPUs are of unequal
    /// speed, squares are over it, and even shares are those in proportion to it.
    #[inline(always)]
    fn sweep<const SPEEDS: bool>(&mut self, pull: i64, speeds: &Speeds) {
        let Self { replicas, scenarios, centre, have, load, .. } = self;
        for sweep in 1..=SWEEPS {
            let mut most = 0;
            let (mut known, mut even, mut squares) = (u32::MAX, 0, 0);
            for pair in &replicas.pairs {
                let x = &scenarios[pair.expert as usize].0;
                if pair.expert != known {
                    known = pair.expert;
                    (even, squares) = terms(centre[known as usize], x, pull);
                }
                if squares == 0 {
                    continue;
                }
                let ([i, j], [g, u]) = (pair.places.map(|i| i as usize), pair.gpus.map(|g| g as usize));
                let (heavy, light) = (&load[g].0, &load[u].0);
                let mut slope = 0;
                for s in 0..SCENARIOS {
                    slope += i64::from(x[s]) * i64::from(heavy[s] - light[s]);
                }
                // At most 2^62, and 2^59 of the pull.
                let (mine, theirs, both) = if SPEEDS {
                    // Of two factors of 1 it is twice the squares.
                    let both = speeds.both(squares, g, u);
                    (speeds.on(have[i], g), speeds.on(have[j], u), both.max(1))
                } else {
                    (have[i], have[j], 2 * squares)
                };
                let slope = (slope << WHOLE_BITS) + even * i64::from(mine - theirs);
                let flow = slope / both;
                let flow = if sweep < SWEEPS { flow + flow / 4 } else { flow };
                let flow = flow.clamp(-i64::from(have[j]), i64::from(have[i]));
                have[i] -= flow as i32;
                have[j] += flow as i32;
                most = most.max(flow.abs());
                let (from, to) = if flow > 0 { (g, u) } else { (u, g) };
                let flow = flow.unsigned_abs() as i32;
                for (load, &x) in load[from].0.iter_mut().zip(x) {
                    let moved = scaled(x, flow, WHOLE_BITS);
                    *load -= if SPEEDS { speeds.on(moved, from) } else { moved };
                }
                for (load, &x) in load[to].0.iter_mut().zip(x) {
                    let moved = scaled(x, flow, WHOLE_BITS);
                    *load += if SPEEDS { speeds.on(moved, to) } else { moved };
                }
            }
            if most <= STILL {
                break;
            }
        }
    }
}

/// The pull of an expert to even shares, where this is expected of it, and the sum of the squares of its loads, `x`, and of
/// that.
#[inline(always)]
fn terms(expected: i32, x: &[i32; SCENARIOS], pull: i64) -> (i64, i64) {
    let expected = i64::from(expected);
    let even = ((expected * expected) >> 16) * pull;
    let mut squares = even;
    for &x in x {
        squares += i64::from(x) * i64::from(x);
    }
    (even, squares)
}

/// `x * factor / 2^bits`, of numbers that are not negative.
#[inline(always)]
fn scaled(x: i32, factor: i32, bits: u32) -> i32 {
    ((u64::from(x as u32) * u64::from(factor as u32)) >> bits) as i32
}

/// A row of loads as parts of [`TOTAL`]; even ones where there is no load.
#[inline(always)]
fn shares(loads: &[u32], out: &mut [i32]) {
    // At most 2^28, as all loads in fixed point.
    let total: u32 = loads.iter().sum();
    if total == 0 {
        out.fill((TOTAL / loads.len() as u32) as i32);
        return;
    }
    // Loads of a layer with any come to 2^27 and more, but for rows that rounding left with little.
    let factor = (u64::from(TOTAL) << 32) / u64::from(total);
    let factor = factor.min(u64::from(u32::MAX)) as u32;
    for (out, &load) in out.iter_mut().zip(loads) {
        *out = ((u64::from(load) * u64::from(factor)) >> 32) as i32;
    }
}

/// The last rows, moved so that their weighted mean is `centre`, their deviations scaled by `spread`, each with the sum
/// [`TOTAL`] times the root of its weight. Of fewer rows than [`SCENARIOS`] the rest is empty.
#[inline(always)]
fn lay_scenarios(rows: &[&[i32]], centre: &[i32], spread: i64, out: &mut Vec<ScenarioRow>) {
    let experts = centre.len();
    let recent = &rows[rows.len().saturating_sub(SCENARIOS)..];
    let mut weights = vec![i64::from(TOTAL); recent.len()];
    for at in (1..weights.len()).rev() {
        weights[at - 1] = weights[at] * DECAY / 1000;
    }
    let all: i64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight = *weight * i64::from(TOTAL) / all);
    let mut mean = vec![0i64; experts];
    for (row, &weight) in recent.iter().zip(&weights) {
        let weight = weight as i32;
        for (sum, &x) in mean.iter_mut().zip(*row) {
            *sum += i64::from(x) * i64::from(weight);
        }
    }
    let (mut moved, spread) = (vec![0i32; SCENARIOS * experts], spread as i32);
    let is_spread = i64::from(spread) != ONE;
    let mut factors = [0; SCENARIOS];
    let windows = recent.iter().zip(&weights).zip(moved.chunks_exact_mut(experts)).zip(&mut factors);
    for (((row, &weight), moved), factor) in windows {
        let mut sum = 0i64;
        for (((moved, &x), &mean), &centre) in moved.iter_mut().zip(*row).zip(&mean).zip(centre) {
            let mut apart = x - (mean as u64 >> TOTAL_BITS) as i32;
            if is_spread {
                apart = ((i64::from(apart) * i64::from(spread)) >> ONE.ilog2()) as i32;
            }
            *moved = (centre + apart).max(0);
            sum += i64::from(*moved);
        }
        let root = ((weight as u64) << TOTAL_BITS).isqrt();
        *factor = ((root << TOTAL_BITS) / sum.max(1) as u64).min(2 << TOTAL_BITS) as i32;
    }
    for (moved, &factor) in moved.chunks_exact_mut(experts).zip(&factors) {
        for x in moved {
            *x = scaled(*x, factor, TOTAL_BITS);
        }
    }
    out.clear();
    out.resize(experts, ScenarioRow([0; SCENARIOS]));
    for (s, moved) in moved.chunks_exact(experts).take(recent.len()).enumerate() {
        for (row, &x) in out.iter_mut().zip(moved) {
            row.0[s] = x;
        }
    }
}

/// How far a sample is to be believed, as a part of [`ONE`]: `n / (n + n0)` of its `n` routings, where `n0` routings tell as
/// much as the forecast does. The squares of what the forecast missed in the windows, less what their own noise of
/// counting is, tell how much that is.
fn gain(rows: &[&[i32]], means: &[i32], phi: i64, sample: &Sample<'_>) -> i64 {
    let steps = rows.len().saturating_sub(1) as i128;
    if steps == 0 || sample.routings == 0 {
        // One window is its own forecast, and nothing tells how far it is off.
        return 0;
    }
    let one = 1i128 << (2 * TOTAL_BITS);
    let mut missed = 0i128;
    for (pair, &routings) in rows.windows(2).zip(&sample.of_windows[1..]) {
        let mut squares = 0i64;
        for ((&before, &now), &mean) in pair[0].iter().zip(pair[1]).zip(means) {
            let off = i64::from(now - mean) - i64::from(before - mean) * phi / ONE;
            // Squares of what is below 2^25, over 2^12 experts.
            squares += off * off;
        }
        missed += i128::from(squares) - one / i128::from(routings.max(1));
    }
    let missed = (missed / steps).max(1);
    let worth = one / missed;
    let routings = i128::from(sample.routings);
    (routings * i128::from(ONE) / (routings + worth)) as i64
}
