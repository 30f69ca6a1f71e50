//! What nodes allow a move to do: foreign replicas stay within their limit, and every expert keeps a replica at home; copies
//! that are spread over nodes stay spread.

use super::TrailSearch;
use crate::params::Params;

/// Stands for no lane.
const NO_LANE: usize = usize::MAX;

#[derive(Default)]
pub struct NodeRules {
    /// The most foreign replicas, and those that there are.
    most_foreign: u32,
    foreign: u32,
    /// Where there may be foreign replicas, the first lane of each expert's home.
    homes: Vec<usize>,
    /// Lanes of a node that copies are spread over, and the number of such nodes; 0 where it does not matter.
    node: usize,
    nodes: usize,
}

impl TrailSearch {
    /// Takes over the rules of a layer whose slots are laid out, and with foreign replicas the home of each expert.
    pub(super) fn set_node_rules(&mut self, params: &Params, most_foreign: u32, homes: &[u32]) {
        let rules = &mut self.rules;
        rules.most_foreign = most_foreign;
        rules.homes.clear();
        rules.homes.extend(homes.iter().map(|&node| node as usize * self.node_lanes));
        let spreads = params.spread_nodes > 1;
        rules.nodes = if spreads { params.spread_nodes as usize } else { 0 };
        rules.node = if spreads { self.node_gpus / rules.nodes } else { 0 };
        rules.foreign = 0;
        for (at, &expert) in self.expert.iter().enumerate() {
            let home = self.rules.homes.get(expert as usize);
            let lane = at % self.lanes;
            self.rules.foreign +=
                u32::from(home.is_some_and(|&home| home != lane / self.node_lanes * self.node_lanes));
        }
    }

    /// Whether replicas may lie outside the home of their group.
    #[inline(always)]
    pub(super) fn may_leave_home(&self) -> bool {
        !self.rules.homes.is_empty()
    }

    /// The first of the lanes on which a further replica may relieve GPU `a`, and their number: those of its node, or all where
    /// there may be foreign replicas.
    #[inline(always)]
    pub(super) fn reach(&self, a: usize) -> (usize, usize) {
        match self.may_leave_home() {
            false => (a / self.node_lanes * self.node_lanes, self.node_lanes),
            true => (0, self.lanes),
        }
    }

    /// Whether nodes allow GPU `a` to give an expert to GPU `b`: it must not be in fewer nodes then.
    #[inline(always)]
    pub(super) fn may_go(&self, expert: usize, a: usize, b: usize) -> bool {
        let node = self.rules.node;
        if node == 0 || self.counts[expert] < 2 || a / node == b / node {
            return true;
        }
        !self.is_in(expert, b / node * node, node, b) || self.is_in(expert, a / node * node, node, a)
    }

    /// Whether nodes allow a replica of `x` on GPU `g` to become one of `y`.
    #[inline(always)]
    pub(super) fn may_hand_over(&self, x: usize, y: usize, g: usize) -> bool {
        if self.may_leave_home() {
            return self.keeps_homes(x, y, g);
        }
        let (node, nodes) = (self.rules.node, self.rules.nodes);
        if node == 0 {
            return true;
        }
        let here = g / node * node;
        let held_by =
            |expert: usize| (0..nodes).filter(|n| self.is_in(expert, n * node, node, NO_LANE)).count();
        // A replica comes to a node without one, and leaves a node that keeps another, where there are such nodes.
        let comes = !self.is_in(y, here, node, NO_LANE) || held_by(y) == nodes;
        comes && (self.is_in(x, here, node, g) || held_by(x) == self.counts[x] as usize)
    }

    /// Whether each expert keeps a replica at home then, and foreign ones are not too many.
    #[inline(always)]
    fn keeps_homes(&self, x: usize, y: usize, g: usize) -> bool {
        let rules = &self.rules;
        let here = g / self.node_lanes * self.node_lanes;
        let stays = rules.homes[x] != here || self.is_in(x, here, self.node_lanes, g);
        stays && rules.foreign + self.foreign(y, g) <= rules.most_foreign + self.foreign(x, g)
    }

    /// Whether a replica of an expert on GPU `g` is foreign, 0 or 1.
    #[inline(always)]
    pub(super) fn foreign(&self, expert: usize, g: usize) -> u32 {
        let here = g / self.node_lanes * self.node_lanes;
        u32::from(self.rules.homes.get(expert).is_some_and(|&home| home != here))
    }

    /// A replica of `x` on GPU `g` has become one of `y`.
    #[inline(always)]
    pub(super) fn count_foreign(&mut self, x: usize, y: usize, g: usize) {
        self.rules.foreign = self.rules.foreign + self.foreign(y, g) - self.foreign(x, g);
    }

    /// Whether any of `n` lanes from `first` on holds an expert; lane `but` is left out.
    #[inline(always)]
    fn is_in(&self, expert: usize, first: usize, n: usize, but: usize) -> bool {
        (first..first + n).any(|lane| lane != but && self.has(&self.held, expert, lane))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TrailMove, TrailMoveKind, TrailTask};
    use super::*;
    use crate::cases::Random;
    use crate::replan::mend::mend;
    use crate::replan::objective::LayerObjective;
    use crate::rows::homes;
    use crate::{Cluster, Loads, PlanOptions};

