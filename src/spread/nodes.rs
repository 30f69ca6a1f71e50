//! Which nodes hold the replicas of an expert.

use super::by_falling_load;
use crate::given::Held;
use crate::params::Params;

/// Of the lightest nodes this many are tried as partners of the heaviest one.
const PARTNERS: usize = 2;

/// Exchanges are weighed for at most this many steps over experts.
const MOST_STEPS: usize = 1 << 22;

/// Nodes are even where the heaviest one is above the mean by at most this part of it, as a power of two: 15 ppm.
const EVEN_SHIFT: u32 = 16;

/// How the replicas of a layer are spread over its nodes: an expert with as many as nodes, or more, has equally many in
/// each, and one of the rest in some.
pub struct SpreadNodes {
    nodes: usize,
    experts: Vec<Expert>,
    /// Whether a node holds one of the rest, `[experts][nodes]`.
    rest: Vec<bool>,
    /// The load of each node.
    loads: Vec<u32>,
    /// Slots of each node that are left.
    room: Vec<u32>,
}

/// The replicas of an expert.
struct Expert {
    /// Replicas in each node.
    each: u32,
    /// The load of these together.
    each_load: u32,
    /// Replicas beside them, fewer than nodes.
    rest: usize,
    /// The load of one of the rest.
    rest_load: u32,
}

impl Expert {
    /// Under the nearest dispatch an expert that is in every node brings each node the same load.
    fn new(load: u32, count: u32, nodes: u32, nearest: bool) -> Self {
        let (each, rest) = (count / nodes, (count % nodes) as usize);
        let part = load / count.max(1);
        match (each, nearest) {
            (0, _) => Self { each, each_load: 0, rest, rest_load: part },
            (_, true) => Self { each, each_load: load / nodes, rest, rest_load: 0 },
            (_, false) => Self { each, each_load: part * each, rest, rest_load: part },
        }
    }
}

impl SpreadNodes {
    /// Replicas of these counts in the lightest nodes, heaviest first; then exchanged between nodes until these are even.
    /// `None` where an expert finds too few nodes with a slot left.
    pub fn spread(params: &Params, nodes: u32, nearest: bool, loads: &[u32], counts: &[u32]) -> Option<Self> {
        let slots = params.node_slots / nodes;
        let experts =
            loads.iter().zip(counts).map(|(&load, &count)| Expert::new(load, count, nodes, nearest));
        let experts: Vec<Expert> = experts.collect();
        let each = experts.iter().map(|expert| expert.each).sum::<u32>();
        let each_load = experts.iter().map(|expert| expert.each_load).sum();
        let number = nodes as usize;
        let mut spread = Self {
            nodes: number,
            rest: vec![false; experts.len() * number],
            loads: vec![each_load; number],
            room: vec![slots.checked_sub(each)?; number],
            experts,
        };
        let order = spread.order();
        spread.fill(&order)?;
        spread.even_out(&order);
        Some(spread)
    }

    /// The replicas of a node.
    pub fn held(&self, node: u32) -> Vec<Held> {
        let of = |(at, expert): (usize, &Expert)| {
            let rest = self.rest[at * self.nodes + node as usize];
            Held {
                expert: at as u32,
                load: expert.each_load + if rest { expert.rest_load } else { 0 },
                count: expert.each + u32::from(rest),
            }
        };
        self.experts.iter().enumerate().map(of).filter(|held| held.count > 0).collect()
    }

    /// The experts with replicas beside those in every node, by falling load of one, ties to the lower.
    fn order(&self) -> Vec<usize> {
        let beside = self.experts.iter().enumerate().filter(|(_, expert)| expert.rest > 0);
        by_falling_load(beside.map(|(e, expert)| (e, expert.rest_load)))
    }

