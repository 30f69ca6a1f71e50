//! The map that runs before a new plan, as an engine reports it.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::{self, Loads};
use crate::params::{FREE, to_map};
use crate::plan::Placement;

/// The expert of each slot as it runs now, `[layers][slots]`: what an engine reports, before it is held against a
/// cluster. Rows may have any width, and -1 stands for a slot that holds nothing.
///
/// [`crate::Planner::replan`] starts from any map of the layers and experts of its loads. A [`Placement`] is a previous
/// map too.
///
/// ```
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, MoveLimits, PlanOptions, Planner, PreviousMap};
/// let planner = Planner::new(DeviceChoice::Cpu)?;
/// let (loads, cluster) = (Loads::from_counts(1, 3, &[9, 5, 1])?, Cluster::new(4, 1, 1, 2)?);
/// let replan = |previous: PreviousMap| {
///     planner.replan(&loads, &cluster, previous, &PlanOptions::default(), &MoveLimits::default())
/// };
/// assert!(replan(PreviousMap::new(4, vec![0, 1, 2, 0])?).is_ok());
/// let grown = replan(PreviousMap::new(2, vec![0, 1])?)?; // a GPU is new, and expert 2 is nowhere
/// assert_eq!((grown.moves().repairs, grown.lost()), (2, &[(0, 2)][..]));
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousMap {
    slots: usize,
    physical_to_logical: Arc<[i32]>,
    /// Where they are known.
    experts: Option<usize>,
    /// Where they are known.
    layer_ids: Option<Arc<[u32]>>,
    /// Where they are known.
    slots_per_gpu: Option<usize>,
}

impl PreviousMap {
    /// A map of rows of `slots` slots each.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are no slots or no rows, or the number of entries is not a multiple of `slots`;
    /// [`Error::InvalidPlan`] where an entry is below -1.
    pub fn new(slots: usize, physical_to_logical: Vec<i32>) -> Result<Self, Error> {
        let length = physical_to_logical.len();
        if slots == 0 || length == 0 || !length.is_multiple_of(slots) {
            let rule = format!("is not a positive multiple of the number of slots {slots}");
            return Err(Error::invalid("length of the previous map", length, rule));
        }
        if let Some(at) = physical_to_logical.iter().position(|&entry| entry < -1) {
            let rule = format!("slot {} holds {}, not an expert or -1", at % slots, physical_to_logical[at]);
            return Err(Error::InvalidPlan { layer: at / slots, rule });
        }
        Ok(Self {
            slots,
            physical_to_logical: physical_to_logical.into(),
            experts: None,
            layer_ids: None,
            slots_per_gpu: None,
        })
    }

    /// The same map of the layers with these numbers, see [`Loads::with_layer_ids`]: a plan is then made from it for
    /// loads of the same layers alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is not one number a layer, or two are equal.
    pub fn with_layer_ids(mut self, ids: &[u32]) -> Result<Self, Error> {
        loads::check_layer_ids(self.layers(), ids)?;
        self.layer_ids = Some(ids.into());
        Ok(self)
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.physical_to_logical.len() / self.slots
    }

    /// Slots of a layer.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The expert of each slot, `[layers][slots]`; -1 where the slot holds nothing.
    #[must_use]
    pub fn physical_to_logical(&self) -> &[i32] {
        &self.physical_to_logical
    }

    /// Slots of a GPU, where they are known.
    #[must_use]
    pub fn slots_per_gpu(&self) -> Option<usize> {
        self.slots_per_gpu
    }

    /// The numbers of the layers, where they are known.
    #[must_use]
    pub fn layer_ids(&self) -> Option<&[u32]> {
        self.layer_ids.as_deref()
    }

    /// A placement on a cluster, whose layers have these numbers, one each.
    #[cfg(feature = "files")]
    pub(crate) fn of_layers(placement: &Placement, cluster: &Cluster, ids: &[u32]) -> Self {
        let slots_per_gpu = Some(cluster.slots_per_gpu());
        Self { layer_ids: Some(ids.into()), slots_per_gpu, ..Self::from(placement) }
    }

