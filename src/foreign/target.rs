//! The load that the heaviest GPU of no plan with some foreign replicas goes below, and the assignments that could reach it: the bound
//! that `bound/foreign.rs` proves, in fixed point and to 14 bits, for what the search aims at.

use std::collections::BTreeMap;

use crate::params::Params;

/// The bisection ends at this part of the target.
pub const PRECISION: u32 = 14;

/// All assignments of groups to nodes, by the sets of groups that nodes may have.
#[derive(Default)]
pub struct GroupSets {
    /// Groups of each set.
    pub groups: Vec<Vec<u32>>,
    /// The set of each node, for each assignment.
    pub assignments: Vec<Vec<usize>>,
}

impl GroupSets {
    /// Those of some assignments, each of the groups node after node.
    pub fn new(params: &Params, assignments: Vec<Vec<u32>>) -> Self {
        let mut places = BTreeMap::new();
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut set_of = |set: &[u32]| {
            *places.entry(set.to_vec()).or_insert_with(|| {
                groups.push(set.to_vec());
                groups.len() - 1
            })
        };
        let nodes = |assignment: &Vec<u32>| {
            assignment.chunks_exact(params.node_groups as usize).map(&mut set_of).collect()
        };
        let assignments = assignments.iter().map(nodes).collect();
        Self { groups, assignments }
    }
}

/// The aim of the search of a layer.
pub struct ForeignTarget {
    /// No plan goes below, but for rounding.
    pub load: i64,
    /// The assignments that could reach it, best first.
    pub assignments: Vec<usize>,
}

/// The sums that decide, for one target.
#[derive(Default)]
pub struct TargetScratch {
    /// Experts of each group by falling load.
    sorted: Vec<i64>,
    totals: Vec<i64>,
    /// The largest steps of each group, largest first, at most as many as foreign replicas.
    group_steps: Vec<Vec<i64>>,
    /// Whether they depend on the target.
    moving: Vec<bool>,
    steps: Vec<Vec<i64>>,
    loads: Vec<i64>,
    fewest: Vec<u32>,
}

/// Sizes and limits of a layer.
struct LayerSizes<'a> {
    sets: &'a GroupSets,
    size: usize,
    nodes: usize,
    gpus: i64,
    spare: u32,
    foreign: u32,
    most_of_expert: u32,
}

/// The most foreign replicas of an expert.
pub fn most_of_expert(params: &Params) -> u32 {
    let spare = params.node_replicas - params.node_experts;
    params.most_foreign.min(spare.saturating_mul(params.nodes - 1)).min(params.most_count - 1)
}

impl TargetScratch {
    /// The target of a layer, at least `floor` and less than `above`, which a plan without foreign replicas reaches; `None`
    /// where that is as good.
    pub fn find(
        &mut self,
        params: &Params,
        sets: &GroupSets,
        loads: &[u32],
        (floor, above): (i64, i64),
    ) -> Option<ForeignTarget> {
        let spare = params.node_replicas - params.node_experts;
        let shape = LayerSizes {
            sets,
            size: params.group_size as usize,
            nodes: params.nodes as usize,
            gpus: i64::from(params.node_gpus),
            spare,
            foreign: params.most_foreign,
            most_of_expert: most_of_expert(params),
        };
        if shape.most_of_expert == 0 {
            return None;
        }
        self.begin(&shape, loads);
        let (mut low, mut high) = (floor - 1, above);
        while high - low > (low >> PRECISION).max(1) {
            let middle = low + (high - low) / 2;
            self.weigh(&shape, middle);
            if sets.assignments.iter().any(|nodes| self.fits(&shape, nodes, middle)) {
                high = middle;
            } else {
                low = middle;
            }
        }
        if high >= above {
            return None;
        }
        self.weigh(&shape, high);
        let fitting =
            (0..sets.assignments.len()).filter(|&at| self.fits(&shape, &sets.assignments[at], high));
        let too_much = |at: usize| -> i64 {
            sets.assignments[at].iter().map(|&set| (self.loads[set] - high * shape.gpus).max(0)).sum()
        };
        let mut order: Vec<(i64, usize)> = fitting.map(|at| (too_much(at), at)).collect();
        order.sort_unstable();
        Some(ForeignTarget { load: low + 1, assignments: order.into_iter().map(|(_, at)| at).collect() })
    }

