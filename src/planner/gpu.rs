//! The pipeline on a device: one recording, read back once.

use crate::engine::gpu::{Gpu, Part, ShaderSource};
use crate::engine::recording::Recording;
use crate::error::Error;
use crate::layout::{GpuParams, LAYER_CUT, LAYER_END, LAYER_WORDS, Layout, window_quads};
use crate::mirror::s5_refine::End;
use crate::params::{ARENA_TILE, Params, enumerate_assignments};
use crate::planner::cpu::Planned;
use crate::stages::s5_refine::Shape;
use crate::stages::{
    Batch, STAGES, queue, s1_group_loads, s2_groups_to_nodes, s3_replicate, s4_pack, s4_pack_windows,
    s5_refine, s5_refine_windows, s6_select,
};

/// The arena of a batch may take this many words (64 MiB) at most, if one restart of one layer fits.
pub const ARENA_WORDS: u64 = 16 << 20;

/// The shaders a device must have.
pub fn shaders() -> Vec<ShaderSource> {
    let shader = |stage: &crate::stages::Stage| ShaderSource {
        stem: stage.stem,
        wgsl: stage.wgsl(),
        entries: stage.entries,
        sizes_grids: stage.stem == queue::STAGE.stem,
        fixed: stage.fixed,
    };
    STAGES.iter().map(shader).collect()
}

/// Plans all layers, in as few calls of [`plan_layers`] as the device's largest buffer allows. `windows` is
/// `[windows][layers][experts]`, and `loads` its sum.
///
/// # Errors
/// [`Error::Device`] where the device fails.
pub fn plan(gpu: &Gpu, params: &Params, loads: &[u32], windows: &[u32]) -> Result<Planned, Error> {
    plan_as(gpu, params, loads, windows, None)
}

/// [`plan`] with a say in the shape of the search.
///
/// # Errors
/// As for [`plan`].
pub fn plan_as(
    gpu: &Gpu,
    params: &Params,
    loads: &[u32],
    windows: &[u32],
    shape: Option<Shape>,
) -> Result<Planned, Error> {
    let table = enumerate_assignments(params.groups, params.nodes);
    let most = gpu.max_buffer_words();
    let mut planned = Planned { slots: Vec::new(), ends: Vec::new() };
    let mut layers = params.layers;
    loop {
        let layout = Layout::new(&Params { layers, ..params.clone() }, table.len() as u32);
        let largest = layout.problem_words.max(layout.groups_words).max(layout.kept_words);
        if largest <= most || layers == 1 {
            break;
        }
        layers = layers.div_ceil(2);
    }
    let quads = window_quads(params, windows);
    let each = (layers * params.experts) as usize;
    let mut quads = quads.chunks((each * 4 * params.quads() as usize).max(1));
    for loads in loads.chunks(each) {
        let layers = loads.len() as u32 / params.experts;
        let quads = quads.next().unwrap_or_default();
        plan_layers(gpu, &Params { layers, ..params.clone() }, &table, (loads, quads), shape, &mut planned)?;
    }
    Ok(planned)
}

/// s1 to s6 for layers whose buffers fit.
fn plan_layers(
    gpu: &Gpu,
    params: &Params,
    table: &[Vec<u32>],
    (loads, quads): (&[u32], &[u32]),
    shape: Option<Shape>,
    planned: &mut Planned,
) -> Result<(), Error> {
    let layout = Layout::new(params, table.len() as u32);
    let arena = ARENA_WORDS.min(gpu.max_buffer_words());
    let problem = layout.problem(loads, quads, table);
    let part = Part::Kept { begin: layout.result_begin, words: layout.kept_words - layout.result_begin };
    for haste in HASTE {
        let shape = |batch: &Batch| shape_on(gpu, params, batch, shape);
        let (recording, arena_words) = record(params, &layout, arena, haste, &shape);
        let result = gpu.run(&recording, &layout, &problem, arena_words, part)?;
        let (states, plan) = result.split_at((params.layers * LAYER_WORDS) as usize);
        let states = states.chunks_exact(LAYER_WORDS as usize);
        if states.clone().any(|state| state[LAYER_CUT] != 0) {
            continue;
        }
        planned.slots.extend_from_slice(plan);
        planned.ends.extend(states.map(|state| match state[LAYER_END] {
            1 => End::Reached,
            2 => End::Stuck,
            _ => End::Spent,
        }));
        return Ok(());
    }
    Err(gpu.error("a search did not come to its end in the turns it could need"))
}

