//! `Loads`.

use eplb_wgpu as core;
use pyo3::prelude::*;

use crate::arrays::words;
use crate::errors::{invalid, raise};

/// Loads of one or several windows.
#[pyclass(frozen, from_py_object, module = "eplb_wgpu._core")]
#[derive(Clone)]
pub struct Loads(pub core::Loads);

#[pymethods]
impl Loads {
    /// One window of [layers][experts]; kind is "u64" or "f64".
    #[staticmethod]
    fn window(py: Python<'_>, layers: usize, experts: usize, kind: &str, data: &[u8]) -> PyResult<Self> {
        let loads = match kind {
            "u64" => {
                py.detach(|| core::Loads::from_counts(layers, experts, &words(data, u64::from_ne_bytes)))
            }
            "f64" => py.detach(|| core::Loads::from_f64(layers, experts, &words(data, f64::from_ne_bytes))),
            _ => return Err(invalid("kind", kind, "is not u64 or f64")),
        };
        Ok(Self(loads.map_err(raise)?))
    }

    /// Several windows of one shape as one, each with its weight.
    #[staticmethod]
    fn windows(windows: Vec<Loads>, weights: Vec<f64>) -> PyResult<Self> {
        let windows: Vec<core::Loads> = windows.into_iter().map(|loads| loads.0).collect();
        Ok(Self(core::Loads::from_windows(&windows, &weights).map_err(raise)?))
    }

    /// The same loads, of layers with these numbers.
    fn numbered(&self, layer_ids: Vec<u32>) -> PyResult<Self> {
        Ok(Self(self.0.with_layer_ids(&layer_ids).map_err(raise)?))
    }

    /// Number of layers.
    #[getter]
    fn layers(&self) -> usize {
        self.0.layers()
    }

    /// Number of experts in a layer.
    #[getter]
    fn experts(&self) -> usize {
        self.0.experts()
    }
}

/// The same loads of some layers.
pub fn select(loads: &core::Loads, layers: &[usize]) -> Result<core::Loads, core::Error> {
    let window = |window: &core::Loads| {
        let values: Vec<f64> = layers.iter().flat_map(|&layer| window.layer(layer)).copied().collect();
        core::Loads::from_f64(layers.len(), window.experts(), &values)
    };
    let windows = loads.windows().map(window).collect::<Result<Vec<_>, _>>()?;
    core::Loads::from_windows(&windows, &loads.window_weights())
}
