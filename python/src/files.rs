//! Files: maps of every program, and recorded loads.

use std::path::PathBuf;

use eplb_wgpu::maps::{MapFile, PlanFormat};
use eplb_wgpu::trace::{LoadFormat, LoadHistory};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use crate::arrays::{f64s, i64s, words};
use crate::errors::{invalid, raise};
use crate::plan::Plan;

/// A map as bytes of i64, its slots, and the numbers of its layers, its GPUs and its format as far as the file tells.
type ReadMap<'py> = (Bound<'py, PyByteArray>, usize, Option<Vec<u32>>, Option<usize>, &'static str);

/// Windows, layers, experts, the loads as bytes of f64, and the numbers of the layers.
type ReadLoads<'py> = (usize, usize, usize, Bound<'py, PyByteArray>, Vec<u32>);

fn plan_format(format: Option<&str>) -> PyResult<Option<PlanFormat>> {
    format.map(|name| name.parse().map_err(raise)).transpose()
}

#[pyfunction]
pub fn read_map<'py>(py: Python<'py>, path: PathBuf, format: Option<&str>) -> PyResult<ReadMap<'py>> {
    let format = plan_format(format)?;
    let map = py.detach(|| MapFile::read(&path, format)).map_err(raise)?;
    let entries = i64s(py, map.physical_to_logical().iter().map(|&e| i64::from(e)))?;
    let ids = map.layer_ids().map(<[u32]>::to_vec);
    Ok((entries, map.slots(), ids, map.num_gpus(), map.format().name()))
}

/// Writes a map [layers][slots] of i64; returns what a file of this format says otherwise than the map.
#[pyfunction]
pub fn write_map(
    py: Python<'_>,
    path: PathBuf,
    format: Option<&str>,
    map: &[u8],
    slots: usize,
    layer_ids: Option<Vec<u32>>,
    gpus: Option<usize>,
) -> PyResult<Vec<String>> {
    let format = plan_format(format)?.or_else(|| PlanFormat::of_path(&path));
    let entry = |id: i64| i32::try_from(id).map_err(|_| invalid("id of the map", id, "does not fit 32 bits"));
    let rows = words(map, i64::from_ne_bytes).into_iter().map(entry).collect::<PyResult<Vec<i32>>>()?;
    py.detach(|| {
        let mut map = MapFile::new(slots, rows)?;
        if let Some(ids) = layer_ids {
            map = map.with_layer_ids(&ids)?;
        }
        if let Some(gpus) = gpus {
            map = map.with_gpus(gpus)?;
        }
        map.write(&path, format)?;
        Ok(format.map_or_else(Vec::new, |format| map.losses(format)))
    })
    .map_err(raise)
}

#[pyfunction]
pub fn write_plan(
    py: Python<'_>,
    path: PathBuf,
    format: Option<&str>,
    plan: &Bound<'_, Plan>,
) -> PyResult<Vec<String>> {
    let format = plan_format(format)?.or_else(|| PlanFormat::of_path(&path));
    let plan = &plan.get().plan;
    // A plan file holds the quality of its plan, which may have to be worked out.
    py.detach(|| eplb_wgpu::maps::write_plan(plan, &path, format)).map_err(raise)?;
    Ok(format.map_or_else(Vec::new, |format| MapFile::from(plan).losses(format)))
}

#[pyfunction]
pub fn read_loads<'py>(py: Python<'py>, path: PathBuf, format: Option<&str>) -> PyResult<ReadLoads<'py>> {
    let format = format.map(|name| name.parse::<LoadFormat>().map_err(raise)).transpose()?;
    let history = py.detach(|| LoadHistory::read_as(&path, format)).map_err(raise)?;
    let loads = f64s(py, history.values().into_iter())?;
    Ok((history.windows(), history.layers(), history.experts(), loads, history.layer_ids().to_vec()))
}
