//! Tables of shares by a planner: on its device, or on its threads.

#[cfg(feature = "gpu")]
use super::gpu;
use super::{Fallback, Planner};
use crate::cluster::Cluster;
#[cfg(feature = "gpu")]
use crate::engine::gpu::Gpu;
use crate::error::Error;
use crate::loads::Loads;
use crate::shares::task::Level;
#[cfg(feature = "gpu")]
use crate::shares::task::Task;
use crate::shares::{self, Shares};

impl Planner {
    /// [`crate::Plan::shares`] of any map, `[layers][slots]`, by this planner's device. The host does it in a browser, where GPUs
    /// are of unequal speed, and on a software driver where a layer has thousands of pairs of replicas: the table is the same.
    ///
    /// # Errors
    /// As for [`Shares::of_windows`], and [`Error::Device`] where the device fails and nothing is to take its place
    /// ([`Fallback`]).
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
    /// let planner = Planner::new(DeviceChoice::Auto)?;
    /// let (loads, cluster) = (Loads::from_counts(1, 4, &[90, 30, 20, 10])?, Cluster::new(6, 1, 1, 3)?);
    /// let plan = planner.plan(&loads, &cluster, &PlanOptions::default())?;
    /// let windows = [loads];
    /// assert_eq!(planner.shares(&cluster, plan.physical_to_logical(), &windows)?, plan.shares(&windows)?);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn shares(
        &self,
        cluster: &Cluster,
        physical_to_logical: &[i32],
        windows: &[Loads],
    ) -> Result<Shares, Error> {
        self.level(false, |level| shares::of_windows(cluster, physical_to_logical, (windows, None), level))
    }

    /// [`crate::Plan::shares_with_sample`] of any map, `[layers][slots]`, by this planner's device: see [`Planner::shares`].
    ///
    /// # Errors
    /// As for [`Planner::shares`], of the sample too.
    pub fn shares_with_sample(
        &self,
        cluster: &Cluster,
        physical_to_logical: &[i32],
        windows: &[Loads],
        sample: &Loads,
    ) -> Result<Shares, Error> {
        let all = (windows, Some(sample));
        self.level(false, |level| shares::of_windows(cluster, physical_to_logical, all, level))
    }

    /// [`crate::Plan::batch_shares`] of any map, `[layers][slots]`, by this planner's device: see [`Planner::shares`].
    ///
    /// # Errors
    /// As for [`Shares::of_batch`], and [`Error::Device`] as for [`Planner::shares`].
    pub fn batch_shares(
        &self,
        cluster: &Cluster,
        physical_to_logical: &[i32],
        batch: &Loads,
    ) -> Result<Shares, Error> {
        self.level(true, |level| shares::of_batch(cluster, physical_to_logical, batch, level))
    }

    /// Makes a table: the device moves the shares where it can, else the host's threads do.
    fn level(
        &self,
        is_batch: bool,
        make: impl Fn(Option<&Level<'_>>) -> Result<Shares, Error> + Send + Sync,
    ) -> Result<Shares, Error> {
        match self.level_on_device(is_batch, &make) {
            Ok(Some(shares)) => return Ok(shares),
            Err(Error::Device { .. }) if self.fallback == Fallback::Cpu => {}
            Err(error) => return Err(error),
            Ok(None) => {}
        }
        self.on_threads(|| make(None))
    }

    /// [`Planner::level`] with a device; `None` where there is none for it.
    #[cfg(feature = "gpu")]
    fn level_on_device(
        &self,
        is_batch: bool,
        make: &(impl Fn(Option<&Level<'_>>) -> Result<Shares, Error> + Send + Sync),
    ) -> Result<Option<Shares>, Error> {
        let Some(keeper) = self.keeper()? else { return Ok(None) };
        let level = |tasks: &[Task]| {
            let level = async |gpu: &Gpu| match gpu::shares::levels(gpu, tasks, is_batch) {
                true => gpu::shares::level(gpu, tasks, is_batch, &|| self.watch.go_on()).await.map(Some),
                false => Ok(None),
            };
            crate::edge::now(keeper.with(level))
        };
        self.on_threads(|| make(Some(&level))).map(Some)
    }

    /// There is none.
    #[cfg(not(feature = "gpu"))]
    fn level_on_device(
        &self,
        _: bool,
        _: &impl Fn(Option<&Level<'_>>) -> Result<Shares, Error>,
    ) -> Result<Option<Shares>, Error> {
        Ok(None)
    }
}
