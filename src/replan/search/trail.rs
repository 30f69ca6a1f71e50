//! The trail of a search: the states that it kept, and the changes that lead to them.

use crate::replan::objective::LayerObjective;

/// A state on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Slots whose GPU receives an expert that it did not hold in the plan that runs.
    pub moved: usize,
    /// The sum over windows of the heaviest GPU.
    pub peaks: i32,
    /// The objective without the price of moves.
    pub value: i32,
    /// The objective with it.
    pub priced: i32,
    /// Changes up to here, of [`Trail::changes`].
    pub changes: usize,
}

impl State {
    /// A state whose objective is its peaks alone.
    pub fn of_peaks(objective: &LayerObjective, moved: usize, peaks: i32, changes: usize) -> Self {
        let priced = peaks.saturating_add(objective.price.saturating_mul(moved as i32));
        Self { moved, peaks, value: peaks, priced, changes }
    }
}

/// The states of a search, each better than the one before by the priced objective.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// The first is the start.
    pub states: Vec<State>,
    /// A slot and what it holds from there on, up to the last state.
    pub changes: Vec<(usize, u32)>,
}

impl Trail {
    /// The row of a state, for a search that started with `start`.
    pub fn row(&self, start: &[u32], state: usize) -> Vec<u32> {
        let mut rows = start.to_vec();
        for &(slot, expert) in &self.changes[..self.states[state].changes] {
            rows[slot] = expert;
        }
        rows
    }
}
