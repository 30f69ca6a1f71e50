//! The hierarchical policy where up to `F` replicas of a layer are foreign: in another node than their group's home.
//!
//! Fix an assignment of groups to homes, with `L_n` the load of the experts at home in node `n`, and a plan of it whose
//! GPUs all carry at most `t`; a node has `D` GPUs, and `X` replicas more than experts at home. An expert of load `w`
//! has `j` foreign replicas and at least one at home.
//!
//! **What leaves a node.** No replica is heavier than `t`, so an expert has at least `C = ceil(w / t)` of them, and
//! `c >= max(j + 1, C)`. The part that foreign replicas serve is `w j / c <= v(j) = w j / max(j + 1, C)`. The steps `v(j) - v(j - 1)`
//! never grow with `j`: they are `w / C` while `j < C`, then `w / (j (j + 1))`. So `f` foreign replicas take away at most the
//! sum of the `f` largest steps of all experts of a node, whichever they are of, and
//! ```text
//! (1)  f_n >= the least f whose largest steps sum to at least L_n - t D
//! ```
//! **Room in a node.** The experts of a node need `sum of C` replicas. At most `experts + X` of these fit into the node, and
//! the others are foreign:
//! ```text
//! (2)  f_n >= sum over its experts of (C - 1) - X
//! (3)  sum over nodes of f_n <= F
//! ```
//! **Room in the other nodes.** Let `Q` be any `k` nodes. Load leaves `Q` by replicas in the `N - k` other nodes. Each other
//! node keeps a replica of each of its own experts, so it has room for at most `X` replicas from `Q`. These are foreign replicas
//! , so the argument of (1) holds for `Q` as a whole:
//! ```text
//! (4)  L(Q) - k t D <= the min(F, X (N - k)) largest steps of the experts at home in Q
//! ```
//! which is looked at for the `k` heaviest nodes, `k = 1 .. N - 1`.
//!
//! All of them ask less of a larger `t`. So the least over assignments of the least `t` that breaks none is a bound,
//! found by bisection from below: the result breaks one of them in each assignment. Where there are too many assignments to
//! look at each, only (1) is used, for a node that must hold several of the largest groups.
//!
//! The bound of the global policy holds too: such a plan is one of its plans. The bound of few slots of a node does not,
//! since a node may hold others' replicas.

use std::collections::HashMap;

use super::few_slots::Pace;
use super::groups::{MAX_ASSIGNMENTS, assignments};
use super::{Room, node_bound};
use crate::cluster::Cluster;

/// Steps of a bisection, which end where nothing is between the two ends.
const HALVINGS: usize = 48;

/// The bound of one layer with at most `foreign` foreign replicas, up to rounding.
pub(super) fn bound(row: &[f64], cluster: &Cluster, most: usize, foreign: usize, pace: &Pace) -> f64 {
    let floor = node_bound(row, Room::of_cluster(cluster, most), pace);
    let layer = BoundLayer::new(row, cluster, most, foreign);
    if assignments(cluster.num_groups(), cluster.num_nodes()) > MAX_ASSIGNMENTS {
        return layer.least(floor, &mut |t| layer.crowd_fits(t));
    }
    let (sets, mut left) = layer.assignments();
    layer.least(floor, &mut |t| {
        let fewest: Vec<Vec<f64>> = sets.iter().map(|&set| layer.steps(set, t)).collect();
        let needs: Vec<usize> =
            sets.iter().zip(&fewest).map(|(&set, steps)| layer.fewest(set, steps, t)).collect();
        let fits = |nodes: &Vec<usize>| layer.fits(nodes, &sets, &fewest, &needs, t);
        // A set that does not fit here fits no lower target.
        let fitting: Vec<Vec<usize>> = left.iter().filter(|nodes| fits(nodes)).cloned().collect();
        let any = !fitting.is_empty();
        if any {
            left = fitting;
        }
        any
    })
}

/// The least that any plan with this heaviest GPU serves outside the homes: over assignments, the least of the load that nodes have too much.
pub(super) fn least_away(row: &[f64], cluster: &Cluster, heaviest: f64) -> f64 {
    if assignments(cluster.num_groups(), cluster.num_nodes()) > MAX_ASSIGNMENTS {
        return 0.0;
    }
    let layer = BoundLayer::new(row, cluster, usize::MAX, 0);
    let (sets, all) = layer.assignments();
    let excess: Vec<f64> =
        sets.iter().map(|&set| (layer.load(set) - heaviest * layer.gpus).max(0.0)).collect();
    let away = |nodes: &Vec<usize>| nodes.iter().map(|&set| excess[set]).sum::<f64>();
    all.iter().map(away).fold(f64::INFINITY, f64::min)
}

