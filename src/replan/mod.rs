//! Plans over time: from the plan that runs, for each layer a path of placements, from few moves to the best balance.
//!
//! It knows plans and loads alone: no cold plan is made, and the path of a layer does not depend on what other layers
//! hold.

mod choose;
mod descent;
mod groups;
mod mend;
mod objective;
mod offered;
pub mod search;

use crate::error::Error;
use crate::foreign;
use crate::loads::FIXED_TOTAL;
use crate::moves::{self, MoveLimits};
use crate::params::{FREE, Params, to_map};
use crate::rows::{homes, peaks};
use crate::threads;
use crate::watch::Attempt;
use choose::most_of_layer;
pub use choose::{Chosen, Path, choose};
pub use objective::LayerObjective;
use offered::Offered;
use search::{Trail, TrailSearch, TrailTask};

/// Follows the trajectories of tasks in the place of the host's threads, on a device. One trail a task.
pub type Follow<'a> = dyn Fn(&[TrailTask<'_>]) -> Result<Vec<Trail>, Error> + Sync + 'a;

/// Iterations without a new best after which a search ends: it goes on from there with the next window.
const PATIENCE: u32 = 2;
/// The same where a layer has few GPUs, and each iteration looks at few exchanges.
const SMALL_PATIENCE: u32 = 8;
/// See [`SMALL_PATIENCE`].
const SMALL_GPUS: u32 = 8;
/// The same where nothing runs that moves are counted from.
const COLD_PATIENCE: u32 = 32;

/// By how many millionths the heaviest GPU may become heavier where GPUs are connected.
const LINK_PPM: u64 = 2000;
/// See [`LINK_PPM`].
const MILLION: u64 = 1_000_000;
/// What each part of a node's GPUs beyond the first costs in these searches. With a fifth of it, as in plans over time, one layer
/// in ten stays apart.
const COLD_PART_PRICE_PPM: u32 = 50_000;
/// Searches that bring no GPUs of a layer together, after which the rest stay apart.
const CONNECT_TRIES: u32 = 8;

/// The paths of all layers from `previous`, `[layers][slots]`, which may break any rule. `windows` is
/// `[windows][layers][experts]`. Rounds of moves are counted for nodes of `node_gpus` GPUs. Without `follow` the host follows the
/// trajectories, which are the same.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped, and those of `follow`.
pub fn paths(
    params: &Params,
    windows: &[u32],
    previous: &[u32],
    (limits, node_gpus): (&MoveLimits, usize),
    attempt: &Attempt<'_>,
    follow: Option<&Follow<'_>>,
) -> Result<Vec<Path>, Error> {
    let small = params.node_gpus * params.nodes <= SMALL_GPUS;
    let patience = if small { SMALL_PATIENCE } else { PATIENCE };
    // The moves that all layers may make together are shared out once all are searched.
    let most = most_of_layer(params, limits);
    let best = |path: &Path| path.row(path.best(most));
    // To connect GPUs may make the heaviest GPU heavier.
    let rules = SearchRules { limits, patience, guarded: !params.connected(), node_gpus };
    let call = ReplanCall { params, windows, previous, attempt };
    call.paths(rules, follow, &best)
}

/// The best rows of all layers, `[layers][slots]`, by the objective of plans over time, for a search from `rows` in which moves
/// cost nothing.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped, and those of `follow`.
pub fn polish(
    params: &Params,
    windows: &[u32],
    rows: &[u32],
    attempt: &Attempt<'_>,
    follow: Option<&Follow<'_>>,
) -> Result<Vec<u32>, Error> {
    let last = |path: &Path| path.row(path.states.len() - 1);
    let call = ReplanCall { params, windows, previous: rows, attempt };
    let paths = call.paths(SearchRules::cold(&unlimited()), follow, &last)?;
    Ok(paths.iter().flat_map(last).collect())
}

/// For plans that do not run yet: moves cost nothing.
fn unlimited() -> MoveLimits {
    MoveLimits { min_gain_ppm: Some(0), skip_if_balanced_ppm: None, ..MoveLimits::default() }
}

