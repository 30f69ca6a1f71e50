//! GPUs of unequal speed with few slots: where most of a node's GPUs are equally fast, the others are filled apart from them.
//!
//! Each of the others gets whole experts, one replica each, as many as it can carry. The equal GPUs are then a node of their
//! own, with the search that such a node has: with two slots a GPU the search of counts, which finds much better plans than the
//! trajectory. Last comes a trajectory over all GPUs. Several fillings are tried: in some a GPU gets a light expert beside a
//! heavy one, in others two of about the same load.

use crate::mirror::candidate::Outcome;
use crate::mirror::s6_select::NodeBest;
use crate::mirror::{Starts, rng, s5_search};
use crate::params::{FREE, Params};
use crate::plan::Stop;
use crate::rows;

/// With more slots a GPU the trajectory alone comes to the bound.
const MOST_SLOTS: u32 = 3;

/// Fillings of the other GPUs that are tried at most.
const FILLINGS: usize = 8;

/// Without a new best in this many of them, no others are tried.
const IDLE_FILLINGS: u32 = 3;

/// Experts that are weighed as the lighter one of a pair.
const TRIED: usize = 12;

/// Starts of a trajectory over all GPUs after that; more are of no use. (V3 on 96 GPUs of three slots, 12 of them at half: a mean
/// gap of .15 % with 2, .11 % with 16; on 144 of two slots they bring nothing.)
pub fn starts(params: &Params) -> u32 {
    match params.slots_per_gpu {
        2 => (params.starts / 16).max(1),
        _ => (params.starts / 4).max(1),
    }
}

/// The equal GPUs of a node and the others, and the sizes of the node that the equal ones make.
pub struct Apart {
    most: Vec<usize>,
    others: Vec<usize>,
    params: Params,
}

impl Apart {
    /// For the sizes of one node; `None` where its GPUs are not filled apart.
    pub fn new(params: &Params) -> Option<Self> {
        let factors = &params.factors.gpus;
        let is_for = params.has_speeds() && params.trajectory && params.windows == 1;
        if !is_for || !(2..=MOST_SLOTS).contains(&params.slots_per_gpu) {
            return None;
        }
        let equal = |factor: u32| factors.iter().filter(|&&other| other == factor).count();
        let factor = factors.iter().copied().max_by_key(|&factor| (equal(factor), u32::MAX - factor))?;
        let (most, others): (Vec<usize>, Vec<usize>) =
            (0..factors.len()).partition(|&gpu| factors[gpu] == factor);
        let taken = others.len() as u32 * params.slots_per_gpu;
        let experts = params.node_experts.checked_sub(taken).filter(|&left| left > 0)?;
        let replicas = params.node_replicas.checked_sub(taken)?;
        let params = params.of_equal(most.len() as u32, (experts, replicas));
        let fits = u64::from(experts) * u64::from(params.max_count) >= u64::from(replicas);
        (most.len() >= others.len() && fits).then_some(Self { most, others, params })
    }
}

/// Memory that a thread reuses from node to node.
#[derive(Default)]
pub struct NodeScratch {
    starts: Starts,
    slots: Vec<u32>,
}

impl NodeScratch {
    /// Offers placements to a node until one is good enough. `group` is the first group of the node, and `loads` are those of
    /// its experts.
    pub fn run(
        &mut self,
        params: &Params,
        (apart, group): (&Apart, u32),
        loads: &[u32],
        bound: u32,
        node: &mut NodeBest,
    ) {
        let starts = node.starts;
        for filling in 0..FILLINGS {
            if node.max <= params.enough(bound) || node.idle >= IDLE_FILLINGS {
                break;
            }
            // A target that no placement reaches would leave room on the other GPUs.
            let target = if filling % 2 == 0 || node.max == u32::MAX { bound } else { node.max };
            self.fill(params, apart, (group, filling), (loads, target), (bound, node));
        }
        if node.max < u32::MAX && node.max > params.stop_load(bound) {
            self.polish(params, group, loads, params.stop_load(bound), node);
        }
        // These do not count as starts of the trajectory.
        (node.starts, node.idle) = (starts, 0);
    }

