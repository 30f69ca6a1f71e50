//! Runs recordings on a device: pipelines and buffers are made once and kept.

use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use super::buffers::{Buffers, Work};
use super::clock::Clock;
use super::device::{OpenDevice, one_line};
use super::pending::{Pending, Variant};
use super::recording::{Dispatch, Grid, LANES, Tuning};
use super::shaders::{Pipelines, ShaderSource, Shaders};
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
    shaders: Shaders,
    grids: wgpu::Buffer,
    grids_group: wgpu::BindGroup,
    /// Where the device was opened for timing.
    clock: Option<Clock>,
    /// One call at a time.
    cache: Mutex<Cache>,
}

/// What one call makes and the next one uses again. Where a call fails all of it is dropped, so that nothing half-made stays.
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
    pub fn new(open: OpenDevice, shaders: &[ShaderSource]) -> Result<Self, Error> {
        let device = &open.device;
        let vector = open.info.limits.iter().find(|(name, _)| *name == "subgroup_max_size");
        let tuning = Tuning::of(open.says_software, vector.map_or(0, |(_, lanes)| *lanes));
        let shaders = Shaders::new(device, shaders, tuning);
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
        let gpu = Self { open, shaders, clock, grids, grids_group, cache: Mutex::default() };
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
        Self { shaders: self.shaders.with_tuning(tuning), ..self }
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
    pub fn run(&self, work: &Work<'_>) -> Result<Vec<u32>, Error> {
        self.run_while(&|| Ok(()), work)
    }

    /// [`Gpu::run`] as long as `go_on` has no error. It is asked before each submission and after it.
    ///
    /// # Errors
    /// As for [`Gpu::run`], and that of `go_on`: what was submitted by then still runs to its end, unseen.
    pub fn run_while(
        &self,
        go_on: &dyn Fn() -> Result<(), Error>,
        work: &Work<'_>,
    ) -> Result<Vec<u32>, Error> {
        if work.recording.is_cut() {
            return Err(self.error("the plan takes more dispatches than a recording may have"));
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.fault.forgive();
        self.check_fault()?;
        let result = self.guarded(|| self.run_with(&mut cache, go_on, work));
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
    fn run_with(
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
        let make =
            |variant: &Variant| self.shaders.pipeline(device, variant).map_err(|reason| self.error(&reason));
        let submit = || {
            for dispatches in submissions {
                go_on()?;
                for dispatch in dispatches {
                    let variant = self.shaders.variant(dispatch);
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

    /// Nanoseconds of each stage since the last call; empty where nothing is timed.
    pub fn take_times(&self) -> Vec<(&'static str, f64)> {
        self.clock.as_ref().map_or_else(Vec::new, Clock::take)
    }

    /// Bytes of all buffers that are held.
    pub fn bytes(&self) -> u64 {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.buffers.bytes() + self.grids.size()
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
