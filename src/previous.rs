//! The map that runs before a new plan, as an engine reports it.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::{self, Loads};
use crate::plan::Placement;

/// The expert of each slot as it runs now, `[layers][slots]`: what an engine reports, before it is held against a
/// cluster. Rows may have any width, and -1 stands for a slot that holds nothing.
///
/// [`crate::Planner::replan`] refuses what it cannot start from, and says why. A [`Placement`] is a previous map too.
///
/// ```
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, MoveLimits, PlanOptions, Planner, PreviousMap};
/// let planner = Planner::new(DeviceChoice::Cpu)?;
/// let (loads, cluster) = (Loads::from_counts(1, 3, &[9, 5, 1])?, Cluster::new(4, 1, 1, 2)?);
/// let replan = |previous: PreviousMap| {
///     planner.replan(&loads, &cluster, previous, &PlanOptions::default(), &MoveLimits::default())
/// };
/// assert!(replan(PreviousMap::new(4, vec![0, 1, 2, 0])?).is_ok());
/// let error = replan(PreviousMap::new(3, vec![0, 1, 2])?).unwrap_err().to_string();
/// assert_eq!(error, "slots of the previous plan 3 is not the number of slots of the cluster, 4");
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
        Ok(Self { slots, physical_to_logical: physical_to_logical.into(), experts: None, layer_ids: None })
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

    /// The numbers of the layers, where they are known.
    #[must_use]
    pub fn layer_ids(&self) -> Option<&[u32]> {
        self.layer_ids.as_deref()
    }

    /// A placement whose layers have these numbers, one each.
    #[cfg(feature = "files")]
    pub(crate) fn of_layers(placement: &Placement, ids: &[u32]) -> Self {
        Self { layer_ids: Some(ids.into()), ..Self::from(placement) }
    }

    /// The placement that the map is, where nothing tells of the loads yet.
    pub(crate) fn placement_alone(&self) -> Result<Placement, Error> {
        let Some(experts) = self.experts else {
            let rule = "is not at least 1: a window tells how many experts the map is of";
            return Err(Error::invalid("windows observed", 0, rule));
        };
        Placement::new(experts, self.slots, self.physical_to_logical.to_vec())
    }

    /// The placement of these loads' layers and experts on this cluster that the map is.
    pub(crate) fn placement(&self, loads: &Loads, cluster: &Cluster) -> Result<Placement, Error> {
        let fields = [
            ("layers of the previous plan", self.layers(), loads.layers(), "layers"),
            (
                "experts of the previous plan",
                self.experts.unwrap_or(loads.experts()),
                loads.experts(),
                "experts",
            ),
            ("slots of the previous plan", self.slots, cluster.num_slots(), "slots of the cluster"),
        ];
        for (field, found, wanted, of) in fields {
            if found != wanted {
                return Err(Error::invalid(field, found, format!("is not the number of {of}, {wanted}")));
            }
        }
        if let Some(ids) = &self.layer_ids {
            loads::check_same_layers("layers of the previous plan", ids, loads.layer_ids())?;
        }
        Placement::new(loads.experts(), self.slots, self.physical_to_logical.to_vec())
    }
}

impl From<&Placement> for PreviousMap {
    fn from(placement: &Placement) -> Self {
        Self {
            slots: placement.slots(),
            physical_to_logical: placement.physical_to_logical().into(),
            experts: Some(placement.experts()),
            layer_ids: None,
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
        let cluster = Cluster::new(4, 1, 1, 2).unwrap();
        let map = |slots, map: &[i32]| PreviousMap::new(slots, map.to_vec()).unwrap();
        let fits = map(4, &[0, 1, 0, 1, 0, 0, 1, 1]);
        assert_eq!(fits.placement(&loads, &cluster).unwrap().replica_counts(), [2, 2, 2, 2]);
        assert!(fits.clone().with_layer_ids(&[3, 4]).unwrap().placement(&loads, &cluster).is_ok());
        for (map, rule) in [
            (map(4, &[0, 1, 0, 1]), "layers of the previous plan 1 is not the number of layers, 2"),
            (
                map(2, &[0, 1, 0, 1]),
                "slots of the previous plan 2 is not the number of slots of the cluster, 4",
            ),
            (
                fits.clone().with_layer_ids(&[3, 5]).unwrap(),
                "layers of the previous plan 3, 5 are not those of the loads, 3, 4",
            ),
            (
                map(4, &[0, 1, 0, 1, 0, 2, 1, 1]),
                "plan is not valid: layer 1: slot 1 holds 2, not an expert in 0..2 or -1",
            ),
        ] {
            assert_eq!(said(map.placement(&loads, &cluster)), rule);
        }
        let other = Placement::new(3, 4, vec![0, 1, 2, 0, 0, 1, 2, 1]).unwrap();
        let rule = "experts of the previous plan 3 is not the number of experts, 2";
        assert_eq!(said(PreviousMap::from(&other).placement(&loads, &cluster)), rule);
        assert_eq!(said(fits.with_layer_ids(&[3])), "number of layer ids 1 is not the number of layers 2");
    }
}
