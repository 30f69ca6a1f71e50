//! GPUs of unequal speed.

use super::Cluster;
use crate::error::Error;
use crate::loads::brief;

/// The fastest GPU, in the unit that speeds are kept in.
pub(super) const FASTEST: u32 = 1_000_000;

/// The slowest GPU that works, in the same unit: loads are weighed in whole numbers, and lose precision with the ratio.
const SLOWEST: u32 = FASTEST / 100;

impl Cluster {
    /// The same cluster with a speed for each GPU, `[gpus]`: what a GPU does in a second, in any unit. Ratios alone count:
    /// they are kept relative to the fastest GPU, in millionths. Plans then aim at the least `load / speed` of the busiest
    /// GPU, and [`crate::check`] and [`crate::bound`] judge by it.
    ///
    /// A GPU of speed 0 is gone: its slots stay free. Where all GPUs are equally fast the cluster is as without speeds.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is not one speed for each GPU, one is negative or not a number, all are 0, a GPU is
    /// slower than a hundredth of the fastest, or the GPUs that are not gone have too few slots for the replicas.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
    /// let cluster = Cluster::new(6, 1, 1, 3)?.with_gpu_speeds(&[2.0, 2.0, 1.0])?;
    /// assert_eq!(cluster.gpu_speeds(), [1.0, 1.0, 0.5]);
    /// let loads = Loads::from_counts(1, 5, &[30, 20, 20, 20, 10])?;
    /// let plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &PlanOptions::default())?;
    /// assert_eq!(plan.gpu_loads()[2], 20.0); // half as fast, half the load of the others
    /// assert_eq!(plan.quality().layers[0].max_gpu_load, 40.0);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn with_gpu_speeds(mut self, speeds: &[f64]) -> Result<Self, Error> {
        let parts = parts_of(speeds, self.num_gpus)?;
        let remain = parts.iter().filter(|part| **part > 0).count();
        if self.num_replicas > remain * self.slots_per_gpu {
            let rule = format!(
                "is more than the {remain} GPUs that are not at speed 0 have slots: {}",
                remain * self.slots_per_gpu
            );
            return Err(Error::invalid("num_replicas", self.num_replicas, rule));
        }
        self.speeds = if parts.iter().all(|part| *part == FASTEST) { Vec::new() } else { parts };
        Ok(self)
    }

    /// The speed of each GPU, `[gpus]`: 1 for the fastest, 0 for one that is gone.
    #[must_use]
    pub fn gpu_speeds(&self) -> Vec<f64> {
        (0..self.num_gpus).map(|gpu| self.speed(gpu)).collect()
    }

    /// Whether all GPUs are equally fast.
    #[must_use]
    pub fn has_equal_speeds(&self) -> bool {
        self.speeds.is_empty()
    }

    /// The speed of a GPU, 1 for the fastest.
    pub(crate) fn speed(&self, gpu: usize) -> f64 {
        self.speeds.get(gpu).map_or(1.0, |&part| f64::from(part) / f64::from(FASTEST))
    }

    /// The speeds in millionths of the fastest, `[gpus]`; empty where all are equal.
    pub(crate) fn speed_parts(&self) -> &[u32] {
        &self.speeds
    }

    /// The sum of the speeds: of as many GPUs where all are equal.
    pub(crate) fn capacity(&self) -> f64 {
        if self.speeds.is_empty() {
            return self.num_gpus as f64;
        }
        self.speeds.iter().map(|&part| u64::from(part)).sum::<u64>() as f64 / f64::from(FASTEST)
    }

    /// The GPUs that are gone.
    pub(crate) fn gone_gpus(&self) -> Vec<usize> {
        (0..self.speeds.len()).filter(|&gpu| self.speeds[gpu] == 0).collect()
    }

    /// The cluster of the GPUs that are not gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] where nodes hold whole groups and do not lose equal numbers of GPUs.
    pub(crate) fn of_remaining(&self) -> Result<Self, Error> {
        let speeds: Vec<f64> = self.gpu_speeds().into_iter().filter(|speed| *speed > 0.0).collect();
        let gpus = speeds.len();
        let is_even = lose_equally(self.num_gpus, self.num_nodes, &self.gone_gpus());
        if !is_even && self.planned_nodes() > 1 {
            let rule = "would have unequal numbers of GPUs left, and nodes that hold whole groups need equal ones: \
                        plan for one node and one group";
            return Err(Error::invalid("num_nodes", self.num_nodes, rule));
        }
        // Under the global policy nodes of unequal size are as good as one.
        let (groups, nodes) = if is_even { (self.num_groups, self.num_nodes) } else { (1, 1) };
        Self::with_slots_per_gpu(self.num_replicas, groups, nodes, gpus, self.slots_per_gpu)?
            .with_gpu_speeds(&speeds)
    }

    /// Refuses unequal speeds for what knows none: `what` is it, and `would_do` what would do instead.
    ///
    /// # Errors
    /// [`Error::Invalid`] where GPUs are not equally fast.
    pub(crate) fn check_equal_speeds(&self, what: &str, would_do: &str) -> Result<(), Error> {
        self.refuse_speeds(|part| part < FASTEST, what, would_do)
    }

    /// [`Cluster::check_equal_speeds`] of the GPUs that are not gone.
    ///
    /// # Errors
    /// [`Error::Invalid`] where they are not equally fast.
    #[cfg(feature = "cli")]
    pub(crate) fn check_equal_or_gone(&self, what: &str, would_do: &str) -> Result<(), Error> {
        self.refuse_speeds(|part| (1..FASTEST).contains(&part), what, would_do)
    }

    fn refuse_speeds(&self, is_other: impl Fn(u32) -> bool, what: &str, would_do: &str) -> Result<(), Error> {
        let Some(gpu) = self.speeds.iter().position(|part| is_other(*part)) else { return Ok(()) };
        let rule = format!("of GPU {gpu} is not that of the others, and {what} wants equal ones: {would_do}");
        Err(Error::invalid("gpu_speeds", self.speed(gpu), rule))
    }
}

