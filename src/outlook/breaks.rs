//! Breaks of a series of windows: after one the load is of another kind, as when another workload takes over.

/// A window is of another kind than the last one where it differs from it by more than this many times what a window
/// usually differs from the one before it, in squares. (Three sources of log-normal(1) that take turns, each with steps of
/// .1: planned anew at each window, balancedness rises by .012 to .020. Loads that drift without a break, with steps of
/// .05 or .3 and a history of 32 windows, stay as they are; at 4 those with steps of .3 lose .007.)
const BREAK: u128 = 16;

/// How far two windows' shares lie apart, at 1 / 2^5 of their unit: so the squares of a layer are summed in a word.
fn distance(a: &[i32], b: &[i32], experts: usize) -> u128 {
    let squares = |(a, b): (&[i32], &[i32])| -> u64 {
        a.iter().zip(b).map(|(&a, &b)| u64::from(a.abs_diff(b) >> 5).pow(2)).sum()
    };
    a.chunks_exact(experts).zip(b.chunks_exact(experts)).map(|layer| u128::from(squares(layer))).sum()
}

/// Which windows say something of the next one: those of the last one's kind. Windows before a break say nothing, unless
/// the load has come back to their kind. `shares` are those of all layers, `[windows][layers][experts]`, the oldest window first.
pub fn of_last_kind(shares: &[Vec<i32>], experts: usize) -> Vec<usize> {
    let Some((last, before)) = shares.split_last() else { return Vec::new() };
    let steps = shares.windows(2).map(|pair| distance(&pair[0], &pair[1], experts));
    // Windows that repeat the one before them tell nothing of what is usual.
    let mut steps: Vec<u128> = steps.filter(|&step| step > 0).collect();
    steps.sort_unstable();
    let usual = steps.get(steps.len() / 2).copied().unwrap_or_default();
    let is_alike = |at: &usize| distance(&before[*at], last, experts) <= BREAK * usual;
    (0..before.len()).filter(is_alike).chain([before.len()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(firsts: &[i32]) -> Vec<i32> {
        let shares: Vec<Vec<i32>> =
            firsts.iter().map(|&first| vec![first << 20, (100 - first) << 20]).collect();
        of_last_kind(&shares, 2).into_iter().map(|at| firsts[at]).collect()
    }

    #[test]
    fn a_turn_leaves_the_windows_after_it_and_those_it_comes_back_to() {
        let (first, second) = ([90, 89, 91, 90, 88], [20, 21, 19]);
        assert_eq!(kept(&[&first[..], &second].concat()), second);
        assert_eq!(kept(&[&first[..], &second, &[91, 90]].concat()), [&first[..], &[91, 90]].concat());
    }

    #[test]
    fn noise_and_drift_are_no_breaks() {
        for all in [&[70, 30, 65, 35, 50][..], &[10, 11, 12, 13], &[7, 7, 7, 7, 8], &[3], &[3, 5], &[]] {
            assert_eq!(kept(all), all);
        }
    }
}
