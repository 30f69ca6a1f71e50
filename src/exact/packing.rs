//! GPUs of any number of slots: all ways to fill them with given replicas, up to the order of GPUs and slots.

use super::SlotContent;

/// The search: GPU by GPU, each opened by the heaviest replica left, so that no two ways differ in the order
/// of GPUs alone.
pub(super) struct Packing<'a> {
    /// The replicas that are left to place, heaviest first.
    pub items: &'a mut [SlotContent],
    pub slots_per_gpu: u32,
    pub avoid_duplicates: bool,
    /// A load that no plan can go below.
    pub enough: u32,
    /// The least load of a heaviest GPU so far, and the experts of its slots.
    pub best: &'a mut u32,
    pub best_slots: &'a mut Vec<u32>,
    /// The experts of the slots filled.
    pub filled: Vec<u32>,
}

/// Where the search stands.
#[derive(Clone, Copy)]
struct Place {
    /// GPUs not opened yet.
    gpus: u32,
    /// The load that they will carry.
    rest: u32,
    /// Load of the heaviest GPU closed.
    heaviest: u32,
    /// The open GPU: its first item, its empty slots and its load.
    first: usize,
    room: u32,
    load: u32,
}

impl Packing<'_> {
    /// Keeps the first of the best ways to fill `gpus` GPUs, if it is better than the best so far.
    pub fn improve(&mut self, gpus: u32) {
        let rest = self.items.iter().map(|item| item.load * item.count).sum();
        self.open(Place { gpus, rest, heaviest: 0, first: 0, room: 0, load: 0 });
    }

    /// Opens the next GPU, or keeps the plan where there is none.
    fn open(&mut self, place: Place) {
        let Place { gpus, rest, heaviest, .. } = place;
        if gpus == 0 {
            *self.best = heaviest;
            self.best_slots.clone_from(&self.filled);
            return;
        }
        // Below the best, the GPUs left can carry `gpus * (best - 1)`.
        if u64::from(rest) + u64::from(gpus) > u64::from(*self.best) * u64::from(gpus) {
            return;
        }
        let crowded = |item: &SlotContent| item.count > gpus && !item.repeats(self.avoid_duplicates);
        if self.items.iter().any(crowded) {
            return;
        }
        let Some(first) = self.items.iter().position(|item| item.count > 0) else { return };
        let room = self.slots_per_gpu;
        self.put(first, self.items.len(), Place { gpus: gpus - 1, first, room, load: 0, ..place });
    }

    /// Puts a replica of an item on the open GPU, fills it with items before `end`, and takes the replica
    /// back.
    fn put(&mut self, item: usize, end: usize, place: Place) {
        let SlotContent { expert, load, .. } = self.items[item];
        self.items[item].count -= 1;
        self.filled.push(expert);
        let (rest, room, load) = (place.rest - load, place.room - 1, place.load + load);
        self.fill(end, Place { rest, room, load, ..place });
        self.filled.pop();
        self.items[item].count += 1;
    }

    /// Fills the open GPU with items before `end`, each at least as heavy as the one before, and goes on to
    /// the next GPU.
    fn fill(&mut self, end: usize, place: Place) {
        if place.room == 0 {
            let heaviest = place.heaviest.max(place.load);
            if heaviest < *self.best {
                self.open(Place { heaviest, ..place });
            }
            return;
        }
        for item in (place.first..end).rev() {
            let SlotContent { load, count, .. } = self.items[item];
            // A replica that is put here from now on is as heavy or heavier. The best may have become better meanwhile.
            let lightest = place.room.saturating_mul(load).saturating_add(place.load);
            if place.heaviest.max(lightest) >= *self.best || *self.best <= self.enough {
                return;
            }
            let repeats = self.items[item].repeats(self.avoid_duplicates);
            if count > 0 && (repeats || item != place.first) {
                self.put(item, item + usize::from(repeats), place);
            }
        }
    }
}