/// One layer. Sets of groups are bit masks.
struct BoundLayer {
    /// Experts of each group, heaviest first.
    groups: Vec<Vec<f64>>,
    /// Load of each group.
    loads: Vec<f64>,
    nodes: usize,
    gpus: f64,
    /// Replicas of a node beyond one for each expert at home.
    spare: usize,
    foreign: usize,
    /// The most foreign replicas of one expert.
    most_of_expert: usize,
}

impl BoundLayer {
    fn new(row: &[f64], cluster: &Cluster, most: usize, foreign: usize) -> Self {
        let nodes = cluster.num_nodes();
        let mut groups: Vec<Vec<f64>> =
            row.chunks_exact(row.len() / cluster.num_groups()).map(<[f64]>::to_vec).collect();
        groups.iter_mut().for_each(|group| group.sort_by(|a, b| b.total_cmp(a)));
        let spare = (cluster.num_replicas() - row.len()) / nodes;
        let most_of_expert = foreign.min(spare.saturating_mul(nodes - 1)).min(most - 1);
        let loads = groups.iter().map(|group| group.iter().sum()).collect();
        let gpus = (cluster.num_gpus() / nodes) as f64;
        Self { groups, loads, nodes, gpus, spare, foreign, most_of_expert }
    }

    /// The least target above `floor` that is not known not to fit, from below.
    fn least(&self, floor: f64, fits: &mut dyn FnMut(f64) -> bool) -> f64 {
        if floor <= 0.0 || fits(floor) {
            return floor;
        }
        let (mut low, mut high) = (floor, floor * 2.0);
        while !fits(high) {
            (low, high) = (high, high * 2.0);
            if !high.is_finite() {
                return low;
            }
        }
        for _ in 0..HALVINGS {
            let middle = low + (high - low) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if fits(middle) { high = middle } else { low = middle }
        }
        low
    }

    /// All sets of groups that a node can have, and all assignments: the place of each node's set among them.
    fn assignments(&self) -> (Vec<u64>, Vec<Vec<usize>>) {
        let mut found =
            MetAssignments { per_node: (self.groups.len() / self.nodes) as u32, ..MetAssignments::default() };
        if found.per_node == 1 {
            // One assignment, however many groups there are; sets are their numbers.
            let sets = (0..self.groups.len() as u64).collect();
            return (sets, vec![(0..self.nodes).collect()]);
        }
        found.assign((1 << self.groups.len()) - 1, &mut Vec::new());
        (found.sets, found.assignments)
    }

    /// The groups of a set.
    fn members(&self, set: u64) -> impl Iterator<Item = usize> {
        let alone = self.groups.len() == self.nodes;
        let (first, last) = if alone { (set as usize, set as usize + 1) } else { (0, self.groups.len()) };
        (first..last).filter(move |&group| alone || set >> group & 1 == 1)
    }

    fn load(&self, set: u64) -> f64 {
        self.members(set).map(|group| self.loads[group]).sum()
    }

    /// The largest steps of the experts of a set, at most as many as foreign replicas, largest first.
    fn steps(&self, set: u64, t: f64) -> Vec<f64> {
        let mut steps = Vec::new();
        for group in self.members(set) {
            self.add_steps(&self.groups[group], t, &mut steps);
        }
        self.cut(&mut steps);
        steps
    }

    fn cut(&self, steps: &mut Vec<f64>) {
        steps.sort_by(|a, b| b.total_cmp(a));
        steps.truncate(self.foreign);
    }

    /// Adds the steps of some experts, heaviest first, without those that too many others precede.
    fn add_steps(&self, experts: &[f64], t: f64, steps: &mut Vec<f64>) {
        for (rank, &load) in experts.iter().enumerate() {
            let least = (load / t).ceil().max(1.0);
            // An expert with one replica at least, and those before it, all have larger steps of the same number.
            let most = if least > 1.0 { self.most_of_expert } else { self.foreign / (rank + 1) };
            if most == 0 {
                break;
            }
            let away = |j: usize| load * j as f64 / (j as f64 + 1.0).max(least);
            steps.extend((1..=most.min(self.most_of_expert)).map(|j| away(j) - away(j - 1)));
        }
    }

