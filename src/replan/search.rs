//! The trajectory from the plan that runs: one move after the other, the best one even where it makes things worse,
//! and every state that is better than all before it is kept. So there is a state for any limit on moves: the first states
//! move little, the last ones balance best.
//!
//! Arrays are `[slot][window][lane]`; a lane is a GPU, and each node has whole vectors of them, so that loops over the
//! GPUs of a node run abreast.
//!
//! Where GPUs are of unequal speed, all loads but those of experts are over the speed of their GPU: a replica counts more on a
//! slow one. That is on the host alone.

pub mod exchange;
mod links;
mod make;
mod nodes;
mod place;
mod shed;
mod speeds;
mod trail;
mod transfer;

use super::objective::LayerObjective;
use crate::mirror::abreast::{Top, three_heaviest};
use crate::mirror::rng;
use crate::moves;
use crate::params::{FREE, Params};

pub use trail::{State, Trail};

/// GPUs that a loop takes abreast.
pub const ABREAST: usize = 8;

/// A search ends once it has weighed about this many loads: a tenth of a second of one core.
pub const WORK_LIMIT: u32 = 1 << 26;

/// A search has at most this many iterations: a device has memory for the changes of this many. (V3's layers on 32 GPUs take up to
/// 109, those included where nothing runs yet.)
pub const MOST_ITERATIONS: u32 = 1 << 12;

/// A slot that moved stays for two iterations, and up to two more.
pub const SLOT_TENURE: u32 = 3;

/// An expert that lost a replica gains none for four iterations, and up to three more; one that gained loses none.
pub const EXPERT_TENURE: u32 = 5;

/// A move and the value after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailMove {
    pub value: i32,
    pub kind: TrailMoveKind,
}

/// The kinds of moves, with slots as numbers on their GPU, and GPUs as lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrailMoveKind {
    None,
    /// A slot of a GPU for one of another.
    Exchange {
        gpus: [usize; 2],
        slots: [usize; 2],
    },
    /// A slot becomes a replica of an expert.
    Transfer {
        gpu: usize,
        slot: usize,
        expert: usize,
    },
}

/// The state of a search, and its scratch. Used again from layer to layer.
#[derive(Default)]
pub struct TrailSearch {
    pub node_gpus: usize,
    /// `node_gpus`, rounded up to whole vectors.
    pub node_lanes: usize,
    pub lanes: usize,
    pub slots: usize,
    pub windows: usize,
    /// Words of a set of lanes.
    pub words: usize,
    /// The number that stands for a free slot.
    pub free: usize,
    pub max_count: u32,
    /// Expert of each slot, `[slot][lane]`.
    pub expert: Vec<u32>,
    /// Load of each slot's replica, `[slot][window][lane]`.
    pub load: Vec<i32>,
    /// Load of each GPU, `[window][lane]`; -1 in lanes without a GPU.
    pub gpu: Vec<i32>,
    /// The squares of each GPU, all windows together, and of all GPUs.
    pub squares: Vec<i32>,
    pub all_squares: i32,
    /// The heaviest GPU, all windows together.
    peaks: i32,
    /// Iteration up to which each slot must not move, `[slot][lane]`.
    pub tabu: Vec<u32>,
    /// Replicas of each expert.
    pub counts: Vec<u32>,
    /// Iterations up to which each expert must not gain and not lose a replica.
    pub no_gain: Vec<u32>,
    pub no_loss: Vec<u32>,
    /// The lanes that hold each expert, and those that held it in the plan that runs: `[expert][word]`.
    pub held: Vec<u32>,
    pub home: Vec<u32>,
    /// The three heaviest GPUs of each window, the lower of equals first.
    pub tops: Vec<[Top; 3]>,
    /// The load that each window's heaviest GPU cannot go below, whatever moves inside nodes.
    pub floors: Vec<i32>,
    /// The plan that runs, GPU after GPU.
    previous: Vec<u32>,
    /// Slots of each lane that received an expert.
    received: Vec<usize>,
    moved: usize,
    pub links: links::Links,
    rules: nodes::NodeRules,
    pub work: u32,
    pub exchange: exchange::ExchangeScratch,
    pub transfer: transfer::TransferScratch,
    shed: shed::ShedScratch,
    speeds: speeds::SpeedScratch,
}

