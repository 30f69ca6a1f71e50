//! Small layers are solved exactly, on the host for every backend.
//!
//! All balanced assignments of groups to nodes, all replica counts and all placements are searched, with
//! pruning. Whether a layer is small depends on its shape alone ([`is_small`]), by a count of the steps that
//! the search could take without any pruning; so it is the same for all layers of a call, and no loads make
//! the search long.
//!
//! Ties: of equally good assignments the earliest, of equally good counts those of the greedy rule (each next
//! replica to the expert with the heaviest replicas, then to the one with fewer, then to the lower), else
//! those met first, of equally good placements the one met first. GPUs of a node are numbered by their lowest
//! experts, and slots of a GPU by expert: where nothing is replicated and a GPU has one slot, expert `e` of a
//! node stays in its slot `e`.

mod packing;
mod pairs;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::params::{FREE, Params, enumerate_assignments};
use packing::Packing;

/// A layer is small while its search takes at most this many steps: below a few milliseconds if none is pruned.
const MOST_STEPS: u64 = 200_000;

/// A layer is small only while a node has at most this many slots: what is done once for a node is quadratic or worse in them.
const MOST_SLOTS: u32 = 64;

/// Whether layers of this shape are solved by [`plan_layer`].
pub(crate) fn is_small(params: &Params) -> bool {
    params.windows == 1
        && !params.has_speeds()
        && params.node_slots <= MOST_SLOTS
        && steps(params) <= MOST_STEPS
}

/// The most steps that the search of a layer can take.
///
/// For each set of groups that a node can hold, for each vector of counts:
/// - with two slots a GPU, one look at each item ([`pairs`] decides without a search);
/// - else, for each way to fill the GPUs ([`packings`]), one step for each GPU.
///
/// Pairing the replicas of the best counts, and looking at all assignments, comes once.
fn steps(params: &Params) -> u64 {
    let assignments = enumerate_assignments(params.groups, params.nodes).len() as u64;
    if assignments == 0 {
        return u64::MAX;
    }
    let gpus = u64::from(params.node_gpus);
    let items = u64::from(params.node_experts) + u64::from(params.node_slots > params.node_replicas);
    let each = if params.slots_per_gpu == 2 { items } else { packings(params).saturating_mul(gpus) };
    let node = count_vectors(params).saturating_mul(each).saturating_add(gpus * items);
    let sides = choose(params.groups, params.node_groups);
    sides.saturating_mul(node).saturating_add(assignments * u64::from(params.groups))
}

/// How many ways there are to give each expert of a node between 1 and `max_count` of its replicas.
fn count_vectors(params: &Params) -> u64 {
    let extra = (params.node_replicas - params.node_experts) as usize;
    let most = (params.max_count - 1) as usize;
    let mut ways = vec![0u64; extra + 1];
    ways[0] = 1;
    for _ in 0..params.node_experts {
        // From the last on, each entry still finds the ways without this expert below it.
        for total in (0..=extra).rev() {
            let from = total.saturating_sub(most);
            ways[total] = ways[from..=total].iter().fold(0, |sum, &w| sum.saturating_add(w));
        }
    }
    ways[extra]
}

/// At most how many ways there are to fill the GPUs of a node with given replicas.
///
/// The heaviest replica left opens a GPU; the others on it are some of the replicas left, told apart or not:
/// the smaller of both numbers, multiplied over the GPUs.
fn packings(params: &Params) -> u64 {
    let Params { node_experts: experts, slots_per_gpu: slots, .. } = *params;
    let free = params.node_slots - params.node_replicas;
    let with_free = |free| {
        let others = slots - 1 - free;
        choose(if params.avoid_duplicates { experts - 1 } else { experts - 1 + others }, others)
    };
    let by_expert = (0..=free.min(slots - 1)).map(with_free).fold(0, u64::saturating_add).max(1);
    let gpu = |left: u32| choose(left * slots - 1, slots - 1).min(by_expert);
    (1..=params.node_gpus).map(gpu).fold(1, u64::saturating_mul)
}

