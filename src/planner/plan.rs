//! One call: loads and a cluster in, a checked plan out.

use std::sync::OnceLock;

use web_time::Instant;

use super::backend::Backend;
#[cfg(not(target_family = "wasm"))]
use super::background;
#[cfg(feature = "gpu")]
use super::gpu;
use super::planned::Planned;
use super::{Fallback, Planner, checked, cpu, host};
use crate::bound::BoundEffort;
use crate::choice::DeviceInfo;
use crate::cluster::Cluster;
use crate::edge;
use crate::error::Error;
use crate::foreign::{self, ForeignLayer, GroupSets, Improvable};
use crate::given::{self, GivenNode, Placed};
use crate::loads::Loads;
use crate::options::{Duplicates, PlanOptions};
use crate::params::{Params, to_map};
use crate::plan::Plan;
use crate::presets::Preset;
use crate::replan;
use crate::spread::{self, Spreading};
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

    /// [`Planner::plan`] on the caller's thread. Outside a browser it blocks: a program waits in the driver.
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
        let params = &Params::new(loads, cluster, options)?;
        foreign::check_one_window(params, cluster, options)?;
        if params.trajectory && loads.layers_without_load() > 0 {
            let plan = self.plan_loaded(loads, cluster, options).await?;
            return Ok(Plan { elapsed: start.elapsed(), ..plan });
        }
        let without = PlanOptions { duplicates: Duplicates::Avoid, ..options.clone() };
        let without = &Params::new(loads, cluster, &without)?;
        let windows = loads.fixed_windows();
        let mut call = LoadedCall {
            planner: self,
            loads,
            cluster,
            options,
            params,
            without,
            windows,
            combined: host::combine(params, windows),
            warnings: host::idle_connection(params, options).into_iter().collect(),
            // Shaders know of no speeds.
            made_by: if params.has_speeds() { DeviceInfo::cpu() } else { self.inner.info.clone() },
        };
        let mut planned = call.search().await?;
        call.finish(&mut planned).await?;
        let placement = checked(loads, cluster, options, to_map(&planned.slots).collect())?;
        Ok(Plan {
            placement,
            loads: loads.clone(),
            cluster: cluster.clone(),
            options: options.clone(),
            stops: planned.ends,
            device: call.made_by.name,
            backend: call.made_by.backend,
            elapsed: start.elapsed(),
            warnings: call.warnings,
            is_cut_short: false,
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

/// A call with all its GPUs, and with load in every layer that is searched.
struct LoadedCall<'a> {
    planner: &'a Planner,
    loads: &'a Loads,
    cluster: &'a Cluster,
    options: &'a PlanOptions,
    params: &'a Params,
    /// The same without duplicates.
    without: &'a Params,
    /// `[windows][layers][experts]`, and their sum.
    windows: &'a [u32],
    combined: Vec<u32>,
    warnings: Vec<String>,
    made_by: DeviceInfo,
}

impl LoadedCall<'_> {
    fn attempt(&self) -> Attempt<'_> {
        self.planner.watch.attempt(self.loads, self.cluster, self.options)
    }

    /// The best of the plans that are searched for: usually there is one.
    async fn search(&mut self) -> Result<Planned, Error> {
        let (params, windows) = (self.params, self.windows);
        let mut planned = self.search_by(params).await?;
        // Where duplicates are allowed a plan without them is one too, and the search often finds a better one so.
        if params.trajectory && self.without.avoid_duplicates != params.avoid_duplicates && planned.is_open()
        {
            let other = self.search_by(self.without).await?;
            host::take_better(params, windows, &mut planned, &other, true);
        }
        if params.has_speeds() && params.trajectory && params.windows == 1 {
            // The search does not start from the packing of the greedy rule here, so it may end above it.
            let greedy = Params::new(self.loads, self.cluster, &Preset::greedy_under(self.options))?;
            let other = self.search_by(&greedy).await?;
            host::take_better(params, windows, &mut planned, &other, false);
        }
        Ok(planned)
    }

    /// One plan: exactly where layers are small, else by the stages, on the CPU backend where the device fails.
    async fn search_by(&mut self, params: &Params) -> Result<Planned, Error> {
        let (planner, windows) = (self.planner, self.windows);
        if let Some(planned) =
            planner.on_threads(|| host::plan_small(params, &self.combined, &self.attempt()))?
        {
            return Ok(planned);
        }
        match planner.plan_on_backend(params, &self.combined, windows, &self.attempt()).await {
            Err(error @ Error::Device { .. }) => {
                self.fall_back(error)?;
                planner.on_threads(|| cpu::plan(params, &self.combined, windows, &self.attempt()))
            }
            planned => planned,
        }
    }

    /// The work after the search.
    async fn finish(&mut self, planned: &mut Planned) -> Result<(), Error> {
        let Self { planner, params, windows, .. } = *self;
        planner.on_threads(|| host::share_among_three(params, &self.combined, planned, &self.attempt()))?;
        self.attempt().go_on()?;
        host::prefer_trivial(params, windows, planned);
        if spread::applies(params) {
            self.spread(planned).await?;
        }
        if params.connected() {
            let connect = || replan::connect(params, windows, &planned.slots, &self.attempt());
            let rows = planner.on_threads(connect)?;
            self.warnings.extend(host::unconnected(params, &rows));
            planned.take_rows(rows, params);
        }
        if params.most_foreign > 0 {
            self.improve_by_foreign(planned).await?;
        }
        Ok(())
    }

    /// Spreads copies over nodes.
    async fn spread(&mut self, planned: &mut Planned) -> Result<(), Error> {
        let Self { planner, params, windows, .. } = *self;
        let mut spreading = planner.on_threads(|| {
            let dispatch = self.options.dispatch;
            Spreading::new(params, dispatch, windows, &planned.slots, &self.attempt())
        })?;
        let gpus = spreading.node_gpus();
        loop {
            let nodes = planner.on_threads(|| spreading.next());
            if nodes.is_empty() {
                break;
            }
            let placed = self.place(params, gpus, &nodes).await?;
            spreading.judge(&nodes, &placed);
        }
        spreading.take((&mut planned.slots, &mut planned.ends));
        Ok(())
    }

    /// Gives layers foreign replicas.
    async fn improve_by_foreign(&mut self, planned: &mut Planned) -> Result<(), Error> {
        let params = self.without;
        let layers = self.choose_foreign(&planned.slots).await?;
        let nodes: Vec<GivenNode> = layers.iter().flatten().flat_map(|layer| layer.nodes.clone()).collect();
        let placed = self.place(&foreign::of_placement(params), params.node_gpus, &nodes).await?;
        foreign::take(params, &layers, &placed, (&mut planned.slots, &mut planned.ends));
        Ok(())
    }

    /// Chooses the replicas of nodes: on the device, and on the host where that has none or fails.
    async fn choose_foreign(&mut self, planned: &[u32]) -> Result<Vec<Option<Improvable>>, Error> {
        let (planner, params) = (self.planner, self.without);
        let combined = self.combined.clone();
        let sets = foreign::all_sets(params);
        let layers = planner.on_threads(|| foreign::open_layers(params, &combined, planned));
        match planner.choose_on_device(params, &sets, &layers, &self.attempt()).await {
            Ok(Some(found)) => return Ok(found),
            Err(error) => self.fall_back(error)?,
            Ok(None) => {}
        }
        planner.on_threads(|| foreign::improvable(&sets, &layers, &self.attempt()))
    }

    /// Goes on by the CPU backend where the device failed and that is wanted.
    fn fall_back(&mut self, error: Error) -> Result<(), Error> {
        if self.planner.fallback != Fallback::Cpu || !matches!(error, Error::Device { .. }) {
            return Err(error);
        }
        self.warnings.push(format!("{error}; the CPU backend made the plan"));
        self.made_by = DeviceInfo::cpu();
        Ok(())
    }

    /// Places the replicas of nodes: on the device, and on the host where that has none or fails.
    async fn place(&mut self, params: &Params, gpus: u32, nodes: &[GivenNode]) -> Result<Vec<Placed>, Error> {
        let planner = self.planner;
        match planner.place_on_device(params, gpus, nodes, &self.attempt()).await {
            Ok(Some(placed)) => return Ok(placed),
            Err(error) => self.fall_back(error)?,
            Ok(None) => {}
        }
        planner.on_threads(|| given::place(params, gpus, nodes, &self.attempt()))
    }
}

