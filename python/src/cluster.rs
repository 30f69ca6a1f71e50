//! `Cluster`.

use eplb_wgpu as core;
use pyo3::prelude::*;

use crate::errors::{invalid, raise};

/// Where replicas can go: `num_gpus` GPUs in `num_nodes` equal nodes, all with as many slots.
///
/// Slot `s` is on GPU `s // slots_per_gpu`; nodes are contiguous runs of GPUs. Groups of experts are kept whole in a
/// node where `num_groups` is a multiple of `num_nodes` and there is more than one node (hierarchical), else any
/// replica may go anywhere (global).
///
/// num_replicas: replicas of a layer. num_groups: groups of experts that are routed together. num_nodes, num_gpus:
/// nodes, and GPUs of all nodes together. slots_per_gpu: slots on a GPU; without it all slots are filled,
/// num_replicas / num_gpus on each. gpu_speeds: a speed for each GPU, in any unit, where they are unequal: what a GPU
/// carries then counts divided by its speed; 0 is a GPU that is gone.
///
/// Raises InvalidError where a number is out of range, num_gpus is not a multiple of num_nodes, num_replicas not one of
/// num_gpus, or there is not one speed of at least 0 for each GPU.
#[pyclass(frozen, eq, from_py_object, module = "eplb_wgpu")]
#[derive(Clone, PartialEq)]
pub struct Cluster(pub core::Cluster);

#[pymethods]
impl Cluster {
    #[new]
    #[pyo3(signature = (num_replicas, num_groups, num_nodes, num_gpus, slots_per_gpu=None, gpu_speeds=None))]
    fn new(
        num_replicas: &Bound<'_, PyAny>,
        num_groups: &Bound<'_, PyAny>,
        num_nodes: &Bound<'_, PyAny>,
        num_gpus: &Bound<'_, PyAny>,
        slots_per_gpu: Option<&Bound<'_, PyAny>>,
        gpu_speeds: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let replicas = count("num_replicas", num_replicas)?;
        let groups = count("num_groups", num_groups)?;
        let nodes = count("num_nodes", num_nodes)?;
        let gpus = count("num_gpus", num_gpus)?;
        let cluster = match slots_per_gpu {
            None => core::Cluster::new(replicas, groups, nodes, gpus),
            Some(slots) => {
                let slots = count("slots_per_gpu", slots)?;
                core::Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots)
            }
        };
        let cluster = cluster.map_err(raise)?;
        let Some(speeds) = gpu_speeds else { return Ok(Self(cluster)) };
        let given: Vec<f64> = speeds
            .extract()
            .map_err(|_| invalid("gpu_speeds", speeds, "are not numbers, one for each GPU"))?;
        Ok(Self(cluster.with_gpu_speeds(&given).map_err(raise)?))
    }

    /// Replicas of a layer.
    #[getter]
    fn num_replicas(&self) -> usize {
        self.0.num_replicas()
    }

    /// Groups of experts that are routed together.
    #[getter]
    fn num_groups(&self) -> usize {
        self.0.num_groups()
    }

    /// Nodes.
    #[getter]
    fn num_nodes(&self) -> usize {
        self.0.num_nodes()
    }

    /// GPUs, all nodes together.
    #[getter]
    fn num_gpus(&self) -> usize {
        self.0.num_gpus()
    }

    /// Slots on a GPU.
    #[getter]
    fn slots_per_gpu(&self) -> usize {
        self.0.slots_per_gpu()
    }

    /// The speed of each GPU: 1 for the fastest, 0 for one that is gone.
    #[getter]
    fn gpu_speeds(&self) -> Vec<f64> {
        self.0.gpu_speeds()
    }

    /// Slots of a layer, filled or free.
    #[getter]
    fn num_slots(&self) -> usize {
        self.0.num_slots()
    }

    /// "hierarchical" or "global".
    #[getter]
    fn policy(&self) -> &'static str {
        self.0.policy().name()
    }

    fn __repr__(&self) -> String {
        let c = &self.0;
        let speeds = match unequal_speeds(c) {
            Some(speeds) => format!(", gpu_speeds={speeds:?}"),
            None => String::new(),
        };
        format!(
            "Cluster(num_replicas={}, num_groups={}, num_nodes={}, num_gpus={}, slots_per_gpu={}{speeds})",
            c.num_replicas(),
            c.num_groups(),
            c.num_nodes(),
            c.num_gpus(),
            c.slots_per_gpu()
        )
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> (Bound<'py, PyAny>, Arguments) {
        let c = &slf.get().0;
        let (replicas, groups, nodes, gpus) = (c.num_replicas(), c.num_groups(), c.num_nodes(), c.num_gpus());
        (slf.get_type().into_any(), (replicas, groups, nodes, gpus, c.slots_per_gpu(), unequal_speeds(c)))
    }
}

/// The arguments of `Cluster`, which pickle calls it with.
type Arguments = (usize, usize, usize, usize, usize, Option<Vec<f64>>);

fn unequal_speeds(cluster: &core::Cluster) -> Option<Vec<f64>> {
    (!cluster.has_equal_speeds()).then(|| cluster.gpu_speeds())
}

/// A number of things; the core knows its range.
fn count(field: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    value.extract().map_err(|_| invalid(field, value, "is not a whole number, at least 1"))
}
