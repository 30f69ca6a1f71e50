//! Kicks, the mirror of `shaders/s5_windows_moves/kick.wgsl`: a small drawn perturbation.

use super::{Candidate, Quad, transfer};
use crate::mirror::rng;
use crate::params::{FREE, Params, TURN};

/// Draws of one kick: how many swaps, three for each of at most three swaps, four for the transfer, one for
/// the window.
const DRAWS: u32 = 16;

/// One to three swaps of drawn slots, half of them from the heaviest GPU of a drawn window, and with
/// probability 3/4 a transfer from a drawn slot, half of them to an expert of that GPU. A draw that is not a
/// valid move is passed over.
pub fn kick(params: &Params, key: u32, index: u32, loads: &[Quad], candidate: &mut Candidate) {
    let draw = |i: u32| rng::draw(key, rng::KICKS + index * DRAWS + i);
    let (k, slots) = (params.slots_per_gpu, params.node_slots);
    candidate.charge(4 * TURN);
    candidate.find_tops(params);
    let heavy = candidate.top(rng::below(draw(14), params.windows));
    for swap in 0..1 + rng::below(draw(0), 3) {
        let from = match draw(3 * swap + 1) & 1 {
            0 => rng::below(draw(3 * swap + 2), slots),
            _ => heavy * k + rng::below(draw(3 * swap + 2), k),
        } as usize;
        let to = rng::below(draw(3 * swap + 3), slots) as usize;
        let (a, b) = (from / k as usize, to / k as usize);
        let (e, f) = (candidate.expert[from], candidate.expert[to]);
        if a == b {
            continue;
        }
        let mut occupied = |gpu, expert| candidate.holds(params, gpu, expert) && expert != FREE;
        if params.avoid_duplicates && (occupied(b, e) || occupied(a, f)) {
            continue;
        }
        candidate.exchange(params, from, to);
    }
    if draw(10) & 3 != 0 {
        let slot = rng::below(draw(11), slots) as usize;
        let expert = match draw(12) & 1 {
            0 => rng::below(draw(13), params.node_experts),
            _ => candidate.expert[(heavy * k + rng::below(draw(13), k)) as usize],
        };
        let fits = expert != FREE
            && candidate.count_at(slot) > 1
            && candidate.expert[slot] != expert
            && candidate.counts[expert as usize] < params.max_count;
        let gpu = slot / k as usize;
        if fits && !(params.avoid_duplicates && candidate.holds(params, gpu, expert)) {
            transfer::apply(params, loads, candidate, slot, expert);
        }
    }
}
