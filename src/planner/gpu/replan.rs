//! The trajectories of plans over time on a device.

use crate::engine::buffers::{Part, Work};
use crate::engine::gpu::Gpu;
use crate::engine::recording::Recording;
use crate::error::Error;
use crate::layout::Layout;
use crate::params::Params;
use crate::replan::search::{MOST_ITERATIONS, Trail, TrailTask};
use crate::stages::replan;
use crate::watch::Attempt;

/// The iterations that are recorded, one after the other: a dispatch without work still takes a driver some time, and most
/// trajectories are short.
const EXTENTS: [u32; 3] = [MOST_ITERATIONS / 16, MOST_ITERATIONS / 4, MOST_ITERATIONS];

/// Whether a device follows trajectories of a call: not those that connect GPUs, which look at all GPUs for each move,
/// nor on a software driver those of layers too large for its loops.
pub fn follows(gpu: &Gpu, params: &Params) -> bool {
    let one = Layout::of_trajectories(params, 1, MOST_ITERATIONS);
    let words = one.problem_words.max(one.results_words).max(one.candidate_words);
    let fits = !gpu.is_software() || replan::fits(&one.base);
    !params.connected() && fits && words <= gpu.max_buffer_words()
}

/// Follows the trajectories of tasks of a call, all at once or as many as the device's memory allows.
///
/// # Errors
/// [`Error::Device`] where the device fails, [`Error::Cancelled`] where the call was stopped.
pub async fn follow(
    gpu: &Gpu,
    params: &Params,
    tasks: &[TrailTask<'_>],
    attempt: &Attempt<'_>,
) -> Result<Vec<Trail>, Error> {
    let mut trails = Vec::with_capacity(tasks.len());
    let mut left = tasks;
    let mut extents = EXTENTS.into_iter().peekable();
    while let (false, Some(&extent)) = (left.is_empty(), extents.peek()) {
        let one = Layout::of_trajectories(params, 1, extent);
        let most = gpu.max_buffer_words() / one.problem_words.max(one.results_words).max(1);
        let most = most.min(gpu.arena_words() / one.candidate_words).clamp(1, u64::from(u32::MAX));
        let (now, later) = left.split_at(left.len().min(most as usize));
        let layout = Layout::of_trajectories(params, now.len() as u32, extent);
        let mut recording = Recording::default();
        replan::record(&mut recording, &layout.base);
        match run(gpu, &recording, &layout, now, attempt).await? {
            Some(found) => {
                trails.extend(found);
                left = later;
            }
            // One of the trajectories was cut off.
            None => drop(extents.next()),
        }
    }
    if left.is_empty() { Ok(trails) } else { Err(gpu.error("a search did not come to its end")) }
}

/// The trails of tasks by a recording, `None` where one of them did not come to its end.
pub async fn run(
    gpu: &Gpu,
    recording: &Recording,
    layout: &Layout,
    tasks: &[TrailTask<'_>],
    attempt: &Attempt<'_>,
) -> Result<Option<Vec<Trail>>, Error> {
    let mut problem = Vec::with_capacity(layout.problem_words as usize);
    tasks.iter().for_each(|task| layout.task(task, &mut problem));
    let part = Part::Results { begin: 0, words: layout.results_words };
    let arena_words = layout.arena_words(tasks.len() as u32);
    let work = Work { recording, layout, problem: &problem, arena_words, part };
    let found = gpu.run_while(&|| attempt.go_on(), &work).await?;
    let trails = found.chunks_exact(layout.base.trail_words as usize);
    Ok(tasks.iter().zip(trails).map(|(task, words)| layout.trail(task, words)).collect())
}
