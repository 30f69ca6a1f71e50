//! Planning from the plan that runs: a search that starts there and takes the moves worth their transfer, and a
//! fresh plan, relabelled, where that start is too far off.
//!
//! Runs on the host: a warm search is some tens of steps a layer, whatever device made the fresh plan.

use rayon::prelude::*;

use super::group_swap;
use crate::cluster::Cluster;
use crate::loads::Loads;
use crate::moves::{self, MoveLimits};
use crate::params::{FREE, Params};
use crate::planner::warm_moves::WORK_LIMIT;
use crate::planner::warm_moves::{
    Candidate, Kind, Move, Quad, divided, larger, lay_window, pair_swap, plus, sum, swap, transfer,
};

/// The most moves of a layer.
const MOST_STEPS: usize = 1000;

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
    /// The first is the plan that runs; no other has a higher value.
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
    // Nodes are searched with the layer's own expert numbers; an expert without a replica there is elsewhere.
    let node = Params { node_experts: params.experts, ..params.clone() };
    let slots = cluster.num_slots();
    let rows = previous.par_chunks_exact(slots).zip(fresh.par_chunks_exact(slots)).enumerate();
    rows.map_init(Candidate::default, |candidate, (layer, (previous, fresh))| {
        let loads = quads(params, loads, layer);
        let mut search = Search { params: &node, cluster, loads: &loads, previous, limits, candidate };
        search.path(fresh)
    })
    .collect()
}

/// The loads of a layer's experts in all windows, in quads.
fn quads(params: &Params, loads: &Loads, layer: usize) -> Vec<Quad> {
    let (experts, quads) = (params.experts as usize, params.quads() as usize);
    let mut out = vec![Quad::default(); experts * quads];
    let windows = loads.fixed_windows().chunks_exact(loads.layers() * experts);
    for (window, loads) in windows.enumerate() {
        lay_window(quads, window, &loads[layer * experts..(layer + 1) * experts], &mut out);
    }
    out
}

/// One state of a node.
struct NodePoint {
    moves: usize,
    /// The heaviest GPU of each window.
    heaviest: Vec<Quad>,
    slots: Vec<u32>,
}

/// The search of one layer.
struct Search<'a> {
    params: &'a Params,
    cluster: &'a Cluster,
    loads: &'a [Quad],
    previous: &'a [u32],
    limits: &'a MoveLimits,
    candidate: &'a mut Candidate,
}

