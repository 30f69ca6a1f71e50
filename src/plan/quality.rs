//! How good a plan is, worked out where it is asked for.

use std::sync::OnceLock;
use std::time::Duration;

use web_time::Instant;

use super::Plan;
use crate::bound::{self, BoundEffort, BoundOptions};
use crate::check::{self, Dispatch, Quality, Traffic};
use crate::error::Error;
use crate::loads::Loads;

impl Plan {
    /// The load of each GPU under the loads the plan was made for, `[layers][gpus]`, in their unit.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
    /// let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
    /// let plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &Cluster::new(6, 1, 1, 3)?, &PlanOptions::default())?;
    /// let gpus = plan.gpu_loads();
    /// assert_eq!((gpus.len(), gpus.iter().sum::<f64>()), (3, 150.0));
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    #[must_use]
    pub fn gpu_loads(&self) -> Vec<f64> {
        let map = self.placement.physical_to_logical();
        // The planner checks every plan before it returns it.
        check::gpu_loads(&self.loads, &self.cluster, map).unwrap_or_default()
    }

    /// Where the tokens that the plan was made for go under a dispatch, if every GPU sends an equal part of every expert's
    /// load; see [`check::traffic_from`] for counts of each GPU.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Dispatch, Loads, PlanOptions, Planner};
    /// let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
    /// let cluster = Cluster::new(8, 1, 2, 4)?; // two nodes, which hold no whole groups
    /// let plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &PlanOptions::default())?;
    /// let nearest = plan.traffic(Dispatch::Nearest);
    /// assert!(nearest.in_node() >= plan.traffic(Dispatch::Equal).in_node());
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    #[must_use]
    pub fn traffic(&self, dispatch: Dispatch) -> Traffic {
        let map = self.placement.physical_to_logical();
        // The planner checks every plan before it returns it.
        check::traffic(&self.loads, &self.cluster, map, dispatch).unwrap_or_else(|_| Traffic::none(dispatch))
    }

    /// How good the plan is on the loads it was made for, with each layer's lower bound: computed on the first
    /// call, by [`crate::check`] and [`crate::bound`], which share no code with the planner. It is worked out on the
    /// planner's threads, see [`crate::Planner::with_threads`].
    ///
    /// # Panics
    /// Never on a plan the planner made: it was checked before it was returned.
    #[must_use]
    pub fn quality(&self) -> &Quality {
        &self.measured().0
    }

    /// The time that the bound in [`Plan::quality`] took, which is no part of [`Plan::elapsed`]. It is worked out first
    /// where it has not been.
    ///
    /// # Panics
    /// Never on a plan the planner made: it was checked before it was returned.
    #[must_use]
    pub fn bound_elapsed(&self) -> Duration {
        self.measured().1
    }

    /// Asks for another bound in [`Plan::quality`] than the quick one, and has it worked out anew.
    ///
    /// ```
    /// use eplb_wgpu::bound::BoundEffort;
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
    ///
    /// let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
    /// let cluster = Cluster::new(6, 1, 1, 3)?;
    /// let mut plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &PlanOptions::default())?;
    /// let quick = plan.quality().mean_gap();
    /// plan.set_bound(BoundEffort::Tight);
    /// assert!(plan.quality().mean_gap() <= quick);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn set_bound(&mut self, effort: BoundEffort) {
        self.effort = effort;
        self.quality = OnceLock::new();
    }

    /// The options of its bounds: they hold for plans under the same options.
    fn bound_options(&self) -> BoundOptions {
        BoundOptions {
            effort: self.effort,
            max_replicas_per_expert: self.options.max_replicas_per_expert,
            max_foreign: self.options.max_foreign,
        }
    }

    /// The score of the plan on some loads, by its own rules.
    fn score(&self, loads: &Loads) -> Result<Quality, Error> {
        check::score_with(loads, &self.cluster, self.physical_to_logical(), &self.options.rules())
    }

    /// With the least load that foreign replicas of any plan as good serve, where there may be any.
    fn with_least_foreign(&self, loads: &Loads, score: Quality) -> Quality {
        if self.options.max_foreign == 0 {
            return score;
        }
        let heaviest: Vec<f64> = score.layers.iter().map(|layer| layer.max_gpu_load).collect();
        score.with_least_foreign(&bound::least_foreign_loads(loads, &self.cluster, &heaviest))
    }

    /// The quality, and the time of its bound.
    fn measured(&self) -> &(Quality, Duration) {
        self.quality.get_or_init(|| {
            self.on_threads(|| {
                let score = self.score(&self.loads);
                let score = score.expect("the planner checks every plan before it returns it");
                let start = Instant::now();
                let bounds = bound::lower_bounds_with(&self.loads, &self.cluster, &self.bound_options());
                let score = score.with_bounds(&bounds);
                (self.with_least_foreign(&self.loads, score), start.elapsed())
            })
        })
    }

    /// Runs work on the threads of the planner that made the plan.
    pub(super) fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.threads {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// How good the plan is on each window it was made for, with each window's own bounds; the same as
    /// [`Plan::quality`] where there is one window. The bounds hold for a window alone: no one plan need reach
    /// all of them.
    ///
    /// # Errors
    /// Never on a plan the planner made: it was checked before it was returned.
    pub fn window_quality(&self) -> Result<Vec<Quality>, Error> {
        let quality = |window: &Loads| {
            let bounds = bound::lower_bounds_with(window, &self.cluster, &self.bound_options());
            Ok(self.with_least_foreign(window, self.score(window)?.with_bounds(&bounds)))
        };
        self.on_threads(|| self.loads.windows().map(quality).collect())
    }
}
