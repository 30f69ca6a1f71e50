//! GPUs of unequal speed: their loads count over their speed.

use crate::cluster::Cluster;

/// The factors by which loads count on each GPU, relative to the slowest one that works, where they count as they are.
#[derive(Debug)]
pub struct Speeds {
    /// In parts of [`WHOLE`], `[gpus]`; empty where all are equally fast.
    factors: Vec<u32>,
}

/// A factor of 1, the largest.
const WHOLE: u64 = 1 << WHOLE_BITS;
const WHOLE_BITS: u32 = 16;

impl Speeds {
    pub fn new(cluster: &Cluster) -> Self {
        let speeds = cluster.speed_parts();
        let slowest = speeds.iter().copied().filter(|speed| *speed > 0).min().map_or(0, u64::from);
        // Nothing is on a GPU that is gone.
        let factor = |&speed: &u32| slowest.checked_mul(WHOLE).map_or(0, |all| all / u64::from(speed.max(1)));
        Self { factors: speeds.iter().map(|speed| factor(speed).min(WHOLE) as u32).collect() }
    }

    /// Whether all GPUs are equally fast.
    pub fn are_equal(&self) -> bool {
        self.factors.is_empty()
    }

    /// A load as it counts on a GPU.
    #[inline(always)]
    pub fn on(&self, load: i32, gpu: usize) -> i32 {
        ((i64::from(load) * i64::from(self.factors[gpu])) >> WHOLE_BITS) as i32
    }

    /// A sum of squares by the factors of two GPUs.
    #[inline(always)]
    pub fn both(&self, squares: i64, g: usize, u: usize) -> i64 {
        let factors = i128::from(self.factors[g]) + i128::from(self.factors[u]);
        ((i128::from(squares) * factors) >> WHOLE_BITS) as i64
    }

    /// The heaviest of all GPUs, by the load of each.
    pub fn peak(&self, loads: impl Iterator<Item = u64>) -> u64 {
        loads.enumerate().map(|(gpu, load)| self.over(load, gpu)).max().unwrap_or(0)
    }

    /// A load over the speed of a GPU. In parts of an expert it comes to at most 2^36.
    pub fn over(&self, load: u64, gpu: usize) -> u64 {
        load * self.factors.get(gpu).map_or(1, |&factor| u64::from(factor))
    }

    /// How many parts, each of this load, make the heavier of two GPUs, over their speeds, lightest if the first one, which is
    /// it, gives them to the second.
    pub fn whole_parts(&self, (heavy, from): (u64, usize), (light, to): (u64, usize), each: u64) -> u64 {
        let apart = self.over(heavy, from) - self.over(light, to);
        let step = self.over(each, from) + self.over(each, to);
        let parts = apart.checked_div(step).unwrap_or(0);
        parts + u64::from(apart - parts * step > self.over(each, to))
    }

    /// Twice the load that levels two GPUs where it goes from the first to the second.
    #[inline(always)]
    pub fn apart(&self, load: &[i32], g: usize, u: usize) -> i32 {
        let (a, b) = (i64::from(self.factors[g]), i64::from(self.factors[u]));
        (2 * (i64::from(load[g]) * a - i64::from(load[u]) * b) / (a + b)) as i32
    }
}
