//! The shaders of a device, the pipelines made of them, and how dispatches are submitted while pipelines are made.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU64;

use super::pending::Variant;
use super::recording::{
    BINDINGS, BindingKind, GRID_BINDINGS, KernelDispatch, Override, Recording, Tuning, constants,
    override_values,
};
use super::trusted::shader_module;
use crate::layout::GpuParams;

/// Dispatches of one submission, so that none keeps the device for long.
pub const DISPATCHES_PER_SUBMISSION: usize = 256;

/// A shader and its entry points, as the caller puts them together.
pub struct ShaderSource {
    /// The stage's stem.
    pub stem: &'static str,
    /// WGSL.
    pub wgsl: String,
    /// Entry points.
    pub entries: &'static [&'static str],
    /// Whether it sizes the grids of later dispatches.
    pub sizes_grids: bool,
    /// Its `override` constants.
    pub overrides: &'static [Override],
    /// Whether it has those of a [`Tuning`] as well.
    pub teams: bool,
}

/// A shader on the device.
#[derive(Clone)]
struct Module {
    shader: wgpu::ShaderModule,
    layout: wgpu::PipelineLayout,
    entries: &'static [&'static str],
    overrides: &'static [Override],
    teams: bool,
}

/// Pipelines by their kernel and the values of its constants.
pub type Pipelines = HashMap<Variant, wgpu::ComputePipeline>;

/// All shaders of a device.
#[derive(Clone)]
pub struct Shaders {
    modules: HashMap<&'static str, Module>,
    pub tuning: Tuning,
    /// The buffers of every kernel, and that of kernels that size grids.
    pub bindings: wgpu::BindGroupLayout,
    pub grid_bindings: wgpu::BindGroupLayout,
}

impl Shaders {
    /// Gives the shaders to a device.
    pub fn new(device: &wgpu::Device, sources: &[ShaderSource], tuning: Tuning) -> Self {
        let bindings = layout_of(device, &BINDINGS);
        let grid_bindings = layout_of(device, &GRID_BINDINGS);
        let pipeline_layout = |groups: &[Option<&wgpu::BindGroupLayout>]| {
            device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: groups,
                immediate_size: 0,
            })
        };
        let plain = pipeline_layout(&[Some(&bindings)]);
        let with_grids = pipeline_layout(&[Some(&bindings), Some(&grid_bindings)]);
        let mut modules = HashMap::new();
        for shader in sources {
            let source = wgpu::ShaderSource::Wgsl(shader.wgsl.as_str().into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(shader.stem), source };
            let layout = if shader.sizes_grids { &with_grids } else { &plain };
            let module = shader_module(device, descriptor);
            let ShaderSource { entries, overrides, teams, .. } = *shader;
            let module = Module { shader: module, layout: layout.clone(), entries, overrides, teams };
            modules.insert(shader.stem, module);
        }
        Self { modules, tuning, bindings, grid_bindings }
    }

    /// The pipelines that a recording needs and that are not there, in the order of their first use.
    pub fn missing(&self, pipelines: &Pipelines, recording: &Recording) -> Vec<Variant> {
        let mut met = HashSet::new();
        let variants = recording.dispatches.iter().map(|dispatch| self.variant(dispatch));
        variants.filter(|variant| !pipelines.contains_key(variant) && met.insert(*variant)).collect()
    }

    /// The dispatches of each submission. A submission also ends before a pipeline that is not made yet: while it is being made,
    /// the device runs the dispatches before it. (Some drivers compile only then.)
    pub fn submissions<'a>(
        &self,
        missing: &[Variant],
        recording: &'a Recording,
    ) -> Vec<&'a [KernelDispatch]> {
        let mut missing = missing.iter().peekable();
        let mut submissions = Vec::new();
        let mut begin = 0;
        for (at, dispatch) in recording.dispatches.iter().enumerate() {
            let is_missing = missing.next_if_eq(&&self.variant(dispatch)).is_some();
            if at > begin && (is_missing || at - begin == DISPATCHES_PER_SUBMISSION) {
                submissions.push(&recording.dispatches[begin..at]);
                begin = at;
            }
        }
        submissions.extend(recording.dispatches.get(begin..).filter(|rest| !rest.is_empty()));
        submissions
    }

    /// Which pipeline a dispatch wants: a kernel and the values of its constants.
    pub fn variant(&self, dispatch: &KernelDispatch) -> Variant {
        let overrides = self.modules.get(dispatch.kernel.stem).map_or(&[][..], |module| module.overrides);
        (dispatch.kernel, override_values(overrides, dispatch.kernel.entry, &dispatch.params))
    }

    /// Makes a pipeline; the error says why not.
    pub fn pipeline(
        &self,
        device: &wgpu::Device,
        (kernel, values): &Variant,
    ) -> Result<wgpu::ComputePipeline, String> {
        let module = self.modules.get(kernel.stem).filter(|module| module.entries.contains(&kernel.entry));
        let Some(Module { shader, layout, overrides, teams, .. }) = module else {
            return Err(format!("kernel {kernel:?} is missing"));
        };
        let mut constants = constants(overrides, kernel.entry, values);
        constants.extend(self.tuning.constants().into_iter().filter(|_| *teams));
        Ok(device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.entry),
            layout: Some(layout),
            module: shader,
            entry_point: Some(kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Shaders write workgroup memory before they read it.
                zero_initialize_workgroup_memory: false,
            },
            // No `wgpu::PipelineCache`: to give it a file's bytes is `unsafe`, and of the drivers measured (lavapipe,
            // SwiftShader) neither leaves compiled code in it, 96 bytes in all; those of GPUs have caches of their own.
            cache: None,
        }))
    }
}

/// A layout with these bindings, in order from 0.
fn layout_of(device: &wgpu::Device, kinds: &[BindingKind]) -> wgpu::BindGroupLayout {
    let storage = |read_only| wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Storage { read_only },
        has_dynamic_offset: false,
        min_binding_size: None,
    };
    let binding_type = |kind| match kind {
        BindingKind::Uniform => wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: true,
            min_binding_size: NonZeroU64::new(size_of::<GpuParams>() as u64),
        },
        BindingKind::StorageRead => storage(true),
        BindingKind::StorageReadWrite => storage(false),
    };
    let entry = |(binding, &kind): (u32, &BindingKind)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: binding_type(kind),
        count: None,
    };
    let entries: Vec<_> = (0..).zip(kinds).map(entry).collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}
