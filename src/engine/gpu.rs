//! Runs recordings on a device: pipelines and buffers are made once and kept.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::clock::Clock;
use super::device::OpenDevice;
use super::recording::{BINDINGS, BindingKind, Dispatch, GRID_BINDINGS, Grid, Kernel, LANES, Recording};
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
    Kept {
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
            Part::Kept { words, .. } => words,
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
}

/// Words of the grids a device sizes by itself: (x, y, z) for [`Grid::Queued`], then [`Grid::QueuedExperts`].
const GRIDS: [(Grid, u64); 2] = [(Grid::Queued, 0), (Grid::QueuedExperts, 12)];

/// A device with its pipelines, and the buffers of the last call.
pub struct Gpu {
    open: OpenDevice,
    bindings: wgpu::BindGroupLayout,
    pipelines: HashMap<Kernel, OnceLock<wgpu::ComputePipeline>>,
    modules: HashMap<&'static str, (wgpu::ShaderModule, wgpu::PipelineLayout)>,
    grids: wgpu::Buffer,
    grids_group: wgpu::BindGroup,
    /// Where the device was opened for timing.
    clock: Option<Clock>,
    /// One call at a time uses the buffers.
    buffers: Mutex<Buffers>,
}

/// Buffers grow to the largest call so far.
#[derive(Default)]
struct Buffers {
    params: Option<wgpu::Buffer>,
    problem: Option<wgpu::Buffer>,
    groups: Option<wgpu::Buffer>,
    kept: Option<wgpu::Buffer>,
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
        let mut pipelines = HashMap::new();
        for shader in shaders {
            let source = wgpu::ShaderSource::Wgsl(shader.wgsl.as_str().into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(shader.stem), source };
            let layout = if shader.sizes_grids { &with_grids } else { &plain };
            modules.insert(shader.stem, (device.create_shader_module(descriptor), layout.clone()));
            for entry in shader.entries {
                pipelines.insert(Kernel { stem: shader.stem, entry }, OnceLock::new());
            }
        }
        let clock = Clock::new(device, &open.queue);
        let gpu = Self {
            open,
            clock,
            bindings,
            pipelines,
            modules,
            grids,
            grids_group,
            buffers: Mutex::new(Buffers::default()),
        };
        gpu.check_fault()?;
        Ok(gpu)
    }

    /// The largest storage buffer a shader may see, in words.
    pub fn max_buffer_words(&self) -> u64 {
        let limits = self.open.device.limits();
        // 128 MiB, WebGPU's default, is enough for any sensible batch.
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(128 << 20) / 4
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
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let (device, queue) = (&self.open.device, &self.open.queue);
        let stride = self.params_stride();
        let mut params = vec![0u8; recording.dispatches.len() * stride];
        for (block, dispatch) in params.chunks_exact_mut(stride).zip(&recording.dispatches) {
            block[..size_of::<GpuParams>()].copy_from_slice(bytemuck::bytes_of(&dispatch.params));
        }
        self.fit(&mut buffers, params.len() as u64 / 4, layout, arena_words, part.words());
        let (source, begin, words) = match part {
            Part::Kept { begin, words } => (&buffers.kept, begin, words),
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
        let submissions = recording.dispatches.chunks(DISPATCHES_PER_SUBMISSION);
        let mut timing = self.clock.as_ref().map(|clock| clock.start(device, submissions.len()));
        for dispatches in submissions {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            // One pass, or where stages are timed one for each run of dispatches of a stage.
            let together = |a: &Dispatch, b: &Dispatch| timing.is_none() || a.kernel.stem == b.kernel.stem;
            let passes: Vec<&[Dispatch]> = dispatches.chunk_by(together).collect();
            for (index, dispatches) in (0..).zip(&passes) {
                let timestamp_writes = timing.as_ref().map(|timing| timing.writes(index));
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                let mut pass = encoder.begin_compute_pass(&descriptor);
                for dispatch in *dispatches {
                    self.encode(&mut pass, dispatch, bind_group, offset)?;
                    offset += stride as u32;
                }
            }
            if let Some(timing) = &mut timing {
                timing.resolve(&mut encoder, passes.iter().map(|pass| pass[0].kernel.stem).collect());
            }
            queue.submit([encoder.finish()]);
        }
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(source, begin * 4, staging, 0, words * 4);
        let stamps = timing.as_ref().map(|timing| timing.copy(device, &mut encoder));
        queue.submit([encoder.finish()]);
        let result = self.read(staging, words)?;
        if let (Some(timing), Some((stamps, words))) = (timing, stamps) {
            timing.add(&self.read(&stamps, words)?);
        }
        Ok(result)
    }

    /// Nanoseconds of each stage since the last call; empty where nothing is timed.
    pub fn take_times(&self) -> Vec<(&'static str, f64)> {
        self.clock.as_ref().map_or_else(Vec::new, Clock::take)
    }

    /// Bytes of all buffers that are held.
    pub fn bytes(&self) -> u64 {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffers { params, problem, groups, kept, arena, queue, staging, bind_group: _ } = &*buffers;
        let held = [params, problem, groups, kept, arena, queue, staging];
        held.into_iter().flatten().map(wgpu::Buffer::size).sum::<u64>() + self.grids.size()
    }

    /// Adds a dispatch to a pass.
    fn encode(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        dispatch: &Dispatch,
        bind_group: &wgpu::BindGroup,
        offset: u32,
    ) -> Result<(), Error> {
        pass.set_pipeline(self.pipeline(dispatch.kernel)?);
        pass.set_bind_group(0, bind_group, &[offset]);
        match dispatch.grid {
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
        Ok(())
    }

    /// Maps a buffer and copies its first words.
    fn read(&self, staging: &wgpu::Buffer, words: u64) -> Result<Vec<u32>, Error> {
        let slice = staging.slice(..words * 4);
        let (send, receive) = std::sync::mpsc::channel();
        slice.map_async(wgpu::MapMode::Read, move |result| {
            // The receiver is gone only where this call has failed already.
            let _ = send.send(result);
        });
        self.open.device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| self.error(&e.to_string()))?;
        self.check_fault()?;
        match receive.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.error(&error.to_string())),
            Err(_) => return Err(self.error("the result was never mapped")),
        }
        let view = slice.get_mapped_range().map_err(|e| self.error(&e.to_string()))?;
        let result = bytemuck::pod_collect_to_vec::<u8, u32>(&view);
        drop(view);
        staging.unmap();
        Ok(result)
    }

    /// The pipeline of a kernel, made on first use.
    fn pipeline(&self, kernel: Kernel) -> Result<&wgpu::ComputePipeline, Error> {
        let (Some(cell), Some((module, layout))) =
            (self.pipelines.get(&kernel), self.modules.get(kernel.stem))
        else {
            return Err(self.error(&format!("kernel {kernel:?} is missing")));
        };
        Ok(cell.get_or_init(|| {
            self.open.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(kernel.entry),
                layout: Some(layout),
                module,
                entry_point: Some(kernel.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    // No shader uses workgroup memory.
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            })
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
        fit(&mut buffers.kept, layout.kept_words, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut buffers.arena, arena, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut buffers.queue, 2 + 2 * arena / layout.candidate_words, Usage::STORAGE);
        fit(&mut buffers.staging, result, Usage::COPY_DST | Usage::MAP_READ);
        if !changed {
            return;
        }
        let (Some(params), Some(problem), Some(groups), Some(kept), Some(arena), Some(queue)) = (
            &buffers.params,
            &buffers.problem,
            &buffers.groups,
            &buffers.kept,
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
            kept.as_entire_binding(),
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

    fn error(&self, reason: &str) -> Error {
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