/// The number of ways to choose `k` of `n`, or `u64::MAX` where it may not fit.
fn choose(n: u32, k: u32) -> u64 {
    if k > n {
        return 0;
    }
    let mut ways = 1u64;
    for i in 1..=k.min(n - k) {
        let Some(product) = ways.checked_mul(u64::from(n - i + 1)) else { return u64::MAX };
        ways = product / u64::from(i);
    }
    ways
}

/// The best plan of a layer whose shape is small: the logical expert of each slot, [`FREE`] for a free slot.
pub(crate) fn plan_layer(params: &Params, loads: &[u32]) -> Vec<u32> {
    let assignments = enumerate_assignments(params.groups, params.nodes);
    let mut sides: BTreeMap<&[u32], Side> = BTreeMap::new();
    let mut best: Option<(u32, &[u32])> = None;
    for assignment in &assignments {
        let mut heaviest = 0;
        for groups in assignment.chunks_exact(params.node_groups as usize) {
            let side = sides.entry(groups).or_insert_with(|| solve(params, groups, loads));
            heaviest = heaviest.max(side.heaviest);
            if best.is_some_and(|(least, _)| heaviest >= least) {
                break;
            }
        }
        if best.is_none_or(|(least, _)| heaviest < least) {
            best = Some((heaviest, assignment));
        }
    }
    let (_, assignment) = best.unwrap_or_default();
    let nodes = assignment.chunks_exact(params.node_groups as usize);
    nodes.filter_map(|groups| sides.get(groups)).flat_map(|side| side.slots.iter().copied()).collect()
}

/// The best placement of the experts of some groups on one node.
struct Side {
    /// Load of its heaviest GPU.
    heaviest: u32,
    /// Logical expert of each slot.
    slots: Vec<u32>,
}

/// The best placement of a set of groups on a node.
fn solve(params: &Params, groups: &[u32], loads: &[u32]) -> Side {
    let size = params.group_size;
    let mut experts: Vec<u32> = groups.iter().flat_map(|group| group * size..(group + 1) * size).collect();
    experts.sort_unstable_by_key(|&expert| (Reverse(loads[expert as usize]), expert));
    let mut search = CountSearch::new(params, experts, loads);
    search.greedy_counts();
    search.weigh();
    search.extend(0, params.node_replicas);
    let mut slots = if params.slots_per_gpu == 2 {
        pairs::pair_up(&mut search.best_items, params.node_gpus, params.avoid_duplicates, search.best)
    } else {
        search.best_slots
    };
    slots.resize(params.node_slots as usize, FREE);
    let mut gpus: Vec<&mut [u32]> = slots.chunks_exact_mut(params.slots_per_gpu as usize).collect();
    gpus.iter_mut().for_each(|gpu| gpu.sort_unstable());
    gpus.sort_unstable();
    Side { heaviest: search.best, slots: gpus.concat() }
}

/// The content of some slots: the replicas of an expert, or the free slots, which weigh nothing.
#[derive(Clone, Copy, Debug)]
struct SlotContent {
    /// Logical expert, or [`FREE`].
    expert: u32,
    /// Load of one replica.
    load: u32,
    /// Replicas, or those left to place.
    count: u32,
}

impl SlotContent {
    /// Whether a GPU may hold two of it.
    fn repeats(&self, avoid_duplicates: bool) -> bool {
        !avoid_duplicates || self.expert == FREE
    }
}

/// The search over the counts of a node's experts.
struct CountSearch<'a> {
    params: &'a Params,
    /// Logical experts, heaviest first.
    experts: Vec<u32>,
    /// Their loads.
    loads: Vec<u32>,
    /// A load that no plan can go below.
    enough: u32,
    /// Replicas of each expert.
    counts: Vec<u32>,
    /// How many replicas each expert and those after it need together, for a plan better than the best.
    needs: Vec<u32>,
    /// The experts and free slots under `counts`, heaviest replicas first.
    items: Vec<SlotContent>,
    /// Load of the heaviest GPU of the best plan so far.
    best: u32,
    /// Its items, where pairs decide.
    best_items: Vec<SlotContent>,
    /// Its slots, where they do not.
    best_slots: Vec<u32>,
}

