//! Any row, made valid, so that a search can start from it. Slots come and go with GPUs, and the map that a server starts with
//! has groups across nodes and experts twice on a GPU. Replicas that can stay do.

use std::cmp::Reverse;

use crate::params::{FREE, Params};
use crate::rows::homes;

/// A valid row in which the replicas of `old` that can stay keep their slots. `loads` is `[experts]`.
pub fn mend(params: &Params, loads: &[u32], old: &[u32]) -> Vec<u32> {
    // Foreign replicas count among those that an expert may have. Where too few are left for its home, none are kept.
    match mended(params, loads, old, params.most_foreign > 0) {
        (row, true) => row,
        _ => mended(params, loads, old, false).0,
    }
}

/// The row with the foreign replicas that may stay, or without any, and whether its nodes could be filled.
fn mended(params: &Params, loads: &[u32], old: &[u32], keeps_foreign: bool) -> (Vec<u32>, bool) {
    let homes = homes(params, old);
    let (mut row, mut is_full) = (old.to_vec(), true);
    let mut foreign = keep_foreign(params, loads, &homes, (&mut row, keeps_foreign));
    for (at, slots) in row.chunks_exact_mut(params.node_slots as usize).enumerate() {
        let experts: Vec<u32> = (0..params.experts).filter(|&e| homes[e as usize] as usize == at).collect();
        let (avoid, first) = (params.avoid_duplicates, at * params.node_gpus as usize);
        let at_home: Vec<bool> = homes.iter().map(|&home| home as usize == at).collect();
        let counts = vec![0; loads.len()];
        let foreign = &mut foreign;
        let mut node = NodeSlots { params, loads, avoid, at_home, counts, foreign, first, slots };
        node.count();
        is_full &= node.fill(&experts, !keeps_foreign);
    }
    (row, is_full)
}

/// Frees what lies outside its home, but for the heaviest replicas that may lie there. Returns how many of each expert do.
fn keep_foreign(params: &Params, loads: &[u32], homes: &[u32], (row, keeps): (&mut [u32], bool)) -> Vec<u32> {
    let node_slots = params.node_slots as usize;
    let is_foreign =
        |(slot, e): &(usize, u32)| *e != FREE && homes[*e as usize] as usize != slot / node_slots;
    let held = row.iter().copied().enumerate();
    let mut outside: Vec<(usize, u32)> = held.filter(is_foreign).collect();
    outside.sort_by_key(|&(slot, e)| (Reverse(loads[e as usize]), slot));
    let mut foreign = vec![0; loads.len()];
    let mut left = if keeps { params.most_foreign } else { 0 };
    for (slot, e) in outside {
        let gpu = slot / params.slots_per_gpu as usize * params.slots_per_gpu as usize;
        let is_duplicate = params.avoid_duplicates && row[gpu..slot].contains(&e);
        // One is at home.
        if left == 0 || is_duplicate || foreign[e as usize] + 1 >= params.most_count {
            row[slot] = FREE;
        } else {
            foreign[e as usize] += 1;
            left -= 1;
        }
    }
    foreign
}

/// The slots of a node while they are filled.
struct NodeSlots<'a> {
    params: &'a Params,
    loads: &'a [u32],
    avoid: bool,
    /// Whether each expert is at home here.
    at_home: Vec<bool>,
    /// Replicas of each expert here, and its foreign ones in all nodes.
    counts: Vec<u32>,
    foreign: &'a mut [u32],
    /// Its first GPU, of those of all nodes.
    first: usize,
    slots: &'a mut [u32],
}

