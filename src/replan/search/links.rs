//! Links between GPUs: two that hold replicas of one expert are linked, and a plan whose GPUs are connected can level any
//! batch by shares. Each part of a node's GPUs beyond the first costs a little.

use super::TrailSearch;
use crate::mirror::rng;

#[derive(Default)]
pub struct Links {
    /// The price of a part; 0 where links do not matter.
    pub price: i32,
    /// Parts beyond one a node.
    parts: i32,
    /// The experts with several replicas.
    several: Vec<u32>,
    /// A lane of the same part, nearer to its root.
    parent: Vec<u32>,
}

impl Links {
    /// The price of the parts.
    pub fn cost(&self) -> i32 {
        self.price.saturating_mul(self.parts)
    }

    /// The most that a move can gain by joining up to this many parts.
    pub fn hope(&self, joins: i32) -> i32 {
        self.price.saturating_mul(self.parts.min(joins))
    }

    fn root(&mut self, mut lane: u32) -> u32 {
        while self.parent[lane as usize] != lane {
            let next = self.parent[self.parent[lane as usize] as usize];
            self.parent[lane as usize] = next;
            lane = next;
        }
        lane
    }
}

impl TrailSearch {
    /// Counts the parts of the plan as it is.
    pub(super) fn count_parts(&mut self) {
        if self.links.price == 0 {
            return;
        }
        self.links.several.clear();
        let several = (0..self.free as u32).filter(|&expert| self.counts[expert as usize] > 1);
        self.links.several.extend(several);
        self.links.parts = self.parts();
    }

    /// Parts beyond one a node, by the sets of lanes that hold the replicated experts.
    fn parts(&mut self) -> i32 {
        let nodes = (self.lanes / self.node_lanes) as i32;
        let mut parts = nodes * self.node_gpus as i32;
        let links = &mut self.links;
        links.parent.clear();
        links.parent.extend(0..self.lanes as u32);
        for at in 0..links.several.len() {
            let expert = links.several[at] as usize;
            let mut first = None;
            for word in 0..self.words {
                let mut held = self.held[expert * self.words + word];
                while held != 0 {
                    let lane = (word * 32) as u32 + held.trailing_zeros();
                    held &= held - 1;
                    let root = links.root(lane);
                    let first = *first.get_or_insert(root);
                    let first = links.root(first);
                    if root != first {
                        links.parent[root as usize] = first;
                        parts -= 1;
                    }
                }
            }
            if parts == nodes {
                break;
            }
        }
        parts - nodes
    }

    /// Draws a GPU of a node that has several parts. It proposes where nothing is gained by relieving the busiest GPU, so that
    /// quiet nodes come together too.
    pub(super) fn apart(&mut self, key: u32, iteration: u32) -> Option<usize> {
        if self.links.price == 0 || self.links.parts == 0 {
            return None;
        }
        // The parts may have been counted last for a move that was only weighed.
        self.parts();
        let mut lanes = Vec::new();
        for low in (0..self.lanes).step_by(self.node_lanes) {
            let roots: Vec<u32> =
                (low..low + self.node_gpus).map(|lane| self.links.root(lane as u32)).collect();
            if roots.iter().any(|root| *root != roots[0]) {
                lanes.extend(low..low + self.node_gpus);
            }
        }
        let at = rng::below(rng::draw(key, rng::LINKS + iteration), lanes.len() as u32);
        lanes.get(at as usize).copied()
    }

    /// By how much the cost of parts changes where GPU `a` gives `e` for the `f` of GPU `b`.
    pub(super) fn exchange_links(&mut self, (e, a): (usize, usize), (f, b): (usize, usize)) -> i32 {
        if self.counts[e] == 1 && self.counts[f] == 1 {
            return 0;
        }
        for (expert, out, back) in [(e, a, b), (f, b, a)] {
            self.flip(expert, out);
            self.flip(expert, back);
        }
        let parts = self.parts();
        for (expert, out, back) in [(e, a, b), (f, b, a)] {
            self.flip(expert, out);
            self.flip(expert, back);
        }
        (parts - self.links.parts).saturating_mul(self.links.price)
    }

    /// The same where a replica of `x` on GPU `g` becomes one of `y`.
    pub(super) fn transfer_links(&mut self, x: usize, y: usize, g: usize) -> i32 {
        let is_first = self.counts[y] == 1;
        if is_first {
            self.links.several.push(y as u32);
        }
        self.flip(x, g);
        self.flip(y, g);
        let parts = self.parts();
        self.flip(x, g);
        self.flip(y, g);
        if is_first {
            self.links.several.pop();
        }
        (parts - self.links.parts).saturating_mul(self.links.price)
    }

    /// Puts a lane into an expert's set, or takes it out.
    fn flip(&mut self, expert: usize, lane: usize) {
        self.held[expert * self.words + lane / 32] ^= 1 << (lane % 32);
    }
}
