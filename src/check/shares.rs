//! The score of a plan under a table of shares.

use std::collections::BTreeMap;

use super::quality::Quality;
use super::rules::{Rules, check_length, filled};
use super::{CheckOptions, score_layer};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;

/// The sum of the parts of an expert's slots.
const WHOLE: u32 = 256;

/// [`super::score`] of a plan whose slots serve these parts of their experts' loads in 256, `[layers][slots]`: a table of
/// shares.
///
/// # Errors
/// As for [`super::score`], and [`Error::Invalid`] where there is not a part for each slot, [`Error::InvalidPlan`] where a
/// free slot has parts or those of an expert do not sum to 256.
pub fn score_shares(
    loads: &Loads,
    cluster: &Cluster,
    physical_to_logical: &[i32],
    parts: &[u16],
) -> Result<Quality, Error> {
    score_shares_with(loads, cluster, physical_to_logical, parts, &CheckOptions::default())
}

/// [`score_shares`] by these options.
///
/// # Errors
/// As for [`score_shares`] and [`super::score_with`].
pub fn score_shares_with(
    loads: &Loads,
    cluster: &Cluster,
    physical_to_logical: &[i32],
    parts: &[u16],
    options: &CheckOptions,
) -> Result<Quality, Error> {
    cluster.check_experts(loads.experts())?;
    cluster.check_foreign(loads.experts(), options.max_foreign)?;
    check_length(loads, cluster, physical_to_logical)?;
    if parts.len() != physical_to_logical.len() {
        let rule = format!("is not that of physical_to_logical, {}", physical_to_logical.len());
        return Err(Error::invalid("length of shares", parts.len(), rule));
    }
    let rules = Rules::new(cluster, loads.experts(), options);
    let slots = cluster.num_slots();
    let rows = physical_to_logical.chunks_exact(slots).zip(parts.chunks_exact(slots)).enumerate();
    let layers = rows.map(|(layer, (row, parts))| {
        let refuse = |rule| Error::InvalidPlan { layer, rule };
        let (_, homes) = rules.check_layer(row).map_err(refuse)?;
        check_parts(loads.experts(), row, parts).map_err(refuse)?;
        let loads = loads.layer(layer);
        let served = |slot: usize, expert: usize| loads[expert] * f64::from(parts[slot]) / f64::from(WHOLE);
        let mut quality = score_layer(loads, cluster, row, served);
        (quality.foreign_replicas, quality.foreign_load) = rules.foreign(row, &homes, served);
        Ok(quality)
    });
    Ok(Quality { layers: layers.collect::<Result<_, _>>()? })
}

/// Whether the parts of each expert sum to a whole one.
fn check_parts(experts: usize, row: &[i32], parts: &[u16]) -> Result<(), String> {
    let mut sums = vec![0u32; experts];
    filled(row).for_each(|(slot, expert)| sums[expert] += u32::from(parts[slot]));
    if let Some(expert) = sums.iter().position(|&sum| sum != WHOLE) {
        return Err(format!("the parts of expert {expert} sum to {}, not {WHOLE}", sums[expert]));
    }
    match row.iter().zip(parts).position(|(&expert, &part)| expert < 0 && part > 0) {
        Some(slot) => Err(format!("slot {slot} is free and has {} parts", parts[slot])),
        None => Ok(()),
    }
}

/// Into how many parts the GPUs of each layer fall, `[layers]`. Two GPUs that hold replicas of the same expert are linked,
/// and GPUs that a chain of links joins form a part. No table of shares moves load from one part to another. The fewest
/// parts are one under the global policy, and one a node under the hierarchical one.
///
/// # Errors
/// [`Error::Invalid`] where the length of `physical_to_logical` is not a multiple of the slots.
///
/// ```
/// use eplb_wgpu::{Cluster, check};
/// let cluster = Cluster::new(6, 1, 1, 3)?;
/// assert_eq!(check::parts(&cluster, &[0, 1, 1, 2, 2, 3])?, [1]);
/// assert_eq!(check::parts(&cluster, &[0, 1, 0, 1, 2, 3])?, [2]);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
pub fn parts(cluster: &Cluster, physical_to_logical: &[i32]) -> Result<Vec<usize>, Error> {
    let slots = cluster.num_slots();
    if !physical_to_logical.len().is_multiple_of(slots) {
        let rule = format!("is not a multiple of the number of slots {slots}");
        return Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule));
    }
    let of_layer = |row: &[i32]| {
        let mut holders: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (slot, expert) in filled(row) {
            holders.entry(expert).or_default().push(slot / cluster.slots_per_gpu());
        }
        let mut on: Vec<Vec<&[usize]>> = vec![Vec::new(); cluster.num_gpus()];
        for gpus in holders.values().filter(|gpus| gpus.len() > 1) {
            gpus.iter().for_each(|&gpu| on[gpu].push(gpus));
        }
        // From each GPU that was not reached yet, all that can be.
        let mut reached = vec![false; cluster.num_gpus()];
        let mut parts = 0;
        for gpu in 0..cluster.num_gpus() {
            let mut next = if reached[gpu] { Vec::new() } else { vec![gpu] };
            parts += next.len();
            while let Some(gpu) = next.pop() {
                if !std::mem::replace(&mut reached[gpu], true) {
                    next.extend(
                        std::mem::take(&mut on[gpu]).into_iter().flatten().filter(|&&gpu| !reached[gpu]),
                    );
                }
            }
        }
        parts
    };
    Ok(physical_to_logical.chunks_exact(slots).map(of_layer).collect())
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;

    #[test]
    fn parts_are_weighed_and_must_sum_up() {
        let (loads, cluster) =
            (Loads::from_counts(1, 2, &[64, 8]).unwrap(), Cluster::new(4, 1, 1, 2).unwrap());
        let map = [0, 1, 0, 1];
        let layer = score_shares(&loads, &cluster, &map, &[64, 0, 192, 256]).unwrap().layers.remove(0);
        assert_relative_eq!(layer.max_gpu_load, 56.0);
        assert_relative_eq!(layer.max_replica_load, 48.0);
        let said = |parts: &[u16]| score_shares(&loads, &cluster, &map, parts).unwrap_err().to_string();
        assert!(said(&[64, 0, 191, 256]).ends_with("the parts of expert 0 sum to 255, not 256"));
        assert_eq!(said(&[256]), "length of shares 1 is not that of physical_to_logical, 4");
        let cluster = Cluster::with_slots_per_gpu(3, 1, 1, 2, 2).unwrap();
        let parts = [128, 256, 128, 1];
        let error = score_shares(&loads, &cluster, &[0, 1, 0, -1], &parts).unwrap_err().to_string();
        assert!(error.ends_with("slot 3 is free and has 1 parts"), "{error}");
    }

    #[test]
    fn foreign_replicas_are_weighed_by_their_parts() {
        let loads = Loads::from_counts(1, 4, &[64, 8, 20, 10]).unwrap();
        let cluster = Cluster::new(6, 2, 2, 2).unwrap();
        // Expert 0 is at home in the first node and has a replica in the second.
        let (map, parts) = ([0, 0, 1, 2, 3, 0], [64, 64, 256, 256, 256, 128]);
        let options = CheckOptions { max_foreign: 1, ..CheckOptions::default() };
        let layer = &score_shares_with(&loads, &cluster, &map, &parts, &options).unwrap().layers[0];
        assert_eq!(layer.foreign_replicas, 1);
        assert_relative_eq!(layer.foreign_load, 32.0);
    }
}
