//! Any row, made valid, so that a search can start from it. Slots come and go with GPUs, and the map that a server starts with
//! has groups across nodes and experts twice on a GPU. Replicas that can stay do.

use std::cmp::Reverse;

use crate::params::{FREE, Params};

/// A valid row in which the replicas of `old` that can stay keep their slots. `loads` is `[experts]`.
pub fn mend(params: &Params, loads: &[u32], old: &[u32]) -> Vec<u32> {
    let node_slots = params.node_slots as usize;
    let home = homes(params, old);
    let mut row = old.to_vec();
    for (slot, held) in row.iter_mut().enumerate() {
        if *held != FREE && home[(*held / params.group_size) as usize] != slot / node_slots {
            *held = FREE;
        }
    }
    for (at, slots) in row.chunks_exact_mut(node_slots).enumerate() {
        let experts: Vec<u32> =
            (0..params.experts).filter(|e| home[(e / params.group_size) as usize] == at).collect();
        let (avoid, first) = (params.avoid_duplicates, at * params.node_gpus as usize);
        let mut node = NodeSlots { params, loads, avoid, counts: vec![0; loads.len()], first, slots };
        node.count();
        node.fill(&experts);
    }
    row
}

/// The node of each group: the one that holds most of it, largest holdings first, while there is room.
fn homes(params: &Params, old: &[u32]) -> Vec<usize> {
    let (groups, nodes) = (params.groups as usize, params.nodes as usize);
    let mut held = vec![0usize; groups * nodes];
    for (slot, &e) in old.iter().enumerate().filter(|(_, e)| **e != FREE) {
        held[(e / params.group_size) as usize * nodes + slot / params.node_slots as usize] += 1;
    }
    let mut order: Vec<usize> = (0..held.len()).collect();
    order.sort_by_key(|&at| (Reverse(held[at]), at));
    let mut home = vec![usize::MAX; groups];
    let mut room = vec![params.node_groups; nodes];
    for at in order {
        let (group, node) = (at / nodes, at % nodes);
        if home[group] == usize::MAX && room[node] > 0 {
            home[group] = node;
            room[node] -= 1;
        }
    }
    home
}

/// The slots of a node while they are filled.
struct NodeSlots<'a> {
    params: &'a Params,
    loads: &'a [u32],
    avoid: bool,
    /// Replicas of each expert.
    counts: Vec<u32>,
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
            if is_duplicate || self.counts[e as usize] == self.params.max_count {
                self.slots[slot] = FREE;
            } else {
                self.counts[e as usize] += 1;
            }
        }
    }

    /// Gives every expert a replica, and the rest to those with most load a replica, until as many slots are filled as
    /// must be.
    fn fill(&mut self, experts: &[u32]) {
        let wanted = self.params.node_replicas as usize;
        let mut missing: Vec<u32> =
            experts.iter().copied().filter(|&e| self.counts[e as usize] == 0).collect();
        missing.sort_by_key(|&e| (Reverse(self.loads[e as usize]), e));
        let mut filled = self.slots.iter().filter(|&&e| e != FREE).count();
        while filled + missing.len() > wanted {
            let Some(slot) = self.least_needed() else { break };
            self.counts[self.slots[slot] as usize] -= 1;
            self.slots[slot] = FREE;
            filled -= 1;
        }
        for e in missing {
            filled += usize::from(self.place(e));
        }
        while filled < wanted {
            let share = |e: u32| {
                let count = self.counts[e as usize];
                (self.loads[e as usize] / count.max(1), Reverse(count), Reverse(e))
            };
            let open = experts.iter().copied().filter(|&e| self.counts[e as usize] < self.params.max_count);
            let mut order: Vec<u32> = open.collect();
            order.sort_by_key(|&e| Reverse(share(e)));
            // Where every expert that may have another is on each GPU with a free slot, one of those makes room.
            let placed = order.iter().any(|&e| self.place(e)) || order.iter().any(|&e| self.make_room(e));
            if !placed && !std::mem::replace(&mut self.avoid, false) {
                return;
            }
            filled += usize::from(placed);
        }
    }

    /// The slot whose replica costs least to give up, of those whose expert has another.
    fn least_needed(&self) -> Option<usize> {
        let slots = (0..self.slots.len()).filter(|&slot| self.slots[slot] != FREE);
        let spare = slots.map(|slot| (slot, self.slots[slot] as usize)).filter(|&(_, e)| self.counts[e] > 1);
        spare
            .min_by_key(|&(slot, e)| (self.loads[e] / (self.counts[e] - 1), Reverse(slot)))
            .map(|(slot, _)| slot)
    }

    /// Puts a replica of `e` on the GPU with a free slot that is lightest with it, not beside another where that is avoided.
    fn place(&mut self, e: u32) -> bool {
        let each = self.params.slots_per_gpu as usize;
        let load = |&held: &u32| match held {
            FREE => 0,
            held => self.loads[held as usize] / self.counts[held as usize].max(1),
        };
        let own = self.loads[e as usize] / (self.counts[e as usize] + 1);
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
