//! The states that the searches of a layer offer, and the path that is made of them.

use std::cmp::Reverse;

use super::choose::Path;
use super::objective::LayerObjective;
use super::search::{State, Trail};

/// States of several searches.
pub struct Offered {
    trails: Vec<(Vec<u32>, Trail)>,
    /// The state, which trail it is of, and its number there. The first is the start.
    states: Vec<(State, (usize, usize))>,
    /// The trail from another row than the one that runs, if there is one.
    anew: Option<usize>,
}

impl Offered {
    /// All states of a search from `start`.
    pub fn new(start: Vec<u32>, trail: Trail) -> Self {
        let states = trail.states.iter().enumerate().map(|(at, &state)| (state, (0, at))).collect();
        Self { trails: vec![(start, trail)], states, anew: None }
    }

    pub fn start(&self) -> &[u32] {
        &self.trails[0].0
    }

    /// All states of a search from another row, where its last one is the best of all.
    pub fn add_anew(&mut self, row: Vec<u32>, trail: Trail) {
        let last = trail.states[trail.states.len() - 1].priced;
        if self.states.iter().all(|(state, _)| last < state.priced) {
            let number = self.trails.len();
            self.states.extend(trail.states.iter().enumerate().map(|(at, &state)| (state, (number, at))));
            self.trails.push((row, trail));
            self.anew = Some(number);
        }
    }

    /// Judges all states by their peaks alone.
    pub fn weigh_peaks(&mut self, objective: &LayerObjective) {
        for (state, _) in &mut self.states {
            *state = State::of_peaks(objective, state.moved, state.peaks, state.changes);
        }
    }

    /// All states of another search from `start`, where it reaches lower peaks with at most `most` slots moved for balance.
    pub fn add_lower(&mut self, start: Vec<u32>, trail: Trail, most: usize) {
        let most = most.saturating_add(self.states[0].0.moved);
        let reached = |states: &mut dyn Iterator<Item = &State>| {
            states.filter(|state| state.moved <= most).map(|state| state.peaks).min()
        };
        let before = reached(&mut self.states.iter().map(|(state, _)| state));
        if reached(&mut trail.states.iter()) < before {
            let number = self.trails.len();
            let more = trail.states.iter().enumerate().map(|(at, &state)| (state, (number, at)));
            self.states.extend(more.skip(1));
            self.trails.push((start, trail));
        }
    }

    /// The path: each state has a lower priced objective than the one before. Where it is `guarded`, none has heavier peaks
    /// than the start.
    pub fn path(mut self, guarded: bool) -> Path {
        let start = self.states[0].0;
        // Of equals the one that moves least.
        self.states[1..].sort_by_key(|(state, _)| (Reverse(state.priced), state.moved));
        let (mut states, mut from) = (Vec::new(), Vec::new());
        let mut least = i32::MAX;
        for (state, of) in self.states {
            if state.priced < least && (!guarded || state.peaks <= start.peaks) {
                least = state.priced;
                states.push(state);
                from.push(of);
            }
        }
        Path { trails: self.trails, states, from, anew: self.anew }
    }
}
