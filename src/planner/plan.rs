//! One call: loads and a cluster in, a checked plan out.

use std::sync::OnceLock;

use web_time::Instant;

use super::backend::Backend;
#[cfg(not(target_family = "wasm"))]
use super::background;
use super::cpu::Planned;
#[cfg(feature = "gpu")]
use super::gpu;
use super::{Fallback, Planner, checked, cpu, host};
use crate::bound::BoundEffort;
use crate::choice::DeviceInfo;
use crate::cluster::Cluster;
use crate::edge;
use crate::error::Error;
use crate::foreign;
use crate::loads::Loads;
use crate::options::{Duplicates, PlanOptions};
use crate::params::{Params, to_map};
use crate::plan::Plan;
use crate::presets::Preset;
use crate::replan;
use crate::spread;
use crate::watch::Attempt;

impl Planner {
    /// Plans all layers of `loads` on `cluster`.
    ///
    /// The plan depends on loads, cluster and options alone: not on the device, the number of threads, or
    /// which other layers are in the call. Where the device fails, the CPU backend makes the same plan and
    /// [`Plan::warnings`] says so, or with [`Fallback::Never`] the call fails. A device that is lost is opened
    /// again by the next call, up to three times between two plans that it makes.
    ///
    /// # Errors
    /// [`Error::Invalid`] where loads, cluster and options break a rule together; [`Error::Device`] only with
    /// [`Fallback::Never`]; [`Error::Cancelled`] where the call was stopped.
    pub fn plan(&self, loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Result<Plan, Error> {
        edge::now(self.plan_here(loads, cluster, options))
    }

    /// [`Planner::plan`] on the caller's thread. But in a browser it blocks: a program waits in the driver.
    pub(crate) async fn plan_here(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        let start = Instant::now();
        let gone = cluster.gone_gpus();
        if !gone.is_empty() {
            let plan = Box::pin(self.plan_here(loads, &cluster.of_remaining()?, options)).await?;
            return plan.with_gone_gpus(cluster, &gone);
        }
        let params = Params::new(loads, cluster, options)?;
        let abroad = foreign::Limits::new(&params, cluster, options)?;
        if params.trajectory && loads.layers_without_load() > 0 {
            let plan = self.plan_loaded(loads, cluster, options).await?;
            return Ok(Plan { elapsed: start.elapsed(), ..plan });
        }
        let mut warnings: Vec<String> = host::idle_connection(&params, options).into_iter().collect();
        // Shaders know of no speeds.
        let mut made_by = if params.has_speeds() { DeviceInfo::cpu() } else { self.inner.info.clone() };
        let windows = loads.fixed_windows();
        let combined = host::combine(&params, windows);
        let attempt = || self.watch.attempt(loads, cluster, options);
        let mut plan_by = async |params: &Params| {
            if let Some(planned) = self.on_threads(|| host::plan_small(params, &combined, &attempt()))? {
                return Ok(planned);
            }
            match self.plan_on_backend(params, &combined, windows, &attempt()).await {
                Err(error @ Error::Device { .. }) if self.fallback == Fallback::Cpu => {
                    warnings.push(format!("{error}; the CPU backend made the plan"));
                    made_by = DeviceInfo::cpu();
                    self.on_threads(|| cpu::plan(params, &combined, windows, &attempt()))
                }
                planned => planned,
            }
        };
        let mut planned = plan_by(&params).await?;
        // Where duplicates are allowed a plan without them is one too, and the search often finds a better one so.
        let without = PlanOptions { duplicates: Duplicates::Avoid, ..options.clone() };
        let without = Params::new(loads, cluster, &without)?;
        if params.trajectory && without.avoid_duplicates != params.avoid_duplicates && planned.is_open() {
            host::take_better(&params, windows, &mut planned, &plan_by(&without).await?, true);
        }
        if params.has_speeds() && params.trajectory && params.windows == 1 {
            // Its packing is not the start of the search here.
            let greedy = Params::new(loads, cluster, &Preset::greedy_under(options))?;
            host::take_better(&params, windows, &mut planned, &plan_by(&greedy).await?, false);
        }
        self.on_threads(|| host::share_among_three(&params, &combined, &mut planned, &attempt()))?;
        attempt().go_on()?;
        host::prefer_trivial(&params, windows, &mut planned);
        let nodes = cluster.num_nodes() as u32;
        self.on_threads(|| {
            let planned = (&mut planned.slots[..], &mut planned.ends[..]);
            spread::spread(&params, nodes, options.dispatch, windows, planned, &attempt())
        })?;
        if params.connected {
            let connect = || replan::connect(&params, windows, &planned.slots, &attempt());
            planned.take_rows(self.on_threads(connect)?, &params);
        }
        if let Some(limits) = abroad {
            self.on_threads(|| {
                let planned = (&mut planned.slots[..], &mut planned.ends[..]);
                foreign::improve(&without, limits, &combined, planned, &attempt())
            })?;
        }
        let placement = checked(loads, cluster, options, to_map(&planned.slots).collect())?;
        Ok(Plan {
            placement,
            loads: loads.clone(),
            cluster: cluster.clone(),
            options: options.clone(),
            stops: planned.ends,
            device: made_by.name,
            backend: made_by.backend,
            elapsed: start.elapsed(),
            warnings,
            effort: BoundEffort::default(),
            quality: OnceLock::new(),
            threads: self.threads.clone(),
        })
    }

    /// The stages, on the planner's backend.
    async fn plan_on_backend(
        &self,
        params: &Params,
        combined: &[u32],
        windows: &[u32],
        attempt: &Attempt<'_>,
    ) -> Result<Planned, Error> {
        match &self.inner.backend {
            _ if params.has_speeds() => self.on_threads(|| cpu::plan(params, combined, windows, attempt)),
            Backend::Cpu => self.on_threads(|| cpu::plan(params, combined, windows, attempt)),
            #[cfg(feature = "gpu")]
            Backend::Device(keeper) => {
                keeper.with(async |gpu| gpu::plan(gpu, params, combined, windows, attempt).await).await
            }
            #[cfg(feature = "gpu")]
            Backend::Refused(error) => Err(error.clone()),
        }
    }

    /// [`Planner::plan`] without blocking the caller's executor: the work runs on a thread of its own, from the
    /// first poll on. Dropping the future lets that work end unseen; the planner stays usable. (In a browser a device is
    /// awaited, and the CPU backend blocks: there a worker should call it.)
    ///
    /// # Errors
    /// As for [`Planner::plan`], and [`Error::Device`] where no thread can be started or it dies.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
    /// let planner = Planner::new(DeviceChoice::Cpu)?;
    /// let (loads, cluster) = (Loads::from_counts(1, 2, &[3, 1])?, Cluster::new(4, 1, 1, 2)?);
    /// let options = PlanOptions::default();
    /// let plan = pollster::block_on(planner.plan_async(&loads, &cluster, &options))?;
    /// assert_eq!(plan.fingerprint(), planner.plan(&loads, &cluster, &options)?.fingerprint());
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub async fn plan_async(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        // A browser's devices are awaited, and its pages have no threads.
        #[cfg(target_family = "wasm")]
        return self.plan_here(loads, cluster, options).await;
        #[cfg(not(target_family = "wasm"))]
        {
            let (planner, loads, cluster, options) =
                (self.clone(), loads.clone(), cluster.clone(), options.clone());
            background::done(move || planner.plan(&loads, &cluster, &options))
                .await
                .unwrap_or_else(|reason| Err(Error::Device { device: self.inner.info.label(), reason }))
        }
    }
}
