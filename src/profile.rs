//! Where the time of a plan goes, stage by stage: what `eplb bench` and the benchmarks measure.
//!
//! Two questions. What the stages of a whole plan take on a device, by its own clock ([`Profiler::plan`]); and
//! what a fixed amount of work takes, the same on the CPU backend and on a device: one [`Batch`].

use std::time::Duration;

use web_time::Instant;

use crate::cluster::Cluster;
use crate::engine::buffers::{Part, Work};
use crate::engine::device::{self, DeviceChoice};
use crate::engine::gpu::Gpu;
use crate::engine::recording::Recording;
use crate::error::Error;
use crate::layout::Layout;
use crate::loads::Loads;
use crate::mirror::bound::node_loads;
use crate::mirror::s6_select::NodeBest;
use crate::mirror::{Starts, s1_group_loads, s2_groups_to_nodes};
use crate::options::PlanOptions;
use crate::params::{Params, enumerate_assignments};
use crate::planner::gpu as pipeline;
use crate::stages;
use crate::watch::Watch;

/// Time of each stage, by the stem of its files (`s4_pack`), in the order they first ran.
pub type StageTimes = Vec<(&'static str, Duration)>;

/// A device opened for measuring. Making plans is the business of [`crate::Planner`]; this one is slower.
pub struct Profiler {
    gpu: Gpu,
    timed: bool,
}

impl Profiler {
    /// Opens the device of a choice, with timestamp queries where it has them; `None` is the CPU backend.
    ///
    /// # Errors
    /// As for [`crate::Planner::new`].
    pub async fn new(choice: &DeviceChoice) -> Result<Option<Self>, Error> {
        let Some(open) = device::open_timed(choice).await? else { return Ok(None) };
        let timed = open.device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        Ok(Some(Self { gpu: Gpu::new(open, &pipeline::shaders()).await?, timed }))
    }

    /// Whether the device has timestamp queries; stage times are empty where it has not.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.timed
    }

    /// Plans, and says what each stage took on the device.
    ///
    /// # Errors
    /// As for [`crate::Planner::plan`], and [`Error::Device`] where the device fails.
    pub async fn plan(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &PlanOptions,
    ) -> Result<StageTimes, Error> {
        let params = Params::new(loads, cluster, options)?;
        let watch = Watch::default();
        let attempt = watch.attempt(loads, cluster, options);
        pipeline::plan(&self.gpu, &params, loads.fixed(), loads.fixed_windows(), &attempt).await?;
        Ok(self.times())
    }

    /// Bytes of device memory held for the largest plan so far.
    pub async fn device_bytes(&self) -> u64 {
        self.gpu.bytes().await
    }

    fn times(&self) -> StageTimes {
        let times = self.gpu.take_times().into_iter();
        times.map(|(stem, nanoseconds)| (stem, Duration::from_nanos(nanoseconds as u64))).collect()
    }
}

/// The time of stages that run one after the other.
struct Laps {
    times: StageTimes,
    at: Instant,
}

impl Laps {
    /// The time since the last end was this stage's.
    fn end(&mut self, stem: &'static str) {
        let lap = self.at.elapsed();
        self.at += lap;
        match self.times.iter_mut().find(|(known, _)| *known == stem) {
            Some((_, time)) => *time += lap,
            None => self.times.push((stem, lap)),
        }
    }
}

/// All starts of all nodes of every layer's first assignment, each until its own end: the same work on every
/// device, unlike a plan's, which stops early.
///
/// ```
/// use eplb_wgpu::{Cluster, Loads, PlanOptions, profile::Batch};
/// let loads = Loads::from_counts(1, 8, &[600, 560, 120, 120, 20, 10, 10, 10])?;
/// let batch = Batch::new(&loads, &Cluster::new(16, 1, 1, 8)?, &PlanOptions::default())?;
/// assert_eq!(batch.on_cpu().len(), 7);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
pub struct Batch {
    params: Params,
    table: Vec<Vec<u32>>,
    layout: Layout,
    loads: Vec<u32>,
}

impl Batch {
    /// The batch of a call.
    ///
    /// # Errors
    /// As for [`crate::Planner::plan`], and [`Error::Invalid`] where the loads have several windows.
    pub fn new(loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Result<Self, Error> {
        let params = Params::new(loads, cluster, options)?;
        if params.windows > 1 {
            return Err(Error::invalid("windows of a batch", params.windows, "are not one window"));
        }
        let table = enumerate_assignments(params.groups, params.nodes);
        let layout = Layout::new(&params, table.len() as u32);
        Ok(Self { params, table, layout, loads: loads.fixed().to_vec() })
    }

    /// Candidates of the batch.
    #[must_use]
    pub fn candidates(&self) -> u64 {
        let Params { layers, nodes, starts, .. } = self.params;
        u64::from(layers) * u64::from(nodes) * u64::from(starts)
    }

    /// Runs on the CPU backend, one thread: the time of each stage.
    #[must_use]
    pub fn on_cpu(&self) -> StageTimes {
        let params = &self.params;
        let mut laps = Laps { times: Vec::new(), at: Instant::now() };
        let (mut starts, mut group_loads) = (Starts::default(), Vec::new());
        for loads in self.loads.chunks_exact(params.experts as usize) {
            s1_group_loads::group_loads(params, loads, &mut group_loads);
            laps.end("s1_group_loads");
            let chosen = s2_groups_to_nodes::choose(params, &self.table, loads, &group_loads);
            laps.end("s2_groups_to_nodes");
            let Some(assignment) = chosen.first() else { continue };
            let stop = (&[0][..], params.stop_load(assignment.bound));
            for groups in assignment.groups.chunks_exact(params.node_groups as usize) {
                node_loads(params, groups, loads, &mut starts.combined);
                starts.loads.clone_from(&starts.combined);
                let mut best = NodeBest::none();
                laps.end("gather");
                for start in 0..params.starts {
                    let outcome = starts.run(params, (groups[0], start), stop, &mut |stem| laps.end(stem));
                    best.offer(outcome, &starts.candidate.snapshot);
                    laps.end("s6_select");
                }
            }
        }
        laps.times
    }

    /// Runs on a device: the time of each stage by its clock (empty without one), and of the whole by the
    /// host's.
    ///
    /// # Errors
    /// [`Error::Device`] where the batch is larger than a buffer of the device, or it fails.
    pub async fn on_device(&self, profiler: &Profiler) -> Result<(StageTimes, Duration), Error> {
        let base = &self.layout.base;
        let batch = stages::Batch {
            assignment: 0,
            layers: (0, self.params.layers),
            starts: (0, self.params.starts),
            work_divisor: 1,
        };
        let arena = self.layout.arena_words(batch.params(base).candidates);
        if arena > profiler.gpu.max_buffer_words() {
            return Err(Error::invalid("candidates of a batch", self.candidates(), "do not fit a buffer"));
        }
        let mut recording = Recording::default();
        stages::s1_group_loads::record(&mut recording, base);
        stages::s2_groups_to_nodes::record(&mut recording, base);
        stages::gather::record(&mut recording, base, 0);
        stages::record_candidates(&mut recording, &self.params, base, &batch);
        let problem = self.layout.problem(&self.loads, &[], &self.table);
        let part = Part::Results { begin: 0, words: 1 };
        let start = Instant::now();
        let work =
            Work { recording: &recording, layout: &self.layout, problem: &problem, arena_words: arena, part };
        profiler.gpu.run(&work).await?;
        Ok((profiler.times(), start.elapsed()))
    }
}
