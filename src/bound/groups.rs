//! The hierarchical policy: the least over assignments of groups to nodes of the busiest node's bound.

use std::collections::HashMap;

use super::few_slots::{self, Pace};
use super::{Room, heaviest, node_bound, simple_bound};
use crate::cluster::Cluster;

/// Assignments of groups to nodes are enumerated up to this many, nodes being interchangeable: 105 for 8
/// groups in 4 nodes, 6,435 for 16 in 2, 15,400 for 12 in 4.
pub(super) const MAX_ASSIGNMENTS: usize = 20_000;

/// The bound of one layer, up to rounding. The experts are a multiple of the groups.
pub(super) fn bound(row: &[f64], cluster: &Cluster, most: usize, pace: &Pace) -> f64 {
    let (groups, nodes) = (cluster.num_groups(), cluster.num_nodes());
    let mut by_load: Vec<&[f64]> = row.chunks_exact(row.len() / groups).collect();
    let load = |group: &[f64]| group.iter().sum::<f64>();
    by_load.sort_by(|a, b| load(b).total_cmp(&load(a)));
    let loads: Vec<f64> = by_load.iter().map(|group| load(group)).collect();

    let (room, all) = (Room::of_node(cluster, most), Room::of_cluster(cluster, most));
    let relaxed = relaxed(&by_load, &loads, nodes, room).max(simple_bound(row, all));
    if groups == nodes {
        // One assignment only.
        return by_load.iter().map(|group| node_bound(group, room, pace)).fold(relaxed, f64::max);
    }
    let per_node = groups / nodes;
    let enumerable = assignments(groups, nodes) <= MAX_ASSIGNMENTS;
    let tight_sets = enumerable && choose(groups, per_node) <= pace.most_sets;
    let relaxed = if tight_sets { relaxed } else { node_bound(row, all, pace).max(relaxed) };
    if !enumerable {
        return relaxed;
    }
    let mut search = AssignmentSearch {
        by_load,
        loads,
        per_node,
        room,
        simple: HashMap::new(),
        tight: HashMap::new(),
        pace: tight_sets.then_some(pace),
        best: f64::INFINITY,
    };
    search.assign((1 << groups) - 1, relaxed);
    search.best
}

/// How many ways there are to divide `groups` into `nodes` equal, interchangeable sets; [`usize::MAX`] where
/// that is more than fits. The first group left over picks its companions, node after node.
pub(super) fn assignments(groups: usize, nodes: usize) -> usize {
    let per_node = groups / nodes;
    let picks = (1..=nodes).map(|n| choose(n * per_node - 1, per_node - 1));
    picks.fold(1, usize::saturating_mul)
}

/// How many sets of `k` of `n` there are, `k <= n`; [`usize::MAX`] where that is more than fits.
pub(super) fn choose(n: usize, k: usize) -> usize {
    // Stays whole: the product of i + 1 consecutive numbers is a multiple of (i + 1)!.
    let step = |sets: usize, i: usize| Some(sets.checked_mul(n - i)? / (i + 1));
    (0..k).try_fold(1, step).unwrap_or(usize::MAX)
}

/// A bound over all assignments without enumerating them. `by_load` and `loads` descend by load.
fn relaxed(by_load: &[&[f64]], loads: &[f64], nodes: usize, room: Room) -> f64 {
    let per_node = loads.len() / nodes;
    let mut bound = 0.0f64;
    // Of the j * nodes + 1 largest groups some node holds j + 1, which weigh at least as much as the j + 1
    // smallest of those; its other groups weigh at least as much as the lightest of all.
    for j in 0..per_node {
        let heavy: f64 = loads[j * nodes - j..=j * nodes].iter().sum();
        let light: f64 = loads[loads.len() - (per_node - j - 1)..].iter().sum();
        bound = bound.max((heavy + light) / room.gpus as f64);
    }
    // In a group's node the experts of the other groups take a replica each, whichever groups they are.
    let size = by_load.first().map_or(0, |group| group.len());
    let left = room.replicas.saturating_sub((per_node - 1) * size);
    let replicas = by_load.iter().map(|group| heaviest::least_heaviest_replica(group, left, room.most));
    replicas.fold(bound, f64::max)
}

/// Depth-first branch and bound over assignments; sets of groups are bit masks over `by_load`.
struct AssignmentSearch<'a> {
    by_load: Vec<&'a [f64]>,
    loads: Vec<f64>,
    per_node: usize,
    /// The room of one node.
    room: Room,
    /// The simple and the tight bound of each node problem met so far: few sets, many assignments.
    /// A tight bound of at least `best` may stop there: `best` only falls, so the set stays ruled out.
    simple: HashMap<u32, f64>,
    tight: HashMap<u32, f64>,
    /// How the bound of few slots of a set is searched for, where sets get it.
    pace: Option<&'a Pace>,
    /// The least bound of a full assignment so far.
    best: f64,
}

