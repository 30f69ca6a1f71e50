//! What a plan asks of the device, as data: kernels, and dispatches of them in order.

use crate::layout::GpuParams;

/// One compute shader entry point.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
pub struct Kernel {
    /// Stem of the stage's files, `s5_refine`.
    pub stem: &'static str,
    /// Entry point.
    pub entry: &'static str,
}

/// How a shader may use a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BindingKind {
    /// `var<uniform>`, one block a dispatch
    Uniform,
    /// `var<storage, read>`
    StorageRead,
    /// `var<storage, read_write>`
    StorageReadWrite,
}

/// The buffers of every kernel, group 0: uniform block, problem, groups, kept, arena, queue.
pub const BINDINGS: [BindingKind; 6] = [
    BindingKind::Uniform,
    BindingKind::StorageRead,
    BindingKind::StorageReadWrite,
    BindingKind::StorageReadWrite,
    BindingKind::StorageReadWrite,
    BindingKind::StorageReadWrite,
];

/// The buffer of kernels that size grids, group 1.
pub const GRID_BINDINGS: [BindingKind; 1] = [BindingKind::StorageReadWrite];

/// Invocations of a workgroup; `LANES` in `problem.wgsl`.
pub const LANES: u32 = 64;

/// How many lanes a dispatch has.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Grid {
    /// This many.
    Lanes(u32),
    /// One a queued candidate, as the device counted them.
    Queued,
    /// One a queued candidate and expert.
    QueuedExperts,
}

/// One dispatch: a kernel over a grid, with its uniform block.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// What runs.
    pub kernel: Kernel,
    /// Over what.
    pub grid: Grid,
    /// Its uniform block.
    pub params: GpuParams,
}

/// Dispatches in order. Each sees what those before it wrote.
#[derive(Debug, Default, Clone)]
pub struct Recording {
    /// In order.
    pub dispatches: Vec<Dispatch>,
}

impl Recording {
    /// Adds a dispatch, if it has lanes.
    pub fn dispatch(&mut self, kernel: Kernel, grid: Grid, params: GpuParams) {
        let lanes = match grid {
            Grid::Lanes(0) => return,
            Grid::Lanes(lanes) => lanes,
            Grid::Queued | Grid::QueuedExperts => 0,
        };
        self.dispatches.push(Dispatch { kernel, grid, params: GpuParams { lanes, ..params } });
    }
}
