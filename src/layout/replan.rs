//! Where the trajectories of plans over time lie in the device's buffers: tasks in `problem`, one candidate a task in the
//! arena, trails in `results`.

use super::words::{self, CONTROL_WORDS};
use super::{GpuParams, Layout, Parts, sizes_and_rules};
use crate::moves;
use crate::params::{FREE, Params};
use crate::replan::search::{ABREAST, State, Trail, TrailTask, exchange};
use crate::rows;

impl Layout {
    /// The layout of this many trajectories of at most `extent` iterations.
    pub fn of_trajectories(params: &Params, tasks: u32, extent: u32) -> Self {
        let wide = |n: u32| u64::from(n);
        let mut base = sizes_and_rules(params, 0, 0);
        let gpus = params.node_gpus * params.nodes;
        base.gpus = gpus;
        base.node_lanes = params.node_gpus.next_multiple_of(ABREAST as u32);
        base.extent = extent;
        base.max_count = params.most_count;
        base.foreign = u32::from(params.most_foreign > 0);
        base.spread_gpus = if params.spread_nodes > 1 { gpus / params.spread_nodes } else { 0 };
        base.exchange_slots = offered(&base);
        // A candidate is a whole layer.
        (base.nodes, base.start_count, base.candidates) = (1, 1, tasks);
        let (gpus, experts) = (wide(gpus), wide(params.experts));
        let (slots, quads) = (gpus * wide(params.slots_per_gpu), 4 * wide(params.quads()));

        let mut task = Parts(wide(words::task::WORDS));
        base.at_squares_of = task.take(4 * quads);
        base.at_weights = task.take(experts * quads);
        base.at_task_counts = task.take(experts);
        base.at_task_homes = task.take(if params.most_foreign > 0 { experts } else { 0 });
        base.at_task_received = task.take(gpus);
        base.at_previous = task.take(slots);
        base.at_begin = task.take(slots);
        base.task_words = task.take(0);

        let mut trail = Parts(wide(words::trail::WORDS));
        base.at_states = trail.take((wide(extent) + 1) * wide(words::state::WORDS));
        base.at_changes = trail.take(wide(extent) * 4);
        base.trail_words = trail.take(0);

        let words = candidate(&mut base, wide(params.node_gpus), (slots, experts, quads));
        let tasks = wide(tasks);
        Self {
            base,
            problem_words: tasks * task.0,
            groups_words: 0,
            results_words: tasks * trail.0,
            candidate_words: words,
            result_begin: 0,
        }
    }

    /// The words of a task in the problem buffer.
    pub fn task(&self, task: &TrailTask<'_>, words: &mut Vec<u32>) {
        let TrailTask { params, objective, previous, start, patience, most_foreign } = *task;
        let base = &self.base;
        let (windows, slots) = (objective.windows, base.slots_per_gpu as usize);
        let mut block = vec![0; base.task_words as usize];
        let can_move = params.node_gpus > 1 && objective.mean > 0;
        block[words::task::PRICE] = objective.price as u32;
        block[words::task::GAP] = objective.gap as u32;
        block[words::task::PATIENCE] = if can_move { patience } else { 0 };
        block[words::task::MOST_FOREIGN] = most_foreign;
        let part = |at: u32, words: usize| at as usize..at as usize + words;
        let counts = &mut block[part(base.at_task_counts, params.experts as usize)];
        start.iter().filter(|&&expert| expert != FREE).for_each(|&expert| counts[expert as usize] += 1);
        let floors = floors(task, counts);
        let quads = 4 * params.quads() as usize;
        let squares = &mut block[part(base.at_squares_of, 4 * quads)];
        for (window, (square, floor)) in objective.squares.iter().zip(floors).enumerate() {
            for (row, word) in square.words().into_iter().chain([floor]).enumerate() {
                squares[row * quads + window] = word;
            }
        }
        let weights = &mut block[part(base.at_weights, params.experts as usize * quads)];
        for (out, loads) in weights.chunks_exact_mut(quads).zip(objective.weight.chunks_exact(windows)) {
            for (out, &load) in out.iter_mut().zip(loads) {
                *out = load as u32;
            }
        }
        if params.most_foreign > 0 {
            let homes = rows::homes(params, start);
            block[part(base.at_task_homes, homes.len())].copy_from_slice(&homes);
        }
        let gpus = previous.chunks_exact(slots).zip(start.chunks_exact(slots));
        let received = block[part(base.at_task_received, base.gpus as usize)].iter_mut();
        received.zip(gpus).for_each(|(out, (old, new))| *out = moves::received(slots, old, new) as u32);
        block[part(base.at_previous, previous.len())].copy_from_slice(previous);
        block[part(base.at_begin, start.len())].copy_from_slice(start);
        words.extend(block);
    }

