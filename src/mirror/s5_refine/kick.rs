//! Kicks, the mirror of `shaders/s5_moves/kick.wgsl`: a small drawn perturbation.

use super::{Candidate, transfer};
use crate::mirror::rng;
use crate::params::{FREE, Params, TURN, blocks};

/// Draws of one kick: how many swaps, three for each of at most three swaps, four for the transfer.
const DRAWS: u32 = 16;

/// One to three swaps of drawn slots, half of them from the heaviest GPU, and with probability 3/4 a transfer
/// from a drawn slot, half of them to an expert of the heaviest GPU. A draw that is not a valid move is passed
/// over.
pub fn kick(params: &Params, key: u32, index: u32, loads: &[u32], candidate: &mut Candidate) {
    let draw = |i: u32| rng::draw(key, rng::KICKS + index * DRAWS + i);
    let (k, slots) = (params.slots_per_gpu, params.node_slots);
    candidate.charge(4 * TURN);
    for swap in 0..1 + rng::below(draw(0), 3) {
        candidate.charge(1 + blocks(params.node_gpus));
        let from = match draw(3 * swap + 1) & 1 {
            0 => rng::below(draw(3 * swap + 2), slots),
            _ => candidate.heaviest() as u32 * k + rng::below(draw(3 * swap + 2), k),
        } as usize;
        let to = rng::below(draw(3 * swap + 3), slots) as usize;
        let (a, b) = (from / k as usize, to / k as usize);
        let (e, f) = (candidate.expert[from], candidate.expert[to]);
        let mut occupied = |gpu, expert| candidate.holds(params, gpu, expert) && expert != FREE;
        if a == b || (params.avoid_duplicates && (occupied(b, e) || occupied(a, f))) {
            continue;
        }
        candidate.exchange(params, from, to);
    }
    if draw(10) & 3 != 0 {
        candidate.charge(1 + blocks(params.node_gpus));
        let slot = rng::below(draw(11), slots) as usize;
        let expert = match draw(12) & 1 {
            0 => rng::below(draw(13), params.node_experts),
            _ => candidate.expert[candidate.heaviest() * k as usize + rng::below(draw(13), k) as usize],
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