    fn begin(&mut self, shape: &LayerSizes<'_>, loads: &[u32]) {
        self.sorted.clear();
        self.sorted.extend(loads.iter().map(|&load| i64::from(load)));
        self.totals.clear();
        for group in self.sorted.chunks_exact_mut(shape.size) {
            group.sort_unstable_by(|a, b| b.cmp(a));
            self.totals.push(group.iter().sum());
        }
        let groups = self.totals.len();
        self.group_steps.iter_mut().for_each(Vec::clear);
        self.group_steps.resize_with(groups, Vec::new);
        self.moving.clear();
        self.moving.resize(groups, true);
        self.steps.resize_with(shape.sets.groups.len(), Vec::new);
        self.loads.clear();
        let load = |set: &Vec<u32>| set.iter().map(|&group| self.totals[group as usize]).sum::<i64>();
        self.loads.extend(shape.sets.groups.iter().map(load));
        self.fewest.clear();
        self.fewest.resize(shape.sets.groups.len(), 0);
    }

    /// The largest steps of each set, and the fewest foreign replicas that it needs, for a target.
    fn weigh(&mut self, shape: &LayerSizes<'_>, target: i64) {
        let Self { sorted, group_steps, moving, .. } = self;
        let mut changed = vec![false; group_steps.len()];
        for (group, experts) in sorted.chunks_exact(shape.size).enumerate() {
            let moves = experts[0] > target;
            if moves || moving[group] {
                group_steps[group].clear();
                shape.add_steps(experts, target, &mut group_steps[group]);
                changed[group] = true;
            }
            moving[group] = moves;
        }
        for (set, groups) in shape.sets.groups.iter().enumerate() {
            if groups.iter().any(|&group| changed[group as usize]) {
                let steps = &mut self.steps[set];
                steps.clear();
                groups.iter().for_each(|&group| steps.extend_from_slice(&self.group_steps[group as usize]));
                steps.sort_unstable_by(|a, b| b.cmp(a));
                steps.truncate(shape.foreign as usize);
            }
            let mut spread = 0;
            for &group in groups {
                let first = group as usize * shape.size;
                let experts = &self.sorted[first..first + shape.size];
                spread += experts
                    .iter()
                    .take_while(|&&load| load > target)
                    .map(|load| (load - 1) / target)
                    .sum::<i64>();
            }
            let by_room = (spread - i64::from(shape.spare)).clamp(0, i64::from(shape.foreign) + 1) as u32;
            let mut need = self.loads[set] - target * shape.gpus;
            let mut by_load = 0;
            while need > 0 && by_load <= shape.foreign {
                need -= self.steps[set].get(by_load as usize).copied().unwrap_or(0);
                by_load += 1;
            }
            self.fewest[set] = by_load.max(by_room);
        }
    }

    /// Whether an assignment could reach the target that was weighed last.
    fn fits(&self, shape: &LayerSizes<'_>, nodes: &[usize], target: i64) -> bool {
        if nodes.iter().map(|&set| self.fewest[set]).sum::<u32>() > shape.foreign {
            return false;
        }
        let mut order: Vec<usize> = nodes.to_vec();
        order.sort_unstable_by_key(|&set| (-self.loads[set], set));
        let mut need = 0;
        let mut taken = vec![0; shape.nodes];
        for k in 1..shape.nodes {
            need += self.loads[order[k - 1]] - target * shape.gpus;
            if need <= 0 {
                break;
            }
            let room = shape.foreign.min(shape.spare.saturating_mul((shape.nodes - k) as u32));
            let mut away = 0;
            taken[..k].fill(0);
            for _ in 0..room {
                if away >= need {
                    break;
                }
                let next = |at: usize| self.steps[order[at]].get(taken[at]).copied().unwrap_or(0);
                let best = (0..k).max_by_key(|&at| next(at)).unwrap_or(0);
                away += next(best);
                taken[best] += 1;
            }
            if away < need {
                return false;
            }
        }
        true
    }
}

impl LayerSizes<'_> {
    /// The steps of some experts by falling load, without those that too many others precede; rounded up.
    fn add_steps(&self, experts: &[i64], target: i64, steps: &mut Vec<i64>) {
        for (rank, &load) in (1..).zip(experts) {
            let least = ((load - 1).max(0) / target + 1).max(1);
            let most =
                if least > 1 { self.most_of_expert } else { self.most_of_expert.min(self.foreign / rank) };
            if most == 0 {
                break;
            }
            let away = |j: i64| load * j / (j + 1).max(least);
            steps.extend((1..=i64::from(most)).map(|j| away(j) - away(j - 1) + 1));
        }
        steps.sort_unstable_by(|a, b| b.cmp(a));
        steps.truncate(self.foreign as usize);
    }
}
