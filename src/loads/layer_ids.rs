//! The numbers that layers have in the model.

use std::sync::Arc;

use crate::error::Error;

/// Layers numbered from 0.
pub fn numbered(layers: usize) -> Arc<[u32]> {
    (0..layers as u32).collect()
}

/// Checks that `ids` can be the numbers of this many layers.
pub(crate) fn check_layer_ids(layers: usize, ids: &[u32]) -> Result<(), Error> {
    if ids.len() != layers {
        let rule = format!("is not the number of layers {layers}");
        return Err(Error::invalid("number of layer ids", ids.len(), rule));
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::invalid("layer id", pair[0], "is there twice")),
        None => Ok(()),
    }
}

/// Refuses what is about other layers than the loads are.
pub(crate) fn check_same_layers(field: &str, found: &[u32], wanted: &[u32]) -> Result<(), Error> {
    if found == wanted {
        return Ok(());
    }
    let rule = format!("are not those of the loads, {}", shown_layers(wanted));
    Err(Error::invalid(field, shown_layers(found), rule))
}

/// Where layers are among all of a model, which has more. None where one is not there, or where they are the first ones, whose
/// numbers may be no more than places.
#[cfg(feature = "files")]
pub(crate) fn places(all: &[u32], layers: &[u32]) -> Option<Vec<usize>> {
    let is_numbered = (0..).zip(layers).any(|(place, &id)| place != id);
    let place = |id: &u32| all.iter().position(|other| other == id);
    if is_numbered && layers.len() < all.len() { layers.iter().map(place).collect() } else { None }
}

/// `3, 4, 7`, or `0..58` where they follow each other.
fn shown_layers(ids: &[u32]) -> String {
    const MOST: usize = 8;
    let follow = ids.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
    match ids {
        [first, .., last] if follow && ids.len() > 2 => format!("{first}..={last}"),
        _ if ids.len() > MOST => {
            let shown: Vec<String> = ids[..MOST].iter().map(u32::to_string).collect();
            format!("{}, … ({} layers)", shown.join(", "), ids.len())
        }
        _ => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_layers_are_shown_short() {
        assert_eq!(shown_layers(&[7, 1]), "7, 1");
        assert_eq!(
            shown_layers(&(0..20).map(|id| 2 * id).collect::<Vec<_>>()),
            "0, 2, 4, 6, 8, 10, 12, 14, … (20 layers)"
        );
    }
}
