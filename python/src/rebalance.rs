//! `Rebalancer`, and replays.

use std::sync::Mutex;

use eplb_wgpu as core;
use eplb_wgpu::rebalance::{self, ReplayOptions, ReplayRow};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::words;
use crate::cluster::Cluster;
use crate::errors::{invalid, raise};
use crate::loads::Loads;
use crate::options;
use crate::plan::{Moved, Plan};
use crate::planner::Planner;
use crate::previous::previous;

/// Watches windows and proposes plans.
#[pyclass(frozen, module = "eplb_wgpu._core")]
pub struct Rebalancer {
    planner: Py<Planner>,
    /// Stops the planner of the state.
    cancel: core::Cancel,
    state: Mutex<State>,
}

struct State {
    rebalancer: rebalance::Rebalancer,
    /// The last window, which a map that does not fit is mended for.
    last: Option<core::Loads>,
}

type Proposed = (Plan, &'static str);

impl Rebalancer {
    /// Work on the state, on the planner's threads.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut State) -> Result<T, core::Error> + Send,
    ) -> PyResult<T> {
        let done = self.planner.get().run_until(py, &self.cancel, |_| {
            let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            work(&mut state)
        });
        // A call that Ctrl-C stopped has ended by now.
        self.cancel.reset();
        done
    }
}

#[pymethods]
impl Rebalancer {
    #[new]
    fn new(
        py: Python<'_>,
        planner: Py<Planner>,
        cluster: &Cluster,
        options: &Bound<'_, PyDict>,
        limits: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let options = options::rebalance(options, limits)?;
        let cancel = core::Cancel::new();
        let inner = planner.get().run(py, |planner| Ok(planner.clone()))?.with_cancel(&cancel);
        let rebalancer = rebalance::Rebalancer::new(inner, cluster.0.clone(), options).map_err(raise)?;
        let state = Mutex::new(State { rebalancer, last: None });
        Ok(Self { planner, cancel, state })
    }

    fn observe(&self, py: Python<'_>, window: &Loads) -> PyResult<()> {
        self.with(py, |state| {
            state.rebalancer.observe(window.0.clone())?;
            state.last = Some(window.0.clone());
            Ok(())
        })
    }

    fn propose(&self, py: Python<'_>) -> PyResult<Proposed> {
        let (proposal, moved) = self.with(py, |state| {
            let proposal = state.rebalancer.propose()?;
            let replan = &proposal.replan;
            let moved = (!replan.layers().is_empty()).then(|| Moved::from(replan));
            Ok((proposal, moved))
        })?;
        Ok((Plan { plan: proposal.plan().clone(), moved }, proposal.strategy.name()))
    }

    /// Tells that a map [layers][columns] of i64 runs; it need not fit.
    fn apply(&self, py: Python<'_>, map: &[u8], columns: usize) -> PyResult<()> {
        let map = words(map, i64::from_ne_bytes);
        let observed = self.with(py, |state| {
            let Some(loads) = &state.last else { return Ok(None) };
            if columns == 0 || map.len() != columns * loads.layers() {
                return Ok(Some(Err((map.len() / columns.max(1), loads.layers()))));
            }
            state.rebalancer.apply(previous(&map, columns, loads.experts())?)?;
            Ok(Some(Ok(())))
        })?;
        match observed {
            Some(Ok(())) => Ok(()),
            Some(Err((found, wanted))) => {
                Err(invalid("layers of the map", found, format!("is not that of the windows, {wanted}")))
            }
            None => {
                Err(invalid("windows observed", 0, "is not at least 1: observe one before a map is applied"))
            }
        }
    }
}

/// Rows of scores, one a strategy, then the references.
#[pyfunction]
pub fn replay<'py>(
    planner: &Bound<'py, Planner>,
    windows: Vec<Loads>,
    cluster: &Cluster,
    strategies: Vec<String>,
    interval: usize,
    options: &Bound<'py, PyDict>,
    limits: &Bound<'py, PyDict>,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let py = planner.py();
    let strategies = strategies.iter().map(|name| options::strategy(name)).collect::<PyResult<Vec<_>>>()?;
    let replay = ReplayOptions {
        strategies,
        interval,
        options: options::rebalance(options, limits)?,
        ..ReplayOptions::default()
    };
    let windows: Vec<core::Loads> = windows.into_iter().map(|loads| loads.0).collect();
    let rows =
        planner.get().run(py, |planner| rebalance::replay(planner, &windows, &cluster.0, &replay, |_| ()))?;
    rows.iter().map(|row| row_dict(py, row)).collect()
}

fn row_dict<'py>(py: Python<'py>, row: &ReplayRow) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", &row.name)?;
    dict.set_item("balancedness", &row.balancedness.scores)?;
    dict.set_item("replica_balancedness", &row.replica_balancedness.scores)?;
    dict.set_item("moved", &row.moved.scores)?;
    dict.set_item("milliseconds", &row.milliseconds.scores)?;
    Ok(dict)
}
