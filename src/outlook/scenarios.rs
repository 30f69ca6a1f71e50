//! Scenarios for the next window: the last windows, moved so that their mean is the forecast.

use super::breaks::of_last_kind;
use super::forecast::{even, expected, shares_of_all};

use crate::error::Error;
use crate::loads::Loads;
use crate::threads;

/// Loads of the last `count` windows of `history`, oldest first, each weighing `decay` of the one after it, for one plan
/// that suits the next window: the spread of the windows around what is expected. Windows of another kind than the last
/// one ([`super::breaks`]) are left out.
///
/// Each expert's share in a window is moved by the same amount, the forecast ([`super::forecast()`], over all windows of that
/// kind) less the weighted mean of the windows, cut at zero, and the window scaled to its sum again. In shares of
/// each layer, not in tokens. Integers throughout, so that every rank has the same.
pub fn scenarios(history: &[&Loads], count: usize, decay: f64) -> Result<Loads, Error> {
    let Some(last) = history.last() else {
        return Err(Error::invalid("windows observed", 0, "is not at least 1"));
    };
    let (layers, experts) = (last.layers(), last.experts());
    let all = threads::each(history.len(), |window, (): &mut ()| shares_of_all(history[window]));
    let known = of_last_kind(&all, experts);
    let recent = known.len().saturating_sub(count)..known.len();
    // The newest weighs 1; products, not powers, are the same on every machine.
    let mut weights = vec![1.0; recent.len()];
    for at in (1..weights.len()).rev() {
        weights[at - 1] = weights[at] * decay;
    }
    let total: f64 = weights.iter().sum();
    let fixed: Vec<i64> = weights.iter().map(|weight| (weight / total * WEIGHTS) as i64).collect();
    // Of a layer without load nothing is expected.
    let rows = threads::each(layers, |layer, (): &mut ()| {
        let mut moved = vec![0u64; recent.len() * experts];
        if history.iter().any(|loads| loads.has_load(layer)) {
            let row = layer * experts..(layer + 1) * experts;
            let rows: Vec<&[i32]> = known.iter().map(|&window| &all[window][row.clone()]).collect();
            lay_moved(&rows, &rows[recent.clone()], &fixed, &mut moved);
        }
        moved
    });
    let mut counts = vec![Vec::with_capacity(layers * experts); recent.len()];
    for row in &rows {
        counts.iter_mut().zip(row.chunks_exact(experts)).for_each(|(counts, row)| counts.extend(row));
    }
    let windows = counts
        .iter()
        .map(|counts| Loads::from_counts(layers, experts, counts)?.with_layer_ids(last.layer_ids()));
    Loads::from_windows(&windows.collect::<Result<Vec<_>, _>>()?, &weights)
}

/// Lays out the last rows of a layer, moved so that their mean by these weights is what is expected after all `rows`:
/// `[recent][experts]`.
fn lay_moved(rows: &[&[i32]], recent: &[&[i32]], weights: &[i64], moved: &mut [u64]) {
    let (forecast, all) = (expected(rows), weights.iter().sum::<i64>());
    let experts = forecast.len();
    for (expert, next) in forecast.iter().enumerate() {
        let mean: i64 = recent.iter().zip(weights).map(|(row, weight)| i64::from(row[expert]) * weight).sum();
        let shift = i64::from(*next) - mean / all;
        for (row, moved) in recent.iter().zip(moved.chunks_exact_mut(experts)) {
            moved[expert] = (i64::from(row[expert]) + shift).max(0) as u64;
        }
    }
    moved.chunks_exact_mut(experts).for_each(even);
}

/// The sum of the weights of windows.
const WEIGHTS: f64 = (1 << 24) as f64;