/// One search of a layer.
#[derive(Clone, Copy)]
pub struct TrailTask<'a> {
    pub params: &'a Params,
    pub objective: &'a LayerObjective,
    /// The plan that runs: moves are counted from it. `FREE` for a slot that holds nothing.
    pub previous: &'a [u32],
    /// Where the search starts.
    pub start: &'a [u32],
    /// Iterations without a new best after which it ends.
    pub patience: u32,
    /// The most foreign replicas.
    pub most_foreign: u32,
}

impl TrailTask<'_> {
    /// Follows the trajectory.
    ///
    /// It is compiled once for each set of vector instructions, and the widest that the processor has is taken.
    pub fn run(self, search: &mut TrailSearch) -> Trail {
        pulp::Arch::new().dispatch(TrailRun { task: self, search })
    }
}

/// A task, and the scratch that it takes.
struct TrailRun<'a> {
    task: TrailTask<'a>,
    search: &'a mut TrailSearch,
}

impl pulp::NullaryFnOnce for TrailRun<'_> {
    type Output = Trail;

    #[inline(always)]
    fn call(self) -> Trail {
        let Self { task, search } = self;
        let TrailTask { params, objective, patience, .. } = task;
        search.place(task);
        search.run(params, objective, patience)
    }
}

impl TrailSearch {
    /// The lane of a GPU.
    #[inline(always)]
    fn lane(&self, gpu: usize) -> usize {
        gpu / self.node_gpus * self.node_lanes + gpu % self.node_gpus
    }

    /// The number that a slot has in the rows.
    #[inline(always)]
    fn row_slot(&self, slot: usize, lane: usize) -> usize {
        let gpu = lane / self.node_lanes * self.node_gpus + lane % self.node_lanes;
        gpu * self.slots + slot
    }

    /// Sets the load of a slot by its expert's count, and changes its GPU's by as much.
    #[inline(always)]
    pub fn weigh_slot(&mut self, objective: &LayerObjective, slot: usize, lane: usize) {
        let expert = self.expert[slot * self.lanes + lane] as usize;
        for window in 0..self.windows {
            let plain = objective.weight[expert * self.windows + window] / self.counts[expert] as i32;
            let at = (slot * self.windows + window) * self.lanes + lane;
            let load = self.speeds.on_gpu(plain, lane);
            self.gpu[window * self.lanes + lane] += load - self.load[at];
            self.load[at] = load;
            if !self.speeds.are_equal() {
                self.speeds.plain[at] = plain;
            }
        }
    }

    /// Sets the squares of a GPU by its loads.
    #[inline(always)]
    fn settle(&mut self, objective: &LayerObjective, lane: usize) {
        let squares = objective.squares.iter().enumerate();
        let squares = squares.map(|(window, square)| {
            self.speeds.pulled(square.of(self.gpu[window * self.lanes + lane]), lane)
        });
        let squares: i32 = squares.sum();
        self.all_squares += squares - self.squares[lane];
        self.squares[lane] = squares;
    }

    /// Counts the slots of a GPU that received an expert.
    #[inline(always)]
    fn count_received(&mut self, lane: usize) {
        let first = self.row_slot(0, lane);
        let now: Vec<u32> = (0..self.slots).map(|slot| self.row_expert(slot, lane)).collect();
        let old = &self.previous[first..first + self.slots];
        let received = moves::received(self.slots, old, &now);
        self.moved = self.moved + received - self.received[lane];
        self.received[lane] = received;
    }

    /// The expert of a slot, as rows have it.
    #[inline(always)]
    fn row_expert(&self, slot: usize, lane: usize) -> u32 {
        let expert = self.expert[slot * self.lanes + lane];
        if expert as usize == self.free { FREE } else { expert }
    }