    /// The trail of a task in what is read back, `None` where the search did not come to its end.
    pub fn trail(&self, task: &TrailTask<'_>, words: &[u32]) -> Option<Trail> {
        if words[words::trail::DONE] == 0 {
            return None;
        }
        let states = &words[self.base.at_states as usize..self.base.at_changes as usize];
        let changes = &words[self.base.at_changes as usize..];
        let state = |words: &[u32]| {
            let (moved, value) = (words[words::state::MOVED], words[words::state::VALUE] as i32);
            let priced = value.saturating_add(task.objective.price.saturating_mul(moved as i32));
            let (peaks, changes) = (words[words::state::PEAKS] as i32, words[words::state::CHANGES] as usize);
            State { moved: moved as usize, peaks, value, priced, changes }
        };
        let states = states.chunks_exact(words::state::WORDS as usize);
        let states: Vec<State> = states.take(words[words::trail::STATES] as usize).map(state).collect();
        let changes = changes.chunks_exact(2).map(|change| (change[0] as usize, change[1]));
        let changes = changes.take(states.last().map_or(0, |last| last.changes)).collect();
        Some(Trail { states, changes })
    }
}

/// Slots of a GPU that an iteration offers.
fn offered(base: &GpuParams) -> u32 {
    exchange::offered(base.slots_per_gpu as usize, base.node_lanes as usize, base.windows as usize) as u32
}

/// The floor of each window's heaviest GPU: the mean GPU of the busiest node, or of all where load may leave them.
fn floors(task: &TrailTask<'_>, counts: &[u32]) -> Vec<u32> {
    let TrailTask { params, objective, start, .. } = *task;
    let windows = objective.windows;
    let mut floors = vec![0; windows];
    let mut sums = vec![0u32; windows];
    for node in start.chunks_exact(params.node_slots as usize) {
        sums.fill(0);
        for &expert in node.iter().filter(|&&expert| expert != FREE) {
            let loads = &objective.weight[expert as usize * windows..][..windows];
            let count = counts[expert as usize] as i32;
            sums.iter_mut().zip(loads).for_each(|(sum, load)| *sum += (load / count) as u32);
        }
        for (floor, sum) in floors.iter_mut().zip(&sums) {
            let mean = sum / params.node_gpus;
            *floor = if params.most_foreign > 0 { *floor + mean } else { (*floor).max(mean) };
        }
    }
    if params.most_foreign > 0 {
        floors.iter_mut().for_each(|floor| *floor /= params.nodes);
    }
    floors
}

/// Lays out a candidate in the arena, with whole quads of windows; returns its words.
fn candidate(base: &mut GpuParams, node_gpus: u64, (slots, experts, windows): (u64, u64, u64)) -> u64 {
    let gpus = u64::from(base.gpus);
    let set = gpus.div_ceil(32);
    let mut arena = Parts(0);
    base.at_control = arena.take(u64::from(CONTROL_WORDS));
    base.at_expert = arena.take(slots);
    base.at_load = arena.take(slots * windows);
    base.at_gpu_load = arena.take(gpus * windows);
    base.at_after = arena.take(gpus * windows);
    base.at_squares = arena.take(gpus);
    base.at_received = arena.take(gpus);
    base.at_tabu = arena.take(slots);
    base.at_counts = arena.take(experts);
    base.at_no_gain = arena.take(experts);
    base.at_no_loss = arena.take(experts);
    base.at_held = arena.take(experts * set);
    base.at_home = arena.take(experts * set);
    base.at_marks = arena.take(2 * node_gpus);
    // Candidates begin at lines of the cache.
    let words = arena.0.next_multiple_of(16);
    base.candidate_words = u32::try_from(words).unwrap_or(u32::MAX);
    words
}