impl AssignmentSearch<'_> {
    /// Assigns the groups in `left`, where the nodes filled so far have bound `so_far` (at first a bound on
    /// every assignment, so that reaching it ends the search).
    fn assign(&mut self, left: u32, so_far: f64) {
        if left == 0 {
            self.best = self.best.min(so_far);
            return;
        }
        // Nodes are interchangeable: the next one takes the heaviest group left.
        let first = left.trailing_zeros();
        let rest = left & !(1 << first);
        self.fill(1 << first, rest, rest, so_far);
    }

    /// Completes the set `node` with groups from `choice`, lightest first; `left` are the groups outside it.
    fn fill(&mut self, node: u32, mut choice: u32, left: u32, so_far: f64) {
        if so_far >= self.best || self.mean_of(node) >= self.best {
            return;
        }
        let missing = self.per_node as u32 - node.count_ones();
        if missing == 0 {
            // The tight bound costs more, so only sets that the simple one leaves open get it.
            if self.simple_bound_of(node) < self.best {
                let cost = self.bound_of(node);
                self.assign(left, so_far.max(cost));
            }
            return;
        }
        while choice.count_ones() >= missing {
            let lightest = 1 << choice.ilog2();
            choice &= !lightest;
            self.fill(node | lightest, choice, left & !lightest, so_far);
        }
    }

    fn mean_of(&self, node: u32) -> f64 {
        members(node).map(|g| self.loads[g]).sum::<f64>() / self.room.gpus as f64
    }

    fn row_of(&self, node: u32) -> Vec<f64> {
        members(node).flat_map(|g| self.by_load[g].iter().copied()).collect()
    }

    fn simple_bound_of(&mut self, node: u32) -> f64 {
        if let Some(&bound) = self.simple.get(&node) {
            return bound;
        }
        let bound = simple_bound(&self.row_of(node), self.room);
        self.simple.insert(node, bound);
        bound
    }

    fn bound_of(&mut self, node: u32) -> f64 {
        if let Some(&bound) = self.tight.get(&node) {
            return bound;
        }
        let simple = self.simple_bound_of(node);
        let bound = match self.pace {
            Some(pace) => few_slots::raise(&self.row_of(node), (self.room, &[]), simple, self.best, pace),
            None => simple,
        };
        self.tight.insert(node, bound);
        bound
    }
}

/// The groups of a set, ascending.
fn members(set: u32) -> impl Iterator<Item = usize> {
    (0..u32::BITS as usize).filter(move |&g| set >> g & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_assignments() {
        for (groups, nodes, ways) in [(8, 4, 105), (8, 2, 35), (16, 2, 6435), (12, 4, 15_400), (9, 3, 280)] {
            assert_eq!(assignments(groups, nodes), ways, "{groups} in {nodes}");
        }
        assert_eq!(assignments(7, 7), 1);
        assert!(assignments(64, 8) > MAX_ASSIGNMENTS && assignments(60_000, 2) > MAX_ASSIGNMENTS);
    }

    #[test]
    fn enumerated_sets_fit_a_mask() {
        for nodes in 2..40 {
            for per_node in 2..40 {
                let groups = nodes * per_node;
                assert!(groups < 32 || assignments(groups, nodes) > MAX_ASSIGNMENTS, "{groups} in {nodes}");
            }
        }
    }

    #[test]
    fn finds_the_least_largest_node() {
        // Six groups of one expert in two nodes of one GPU each, without spare replicas: 6 + 5 + 1 = 4 + 3 + 5.
        let cluster = Cluster::new(6, 6, 2, 2).unwrap();
        assert_eq!(bound(&[6.0, 5.0, 5.0, 4.0, 3.0, 1.0], &cluster, usize::MAX, &Pace::QUICK), 12.0);
        // 9 + 1 + 1 against 7 + 1 + 1 is the best although the mean is 10.
        assert_eq!(bound(&[9.0, 7.0, 1.0, 1.0, 1.0, 1.0], &cluster, usize::MAX, &Pace::QUICK), 11.0);
    }

    #[test]
    fn the_relaxation_is_near_where_enumeration_ends() {
        // 24 groups in 12 nodes: some node holds two of the 13 largest, at least 12 + 13.
        let row: Vec<f64> = (1..=24).map(f64::from).collect();
        let cluster = Cluster::new(24, 24, 12, 12).unwrap();
        assert!(assignments(24, 12) > MAX_ASSIGNMENTS);
        assert_eq!(bound(&row, &cluster, usize::MAX, &Pace::QUICK), 25.0);
        // One group outweighs the rest: it sits with the lightest.
        let row: Vec<f64> = (1..=24).map(|i| if i == 9 { 500.0 } else { f64::from(i) }).collect();
        assert_eq!(bound(&row, &cluster, usize::MAX, &Pace::QUICK), 501.0);
    }
}
