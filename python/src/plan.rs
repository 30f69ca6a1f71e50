//! `Plan`: the core's plan, read out as arrays.

use eplb_wgpu as core;
use eplb_wgpu::check::{self, Quality};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};

use crate::arrays::{f64s, i64s};
use crate::cluster::Cluster;
use crate::errors::raise;
use crate::loads::Loads;
use crate::options;

type Bytes<'py> = Bound<'py, PyByteArray>;

/// The moves of a plan.
#[derive(Clone, Default)]
pub struct Moved {
    /// Slots whose GPU receives an expert that it did not hold, by layer.
    pub received: Vec<usize>,
    /// Those of them that the previous map did not let be avoided, by layer.
    pub repairs: Vec<usize>,
    /// Layers to move, first the one that gains most for a moved slot.
    pub order: Vec<usize>,
    /// Layer and expert of each that the previous map does not hold.
    pub lost: Vec<(usize, usize)>,
}

impl From<&core::Replan> for Moved {
    fn from(replan: &core::Replan) -> Self {
        let layers = replan.layers();
        Self {
            received: layers.iter().map(|layer| layer.received).collect(),
            repairs: layers.iter().map(|layer| layer.repairs).collect(),
            order: replan.layers_to_move(),
            lost: replan.lost().to_vec(),
        }
    }
}

impl Moved {
    pub fn dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("received_by_layer", &self.received)?;
        dict.set_item("repairs_by_layer", &self.repairs)?;
        dict.set_item("order", &self.order)?;
        dict.set_item("lost", &self.lost)?;
        Ok(dict)
    }
}

/// A plan.
#[pyclass(frozen, module = "eplb_wgpu._core")]
pub struct Plan {
    pub plan: core::Plan,
    pub moved: Option<Moved>,
}

#[pymethods]
impl Plan {
    /// Layers, experts, slots and the largest replica count.
    #[getter]
    fn shape(&self) -> (usize, usize, usize, usize) {
        let placement = self.plan.placement();
        (placement.layers(), placement.experts(), placement.slots(), placement.max_replicas())
    }

    fn layer_ids(&self) -> Vec<u32> {
        self.plan.layer_ids().to_vec()
    }

    #[getter]
    fn cluster(&self) -> Cluster {
        Cluster(self.plan.cluster().clone())
    }

    /// [layers][slots] of i64.
    fn physical_to_logical<'py>(&self, py: Python<'py>) -> PyResult<Bytes<'py>> {
        i64s(py, self.plan.placement().physical_to_logical().iter().map(|&e| i64::from(e)))
    }

    /// [layers][experts][most replicas] of i64.
    fn logical_to_physical<'py>(&self, py: Python<'py>) -> PyResult<Bytes<'py>> {
        i64s(py, self.plan.placement().logical_to_physical().iter().map(|&s| i64::from(s)))
    }

    /// [layers][experts] of i64.
    fn replica_counts<'py>(&self, py: Python<'py>) -> PyResult<Bytes<'py>> {
        i64s(py, self.plan.placement().replica_counts().iter().map(|&c| i64::from(c)))
    }

    /// [layers][gpus] of f64.
    fn gpu_loads<'py>(&self, py: Python<'py>) -> PyResult<Bytes<'py>> {
        f64s(py, self.plan.gpu_loads().into_iter())
    }

    /// Where tokens go under a dispatch: of even sources, or of one window for each GPU.
    fn traffic<'py>(
        &self,
        py: Python<'py>,
        dispatch: &str,
        sources: Option<Vec<Loads>>,
    ) -> PyResult<(Bytes<'py>, Bound<'py, PyDict>)> {
        let dispatch = options::dispatch(dispatch)?;
        let plan = &self.plan;
        let sources = sources.map(|all| all.into_iter().map(|loads| loads.0).collect::<Vec<_>>());
        let traffic = py.detach(|| match sources {
            Some(sources) => {
                check::traffic_from(&sources, plan.cluster(), plan.physical_to_logical(), dispatch)
            }
            None => Ok(plan.traffic(dispatch)),
        });
        let traffic = traffic.map_err(raise)?;
        let dict = PyDict::new(py);
        dict.set_item("dispatch", traffic.dispatch.name())?;
        dict.set_item("balancedness", traffic.balancedness())?;
        dict.set_item("on_gpu", traffic.on_gpu())?;
        dict.set_item("in_node", traffic.in_node())?;
        Ok((f64s(py, traffic.gpu_loads.into_iter())?, dict))
    }

    #[getter]
    fn fingerprint(&self) -> String {
        fingerprint(self.plan.placement())
    }

    fn quality<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // The bound may take longer than the plan.
        let quality = py.detach(|| self.plan.quality());
        quality_dict(py, quality)
    }

    fn stops(&self) -> Vec<&'static str> {
        self.plan.stops().iter().map(|stop| stop.name()).collect()
    }

    #[getter]
    fn device(&self) -> &str {
        self.plan.device()
    }

    #[getter]
    fn elapsed(&self) -> f64 {
        self.plan.elapsed().as_secs_f64()
    }

    fn warnings(&self) -> Vec<String> {
        self.plan.warnings().to_vec()
    }

    fn moved<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.moved.as_ref().map(|moved| moved.dict(py)).transpose()
    }
}

/// A placement's fingerprint, in hexadecimal.
pub fn fingerprint(placement: &core::Placement) -> String {
    format!("{:016x}", placement.fingerprint())
}

/// A quality, layer by layer and summed up.
pub fn quality_dict<'py>(py: Python<'py>, quality: &Quality) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let layers = &quality.layers;
    dict.set_item("max_gpu_load", layers.iter().map(|l| l.max_gpu_load).collect::<Vec<_>>())?;
    dict.set_item("mean_gpu_load", layers.iter().map(|l| l.mean_gpu_load).collect::<Vec<_>>())?;
    dict.set_item("lower_bound", layers.iter().map(|l| l.lower_bound).collect::<Vec<_>>())?;
    dict.set_item("duplicates_by_layer", layers.iter().map(|l| l.same_gpu_duplicates).collect::<Vec<_>>())?;
    dict.set_item("balancedness", quality.balancedness())?;
    dict.set_item("replica_balancedness", quality.replica_balancedness())?;
    dict.set_item("max_over_mean", quality.max_over_mean())?;
    dict.set_item("mean_gap", quality.mean_gap())?;
    dict.set_item("worst_gap", quality.worst_gap())?;
    dict.set_item("same_gpu_duplicates", quality.same_gpu_duplicates())?;
    dict.set_item("foreign_replicas", quality.foreign_replicas())?;
    dict.set_item("layers_without_load", quality.layers_without_load())?;
    Ok(dict)
}