impl<'a> CountSearch<'a> {
    fn new(params: &'a Params, experts: Vec<u32>, loads: &[u32]) -> Self {
        let loads: Vec<u32> = experts.iter().map(|&expert| loads[expert as usize]).collect();
        // Rounding down takes less than 1 from each replica, and nothing where an expert has one.
        let rounding = params.node_replicas - params.node_experts;
        let total = loads.iter().sum::<u32>();
        let enough = total.saturating_sub(rounding).div_ceil(params.node_gpus);
        Self {
            params,
            enough,
            counts: vec![1; loads.len()],
            needs: vec![0; loads.len() + 1],
            items: Vec::with_capacity(loads.len() + 1),
            best: u32::MAX,
            best_items: Vec::new(),
            best_slots: Vec::new(),
            experts,
            loads,
        }
    }

    /// Sets the counts of the greedy rule.
    fn greedy_counts(&mut self) {
        let (loads, most) = (&self.loads, self.params.max_count);
        for _ in self.params.node_experts..self.params.node_replicas {
            let counts = &self.counts;
            let open = (0..counts.len()).filter(|&e| counts[e] < most);
            let heaviest = open.min_by(|&a, &b| {
                let (of_a, of_b) = (u64::from(loads[a]), u64::from(loads[b]));
                let by_load = (of_b * u64::from(counts[a])).cmp(&(of_a * u64::from(counts[b])));
                by_load.then(counts[a].cmp(&counts[b]))
            });
            if let Some(expert) = heaviest {
                self.counts[expert] += 1;
            }
        }
    }

    /// Tries all counts of the experts from `at` on, which get `left` replicas together.
    fn extend(&mut self, at: usize, left: u32) {
        if at == self.experts.len() {
            self.weigh();
            return;
        }
        let most = self.params.max_count;
        let after = (self.experts.len() - at - 1) as u32;
        let mut count = left.saturating_sub(after * most);
        // Needs grow with every better plan.
        while self.best > self.enough {
            count = count.max(self.needs[at] - self.needs[at + 1]);
            if count > most || count + self.needs[at + 1] > left {
                return;
            }
            self.counts[at] = count;
            self.extend(at + 1, left - count);
            count += 1;
        }
    }

    /// Places the replicas under the present counts, and keeps the plan if it is better than the best so far.
    fn weigh(&mut self) {
        let Params { node_gpus: gpus, slots_per_gpu, avoid_duplicates, .. } = *self.params;
        self.items.clear();
        let experts = self.experts.iter().zip(&self.loads).zip(&self.counts);
        self.items.extend(experts.map(|((&expert, load), &count)| SlotContent {
            expert,
            load: load / count,
            count,
        }));
        let count = self.params.node_slots - self.params.node_replicas;
        if count > 0 {
            self.items.push(SlotContent { expert: FREE, load: 0, count });
        }
        self.items.sort_unstable_by_key(|item| (Reverse(item.load), item.expert));
        let before = self.best;
        if slots_per_gpu == 2 {
            if pairs::fit(&self.items, gpus, avoid_duplicates, self.best - 1) {
                self.best =
                    pairs::least_load(&self.items, gpus, avoid_duplicates, self.enough, self.best - 1);
                self.best_items.clone_from(&self.items);
            }
        } else {
            let mut packing = Packing {
                items: &mut self.items,
                slots_per_gpu,
                avoid_duplicates,
                enough: self.enough,
                best: &mut self.best,
                best_slots: &mut self.best_slots,
                filled: Vec::with_capacity(self.params.node_slots as usize),
            };
            packing.improve(gpus);
        }
        if self.best < before {
            // An expert's replicas are lighter than the best with more than `load / best` of them.
            for at in (0..self.loads.len()).rev() {
                self.needs[at] = self.needs[at + 1] + self.loads[at] / self.best.max(1) + 1;
            }
        }
    }
}
