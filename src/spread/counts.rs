//! Replica counts.

use super::{by_falling_load, filled};

/// The counts of a row.
pub fn of_row(experts: u32, row: &[u32]) -> Vec<u32> {
    let mut counts = vec![0; experts as usize];
    filled(row).for_each(|(_, expert)| counts[expert] += 1);
    counts
}

/// The counts that keep most tokens in their node, for `further` replicas beyond one an expert: `most` of the hottest
/// experts (at most one in each node), while there are as many, then two of those after them, all ties to the lower
/// expert. `None` where that many replicas are too many.
pub fn hottest(loads: &[u32], further: u32, most: u32) -> Option<Vec<u32>> {
    let each = most.checked_sub(1).filter(|&each| each > 0)?;
    let order = by_falling_load(loads.iter().copied().enumerate());
    let (full, rest) = ((further / each) as usize, further % each);
    let mut counts = vec![1; loads.len()];
    order.get(..full)?.iter().for_each(|&e| counts[e] = most);
    let others = &order[full..];
    if others.is_empty() && rest > 0 {
        return None;
    }
    // In turn: more than one each only where few experts are left.
    (0..rest as usize).for_each(|turn| counts[others[turn % others.len()]] += 1);
    Some(counts)
}
