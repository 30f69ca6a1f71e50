//! The result: which slot holds which expert, how good that is, and how it was made.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::bound::{self, BoundEffort, BoundOptions};
use crate::check::{self, Quality};
use crate::cluster::{Cluster, MAX_SLOTS};
use crate::error::Error;
use crate::loads::{Loads, MAX_EXPERTS};
use crate::options::PlanOptions;

/// The version of the plans that this library makes: equal versions make equal plans of equal calls, whatever the version
/// of the library. It is raised whenever any plan can change.
///
/// Ranks compare it during a rolling upgrade, before they compare fingerprints. Plan files and `eplb --version` tell it.
pub const PLAN_VERSION: u32 = 1;

/// Why the search of a layer ended. Shaders know it by its number; 0 is a search that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Stop {
    /// The heaviest GPU is within the stop gap of the layer's bound.
    BoundReached = 1,
    /// No move helps, or none helped for as long as the patience lasts.
    NoMoveLeft,
    /// The iterations of a start, or the steps of a descent, were used up first.
    BudgetSpent,
    /// The layer is small, and no plan of it is better: all were searched.
    Optimal,
    /// The plan was made from a previous one, and no further move was worth its transfer.
    PreviousPlan,
}

impl Stop {
    /// That of a shader's number.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_word(word: u32) -> Self {
        [Stop::BoundReached, Stop::NoMoveLeft]
            .into_iter()
            .find(|&s| s as u32 == word)
            .unwrap_or(Stop::BudgetSpent)
    }

    /// `bound reached`, `no move left`, `budget spent`, `optimal` or `previous plan`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stop::BoundReached => "bound reached",
            Stop::NoMoveLeft => "no move left",
            Stop::BudgetSpent => "budget spent",
            Stop::Optimal => "optimal",
            Stop::PreviousPlan => "previous plan",
        }
    }
}

/// Where every replica sits: the three maps of DeepSeek's contract, consistent with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    layers: usize,
    experts: usize,
    slots: usize,
    max_replicas: usize,
    physical_to_logical: Vec<i32>,
    logical_to_physical: Vec<i32>,
    replica_counts: Vec<u32>,
}

impl Placement {
    /// The placement that `physical_to_logical` (`[layers][slots]`, -1 for a free slot) describes.
    ///
    /// The padded lists of slots take `experts` times the memory of `physical_to_logical` where one expert has
    /// nearly all slots, and a small multiple of it in any useful plan.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the number of entries is not a multiple of `slots`, there are more experts than
    /// slots, more than [`MAX_EXPERTS`] or [`MAX_SLOTS`] of them, or the lists do not fit the memory; [`Error::InvalidPlan`] where an
    /// entry is not an expert.
    pub fn new(experts: usize, slots: usize, physical_to_logical: Vec<i32>) -> Result<Self, Error> {
        for (field, value, most) in [("experts", experts, MAX_EXPERTS), ("slots", slots, MAX_SLOTS)] {
            if value == 0 || value > most {
                return Err(Error::invalid(field, value, format!("is not between 1 and {most}")));
            }
        }
        if experts > slots {
            return Err(Error::invalid("experts", experts, format!("is more than slots {slots}")));
        }
        if !physical_to_logical.len().is_multiple_of(slots) {
            let rule = format!("is not a multiple of the number of slots {slots}");
            return Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule));
        }
        let layers = physical_to_logical.len() / slots;
        let rows = || physical_to_logical.chunks_exact(slots);
        let mut replica_counts = vec![0u32; layers * experts];
        for (layer, (row, counts)) in rows().zip(replica_counts.chunks_exact_mut(experts)).enumerate() {
            for (slot, &expert) in row.iter().enumerate() {
                match usize::try_from(expert) {
                    Ok(e) if e < experts => counts[e] += 1,
                    Err(_) if expert == -1 => {}
                    _ => {
                        let rule = format!("slot {slot} holds {expert}, not an expert in 0..{experts} or -1");
                        return Err(Error::InvalidPlan { layer, rule });
                    }
                }
            }
        }
        let max_replicas = replica_counts.iter().copied().max().unwrap_or(0) as usize;
        let length = (layers * experts).saturating_mul(max_replicas);
        let mut logical_to_physical = Vec::new();
        if logical_to_physical.try_reserve_exact(length).is_err() {
            return Err(Error::invalid("length of logical_to_physical", length, "does not fit the memory"));
        }
        logical_to_physical.resize(length, -1);
        let mut filled = vec![0usize; experts];
        // No layer has room where there are no replicas.
        for (row, lists) in rows().zip(logical_to_physical.chunks_exact_mut((experts * max_replicas).max(1)))
        {
            filled.fill(0);
            for (slot, &expert) in row.iter().enumerate() {
                if let Ok(expert) = usize::try_from(expert) {
                    lists[expert * max_replicas + filled[expert]] = slot as i32;
                    filled[expert] += 1;
                }
            }
        }
        Ok(Self {
            layers,
            experts,
            slots,
            max_replicas,
            physical_to_logical,
            logical_to_physical,
            replica_counts,
        })
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Number of logical experts in a layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// Number of slots in a layer.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The largest replica count of any expert: the last dimension of [`Placement::logical_to_physical`].
    #[must_use]
    pub fn max_replicas(&self) -> usize {
        self.max_replicas
    }

    /// The expert of each slot, `[layers][slots]`; -1 where the slot is free.
    #[doc(alias = "phy2log")]
    #[must_use]
    pub fn physical_to_logical(&self) -> &[i32] {
        &self.physical_to_logical
    }

    /// The slots of each expert in ascending order, `[layers][experts][max_replicas]`, padded with -1.
    #[doc(alias = "log2phy")]
    #[must_use]
    pub fn logical_to_physical(&self) -> &[i32] {
        &self.logical_to_physical
    }

    /// How many replicas each expert has, `[layers][experts]`.
    #[doc(alias = "logcnt")]
    #[must_use]
    pub fn replica_counts(&self) -> &[u32] {
        &self.replica_counts
    }

    /// A stable 64-bit hash of `physical_to_logical`, for ranks to compare: xxHash64 (seed 0) over the number
    /// of slots and then the entries, each as a little-endian `i32`.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let head = (self.slots as i32).to_le_bytes();
        let entries = self.physical_to_logical.iter().flat_map(|e| e.to_le_bytes());
        let bytes: Vec<u8> = head.into_iter().chain(entries).collect();
        xxhash_rust::xxh64::xxh64(&bytes, 0)
    }
}

