//! 1-1 swaps, the mirror of `shaders/s5_moves/swap.wgsl`.
//!
//! Swapping a replica of load `r_a` on GPU `a` with one of load `r_b` on `b` moves `d = r_a - r_b` from a load
//! difference `D = L_a - L_b`. It lowers the larger of the two loads by `m = min(d, D - d)` and the sum of
//! squares by `2 d (D - d) = 2 m (D - m)`: both objectives want the same swaps of two GPUs, those with the
//! largest `m`, and differ only between pairs of GPUs.

use super::Candidate;
use crate::params::{NEVER, Params, TILE, TURN, blocks};

/// A GPU that has swapped in this step.
const USED: u32 = 1;
/// A GPU that may be a partner.
const PARTNER: u32 = 2;

/// A swap of two slots and what it is worth.
#[derive(Clone, Copy, Default)]
struct Best {
    gain: u64,
    from: usize,
    to: usize,
}

/// One step: each of the `search.heaviest` heaviest GPUs, heaviest first, makes its best swap with a partner
/// that has not swapped in this step. Whether any did.
///
/// The pairs of GPUs are disjoint, so the order of evaluation does not matter: all could be weighed at once.
pub fn step(params: &Params, variance: bool, candidate: &mut Candidate) -> bool {
    if !params.marks_gpus() {
        candidate.charge(1 + blocks(params.node_gpus));
        let best = best_swap(params, variance, candidate, candidate.heaviest());
        if best.gain > 0 {
            candidate.exchange(params, best.from, best.to);
        }
        return best.gain > 0;
    }
    let gpus = params.node_gpus as usize;
    let proposers = match params.search.heaviest {
        0 => params.node_gpus,
        n => n.min(params.node_gpus),
    };
    mark_partners(params, candidate);
    let mut any = false;
    for _ in 0..proposers {
        candidate.charge(TURN + params.node_gpus);
        let unused = |&g: &usize| candidate.marks[g] & USED == 0;
        let Some(heavy) = (0..gpus).filter(unused).max_by_key(|&g| (candidate.gpu_load[g], usize::MAX - g))
        else {
            break;
        };
        let best = best_swap(params, variance, candidate, heavy);
        candidate.marks[heavy] |= USED;
        if best.gain > 0 {
            candidate.marks[best.to / params.slots_per_gpu as usize] |= USED;
            candidate.exchange(params, best.from, best.to);
            any = true;
        }
    }
    any
}

/// Clears the marks and marks the `search.lightest` lightest GPUs, or all, as partners.
fn mark_partners(params: &Params, candidate: &mut Candidate) {
    let gpus = params.node_gpus as usize;
    candidate.charge(1 + blocks(params.node_gpus) + params.node_gpus);
    candidate.marks.clear();
    if params.search.lightest == 0 || params.search.lightest >= params.node_gpus {
        candidate.marks.resize(gpus, PARTNER);
        return;
    }
    candidate.marks.resize(gpus, 0);
    for _ in 0..params.search.lightest {
        candidate.charge(1 + params.node_gpus);
        let rest = |&g: &usize| candidate.marks[g] & PARTNER == 0;
        let lightest = (0..gpus).filter(rest).min_by_key(|&g| (candidate.gpu_load[g], g));
        candidate.marks[lightest.unwrap_or(0)] |= PARTNER;
    }
}

/// The best swap of `heavy` with an unused partner; ties to the lower GPU, then tile, then slots.
fn best_swap(params: &Params, variance: bool, candidate: &mut Candidate, heavy: usize) -> Best {
    let slots = params.slots_per_gpu as usize;
    let mut best = Best::default();
    for gpu in 0..params.node_gpus as usize {
        for heavy_tile in (0..slots).step_by(TILE as usize) {
            for tile in (0..slots).step_by(TILE as usize) {
                candidate.charge(TURN);
                let (load_a, load_b) = (candidate.gpu_load[heavy], candidate.gpu_load[gpu]);
                let partner = !params.marks_gpus() || candidate.marks[gpu] == PARTNER;
                if !partner || load_a <= load_b {
                    continue;
                }
                let distance = load_a - load_b;
                if worth(variance, distance / 2, distance) <= best.gain {
                    continue;
                }
                let floor = if variance { 0 } else { best.gain as i32 };
                let ends = (heavy * slots + heavy_tile, gpu * slots + tile);
                let (m, from, to) = best_of_tiles(params, candidate, ends, distance as i32, floor);
                let gain = worth(variance, m.max(0) as u32, distance);
                if gain > best.gain {
                    best = Best { gain, from, to };
                }
            }
        }
    }
    best
}

/// What moving `m` of a `distance` is worth.
fn worth(variance: bool, m: u32, distance: u32) -> u64 {
    if variance { u64::from(m) * u64::from(distance - m) } else { u64::from(m) }
}

/// The largest `m` above `floor` between a tile of the heavy GPU and one of another, with its slots.
fn best_of_tiles(
    params: &Params,
    candidate: &mut Candidate,
    (heavy_begin, begin): (usize, usize),
    distance: i32,
    floor: i32,
) -> (i32, usize, usize) {
    let slots = params.slots_per_gpu as usize;
    let (heavy, gpu) = (heavy_begin / slots, begin / slots);
    let heavy_end = (heavy_begin + TILE as usize).min((heavy + 1) * slots);
    let end = (begin + TILE as usize).min((gpu + 1) * slots);
    // A replica that would make a duplicate gets a load no swap wants.
    let blocked_there = candidate.blocked(params, heavy_begin, heavy_end - heavy_begin, gpu);
    let blocked_here = candidate.blocked(params, begin, end - begin, heavy);
    let weigh = |slot: usize, blocked: u32, bit: usize, never: i32| {
        if blocked >> bit & 1 == 1 { never } else { candidate.load[slot] as i32 }
    };
    // What is beyond the tile is wanted by no swap either.
    let mut items = [-NEVER; TILE as usize];
    for slot in heavy_begin..heavy_end {
        items[slot - heavy_begin] = weigh(slot, blocked_there, slot - heavy_begin, -NEVER);
    }
    let count = heavy_end - heavy_begin;
    let (item_blocks, _) = items[..count.next_multiple_of(4)].as_chunks::<4>();
    let (mut best, mut from, mut to) = (floor, 0, 0);
    for slot in begin..end {
        let item = weigh(slot, blocked_here, slot - begin, NEVER);
        let gain = |heavy_item: i32| {
            let d = heavy_item - item;
            d.min(distance.wrapping_sub(d))
        };
        // The largest first, four at a time, without looking where.
        let mut lanes = [best; 4];
        for block in item_blocks {
            for (lane, &heavy_item) in lanes.iter_mut().zip(block) {
                *lane = gain(heavy_item).max(*lane);
            }
        }
        let row = lanes.into_iter().fold(best, i32::max);
        if row > best {
            let at = items[..count].iter().position(|&heavy_item| gain(heavy_item) == row);
            (best, from, to) = (row, heavy_begin + at.unwrap_or(0), slot);
        }
    }
    let count = count as u32;
    candidate.charge(count + (end - begin) as u32 * (1 + blocks(count)));
    if best > floor { (best, from, to) } else { (0, 0, 0) }
}