    /// Checks that the map is of the layers and experts of these loads.
    pub(crate) fn check(&self, loads: &Loads) -> Result<(), Error> {
        let experts = self.experts.unwrap_or(loads.experts());
        for (field, found, wanted, of) in [
            ("layers of the previous plan", self.layers(), loads.layers(), "layers"),
            ("experts of the previous plan", experts, loads.experts(), "experts"),
        ] {
            if found != wanted {
                return Err(Error::invalid(field, found, format!("is not the number of {of}, {wanted}")));
            }
        }
        if let Some(ids) = &self.layer_ids {
            loads::check_same_layers("layers of the previous plan", ids, loads.layer_ids())?;
        }
        let beyond = |&entry: &i32| usize::try_from(entry).is_ok_and(|expert| expert >= loads.experts());
        if let Some(at) = self.physical_to_logical.iter().position(beyond) {
            let (slot, held, experts) = (at % self.slots, self.physical_to_logical[at], loads.experts());
            let rule = format!("slot {slot} holds {held}, not an expert in 0..{experts} or -1");
            return Err(Error::InvalidPlan { layer: at / self.slots, rule });
        }
        Ok(())
    }

    /// The map on the slots of a cluster, `[layers][slots]`, -1 where a slot is free.
    pub(crate) fn map_on(&self, cluster: &Cluster) -> Vec<i32> {
        to_map(&self.rows(cluster)).collect()
    }

    /// The map in the slots of a cluster, as the planner has maps: GPUs beyond are gone, and those that lack are new. Of
    /// a GPU that has fewer slots now, the first ones are kept.
    pub(crate) fn rows(&self, cluster: &Cluster) -> Vec<u32> {
        let (now, slots) = (cluster.slots_per_gpu(), cluster.num_slots());
        let before = self.slots_per_gpu.unwrap_or(now);
        let mut rows = vec![FREE; self.layers() * slots];
        for (row, held) in rows.chunks_exact_mut(slots).zip(self.physical_to_logical.chunks_exact(self.slots))
        {
            for (gpu, held) in row.chunks_exact_mut(now).zip(held.chunks(before)) {
                for (slot, &entry) in gpu.iter_mut().zip(held) {
                    *slot = u32::try_from(entry).unwrap_or(FREE);
                }
            }
        }
        rows
    }

    /// The same map, where each GPU has this many slots: those of a cluster with more or fewer slots a GPU are then
    /// filled GPU by GPU. Without this call GPUs have as many slots as those of the cluster.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the slots of a layer are not a multiple of it.
    pub fn with_slots_per_gpu(mut self, slots_per_gpu: usize) -> Result<Self, Error> {
        if slots_per_gpu == 0 || !self.slots.is_multiple_of(slots_per_gpu) {
            let rule = format!("does not divide the number of slots {}", self.slots);
            return Err(Error::invalid("slots_per_gpu of the previous map", slots_per_gpu, rule));
        }
        self.slots_per_gpu = Some(slots_per_gpu);
        Ok(self)
    }

    /// The map of the GPUs that remain where these are gone. A plan from it numbers the GPUs that remain one after the
    /// other; [`crate::Plan::with_gone_gpus`] gives it in the numbering of all.
    ///
    /// # Errors
    /// [`Error::Invalid`] where [`PreviousMap::with_slots_per_gpu`] was not called, a GPU is not there, or none remains.
    ///
    /// ```
    /// use eplb_wgpu::PreviousMap;
    /// let map = PreviousMap::new(6, vec![0, 1, 2, 0, 1, 2])?.with_slots_per_gpu(2)?;
    /// assert_eq!(map.without_gpus(&[1])?.physical_to_logical(), [0, 1, 1, 2]);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn without_gpus(&self, gone: &[usize]) -> Result<Self, Error> {
        let Some(each) = self.slots_per_gpu else {
            return Err(Error::invalid("slots_per_gpu of the previous map", "(none)", "is needed"));
        };
        let gpus = self.slots / each;
        if let Some(gpu) = gone.iter().find(|&&gpu| gpu >= gpus) {
            return Err(Error::invalid(
                "GPU that is gone",
                gpu,
                format!("is not below the number of GPUs {gpus}"),
            ));
        }
        let remains = |(gpu, _): &(usize, &[i32])| !gone.contains(gpu);
        let row = |row: &[i32]| -> Vec<i32> {
            row.chunks_exact(each).enumerate().filter(remains).flat_map(|(_, held)| held.to_vec()).collect()
        };
        let map: Vec<i32> = self.physical_to_logical.chunks_exact(self.slots).flat_map(row).collect();
        let slots = map.len() / self.layers();
        if slots == 0 {
            return Err(Error::invalid("GPUs that are gone", gone.len(), "leave none"));
        }
        Ok(Self { slots, physical_to_logical: map.into(), ..self.clone() })
    }
}