    #[inline(always)]
    fn run(&mut self, params: &Params, objective: &LayerObjective, patience: u32) -> Trail {
        let key = rng::draw(params.seed[0], params.seed[1]);
        for gpu in 0..self.lanes / self.node_lanes * self.node_gpus {
            self.count_received(self.lane(gpu));
        }
        let mut trail = Trail::default();
        let mut value = self.look();
        let price = |moved: usize| objective.price.saturating_mul(moved as i32);
        let mut best = value.saturating_add(price(self.moved));
        trail.states.push(State { moved: self.moved, peaks: self.peaks, value, priced: best, changes: 0 });
        let can_move = self.node_gpus > 1 && objective.mean > 0;
        let mut since = 0;
        let mut iteration = 0;
        while can_move && since < patience && self.work < WORK_LIMIT && iteration < MOST_ITERATIONS {
            iteration += 1;
            let a = match since {
                0 => self.proposer(),
                _ => self.apart(key, iteration).unwrap_or_else(|| self.proposer()),
            };
            let found = match self.speeds.are_equal() {
                true => {
                    let found = self.best_exchange::<false>(objective, key, iteration, a);
                    self.best_transfer::<false>(objective, iteration, a, found)
                }
                false => {
                    let found = self.best_exchange::<true>(objective, key, iteration, a);
                    let found = self.best_transfer::<true>(objective, iteration, a, found);
                    self.best_shed(objective, iteration, a, found)
                }
            };
            self.make(objective, key, iteration, found.kind, &mut trail.changes);
            self.count_parts();
            value = self.look();
            let priced = value.saturating_add(price(self.moved));
            if priced < best - objective.gap {
                (best, since) = (priced, 0);
                let changes = trail.changes.len();
                trail.states.push(State { moved: self.moved, peaks: self.peaks, value, priced, changes });
            } else {
                since += 1;
            }
        }
        // Changes after the last state are of no use.
        trail.changes.truncate(trail.states[trail.states.len() - 1].changes);
        trail
    }

    /// The GPU that moves: the one whose squares, and lead over the second in windows in which it is the heaviest, add
    /// up to most. Ties to the lower.
    #[inline(always)]
    fn proposer(&self) -> usize {
        let mut most = (-1, 0);
        let lead = |lane: usize| -> i32 {
            let tops = self.tops.iter().filter(|tops| tops[0].gpu == lane);
            tops.map(|tops| tops[0].load - tops[1].load.max(0)).sum()
        };
        for gpu in 0..self.lanes / self.node_lanes * self.node_gpus {
            let lane = self.lane(gpu);
            let score = self.squares[lane] + lead(lane);
            if score > most.0 {
                most = (score, lane);
            }
        }
        most.1
    }

    /// Whether a set of lanes has this one.
    #[inline(always)]
    pub fn has(&self, sets: &[u32], expert: usize, lane: usize) -> bool {
        sets[expert * self.words + lane / 32] >> (lane % 32) & 1 != 0
    }

    /// Finds the heaviest GPUs of each window; returns the objective without the price of moves.
    #[inline(always)]
    fn look(&mut self) -> i32 {
        self.work += (4 * self.windows * self.lanes) as u32;
        self.tops.clear();
        for loads in self.gpu.chunks_exact_mut(self.lanes) {
            self.tops.push(three_heaviest::<ABREAST>(loads));
        }
        self.peaks = self.tops.iter().zip(&self.floors).map(|(tops, &floor)| tops[0].load.max(floor)).sum();
        self.peaks + self.all_squares + self.links.cost()
    }

    /// The price of a slot that receives an expert.
    #[inline(always)]
    pub fn cost(&self, objective: &LayerObjective, expert: usize, lane: usize) -> i32 {
        if self.has(&self.home, expert, lane) { 0 } else { objective.price }
    }

    /// The price of the moves as they are.
    #[inline(always)]
    pub fn price_now(&self, objective: &LayerObjective) -> i32 {
        objective.price.saturating_mul(self.moved as i32)
    }
}