impl Search<'_> {
    fn path(&mut self, fresh: &[u32]) -> Path {
        let fresh_nodes = self.nodes_of(fresh);
        let fresh_value = value(&fresh_nodes);
        let start = self.nodes_of(self.previous);
        let mut path = Path {
            points: vec![Point {
                moves: 0,
                value: value(&start),
                slots: self.previous.to_vec(),
                fresh: false,
            }],
            fresh_value,
        };
        let even = self.loads.iter().flatten().sum::<u32>() / (self.params.node_gpus * self.params.nodes);
        if self.limits.is_balanced(even, path.points[0].value) {
            return path;
        }
        let most = self.limits.max_moves_per_layer.map_or(usize::MAX, |most| most.of(self.previous.len()));
        let target = self.limits.tolerated(fresh_value);
        // What a fresh search reaches, relative to the busiest node's share.
        let share: u32 = self.shares(fresh).iter().cloned().reduce(larger_of).map_or(0, |s| total(&s));
        let reach = (target, share.max(1));
        self.extend(self.previous, reach, most, &mut path.points);
        if path.least() > target
            && let Some(swapped) = group_swap::best(self.params, self.cluster, self.loads, self.previous)
        {
            self.extend(&swapped, reach, most, &mut path.points);
        }
        if path.least() > target && fresh_value < path.least() {
            let slots = moves::relabel_layer(self.cluster, self.previous, fresh);
            let moves = moves::received(self.cluster.slots_per_gpu(), self.previous, &slots);
            if moves <= most {
                path.points.push(Point { moves, value: fresh_value, slots, fresh: true });
            }
        }
        let stay = path.points[0].value;
        path.points.retain(|point| point.value <= stay);
        path
    }

    /// The states of a placement's nodes.
    fn nodes_of(&mut self, slots: &[u32]) -> Vec<NodePoint> {
        let per_node = self.params.node_slots as usize;
        let nodes = slots.chunks_exact(per_node).zip(self.previous.chunks_exact(per_node));
        nodes.map(|(slots, previous)| self.node_of(slots, previous)).collect()
    }

    /// The state of one node; the candidate holds it then.
    fn node_of(&mut self, slots: &[u32], previous: &[u32]) -> NodePoint {
        self.candidate.floors = vec![Quad::default(); self.params.quads() as usize];
        self.candidate.place(self.params, self.loads, slots);
        self.candidate.find_tops(self.params);
        let moves = moves::received(self.params.slots_per_gpu as usize, previous, slots);
        NodePoint { moves, heaviest: self.candidate.heaviest_loads(), slots: slots.to_vec() }
    }

    /// The load of each node over its GPUs, by window.
    fn shares(&self, slots: &[u32]) -> Vec<Vec<Quad>> {
        let quads = self.params.quads() as usize;
        let share = |node: &[u32]| {
            let mut experts: Vec<u32> = node.iter().copied().filter(|&e| e != FREE).collect();
            experts.sort_unstable();
            experts.dedup();
            let mut sum = vec![Quad::default(); quads];
            for e in experts {
                for (sum, &load) in sum.iter_mut().zip(&self.loads[e as usize * quads..]) {
                    *sum = plus(*sum, load);
                }
            }
            sum.into_iter().map(|quad| divided(quad, self.params.node_gpus)).collect()
        };
        slots.chunks_exact(self.params.node_slots as usize).map(share).collect()
    }

    /// Searches every node from a placement on, each until it is as close to its share as a fresh plan, and
    /// adds the states of the layer in the order in which moves bring most.
    fn extend(&mut self, from: &[u32], reach: (u32, u32), most: usize, points: &mut Vec<Point>) {
        let per_node = self.params.node_slots as usize;
        let shares = self.shares(from);
        let paths: Vec<Vec<NodePoint>> = (0..self.params.nodes as usize)
            .map(|node| {
                let target = u64::from(total(&shares[node])) * u64::from(reach.0) / u64::from(reach.1);
                let slots = &from[node * per_node..(node + 1) * per_node];
                let previous = &self.previous[node * per_node..(node + 1) * per_node];
                self.descend(slots, previous, u32::try_from(target).unwrap_or(u32::MAX))
            })
            .collect();
        let mut at = vec![0; paths.len()];
        loop {
            let now: Vec<&NodePoint> = paths.iter().zip(&at).map(|(path, &i)| &path[i]).collect();
            let moves: usize = now.iter().map(|node| node.moves).sum();
            let here = Point {
                moves,
                value: value(now.iter().copied()),
                slots: now.iter().flat_map(|node| node.slots.iter().copied()).collect(),
                fresh: false,
            };
            let value_now = here.value;
            if moves <= most {
                points.push(here);
            }
            let mut steepest: Option<(f64, usize, usize)> = None;
            for (node, path) in paths.iter().enumerate() {
                let others = now.iter().enumerate().filter(|(other, _)| *other != node);
                let others = others.map(|(_, point)| point.heaviest.clone()).reduce(larger_of);
                for next in at[node] + 1..path.len() {
                    let heaviest = path[next].heaviest.iter().enumerate();
                    let with = |(q, &load): (usize, &Quad)| {
                        sum(others.as_ref().map_or(load, |others| larger(others[q], load)))
                    };
                    let gain = i64::from(value_now) - i64::from(heaviest.map(with).sum::<u32>());
                    let cost = path[next].moves.saturating_sub(path[at[node]].moves).max(1);
                    let slope = gain as f64 / cost as f64;
                    if gain > 0 && steepest.is_none_or(|(most, ..)| slope > most) {
                        steepest = Some((slope, node, next));
                    }
                }
            }
            let Some((_, node, next)) = steepest else { return };
            at[node] = next;
        }
    }

    /// Takes moves in a node until the target or none that helps; its state after each.
    fn descend(&mut self, slots: &[u32], previous: &[u32], target: u32) -> Vec<NodePoint> {
        let params = self.params;
        let home = Home { previous, slots: params.slots_per_gpu as usize };
        let mut path = vec![self.node_of(slots, previous)];
        let mut moved = path[0].moves as i64;
        self.candidate.work = 0;
        for _ in 0..MOST_STEPS {
            let value = self.candidate.value();
            if value <= target || self.candidate.work >= WORK_LIMIT {
                break;
            }
            let Some((found, cost)) = best_move(params, self.loads, value, &home, self.candidate) else {
                break;
            };
            self.candidate.make(params, self.loads, found.kind);
            self.candidate.find_tops(params);
            moved += cost;
            path.push(NodePoint {
                moves: moved.max(0) as usize,
                heaviest: self.candidate.heaviest_loads(),
                slots: self.candidate.expert.clone(),
            });
        }
        path
    }
}

