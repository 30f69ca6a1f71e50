//! Loads in fixed point.

/// Each layer's loads are scaled so that they sum to at most this.
///
/// One scale for all stages. At 2^28 the loads of blocked moves, five of which may add up, still fit `i32`. Scaling and
/// `floor(load / replicas)` round each replica by less than 2, so a GPU's load is off by less than 2 x slots of the layer
/// / 2^28 of the mean: 2.2e-6 with 288 slots, and 1.3e-4 at the limit of 16,384 slots, on 16,384 GPUs as on 64.
pub(crate) const FIXED_TOTAL: u32 = 1 << 28;

/// Scales one layer of counts: by a whole factor where the total allows, else by `FIXED_TOTAL / total`.
pub fn fixed_from_counts(row: &[u64]) -> Vec<u32> {
    let total: u128 = row.iter().map(|&c| u128::from(c)).sum();
    let limit = u128::from(FIXED_TOTAL);
    let scale = |count: u64| match total {
        0 => 0,
        t if t <= limit => u128::from(count) * (limit / t),
        t => u128::from(count) * limit / t,
    };
    row.iter().map(|&c| u32::try_from(scale(c)).unwrap_or(FIXED_TOTAL)).collect()
}

/// Scales one layer of floats. The head-room of 2^12 keeps the rounded sum under `FIXED_TOTAL`; additions
/// and one multiplication in `f64` are the same on every machine.
pub fn fixed_from_floats(row: &[f64]) -> Vec<u32> {
    let largest = row.iter().copied().fold(0.0, f64::max);
    if largest == 0.0 {
        return vec![0; row.len()];
    }
    // Dividing by the largest first keeps denormal and huge loads alike in range.
    let total: f64 = row.iter().map(|v| v / largest).sum();
    let scale = f64::from(FIXED_TOTAL - (1 << 12)) / total;
    row.iter().map(|v| (v / largest * scale) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_stay_within_the_fixed_total() {
        let rows: [&[u64]; 5] =
            [&[1, 2, 3], &[u64::MAX, u64::MAX, 1], &[0, 0], &[1 << 30, 1], &[(1 << 29) + 1, 1 << 29]];
        for row in rows {
            let sum: u64 = fixed_from_counts(row).iter().map(|&f| u64::from(f)).sum();
            assert!(sum <= u64::from(FIXED_TOTAL), "{row:?} sums to {sum}");
            if row.iter().any(|&c| c > 0) {
                assert!(sum > u64::from(FIXED_TOTAL) / 2, "{row:?} loses precision: {sum}");
            }
        }
        for row in
            [vec![0.1; 1000], vec![f64::MIN_POSITIVE / 8.0, 0.0], vec![1e19, 0.5], vec![1.0 / 3.0; 4096]]
        {
            let sum: u64 = fixed_from_floats(&row).iter().map(|&f| u64::from(f)).sum();
            assert!(sum <= u64::from(FIXED_TOTAL) && sum > u64::from(FIXED_TOTAL) / 2, "{sum}");
        }
    }

    #[test]
    fn small_counts_keep_exact_ratios() {
        let fixed = fixed_from_counts(&[120, 240, 360]);
        assert_eq!(u64::from(fixed[0]) * 3, u64::from(fixed[2]));
        assert_eq!(fixed[0] * 2, fixed[1]);
    }
}