    /// Fills the other GPUs, and plans the rest.
    fn fill(
        &mut self,
        params: &Params,
        apart: &Apart,
        (group, filling): (u32, usize),
        (loads, target): (&[u32], u32),
        (bound, node): (u32, &mut NodeBest),
    ) {
        let slots = params.slots_per_gpu as usize;
        let mut pool: Vec<(u32, u32)> = loads.iter().copied().zip(0..).collect();
        pool.sort_unstable();
        self.slots.clear();
        self.slots.resize(params.node_slots as usize, FREE);
        for &gpu in &apart.others {
            let most = params.at_speed(i64::from(target), gpu);
            let Some(held) = whole_experts(&mut pool, slots, most, filling) else { return };
            self.slots[gpu * slots..(gpu + 1) * slots].copy_from_slice(&held);
        }
        let mut left: Vec<u32> = pool.into_iter().map(|(_, expert)| expert).collect();
        left.sort_unstable();
        let starts = &mut self.starts;
        starts.combined.clear();
        starts.combined.extend(left.iter().map(|&expert| loads[expert as usize]));
        starts.loads.clone_from(&starts.combined);
        let stop = params.at_speed(params.stop_load(bound).into(), apart.most[0]) as u32;
        let Outcome { end, .. } = starts.run(&apart.params, (group, 0), (&[0], stop), &mut |_| ());
        for (&gpu, held) in apart.most.iter().zip(starts.candidate.snapshot.chunks_exact(slots)) {
            for (slot, &at) in self.slots[gpu * slots..(gpu + 1) * slots].iter_mut().zip(held) {
                *slot = if at == FREE { FREE } else { left[at as usize] };
            }
        }
        let max = rows::peaks(params, &[loads], &self.slots);
        node.offer(
            Outcome { max, end: if max <= params.stop_load(bound) { Stop::BoundReached } else { end } },
            &self.slots,
        );
    }

    /// A trajectory over all GPUs, from the best placement so far.
    fn polish(&mut self, params: &Params, group: u32, loads: &[u32], stop: u32, node: &mut NodeBest) {
        let Starts { candidate, search, .. } = &mut self.starts;
        candidate.expert.clone_from(&node.slots);
        candidate.counts = counts(loads.len(), &node.slots);
        let key = rng::key(params, group, 0);
        let outcome = s5_search::search(params, (key, 0), loads, (&[0], stop), candidate, search);
        node.offer(outcome, &candidate.snapshot);
    }
}

/// Takes experts for a GPU that can carry `most` out of `pool`, which is sorted by load. All slots but two get an expert of
/// about an equal part of what the GPU can still carry; the last two get the pair, of some, that leaves least room. The first
/// filling looks for the lighter one of the pair from the lightest expert on, the last filling near half of the room.
fn whole_experts(pool: &mut Vec<(u32, u32)>, slots: usize, most: i64, filling: usize) -> Option<Vec<u32>> {
    let mut held = Vec::with_capacity(slots);
    let mut left = most;
    for slot in 0..slots - 2 {
        let each = left / (slots - slot) as i64;
        let at = pool.partition_point(|&(load, _)| i64::from(load) <= each).checked_sub(1)?;
        let (load, expert) = pool.remove(at);
        left -= i64::from(load);
        held.push(expert);
    }
    let halves = pool.partition_point(|&(load, _)| i64::from(load) <= left / 2);
    let first = halves.saturating_sub(TRIED) * filling / (FILLINGS - 1);
    let mut best: Option<(i64, usize, usize)> = None;
    for light in first..(first + TRIED).min(halves) {
        let room = left - i64::from(pool[light].0);
        let fits = pool.partition_point(|&(load, _)| i64::from(load) <= room);
        // The largest that fits; of the lighter half it may be the expert itself.
        let Some(heavy) = fits.checked_sub(1).filter(|&heavy| heavy > light) else { continue };
        let wasted = room - i64::from(pool[heavy].0);
        if best.is_none_or(|best| wasted < best.0) {
            best = Some((wasted, light, heavy));
        }
    }
    let (_, light, heavy) = best?;
    for at in [heavy, light] {
        held.push(pool.remove(at).1);
    }
    Some(held)
}

/// Replicas of each expert.
fn counts(experts: usize, slots: &[u32]) -> Vec<u32> {
    let mut counts = vec![0; experts];
    slots.iter().filter(|&&expert| expert != FREE).for_each(|&expert| counts[expert as usize] += 1);
    counts
}
