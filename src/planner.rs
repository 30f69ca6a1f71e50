//! The planner: its device, its threads, and the progress that it tells.

mod apart;
mod backend;
#[cfg(not(target_family = "wasm"))]
mod background;
pub(crate) mod cpu;
#[cfg(feature = "gpu")]
pub(crate) mod gpu;
pub(crate) mod host;
mod plan;
pub(crate) mod planned;
mod replan;
mod shares;
mod within;
mod without_load;

use std::sync::Arc;

use crate::check;
use crate::choice::{DeviceChoice, DeviceInfo};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::options::PlanOptions;
use crate::plan::Placement;
use crate::planner::backend::Backend;
use crate::watch::{Cancel, Progress, Watch};

pub use replan::{LayerMoves, Replan};

/// Makes plans on one device; made once and used often, from many threads. Clones share the device.
///
/// ```
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
/// let loads = Loads::from_counts(1, 8, &[600, 560, 120, 120, 20, 10, 10, 10])?;
/// let cluster = Cluster::new(16, 1, 1, 8)?;
/// let planner = Planner::new(DeviceChoice::Cpu)?;
/// let plan = planner.plan(&loads, &cluster, &PlanOptions::default())?;
/// assert_eq!(plan.physical_to_logical().len(), 16);
/// assert!(plan.quality().layers[0].max_gpu_load <= 200.0); // DeepSeek's greedy rule reaches 232
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Planner {
    inner: Arc<Inner>,
    fallback: Fallback,
    /// The threads of the CPU backend; rayon's own where there are none.
    threads: Option<Arc<rayon::ThreadPool>>,
    watch: Watch,
}

/// The rule for a device that fails: that is lost, hangs, lacks memory, or refuses the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// The CPU backend makes the same plan, and [`crate::Plan::warnings`] names the cause.
    #[default]
    Cpu,
    /// The call ends with [`Error::Device`].
    Never,
}

/// The most threads of [`Planner::with_threads`].
const MAX_THREADS: usize = 1 << 10;

/// Shared by all clones of a planner.
struct Inner {
    backend: Backend,
    info: DeviceInfo,
}

impl Planner {
    /// Opens the device of a choice. Where the driver refuses the device that `Auto` chooses, every plan meets a fault of the
    /// device: see [`Fallback`].
    ///
    /// # Errors
    /// [`Error::NoDevice`] where no adapter fits the choice (with those found), [`Error::Device`] where the
    /// driver refuses.
    pub fn new(choice: DeviceChoice) -> Result<Self, Error> {
        backend::open_now(choice).map(Self::on_backend)
    }

    /// [`Planner::new`], for callers with an executor, and in a browser for all choices but the CPU backend.
    ///
    /// # Errors
    /// As for [`Planner::new`].
    pub async fn new_async(choice: DeviceChoice) -> Result<Self, Error> {
        backend::open(choice).await.map(Self::on_backend)
    }

    /// [`Planner::new`] with all that opening a device may be told.
    #[cfg(all(any(test, feature = "test-support"), feature = "gpu"))]
    pub(crate) async fn open(opening: crate::engine::device::Opening) -> Result<Self, Error> {
        let auto = opening.choice == DeviceChoice::Auto;
        Self::on(crate::engine::keeper::Keeper::open(opening, gpu::shaders()).await, auto)
    }

    /// The planner on a device that was opened, or on the fault of opening it.
    #[cfg(all(any(test, feature = "test-support"), feature = "gpu"))]
    pub(crate) fn on(
        opened: Result<Option<crate::engine::keeper::Keeper>, Error>,
        auto: bool,
    ) -> Result<Self, Error> {
        backend::opened(opened, auto).map(Self::on_backend)
    }

    fn on_backend((backend, info): (Backend, DeviceInfo)) -> Self {
        Self {
            inner: Arc::new(Inner { backend, info }),
            fallback: Fallback::default(),
            threads: None,
            watch: Watch::default(),
        }
    }

