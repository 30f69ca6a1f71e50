//! Tables of shares on a device.

use crate::engine::buffers::{Part, Work};
use crate::engine::gpu::Gpu;
use crate::engine::recording::Recording;
use crate::error::Error;
use crate::layout::Layout;
use crate::shares::task::Task;
use crate::stages::shares;

/// Whether a device moves the shares of these tasks: not on a software driver those of layers too large for its loops.
pub fn levels(gpu: &Gpu, tasks: &[Task], is_batch: bool) -> bool {
    let each = tasks.iter().all(|task| {
        let layout = Layout::of_shares(std::slice::from_ref(task), is_batch);
        let words = layout.problem_words.max(layout.results_words).max(layout.candidate_words);
        let fits = !gpu.is_software() || shares::fits(&layout.base, task.pairs.len() as u64);
        fits && words <= gpu.max_buffer_words()
    });
    each && tasks.iter().any(|task| !task.pairs.is_empty())
}

/// Moves the shares of tasks, all at once or as many as the device's memory allows: for each task the shares of its replicas.
///
/// # Errors
/// [`Error::Device`] where the device fails, and those of `go_on`.
pub async fn level(
    gpu: &Gpu,
    tasks: &[Task],
    is_batch: bool,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<Vec<Vec<i32>>, Error> {
    let mut found = Vec::with_capacity(tasks.len());
    let all = Layout::of_shares(tasks, is_batch);
    let words = all.problem_words.max(all.results_words).max(all.arena_words(tasks.len() as u32));
    let at_once = tasks.len() as u64 * gpu.max_buffer_words().min(gpu.arena_words()) / words.max(1);
    for tasks in tasks.chunks(at_once.max(1) as usize) {
        let layout = Layout::of_shares(tasks, is_batch);
        let mut recording = Recording::default();
        shares::record(&mut recording, &layout.base, is_batch);
        let mut problem = Vec::with_capacity(layout.problem_words as usize);
        tasks.iter().for_each(|task| layout.shares_task(task, &mut problem));
        let work = Work {
            recording: &recording,
            layout: &layout,
            problem: &problem,
            arena_words: layout.arena_words(tasks.len() as u32),
            part: Part::Results { begin: 0, words: layout.results_words },
        };
        let words = gpu.run_while(go_on, &work).await?;
        let layers = words.chunks_exact(layout.base.replicas.max(1) as usize).zip(tasks);
        found.extend(layers.map(|(words, task)| {
            words.iter().take(task.have.len()).map(|&share| share as i32).collect::<Vec<_>>()
        }));
    }
    Ok(found)
}
