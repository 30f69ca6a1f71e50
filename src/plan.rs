//! The result: which slot holds which expert, how good that is, and how it was made.

mod placement;
mod quality;
mod shares;
mod stop;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::bound::BoundEffort;
use crate::check::{self, Quality};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::options::PlanOptions;

pub use placement::Placement;
pub use stop::Stop;

/// The version of the plans that this library makes: equal versions make equal plans of equal calls, whatever the version
/// of the library. It is raised whenever any plan can change.
///
/// Ranks compare it during a rolling upgrade, before they compare fingerprints. Plan files and `eplb --version` tell it.
pub const PLAN_VERSION: u32 = 7;

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
    pub(crate) is_cut_short: bool,
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
        check::score_with(&self.loads, cluster, &map, &self.options.rules())?;
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

    /// Notes for the caller, such as one on a lost device whose work the CPU backend finished.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether a time limit ended the call before all layers were planned: another run may give another plan, see
    /// [`crate::Planner::plan_within`].
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }
}
