//! Stage 5 of the lineage's presets, the mirror of `shaders/s5_descend.wgsl`: refine one candidate by descent.
//!
//! A step tries, in this order and only while nothing was found: 1-1 swaps ([`swap`]), 2-for-2 swaps
//! ([`pair_swap`]), and an exact bipartition of the heaviest and the lightest GPU ([`bipartition`]). Every move
//! lowers the sum of the squared GPU loads, so a descent ends.

pub mod bipartition;
pub mod pair_swap;
pub mod swap;

use crate::mirror::candidate::{Candidate, Outcome};
use crate::options::Objective;
use crate::params::{FREE, Params};
use crate::plan::Stop;

/// Takes steps from a packed candidate until it is down to `stop_load`, no move helps, or there were as many as
/// are wanted. Afterwards `candidate.snapshot` is the result.
pub fn descend(params: &Params, stop_load: u32, candidate: &mut Candidate) -> Outcome {
    let end = take_steps(params, stop_load, candidate);
    candidate.snapshot.clone_from(&candidate.expert);
    let max = candidate.max_load();
    Outcome { max, end }
}

fn take_steps(params: &Params, stop_load: u32, candidate: &mut Candidate) -> Stop {
    let search = &params.descent;
    let mut by_variance = params.starts_with_variance();
    for _ in 0..search.steps {
        if candidate.max_load() <= stop_load {
            return Stop::BoundReached;
        }
        if search.swaps && swap::step(params, by_variance, candidate) {
            continue;
        }
        if by_variance && search.objective == Objective::VarianceThenMax {
            by_variance = false;
            continue;
        }
        let moved = (search.pair_swaps && pair_swap::step(params, candidate))
            || (search.bipartition && bipartition::step(params, candidate));
        if !moved {
            return Stop::NoMoveLeft;
        }
    }
    if candidate.max_load() <= stop_load { Stop::BoundReached } else { Stop::BudgetSpent }
}

/// By how much giving up a load of `mine` for one of `theirs` lowers the larger of two GPU loads that are `distance`
/// apart: d of the difference D changes sides, so the larger load becomes smaller by min(d, D - d).
fn moved(mine: u32, theirs: u32, distance: u32) -> u32 {
    let d = mine.saturating_sub(theirs);
    d.min(distance.saturating_sub(d))
}

/// Whether a GPU may not have what a slot of another GPU holds, because it would be a duplicate.
fn is_duplicate(params: &Params, candidate: &Candidate, slot: usize, gpu: usize) -> bool {
    let slots = params.slots_per_gpu as usize;
    let expert = candidate.expert[slot];
    params.avoid_duplicates
        && expert != FREE
        && candidate.expert[gpu * slots..(gpu + 1) * slots].contains(&expert)
}
