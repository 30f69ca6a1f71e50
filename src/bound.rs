//! Lower bounds.

use crate::cluster::Cluster;
use crate::loads::Loads;

/// A lower bound on each layer's max GPU load.
#[must_use]
pub fn lower_bounds(loads: &Loads, _cluster: &Cluster) -> Vec<f64> {
    vec![0.0; loads.layers()]
}
