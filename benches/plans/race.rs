//! Times contenders beside greedy, in turns.

use std::time::{Duration, Instant};

use eplb_wgpu::Error;

/// Runs of one contender that count, at least and at most.
const RUNS: (usize, usize) = (3, 31);

/// Work that is timed.
pub type Work<'a> = Box<dyn FnMut() -> Result<(), Error> + 'a>;

/// How one contender did.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// Its first run, which pays for what later ones reuse.
    pub first_ms: f64,
    /// Median of the later runs.
    pub ms: f64,
    /// The fastest of them.
    pub least_ms: f64,
    /// Median of (time / time of greedy in the same round).
    pub ratio: f64,
}

/// The median time of greedy in ms, and the contenders' times. In every round greedy runs first, then each
/// contender that has not used up its share of time.
pub fn race(
    share: Duration,
    mut greedy: impl FnMut(),
    contenders: &mut [Work],
) -> Result<(f64, Vec<Time>), Error> {
    greedy();
    let mut firsts = Vec::new();
    for work in contenders.iter_mut() {
        firsts.push(timed(work)?);
    }
    let mut yardstick = Vec::new();
    let mut runs = vec![Vec::new(); contenders.len()];
    loop {
        let wants = |runs: &Vec<(f64, f64)>| {
            let spent: f64 = runs.iter().map(|run| run.0).sum();
            runs.len() < RUNS.0 || (runs.len() < RUNS.1 && spent < share.as_secs_f64() * 1e3)
        };
        if !runs.iter().any(wants) && yardstick.len() >= RUNS.0 {
            break;
        }
        // Once for the caches, which the last contender has filled with its own.
        greedy();
        let start = Instant::now();
        greedy();
        let round = milliseconds(start);
        yardstick.push(round);
        for (work, runs) in contenders.iter_mut().zip(&mut runs) {
            if wants(runs) {
                let ms = timed(work)?;
                runs.push((ms, ms / round));
            }
        }
    }
    let time = |(first_ms, runs): (f64, Vec<(f64, f64)>)| Time {
        first_ms,
        ms: median(runs.iter().map(|run| run.0)),
        least_ms: runs.iter().map(|run| run.0).fold(f64::INFINITY, f64::min),
        ratio: median(runs.iter().map(|run| run.1)),
    };
    Ok((median(yardstick), firsts.into_iter().zip(runs).map(time).collect()))
}

/// Rounds of [`paired`], at least and at most.
const ROUNDS: (usize, usize) = (5, 301);

/// Shares of time after which no more rounds are made to have enough of them.
const SLOW: u32 = 12;

/// How one contender did against greedy, on two threads and on one.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Medians; greedy's of the rounds with two threads.
    pub greedy_ms: f64,
    pub ms: f64,
    /// Median of the ratios of each round, on two threads.
    pub ratio: f64,
    /// The same on one.
    pub one_thread_ratio: f64,
    /// The fastest run on two threads over greedy's fastest: nearest to what a machine of its own would show.
    pub fastest_ratio: f64,
}

/// Greedy and a contender in turns: greedy, `two`, greedy, `one`, and so on until all together have used twice the
/// share of time, of slow ones once. The contender has run before.
pub fn paired(
    share: Duration,
    mut greedy: impl FnMut(),
    mut two: impl FnMut() -> Result<(), Error>,
    mut one: impl FnMut() -> Result<(), Error>,
) -> Result<Pair, Error> {
    let mut round = |contender: &mut dyn FnMut() -> Result<(), Error>| {
        let start = Instant::now();
        greedy();
        let greedy_ms = milliseconds(start);
        let start = Instant::now();
        contender()?;
        Ok::<_, Error>((greedy_ms, milliseconds(start)))
    };
    let begin = Instant::now();
    let [mut twos, mut ones] = [const { Vec::new() }; 2];
    let wants = |rounds: usize| match begin.elapsed() {
        spent if spent < 2 * share => rounds < ROUNDS.1,
        spent => rounds == 0 || (rounds < ROUNDS.0 && spent < SLOW * share),
    };
    while wants(twos.len()) {
        twos.push(round(&mut two)?);
        ones.push(round(&mut one)?);
    }
    let ratio = |rounds: &[(f64, f64)]| median(rounds.iter().map(|(greedy, ours)| ours / greedy));
    let least = |of: fn(&(f64, f64)) -> f64| twos.iter().map(of).fold(f64::INFINITY, f64::min);
    Ok(Pair {
        fastest_ratio: least(|round| round.1) / least(|round| round.0),
        greedy_ms: median(twos.iter().map(|round| round.0)),
        ms: median(twos.iter().map(|round| round.1)),
        ratio: ratio(&twos),
        one_thread_ratio: ratio(&ones),
    })
}

fn timed(work: &mut Work) -> Result<f64, Error> {
    let start = Instant::now();
    work()?;
    Ok(milliseconds(start))
}

pub fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The line through points with the least squares of relative deviations, `(at 0, slope)`, and the largest
/// deviation from it in per cent.
pub fn line(points: &[(f64, f64)]) -> (f64, f64, f64) {
    let weighted = |f: fn((f64, f64)) -> f64| points.iter().map(|&p| f(p) / p.1.powi(2)).sum::<f64>();
    let total = weighted(|_| 1.0);
    let (x, y) = (weighted(|p| p.0) / total, weighted(|p| p.1) / total);
    let covariance = weighted(|p| p.0 * p.1) / total - x * y;
    let slope = covariance / (weighted(|p| p.0 * p.0) / total - x * x);
    let at_0 = y - slope * x;
    let deviation = |p: &(f64, f64)| (p.1 / (at_0 + slope * p.0) - 1.0).abs() * 100.0;
    (at_0, slope, points.iter().map(deviation).fold(0.0, f64::max))
}
