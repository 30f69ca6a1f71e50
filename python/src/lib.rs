//! `eplb_wgpu._core`, the planner for Python. Users call the Python package `eplb_wgpu`, which turns arrays into bytes, calls
//! this module, and turns the bytes that come back into arrays. This crate holds only what needs the core.
#![deny(unsafe_code)]

mod arrays;
mod cluster;
mod errors;
mod files;
mod loads;
mod options;
mod plan;
mod planner;
mod previous;
mod rebalance;
mod step;

use pyo3::prelude::*;

/// The version of this package.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The labels of all adapters found, as `EPLB_WGPU_DEVICE` may name them; the CPU backend is not among them.
#[pyfunction]
fn devices(py: Python<'_>) -> Vec<String> {
    py.detach(|| eplb_wgpu::devices().iter().map(eplb_wgpu::DeviceInfo::label).collect())
}

/// The names of all presets.
#[pyfunction]
fn presets() -> Vec<&'static str> {
    eplb_wgpu::Preset::all().map(eplb_wgpu::Preset::name).collect()
}

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", VERSION)?;
    // By which ranks that plan differently are told apart.
    module.add("PLAN_VERSION", eplb_wgpu::PLAN_VERSION)?;
    module.add_class::<cluster::Cluster>()?;
    module.add_class::<loads::Loads>()?;
    module.add_class::<plan::Plan>()?;
    module.add_class::<planner::Planner>()?;
    module.add_class::<rebalance::Rebalancer>()?;
    module.add_function(wrap_pyfunction!(devices, module)?)?;
    module.add_function(wrap_pyfunction!(rebalance::replay, module)?)?;
    module.add_function(wrap_pyfunction!(presets, module)?)?;
    module.add_function(wrap_pyfunction!(files::read_map, module)?)?;
    module.add_function(wrap_pyfunction!(files::write_map, module)?)?;
    module.add_function(wrap_pyfunction!(files::write_plan, module)?)?;
    module.add_function(wrap_pyfunction!(files::read_loads, module)?)?;
    Ok(())
}
