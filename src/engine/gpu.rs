//! Runs recordings on a device: pipelines and buffers are made once and kept.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use super::clock::Clock;
use super::device::{OpenDevice, one_line};
use super::pending::{Pending, Variant};
use super::recording::{
    BINDINGS, BindingKind, Dispatch, GRID_BINDINGS, Grid, LANES, Override, Recording, Tuning, constants,
    override_values,
};
use super::trusted::shader_module;
use crate::error::Error;
use crate::layout::{GpuParams, Layout};

/// Workgroups in one dimension of a grid, WebGPU's default limit.
const MAX_GRID: u32 = 65_535;

/// Dispatches of one submission, so that none keeps the device for long.
pub const DISPATCHES_PER_SUBMISSION: usize = 256;

/// A part of a buffer to read back, in words.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Part {
    Results {
        begin: u64,
        words: u64,
    },
    #[cfg(test)]
    Groups {
        begin: u64,
        words: u64,
    },
    #[cfg(test)]
    Arena {
        begin: u64,
        words: u64,
    },
}

impl Part {
    fn words(&self) -> u64 {
        match *self {
            Part::Results { words, .. } => words,
            #[cfg(test)]
            Part::Groups { words, .. } | Part::Arena { words, .. } => words,
        }
    }
}

/// A shader and its entry points, as the caller puts them together.
pub struct ShaderSource {
    /// The stage's stem.
    pub stem: &'static str,
    /// WGSL.
    pub wgsl: String,
    /// Entry points.
    pub entries: &'static [&'static str],
    /// Whether it sizes the grids of later dispatches.
    pub sizes_grids: bool,
    /// Its `override` constants.
    pub overrides: &'static [Override],
    /// Whether it has those of a [`Tuning`] as well.
    pub teams: bool,
}

/// Where the (x, y, z) of the grids that a device sizes by itself begin, in bytes.
const GRIDS: [(Grid, u64); 5] = [
    (Grid::Queued, 0),
    (Grid::QueuedTeams, 12),
    (Grid::QueuedBlocks, 24),
    (Grid::QueuedReplicated, 36),
    (Grid::QueuedReplicatedBlocks, 48),
];

/// A device with its shaders, and what earlier calls made on it.
pub struct Gpu {
    open: OpenDevice,
    tuning: Tuning,
    bindings: wgpu::BindGroupLayout,
    modules: HashMap<&'static str, Module>,
    grids: wgpu::Buffer,
    grids_group: wgpu::BindGroup,
    /// Where the device was opened for timing.
    clock: Option<Clock>,
    /// One call at a time.
    cache: Mutex<Cache>,
}

/// A shader on the device.
struct Module {
    shader: wgpu::ShaderModule,
    layout: wgpu::PipelineLayout,
    entries: &'static [&'static str],
    overrides: &'static [Override],
    teams: bool,
}

/// Pipelines by their kernel and the values of its constants.
type Pipelines = HashMap<Variant, wgpu::ComputePipeline>;

/// What calls make and leave to the next; all of it goes where a call fails, so that no half-made thing stays.
#[derive(Default)]
struct Cache {
    pipelines: Pipelines,
    buffers: Buffers,
}

/// Buffers grow to the largest call so far.
#[derive(Default)]
struct Buffers {
    params: Option<wgpu::Buffer>,
    problem: Option<wgpu::Buffer>,
    groups: Option<wgpu::Buffer>,
    results: Option<wgpu::Buffer>,
    arena: Option<wgpu::Buffer>,
    queue: Option<wgpu::Buffer>,
    staging: Option<wgpu::Buffer>,
    bind_group: Option<wgpu::BindGroup>,
}