    /// Gives each expert the lightest nodes with a slot left. Single replicas come last, as they fit anywhere.
    fn fill(&mut self, order: &[usize]) -> Option<()> {
        let (several, single): (Vec<usize>, Vec<usize>) =
            order.iter().partition(|&&e| self.experts[e].rest > 1);
        let mut lightest: Vec<usize> = (0..self.nodes).collect();
        for e in several.into_iter().chain(single) {
            let Expert { rest, rest_load, .. } = self.experts[e];
            lightest.retain(|&node| self.room[node] > 0);
            lightest.sort_by_key(|&node| (self.loads[node], node));
            for &node in lightest.get(..rest)? {
                self.rest[e * self.nodes + node] = true;
                self.loads[node] += rest_load;
                self.room[node] -= 1;
            }
        }
        Some(())
    }

    /// Exchanges a replica of the heaviest node for one of another, or for a free slot, while that makes it lighter.
    /// `order` is of falling loads.
    fn even_out(&mut self, order: &[usize]) {
        let order: Vec<usize> = order.iter().rev().copied().collect();
        let steps = order.len().max(1) * PARTNERS.min(self.nodes);
        let mean = (self.loads.iter().map(|&load| u64::from(load)).sum::<u64>() / self.nodes as u64) as u32;
        let enough = mean + (mean >> EVEN_SHIFT);
        for _ in 0..(32 * self.nodes).min(MOST_STEPS / steps) {
            let mut nodes: Vec<usize> = (0..self.nodes).collect();
            nodes.sort_unstable_by_key(|&node| (self.loads[node], node));
            let Some((&heaviest, others)) = nodes.split_last() else { return };
            if self.loads[heaviest] <= enough {
                return;
            }
            let partners = &others[..others.len().min(PARTNERS)];
            let found = partners.iter().filter_map(|&node| Some((self.best(&order, heaviest, node)?, node)));
            let Some(((max, gives, takes), node)) = found.min_by_key(|&((max, ..), _)| max) else { return };
            if max >= self.loads[heaviest] {
                return;
            }
            self.put(gives, heaviest, node);
            match takes {
                Some(e) => self.put(e, node, heaviest),
                None => {
                    self.room[heaviest] += 1;
                    self.room[node] -= 1;
                }
            }
        }
    }

    /// The best exchange between node `a` and the lighter `b`: the heavier of the two after it, the expert that `a` gives
    /// and the one that it takes, if any. `order` is of rising loads.
    fn best(&self, order: &[usize], a: usize, b: usize) -> Option<(u32, usize, Option<usize>)> {
        let only = |node: usize, other: usize| {
            let here =
                move |e: &usize| self.rest[e * self.nodes + node] && !self.rest[e * self.nodes + other];
            order.iter().copied().filter(here)
        };
        let (of_a, of_b) = (self.loads[a], self.loads[b]);
        let load = |e: Option<usize>| e.map_or(0, |e| self.experts[e].rest_load);
        let mut takes: Vec<Option<usize>> = if self.room[b] > 0 { vec![None] } else { Vec::new() };
        takes.extend(only(b, a).map(Some));
        let (mut at, mut best) = (0, None::<(u32, usize, Option<usize>)>);
        for gives in only(a, b) {
            let given = load(Some(gives));
            let after = |take: Option<usize>| {
                let taken = load(take);
                (of_a - given + taken).max((of_b + given).saturating_sub(taken))
            };
            // The heavier one falls, then rises with what is taken; and what is given rises.
            while at + 1 < takes.len() && after(takes[at + 1]) <= after(takes[at]) {
                at += 1;
            }
            let Some(&take) = takes.get(at) else { break };
            let max = after(take);
            if best.is_none_or(|(least, ..)| max < least) {
                best = Some((max, gives, take));
            }
        }
        best
    }

    /// Moves a replica from node to node.
    fn put(&mut self, e: usize, from: usize, to: usize) {
        self.rest[e * self.nodes + from] = false;
        self.rest[e * self.nodes + to] = true;
        self.loads[from] -= self.experts[e].rest_load;
        self.loads[to] += self.experts[e].rest_load;
    }
}