/// Few restarts come near the most work they may do, and a turn in which nothing is left to do takes a driver as long
/// as many a turn in which there is. So a plan is made in the turns of a sixteenth of that work, and again in all
/// of them where that cut a restart off.
const HASTE: [u32; 2] = [16, 1];

/// The whole plan as one recording, and the words of the arena it needs. A restart may take the turns of the most
/// work it could come to over `haste`.
pub fn record(
    params: &Params,
    layout: &Layout,
    most_arena: u64,
    haste: u32,
    shape: &dyn Fn(&Batch) -> Shape,
) -> (Recording, u64) {
    let base = &layout.base;
    let rounds = params.rounds();
    let mut recording = Recording::default();
    let mut arena = 0;
    s1_group_loads::record(&mut recording, base);
    s2_groups_to_nodes::record(&mut recording, base);
    let mut search = |recording: &mut Recording, assignment: u32, rounds: &[(u32, u32)]| {
        s2_groups_to_nodes::record_gather(recording, base, assignment);
        for batch in batches(params, layout, most_arena, assignment, rounds) {
            let batch = Batch { haste, ..batch };
            arena = arena.max(layout.arena_words(batch.params(base).candidates));
            record_batch(recording, base, &batch, shape(&batch));
        }
        s6_select::record_settle(recording, base, assignment);
    };
    for assignment in 0..params.assignments {
        search(&mut recording, assignment, &rounds);
    }
    if params.tries_greedy_assignment() {
        search(&mut recording, params.assignments, &rounds[..1]);
    }
    if params.repair {
        s2_groups_to_nodes::record_repair(&mut recording, base);
        search(&mut recording, params.assignments + 1, &rounds);
    }
    (recording, arena)
}

/// The shape of the search for a batch on a device, if none is `given`.
pub fn shape_on(gpu: &Gpu, params: &Params, batch: &Batch, given: Option<Shape>) -> Shape {
    given.unwrap_or_else(|| choose_shape(gpu.is_software(), params, batch))
}

/// Candidates of a batch up to which a GPU searches in the wide shape: with fewer than some ten thousand lanes it
/// is not full. Reasoned, not measured.
const WIDE_CANDIDATES: u32 = 1 << 14;

/// The shape of the search for a batch: the wide one, unless the candidates fill a GPU.
///
/// On llvmpipe a plan takes 0.05 to 1 of the narrow one's time with kicks, 0.3 to 1 with pair swaps and 0.7 to 1.1 with
/// swaps alone, on nodes of 2 to 144 GPUs.
fn choose_shape(is_software: bool, params: &Params, batch: &Batch) -> Shape {
    let candidates = batch.layers.1.saturating_mul(params.nodes).saturating_mul(batch.restarts.1);
    if !is_software && candidates > WIDE_CANDIDATES { Shape::Narrow } else { Shape::Wide }
}

/// s3 to s6 for a batch.
fn record_batch(recording: &mut Recording, base: &GpuParams, batch: &Batch, shape: Shape) {
    s3_replicate::record(recording, base, batch);
    if base.windows == 1 {
        s4_pack::record(recording, base, batch);
        s5_refine::record(recording, base, batch, shape);
    } else {
        s4_pack_windows::record(recording, base, batch);
        s5_refine_windows::record(recording, base, batch);
    }
    s6_select::record(recording, base, batch);
}

/// The rounds of an assignment, cut into batches whose candidates fit the arena: by layers, and where one
/// layer's restarts do not fit, by restarts, which are offered in order all the same.
fn batches(
    params: &Params,
    layout: &Layout,
    most_arena: u64,
    assignment: u32,
    rounds: &[(u32, u32)],
) -> Vec<Batch> {
    let tile = u64::from(ARENA_TILE);
    let candidates = (most_arena / (layout.candidate_words * tile) * tile).max(1);
    let mut batches = Vec::new();
    for &(begin, end) in rounds {
        let nodes = u64::from(params.nodes);
        let restarts = (candidates / nodes).clamp(1, u64::from(end - begin)) as u32;
        let layers = (candidates / (nodes * u64::from(restarts))).clamp(1, u64::from(params.layers)) as u32;
        for layer in (0..params.layers).step_by(layers as usize) {
            let layers = (layer, layers.min(params.layers - layer));
            for restart in (begin..end).step_by(restarts as usize) {
                let restarts = (restart, restarts.min(end - restart));
                batches.push(Batch { assignment, layers, restarts, haste: 1 });
            }
        }
    }
    batches
}