    const NONE: TrailMove = TrailMove { value: i32::MAX, kind: TrailMoveKind::None };

    /// 16 experts in two nodes of four GPUs with three slots, of which a third is steep.
    struct Case {
        params: Params,
        objective: LayerObjective,
        row: Vec<u32>,
    }

    impl Case {
        fn new(seed: u64, groups: usize, most_foreign: u32) -> Self {
            let mut random = Random(seed);
            let mut window = || {
                let counts: Vec<u64> =
                    (0..16).map(|e| 1 + random.next() % if e < 5 { 9000 } else { 900 }).collect();
                Loads::from_counts(1, 16, &counts).unwrap()
            };
            let loads = Loads::from_windows(&[window(), window()], &[1.0, 1.0]).unwrap();
            let cluster = Cluster::new(24, groups, 2, 8).unwrap();
            let options = PlanOptions { max_foreign: most_foreign, ..PlanOptions::default() };
            let params = Params::new(&loads, &cluster, &options).unwrap();
            let rows: Vec<&[u32]> = loads.fixed_windows().chunks(16).collect();
            let objective = LayerObjective::new(&params, &rows, 50_000);
            let any: Vec<u32> = (0..24).map(|_| random.below(16) as u32).collect();
            let row = mend(&params, &[1; 16], &any);
            Self { params, objective, row }
        }

        fn search(&self) -> TrailSearch {
            let Self { params, objective, row } = self;
            let most_foreign = params.most_foreign;
            let mut search = TrailSearch::default();
            search.place(TrailTask {
                params,
                objective,
                previous: row,
                start: row,
                patience: 1,
                most_foreign,
            });
            search.look();
            search
        }

        /// The row and its value after a move.
        fn after(&self, kind: TrailMoveKind) -> (Vec<u32>, i32) {
            let (mut search, mut changes, mut row) = (self.search(), Vec::new(), self.row.clone());
            search.make(&self.objective, 1, 1, kind, &mut changes);
            changes.into_iter().for_each(|(slot, expert)| row[slot] = expert);
            (row, search.look() + search.price_now(&self.objective))
        }

        fn node_of(slot: usize) -> u32 {
            slot as u32 / 12
        }

        fn nodes_with(row: &[u32], expert: u32) -> usize {
            row.chunks(12).filter(|node| node.contains(&expert)).count()
        }
    }

    #[test]
    fn transfers_reach_other_nodes_where_foreign_replicas_may_be() {
        let (mut far, mut full) = (0, 0);
        for seed in 0..60 {
            let case = Case::new(seed, 4, 1 + seed as u32 % 3);
            let homes = homes(&case.params, &case.row);
            for a in [0, 1, 2, 3, 8, 9, 10, 11] {
                let found = case.search().best_transfer::<false>(&case.objective, 1, a, NONE);
                let TrailMoveKind::Transfer { gpu, .. } = found.kind else { continue };
                let (row, value) = case.after(found.kind);
                assert_eq!(value, found.value, "case {seed}, lane {a}");
                let held = || row.iter().enumerate().map(|(slot, &e)| (Case::node_of(slot), e));
                let foreign = held().filter(|&(node, e)| homes[e as usize] != node).count();
                assert!(foreign <= case.params.most_foreign as usize, "case {seed}, lane {a}");
                assert!((0..16).all(|e| held().any(|held| held == (homes[e as usize], e))), "case {seed}");
                far += usize::from(gpu / 8 != a / 8);
                full += usize::from(foreign == case.params.most_foreign as usize);
            }
        }
        assert!(far > 60 && full > 60, "{far}, {full}");
    }

    #[test]
    fn no_move_leaves_an_expert_in_fewer_nodes_than_it_could_be_in() {
        let (mut exchanges, mut transfers) = (0, 0);
        for seed in 0..60 {
            let case = Case::new(seed, 1, 0);
            let loose = |row: &[u32], expert: u32| {
                let count = row.iter().filter(|&&e| e == expert).count();
                count.min(2) - Case::nodes_with(row, expert)
            };
            for a in 0..8 {
                let exchange = case.search().best_exchange::<false>(&case.objective, 1, 1, a);
                let transfer = case.search().best_transfer::<false>(&case.objective, 1, a, NONE);
                for (found, seen) in [(exchange, &mut exchanges), (transfer, &mut transfers)] {
                    if found.kind == TrailMoveKind::None {
                        continue;
                    }
                    let (row, value) = case.after(found.kind);
                    assert_eq!(value, found.value, "case {seed}, GPU {a}");
                    for expert in 0..16 {
                        let (before, after) = (loose(&case.row, expert), loose(&row, expert));
                        assert!(after <= before, "case {seed}, GPU {a}, expert {expert}: {:?}", found.kind);
                    }
                    *seen += 1;
                }
            }
        }
        assert!(exchanges > 200 && transfers > 100, "{exchanges} exchanges, {transfers} transfers");
    }
}
