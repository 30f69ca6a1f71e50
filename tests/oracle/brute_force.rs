//! The optimum of tiny instances by trying every valid plan, in whole numbers.

use eplb_wgpu::{Cluster, Policy};

/// The least max GPU load, over the GPU's speed, over every valid plan of one layer: all assignments of groups to nodes, all replica
/// counts, all placements up to the order of equal GPUs and of slots in a GPU. Infinite where there is no
/// valid plan (without duplicates, where an expert has more replicas than its node has GPUs in every plan).
///
/// Meant for up to about 8 slots; exact for up to 20 replicas a node and loads up to 2^64.
pub fn best_max_load(loads_row: &[u64], cluster: &Cluster, allow_duplicates: bool) -> f64 {
    best_capped_load(loads_row, cluster, allow_duplicates, usize::MAX)
}

/// [`best_max_load`] over the plans in which no expert has more than `most` replicas.
pub fn best_capped_load(loads_row: &[u64], cluster: &Cluster, allow_duplicates: bool, most: usize) -> f64 {
    assert!(cluster.check_experts(loads_row.len()).is_ok(), "experts must fit the cluster");
    let nodes = if cluster.policy() == Policy::Hierarchical { cluster.num_nodes() } else { 1 };
    let groups = if nodes > 1 { cluster.num_groups() } else { 1 };
    let speeds = cluster.gpu_speeds();
    let of_node = |speeds: &[f64]| Node {
        replicas: cluster.num_replicas() / nodes,
        speeds: speeds.iter().copied().filter(|speed| *speed > 0.0).collect(),
        slots: cluster.slots_per_gpu(),
        allow_duplicates,
        most,
    };
    let all: Vec<Node> = speeds.chunks(speeds.len() / nodes).map(of_node).collect();
    let by_group: Vec<&[u64]> = loads_row.chunks(loads_row.len() / groups).collect();
    let mut homes = vec![];
    let best = assign(&by_group, groups / nodes, &all, &mut homes);
    best.map_or(f64::INFINITY, |load| load / all[0].unit() as f64)
}

/// A node, and the rules for its plan.
struct Node {
    replicas: usize,
    /// Of the GPUs that are not gone.
    speeds: Vec<f64>,
    slots: usize,
    allow_duplicates: bool,
    /// The most replicas of an expert.
    most: usize,
}

impl Node {
    /// Loads are counted in 1 / unit, so that the share of any possible count is whole.
    fn unit(&self) -> u128 {
        let gcd = |mut a: u128, mut b: u128| {
            while b > 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        (1..=self.replicas as u128).fold(1, |lcm, n| lcm / gcd(lcm, n) * n)
    }
}

/// Every way to give each group a home, `per_node` groups a node; then each node on its own.
fn assign(groups: &[&[u64]], per_node: usize, nodes: &[Node], homes: &mut Vec<usize>) -> Option<f64> {
    if homes.len() < groups.len() {
        let mut best = None;
        for home in 0..nodes.len() {
            if homes.iter().filter(|&&h| h == home).count() < per_node {
                homes.push(home);
                best = least(best, assign(groups, per_node, nodes, homes));
                homes.pop();
            }
        }
        return best;
    }
    let mut worst = 0.0f64;
    for (home, node) in nodes.iter().enumerate() {
        let of_home = groups.iter().zip(homes.iter()).filter(|(_, h)| **h == home);
        let row: Vec<u64> = of_home.flat_map(|(group, _)| group.iter().copied()).collect();
        worst = worst.max(best_counts(&row, node, &mut vec![])?);
    }
    Some(worst)
}

/// Every way to give each expert at least one replica, `node.replicas` in all.
fn best_counts(row: &[u64], node: &Node, counts: &mut Vec<usize>) -> Option<f64> {
    let left = node.replicas - counts.iter().sum::<usize>();
    let experts_left = row.len() - counts.len();
    if experts_left == 0 {
        let empty = vec![Gpu { load: 0, experts: vec![] }; node.speeds.len()];
        return if left == 0 { place(row, counts, node, 0, empty) } else { None };
    }
    let mut best = None;
    // `left - (experts_left - 1)` is below 1 only where the experts do not fit.
    for count in 1..=(left + 1).saturating_sub(experts_left).min(node.most) {
        counts.push(count);
        best = least(best, best_counts(row, node, counts));
        counts.pop();
    }
    best
}

#[derive(Clone)]
struct Gpu {
    load: u128,
    experts: Vec<usize>,
}

/// Every way to place replica number `next` and those after it, replicas being numbered expert by expert.
/// Empty GPUs of one speed are alike, so only the first of them is tried.
fn place(row: &[u64], counts: &[usize], node: &Node, next: usize, gpus: Vec<Gpu>) -> Option<f64> {
    let mut passed = 0;
    let expert = counts.iter().position(|&count| {
        passed += count;
        next < passed
    });
    let Some(expert) = expert else {
        return gpus.iter().zip(&node.speeds).map(|(gpu, speed)| gpu.load as f64 / speed).reduce(f64::max);
    };
    let share = u128::from(row[expert]) * (node.unit() / counts[expert] as u128);
    let mut best = None;
    for at in 0..gpus.len() {
        let is_alike = |other: usize| gpus[other].experts.is_empty() && node.speeds[other] == node.speeds[at];
        if gpus[at].experts.is_empty() && (0..at).any(is_alike) {
            continue;
        }
        let room = gpus[at].experts.len() < node.slots;
        if room && (node.allow_duplicates || !gpus[at].experts.contains(&expert)) {
            let mut with = gpus.clone();
            with[at].load += share;
            with[at].experts.push(expert);
            best = least(best, place(row, counts, node, next + 1, with));
        }
    }
    best
}

/// The smaller of two, where `None` is no plan at all.
fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (some, None) | (None, some) => some,
    }
}
