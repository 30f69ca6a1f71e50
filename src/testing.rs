//! The inside of the project, as far as its own tests need to see it. No part of the API: anything here may change.

use crate::engine::device::Opening;
use crate::engine::recording::{
    ARENA_WORDS, BINDINGS, GRID_BINDINGS, Kernel, LANES, OverrideValues, Tuning, constants, override_values,
};
use crate::layout::{GpuParams, Layout, window_quads, words::layer};
use crate::params::{Params, enumerate_assignments};
use crate::planner::planned::Planned;
use crate::planner::{gpu, host};
use crate::stages::{STAGES, Stage, queue};
use crate::{Cluster, DeviceChoice, Error, Loads, PlanOptions, Planner, Preset, Stop};

pub use crate::engine::recording::{BindingKind, Grid};

/// One buffer that a pipeline binds, as the host's tables say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// Bind group.
    pub group: u32,
    /// Binding in the group.
    pub binding: u32,
    /// Use.
    pub kind: BindingKind,
}

/// One pipeline: a composed shader, one of its entry points, and what the host believes about both.
#[derive(Clone, Debug)]
pub struct ShaderUnit {
    /// The stage, as its files are called: `s4_pack`.
    pub stem: &'static str,
    /// The constants that tell this pipeline from the others of the stage; empty where there is one.
    pub variant: String,
    /// The WGSL text as it is given to wgpu, shared parts included.
    pub source: String,
    /// The entry point.
    pub entry_point: &'static str,
    /// Invocations of one workgroup, once `constants` are applied.
    pub workgroup_size: [u32; 3],
    /// The values of the shader's `override` constants.
    pub constants: Vec<(&'static str, f64)>,
    /// Every buffer of the pipeline's layout, in any order.
    pub bindings: Vec<Binding>,
    /// The members of the Rust struct written to the uniform buffer, with their offsets, in order; empty where
    /// there is no uniform buffer.
    pub uniform_layout: Vec<(&'static str, u32)>,
    /// Its size.
    pub uniform_size: u32,
}

/// Every kind of pipeline the library can create, in the order of the stages.
#[must_use]
pub fn shaders() -> Vec<ShaderUnit> {
    let plans = plans();
    let mut units = Vec::new();
    for stage in &STAGES {
        for entry in stage.entries {
            let mut variants: Vec<_> =
                plans.iter().map(|plan| override_values(stage.overrides, entry, plan)).collect();
            variants.sort_unstable();
            variants.dedup();
            units.extend(variants.iter().flat_map(|values| units_of(stage, entry, values)));
        }
    }
    units
}

/// The pipelines of an entry point with these constants: of the search one for each tuning.
fn units_of(stage: &Stage, entry: &'static str, values: &OverrideValues) -> Vec<ShaderUnit> {
    let unit = unit(stage, entry, values);
    let tunings: &[Tuning] = if stage.teams { &[Tuning::SOFTWARE, Tuning::GPU] } else { &[Tuning::SOFTWARE] };
    let formed = |&tuning: &Tuning| {
        let mut unit = unit.clone();
        if stage.teams {
            unit.variant.push_str(&format!("{tuning:?}"));
        }
        if stage.teams {
            unit.constants.extend(tuning.constants());
        }
        if stage.teams {
            unit.workgroup_size[0] = tuning.team;
        }
        unit
    };
    tunings.iter().map(formed).collect()
}

/// Plans whose pipelines stand for all: every kind of move, of few and many slots, GPUs and windows, with and
/// without duplicates.
fn plans() -> Vec<GpuParams> {
    let mut plans = Vec::new();
    for (experts, groups, nodes, gpus, replicas, windows) in
        [(256, 8, 4, 32, 288, 1), (256, 1, 1, 128, 256, 16), (64, 1, 1, 2, 80, 5)]
    {
        for preset in [
            Preset::DEFAULT,
            Preset::GREEDY,
            Preset::GEN14,
            Preset::GEN17,
            Preset::GEN18,
            Preset::REC2,
            Preset::REC5,
        ] {
            let plan = || {
                let loads = Loads::from_counts(1, experts, &vec![1; experts])?;
                let loads = Loads::from_windows(&vec![loads; windows], &vec![1.0; windows])?;
                let cluster = Cluster::new(replicas, groups, nodes, gpus)?;
                let params = Params::new(&loads, &cluster, &preset.options())?;
                Ok::<_, Error>(Layout::new(&params, 1).base)
            };
            plans.extend(plan());
        }
    }
    plans
}

fn unit(stage: &Stage, entry_point: &'static str, values: &OverrideValues) -> ShaderUnit {
    let sizes_grids = stage.stem == queue::STAGE.stem;
    let bind = |group: u32, kinds: &'static [BindingKind]| {
        (0..).zip(kinds).map(move |(binding, &kind)| Binding { group, binding, kind })
    };
    let constants = constants(stage.overrides, entry_point, values);
    let grids: &[BindingKind] = if sizes_grids { &GRID_BINDINGS } else { &[] };
    let bindings = bind(0, &BINDINGS).chain(bind(1, grids)).collect();
    ShaderUnit {
        stem: stage.stem,
        variant: constants.iter().map(|(name, value)| format!("{name}={value} ")).collect(),
        source: stage.wgsl(),
        entry_point,
        workgroup_size: [if sizes_grids { 1 } else { LANES }, 1, 1],
        constants,
        bindings,
        uniform_layout: GpuParams::MEMBERS.iter().map(|&(name, at)| (name, at as u32)).collect(),
        uniform_size: size_of::<GpuParams>() as u32,
    }
}

/// All that a device is given to make one plan, as data: for an implementation of WebGPU other than wgpu.
#[derive(Clone, Debug)]
pub struct Replay {
    /// In order.
    pub dispatches: Vec<ReplayDispatch>,
    /// The problem buffer.
    pub problem: Vec<u32>,
    /// Words of the groups buffer, the results buffer, the arena and the queue.
    pub words: [u64; 4],
    /// Where the result begins in the results buffer, and its words.
    pub result: (u64, u64),
    params: Params,
    /// The loads planned from.
    windows: Vec<u32>,
}

/// One dispatch of a [`Replay`].
#[derive(Clone, Debug)]
pub struct ReplayDispatch {
    /// The stage and its entry point.
    pub kernel: (&'static str, &'static str),
    /// How many lanes.
    pub grid: Grid,
    /// The uniform block.
    pub params: Vec<u32>,
    /// The values of the pipeline's `override` constants.
    pub constants: Vec<(&'static str, f64)>,
}

/// The constants of a dispatch's pipeline on a software driver.
fn constants_of(kernel: Kernel, params: &GpuParams) -> Vec<(&'static str, f64)> {
    let stage = STAGES.iter().find(|stage| stage.stem == kernel.stem);
    let fixed = stage.map(|stage| {
        constants(stage.overrides, kernel.entry, &override_values(stage.overrides, kernel.entry, params))
    });
    let tuning = stage.filter(|stage| stage.teams).map(|_| Tuning::SOFTWARE.constants());
    fixed.into_iter().flatten().chain(tuning.into_iter().flatten()).collect()
}

impl Replay {
    /// The recording of a call that fits one (small ones do) on a software driver. Each layer has load: others are not
    /// searched on a device.
    ///
    /// # Errors
    /// As for [`crate::Planner::plan`].
    pub fn new(loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Result<Self, Error> {
        let params = Params::new(loads, cluster, options)?;
        let table = enumerate_assignments(params.groups, params.nodes);
        let layout = Layout::new(&params, table.len() as u32);
        let (recording, arena) = {
            let share = gpu::Extent { assignments: params.assignments, work_divisor: 1 };
            gpu::record(&params, &layout, ARENA_WORDS, share)
        };
        let dispatch = |dispatch: &crate::engine::recording::KernelDispatch| ReplayDispatch {
            kernel: (dispatch.kernel.stem, dispatch.kernel.entry),
            grid: dispatch.grid,
            params: bytemuck::cast_slice(&[dispatch.params]).to_vec(),
            constants: constants_of(dispatch.kernel, &dispatch.params),
        };
        let windows = loads.fixed_windows().to_vec();
        let combined = host::combine(&params, &windows);
        let queue = layout.queue_words(arena);
        Ok(Self {
            dispatches: recording.dispatches.iter().map(dispatch).collect(),
            problem: layout.problem(&combined, &window_quads(&params, &windows), &table),
            words: [layout.groups_words, layout.results_words, arena, queue],
            result: (layout.result_begin, layout.results_words - layout.result_begin),
            params,
            windows,
        })
    }

    /// The plan in a result: expert of each slot, -1 for a free one, and how the search of each layer ended.
    #[must_use]
    pub fn plan(&self, result: &[u32]) -> (Vec<i32>, Vec<Stop>) {
        let (states, slots) = result.split_at((self.params.layers * layer::WORDS) as usize);
        let stop = |state: &[u32]| Stop::of_word(state[layer::END]);
        let mut planned = Planned { slots: slots.to_vec(), ends: Vec::new() };
        host::prefer_trivial(&self.params, &self.windows, &mut planned);
        (
            planned.slots.iter().map(|&expert| expert as i32).collect(),
            states.chunks_exact(layer::WORDS as usize).map(stop).collect(),
        )
    }
}

/// A planner on the device of a choice whose work is shaped otherwise than the device wants it: lanes of a workgroup that
/// share a candidate, and the most words of candidates at once. Its plans are the same.
///
/// # Errors
/// As for [`Planner::new`].
pub fn tuned(choice: DeviceChoice, team: u32, arena_words: u64) -> Result<Planner, Error> {
    let tuning = Some(Tuning { team, arena_words });
    crate::edge::now(Planner::open(Opening { tuning, ..Opening::new(choice) }))
}
