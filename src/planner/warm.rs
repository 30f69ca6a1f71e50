//! Planning from the plan that runs: a search that starts there and takes the moves worth their transfer, and a
//! fresh plan, relabelled, where that start is too far off.
//!
//! Runs on the host: a warm search is some tens of steps a layer, whatever device made the fresh plan.

use rayon::prelude::*;

use crate::cluster::Cluster;
use crate::loads::Loads;
use crate::mirror::s5_refine_windows::{Candidate, Kind, Quad, pair_swap, swap, transfer};
use crate::moves::{self, MoveLimits};
use crate::params::{FREE, Params};

/// One state of a layer between the plan that runs and the last move taken.
#[derive(Clone)]
pub struct Point {
    /// Slots whose GPU receives a new expert.
    pub moves: usize,
    /// The objective: the sum over windows of the heaviest GPU, in fixed point.
    pub value: u32,
    /// `[slots]`, `FREE` for a free slot.
    pub slots: Vec<u32>,
    /// Whether it is the fresh plan.
    pub fresh: bool,
}

/// What a layer may become, from staying as it is on.
pub struct Path {
    /// With falling values; the first is the plan that runs.
    pub points: Vec<Point>,
    /// The value of the fresh plan.
    pub fresh_value: u32,
}

/// The paths of all layers from `previous` towards `fresh` (both `[layers][slots]`).
pub fn paths(
    params: &Params,
    cluster: &Cluster,
    loads: &Loads,
    previous: &[u32],
    fresh: &[u32],
    limits: &MoveLimits,
) -> Vec<Path> {
    let whole = whole_layer(params);
    let slots = cluster.num_slots();
    let rows = previous.par_chunks_exact(slots).zip(fresh.par_chunks_exact(slots)).enumerate();
    rows.map_init(Candidate::default, |candidate, (layer, (previous, fresh))| {
        let quads = quads(&whole, loads, layer);
        layer_path(&whole, cluster, &quads, previous, fresh, limits, candidate)
    })
    .collect()
}

/// `params` for candidates of a whole layer, whose replicas stay in their nodes.
fn whole_layer(params: &Params) -> Params {
    Params {
        nodes: 1,
        node_experts: params.experts,
        node_gpus: params.node_gpus * params.nodes,
        node_slots: params.node_slots * params.nodes,
        work_limit: u32::MAX,
        ..params.clone()
    }
}

/// The loads of a layer's experts in all windows, in quads.
fn quads(params: &Params, loads: &Loads, layer: usize) -> Vec<Quad> {
    let (experts, quads) = (params.experts as usize, params.quads() as usize);
    let mut out = vec![Quad::default(); experts * quads];
    let windows = loads.fixed_windows().chunks_exact(loads.layers() * experts);
    for (window, loads) in windows.enumerate() {
        for (expert, &load) in loads[layer * experts..(layer + 1) * experts].iter().enumerate() {
            out[expert * quads + window / 4][window % 4] = load;
        }
    }
    out
}

fn layer_path(
    params: &Params,
    cluster: &Cluster,
    loads: &[Quad],
    previous: &[u32],
    fresh: &[u32],
    limits: &MoveLimits,
    candidate: &mut Candidate,
) -> Path {
    // The layer's objective has no floors.
    candidate.floors = vec![Quad::default(); params.quads() as usize];
    candidate.place(params, loads, fresh);
    candidate.find_tops(params);
    let fresh_value = candidate.value();
    candidate.place(params, loads, previous);
    candidate.find_tops(params);
    let start = candidate.value();
    let mut points = vec![Point { moves: 0, value: start, slots: previous.to_vec(), fresh: false }];
    let even: u32 = (0..params.quads() as usize)
        .map(|q| {
            let total = |i: usize| loads.iter().skip(q).step_by(params.quads() as usize).map(|l| l[i]).sum::<u32>();
            (0..4).map(total).sum::<u32>()
        })
        .sum::<u32>()
        / params.node_gpus;
    if limits.is_balanced(even, start) {
        return Path { points, fresh_value };
    }
    let target = limits.tolerated(fresh_value);
    let home = Home { previous, slots: params.slots_per_gpu as usize };
    let least_gain = limits.least_gain(start);
    let most = limits.max_moves_per_layer.unwrap_or(usize::MAX);
    let (mut value, mut moved) = (start, 0i64);
    while value > target && points.len() <= params.search.steps as usize {
        let Some((found, cost)) = best_move(params, loads, value, &home, candidate) else { break };
        let gain = u64::from(value - found.value);
        if gain < least_gain * cost.max(0) as u64 || moved + cost > i64::try_from(most).unwrap_or(i64::MAX) {
            break;
        }
        candidate.make(params, loads, found.kind);
        candidate.find_tops(params);
        // A transfer's value was an upper bound.
        value = candidate.value();
        moved += cost;
        let slots = candidate.expert.clone();
        points.push(Point { moves: moved.max(0) as usize, value, slots, fresh: false });
    }
    if value > target && fresh_value < value {
        let relabelled = moves::relabel_layer(cluster, previous, fresh);
        let cost = moves::received(cluster.slots_per_gpu(), previous, &relabelled);
        let further = cost.saturating_sub(moved.max(0) as usize) as u64;
        if cost <= most && u64::from(value - fresh_value) >= least_gain * further {
            points.push(Point { moves: cost, value: fresh_value, slots: relabelled, fresh: true });
        }
    }
    Path { points, fresh_value }
}

