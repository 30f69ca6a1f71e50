//! A move is made: what its GPUs hold and carry, and what stays as it is for some iterations.

use super::{EXPERT_TENURE, SLOT_TENURE, TrailMoveKind, TrailSearch};
use crate::mirror::rng;
use crate::replan::objective::LayerObjective;

impl TrailSearch {
    /// Makes a move, and forbids to undo it for some iterations.
    #[inline(always)]
    pub(super) fn make(
        &mut self,
        objective: &LayerObjective,
        key: u32,
        iteration: u32,
        kind: TrailMoveKind,
        changes: &mut Vec<(usize, u32)>,
    ) {
        let word = rng::draw(key, rng::TENURE + iteration);
        match kind {
            TrailMoveKind::None => {}
            TrailMoveKind::Exchange { gpus: [a, b], slots: [i, j] } => {
                let (here, there) = (i * self.lanes + a, j * self.lanes + b);
                self.expert.swap(here, there);
                if self.speeds.are_equal() {
                    for window in 0..self.windows {
                        let here = (i * self.windows + window) * self.lanes + a;
                        let there = (j * self.windows + window) * self.lanes + b;
                        let moved = self.load[here] - self.load[there];
                        self.gpu[window * self.lanes + a] -= moved;
                        self.gpu[window * self.lanes + b] += moved;
                        self.load.swap(here, there);
                    }
                } else {
                    self.weigh_slot(objective, i, a);
                    self.weigh_slot(objective, j, b);
                }
                for (n, (slot, lane)) in [(i, a), (j, b)].into_iter().enumerate() {
                    self.tabu[slot * self.lanes + lane] =
                        iteration + SLOT_TENURE + (word >> (8 * n) & 0xff) % 3;
                    changes.push((self.row_slot(slot, lane), self.row_expert(slot, lane)));
                    let gone = self.expert[if lane == a { there } else { here }] as usize;
                    self.hold(gone, lane);
                    self.hold(self.expert[slot * self.lanes + lane] as usize, lane);
                    self.settle(objective, lane);
                    self.count_received(lane);
                }
            }
            TrailMoveKind::Transfer { gpu, slot, expert } => {
                let lost = self.expert[slot * self.lanes + gpu] as usize;
                self.expert[slot * self.lanes + gpu] = expert as u32;
                self.counts[lost] -= 1;
                self.counts[expert] += 1;
                self.count_foreign(lost, expert, gpu);
                self.hold(lost, gpu);
                self.hold(expert, gpu);
                changes.push((self.row_slot(slot, gpu), expert as u32));
                self.count_received(gpu);
                self.weigh_replicas(objective, lost);
                self.weigh_replicas(objective, expert);
                self.no_gain[lost] = iteration + EXPERT_TENURE + (word & 0xff) % 4;
                self.no_loss[expert] = iteration + EXPERT_TENURE + (word >> 8 & 0xff) % 4;
            }
        }
    }

    /// Weighs all replicas of an expert whose count changed.
    #[inline(always)]
    pub(super) fn weigh_replicas(&mut self, objective: &LayerObjective, expert: usize) {
        for word in 0..self.words {
            let mut lanes = self.held[expert * self.words + word];
            while lanes != 0 {
                let lane = word * 32 + lanes.trailing_zeros() as usize;
                lanes &= lanes - 1;
                for slot in 0..self.slots {
                    if self.expert[slot * self.lanes + lane] as usize == expert {
                        self.weigh_slot(objective, slot, lane);
                    }
                }
                self.settle(objective, lane);
            }
        }
    }

    /// Writes down whether a GPU holds an expert.
    #[inline(always)]
    pub(super) fn hold(&mut self, expert: usize, lane: usize) {
        if expert == self.free {
            return;
        }
        let holds = (0..self.slots).any(|slot| self.expert[slot * self.lanes + lane] as usize == expert);
        let word = &mut self.held[expert * self.words + lane / 32];
        *word = *word & !(1 << (lane % 32)) | u32::from(holds) << (lane % 32);
    }
}