impl NodeSlots<'_> {
    fn gpu_of(&self, slot: usize) -> std::ops::Range<usize> {
        let each = self.params.slots_per_gpu as usize;
        slot / each * each..(slot / each + 1) * each
    }

    /// Counts replicas. It takes away the second one on a GPU, where that is avoided, and those above the most that an expert
    /// may have.
    fn count(&mut self) {
        for slot in 0..self.slots.len() {
            let e = self.slots[slot];
            if e == FREE {
                continue;
            }
            let first = self.gpu_of(slot).start;
            let is_duplicate = self.avoid && self.slots[first..slot].contains(&e);
            if is_duplicate || self.at_home[e as usize] && !self.may_have_more(e) {
                self.slots[slot] = FREE;
            } else {
                self.counts[e as usize] += 1;
            }
        }
    }

    /// The replicas of an expert in all nodes, with one at home where that is another.
    fn replicas(&self, e: u32) -> u32 {
        let at_home = if self.at_home[e as usize] { self.counts[e as usize] } else { 1 };
        at_home + self.foreign[e as usize]
    }

    /// Whether an expert that is at home here may have another replica here.
    fn may_have_more(&self, e: u32) -> bool {
        self.counts[e as usize] < self.params.max_count && self.replicas(e) < self.params.most_count
    }

    /// Gives every expert a replica, and the rest to those with most load a replica, until as many slots are filled as
    /// must be; returns whether they are. Where that takes duplicates, `duplicates` says whether it may.
    fn fill(&mut self, experts: &[u32], duplicates: bool) -> bool {
        let wanted = self.params.node_replicas as usize;
        let mut missing: Vec<u32> =
            experts.iter().copied().filter(|&e| self.counts[e as usize] == 0).collect();
        missing.sort_by_key(|&e| (Reverse(self.loads[e as usize]), e));
        let mut filled = self.slots.iter().filter(|&&e| e != FREE).count();
        while filled + missing.len() > wanted {
            let Some(slot) = self.least_needed() else { break };
            let e = self.slots[slot] as usize;
            self.counts[e] -= 1;
            self.foreign[e] -= u32::from(!self.at_home[e]);
            self.slots[slot] = FREE;
            filled -= 1;
        }
        for e in missing {
            filled += usize::from(self.place(e));
        }
        while filled < wanted {
            let share = |e: u32| {
                let count = self.replicas(e);
                (self.loads[e as usize] / count.max(1), Reverse(count), Reverse(e))
            };
            let open = experts.iter().copied().filter(|&e| self.may_have_more(e));
            let mut order: Vec<u32> = open.collect();
            order.sort_by_key(|&e| Reverse(share(e)));
            // Where every expert that may have another is on each GPU with a free slot, one of those makes room.
            let placed = order.iter().any(|&e| self.place(e)) || order.iter().any(|&e| self.make_room(e));
            let goes_on = placed || duplicates && std::mem::replace(&mut self.avoid, false);
            if !goes_on {
                return false;
            }
            filled += usize::from(placed);
        }
        self.slots.iter().filter(|&&e| e != FREE).count() == wanted
    }

    /// The slot whose replica costs least to give up, of those whose expert has another at home.
    fn least_needed(&self) -> Option<usize> {
        let slots = (0..self.slots.len()).filter(|&slot| self.slots[slot] != FREE);
        let is_spare = |&(_, e): &(usize, u32)| self.counts[e as usize] > 1 || !self.at_home[e as usize];
        let spare = slots.map(|slot| (slot, self.slots[slot])).filter(is_spare);
        let left = |e: u32| self.loads[e as usize] / (self.replicas(e) - 1).max(1);
        spare.min_by_key(|&(slot, e)| (left(e), Reverse(slot))).map(|(slot, _)| slot)
    }

    /// Puts a replica of `e` on the GPU with a free slot that is lightest with it, not beside another where that is avoided.
    fn place(&mut self, e: u32) -> bool {
        let each = self.params.slots_per_gpu as usize;
        let load = |&held: &u32| match held {
            FREE => 0,
            held => self.loads[held as usize] / self.replicas(held).max(1),
        };
        let own = self.loads[e as usize] / (self.replicas(e) + 1);
        let with_it = |at: usize, held: &[u32]| {
            let all = held.iter().map(load).chain([own]);
            all.map(|load| u64::from(self.params.on_gpu(load, self.first + at))).sum::<u64>()
        };
        let gpus = self.slots.chunks_exact(each).enumerate();
        let open = gpus.filter(|(_, gpu)| gpu.contains(&FREE) && !(self.avoid && gpu.contains(&e)));
        let lightest = open.min_by_key(|&(at, held)| (with_it(at, held), at));
        let Some((gpu, held)) = lightest else { return false };
        let free = held.iter().position(|&held| held == FREE).unwrap_or(0);
        self.slots[gpu * each + free] = e;
        self.counts[e as usize] += 1;
        true
    }

    /// Puts a replica of `e` where another was, which goes to a free slot of a GPU that holds `e`.
    fn make_room(&mut self, e: u32) -> bool {
        for free in (0..self.slots.len()).filter(|&slot| self.slots[slot] == FREE) {
            let here = self.gpu_of(free);
            for slot in 0..self.slots.len() {
                let (there, other) = (self.gpu_of(slot), self.slots[slot]);
                let fits = other != FREE
                    && !self.slots[there].contains(&e)
                    && !self.slots[here.clone()].contains(&other);
                if fits {
                    self.slots[free] = other;
                    self.slots[slot] = e;
                    self.counts[e as usize] += 1;
                    return true;
                }
            }
        }
        false
    }
}
