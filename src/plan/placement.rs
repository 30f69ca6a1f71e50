//! Which slot holds which expert.

use std::sync::OnceLock;

use crate::cluster::MAX_SLOTS;
use crate::error::Error;
use crate::loads::MAX_EXPERTS;

/// The most entries that the padded lists of slots may have: 1 GiB.
const MAX_LISTED: usize = 1 << 28;

/// Where every replica sits: the three maps of DeepSeek's contract, consistent with each other.
#[derive(Clone, Debug)]
pub struct Placement {
    layers: usize,
    experts: usize,
    slots: usize,
    max_replicas: usize,
    physical_to_logical: Vec<i32>,
    /// The padded lists, made when they are asked for.
    lists: OnceLock<Vec<i32>>,
    replica_counts: Vec<u32>,
}

/// The map is all there is: the rest follows from it.
impl PartialEq for Placement {
    fn eq(&self, other: &Self) -> bool {
        (self.experts, self.slots, &self.physical_to_logical)
            == (other.experts, other.slots, &other.physical_to_logical)
    }
}

impl Eq for Placement {}

impl Placement {
    /// The placement that `physical_to_logical` (`[layers][slots]`, -1 for a free slot) describes.
    ///
    /// It takes the memory of `physical_to_logical` and of four bytes an expert and layer. The padded lists of slots are made
    /// when they are asked for; they take `experts` times as much where one expert has nearly all slots, and a small multiple
    /// in any useful plan.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the number of entries is not a multiple of `slots`, there are more experts than
    /// slots, more than [`MAX_EXPERTS`] or [`MAX_SLOTS`] of them, or the padded lists would have more than 2^28
    /// entries (1 GiB); [`Error::InvalidPlan`] where an
    /// entry is not an expert.
    pub fn new(experts: usize, slots: usize, physical_to_logical: Vec<i32>) -> Result<Self, Error> {
        for (field, value, most) in [("experts", experts, MAX_EXPERTS), ("slots", slots, MAX_SLOTS)] {
            if value == 0 || value > most {
                return Err(Error::invalid(field, value, format!("is not between 1 and {most}")));
            }
        }
        if experts > slots {
            return Err(Error::invalid("experts", experts, format!("is more than slots {slots}")));
        }
        if !physical_to_logical.len().is_multiple_of(slots) {
            let rule = format!("is not a multiple of the number of slots {slots}");
            return Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule));
        }
        let layers = physical_to_logical.len() / slots;
        let rows = || physical_to_logical.chunks_exact(slots);
        let mut replica_counts = vec![0u32; layers * experts];
        for (layer, (row, counts)) in rows().zip(replica_counts.chunks_exact_mut(experts)).enumerate() {
            for (slot, &expert) in row.iter().enumerate() {
                match usize::try_from(expert) {
                    Ok(e) if e < experts => counts[e] += 1,
                    Err(_) if expert == -1 => {}
                    _ => {
                        let rule = format!("slot {slot} holds {expert}, not an expert in 0..{experts} or -1");
                        return Err(Error::InvalidPlan { layer, rule });
                    }
                }
            }
        }
        let max_replicas = replica_counts.iter().copied().max().unwrap_or(0) as usize;
        let length = (layers * experts).saturating_mul(max_replicas);
        if length > MAX_LISTED {
            let rule =
                format!("is more than {MAX_LISTED}: max_replicas_per_expert keeps the lists of slots short");
            return Err(Error::invalid("length of logical_to_physical", length, rule));
        }
        let lists = OnceLock::new();
        Ok(Self { layers, experts, slots, max_replicas, physical_to_logical, lists, replica_counts })
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Number of logical experts in a layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Number of slots in a layer.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The largest replica count of any expert: the last dimension of [`Placement::logical_to_physical`].
    #[must_use]
    pub fn max_replicas(&self) -> usize {
        self.max_replicas
    }

    /// The expert of each slot, `[layers][slots]`; -1 where the slot is free.
    #[doc(alias = "phy2log")]
    #[must_use]
    pub fn physical_to_logical(&self) -> &[i32] {
        &self.physical_to_logical
    }

    /// The slots of each expert in ascending order, `[layers][experts][max_replicas]`, padded with -1.
    #[doc(alias = "log2phy")]
    #[must_use]
    pub fn logical_to_physical(&self) -> &[i32] {
        self.lists.get_or_init(|| (0..self.layers).flat_map(|layer| self.lists_of(layer)).collect())
    }

    /// [`Placement::logical_to_physical`] of one layer, for whoever can do without all of them at once.
    pub(crate) fn lists_of(&self, layer: usize) -> Vec<i32> {
        let mut lists = vec![-1; self.experts * self.max_replicas];
        let mut filled = vec![0usize; self.experts];
        let row = &self.physical_to_logical[layer * self.slots..(layer + 1) * self.slots];
        for (slot, &expert) in row.iter().enumerate() {
            if let Ok(expert) = usize::try_from(expert) {
                lists[expert * self.max_replicas + filled[expert]] = slot as i32;
                filled[expert] += 1;
            }
        }
        lists
    }

    /// How many replicas each expert has, `[layers][experts]`.
    #[doc(alias = "logcnt")]
    #[must_use]
    pub fn replica_counts(&self) -> &[u32] {
        &self.replica_counts
    }

    /// A stable 64-bit hash of `physical_to_logical`, for ranks to compare: xxHash64 (seed 0) over the number
    /// of slots and then the entries, each as a little-endian `i32`.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let head = (self.slots as i32).to_le_bytes();
        let entries = self.physical_to_logical.iter().flat_map(|e| e.to_le_bytes());
        let bytes: Vec<u8> = head.into_iter().chain(entries).collect();
        xxhash_rust::xxh64::xxh64(&bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_before_memory_is_taken() {
        let said = |experts, slots, map: &[i32]| {
            Placement::new(experts, slots, map.to_vec()).map_err(|error| error.to_string()).err()
        };
        let huge = usize::MAX;
        for (experts, slots, rule) in [
            (huge, 2, format!("experts {huge} is not between 1 and 4096")),
            (4097, 8192, "experts 4097 is not between 1 and 4096".into()),
            (0, 2, "experts 0 is not between 1 and 4096".into()),
            (1, huge, format!("slots {huge} is not between 1 and 16384")),
            (1, 0, "slots 0 is not between 1 and 16384".into()),
            (3, 2, "experts 3 is more than slots 2".into()),
            (2, 3, "length of physical_to_logical 2 is not a multiple of the number of slots 3".into()),
        ] {
            assert_eq!(said(experts, slots, &[0, 1]), Some(rule));
        }
        assert_eq!(said(4096, 16_384, &[]), None);
        assert_eq!(said(2, 2, &[0, 1]), None);
    }
}
