//! Scenarios for the next window: the last windows, moved so that their mean is the forecast.

use super::breaks::of_last_kind;
use super::forecast::{even, expected, shares_of_all};

use crate::error::Error;
use crate::loads::Loads;

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
    let all: Vec<Vec<i32>> = history.iter().map(|loads| shares_of_all(loads)).collect();
    let known = of_last_kind(&all, experts);
    let recent = known.len().saturating_sub(count)..known.len();
    // The newest weighs 1; products, not powers, are the same on every machine.
    let mut weights = vec![1.0; recent.len()];
    for at in (1..weights.len()).rev() {
        weights[at - 1] = weights[at] * decay;
    }
    let total: f64 = weights.iter().sum();
    let fixed: Vec<i64> = weights.iter().map(|weight| (weight / total * WEIGHTS) as i64).collect();
    let mut counts = vec![vec![0u64; layers * experts]; recent.len()];
    // Of a layer without load nothing is expected.
    for layer in (0..layers).filter(|&layer| history.iter().any(|loads| loads.has_load(layer))) {
        let row = layer * experts..(layer + 1) * experts;
        let rows: Vec<&[i32]> = known.iter().map(|&window| &all[window][row.clone()]).collect();
        let forecast = expected(&rows);
        let recent = &rows[recent.clone()];
        for (expert, next) in forecast.iter().enumerate() {
            let mean: i64 =
                recent.iter().zip(&fixed).map(|(row, weight)| i64::from(row[expert]) * weight).sum();
            let shift = i64::from(*next) - mean / fixed.iter().sum::<i64>();
            for (row, counts) in recent.iter().zip(&mut counts) {
                counts[layer * experts + expert] = (i64::from(row[expert]) + shift).max(0) as u64;
            }
        }
        for counts in &mut counts {
            even(&mut counts[layer * experts..(layer + 1) * experts]);
        }
    }
    let windows = counts
        .iter()
        .map(|counts| Loads::from_counts(layers, experts, counts)?.with_layer_ids(last.layer_ids()));
    Loads::from_windows(&windows.collect::<Result<Vec<_>, _>>()?, &weights)
}

/// The sum of the weights of windows.
const WEIGHTS: f64 = (1 << 24) as f64;
