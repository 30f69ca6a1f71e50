//! The pipeline on a device: one recording, read back once.

pub mod foreign;
pub mod given;
pub mod replan;
pub mod shares;

use crate::engine::buffers::{Part, Work};
use crate::engine::gpu::Gpu;
use crate::engine::recording::Recording;
use crate::engine::shaders::ShaderSource;
use crate::error::Error;
use crate::layout::{CHOSEN, Layout, window_quads, words::layer};
use crate::params::{FULL_ASSIGNMENTS, Params, SearchKind, enumerate_assignments, to_map};
use crate::plan::Stop;
use crate::planner::planned::Planned;
use crate::stages::{
    self, Batch, STAGES, gather, queue, s1_group_loads, s2_groups_to_nodes, s5_search, s6_select,
};
use crate::watch::Attempt;

/// The shaders a device must have.
pub fn shaders() -> Vec<ShaderSource> {
    let shader = |stage: &crate::stages::Stage| ShaderSource {
        stem: stage.stem,
        wgsl: stage.wgsl(),
        entries: stage.entries,
        sizes_grids: stage.stem == queue::STAGE.stem,
        overrides: stage.overrides,
        teams: stage.teams,
    };
    STAGES.iter().map(shader).collect()
}

/// Plans all layers, in as few calls of [`plan_layers`] as the device's largest buffer allows. `windows` is
/// `[windows][layers][experts]`, and `loads` its sum.
///
/// # Errors
/// [`Error::Device`] where the device fails, [`Error::Cancelled`] where the call was stopped.
pub async fn plan(
    gpu: &Gpu,
    params: &Params,
    loads: &[u32],
    windows: &[u32],
    attempt: &Attempt<'_>,
) -> Result<Planned, Error> {
    let table = enumerate_assignments(params.groups, params.nodes);
    let most = gpu.max_buffer_words();
    let mut planned = Planned { slots: Vec::new(), ends: Vec::new() };
    let mut layers = params.layers;
    loop {
        let layout = Layout::new(&Params { layers, ..params.clone() }, table.len() as u32);
        if layout.largest_words() <= most || layers == 1 {
            break;
        }
        layers = layers.div_ceil(2);
    }
    let searches = params.search_kind() == SearchKind::Trajectory;
    if params.windows > 1 && searches && gpu.is_software() && !s5_search::fits(&Layout::new(params, 0).base) {
        let reason = "this many windows and slots a node are too much for one dispatch of a software driver";
        return Err(gpu.error(reason));
    }
    let quads = window_quads(params, windows);
    let each = (layers * params.experts) as usize;
    let mut quads = quads.chunks((each * 4 * params.quads() as usize).max(1));
    for loads in loads.chunks(each) {
        let layers = loads.len() as u32 / params.experts;
        let quads = quads.next().unwrap_or_default();
        let params = Params { layers, ..params.clone() };
        let layout = Layout::new(&params, table.len() as u32);
        let problem = layout.problem(loads, quads, &table);
        plan_layers(gpu, &params, (&layout, &problem), &mut planned, attempt).await?;
        let slots = (params.node_slots * params.nodes) as usize;
        let (done, made) = (planned.ends.len(), layers as usize);
        attempt.finish_as(done - made, to_map(&planned.slots[(done - made) * slots..]));
    }
    Ok(planned)
}

/// How much of the work that a call could come to is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Of the group assignments, the first ones.
    pub assignments: u32,
    /// Of the turns that a start could need, this part.
    pub work_divisor: u32,
}

