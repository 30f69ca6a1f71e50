//! What the project's own tests need to see of its inside. No part of the API: anything here may change.

use crate::engine::recording::{BINDINGS, FixedValues, GRID_BINDINGS, LANES, fixed_values};
use crate::layout::{GpuParams, Layout};
use crate::params::Params;
use crate::stages::{STAGES, Stage, queue};
use crate::{Cluster, Error, Loads, Preset};

pub use crate::engine::recording::BindingKind;

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
    /// What tells this pipeline from the others of the stage; empty where there is one.
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
        let mut variants: Vec<_> = plans.iter().map(|plan| fixed_values(stage.fixed, plan)).collect();
        variants.sort_unstable();
        variants.dedup();
        for values in variants {
            units.extend(stage.entries.iter().map(|entry| unit(stage, entry, &values)));
        }
    }
    units
}

/// Plans whose pipelines stand for all: every kind of move, of few and many slots, GPUs and windows, with and
/// without duplicates.
fn plans() -> Vec<GpuParams> {
    let mut plans = Vec::new();
    for (experts, groups, nodes, gpus, replicas, windows) in
        [(256, 8, 4, 32, 288, 1), (256, 1, 1, 128, 256, 16), (64, 1, 1, 2, 80, 5)]
    {
        for preset in ["default", "gen00", "gen14", "gen17", "gen18", "rec2", "rec5"] {
            let plan = || {
                let loads = Loads::from_counts(1, experts, &vec![1; experts])?;
                let loads = Loads::from_windows(&vec![loads; windows], &vec![1.0; windows])?;
                let cluster = Cluster::new(replicas, groups, nodes, gpus)?;
                let params = Params::new(&loads, &cluster, &preset.parse::<Preset>()?.options())?;
                Ok::<_, Error>(Layout::new(&params, 1).base)
            };
            plans.extend(plan());
        }
    }
    plans
}

fn unit(stage: &Stage, entry_point: &'static str, values: &FixedValues) -> ShaderUnit {
    let sizes_grids = stage.stem == queue::STAGE.stem;
    let bind = |group: u32, kinds: &'static [BindingKind]| {
        (0..).zip(kinds).map(move |(binding, &kind)| Binding { group, binding, kind })
    };
    let constants: Vec<_> =
        stage.fixed.iter().zip(values).map(|((name, _), &value)| (*name, f64::from(value))).collect();
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
