//! Tables of shares for a plan.

use super::Plan;
use crate::error::Error;
use crate::loads::{Loads, check_same_layers};
use crate::shares::Shares;

impl Plan {
    /// A table of shares for the next window, from the last ones, oldest first. The last 8 are its scenarios, moved so
    /// that their mean is the forecast from the last 32, each weighing .93 of the one after it; the table makes the squares
    /// of what GPUs carry in them least. It moves no weights: it can be made anew at every window, whatever the plan was
    /// made from. On the planner's threads, see [`crate::Planner::with_threads`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no window, or one is not of the plan's layers and experts.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PARTS, PlanOptions, Planner};
    /// let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
    /// let plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &Cluster::new(6, 1, 1, 3)?, &PlanOptions::default())?;
    /// let shares = plan.shares(&[loads, Loads::from_counts(1, 4, &[80, 40, 20, 10])?])?;
    /// assert_eq!(shares.parts().iter().sum::<u16>(), 4 * PARTS);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn shares(&self, windows: &[Loads]) -> Result<Shares, Error> {
        self.check_layers(windows.last())?;
        self.on_threads(|| Shares::of_windows(&self.cluster, self.physical_to_logical(), windows))
    }

    /// [`Plan::shares`], drawn towards a sample of the window that the table is for: the loads of what has run of it. Both
    /// are to be counts of routings: of few, less is believed.
    ///
    /// # Errors
    /// As for [`Plan::shares`], of the sample too.
    pub fn shares_with_sample(&self, windows: &[Loads], sample: &Loads) -> Result<Shares, Error> {
        self.check_layers(windows.last())?;
        self.on_threads(|| Shares::of_sample(&self.cluster, self.physical_to_logical(), windows, sample))
    }

    /// A table of shares for one batch whose loads are known. It levels what is connected: see
    /// [`crate::PlanOptions::connected`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where the batch is not of the plan's layers and experts.
    pub fn batch_shares(&self, batch: &Loads) -> Result<Shares, Error> {
        self.check_layers(Some(batch))?;
        self.on_threads(|| Shares::of_batch(&self.cluster, self.physical_to_logical(), batch))
    }

    /// Checks that loads of as many layers are of those of the plan.
    fn check_layers(&self, loads: Option<&Loads>) -> Result<(), Error> {
        match loads.filter(|loads| loads.layers() == self.layers()) {
            Some(loads) => check_same_layers("layers of the plan", self.layer_ids(), loads.layer_ids()),
            None => Ok(()),
        }
    }
}
