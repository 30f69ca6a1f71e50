//! The objective of plans over time: for each window the heaviest GPU plus the squares of what GPUs carry above
//! the mean, and a price for every slot that moves. All in whole numbers.
//!
//! Where GPUs are of unequal speed, what they carry is over their speed, the mean is what each would have were all even, and
//! the square of a GPU counts in proportion to its speed.

use crate::loads::FIXED_TOTAL;
use crate::params::{PULL_BITS, Params};

/// Loads of a layer, and the numbers that its plans are judged by.
pub struct LayerObjective {
    /// Windows.
    pub windows: usize,
    /// Load of each expert, `[experts + 1][windows]`, scaled by the windows' weights. The last row is of free slots.
    pub weight: Vec<i32>,
    /// The square of what is above the mean, window by window.
    pub squares: Vec<Square>,
    /// The price of one moved slot.
    pub price: i32,
    /// By how much a state must be better than the best before it to be kept.
    pub gap: i32,
    /// The mean GPU, all windows together.
    pub mean: i32,
}

/// A millionth, about: improvements below it are noise.
const GAP_SHIFT: u32 = 20;

impl LayerObjective {
    /// For loads `[windows][experts]` of one layer. `price_ppm` is what moving all slots must bring, in millionths of the
    /// mean GPU.
    pub fn new(params: &Params, rows: &[&[u32]], price_ppm: u32) -> Self {
        let slots = (params.node_slots * params.nodes) as usize;
        Self::of_mean(rows, slots, price_ppm, |load| params.mean_gpu(load))
    }

    /// The same where `mean_of` tells what all loads of a window come to on the mean GPU.
    fn of_mean(rows: &[&[u32]], slots: usize, price_ppm: u32, mean_of: impl Fn(u32) -> u32) -> Self {
        let (windows, experts) = (rows.len(), rows.first().map_or(0, |row| row.len()));
        let mut weight = vec![0; (experts + 1) * windows];
        let mut squares = Vec::with_capacity(windows);
        let mut mean = 0;
        for (window, row) in rows.iter().enumerate() {
            let mut total = 0;
            for (out, &load) in weight.iter_mut().skip(window).step_by(windows).zip(*row) {
                *out = load as i32;
                total += load;
            }
            let of_window = mean_of(total) as i32;
            squares.push(Square::new(of_window));
            mean += of_window;
        }
        // No sum of what GPUs carry, squares and this passes `i32`: the first two come to five totals at most.
        let price = (i64::from(mean) * i64::from(price_ppm) / 1_000_000).min(2 * i64::from(FIXED_TOTAL));
        let price = (price + slots as i64 / 2) / slots.max(1) as i64;
        Self { windows, weight, squares, price: price as i32, gap: (mean >> GAP_SHIFT).max(1), mean }
    }
}

/// `x^2 / mean` of the load `x` above the mean, in the unit of loads: up to twice the mean, and a straight line
/// beyond, so that no sum over GPUs and windows passes `i32`.
///
/// Products are of at most 16 bits each, so that shaders compute the same.
#[derive(Clone, Copy, Debug)]
pub struct Square {
    mean: i32,
    /// Twice the mean: where the line begins.
    cap: i32,
    shift: u32,
    factor: u32,
    down: u32,
}

impl Square {
    fn new(mean: i32) -> Self {
        // `m`, the mean shifted, has at most 15 bits.
        let shift = (32 - mean.leading_zeros()).saturating_sub(15);
        let m = (mean >> shift).max(1) as u32;
        Self { mean, cap: 2 * mean, shift, factor: (1 << 30) / m, down: 14 - shift.min(14) }
    }

    /// The mean, the factor and the shift, from which a shader has the rest.
    #[cfg(feature = "gpu")]
    pub fn words(&self) -> [u32; 3] {
        [self.mean as u32, self.factor, self.shift]
    }

    /// The square of a load.
    #[inline(always)]
    pub fn of(&self, load: i32) -> i32 {
        self.of_above::<true>(load.wrapping_sub(self.mean))
    }

    /// The square of what a load is above the mean. Without `LINE` it is not where the line begins.
    #[inline(always)]
    pub fn of_above<const LINE: bool>(&self, above: i32) -> i32 {
        let above = above.max(0);
        let part = if LINE { above.min(self.cap) } else { above };
        let t = (part as u32) >> self.shift;
        let square = (t.wrapping_mul(t.wrapping_mul(self.factor) >> 16) >> self.down) as i32;
        if LINE { square.wrapping_add(above.wrapping_sub(part) << 2) } else { square }
    }

    /// The load that has no square.
    #[inline(always)]
    pub fn mean(&self) -> i32 {
        self.mean
    }

    /// Where the line begins: the last load before it.
    #[inline(always)]
    pub fn line(&self) -> i32 {
        self.mean.saturating_add(self.cap)
    }
}

/// A square times its weight, see [`Params::pulls`]. No sum of them is more than without speeds: a GPU that counts more
/// than once carries less in the unit of the slowest.
#[inline(always)]
pub fn pulled(square: i32, pull: i32) -> i32 {
    ((i64::from(square) * i64::from(pull)) >> PULL_BITS) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_close_rise_and_end_in_a_line() {
        for mean in [1, 5, 1000, 16_383, 16_384, 40_000, 1 << 20, (1 << 23) + 77, (1 << 27) - 1] {
            let square = Square::new(mean);
            assert_eq!((square.of(0), square.of(mean)), (0, 0));
            let mut before = 0;
            for step in 0..=400i64 {
                let above = i64::from(mean) * step / 100;
                let Ok(load) = i32::try_from(i64::from(mean) + above) else { continue };
                let exact = if step <= 200 {
                    (above as f64).powi(2) / f64::from(mean)
                } else {
                    4.0 * (above - i64::from(mean)) as f64
                };
                let found = square.of(load);
                let error = (f64::from(found) - exact).abs();
                assert!(error <= 2e-3 * f64::from(mean) + 8.0, "{mean}, {step}: {found} for {exact}");
                assert!(found >= before, "{mean}, {step}: falls");
                before = found;
            }
        }
    }

    #[test]
    fn the_price_of_all_slots_is_a_part_of_the_mean() {
        let row: Vec<u32> = vec![1 << 20; 256];
        let objective = LayerObjective::of_mean(&[&row], 288, 100_000, |load| load / 32);
        assert_eq!(objective.mean, 1 << 23);
        assert_eq!(objective.price, ((1 << 23) / 10 + 144) / 288);
    }
}
