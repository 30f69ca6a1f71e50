//! Times stages on a device by timestamp queries. Only a device opened for it has a clock; without one nothing
//! here runs, and a recording is the same.

use std::sync::{Mutex, PoisonError};

/// Passes that one submission may time.
pub const PASSES: usize = super::shaders::DISPATCHES_PER_SUBMISSION;

/// Bytes of the timestamps of one submission: two a pass.
const BYTES: u64 = 16 * PASSES as u64;

/// A device's clock, and what stages have taken by it so far.
pub struct Clock {
    queries: wgpu::QuerySet,
    /// Nanoseconds of a tick.
    period: f64,
    /// Stems in the order they were first met, with their ticks.
    spent: Mutex<Vec<(&'static str, u64)>>,
}

/// One recording, timed.
pub struct Timing<'a> {
    clock: &'a Clock,
    stamps: wgpu::Buffer,
    /// The stem of each pass, submission by submission.
    stems: Vec<Vec<&'static str>>,
}

impl Clock {
    /// The clock of a device that has timestamp queries, else none.
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Option<Self> {
        if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return None;
        }
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("clock"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * PASSES as u32,
        });
        let period = f64::from(queue.get_timestamp_period());
        Some(Self { queries, period, spent: Mutex::default() })
    }

    /// Starts to time a recording of this many submissions.
    pub fn start(&self, device: &wgpu::Device, submissions: usize) -> Timing<'_> {
        let stamps = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("stamps"),
            size: BYTES * submissions.max(1) as u64,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        Timing { clock: self, stamps, stems: Vec::new() }
    }

    /// Nanoseconds of each stem since the last call, in the order they first ran.
    pub fn take(&self) -> Vec<(&'static str, f64)> {
        let spent = std::mem::take(&mut *self.spent.lock().unwrap_or_else(PoisonError::into_inner));
        spent.into_iter().map(|(stem, ticks)| (stem, ticks as f64 * self.period)).collect()
    }
}

impl Timing<'_> {
    /// Where pass `index` of a submission writes its begin and its end.
    pub fn writes(&self, index: u32) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.clock.queries,
            beginning_of_pass_write_index: Some(2 * index),
            end_of_pass_write_index: Some(2 * index + 1),
        }
    }

    /// Ends a submission, whose passes were of these stems.
    pub fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder, stems: Vec<&'static str>) {
        let at = BYTES * self.stems.len() as u64;
        encoder.resolve_query_set(&self.clock.queries, 0..2 * stems.len() as u32, &self.stamps, at);
        self.stems.push(stems);
    }

    /// Ends the recording: a copy of all stamps, to be mapped, and its words.
    pub fn copy(&self, device: &wgpu::Device, encoder: &mut wgpu::CommandEncoder) -> (wgpu::Buffer, u64) {
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("stamps read"),
            size: self.stamps.size(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(&self.stamps, 0, &staging, 0, self.stamps.size());
        (staging, self.stamps.size() / 4)
    }

    /// Adds up the stamps as [`Timing::copy`] gave them.
    pub fn add(self, words: &[u32]) {
        let mut spent = self.clock.spent.lock().unwrap_or_else(PoisonError::into_inner);
        for (stems, words) in self.stems.iter().zip(words.chunks_exact(BYTES as usize / 4)) {
            for (&stem, pass) in stems.iter().zip(words.chunks_exact(4)) {
                let stamp = |at: usize| u64::from(pass[at]) | u64::from(pass[at + 1]) << 32;
                // A clock that was reset between the two tells nothing.
                let ticks = stamp(2).saturating_sub(stamp(0));
                match spent.iter_mut().find(|(known, _)| *known == stem) {
                    Some((_, sum)) => *sum += ticks,
                    None => spent.push((stem, ticks)),
                }
            }
        }
    }
}