impl Gpu {
    /// Prepares a device for the shaders.
    ///
    /// # Errors
    /// [`Error::Device`] where the driver refuses a shader.
    pub fn new(open: OpenDevice, shaders: &[ShaderSource]) -> Result<Self, Error> {
        let device = &open.device;
        let bindings = layout_of(device, &BINDINGS);
        let grid_bindings = layout_of(device, &GRID_BINDINGS);
        let pipeline_layout = |groups: &[Option<&wgpu::BindGroupLayout>]| {
            device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: groups,
                immediate_size: 0,
            })
        };
        let plain = pipeline_layout(&[Some(&bindings)]);
        let with_grids = pipeline_layout(&[Some(&bindings), Some(&grid_bindings)]);
        let grids = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("grids"),
            size: 12 * GRIDS.len() as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::INDIRECT,
            mapped_at_creation: false,
        });
        let grids_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("grids"),
            layout: &grid_bindings,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: grids.as_entire_binding() }],
        });
        let mut modules = HashMap::new();
        for shader in shaders {
            let source = wgpu::ShaderSource::Wgsl(shader.wgsl.as_str().into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(shader.stem), source };
            let layout = if shader.sizes_grids { &with_grids } else { &plain };
            let module = shader_module(device, descriptor);
            let ShaderSource { entries, overrides, teams, .. } = *shader;
            let module = Module { shader: module, layout: layout.clone(), entries, overrides, teams };
            modules.insert(shader.stem, module);
        }
        let clock = Clock::new(device, &open.queue);
        let vector = open.info.limits.iter().find(|(name, _)| *name == "subgroup_max_size");
        let tuning = Tuning::of(open.info.is_software, vector.map_or(0, |(_, lanes)| *lanes));
        let gpu =
            Self { open, tuning, clock, bindings, modules, grids, grids_group, cache: Mutex::default() };
        gpu.check_fault()?;
        Ok(gpu)
    }

    /// The largest storage buffer a shader may see, in words.
    pub fn max_buffer_words(&self) -> u64 {
        let limits = self.open.device.limits();
        // 128 MiB, WebGPU's default, is enough for any sensible batch.
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(128 << 20) / 4
    }

    /// Whether a driver runs the shaders on the processor.
    pub fn is_software(&self) -> bool {
        self.open.info.is_software
    }

    /// Why the device is lost, if it is: then every call fails. Other faults cost the call that meets them.
    pub fn lost(&self) -> Option<String> {
        self.open.fault.lost()
    }

    /// The same with shaders of another tuning.
    #[cfg(test)]
    pub fn with_tuning(self, tuning: Tuning) -> Self {
        Self { tuning, ..self }
    }

    /// The device, to be ill-treated.
    #[cfg(test)]
    pub fn device(&self) -> &wgpu::Device {
        &self.open.device
    }

    /// What went wrong on it, to be added to.
    #[cfg(test)]
    pub fn fault(&self) -> &super::device::Fault {
        &self.open.fault
    }

    /// Runs a recording and reads a part of a buffer.
    ///
    /// # Errors
    /// [`Error::Device`] where the device is lost, out of memory, or refuses the work.
    pub fn run(
        &self,
        recording: &Recording,
        layout: &Layout,
        problem: &[u32],
        arena_words: u64,
        part: Part,
    ) -> Result<Vec<u32>, Error> {
        self.run_while(&|| Ok(()), recording, layout, problem, arena_words, part)
    }

    /// [`Gpu::run`] as long as `go_on` has no error. It is asked before each submission and after it.
    ///
    /// # Errors
    /// As for [`Gpu::run`], and that of `go_on`: what was submitted by then still runs to its end, unseen.
    pub fn run_while(
        &self,
        go_on: &dyn Fn() -> Result<(), Error>,
        recording: &Recording,
        layout: &Layout,
        problem: &[u32],
        arena_words: u64,
        part: Part,
    ) -> Result<Vec<u32>, Error> {
        if recording.is_cut() {
            return Err(self.error("the plan takes more dispatches than a recording may have"));
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.fault.forgive();
        self.check_fault()?;
        let result =
            self.guarded(|| self.run_with(&mut cache, go_on, recording, layout, problem, arena_words, part));
        match &result {
            Ok(_) => {}
            // The device may still write to them.
            Err(Error::Cancelled) => cache.buffers = Buffers::default(),
            Err(_) => *cache = Cache::default(),
        }
        result
    }

    /// The result of `work`, where wgpu does not panic: it does when a driver reports in a wait that the device
    /// is lost.
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("wgpu panicked");
            self.open.fault.lose(one_line(text));
            self.check_fault().and(Err(self.error(text)))
        })
    }

    /// [`Gpu::run_while`] with what earlier calls made.
    #[allow(clippy::too_many_arguments)]
    fn run_with(
        &self,
        cache: &mut Cache,
        go_on: &dyn Fn() -> Result<(), Error>,
        recording: &Recording,
        layout: &Layout,
        problem: &[u32],
        arena_words: u64,
        part: Part,
    ) -> Result<Vec<u32>, Error> {
        let Cache { pipelines, buffers } = cache;
        let (device, queue) = (&self.open.device, &self.open.queue);
        let stride = self.params_stride();
        let mut params = vec![0u8; recording.dispatches.len() * stride];
        for (block, dispatch) in params.chunks_exact_mut(stride).zip(&recording.dispatches) {
            block[..size_of::<GpuParams>()].copy_from_slice(bytemuck::bytes_of(&dispatch.params));
        }
        self.fit(buffers, params.len() as u64 / 4, layout, arena_words, part.words());
        let (source, begin, words) = match part {
            Part::Results { begin, words } => (&buffers.results, begin, words),
            #[cfg(test)]
            Part::Groups { begin, words } => (&buffers.groups, begin, words),
            #[cfg(test)]
            Part::Arena { begin, words } => (&buffers.arena, begin, words),
        };
        let (Some(params_buffer), Some(problem_buffer), Some(source), Some(staging), Some(bind_group)) =
            (&buffers.params, &buffers.problem, source, &buffers.staging, &buffers.bind_group)
        else {
            return Err(self.error("buffers are missing"));
        };
        queue.write_buffer(params_buffer, 0, &params);
        queue.write_buffer(problem_buffer, 0, bytemuck::cast_slice(problem));
        let mut offset = 0;
        let mut submitted = Vec::new();
        let missing = self.missing(pipelines, recording);
        let submissions = self.submissions(&missing, recording);
        let mut timing = self.clock.as_ref().map(|clock| clock.start(device, submissions.len()));
        let missing = Pending::new(missing);
        let make = |variant: &Variant| self.pipeline(variant);
        let submit = || {
            for dispatches in submissions {
                go_on()?;
                for dispatch in dispatches {
                    let variant = self.variant(dispatch);
                    if let Entry::Vacant(place) = pipelines.entry(variant) {
                        let pipeline = missing.get(place.key(), make)?;
                        place.insert(pipeline);
                    }
                }
                let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                // One pass, or where stages are timed one for each run of dispatches of a stage.
                let together =
                    |a: &Dispatch, b: &Dispatch| timing.is_none() || a.kernel.stem == b.kernel.stem;
                let passes: Vec<&[Dispatch]> = dispatches.chunk_by(together).collect();
                for (index, dispatches) in (0..).zip(&passes) {
                    let timestamp_writes = timing.as_ref().map(|timing| timing.writes(index));
                    let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                    let mut pass = encoder.begin_compute_pass(&descriptor);
                    for dispatch in *dispatches {
                        let Some(pipeline) = pipelines.get(&self.variant(dispatch)) else { continue };
                        pass.set_pipeline(pipeline);
                        pass.set_bind_group(0, bind_group, &[offset]);
                        self.encode(&mut pass, dispatch.grid);
                        offset += stride as u32;
                    }
                }
                if let Some(timing) = &mut timing {
                    timing.resolve(&mut encoder, passes.iter().map(|pass| pass[0].kernel.stem).collect());
                }
                submitted.push(queue.submit([encoder.finish()]));
            }
            Ok::<(), Error>(())
        };
        missing.made_beside(make, submit)?;
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(source, begin * 4, staging, 0, words * 4);
        let stamps = timing.as_ref().map(|timing| timing.copy(device, &mut encoder));
        submitted.push(queue.submit([encoder.finish()]));
        let result = self.read(staging, words, &submitted, go_on)?;
        if let (Some(timing), Some((stamps, words))) = (timing, stamps) {
            timing.add(&self.read(&stamps, words, &submitted, go_on)?);
        }
        Ok(result)
    }

    /// What a recording needs of pipelines that are not there, in the order of their first use.
    fn missing(&self, pipelines: &Pipelines, recording: &Recording) -> Vec<Variant> {
        let mut met = HashSet::new();
        let variants = recording.dispatches.iter().map(|dispatch| self.variant(dispatch));
        variants.filter(|variant| !pipelines.contains_key(variant) && met.insert(*variant)).collect()
    }

    /// The dispatches of each submission. One ends too before a pipeline that is not there yet: while that is made, the
    /// device runs what comes before it, and some drivers go on compiling then.
    fn submissions<'a>(&self, missing: &[Variant], recording: &'a Recording) -> Vec<&'a [Dispatch]> {
        let mut missing = missing.iter().peekable();
        let mut submissions = Vec::new();
        let mut begin = 0;
        for (at, dispatch) in recording.dispatches.iter().enumerate() {
            let is_missing = missing.next_if_eq(&&self.variant(dispatch)).is_some();
            if at > begin && (is_missing || at - begin == DISPATCHES_PER_SUBMISSION) {
                submissions.push(&recording.dispatches[begin..at]);
                begin = at;
            }
        }
        submissions.extend(recording.dispatches.get(begin..).filter(|rest| !rest.is_empty()));
        submissions
    }

    /// Nanoseconds of each stage since the last call; empty where nothing is timed.
    pub fn take_times(&self) -> Vec<(&'static str, f64)> {
        self.clock.as_ref().map_or_else(Vec::new, Clock::take)
    }

    /// Bytes of all buffers that are held.
    pub fn bytes(&self) -> u64 {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffers { params, problem, groups, results, arena, queue, staging, bind_group: _ } =
            &cache.buffers;
        let held = [params, problem, groups, results, arena, queue, staging];
        held.into_iter().flatten().map(wgpu::Buffer::size).sum::<u64>() + self.grids.size()
    }

    /// Adds a dispatch of the pipeline and buffers that are set.
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, grid: Grid) {
        match grid {
            Grid::Lanes(lanes) => {
                // Only kernels that size grids see this group.
                pass.set_bind_group(1, &self.grids_group, &[]);
                let groups = lanes.div_ceil(LANES);
                let x = groups.min(MAX_GRID);
                pass.dispatch_workgroups(x, groups.div_ceil(x.max(1)), 1);
            }
            grid => {
                let at = GRIDS.iter().find(|(kind, _)| *kind == grid).map_or(0, |(_, at)| *at);
                pass.dispatch_workgroups_indirect(&self.grids, at);
            }
        }
    }

    /// Maps a buffer and copies its first words, once all that was submitted has ended.
    fn read(
        &self,
        staging: &wgpu::Buffer,
        words: u64,
        submitted: &[wgpu::SubmissionIndex],
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Vec<u32>, Error> {
        let slice = staging.slice(..words * 4);
        let (send, receive) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // The receiver is gone only where this call has failed already.
            let _ = send.send(result);
        });
        // One after the other: a device is hung where it does not get on, however long the whole takes.
        for submission in submitted {
            go_on()?;
            self.wait(submission)?;
        }
        let lost = |reason: String| {
            self.open.fault.lose(reason);
            self.check_fault()
        };
        match receive.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => lost(error.to_string())?,
            Err(_) => lost("the result was never mapped".into())?,
        }
        let view = slice.get_mapped_range().map_err(|e| self.error(&e.to_string()))?;
        let result = bytemuck::pod_collect_to_vec::<u8, u32>(&view);
        drop(view);
        staging.unmap();
        Ok(result)
    }

    /// Waits for a submission, as long as the device may take over one.
    fn wait(&self, submission: &wgpu::SubmissionIndex) -> Result<(), Error> {
        let OpenDevice { device, fault, patience, .. } = &self.open;
        let submission_index = Some(submission.clone());
        let waited = device.poll(wgpu::PollType::Wait { submission_index, timeout: Some(*patience) });
        // Drivers that do the work while it is submitted are never late.
        #[cfg(test)]
        let waited = if patience.is_zero() { Err(wgpu::PollError::Timeout) } else { waited };
        match waited {
            Ok(_) => {}
            Err(wgpu::PollError::Timeout) => {
                fault.lose(format!("it is hung: a submission did not end within {patience:?}"));
            }
            Err(error) => {
                // A lost device takes no submissions, so that one cannot be waited for. Its callback, which
                // knows the cause, comes with a look at it.
                let _ = device.poll(wgpu::PollType::Poll);
                self.check_fault()?;
                fault.lose(error.to_string());
            }
        }
        self.check_fault()
    }

    /// Which pipeline a dispatch wants: a kernel and the values of its constants.
    fn variant(&self, dispatch: &Dispatch) -> Variant {
        let overrides = self.modules.get(dispatch.kernel.stem).map_or(&[][..], |module| module.overrides);
        (dispatch.kernel, override_values(overrides, dispatch.kernel.entry, &dispatch.params))
    }

    /// Makes a pipeline.
    fn pipeline(&self, (kernel, values): &Variant) -> Result<wgpu::ComputePipeline, Error> {
        let module = self.modules.get(kernel.stem).filter(|module| module.entries.contains(&kernel.entry));
        let Some(Module { shader, layout, overrides, teams, .. }) = module else {
            return Err(self.error(&format!("kernel {kernel:?} is missing")));
        };
        let mut constants = constants(overrides, kernel.entry, values);
        constants.extend(self.tuning.constants().into_iter().filter(|_| *teams));
        Ok(self.open.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.entry),
            layout: Some(layout),
            module: shader,
            entry_point: Some(kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Shaders write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
            },
            // No `wgpu::PipelineCache`: to give it a file's bytes is `unsafe`, and of the drivers measured (lavapipe,
            // SwiftShader) neither leaves compiled code in it, 96 bytes in all; those of GPUs have caches of their own.
            cache: None,
        }))
    }

    /// Makes the buffers that are missing or too small, and the bind group anew if any was made.
    fn fit(&self, buffers: &mut Buffers, params: u64, layout: &Layout, arena: u64, result: u64) {
        use wgpu::BufferUsages as Usage;
        let device = &self.open.device;
        let mut changed = false;
        let mut fit = |buffer: &mut Option<wgpu::Buffer>, words: u64, usage: Usage| {
            // An empty buffer cannot be bound.
            let size = words.max(4) * 4;
            if buffer.as_ref().is_none_or(|b| b.size() < size) {
                let descriptor =
                    wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
                *buffer = Some(device.create_buffer(&descriptor));
                changed = true;
            }
        };
        fit(&mut buffers.params, params, Usage::UNIFORM | Usage::COPY_DST);
        fit(&mut buffers.problem, layout.problem_words, Usage::STORAGE | Usage::COPY_DST);
        fit(&mut buffers.groups, layout.groups_words, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut buffers.results, layout.results_words, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut buffers.arena, arena, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut buffers.queue, layout.queue_words(arena), Usage::STORAGE);
        fit(&mut buffers.staging, result, Usage::COPY_DST | Usage::MAP_READ);
        if !changed {
            return;
        }
        let (Some(params), Some(problem), Some(groups), Some(results), Some(arena), Some(queue)) = (
            &buffers.params,
            &buffers.problem,
            &buffers.groups,
            &buffers.results,
            &buffers.arena,
            &buffers.queue,
        ) else {
            return;
        };
        let block = wgpu::BufferBinding {
            buffer: params,
            offset: 0,
            size: NonZeroU64::new(size_of::<GpuParams>() as u64),
        };
        let resources = [
            wgpu::BindingResource::Buffer(block),
            problem.as_entire_binding(),
            groups.as_entire_binding(),
            results.as_entire_binding(),
            arena.as_entire_binding(),
            queue.as_entire_binding(),
        ];
        let entries: Vec<_> = (0..)
            .zip(resources)
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &self.bindings, entries: &entries };
        buffers.bind_group = Some(device.create_bind_group(&descriptor));
    }

    /// Bytes from one uniform block to the next.
    fn params_stride(&self) -> usize {
        let alignment = self.open.device.limits().min_uniform_buffer_offset_alignment as usize;
        size_of::<GpuParams>().next_multiple_of(alignment.max(1))
    }

    fn check_fault(&self) -> Result<(), Error> {
        self.open.fault.get().map_or(Ok(()), |reason| Err(self.error(&reason)))
    }

    /// An error of this device.
    pub fn error(&self, reason: &str) -> Error {
        Error::Device { device: self.open.info.label(), reason: reason.to_string() }
    }
}