/// s1 to s6 for layers whose buffers fit.
async fn plan_layers(
    gpu: &Gpu,
    params: &Params,
    (layout, problem): (&Layout, &[u32]),
    planned: &mut Planned,
    attempt: &Attempt<'_>,
) -> Result<(), Error> {
    let arena = gpu.arena_words();
    let part =
        Part::Results { begin: layout.result_begin, words: layout.results_words - layout.result_begin };
    // Most layers are done with the first assignment and few turns. A turn without work still takes a driver as long as some
    // with work. So a plan is first made with a part of the turns, and made again with more of them where those were too few.
    let mut share = Extent { assignments: params.assignments.min(1), work_divisor: WORK_DIVISORS[0] };
    loop {
        let (recording, arena_words) = record(params, layout, arena, share);
        let result = {
            let work = Work { recording: &recording, layout, problem, arena_words, part };
            gpu.run_while(&|| attempt.go_on(), &work).await?
        };
        let (states, plan) = result.split_at((params.layers * layer::WORDS) as usize);
        let states = states.chunks_exact(layer::WORDS as usize);
        let is_cut = states.clone().any(|state| state[layer::CUT] != 0);
        let is_open =
            share.assignments < params.assignments && states.clone().any(|state| state[layer::OPEN] != 0);
        match WORK_DIVISORS.into_iter().find(|&work_divisor| work_divisor < share.work_divisor) {
            Some(work_divisor) if is_cut => share.work_divisor = work_divisor,
            None if is_cut => {
                return Err(gpu.error("a search did not come to its end in the turns it could need"));
            }
            _ if is_open => share.assignments = params.assignments,
            _ => {
                planned.slots.extend_from_slice(plan);
                planned.ends.extend(states.map(|state| Stop::of_word(state[layer::END])));
                return Ok(());
            }
        }
    }
}

/// The parts of the turns of a start that are recorded, one after the other.
const WORK_DIVISORS: [u32; 3] = [16, 4, 1];

/// The whole plan as one recording, and the words of the arena it needs.
pub fn record(params: &Params, layout: &Layout, most_arena: u64, share: Extent) -> (Recording, u64) {
    let base = &layout.base;
    let first = [(0, 1)];
    let all: &[_] = if params.starts > 1 { &[(0, 1), (1, params.starts)] } else { &first };
    // Assignments after the first ones are compared by their first starts, and the nodes of the best get the others.
    let rounds =
        |assignment| if assignment < FULL_ASSIGNMENTS.min(params.assignments) { all } else { &first };
    let mut recording = Recording::default();
    let mut arena = 0;
    s1_group_loads::record(&mut recording, base);
    s2_groups_to_nodes::record(&mut recording, base);
    let mut search = |recording: &mut Recording, assignment: u32, rounds: &[(u32, u32)]| {
        gather::record(recording, base, assignment);
        for batch in batches(params, layout, most_arena, assignment, rounds) {
            let batch = Batch { work_divisor: share.work_divisor, ..batch };
            arena = arena.max(layout.arena_words(batch.params(base).candidates));
            stages::record_candidates(recording, params, base, &batch);
        }
        s6_select::record_settle(recording, base, assignment);
    };
    for assignment in 0..share.assignments {
        search(&mut recording, assignment, rounds(assignment));
    }
    if params.tries_greedy_assignment() {
        search(&mut recording, params.assignments, rounds(params.assignments));
    }
    if params.starts > 1 && (params.tries_greedy_assignment() || share.assignments > FULL_ASSIGNMENTS) {
        search(&mut recording, CHOSEN, all);
    }
    if params.repair {
        s2_groups_to_nodes::record_repair(&mut recording, base);
        search(&mut recording, params.assignments + 1, all);
    }
    (recording, arena)
}

/// The rounds of an assignment, cut into batches whose candidates fit the arena: by layers, and where one
/// layer's starts do not fit, by starts, which are offered in order all the same.
fn batches(
    params: &Params,
    layout: &Layout,
    most_arena: u64,
    assignment: u32,
    rounds: &[(u32, u32)],
) -> Vec<Batch> {
    let candidates = (most_arena / layout.candidate_words).max(1);
    let mut batches = Vec::new();
    for &(begin, end) in rounds {
        let nodes = u64::from(params.nodes);
        let starts = (candidates / nodes).clamp(1, u64::from(end - begin)) as u32;
        let layers = (candidates / (nodes * u64::from(starts))).clamp(1, u64::from(params.layers)) as u32;
        for layer in (0..params.layers).step_by(layers as usize) {
            let layers = (layer, layers.min(params.layers - layer));
            for start in (begin..end).step_by(starts as usize) {
                let starts = (start, starts.min(end - start));
                batches.push(Batch { assignment, layers, starts, work_divisor: 1 });
            }
        }
    }
    batches
}
