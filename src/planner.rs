//! The planner: loads and a cluster in, a checked plan out.

pub(crate) mod cpu;
pub(crate) mod gpu;

use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::time::Instant;

use crate::check;
use crate::cluster::Cluster;
use crate::engine::device::{self, DeviceChoice, DeviceInfo};
use crate::engine::gpu::Gpu;
use crate::error::Error;
use crate::loads::Loads;
use crate::mirror::s5_refine::End;
use crate::options::PlanOptions;
use crate::params::{FREE, Params};
use crate::plan::{Placement, Plan, Stop};

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
}

/// What all clones of a planner share.
struct Inner {
    gpu: Option<Gpu>,
    info: DeviceInfo,
}

impl Planner {
    /// Opens the device of a choice.
    ///
    /// # Errors
    /// [`Error::NoDevice`] where no adapter fits the choice (with those found), [`Error::Device`] where the
    /// driver refuses.
    pub fn new(choice: DeviceChoice) -> Result<Self, Error> {
        pollster::block_on(Self::new_async(choice))
    }

    /// [`Planner::new`], for callers with an executor.
    ///
    /// # Errors
    /// As for [`Planner::new`].
    pub async fn new_async(choice: DeviceChoice) -> Result<Self, Error> {
        let Some(open) = device::open(&choice).await? else {
            return Ok(Self { inner: Arc::new(Inner { gpu: None, info: DeviceInfo::cpu() }) });
        };
        let info = open.info.clone();
        let gpu = Some(Gpu::new(open, &gpu::shaders())?);
        Ok(Self { inner: Arc::new(Inner { gpu, info }) })
    }

    /// The device that makes the plans.
    #[must_use]
    pub fn device(&self) -> &DeviceInfo {
        &self.inner.info
    }

    /// The device's engine, for tests of single stages.
    #[cfg(test)]
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        self.inner.gpu.as_ref()
    }

    /// Plans all layers of `loads` on `cluster`.
    ///
    /// The plan depends on loads, cluster and options alone: not on the device, the number of threads, or
    /// which other layers are in the call. Where the device fails, the CPU backend makes the same plan and
    /// [`Plan::warnings`] says so.
    ///
    /// # Errors
    /// [`Error::Invalid`] where loads, cluster and options break a rule together.
    pub fn plan(&self, loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Result<Plan, Error> {
        let start = Instant::now();
        let params = Params::new(loads, cluster, options)?;
        let mut warnings = Vec::new();
        let mut made_by = self.inner.info.clone();
        let on_gpu = self.inner.gpu.as_ref().map(|gpu| gpu::plan(gpu, &params, loads.fixed()));
        let planned = match on_gpu {
            Some(Ok(planned)) => planned,
            Some(Err(error)) => {
                warnings.push(format!("{error}; the CPU backend made the plan"));
                made_by = DeviceInfo::cpu();
                cpu::plan(&params, loads.fixed())
            }
            None => cpu::plan(&params, loads.fixed()),
        };
        let slots = planned.slots.iter().map(|&e| if e == FREE { -1 } else { e as i32 }).collect();
        let placement = Placement::new(loads.experts(), cluster.num_slots(), slots)?;
        check::score(loads, cluster, placement.physical_to_logical())?;
        Ok(Plan {
            placement,
            loads: loads.clone(),
            cluster: cluster.clone(),
            options: options.clone(),
            stops: planned.ends.into_iter().map(stop).collect(),
            device: made_by.name,
            backend: made_by.backend,
            elapsed: start.elapsed(),
            warnings,
            quality: OnceLock::new(),
        })
    }

    /// [`Planner::plan`] without blocking the caller's executor: the work runs on a thread of its own, from the
    /// first poll on. Dropping the future lets that work end unseen; the planner stays usable.
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
        let (planner, loads, cluster, options) =
            (self.clone(), loads.clone(), cluster.clone(), options.clone());
        let failed = |reason: String| Error::Device { device: self.inner.info.label(), reason };
        let (send, receive) = mpsc::channel();
        let waker = Arc::new(Mutex::new(None::<Waker>));
        let wake = WakeAtEnd(waker.clone());
        std::thread::Builder::new()
            .name("eplb-plan".into())
            .spawn(move || {
                // Locals go in reverse order: the sender is gone by the time the waiter is woken, panic or not.
                let _wake = wake;
                let send = send;
                // The receiver is gone where the future was dropped.
                let _ = send.send(planner.plan(&loads, &cluster, &options));
            })
            .map_err(|error| failed(format!("no thread for the plan: {error}")))?;
        std::future::poll_fn(|context| {
            // The waker is set before the look, so that an end between the two is not missed.
            *waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
            match receive.try_recv() {
                Ok(result) => Poll::Ready(result),
                Err(mpsc::TryRecvError::Empty) => Poll::Pending,
                Err(mpsc::TryRecvError::Disconnected) => {
                    Poll::Ready(Err(failed("the thread of the plan died".into())))
                }
            }
        })
        .await
    }
}

/// Wakes whoever waits for a thread when the thread ends, however it ends.
struct WakeAtEnd(Arc<Mutex<Option<Waker>>>);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        if let Some(waker) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

fn stop(end: End) -> Stop {
    match end {
        End::Reached => Stop::BoundReached,
        End::Stuck => Stop::NoMoveLeft,
        End::Spent => Stop::BudgetSpent,
    }
}
