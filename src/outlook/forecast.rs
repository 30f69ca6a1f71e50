//! An AR(1) forecast of each expert's share, in integers.

use crate::error::Error;
use crate::loads::{FIXED_TOTAL, Loads, check_same_layers};

/// One, as a fraction of 2^16.
pub const ONE: i64 = 1 << 16;

/// Shares are taken at 1 / 2^24 where their products are summed, so that those fit.
const SHIFT: u32 = 4;

/// The loads expected after `windows`, oldest first: each expert's share is its mean over the windows, plus the
/// last deviation from it times the layer's autocorrelation. In shares of each layer, not in tokens.
///
/// The autocorrelation at lag 1 is taken over all experts of a layer together, and corrected for the bias of
/// short series, `phi + (1 + 3 phi) / n` (Kendall, *Note on bias in the estimation of autocorrelation*, 1954),
/// between 0 and 1. Integers throughout, so that every rank forecasts the same.
///
/// # Errors
/// [`Error::Invalid`] where there is no window, or their shapes or layers differ.
///
/// ```
/// use eplb_wgpu::{Loads, rebalance::forecast};
/// let window = |a, b| Loads::from_counts(1, 2, &[a, b]);
/// let next = forecast(&[window(60, 40)?, window(50, 50)?, window(40, 60)?])?;
/// assert!(next.layer(0)[1] > next.layer(0)[0]);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
pub fn forecast(windows: &[Loads]) -> Result<Loads, Error> {
    let Some(last) = windows.last() else {
        return Err(Error::invalid("number of windows", 0, "is not at least 1"));
    };
    let (layers, experts) = (last.layers(), last.experts());
    for (i, window) in windows.iter().enumerate() {
        if (window.layers(), window.experts()) != (layers, experts) {
            let shape = format!("{} layers x {} experts", window.layers(), window.experts());
            let rule = format!("is not that of the last, {layers} layers x {experts} experts");
            return Err(Error::invalid(format!("shape of window {i}:"), shape, rule));
        }
        check_same_layers(&format!("layers of window {i}"), window.layer_ids(), last.layer_ids())?;
    }
    if windows.len() == 1 {
        return Ok(last.clone());
    }
    let mut counts = Vec::with_capacity(layers * experts);
    for layer in 0..layers {
        if !windows.iter().any(|window| window.has_load(layer)) {
            counts.resize(counts.len() + experts, 0);
            continue;
        }
        let rows: Vec<Vec<i32>> = windows.iter().map(|window| shares(window, layer)).collect();
        counts.extend(expected(&rows).into_iter().map(|share| u64::try_from(share).unwrap_or(0)));
    }
    Loads::from_counts(layers, experts, &counts)?.with_layer_ids(last.layer_ids())
}

/// A layer's shares: its loads, scaled to [`FIXED_TOTAL`]; even ones where there is no load.
pub fn shares(loads: &Loads, layer: usize) -> Vec<i32> {
    let experts = loads.experts();
    let row = &loads.fixed()[layer * experts..(layer + 1) * experts];
    let mut shares: Vec<u64> = row.iter().map(|&load| u64::from(load)).collect();
    even(&mut shares);
    shares.into_iter().map(|share| share as i32).collect()
}

/// [`shares`] of all layers, `[layers][experts]`.
pub fn shares_of_all(loads: &Loads) -> Vec<i32> {
    (0..loads.layers()).flat_map(|layer| shares(loads, layer)).collect()
}

/// Scales a row to [`FIXED_TOTAL`], less what rounding takes.
pub fn even(row: &mut [u64]) {
    let (total, experts) = (row.iter().sum::<u64>(), row.len() as u64);
    for load in row.iter_mut() {
        *load = match total {
            0 => u64::from(FIXED_TOTAL) / experts,
            total => *load * u64::from(FIXED_TOTAL) / total,
        };
    }
}

/// The forecast of a layer from its shares, oldest window first.
#[inline(always)]
pub fn expected(rows: &[impl AsRef<[i32]>]) -> Vec<i32> {
    let (phi, means) = persistence(rows);
    let Some(last) = rows.last() else { return means };
    let next = |(&mean, &last): (&i32, &i32)| mean + (i64::from(last - mean) * phi / ONE) as i32;
    means.iter().zip(last.as_ref()).map(next).collect()
}

/// The autocorrelation of a layer's shares, as a part of [`ONE`], and each expert's mean.
#[inline(always)]
pub fn persistence(rows: &[impl AsRef<[i32]>]) -> (i64, Vec<i32>) {
    let n = rows.len() as i64;
    let mut sums = vec![0i64; rows.first().map_or(0, |row| row.as_ref().len())];
    // Loops, not closures, which would be compiled without the caller's vector instructions.
    for row in rows {
        for (sum, &share) in sums.iter_mut().zip(row.as_ref()) {
            *sum += i64::from(share);
        }
    }
    let mut means = vec![0; sums.len()];
    for (mean, sum) in means.iter_mut().zip(&sums) {
        *mean = (sum / n.max(1)) as i32;
    }
    let (mut covariance, mut variance) = (0i128, 0i128);
    for pair in rows.windows(2) {
        let (mut with, mut own) = (0, 0);
        for ((before, now), mean) in pair[0].as_ref().iter().zip(pair[1].as_ref()).zip(&means) {
            let before = (before - mean) >> SHIFT;
            with += i64::from((now - mean) >> SHIFT) * i64::from(before);
            own += i64::from(before) * i64::from(before);
        }
        covariance += i128::from(with);
        variance += i128::from(own);
    }
    let one = i128::from(ONE);
    // Shares that never moved stay.
    let phi = if variance == 0 { one } else { covariance * one / variance };
    let phi = phi + (one + 3 * phi) / i128::from(n.max(1));
    (phi.clamp(0, one) as i64, means)
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    fn windows(rows: &[[u64; 2]]) -> Vec<Loads> {
        rows.iter().map(|row| Loads::from_counts(1, 2, row).unwrap()).collect()
    }

    #[test]
    fn noise_is_forecast_by_its_mean_and_a_drift_by_its_end() {
        let noise = windows(&[[70, 30], [30, 70], [70, 30], [30, 70], [70, 30], [30, 70]]);
        let next = forecast(&noise).unwrap();
        assert_relative_eq!(next.layer(0)[0], next.layer(0)[1], max_relative = 1e-3);
        let drift: Vec<[u64; 2]> = (0..8).map(|t| [100 + 100 * t, 900 - 100 * t]).collect();
        let next = forecast(&windows(&drift)).unwrap();
        let share = next.layer(0)[0] / (next.layer(0)[0] + next.layer(0)[1]);
        assert!(share > 0.7 && share <= 0.8001, "{share}");
    }

    #[test]
    fn a_layer_without_load_stays_without() {
        let windows = [[0, 0, 3, 5], [0, 0, 5, 3]].map(|counts| Loads::from_counts(2, 2, &counts).unwrap());
        assert_eq!(forecast(&windows).unwrap().layers_without_load(), 1);
        let scenarios = super::super::scenarios(&windows.iter().collect::<Vec<_>>(), 2, 0.9).unwrap();
        assert_eq!(scenarios.layers_without_load(), 1);
    }

    #[test]
    fn one_window_is_its_own_forecast_and_equal_ones_stay() {
        let one = windows(&[[3, 5]]);
        assert_eq!(forecast(&one).unwrap(), one[0]);
        let next = forecast(&windows(&[[30, 50]; 4])).unwrap();
        assert_relative_eq!(next.layer(0)[0] / next.layer(0)[1], 0.6, max_relative = 1e-6);
        assert!(forecast(&[]).is_err());
    }
}