/// A layout with these bindings, in order from 0.
fn layout_of(device: &wgpu::Device, kinds: &[BindingKind]) -> wgpu::BindGroupLayout {
    let storage = |read_only| wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Storage { read_only },
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    let binding_type = |kind| match kind {
        BindingKind::Uniform => wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: true,
            min_binding_size: NonZeroU64::new(size_of::<GpuParams>() as u64),
        },
        BindingKind::StorageRead => storage(true),
        BindingKind::StorageReadWrite => storage(false),
    };
    let entry = |(binding, &kind): (u32, &BindingKind)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: binding_type(kind),
        count: None,
    };
    let entries: Vec<_> = (0..).zip(kinds).map(entry).collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::{DeviceChoice, Opening};
    use crate::engine::recording::{Kernel, OverrideValues};

    /// The unit tests of `device` fail where no adapter is found.
    fn gpu() -> Option<Gpu> {
        let open = pollster::block_on(Opening::new(DeviceChoice::Gpu).open()).ok().flatten()?;
        Some(Gpu::new(open, &[]).unwrap())
    }

    #[test]
    fn a_panic_of_wgpu_is_a_lost_device() {
        let Some(gpu) = gpu() else { return };
        let result = gpu.guarded(|| -> Result<(), Error> { panic!("Error in Device::poll:\n  lost {}", 7) });
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with("failed: Error in Device::poll: lost 7"), "{error}");
        assert_eq!(gpu.lost().as_deref(), Some("Error in Device::poll: lost 7"));
    }

    #[test]
    fn a_kernel_that_is_not_there_is_an_error() {
        let Some(gpu) = gpu() else { return };
        assert!(
            gpu.pipeline(&(Kernel { stem: "s9_none", entry: "none" }, OverrideValues::default())).is_err()
        );
        assert_eq!(gpu.lost(), None);
    }
}
