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

/// One dispatch: a kernel over a number of lanes, with its uniform block.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// What runs.
    pub kernel: Kernel,
    /// Its uniform block; `lanes` is the number of invocations that do something.
    pub params: GpuParams,
}

/// Dispatches in order. Each sees what those before it wrote.
#[derive(Debug, Default, Clone)]
pub struct Recording {
    /// In order.
    pub dispatches: Vec<Dispatch>,
}

impl Recording {
    /// Adds a dispatch of `kernel` over `lanes` lanes.
    pub fn dispatch(&mut self, kernel: Kernel, lanes: u32, params: GpuParams) {
        if lanes > 0 {
            self.dispatches.push(Dispatch { kernel, params: GpuParams { lanes, ..params } });
        }
    }
}