impl From<&Placement> for PreviousMap {
    fn from(placement: &Placement) -> Self {
        Self {
            slots: placement.slots(),
            physical_to_logical: placement.physical_to_logical().into(),
            experts: Some(placement.experts()),
            layer_ids: None,
            slots_per_gpu: None,
        }
    }
}

impl From<Placement> for PreviousMap {
    fn from(placement: Placement) -> Self {
        Self::from(&placement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<T>(result: Result<T, Error>) -> String {
        result.map(|_| ()).map_err(|error| error.to_string()).err().unwrap_or_default()
    }

    #[test]
    fn maps_that_are_none_are_refused() {
        let length = |length| {
            format!("length of the previous map {length} is not a positive multiple of the number of slots")
        };
        assert_eq!(said(PreviousMap::new(0, vec![])), length(0) + " 0");
        assert_eq!(said(PreviousMap::new(2, vec![])), length(0) + " 2");
        assert_eq!(said(PreviousMap::new(2, vec![0, 1, 2])), length(3) + " 2");
        let below = PreviousMap::new(2, vec![0, -1, 1, -2]);
        assert_eq!(said(below), "plan is not valid: layer 1: slot 1 holds -2, not an expert or -1");
        assert_eq!(PreviousMap::new(3, vec![0; 6]).unwrap().layers(), 2);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let loads = Loads::from_counts(2, 2, &[1, 2, 3, 4]).unwrap().with_layer_ids(&[3, 4]).unwrap();
        let map = |slots, map: &[i32]| PreviousMap::new(slots, map.to_vec()).unwrap();
        let fits = map(4, &[0, 1, 0, 1, 0, 0, 1, 1]);
        assert!(fits.check(&loads).is_ok());
        assert!(fits.clone().with_layer_ids(&[3, 4]).unwrap().check(&loads).is_ok());
        for (map, rule) in [
            (map(4, &[0, 1, 0, 1]), "layers of the previous plan 1 is not the number of layers, 2"),
            (
                fits.clone().with_layer_ids(&[3, 5]).unwrap(),
                "layers of the previous plan 3, 5 are not those of the loads, 3, 4",
            ),
            (
                map(4, &[0, 1, 0, 1, 0, 2, 1, 1]),
                "plan is not valid: layer 1: slot 1 holds 2, not an expert in 0..2 or -1",
            ),
        ] {
            assert_eq!(said(map.check(&loads)), rule);
        }
        let other = Placement::new(3, 4, vec![0, 1, 2, 0, 0, 1, 2, 1]).unwrap();
        let rule = "experts of the previous plan 3 is not the number of experts, 2";
        assert_eq!(said(PreviousMap::from(&other).check(&loads)), rule);
        assert_eq!(said(fits.with_layer_ids(&[3])), "number of layer ids 1 is not the number of layers 2");
    }

    #[test]
    fn rows_follow_gpus_that_come_go_and_change() {
        let map = PreviousMap::new(6, vec![0, 1, 2, 0, 1, 2]).unwrap();
        let rows = |map: &PreviousMap, slots, gpus| {
            let cluster = Cluster::new(slots * gpus, 1, 1, gpus).unwrap();
            map.rows(&cluster).iter().map(|&e| e as i32).collect::<Vec<_>>()
        };
        assert_eq!(rows(&map, 2, 2), [0, 1, 2, 0]);
        assert_eq!(rows(&map, 2, 4), [0, 1, 2, 0, 1, 2, -1, -1]);
        let map = map.with_slots_per_gpu(2).unwrap();
        assert_eq!(rows(&map, 3, 3), [0, 1, -1, 2, 0, -1, 1, 2, -1]);
        assert_eq!(rows(&map, 1, 3), [0, 2, 1]);
        let rule = "GPU that is gone 3 is not below the number of GPUs 3";
        assert_eq!(said(map.without_gpus(&[3])), rule);
        assert_eq!(said(map.without_gpus(&[0, 1, 2])), "GPUs that are gone 3 leave none");
        assert_eq!(
            said(map.with_slots_per_gpu(4)),
            "slots_per_gpu of the previous map 4 does not divide the number of slots 6"
        );
    }
}