/// `rows` of all layers, `[layers][slots]`, with the GPUs of each connected where that makes the heaviest GPU at most
/// [`LINK_PPM`] heavier. Layers that are connected stay as they are.
///
/// # Errors
/// [`Error::Cancelled`] where the call was stopped.
pub fn connect(
    params: &Params,
    windows: &[u32],
    rows: &[u32],
    attempt: &Attempt<'_>,
) -> Result<Vec<u32>, Error> {
    let limits = unlimited();
    let work = |layer: ReplanLayer<'_>, search: &mut TrailSearch| {
        let peak = |row: &[u32]| u64::from(peaks(params, &layer.rows, row));
        let most = peak(layer.previous) * (MILLION + LINK_PPM) / MILLION;
        let (mut best, mut tries) = (layer.previous.to_vec(), 0);
        // Each search goes on where the last one ended, or draws other GPUs.
        while !is_connected(params, &best) && tries < CONNECT_TRIES {
            let drawn = Params {
                seed: [params.seed[0], params.seed[1].wrapping_add(tries)],
                part_price_ppm: COLD_PART_PRICE_PPM,
                ..params.clone()
            };
            let from = ReplanLayer { params: &drawn, rows: layer.rows.clone(), previous: &best };
            let path = from.path(SearchRules::cold(&limits), search);
            let parts = self::parts(params, &best);
            let rows = (0..path.states.len()).rev().map(|state| path.row(state));
            let joined = rows.filter(|row| peak(row) <= most && self::parts(params, row) < parts);
            match joined.min_by_key(|row| self::parts(params, row)) {
                Some(row) => best = row,
                None => tries += 1,
            }
        }
        best
    };
    let call = ReplanCall { params, windows, previous: rows, attempt };
    Ok(call.each_layer(work, Some(&Vec::clone))?.concat())
}

/// Whether the GPUs of each node of a layer are connected.
pub fn is_connected(params: &Params, row: &[u32]) -> bool {
    parts(params, row) == params.nodes as usize
}

/// The number of parts that the GPUs of a layer fall into: GPUs with replicas of one expert are in one part.
fn parts(params: &Params, row: &[u32]) -> usize {
    let gpus = (params.node_gpus * params.nodes) as usize;
    let mut part: Vec<usize> = (0..gpus).collect();
    let mut holder = vec![usize::MAX; params.experts as usize];
    let mut parts = gpus;
    for (slot, &expert) in row.iter().enumerate().filter(|(_, e)| **e != FREE) {
        let gpu = slot / params.slots_per_gpu as usize;
        let first = std::mem::replace(&mut holder[expert as usize], gpu);
        if first != usize::MAX && part[first] != part[gpu] {
            let (from, to) = (part[first], part[gpu]);
            part.iter_mut().filter(|part| **part == from).for_each(|part| *part = to);
            parts -= 1;
        }
    }
    parts
}

/// All layers, and what is done with them.
#[derive(Clone, Copy)]
struct ReplanCall<'a> {
    params: &'a Params,
    windows: &'a [u32],
    previous: &'a [u32],
    attempt: &'a Attempt<'a>,
}

/// Tells the row that a result stands for.
type RowOf<'a, T> = &'a (dyn Fn(&T) -> Vec<u32> + Sync);