    /// The least number of foreign replicas of a set, by (1) and (2); more than there are where that is too few.
    fn fewest(&self, set: u64, steps: &[f64], t: f64) -> usize {
        let needed = |load: f64| (load / t).ceil().max(1.0) - 1.0;
        let experts = self.members(set).flat_map(|group| &self.groups[group]);
        let heavy: f64 = experts.filter(|&&load| load > t).map(|&load| needed(load)).sum();
        let by_room = (heavy - self.spare as f64).clamp(0.0, self.foreign as f64 + 1.0) as usize;
        let mut need = self.load(set) - t * self.gpus;
        let mut by_load = 0;
        while need > 0.0 && by_load <= self.foreign {
            need -= steps.get(by_load).copied().unwrap_or(0.0);
            by_load += 1;
        }
        by_room.max(by_load)
    }

    /// Whether an assignment breaks neither (3) nor (4).
    fn fits(&self, nodes: &[usize], sets: &[u64], steps: &[Vec<f64>], fewest: &[usize], t: f64) -> bool {
        if nodes.iter().map(|&set| fewest[set]).sum::<usize>() > self.foreign {
            return false;
        }
        let mut by_load: Vec<(f64, usize)> = nodes.iter().map(|&set| (self.load(sets[set]), set)).collect();
        by_load.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut need, mut all) = (0.0, Vec::new());
        for (k, &(load, set)) in by_load.iter().enumerate().take(self.nodes - 1) {
            need += load - t * self.gpus;
            if need <= 0.0 {
                break;
            }
            all.extend_from_slice(&steps[set]);
            self.cut(&mut all);
            let room = self.foreign.min(self.spare.saturating_mul(self.nodes - 1 - k));
            if all.iter().take(room).sum::<f64>() < need {
                return false;
            }
        }
        true
    }

    /// Of the `j N + 1` heaviest groups some node has `j + 1`, which weigh at least as much as the `j + 1` lightest of those;
    /// its other groups weigh at least as much as the lightest of all: what they have too much must leave by (1), with the
    /// steps of all experts.
    fn crowd_fits(&self, t: f64) -> bool {
        let mut loads = self.loads.clone();
        loads.sort_by(|a, b| b.total_cmp(a));
        let per_node = self.groups.len() / self.nodes;
        let mut steps = Vec::new();
        for group in &self.groups {
            self.add_steps(group, t, &mut steps);
            self.cut(&mut steps);
        }
        let leaves: f64 = steps.iter().sum();
        (0..per_node).all(|j| {
            let heavy: f64 = loads[j * self.nodes - j..=j * self.nodes].iter().sum();
            let light: f64 = loads[loads.len() - (per_node - j - 1)..].iter().sum();
            heavy + light - t * self.gpus <= leaves
        })
    }
}

/// The assignments met so far.
#[derive(Default)]
struct MetAssignments {
    per_node: u32,
    sets: Vec<u64>,
    places: HashMap<u64, usize>,
    assignments: Vec<Vec<usize>>,
}

impl MetAssignments {
    /// All ways to give the groups in `left` to nodes: nodes are alike, so that the next one takes the first group left.
    fn assign(&mut self, left: u64, nodes: &mut Vec<usize>) {
        if left == 0 {
            self.assignments.push(nodes.clone());
            return;
        }
        let first = left & left.wrapping_neg();
        self.fill(first, left & !first, left & !first, nodes);
    }

    /// Completes a node's set with groups from `choice`; `left` are those outside it.
    fn fill(&mut self, set: u64, mut choice: u64, left: u64, nodes: &mut Vec<usize>) {
        let missing = self.per_node - set.count_ones();
        if missing == 0 {
            let next = self.sets.len();
            let place = *self.places.entry(set).or_insert(next);
            if place == next {
                self.sets.push(set);
            }
            nodes.push(place);
            self.assign(left, nodes);
            nodes.pop();
            return;
        }
        while choice.count_ones() >= missing {
            let group = choice & choice.wrapping_neg();
            choice &= !group;
            self.fill(set | group, choice, left & !group, nodes);
        }
    }
}
