//! Synthetic loads, the same for the same seed on every machine: the logarithm and the exponential are libm's,
//! whose arithmetic is `+ - * /` alone, not the platform's, whose last bits differ.

use super::LoadHistory;
use crate::error::Error;

/// How the popularity of experts is distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Family {
    /// Log-normal with this standard deviation of the logarithm; 0 is uniform.
    Lognormal(f64),
    /// Zipf's law with this exponent, experts in random order.
    Zipf(f64),
    /// Log-normal (0.5), the first of eight groups six times as hot.
    HotGroup,
    /// Log-normal (0.5), one expert in fifty thirty times as hot.
    HotExperts,
}

impl std::str::FromStr for Family {
    type Err = Error;

    /// `lognormal:S`, `zipf:S`, `hot-group`, `hot-experts` or `uniform`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, number) = text.split_once(':').unwrap_or((text, "1"));
        let strength: Option<f64> = number.parse().ok().filter(|s| (0.0..=4.0).contains(s));
        match (name, strength) {
            ("uniform", Some(_)) => Ok(Self::Lognormal(0.0)),
            ("lognormal", Some(s)) => Ok(Self::Lognormal(s)),
            ("zipf", Some(s)) => Ok(Self::Zipf(s)),
            ("hot-group", Some(_)) => Ok(Self::HotGroup),
            ("hot-experts", Some(_)) => Ok(Self::HotExperts),
            _ => {
                let rule = "is not uniform, lognormal:S, zipf:S, hot-group or hot-experts, with S in 0..=4";
                Err(Error::invalid("family", text, rule))
            }
        }
    }
}

/// The loads to generate.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..Generate::default()`, and later versions compile.
///
/// ```
/// use eplb_wgpu::trace::{Family, Generate};
/// let history = Generate { layers: 2, experts: 8, ..Generate::default() }.history()?;
/// assert_eq!(history, Generate { layers: 2, experts: 8, ..Generate::default() }.history()?);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Generate {
    /// Distribution of the experts' popularity. Default: `Lognormal(1.0)`.
    pub family: Family,
    /// Windows. Default: 1.
    pub windows: usize,
    /// Layers. Default: 58.
    pub layers: usize,
    /// Experts. Default: 256.
    pub experts: usize,
    /// This many first layers have no load, as a model's dense layers. Default: 0.
    pub dense_layers: usize,
    /// Routed tokens of a layer in a window, about. Default: 262,144.
    pub tokens: u64,
    /// Standard deviation of the step of an expert's log popularity from window to window. Default: 0.
    pub drift: f64,
    /// Seed. Default: 0.
    pub seed: u64,
}

impl Default for Generate {
    fn default() -> Self {
        Self {
            family: Family::Lognormal(1.0),
            windows: 1,
            layers: 58,
            experts: 256,
            dense_layers: 0,
            tokens: 262_144,
            drift: 0.0,
            seed: 0,
        }
    }
}

impl Generate {
    /// The loads.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a size is 0 or too large.
    pub fn history(&self) -> Result<LoadHistory, Error> {
        let size = self.windows.saturating_mul(self.layers).saturating_mul(self.experts);
        if size > 1 << 26 {
            return Err(Error::invalid("windows x layers x experts", size, "is more than 2^26"));
        }
        super::history::check_shape(self.windows, self.layers, self.experts, size)?;
        if self.dense_layers > self.layers {
            let rule = format!("is more than layers {}", self.layers);
            return Err(Error::invalid("dense_layers", self.dense_layers, rule));
        }
        let drift_range = 0.0..=4.0;
        if !drift_range.contains(&self.drift) {
            return Err(Error::invalid("drift", self.drift, "is not between 0 and 4"));
        }
        let mut random = Random(self.seed);
        let mut logs: Vec<f64> = (0..self.layers).flat_map(|_| self.popularity(&mut random)).collect();
        let mut counts = Vec::with_capacity(size);
        for _ in 0..self.windows {
            for (layer, logs) in logs.chunks_exact(self.experts.max(1)).enumerate() {
                // A long drift passes what an exponential can be; then only the differences are taken.
                let top = logs.iter().copied().fold(0.0, f64::max);
                let shift = if top > 600.0 { top } else { 0.0 };
                let weights: Vec<f64> = logs.iter().map(|&x| libm::exp(x - shift)).collect();
                let scale = if layer < self.dense_layers { 0.0 } else { self.tokens as f64 };
                let total: f64 = weights.iter().sum();
                counts.extend(weights.iter().map(|w| (w / total * scale).round() as u64));
            }
            logs.iter_mut().for_each(|x| *x += self.drift * random.normal());
        }
        LoadHistory::from_counts(self.windows, self.layers, self.experts, counts)
    }

    /// Logarithms of one layer's popularity.
    fn popularity(&self, random: &mut Random) -> Vec<f64> {
        let mut logs: Vec<f64> = (0..self.experts).map(|_| random.normal()).collect();
        match self.family {
            Family::Lognormal(sigma) => logs.iter_mut().for_each(|x| *x *= sigma),
            Family::Zipf(exponent) => {
                let mut order: Vec<usize> = (0..logs.len()).collect();
                order.sort_by(|&a, &b| logs[a].total_cmp(&logs[b]));
                for (rank, expert) in order.into_iter().enumerate() {
                    logs[expert] = -exponent * libm::log((rank + 1) as f64);
                }
            }
            Family::HotGroup => {
                let group = logs.len().div_ceil(8);
                let hot = |i: usize| if i < group { libm::log(6.0) } else { 0.0 };
                logs.iter_mut().enumerate().for_each(|(i, x)| *x = 0.5 * *x + hot(i));
            }
            Family::HotExperts => {
                logs.iter_mut().for_each(|x| *x *= 0.5);
                logs.iter_mut()
                    .filter(|_| random.next().is_multiple_of(50))
                    .for_each(|x| *x += libm::log(30.0));
            }
        }
        logs
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About standard normal: the sum of twelve uniform numbers, less six; no transcendental function.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }
}
