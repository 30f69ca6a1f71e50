//! A search takes over its start.

use super::{ABREAST, TrailSearch, TrailTask};
use crate::mirror::abreast::refill;
use crate::params::FREE;
use crate::rows::homes;

impl TrailSearch {
    /// Takes over a start.
    #[inline(always)]
    pub(super) fn place(&mut self, task: TrailTask<'_>) {
        let TrailTask { params, objective, previous, start, most_foreign, .. } = task;
        let (gpus, slots, windows) =
            (params.node_gpus as usize, params.slots_per_gpu as usize, objective.windows);
        let (node_lanes, experts) = (gpus.next_multiple_of(ABREAST), params.experts as usize);
        let lanes = node_lanes * params.nodes as usize;
        (self.node_gpus, self.node_lanes, self.lanes) = (gpus, node_lanes, lanes);
        (self.slots, self.windows, self.words) = (slots, windows, lanes.div_ceil(32));
        (self.free, self.max_count) = (experts, params.most_count);
        refill(&mut self.expert, slots * lanes, experts as u32);
        refill(&mut self.load, slots * windows * lanes, 0);
        refill(&mut self.gpu, windows * lanes, -1);
        refill(&mut self.squares, lanes, 0);
        refill(&mut self.tabu, slots * lanes, 0);
        refill(&mut self.counts, experts + 1, 0);
        refill(&mut self.no_gain, experts + 1, 0);
        refill(&mut self.no_loss, experts + 1, 0);
        refill(&mut self.held, (experts + 1) * self.words, 0);
        refill(&mut self.home, (experts + 1) * self.words, 0);
        refill(&mut self.received, lanes, 0);
        self.place_speeds(params);
        self.previous.clear();
        self.previous.extend_from_slice(previous);
        (self.all_squares, self.moved, self.work) = (0, 0, 0);
        for &expert in start.iter().filter(|&&e| e != FREE) {
            self.counts[expert as usize] += 1;
        }
        // A free slot costs nothing wherever it goes, and counts as an expert of one replica.
        self.counts[experts] = 1;
        self.home[experts * self.words..].fill(u32::MAX);
        for (at, &expert) in previous.iter().enumerate().filter(|(_, e)| **e != FREE) {
            let lane = self.lane(at / slots);
            self.home[expert as usize * self.words + lane / 32] |= 1 << (lane % 32);
        }
        for (at, &expert) in start.iter().enumerate() {
            let (lane, slot) = (self.lane(at / slots), at % slots);
            if expert != FREE {
                self.expert[slot * lanes + lane] = expert;
                self.held[expert as usize * self.words + lane / 32] |= 1 << (lane % 32);
            }
        }
        for gpu in 0..gpus * params.nodes as usize {
            let lane = self.lane(gpu);
            (0..windows).for_each(|window| self.gpu[window * lanes + lane] = 0);
            (0..slots).for_each(|slot| self.weigh_slot(objective, slot, lane));
            self.settle(objective, lane);
        }
        let homes = if params.most_foreign > 0 { homes(params, start) } else { Vec::new() };
        self.set_node_rules(params, most_foreign, &homes);
        self.set_floors();
        self.links.price = (i64::from(objective.mean) * i64::from(params.part_price_ppm) / 1_000_000) as i32;
        self.count_parts();
    }

    /// The mean GPU of the busiest node, window by window; of all nodes where load may leave them.
    #[inline(always)]
    fn set_floors(&mut self) {
        self.floors.clear();
        for loads in self.gpu.chunks_exact(self.lanes) {
            let node = |low: usize| {
                let lanes = low..low + self.node_gpus;
                let pull = |lane: usize| self.speeds.pulls.get(lane).map_or(1, |&pull| i64::from(pull));
                let all = lanes.clone().map(|lane| i64::from(loads[lane]) * pull(lane)).sum::<i64>();
                all / lanes.map(pull).sum::<i64>()
            };
            let nodes = (0..self.lanes).step_by(self.node_lanes).map(node);
            let floor = match self.may_leave_home() {
                false => nodes.max().unwrap_or(0),
                true => nodes.sum::<i64>() / (self.lanes / self.node_lanes) as i64,
            };
            self.floors.push(floor as i32);
        }
    }
}
