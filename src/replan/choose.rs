//! The path of a layer, and which of its states is chosen.

use super::search::{State, Trail};
use crate::moves::{self, MoveLimits};
use crate::params::Params;

/// The states that a layer may come to.
pub struct Path {
    /// Rows, and what was made of them. The first row is the one that runs, mended.
    pub trails: Vec<(Vec<u32>, Trail)>,
    /// All states, of which the first is the start. Each has a lower priced objective than the one before.
    pub states: Vec<State>,
    /// Of which trail each is, and its number there.
    pub from: Vec<(usize, usize)>,
    /// The trail from another row than the one that runs, if there is one.
    pub anew: Option<usize>,
}

/// Where limits are for all layers, what a trail from another row gains counts this many times, in tenths: it is by the loads of
/// whole groups, or of nodes, which last longer than those of single replicas. (Next window of V3 in 4 nodes, 5 % moved a step:
/// .8262 with 20 to 30, .8257 with 10; of generated series .0002 to .0074 more with 25.)
const ANEW_WORTH: i64 = 25;

/// A state chosen of a path.
pub struct Chosen {
    /// The row.
    pub row: Vec<u32>,
    /// Slots whose GPU receives an expert, and those of them that make the row that ran valid.
    pub moved: usize,
    pub repairs: usize,
    /// The objective: at the start and now.
    pub before: i32,
    pub after: i32,
}

impl Path {
    /// The row of a state.
    pub fn row(&self, state: usize) -> Vec<u32> {
        let (trail, at) = self.from[state];
        let (start, trail) = &self.trails[trail];
        trail.row(start, at)
    }

    /// Leaves out the states that take more rounds than `most`, and than the start.
    pub fn keep_rounds(&mut self, most: usize, rounds: impl Fn(&[u32]) -> usize) {
        let most = most.max(rounds(&self.row(0)));
        let keeps: Vec<usize> = (0..self.states.len()).filter(|&at| rounds(&self.row(at)) <= most).collect();
        self.states = keeps.iter().map(|&at| self.states[at]).collect();
        self.from = keeps.iter().map(|&at| self.from[at]).collect();
    }

    /// Slots that a state moves for balance, besides those that had to move.
    fn extra(&self, state: usize) -> usize {
        self.states[state].moved.saturating_sub(self.states[0].moved)
    }

    /// The best state that moves at most `most` slots.
    pub fn best(&self, most: usize) -> usize {
        (0..self.states.len()).rev().find(|&state| self.extra(state) <= most).unwrap_or(0)
    }

    /// The steepest way from a state to a later one that moves at most `left` slots more: what it gains, what it
    /// moves, and the state. Ties to the earlier.
    fn steepest(&self, from: usize, left: usize, most: usize) -> Option<(i64, i64, usize)> {
        let mut best: Option<(i64, i64, usize)> = None;
        for to in from + 1..=self.best(most) {
            let gain = i64::from(self.states[from].value) - i64::from(self.states[to].value);
            let is_anew = |state: usize| self.anew == Some(self.from[state].0);
            let gain = if is_anew(to) && !is_anew(from) { gain * ANEW_WORTH / 10 } else { gain };
            let cost = self.extra(to).saturating_sub(self.extra(from));
            if gain <= 0 || cost > left || self.extra(to) > most {
                continue;
            }
            let slope = (gain, cost.max(1) as i64, to);
            if best.is_none_or(|best| is_steeper(slope, best)) {
                best = Some(slope);
            }
        }
        best
    }
}

fn is_steeper(a: (i64, i64, usize), b: (i64, i64, usize)) -> bool {
    i128::from(a.0) * i128::from(b.1) > i128::from(b.0) * i128::from(a.1)
}

/// Chooses a state of each path: the best one that keeps the limits of a layer. Where `max_moves` bounds all layers
/// together, the states that gain most for each moved slot.
pub fn choose(params: &Params, paths: &[Path], previous: &[u32], limits: &MoveLimits) -> Vec<Chosen> {
    let slots = (params.node_slots * params.nodes) as usize;
    let most = most_of_layer(params, limits);
    let mut at: Vec<usize> = paths.iter().map(|path| path.best(most)).collect();
    let moves: usize = paths.iter().zip(&at).map(|(path, &state)| path.extra(state)).sum();
    if let Some(all) = limits.max_moves.map(|all| all.of(slots * paths.len())).filter(|&all| moves > all) {
        at = share_out(paths, all, most);
    }
    let rows = previous.chunks_exact(slots);
    let per_gpu = params.slots_per_gpu as usize;
    let chosen = |((path, state), old): ((&Path, usize), &[u32])| {
        let row = path.row(state);
        let gpus = old.chunks_exact(per_gpu).zip(row.chunks_exact(per_gpu));
        Chosen {
            row: gpus.flat_map(|(old, new)| moves::in_place(old, new)).collect(),
            moved: path.states[state].moved,
            // A search may undo what mending moved.
            repairs: path.states[0].moved.min(path.states[state].moved),
            before: path.states[0].value,
            after: path.states[state].value,
        }
    };
    paths.iter().zip(at).zip(rows).map(chosen).collect()
}

/// The most slots of a layer that may move.
pub fn most_of_layer(params: &Params, limits: &MoveLimits) -> usize {
    let slots = (params.node_slots * params.nodes) as usize;
    let alone = limits.max_moves_per_layer.map_or(usize::MAX, |most| most.of(slots));
    let together = limits.max_moves.map_or(usize::MAX, |most| most.of(slots * params.layers as usize));
    alone.min(together)
}

/// A state of each path, so that all together move at most `left` slots: step by step the way of greatest gain for a slot,
/// over all layers.
fn share_out(paths: &[Path], mut left: usize, most: usize) -> Vec<usize> {
    let mut at = vec![0; paths.len()];
    let mut ways: Vec<_> = paths.iter().map(|path| path.steepest(0, left, most)).collect();
    loop {
        let open = ways.iter().enumerate().filter_map(|(layer, way)| Some((layer, (*way)?)));
        let Some((layer, (.., to))) =
            open.reduce(|best, next| if is_steeper(next.1, best.1) { next } else { best })
        else {
            return at;
        };
        // No later state moves less: it would have been steeper than the one that was chosen before it.
        let cost = paths[layer].extra(to).saturating_sub(paths[layer].extra(at[layer]));
        if cost <= left {
            left -= cost;
            at[layer] = to;
        }
        ways[layer] = paths[layer].steepest(at[layer], left, most);
    }
}

impl Chosen {
    /// By which part the objective falls.
    pub fn gain(&self) -> f64 {
        match self.before {
            0 => 0.0,
            before => 1.0 - f64::from(self.after) / f64::from(before),
        }
    }
}
