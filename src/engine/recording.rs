//! A plan's work for the device, as data: kernels, and dispatches of them in order.

use crate::layout::GpuParams;

/// One compute shader entry point.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
pub struct Kernel {
    /// Stem of the stage's files, `s5_search`.
    pub stem: &'static str,
    /// Entry point.
    pub entry: &'static str,
}

/// A constant of a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Override {
    /// Its name in the shader.
    pub name: &'static str,
    /// The entry points that read it; others are not given it, so that their pipelines do not differ by it.
    pub read_by: &'static [&'static str],
    /// Its value for a dispatch.
    pub of: fn(&GpuParams) -> u32,
}

/// The most constants of a shader.
pub const MOST_OVERRIDES: usize = 8;

/// The values of a shader's constants, in order.
pub type OverrideValues = [u32; MOST_OVERRIDES];

/// The values for a dispatch of an entry point; 0 for what it does not read.
pub fn override_values(overrides: &[Override], entry: &str, params: &GpuParams) -> OverrideValues {
    let mut values = OverrideValues::default();
    for (value, overrides) in
        values.iter_mut().zip(overrides).filter(|(_, overrides)| overrides.read_by.contains(&entry))
    {
        *value = (overrides.of)(params);
    }
    values
}

/// The constants that an entry point reads, with their values.
pub fn constants(overrides: &[Override], entry: &str, values: &OverrideValues) -> Vec<(&'static str, f64)> {
    let read = overrides.iter().zip(values).filter(|(overrides, _)| overrides.read_by.contains(&entry));
    read.map(|(overrides, &value)| (overrides.name, f64::from(value))).collect()
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

/// The arena of a batch may take this many words (64 MiB) at most, if one start of one layer fits.
pub const ARENA_WORDS: u64 = 16 << 20;

/// How the work is shaped for a device. Plans do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Lanes of a workgroup that share one candidate: the constant `TEAM` of shaders.
    pub team: u32,
    /// The most words of candidates that run at once.
    pub arena_words: u64,
}

impl Tuning {
    /// On a software driver: as many as its vector has lanes.
    pub const SOFTWARE: Self = Self { team: 8, arena_words: ARENA_WORDS };
    /// On a GPU: two vectors of 32. Reasoned: no GPU has been measured yet, and `benches/gpu.sh` compares other sizes.
    pub const GPU: Self = Self { team: 64, arena_words: ARENA_WORDS };

    /// That of a device with vectors of this many lanes, software or not by its own word. With teams smaller than its vector (8 lanes by default) llvmpipe
    /// gives wrong placements, why is not known; SwiftShader computes teams of 1 to 4 rightly. GLES does not tell the
    /// vector (wgpu says 128): 16 lanes are the most that llvmpipe has.
    pub fn of(says_software: bool, vector: u64) -> Self {
        match vector {
            _ if !says_software => Self::GPU,
            0..=64 => Self { team: Self::SOFTWARE.team.max(vector as u32), ..Self::SOFTWARE },
            _ => Self { team: 16, ..Self::SOFTWARE },
        }
    }

    /// Its constants, for the entry points that read them.
    pub fn constants(self) -> [(&'static str, f64); 1] {
        [("TEAM", f64::from(self.team))]
    }
}

/// How many lanes a dispatch has.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Grid {
    /// This many.
    Lanes(u32),
    /// One a queued candidate, as the device counted them.
    Queued,
    /// A team of lanes, one workgroup, a queued candidate.
    QueuedTeams,
    /// One a queued candidate and block of experts.
    QueuedBlocks,
    /// One a queued candidate and expert that may have several replicas.
    QueuedReplicated,
    /// One a queued candidate and block of these.
    QueuedReplicatedBlocks,
}

/// One dispatch: a kernel over a grid, with its uniform block.
#[derive(Debug, Clone)]
pub struct KernelDispatch {
    /// The kernel that runs.
    pub kernel: Kernel,
    /// Over what.
    pub grid: Grid,
    /// Its uniform block.
    pub params: GpuParams,
}

/// The most dispatches of a recording: WebGPU's default of 256 MiB a buffer for their uniform blocks, at the usual
/// 256 bytes from one to the next.
const MOST: usize = 1 << 20;

/// Dispatches in order. Each sees what those before it wrote.
#[derive(Debug, Default, Clone)]
pub struct Recording {
    /// In order.
    pub dispatches: Vec<KernelDispatch>,
    /// Whether there were more than [`MOST`].
    is_cut: bool,
}

impl Recording {
    /// Whether dispatches are missing, because there would be too many: it cannot be run.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Adds a dispatch, if it has lanes.
    pub fn dispatch(&mut self, kernel: Kernel, grid: Grid, params: GpuParams) {
        let lanes = match grid {
            Grid::Lanes(0) => return,
            Grid::Lanes(lanes) => lanes,
            _ => 0,
        };
        if self.dispatches.len() == MOST {
            self.is_cut = true;
            return;
        }
        self.dispatches.push(KernelDispatch { kernel, grid, params: GpuParams { lanes, ..params } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_takes_bounded_memory_and_says_where_it_is_cut() {
        let kernel = Kernel { stem: "s9_none", entry: "none" };
        let mut recording = Recording::default();
        (0..MOST).for_each(|_| recording.dispatch(kernel, Grid::Queued, GpuParams::default()));
        recording.dispatch(kernel, Grid::Lanes(0), GpuParams::default());
        assert!(!recording.is_cut());
        recording.dispatch(kernel, Grid::Lanes(1), GpuParams::default());
        assert!(recording.is_cut());
        assert_eq!(recording.dispatches.len(), MOST);
    }
}