impl Path {
    /// The least value of any point.
    fn least(&self) -> u32 {
        self.points.iter().map(|point| point.value).min().unwrap_or(u32::MAX)
    }

    /// The point with the least value plus the price of its moves; ties to the first.
    fn best(&self, slots: u32, limits: &MoveLimits) -> usize {
        let start = self.points[0].value;
        let total = |point: &Point| u64::from(point.value) + limits.price(start, point.moves, slots);
        (0..self.points.len()).min_by_key(|&i| (total(&self.points[i]), i)).unwrap_or(0)
    }
}

/// The layer's objective: the sum over windows of the heaviest GPU of any node.
fn value<'a>(nodes: impl IntoIterator<Item = &'a NodePoint>) -> u32 {
    let nodes = nodes.into_iter();
    nodes.map(|node| node.heaviest.clone()).reduce(larger_of).map_or(0, |heaviest| total(&heaviest))
}

fn larger_of(a: Vec<Quad>, b: Vec<Quad>) -> Vec<Quad> {
    a.into_iter().zip(b).map(|(a, b)| larger(a, b)).collect()
}

fn total(loads: &[Quad]) -> u32 {
    loads.iter().map(|&quad| sum(quad)).sum()
}

/// The best swap; where no swap helps, the best transfer, then 2-for-2 swap. With the slots it moves. (A transfer
/// moves one slot and a swap two, but counts near the fresh ones hold up better on the next window.)
fn best_move(
    params: &Params,
    loads: &[Quad],
    value: u32,
    home: &Home,
    candidate: &mut Candidate,
) -> Option<(Move, i64)> {
    let mut found = swap::best(params, value, candidate);
    if found.is_none() {
        found = transfer::best(params, loads, value, candidate);
    }
    if found.is_none() && params.windows == 1 {
        found = pair_swap::best(params, value, candidate);
    }
    found.map(|found| (found, home.cost(candidate, &found)))
}

/// Where everything was.
struct Home<'a> {
    previous: &'a [u32],
    slots: usize,
}

impl Home<'_> {
    /// How many more slots' GPUs will have received a new expert after a move.
    fn cost(&self, candidate: &Candidate, found: &Move) -> i64 {
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

/// Chooses a point of each path: the one that is worth its moves; where only so many slots may change in all,
/// none that costs more, by falling gain for a slot over all layers.
pub fn choose(params: &Params, paths: &[Path], limits: &MoveLimits) -> Vec<usize> {
    let slots = params.node_slots * params.nodes;
    let best: Vec<usize> = paths.iter().map(|path| path.best(slots, limits)).collect();
    let moves = |chosen: &[usize]| -> usize {
        paths.iter().zip(chosen).map(|(path, &index)| path.points[index].moves).sum()
    };
    let most = limits.max_moves.map(|most| most.of(slots as usize * paths.len()));
    let Some(most) = most.filter(|&most| moves(&best) > most) else { return best };
    let mut chosen = vec![0; paths.len()];
    let mut left = most;
    // The steepest way from a layer's chosen point to another one that fits, not past what is worth it.
    let steepest = |layer: usize, chosen: usize, left: usize| -> Option<(f64, usize)> {
        let points = &paths[layer].points;
        let from = &points[chosen];
        let fits = |to: &Point| {
            to.value < from.value && to.moves <= points[best[layer]].moves && to.moves <= from.moves + left
        };
        let slope =
            |to: &Point| f64::from(from.value - to.value) / to.moves.saturating_sub(from.moves).max(1) as f64;
        let ways = points.iter().enumerate().filter(|(_, to)| fits(to)).map(|(i, to)| (slope(to), i));
        ways.reduce(|a, b| if b.0 > a.0 { b } else { a })
    };
    let mut ways: Vec<Option<(f64, usize)>> = (0..paths.len()).map(|l| steepest(l, 0, left)).collect();
    loop {
        let open =
            ways.iter().enumerate().filter_map(|(layer, way)| way.map(|(slope, to)| (slope, layer, to)));
        let Some((_, layer, to)) = open.reduce(|a, b| if b.0 > a.0 { b } else { a }) else { return chosen };
        let points = &paths[layer].points;
        // What fitted once may not any more: then the layer looks again.
        if points[to].moves <= points[chosen[layer]].moves + left {
            left = (left + points[chosen[layer]].moves).saturating_sub(points[to].moves);
            chosen[layer] = to;
        }
        ways[layer] = steepest(layer, chosen[layer], left);
    }
}