/// Of the best swap, 2-for-2 swap and transfer the one with the most gain for each slot it changes.
fn best_move(
    params: &Params,
    loads: &[Quad],
    value: u32,
    home: &Home,
    candidate: &mut Candidate,
) -> Option<(crate::mirror::s5_refine_windows::Move, i64)> {
    let search = &params.search;
    let swap = if search.swaps { swap::best(params, value, candidate) } else { None };
    let transfer = if search.transfers { transfer::best(params, loads, value, candidate) } else { None };
    let pair = if search.pair_swaps && swap.is_none() && transfer.is_none() {
        pair_swap::best(params, value, candidate)
    } else {
        None
    };
    let costed = |m| (m, home.cost(candidate, &m));
    [swap, transfer, pair].into_iter().flatten().map(|m: crate::mirror::s5_refine_windows::Move| costed(m.clone())).reduce(|a, b| {
        let gain = |m: &crate::mirror::s5_refine_windows::Move| i64::from(value - m.value);
        // A move back home comes at no cost.
        let worth = |(m, cost): &(_, i64), other: i64| gain(m) * other.max(1) * if *cost < 1 { 2 } else { 1 };
        if worth(&b, a.1) > worth(&a, b.1) { b } else { a }
    })
}

/// Where everything was.
struct Home<'a> {
    previous: &'a [u32],
    slots: usize,
}

impl Home<'_> {
    /// How many more slots' GPUs will have received a new expert after a move.
    fn cost(&self, candidate: &Candidate, found: &crate::mirror::s5_refine_windows::Move) -> i64 {
        match found.kind {
            Kind::Swap(a, b) => self.changes(candidate, &[(a, b)]),
            Kind::PairSwap([a, b], [c, d]) => self.changes(candidate, &[(a, c), (b, d)]),
            Kind::Transfer(slot, expert) => {
                let gpu = slot / self.slots;
                let mut now = self.on(&candidate.expert, gpu).to_vec();
                let before = self.received(gpu, &now);
                now[slot % self.slots] = expert;
                self.received(gpu, &now) - before
            }
        }
    }

    fn changes(&self, candidate: &Candidate, swaps: &[(usize, usize)]) -> i64 {
        let (a, b) = (swaps[0].0 / self.slots, swaps[0].1 / self.slots);
        let mut here = self.on(&candidate.expert, a).to_vec();
        let mut there = self.on(&candidate.expert, b).to_vec();
        let before = self.received(a, &here) + self.received(b, &there);
        for &(from, to) in swaps {
            std::mem::swap(&mut here[from % self.slots], &mut there[to % self.slots]);
        }
        self.received(a, &here) + self.received(b, &there) - before
    }

    fn on<'b>(&self, slots: &'b [u32], gpu: usize) -> &'b [u32] {
        &slots[gpu * self.slots..(gpu + 1) * self.slots]
    }

    fn received(&self, gpu: usize, now: &[u32]) -> i64 {
        moves::received(self.slots, self.on(self.previous, gpu), now) as i64
    }
}

/// Chooses a point of each path so that at most `most` slots change in all: by falling gain for a slot, along
/// the lower convex hull of each path. Returns the index of each layer's point.
pub fn choose(paths: &[Path], most: Option<usize>) -> Vec<usize> {
    let Some(most) = most else { return paths.iter().map(|path| best_point(path)).collect() };
    let mut chosen = vec![0; paths.len()];
    let mut left = most;
    loop {
        // The steepest segment from a chosen point to a later one that still fits.
        let mut best: Option<(f64, usize, usize)> = None;
        for (layer, path) in paths.iter().enumerate() {
            let from = &path.points[chosen[layer]];
            for (index, to) in path.points.iter().enumerate() {
                if to.value >= from.value || to.moves > from.moves + left {
                    continue;
                }
                let cost = to.moves.saturating_sub(from.moves).max(1);
                let slope = f64::from(from.value - to.value) / cost as f64;
                if best.is_none_or(|(steepest, ..)| slope > steepest) {
                    best = Some((slope, layer, index));
                }
            }
        }
        let Some((_, layer, index)) = best else { return chosen };
        let (from, to) = (&paths[layer].points[chosen[layer]], &paths[layer].points[index]);
        left = (left + from.moves).saturating_sub(to.moves);
        chosen[layer] = index;
    }
}

/// The point with the least value, ties to the first.
fn best_point(path: &Path) -> usize {
    (0..path.points.len()).min_by_key(|&i| (path.points[i].value, i)).unwrap_or(0)
}

/// -1 for a free slot, as maps have it.
pub fn to_map(slots: &[u32]) -> impl Iterator<Item = i32> + '_ {
    slots.iter().map(|&e| if e == FREE { -1 } else { e as i32 })
}
