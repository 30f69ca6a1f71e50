//! Tables of shares: the sweeps that move load between the replicas of an expert.

use super::{CANDIDATE, PROBLEM, RNG, Stage, TEAM, WIDE_U64};
use crate::engine::budget;
use crate::engine::recording::{Grid, Kernel, LANES, Recording, Tuning};
use crate::layout::GpuParams;
use crate::shares::task::SCENARIOS;
use crate::shares::{batch, windows};

const NEXT_WINDOW: Kernel = Kernel { stem: "shares", entry: "level_next_window" };
const BATCH: Kernel = Kernel { stem: "shares", entry: "level_batch" };

/// The shader.
pub const STAGE: Stage = Stage {
    stem: "shares",
    sources: &[include_str!("../../shaders/shares.wgsl"), PROBLEM, WIDE_U64, RNG, CANDIDATE, TEAM],
    entries: &[NEXT_WINDOW.entry, BATCH.entry],
    overrides: &[],
    teams: true,
};

/// All sweeps of all tasks, a dispatch each: for a batch, or for the next window.
pub fn record(recording: &mut Recording, base: &GpuParams, is_batch: bool) {
    let (kernel, sweeps) = if is_batch { (BATCH, batch::SWEEPS + 1) } else { (NEXT_WINDOW, windows::SWEEPS) };
    for begin in 0..sweeps {
        let params = GpuParams { begin, end: sweeps, ..*base };
        recording.dispatch(kernel, Grid::Lanes(base.candidates * LANES), params);
    }
}

/// Whether software drivers run a sweep to its end, with all that a lane lays out first.
pub fn fits(base: &GpuParams, pairs: u64) -> bool {
    let team = u64::from(Tuning::SOFTWARE.team);
    let scenarios = SCENARIOS as u64;
    let sweep = 2 * u64::from(base.rounds) + pairs * (1 + 2 * scenarios + 16);
    let lay = u64::from(base.replicas).div_ceil(team) + (u64::from(base.gpus) * scenarios).div_ceil(team) + 2;
    sweep + lay + team < budget::LIMIT
}