/// Whether all nodes lose as many of these GPUs.
pub(crate) fn lose_equally(gpus: usize, nodes: usize, gone: &[usize]) -> bool {
    let each = gpus / nodes.max(1);
    let lost = |node: usize| gone.iter().filter(|&&gpu| gpu / each.max(1) == node).count();
    (1..nodes).all(|node| lost(node) == lost(0))
}

/// Speeds in millionths of the fastest.
///
/// # Errors
/// [`Error::Invalid`] as for [`Cluster::with_gpu_speeds`], whatever the replicas are.
pub(crate) fn parts_of(speeds: &[f64], num_gpus: usize) -> Result<Vec<u32>, Error> {
    let refuse = |value: f64, rule: String| Err(Error::invalid("gpu_speeds", brief(value), rule));
    if speeds.len() != num_gpus {
        let rule = format!("for num_gpus {num_gpus}: one for each GPU is needed");
        return Err(Error::invalid("gpu_speeds", format!("names {} speeds", speeds.len()), rule));
    }
    if let Some(gpu) = speeds.iter().position(|speed| !(*speed >= 0.0 && speed.is_finite())) {
        let rule = format!("of GPU {gpu} is not a number, at least 0; 0 is for a GPU that is gone");
        return refuse(speeds[gpu], rule);
    }
    let fastest = speeds.iter().copied().fold(0.0, f64::max);
    if fastest == 0.0 {
        return refuse(0.0, "is the speed of every GPU: at least one must not be gone".into());
    }
    let part = |speed: &f64| (speed / fastest * f64::from(FASTEST)).round() as u32;
    let parts: Vec<u32> = speeds.iter().map(part).collect();
    let too_slow = |(speed, part): (&f64, &u32)| *speed > 0.0 && *part < SLOWEST;
    if let Some(gpu) = speeds.iter().zip(&parts).position(too_slow) {
        let rule = format!(
            "of GPU {gpu} is less than a hundredth of the fastest, {}; 0 leaves the GPU empty",
            brief(fastest)
        );
        return refuse(speeds[gpu], rule);
    }
    Ok(parts)
}
