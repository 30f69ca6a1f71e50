//! Runs recordings on a device: pipelines and buffers are made once and kept.

use std::collections::hash_map::Entry;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::buffers::{Buffers, Work};
use super::clock::Clock;
use super::device::{OpenDevice, one_line};
use super::pending::{Pending, Variant};
use super::recording::{Grid, KernelDispatch, LANES, Tuning};
use super::scopes::Scopes;
use super::shaders::{Pipelines, ShaderSource, Shaders};
use super::turns::Turns;
use super::wait::{self, Reply, Submission};
use crate::error::Error;
use crate::layout::GpuParams;

/// Workgroups in one dimension of a grid, WebGPU's default limit.
const MAX_GRID: u32 = 65_535;

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
    shaders: Arc<Shaders>,
    grids: wgpu::Buffer,
    grids_group: wgpu::BindGroup,
    /// Where the device was opened for timing.
    clock: Option<Clock>,
    /// One call at a time.
    cache: Turns<Cache>,
}

/// Objects that one call makes and the next one uses again. Where a call fails all of them are dropped, so that nothing half-made stays.
#[derive(Default)]
struct Cache {
    pipelines: Pipelines,
    buffers: Buffers,
}

impl Gpu {
    /// Prepares a device for the shaders.
    ///
    /// # Errors
    /// [`Error::Device`] where the driver refuses a shader.
    pub async fn new(open: OpenDevice, shaders: &[ShaderSource]) -> Result<Self, Error> {
        let device = &open.device;
        let scopes = Scopes::open(device);
        let vector = open.info.limits.iter().find(|(name, _)| *name == "subgroup_max_size");
        let of_device = || Tuning::of(open.says_software, vector.map_or(0, |(_, lanes)| *lanes));
        let tuning = open.tuning.unwrap_or_else(of_device);
        let shaders = Arc::new(Shaders::new(device, shaders, tuning));
        let grids = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("grids"),
            size: 12 * GRIDS.len() as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::INDIRECT,
            mapped_at_creation: false,
        });
        let grids_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("grids"),
            layout: &shaders.grid_bindings,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: grids.as_entire_binding() }],
        });
        let clock = Clock::new(device, &open.queue);
        scopes.close(&open.fault).await;
        let gpu = Self { open, shaders, clock, grids, grids_group, cache: Turns::default() };
        gpu.check_fault()?;
        Ok(gpu)
    }

    /// The largest storage buffer a shader may see, in words.
    pub fn max_buffer_words(&self) -> u64 {
        let limits = self.open.device.limits();
        // 128 MiB, WebGPU's default, is enough for any sensible batch.
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(128 << 20) / 4
    }

    /// The most words of candidates that run at once.
    pub fn arena_words(&self) -> u64 {
        self.shaders.tuning.arena_words.min(self.max_buffer_words())
    }

    /// Whether a driver runs the shaders on the processor.
    pub fn is_software(&self) -> bool {
        self.open.info.is_software
    }

    /// Why the device is lost, if it is: then every call fails. Other faults cost the call that meets them.
    pub fn lost(&self) -> Option<String> {
        self.open.fault.lost()
    }

    /// The device, to be ill-treated.
    #[cfg(test)]
    pub fn device(&self) -> &wgpu::Device {
        &self.open.device
    }

    /// The faults of the device, to be added to.
    #[cfg(test)]
    pub fn fault(&self) -> &super::device::Fault {
        &self.open.fault
    }

    /// Runs a recording and reads a part of a buffer.
    ///
    /// # Errors
    /// [`Error::Device`] where the device is lost, out of memory, or refuses the work.
    #[cfg_attr(not(any(test, feature = "suite", feature = "test-support")), allow(dead_code))]
    pub async fn run(&self, work: &Work<'_>) -> Result<Vec<u32>, Error> {
        self.run_while(&|| Ok(()), work).await
    }

    /// [`Gpu::run`] as long as `go_on` has no error. It is asked before each submission and after it.
    ///
    /// # Errors
    /// As for [`Gpu::run`], and that of `go_on`: what was submitted by then still runs to its end, unseen.
    pub async fn run_while(
        &self,
        go_on: &dyn Fn() -> Result<(), Error>,
        work: &Work<'_>,
    ) -> Result<Vec<u32>, Error> {
        if work.recording.is_cut() {
            return Err(self.error("the plan takes more dispatches than a recording may have"));
        }
        let mut turn = self.cache.turn().await;
        self.open.fault.forgive();
        self.check_fault()?;
        // A call that is dropped in the middle leaves nothing.
        let mut cache = std::mem::take(&mut *turn);
        let result = self.guarded(self.run_with(&mut cache, go_on, work)).await;
        match &result {
            Ok(_) => *turn = cache,
            // The device may still write to the buffers.
            Err(Error::Cancelled) => turn.pipelines = cache.pipelines,
            Err(_) => {}
        }
        result
    }

    /// The result of `work`, where wgpu does not panic: it does when a driver reports in a wait that the device
    /// is lost.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let mut work = pin!(work);
        let caught =
            poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
                Err(panic) => Poll::Ready(Err(panic)),
            });
        caught.await.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("wgpu panicked");
            self.open.fault.lose(one_line(text));
            self.check_fault().and(Err(self.error(text)))
        })
    }

    /// [`Gpu::run_while`] with what earlier calls made.
    async fn run_with(
        &self,
        cache: &mut Cache,
        go_on: &dyn Fn() -> Result<(), Error>,
        work: &Work<'_>,
    ) -> Result<Vec<u32>, Error> {
        let &Work { recording, problem, part, .. } = work;
        let Cache { pipelines, buffers } = cache;
        let (device, queue) = (&self.open.device, &self.open.queue);
        let stride = self.params_stride();
        let mut params = vec![0u8; recording.dispatches.len() * stride];
        for (block, dispatch) in params.chunks_exact_mut(stride).zip(&recording.dispatches) {
            block[..size_of::<GpuParams>()].copy_from_slice(bytemuck::bytes_of(&dispatch.params));
        }
        let scopes = Scopes::open(device);
        buffers.fit(device, &self.shaders.bindings, params.len() as u64 / 4, work);
        let (source, begin, words) = buffers.source(part);
        let (Some(params_buffer), Some(problem_buffer), Some(source), Some(staging), Some(bind_group)) =
            (&buffers.params, &buffers.problem, source, &buffers.staging, &buffers.bind_group)
        else {
            return Err(self.error("buffers are missing"));
        };
        queue.write_buffer(params_buffer, 0, &params);
        queue.write_buffer(problem_buffer, 0, bytemuck::cast_slice(problem));
        let mut offset = 0;
        let mut submitted = Vec::new();
        let missing = self.shaders.missing(pipelines, recording);
        let submissions = self.shaders.submissions(&missing, recording);
        let mut timing = self.clock.as_ref().map(|clock| clock.start(device, submissions.len()));
        let missing = Pending::new(missing);
        let make = {
            let (shaders, device, info) = (self.shaders.clone(), device.clone(), self.open.info.clone());
            move |variant: &Variant| shaders.pipeline(&device, variant).map_err(|reason| info.failed(&reason))
        };
        let beside = missing.make_beside(make.clone());
        for dispatches in submissions {
            go_on()?;
            for dispatch in dispatches {
                let variant = self.shaders.variant(dispatch);
                if let Entry::Vacant(place) = pipelines.entry(variant) {
                    let pipeline = missing.get(place.key(), &make)?;
                    place.insert(pipeline);
                }
            }
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            // One pass, or where stages are timed one for each run of dispatches of a stage.
            let together =
                |a: &KernelDispatch, b: &KernelDispatch| timing.is_none() || a.kernel.stem == b.kernel.stem;
            let passes: Vec<&[KernelDispatch]> = dispatches.chunk_by(together).collect();
            for (index, dispatches) in (0..).zip(&passes) {
                let timestamp_writes = timing.as_ref().map(|timing| timing.writes(index));
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                let mut pass = encoder.begin_compute_pass(&descriptor);
                for dispatch in *dispatches {
                    let Some(pipeline) = pipelines.get(&self.shaders.variant(dispatch)) else { continue };
                    pass.set_pipeline(pipeline);
                    pass.set_bind_group(0, bind_group, &[offset]);
                    self.encode(&mut pass, dispatch.grid);
                    offset += stride as u32;
                }
            }
            if let Some(timing) = &mut timing {
                timing.resolve(&mut encoder, passes.iter().map(|pass| pass[0].kernel.stem).collect());
            }
            submitted.push(wait::submit(queue, encoder.finish()));
            wait::keep_up(&submitted).await;
        }
        drop(beside);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(source, begin * 4, staging, 0, words * 4);
        let stamps = timing.as_ref().map(|timing| timing.copy(device, &mut encoder));
        submitted.push(wait::submit(queue, encoder.finish()));
        scopes.close(&self.open.fault).await;
        wait::look(&self.open);
        self.check_fault()?;
        let result = self.read(staging, words, &submitted, go_on).await?;
        if let (Some(timing), Some((stamps, words))) = (timing, stamps) {
            timing.add(&self.read(&stamps, words, &submitted, go_on).await?);
        }
        Ok(result)
    }

    /// Nanoseconds of each stage since the last call; empty where nothing is timed.
    pub fn take_times(&self) -> Vec<(&'static str, f64)> {
        self.clock.as_ref().map_or_else(Vec::new, Clock::take)
    }

    /// Bytes of all buffers that are held.
    pub async fn bytes(&self) -> u64 {
        self.cache.turn().await.buffers.bytes() + self.grids.size()
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
    async fn read(
        &self,
        staging: &wgpu::Buffer,
        words: u64,
        submitted: &[Submission],
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Vec<u32>, Error> {
        let slice = staging.slice(..words * 4);
        let reply = Reply::new();
        let told = reply.clone();
        slice.map_async(wgpu::MapMode::Read, move |result| told.bring(result.map_err(|e| e.to_string())));
        // One after the other: a device is hung where it does not get on, however long the whole takes.
        for submission in submitted {
            go_on()?;
            wait::ended(&self.open, submission).await;
            self.check_fault()?;
        }
        let mapped = wait::mapped(&self.open, &reply).await;
        if let Err(reason) = mapped.unwrap_or_else(|| Err("the result was never mapped".into())) {
            self.open.fault.lose(reason);
            self.check_fault()?;
        }
        let view = slice.get_mapped_range().map_err(|e| self.error(&e.to_string()))?;
        let result = bytemuck::pod_collect_to_vec::<u8, u32>(&view);
        drop(view);
        staging.unmap();
        Ok(result)
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
        self.open.info.failed(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::device::{DeviceChoice, Opening};
    use crate::engine::recording::{Kernel, OverrideValues};

    /// The unit tests of `device` fail where no adapter is found.
    fn gpu() -> Option<Gpu> {
        let open = pollster::block_on(Opening::new(DeviceChoice::Gpu).open()).ok().flatten()?;
        Some(pollster::block_on(Gpu::new(open, &[])).unwrap())
    }

    #[test]
    fn a_panic_of_wgpu_is_a_lost_device() {
        let Some(gpu) = gpu() else { return };
        let work = async { if true { panic!("Error in Device::poll:\n  lost {}", 7) } else { Ok(()) } };
        let result = pollster::block_on(gpu.guarded(work));
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with("failed: Error in Device::poll: lost 7"), "{error}");
        assert_eq!(gpu.lost().as_deref(), Some("Error in Device::poll: lost 7"));
    }

    #[test]
    fn a_kernel_that_is_not_there_is_an_error() {
        let Some(gpu) = gpu() else { return };
        assert!(
            gpu.shaders
                .pipeline(
                    gpu.device(),
                    &(Kernel { stem: "s9_none", entry: "none" }, OverrideValues::default())
                )
                .is_err()
        );
        assert_eq!(gpu.lost(), None);
    }
}
