//! The buffers of a device, which grow to the largest call so far, and what a call asks of them.

use std::num::NonZeroU64;

use super::recording::Recording;
use crate::layout::{GpuParams, Layout};

/// The work of a device in a call.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// The dispatches.
    pub recording: &'a Recording,
    /// Where everything lies in the buffers.
    pub layout: &'a Layout,
    /// The problem buffer at the start.
    pub problem: &'a [u32],
    /// Words of the arena.
    pub arena_words: u64,
    /// The result.
    pub part: Part,
}

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
    /// How many words.
    fn words(&self) -> u64 {
        match *self {
            Part::Results { words, .. } => words,
            #[cfg(test)]
            Part::Groups { words, .. } | Part::Arena { words, .. } => words,
        }
    }
}

/// Buffers grow to the largest call so far.
#[derive(Default)]
pub struct Buffers {
    pub params: Option<wgpu::Buffer>,
    pub problem: Option<wgpu::Buffer>,
    groups: Option<wgpu::Buffer>,
    results: Option<wgpu::Buffer>,
    arena: Option<wgpu::Buffer>,
    queue: Option<wgpu::Buffer>,
    pub staging: Option<wgpu::Buffer>,
    pub bind_group: Option<wgpu::BindGroup>,
}

impl Buffers {
    /// The buffer that a part lies in, where it begins, and its words.
    pub fn source(&self, part: Part) -> (&Option<wgpu::Buffer>, u64, u64) {
        match part {
            Part::Results { begin, words } => (&self.results, begin, words),
            #[cfg(test)]
            Part::Groups { begin, words } => (&self.groups, begin, words),
            #[cfg(test)]
            Part::Arena { begin, words } => (&self.arena, begin, words),
        }
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> u64 {
        let Self { params, problem, groups, results, arena, queue, staging, bind_group: _ } = self;
        let held = [params, problem, groups, results, arena, queue, staging];
        held.into_iter().flatten().map(wgpu::Buffer::size).sum()
    }

    /// Makes the buffers that are missing or too small, and the bind group anew if any was made.
    pub fn fit(
        &mut self,
        device: &wgpu::Device,
        bindings: &wgpu::BindGroupLayout,
        params: u64,
        work: &Work<'_>,
    ) {
        use wgpu::BufferUsages as Usage;
        let (layout, arena) = (work.layout, work.arena_words);
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
        fit(&mut self.params, params, Usage::UNIFORM | Usage::COPY_DST);
        fit(&mut self.problem, layout.problem_words, Usage::STORAGE | Usage::COPY_DST);
        fit(&mut self.groups, layout.groups_words, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut self.results, layout.results_words, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut self.arena, arena, Usage::STORAGE | Usage::COPY_SRC);
        fit(&mut self.queue, layout.queue_words(arena), Usage::STORAGE);
        fit(&mut self.staging, work.part.words(), Usage::COPY_DST | Usage::MAP_READ);
        if !changed {
            return;
        }
        let (Some(params), Some(problem), Some(groups), Some(results), Some(arena), Some(queue)) =
            (&self.params, &self.problem, &self.groups, &self.results, &self.arena, &self.queue)
        else {
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
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: bindings, entries: &entries };
        self.bind_group = Some(device.create_bind_group(&descriptor));
    }
}