/// A plan: the placement, its quality, and how it was made.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) placement: Placement,
    pub(crate) loads: Loads,
    pub(crate) cluster: Cluster,
    pub(crate) options: PlanOptions,
    pub(crate) stops: Vec<Stop>,
    pub(crate) device: String,
    pub(crate) backend: String,
    pub(crate) elapsed: Duration,
    pub(crate) warnings: Vec<String>,
    pub(crate) effort: BoundEffort,
    pub(crate) quality: OnceLock<(Quality, Duration)>,
    /// The planner's own threads, where it has some.
    pub(crate) threads: Option<Arc<rayon::ThreadPool>>,
}

impl Plan {
    /// The placement alone.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.placement.layers()
    }

    /// The numbers of the layers, `[layers]`: those of the loads, see [`Loads::with_layer_ids`].
    #[must_use]
    pub fn layer_ids(&self) -> &[u32] {
        self.loads.layer_ids()
    }

    /// Number of logical experts in a layer.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.placement.experts()
    }

    /// Number of slots in a layer.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.placement.slots()
    }

    /// [`Placement::max_replicas`] of the placement.
    #[must_use]
    pub fn max_replicas(&self) -> usize {
        self.placement.max_replicas()
    }

    /// [`Placement::physical_to_logical`] of the placement, `[layers][slots]`.
    #[doc(alias = "phy2log")]
    #[must_use]
    pub fn physical_to_logical(&self) -> &[i32] {
        self.placement.physical_to_logical()
    }

    /// [`Placement::logical_to_physical`] of the placement, `[layers][experts][max_replicas]`.
    #[doc(alias = "log2phy")]
    #[must_use]
    pub fn logical_to_physical(&self) -> &[i32] {
        self.placement.logical_to_physical()
    }

    /// [`Placement::replica_counts`] of the placement, `[layers][experts]`.
    #[doc(alias = "logcnt")]
    #[must_use]
    pub fn replica_counts(&self) -> &[u32] {
        self.placement.replica_counts()
    }

    /// [`Placement::fingerprint`] of the placement. Compare [`PLAN_VERSION`] first.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.placement.fingerprint()
    }

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

    /// What the bound in [`Plan::quality`] took, which is no part of [`Plan::elapsed`]. It is worked out first
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

    /// What its bounds hold for: plans under the same options.
    fn bound_options(&self) -> BoundOptions {
        BoundOptions { effort: self.effort, max_replicas_per_expert: self.options.max_replicas_per_expert }
    }

    /// The quality, and the time of its bound.
    fn measured(&self) -> &(Quality, Duration) {
        self.quality.get_or_init(|| {
            self.on_threads(|| {
                let score = check::score(&self.loads, &self.cluster, self.physical_to_logical());
                let score = score.expect("the planner checks every plan before it returns it");
                let start = Instant::now();
                let bounds = bound::lower_bounds_with(&self.loads, &self.cluster, &self.bound_options());
                (score.with_bounds(&bounds), start.elapsed())
            })
        })
    }

    /// Runs work on the threads of the planner that made the plan.
    fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
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
            let score = check::score(window, &self.cluster, self.physical_to_logical())?;
            Ok(score.with_bounds(&bound::lower_bounds_with(window, &self.cluster, &self.bound_options())))
        };
        self.on_threads(|| self.loads.windows().map(quality).collect())
    }

    /// The same plan in the numbering of all GPUs, where it was made for those that remain: the slots of the GPUs that are
    /// gone are free. `cluster` is of all GPUs, with as many replicas as this plan has.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the GPUs of the plan and those that are gone are not those of `cluster`, or have other
    /// numbers of slots; [`Error::InvalidPlan`] where the plan breaks a rule of that cluster, as nodes of unequal size.
    pub fn with_gone_gpus(&self, cluster: &Cluster, gone: &[usize]) -> Result<Self, Error> {
        let (all, each) = (cluster.num_gpus(), cluster.slots_per_gpu());
        let remain: Vec<usize> = (0..all).filter(|gpu| !gone.contains(gpu)).collect();
        for (field, found, wanted) in [
            ("GPUs that remain", remain.len(), self.cluster.num_gpus()),
            ("slots_per_gpu", each, self.cluster.slots_per_gpu()),
        ] {
            if found != wanted {
                return Err(Error::invalid(field, found, format!("is not that of the plan, {wanted}")));
            }
        }
        let mut map = vec![-1; self.layers() * cluster.num_slots()];
        let rows = map.chunks_exact_mut(cluster.num_slots());
        for (row, held) in rows.zip(self.physical_to_logical().chunks_exact(self.slots())) {
            for (&gpu, held) in remain.iter().zip(held.chunks_exact(each)) {
                row[gpu * each..(gpu + 1) * each].copy_from_slice(held);
            }
        }
        check::score(&self.loads, cluster, &map)?;
        let placement = Placement::new(self.experts(), cluster.num_slots(), map)?;
        Ok(Self { placement, cluster: cluster.clone(), quality: OnceLock::new(), ..self.clone() })
    }

    /// The loads the plan was made for.
    #[must_use]
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// The cluster the plan is for.
    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Why the search of each layer ended, `[layers]`.
    #[must_use]
    pub fn stops(&self) -> &[Stop] {
        &self.stops
    }

    /// The name of the device that computed it.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The backend that computed it: `cpu`, or wgpu's name of the graphics API.
    #[must_use]
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Wall time of the call, from loads to maps, without what [`Plan::quality`] costs
    /// ([`Plan::bound_elapsed`]).
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// What the caller should know, such as a lost device whose work the CPU backend finished.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_before_memory_is_taken() {
        let said = |experts, slots, map: &[i32]| {
            Placement::new(experts, slots, map.to_vec()).map_err(|error| error.to_string()).err()
        };
        let huge = usize::MAX;
        for (experts, slots, rule) in [
            (huge, 2, format!("experts {huge} is not between 1 and 4096")),
            (4097, 8192, "experts 4097 is not between 1 and 4096".into()),
            (0, 2, "experts 0 is not between 1 and 4096".into()),
            (1, huge, format!("slots {huge} is not between 1 and 16384")),
            (1, 0, "slots 0 is not between 1 and 16384".into()),
            (3, 2, "experts 3 is more than slots 2".into()),
            (2, 3, "length of physical_to_logical 2 is not a multiple of the number of slots 3".into()),
        ] {
            assert_eq!(said(experts, slots, &[0, 1]), Some(rule));
        }
        assert_eq!(said(4096, 16_384, &[]), None);
        assert_eq!(said(2, 2, &[0, 1]), None);
    }
}