impl ReplanCall<'_> {
    /// The paths of all layers. Whoever watches is told the `row` of each.
    fn paths(
        self,
        rules: SearchRules<'_>,
        follow: Option<&Follow<'_>>,
        row: RowOf<'_, Path>,
    ) -> Result<Vec<Path>, Error> {
        let Some(follow) = follow else {
            let work = |layer: ReplanLayer<'_>, search: &mut TrailSearch| layer.path(rules, search);
            return self.each_layer(work, Some(row));
        };
        let searches = self.each_layer(|layer, _| layer.searches(rules), None)?;
        let slots = (self.params.node_slots * self.params.nodes) as usize;
        let rows = || self.previous.chunks_exact(slots);
        let layers = rows().zip(&searches);
        let layer = |previous| ReplanLayer { params: self.params, rows: Vec::new(), previous };
        let tasks: Vec<TrailTask<'_>> =
            layers.flat_map(|(previous, searches)| layer(previous).tasks(searches)).collect();
        let mut trails = follow(&tasks)?.into_iter();
        let mut path = |(at, (searches, previous)): (usize, (Searches, &[u32]))| {
            let trails = trails.by_ref().take(searches.starts.len()).collect();
            let path = searches.path(self.params, previous, rules, trails);
            self.tell(at, &path, row);
            path
        };
        Ok(searches.into_iter().zip(rows()).enumerate().map(&mut path).collect())
    }

    /// The results of `work` for every layer. Whoever watches is told the `row` of each.
    fn each_layer<T: Send>(
        self,
        work: impl Fn(ReplanLayer<'_>, &mut TrailSearch) -> T + Sync,
        row: Option<RowOf<'_, T>>,
    ) -> Result<Vec<T>, Error> {
        let Self { params, windows, previous, attempt } = self;
        let experts = params.experts as usize;
        let slots = (params.node_slots * params.nodes) as usize;
        let layers = threads::each(params.layers as usize, |at, search: &mut TrailSearch| {
            attempt.go_on()?;
            let window = |window: &[u32]| even(&window[at * experts..(at + 1) * experts], params.windows);
            let rows: Vec<Vec<u32>> =
                windows.chunks_exact(params.layers as usize * experts).map(window).collect();
            let previous = &previous[at * slots..(at + 1) * slots];
            let made = work(
                ReplanLayer { params, rows: rows.iter().map(|row| &row[..]).collect(), previous },
                search,
            );
            if let Some(row) = row {
                self.tell(at, &made, row);
            }
            Ok(made)
        });
        layers.into_iter().collect()
    }

    /// Tells whoever watches of a layer. A row is made where somebody listens.
    fn tell<T>(self, at: usize, made: &T, row: RowOf<'_, T>) {
        let row = std::iter::once_with(|| row(made));
        self.attempt.finish_as(at, row.flat_map(|row| to_map(&row).collect::<Vec<_>>()));
    }
}

/// A window's loads of a layer, scaled so that all layers have the same sum. Several windows have it already.
fn even(row: &[u32], windows: u32) -> Vec<u32> {
    let total: u64 = row.iter().map(|&load| u64::from(load)).sum();
    if windows > 1 || total == 0 {
        return row.to_vec();
    }
    row.iter().map(|&load| (u64::from(load) * u64::from(FIXED_TOTAL) / total) as u32).collect()
}

/// A layer of a call.
struct ReplanLayer<'a> {
    params: &'a Params,
    /// Loads, window by window.
    rows: Vec<&'a [u32]>,
    previous: &'a [u32],
}

/// How the layers of a call are searched, and which states are kept.
#[derive(Clone, Copy)]
struct SearchRules<'a> {
    limits: &'a MoveLimits,
    /// Iterations without a new best after which a search ends.
    patience: u32,
    /// Whether no state may have a heavier sum of the windows' heaviest GPUs than the start, and states of one window in a small
    /// layer are judged by the heaviest GPU alone.
    guarded: bool,
    /// GPUs of a node, for rounds of moves.
    node_gpus: usize,
}

impl<'a> SearchRules<'a> {
    /// For plans that do not run yet.
    fn cold(limits: &'a MoveLimits) -> Self {
        Self { limits, patience: COLD_PATIENCE, guarded: false, node_gpus: 1 }
    }
}

/// The searches of a layer.
struct Searches {
    objective: LayerObjective,
    /// The mended row. After it where two groups had better change places the row in which they have, or with foreign replicas
    /// the row with others, where these are better.
    starts: Vec<Vec<u32>>,
    patience: u32,
    /// The most foreign replicas.
    most_foreign: u32,
}

impl<'a> ReplanLayer<'a> {
    fn searches(&self, rules: SearchRules<'_>) -> Searches {
        let Self { params, previous, .. } = *self;
        let SearchRules { limits, patience, .. } = rules;
        let all_slots = (params.layers * params.nodes * params.node_slots) as usize;
        let objective = LayerObjective::new(params, &self.rows, limits.min_gain(all_slots));
        let sums: Vec<u32> =
            (0..params.experts as usize).map(|e| self.rows.iter().map(|row| row[e]).sum()).collect();
        let start = mend::mend(params, &sums, previous);
        let stays = limits.is_balanced(objective.mean as u32, peaks(params, &self.rows, &start));
        // A layer that is left alone has the start as its only state.
        let patience = if stays { 0 } else { patience };
        let most_foreign = self.most_foreign(&objective, &start);
        let other = match objective.mean > 0 && !stays {
            false => None,
            true if params.most_foreign > 0 => foreign::choose_anew(params, &sums, &start),
            true => groups::exchange(params, &objective, &start),
        };
        Searches { objective, starts: std::iter::once(start).chain(other).collect(), patience, most_foreign }
    }