    /// The same planner, on the same device, with another rule for its faults.
    ///
    /// ```
    /// use eplb_wgpu::{DeviceChoice, Fallback, Planner};
    /// let planner = Planner::new(DeviceChoice::Auto)?.with_fallback(Fallback::Never);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    #[must_use]
    pub fn with_fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = fallback;
        self
    }

    /// The same planner, with this many threads of its own for the CPU backend: many ranks may share a host. The plan is
    /// the same with any number.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are none, more than 1,024, or the system starts no more.
    ///
    /// ```
    /// use eplb_wgpu::{DeviceChoice, Planner};
    /// let planner = Planner::new(DeviceChoice::Cpu)?.with_threads(2)?;
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn with_threads(mut self, threads: usize) -> Result<Self, Error> {
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::invalid("threads", threads, format!("is not between 1 and {MAX_THREADS}")));
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool =
            pool.map_err(|error| Error::invalid("threads", threads, format!("cannot be started: {error}")))?;
        self.threads = Some(Arc::new(pool));
        Ok(self)
    }

    /// The same planner, on the same device, whose calls this handle stops: plans, replans and those of a
    /// [`crate::rebalance::Rebalancer`] end with [`Error::Cancelled`] soon after [`Cancel::cancel`].
    #[must_use]
    pub fn with_cancel(mut self, cancel: &Cancel) -> Self {
        self.watch.cancel = Some(cancel.clone());
        self
    }

    /// The same planner, on the same device, which tells of every call how far it is: on the CPU backend after each
    /// layer, on a device whenever it is done with some layers. The listener runs on threads of the call, one at a time: a
    /// slow listener slows the call. The layers are counted from 0 again where the CPU backend takes over from a device that
    /// failed, and where duplicates are allowed and a plan without them is tried too.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
    /// let planner = Planner::new(DeviceChoice::Cpu)?
    ///     .with_progress(|progress| eprintln!("{} of {} layers", progress.layers_done, progress.layers));
    /// planner.plan(&Loads::from_counts(1, 2, &[3, 1])?, &Cluster::new(4, 1, 1, 2)?, &PlanOptions::default())?;
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    #[must_use]
    pub fn with_progress(mut self, listener: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.watch.progress = Some(Arc::new(listener));
        self
    }

    /// A planner on the CPU backend, on the same threads: the same handle stops its calls, and nobody is told how far they are.
    fn on_cpu(&self) -> Self {
        let watch = Watch { cancel: self.watch.cancel.clone(), progress: None };
        let threads = self.threads.clone();
        Self { watch, threads, ..Self::on_backend((Backend::Cpu, DeviceInfo::cpu())) }
    }

    /// Runs work on the planner's own threads.
    pub(crate) fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.threads {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// The device that a call can wait for, if there is one: a page of a browser cannot wait.
    ///
    /// # Errors
    /// [`Error::Device`] where `Auto` chose a device that could not be opened.
    #[cfg(feature = "gpu")]
    fn keeper(&self) -> Result<Option<&crate::engine::keeper::Keeper>, Error> {
        match &self.inner.backend {
            Backend::Device(keeper) if !cfg!(target_family = "wasm") => Ok(Some(keeper)),
            Backend::Refused(error) => Err(error.clone()),
            _ => Ok(None),
        }
    }

    /// The device that makes the plans.
    #[must_use]
    pub fn device(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// The device's engine, for tests of single stages. It is never closed.
    #[cfg(all(test, feature = "gpu"))]
    pub(crate) fn gpu(&self) -> Option<&'static crate::engine::gpu::Gpu> {
        self.lend().map(|gpu| &**Box::leak(Box::new(gpu)))
    }

    /// The device's engine, to be ill-treated.
    #[cfg(all(test, feature = "gpu"))]
    pub(crate) fn lend(&self) -> Option<Arc<crate::engine::gpu::Gpu>> {
        match &self.inner.backend {
            Backend::Device(keeper) => Some(pollster::block_on(keeper.lend()).expect("the device opens")),
            _ => None,
        }
    }
}

/// The placement of a map that passes [`check::score_with`].
fn checked(
    loads: &Loads,
    cluster: &Cluster,
    options: &PlanOptions,
    map: Vec<i32>,
) -> Result<Placement, Error> {
    let placement = Placement::new(loads.experts(), cluster.num_slots(), map)?;
    check::score_with(loads, cluster, placement.physical_to_logical(), &options.rules())?;
    Ok(placement)
}
