//! `Planner`.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eplb_wgpu as core;
use eplb_wgpu::bound::{self, BoundOptions};
use eplb_wgpu::check::{self, CheckOptions};
use eplb_wgpu::{Cancel, MoveLimits};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict};

use crate::arrays::{i64s, words};
use crate::cluster::Cluster;
use crate::errors::{Failure, invalid, raise};
use crate::loads::Loads;
use crate::options;
use crate::plan::{Moved, Plan, fingerprint, quality_dict};
use crate::previous::previous;
use crate::step::step;

/// How long work runs between two looks for a signal such as Ctrl-C.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(50);

/// The planner on its device, and the threads on which everything runs: no other pool is ever started.
pub struct Workers {
    process: u32,
    threads: rayon::ThreadPool,
    pub planner: core::Planner,
}

impl Workers {
    fn new(choice: &core::DeviceChoice, threads: usize) -> Result<Arc<Self>, Failure> {
        if !(1..=1024).contains(&threads) {
            return Err(Failure::invalid("threads", threads, "is not between 1 and 1024"));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|at| format!("eplb-{at}"))
            .build()
            .map_err(|error| Failure::invalid("threads", threads, format!("cannot be started: {error}")))?;
        let planner = core::Planner::new(choice.clone())?;
        Ok(Arc::new(Self { process: std::process::id(), threads: pool, planner }))
    }
}

/// Makes plans on one device, from any thread and, after a fork, in any process.
#[pyclass(frozen, module = "eplb_wgpu._core")]
pub struct Planner {
    choice: core::DeviceChoice,
    threads: usize,
    workers: Mutex<Arc<Workers>>,
}

impl Planner {
    /// The workers of this process: a fork has none of its parent's threads, and not its device.
    pub fn workers(&self) -> Result<Arc<Workers>, Failure> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if workers.process != std::process::id() {
            let parents = std::mem::replace(&mut *workers, Workers::new(&self.choice, self.threads)?);
            // To drop them would be to wait for threads that are not here.
            std::mem::forget(parents);
        }
        Ok(workers.clone())
    }

    /// Runs work on the planner's own threads, without the interpreter's lock.
    pub fn run<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&core::Planner) -> Result<T, core::Error> + Send,
    ) -> PyResult<T> {
        let cancel = Cancel::new();
        let own = cancel.clone();
        self.run_until(py, &cancel, move |planner| work(&planner.clone().with_cancel(&own)))
    }

    /// The same with the handle that stops the work. Ctrl-C reaches Python's main thread here: it stops the work, and is
    /// raised once the work has ended.
    pub fn run_until<T: Send>(
        &self,
        py: Python<'_>,
        cancel: &Cancel,
        work: impl FnOnce(&core::Planner) -> Result<T, core::Error> + Send,
    ) -> PyResult<T> {
        let workers = py.detach(|| self.workers())?;
        let (send, receive) = mpsc::channel();
        let Workers { planner, threads, .. } = &*workers;
        let (done, interrupt) = py.detach(move || {
            threads.in_place_scope(move |scope| {
                scope.spawn(move |_| {
                    // The receiver is there until this was received, or the work panics, which the scope hands on.
                    let _ = send.send(work(planner));
                });
                let mut interrupt = None;
                loop {
                    match receive.recv_timeout(BETWEEN_SIGNALS) {
                        Ok(done) => return (Some(done), interrupt),
                        Err(RecvTimeoutError::Disconnected) => return (None, interrupt),
                        Err(RecvTimeoutError::Timeout) if interrupt.is_none() => {
                            interrupt = Python::attach(|py| py.check_signals()).err();
                            if interrupt.is_some() {
                                cancel.cancel();
                            }
                        }
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                }
            })
        });
        match (done, interrupt) {
            (_, Some(interrupt)) => Err(interrupt),
            (Some(done), None) => done.map_err(raise),
            (None, None) => Err(raise(core::Error::Cancelled)),
        }
    }
}

/// A map `[layers][columns]` as i64; `columns` is not 0.
fn map_of(data: &[u8], columns: usize, layers: usize) -> PyResult<Vec<i64>> {
    let map = words(data, i64::from_ne_bytes);
    if columns == 0 || map.len() != columns * layers {
        return Err(invalid(
            "layers of the map",
            map.len() / columns.max(1),
            format!("is not that of the loads, {layers}"),
        ));
    }
    Ok(map)
}

/// The entries of a map of i64. Whatever is no expert stays none.
fn entries(map: &[u8]) -> Vec<i32> {
    words(map, i64::from_ne_bytes).into_iter().map(|e| i32::try_from(e).unwrap_or(i32::MIN)).collect()
}

#[pymethods]
impl Planner {
    #[new]
    fn new(py: Python<'_>, device: &str, threads: usize) -> PyResult<Self> {
        let choice: core::DeviceChoice = device.parse().map_err(raise)?;
        let workers = py.detach(|| Workers::new(&choice, threads))?;
        Ok(Self { choice, threads, workers: Mutex::new(workers) })
    }

