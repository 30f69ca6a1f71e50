//! GPUs of unequal speed: bounds on the largest load over speed.
//!
//! Write `s[g]` for the speeds of a node problem's GPUs. If no GPU carries more than `T s[g]`, then
//! - `T >= sum of w / sum of s`, as all loads together are at most `T` times all speeds;
//! - `T >= heaviest replica / fastest GPU`, under the counts that keep that replica lightest: some GPU holds it;
//! - for the `m` slowest GPUs: the others have `k (P - m)` slots, so at most that many experts have a replica there, and
//!   at least `E - k (P - m)` of the `E` experts have all their replicas on the slow ones. These carry the whole load of
//!   those experts, which is at least the load `w` of as many of the lightest: `T >= w / speed of the m GPUs`. (The
//!   slowest GPUs give the best bound: others have more speed and no more slots.)
//!
//! With two or three slots a GPU, what heavy replicas need in light partners raises it: see [`few_slots`].
//!
//! Under the hierarchical policy nodes differ, so that all ways to give groups to them are looked at, while they are few;
//! a plan that keeps groups whole is one of the cluster as a single node too, which bounds the rest.

use std::collections::HashMap;

use super::Room;
use super::few_slots::{self, Pace};
use super::groups::{MAX_ASSIGNMENTS, choose};
use super::heaviest::least_heaviest_replica;
use crate::cluster::{Cluster, Policy};

/// Sets of groups are bits of a word.
const MOST_GROUPS: usize = 31;

/// The bound of one layer, up to rounding; of plans that may break groups up too, unless groups `are_whole`.
pub(super) fn bound(row: &[f64], cluster: &Cluster, most: usize, are_whole: bool, pace: &Pace) -> f64 {
    let speeds = cluster.gpu_speeds();
    let whole = node_bound(row, &speeds, Room::of_cluster(cluster, most), Some(pace));
    let (groups, nodes) = (cluster.num_groups(), cluster.num_nodes());
    let is_global = cluster.policy() == Policy::Global || !are_whole;
    if is_global || ways(groups, nodes) > MAX_ASSIGNMENTS || groups > MOST_GROUPS {
        return whole;
    }
    let mut search = SpeedSearch {
        groups: row.chunks_exact(row.len() / groups).collect(),
        nodes: speeds.chunks_exact(speeds.len() / nodes).collect(),
        room: Room::of_node(cluster, most),
        pace: Some(pace).filter(|pace| choose(groups, groups / nodes) <= pace.most_sets),
        known: HashMap::new(),
        best: f64::INFINITY,
    };
    search.assign(0, (1 << groups) - 1, whole);
    // Where all GPUs of a node are gone there is no plan to bound.
    if search.best.is_finite() { search.best } else { whole }
}

/// How many ways there are to give groups to nodes that can be told apart.
fn ways(groups: usize, nodes: usize) -> usize {
    let each = groups / nodes;
    (1..=nodes).map(|n| choose(n * each, each)).fold(1, usize::saturating_mul)
}

/// The bound of one node problem, raised at a pace if one is given.
fn node_bound(row: &[f64], speeds: &[f64], room: Room, pace: Option<&Pace>) -> f64 {
    let mut speeds: Vec<f64> = speeds.iter().copied().filter(|speed| *speed > 0.0).collect();
    speeds.sort_by(f64::total_cmp);
    let Some(&fastest) = speeds.last() else { return f64::INFINITY };
    let mean = row.iter().sum::<f64>() / speeds.iter().sum::<f64>();
    let bound = mean.max(least_heaviest_replica(row, room.replicas, room.most) / fastest);
    let mut lightest = row.to_vec();
    lightest.sort_by(f64::total_cmp);
    let (mut load, mut experts, mut speed) = (0.0, 0, 0.0);
    let of_slowest = speeds.iter().enumerate().map(|(at, own)| {
        speed += own;
        let elsewhere = room.slots * (speeds.len() - at - 1);
        while experts + elsewhere < lightest.len() {
            load += lightest[experts];
            experts += 1;
        }
        load / speed
    });
    let bound = of_slowest.fold(bound, f64::max);
    let Some(pace) = pace else { return bound };
    // Slots of GPUs that are gone are none.
    let room = Room { gpus: speeds.len(), ..room };
    speeds.iter_mut().for_each(|speed| *speed /= fastest);
    few_slots::raise(row, (room, &speeds), bound * fastest, f64::INFINITY, pace) / fastest
}

/// A search over all ways to give groups to nodes; sets of groups are bit masks.
struct SpeedSearch<'a> {
    groups: Vec<&'a [f64]>,
    nodes: Vec<&'a [f64]>,
    room: Room,
    /// Of raising the bound of each set, where there are few.
    pace: Option<&'a Pace>,
    /// The bound of each node and set of groups met so far.
    known: HashMap<(usize, u32), f64>,
    /// The least bound of a full assignment so far.
    best: f64,
}

impl SpeedSearch<'_> {
    /// Gives the groups in `left` to the nodes from `node` on, where those before have bound `so_far`.
    fn assign(&mut self, node: usize, left: u32, so_far: f64) {
        match node == self.nodes.len() {
            true => self.best = self.best.min(so_far),
            false => self.fill(node, 0, left, left, so_far),
        }
    }

    /// Completes the set of a node with groups from `choice`; `left` are those that no node has.
    fn fill(&mut self, node: usize, set: u32, mut choice: u32, left: u32, so_far: f64) {
        if so_far >= self.best {
            return;
        }
        let missing = (self.groups.len() / self.nodes.len()) as u32 - set.count_ones();
        if missing == 0 {
            let bound = self.bound_of(node, set);
            return self.assign(node + 1, left, so_far.max(bound));
        }
        while choice.count_ones() >= missing {
            let group = 1 << choice.trailing_zeros();
            choice &= !group;
            self.fill(node, set | group, choice, left & !group, so_far);
        }
    }

    fn bound_of(&mut self, node: usize, set: u32) -> f64 {
        // Nodes of the same speeds share what is known.
        let node = self.nodes.iter().position(|speeds| *speeds == self.nodes[node]).unwrap_or(node);
        let Self { groups, nodes, room, pace, known, .. } = self;
        *known.entry((node, set)).or_insert_with(|| {
            let held = (0..groups.len()).filter(|group| set >> group & 1 == 1);
            let row: Vec<f64> = held.flat_map(|group| groups[group]).copied().collect();
            node_bound(&row, nodes[node], *room, *pace)
        })
    }
}
