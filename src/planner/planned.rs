//! The result of a search, before it is a plan.

use crate::params::Params;
use crate::plan::Stop;

/// Expert of each slot, and why the search ended, layer after layer.
pub struct Planned {
    /// `[layers][slots]`, `FREE` for a free slot.
    pub slots: Vec<u32>,
    /// `[layers]`.
    pub ends: Vec<Stop>,
}

impl Planned {
    /// Whether a layer's search ended above the gap.
    pub fn is_open(&self) -> bool {
        self.ends.iter().any(|end| end.is_open())
    }

    /// Takes over rows that were worked on after the search.
    pub fn take_rows(&mut self, slots: Vec<u32>, params: &Params) {
        let each = (params.node_slots * params.nodes) as usize;
        let pairs = slots.chunks_exact(each).zip(self.slots.chunks_exact(each));
        for (end, (new, old)) in self.ends.iter_mut().zip(pairs) {
            if new != old {
                *end = Stop::NoMoveLeft;
            }
        }
        self.slots = slots;
    }
}
