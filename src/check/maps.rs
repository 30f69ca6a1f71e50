//! Whether the three maps of a plan agree.

use super::rules::{check_entries, filled};
use crate::error::Error;

/// Checks that the three maps of a plan say the same.
///
/// `physical_to_logical` is `[layers][slots]`, the expert of each slot or -1; `logical_to_physical` is
/// `[layers][experts][width]` for any width, the slots of each expert in ascending order, then -1;
/// `replica_counts` is `[layers][experts]`.
///
/// # Errors
/// [`Error::Invalid`] where a length fits no number of layers, [`Error::InvalidPlan`] where an entry is not
/// an expert, a count is not the number of the expert's slots, or a list is not those slots in ascending
/// order followed by -1 alone.
pub fn check_maps(
    experts: usize,
    slots: usize,
    physical_to_logical: &[i32],
    logical_to_physical: &[i32],
    replica_counts: &[u32],
) -> Result<(), Error> {
    let invalid = |field: &str, value: usize, rule: String| Err(Error::invalid(field, value, rule));
    let len = physical_to_logical.len();
    if slots == 0 || len == 0 || !len.is_multiple_of(slots) {
        let rule = format!("is not a positive multiple of the number of slots {slots}");
        return invalid("length of physical_to_logical", len, rule);
    }
    let layers = len / slots;
    let rows = layers.saturating_mul(experts);
    if rows == 0 || replica_counts.len() != rows {
        let rule = format!("is not layers {layers} x experts {experts}");
        return invalid("length of replica_counts", replica_counts.len(), rule);
    }
    let width = logical_to_physical.len() / rows;
    if width == 0 || !logical_to_physical.len().is_multiple_of(rows) {
        let rule = format!("is not a positive multiple of layers {layers} x experts {experts}");
        return invalid("length of logical_to_physical", logical_to_physical.len(), rule);
    }
    for layer in 0..layers {
        let row = &physical_to_logical[layer * slots..(layer + 1) * slots];
        let counts = &replica_counts[layer * experts..(layer + 1) * experts];
        let lists = &logical_to_physical[layer * experts * width..(layer + 1) * experts * width];
        check_maps_of_layer(row, lists, width, counts).map_err(|rule| Error::InvalidPlan { layer, rule })?;
    }
    Ok(())
}

fn check_maps_of_layer(row: &[i32], lists: &[i32], width: usize, counts: &[u32]) -> Result<(), String> {
    check_entries(row, counts.len())?;
    let mut slots_of = vec![vec![]; counts.len()];
    for (slot, expert) in filled(row) {
        slots_of[expert].push(slot);
    }
    for (expert, (slots, list)) in slots_of.iter().zip(lists.chunks_exact(width)).enumerate() {
        if counts[expert] as usize != slots.len() {
            let count = counts[expert];
            return Err(format!("expert {expert} has replica count {count} but fills {} slots", slots.len()));
        }
        if slots.len() > width {
            return Err(format!(
                "expert {expert} fills {} slots, its list has room for {width}",
                slots.len()
            ));
        }
        for (at, &entry) in list.iter().enumerate() {
            let wanted = slots.get(at).and_then(|&slot| i64::try_from(slot).ok()).unwrap_or(-1);
            if i64::from(entry) != wanted {
                return Err(format!("expert {expert} lists {entry} at place {at}, where {wanted} belongs"));
            }
        }
    }
    Ok(())
}