impl Planner {
    /// [`foreign::improvable`] on the device; `None` where there is none for these layers.
    #[cfg(feature = "gpu")]
    async fn choose_on_device(
        &self,
        params: &Params,
        sets: &GroupSets,
        layers: &[Option<ForeignLayer<'_>>],
        attempt: &Attempt<'_>,
    ) -> Result<Option<Vec<Option<Improvable>>>, Error> {
        let Backend::Device(keeper) = &self.inner.backend else { return Ok(None) };
        let open: Vec<&ForeignLayer<'_>> = layers.iter().flatten().collect();
        let found = keeper.with(async |gpu| match gpu::foreign::chooses(gpu, params, sets, &open) {
            true => gpu::foreign::share_out(gpu, params, sets, &open, attempt).await.map(Some),
            false => Ok(None),
        });
        let Some(found) = found.await? else { return Ok(None) };
        let mut found = found.into_iter();
        let mut improvable = |layer: &ForeignLayer<'_>| Some(layer.improvable(sets, &found.next()??));
        Ok(Some(layers.iter().map(|layer| layer.as_ref().and_then(&mut improvable)).collect()))
    }

    /// There is none.
    #[cfg(not(feature = "gpu"))]
    async fn choose_on_device(
        &self,
        _: &Params,
        _: &GroupSets,
        _: &[Option<ForeignLayer<'_>>],
        _: &Attempt<'_>,
    ) -> Result<Option<Vec<Option<Improvable>>>, Error> {
        Ok(None)
    }

    /// [`given::place`] on the device; `None` where there is none for these nodes.
    #[cfg(feature = "gpu")]
    async fn place_on_device(
        &self,
        params: &Params,
        gpus: u32,
        nodes: &[GivenNode],
        attempt: &Attempt<'_>,
    ) -> Result<Option<Vec<Placed>>, Error> {
        let Backend::Device(keeper) = &self.inner.backend else { return Ok(None) };
        keeper.with(async |gpu| gpu::given::place(gpu, params, gpus, nodes, attempt).await).await
    }

    /// There is none.
    #[cfg(not(feature = "gpu"))]
    async fn place_on_device(
        &self,
        _: &Params,
        _: u32,
        _: &[GivenNode],
        _: &Attempt<'_>,
    ) -> Result<Option<Vec<Placed>>, Error> {
        Ok(None)
    }
}