    #[getter]
    fn device(&self, py: Python<'_>) -> PyResult<String> {
        self.run(py, |planner| Ok(planner.device().label()))
    }

    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    fn plan(
        &self,
        py: Python<'_>,
        loads: &Loads,
        cluster: &Cluster,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Plan> {
        let options = options::plan(options, loads.0.windows().len() > 1)?;
        let plan = self.run(py, |planner| planner.plan(&loads.0, &cluster.0, &options))?;
        Ok(Plan { plan, moved: None })
    }

    /// From a map [layers][columns] of i64, which need not fit.
    #[allow(clippy::too_many_arguments)]
    fn replan(
        &self,
        py: Python<'_>,
        loads: &Loads,
        cluster: &Cluster,
        map: &[u8],
        columns: usize,
        options: &Bound<'_, PyDict>,
        limits: &Bound<'_, PyDict>,
    ) -> PyResult<Plan> {
        let options = options::plan(options, loads.0.windows().len() > 1)?;
        let limits = options::limits(limits, MoveLimits::default())?;
        let map = map_of(map, columns, loads.0.layers())?;
        let (loads, cluster) = (&loads.0, &cluster.0);
        cluster.check_experts(loads.experts()).map_err(raise)?;
        self.run(py, |planner| {
            let previous = previous(&map, columns, loads.experts())?;
            let replan = planner.replan(loads, cluster, previous, &options, &limits)?;
            Ok(Plan { plan: replan.plan().clone(), moved: Some(Moved::from(&replan)) })
        })
    }

    /// A step of a serving loop from a map [layers][columns] of i64: the next one, and what there is to tell.
    #[allow(clippy::too_many_arguments)]
    fn step<'py>(
        &self,
        py: Python<'py>,
        loads: &Loads,
        cluster: &Cluster,
        map: &[u8],
        columns: usize,
        options: &Bound<'py, PyDict>,
        limits: &Bound<'py, PyDict>,
    ) -> PyResult<(Bound<'py, PyByteArray>, Bound<'py, PyDict>)> {
        let options = options::plan(options, loads.0.windows().len() > 1)?;
        let limits = options::limits(limits, MoveLimits::each_window())?;
        let map = map_of(map, columns, loads.0.layers())?;
        cluster.0.check_experts(loads.0.experts()).map_err(raise)?;
        let step =
            self.run(py, |planner| step(planner, &loads.0, &cluster.0, (&map, columns), &options, &limits))?;
        let told = step.moved.dict(py)?;
        told.set_item("fingerprint", fingerprint(&step.placement))?;
        told.set_item("waiting", step.waiting)?;
        told.set_item("before", step.before)?;
        told.set_item("after", step.after)?;
        told.set_item("device", step.device)?;
        told.set_item("warnings", step.warnings)?;
        let map = step.placement.physical_to_logical().iter().map(|&e| i64::from(e));
        Ok((i64s(py, map)?, told))
    }

    /// A table of shares [layers][slots] of i64 for a map of the same form: for one batch, where `batch` says so, of the
    /// last of the windows, else from all of them and the sample.
    #[allow(clippy::too_many_arguments)]
    fn shares<'py>(
        &self,
        py: Python<'py>,
        windows: Vec<PyRef<'py, Loads>>,
        sample: Option<PyRef<'py, Loads>>,
        batch: bool,
        cluster: &Cluster,
        map: &[u8],
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let map = entries(map);
        let windows: Vec<core::Loads> = windows.iter().map(|window| window.0.clone()).collect();
        let sample = sample.map(|sample| sample.0.clone());
        let shares = self.run(py, |planner| match (windows.last(), &sample) {
            (Some(last), _) if batch => planner.batch_shares(&cluster.0, &map, last),
            (_, Some(sample)) => planner.shares_with_sample(&cluster.0, &map, &windows, sample),
            _ => planner.shares(&cluster.0, &map, &windows),
        })?;
        i64s(py, shares.parts().iter().map(|&part| i64::from(part)))
    }

    /// The quality of a map [layers][slots] of i64, under a table of shares of the same form if there is one, or the rule
    /// that it breaks.
    #[pyo3(signature = (loads, cluster, map, shares=None, max_foreign=0))]
    fn check<'py>(
        &self,
        py: Python<'py>,
        loads: &Loads,
        cluster: &Cluster,
        map: &[u8],
        shares: Option<&[u8]>,
        max_foreign: u32,
    ) -> PyResult<Bound<'py, PyDict>> {
        let map = entries(map);
        // Whatever is too large for a part sums up to none.
        let part = |part: i64| u16::try_from(part).unwrap_or(u16::MAX);
        let shares: Option<Vec<u16>> =
            shares.map(|shares| words(shares, i64::from_ne_bytes).into_iter().map(part).collect());
        let quality = self.run(py, |_| {
            let rules = CheckOptions { max_foreign, ..CheckOptions::default() };
            let quality = match &shares {
                Some(shares) => check::score_shares_with(&loads.0, &cluster.0, &map, shares, &rules)?,
                None => check::score_with(&loads.0, &cluster.0, &map, &rules)?,
            };
            let options = BoundOptions { max_foreign, ..BoundOptions::default() };
            Ok(quality.with_bounds(&bound::lower_bounds_with(&loads.0, &cluster.0, &options)))
        })?;
        quality_dict(py, &quality)
    }
}