    /// The most foreign replicas of a layer: no more than it has, where that is even enough.
    fn most_foreign(&self, objective: &LayerObjective, start: &[u32]) -> u32 {
        let Self { params, ref rows, .. } = *self;
        let target = u64::from(params.foreign_target_ppm) * objective.mean as u64;
        match params.most_foreign {
            0 => 0,
            _ if u64::from(peaks(params, rows, start)) * MILLION <= target => {
                let homes = homes(params, start);
                let node = |slot: usize| slot as u32 / params.node_slots;
                let held = start.iter().enumerate().filter(|(_, e)| **e != FREE);
                held.filter(|&(slot, &e)| homes[e as usize] != node(slot)).count() as u32
            }
            most => most,
        }
    }

    /// The trajectories to follow.
    fn tasks<'b>(&self, searches: &'b Searches) -> impl Iterator<Item = TrailTask<'b>> + use<'a, 'b>
    where
        'a: 'b,
    {
        let Self { params, previous, .. } = *self;
        let &Searches { ref objective, ref starts, patience, most_foreign } = searches;
        let task = move |start: &'b Vec<u32>| TrailTask {
            params,
            objective,
            previous,
            start,
            patience,
            most_foreign,
        };
        starts.iter().map(task)
    }

    fn path(&self, rules: SearchRules<'_>, search: &mut TrailSearch) -> Path {
        let searches = self.searches(rules);
        let trails = self.tasks(&searches).map(|task| task.run(search)).collect();
        searches.path(self.params, self.previous, rules, trails)
    }
}

impl Searches {
    /// The path that the trails of all starts make.
    fn path(self, params: &Params, previous: &[u32], rules: SearchRules<'_>, trails: Vec<Trail>) -> Path {
        let mut trails = self.starts.into_iter().zip(trails);
        let (start, trail) = trails.next().unwrap_or_default();
        let mut offered = Offered::new(start, trail);
        for (start, trail) in trails {
            offered.add_anew(start, trail);
        }
        let may_move = self.patience > 0 && self.objective.mean > 0;
        if may_move && rules.guarded && descent::applies(params) {
            let start = offered.start().to_vec();
            let most = most_of_layer(params, rules.limits);
            let descent = descent::descend(params, &self.objective, previous, &start, most);
            offered.weigh_peaks(&self.objective);
            offered.add_lower(start, descent, most);
        }
        let mut path = offered.path(rules.guarded);
        if let Some(most) = rules.limits.max_rounds_per_layer {
            let each = params.slots_per_gpu as usize;
            path.keep_rounds(most, |row| moves::transfers(each, rules.node_gpus, previous, row).0);
        }
        path
    }
}

/// Layers whose heaviest GPUs, all windows together, are heavier than they were: their rows broke a rule and could not be kept.
pub fn heavier(params: &Params, windows: &[u32], previous: &[u32], chosen: &[Chosen]) -> Vec<usize> {
    let (experts, slots) = (params.experts as usize, (params.node_slots * params.nodes) as usize);
    let is_heavier = |&layer: &usize| {
        let all = windows.chunks_exact(params.layers as usize * experts);
        let rows: Vec<&[u32]> = all.map(|window| &window[layer * experts..(layer + 1) * experts]).collect();
        let old = &previous[layer * slots..(layer + 1) * slots];
        let serves_all = || (0..params.experts).all(|expert| old.contains(&expert));
        let peak = |row: &[u32]| peaks(params, &rows, row);
        // Less is rounding.
        let is_more = |before: u32, now: u32| now > before + (before >> 16);
        chosen[layer].repairs > 0 && serves_all() && is_more(peak(old), peak(&chosen[layer].row))
    };
    (0..chosen.len()).filter(is_heavier).collect()
}
