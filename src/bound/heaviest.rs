//! The least possible load of the heaviest replica.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The least over all counts (each from 1 to `most`, `replicas` in all) of the largest `w / c`. `replicas` is at
/// least the number of experts.
///
/// Adams' divisor method: counts `max(1, ceil(w / t))` are the least that keep every replica at or below `t`,
/// so `t` is reachable iff they sum to at most `replicas`. Giving one replica after the other to the expert
/// with the largest `w / c` walks down exactly the `t` at which that sum grows.
///
/// The walk starts at `t = sum of w / (replicas - experts)`, which is reachable since
/// `sum of ceil(w / t) <= sum of w / t + experts`; that leaves at most about one step an expert. It ends early
/// where the expert with the largest `w / c` has `most` replicas: further ones of others do not lower it.
pub(super) fn least_heaviest_replica(row: &[f64], replicas: usize, most: usize) -> f64 {
    let spare = replicas.saturating_sub(row.len());
    let total: f64 = row.iter().sum();
    if spare == 0 || total == 0.0 {
        return row.iter().copied().fold(0.0, f64::max);
    }
    // Rounding must not start the walk below what is reachable.
    let start = total / spare as f64 * (1.0 + 1e-9);
    let most = most.max(1) as f64;
    let mut left = replicas;
    let mut heap: BinaryHeap<ReplicaLoad> = row
        .iter()
        .map(|&load| {
            let count = (load / start).ceil().clamp(1.0, most);
            left = left.saturating_sub(count as usize);
            ReplicaLoad { load, count }
        })
        .collect();
    for _ in 0..left {
        if let Some(mut top) = heap.peek_mut() {
            if top.count >= most {
                break;
            }
            top.count += 1.0;
        }
    }
    heap.peek().map_or(0.0, ReplicaLoad::value)
}

/// An expert's load and its replicas so far, ordered by the load of one replica.
struct ReplicaLoad {
    load: f64,
    count: f64,
}

impl ReplicaLoad {
    fn value(&self) -> f64 {
        self.load / self.count
    }
}

impl Ord for ReplicaLoad {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value().total_cmp(&other.value())
    }
}

impl PartialOrd for ReplicaLoad {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ReplicaLoad {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ReplicaLoad {}

#[cfg(test)]
mod tests {
    use super::least_heaviest_replica;

    #[test]
    fn every_expert_once_leaves_the_largest() {
        assert_eq!(least_heaviest_replica(&[3.0, 8.0, 5.0], 3, usize::MAX), 8.0);
        assert_eq!(least_heaviest_replica(&[0.0, 0.0], 7, usize::MAX), 0.0);
    }

    #[test]
    fn agrees_with_all_counts() {
        // All counts of three experts, for loads from even to one-hot.
        for row in [[90.0, 60.0, 41.0], [1000.0, 1.0, 0.0], [7.0, 7.0, 7.0], [500.0, 499.0, 2.0]] {
            for (replicas, most) in (3..40usize).flat_map(|n| [(n, usize::MAX), (n, n.div_ceil(3)), (n, 15)])
            {
                let mut best = f64::INFINITY;
                for a in 1..replicas - 1 {
                    for b in 1..replicas - a {
                        let c = [a, b, replicas - a - b];
                        let worst = (0..3).map(|e| row[e] / c[e] as f64).fold(0.0, f64::max);
                        if c.iter().all(|&c| c <= most) {
                            best = best.min(worst);
                        }
                    }
                }
                let found = least_heaviest_replica(&row, replicas, most);
                assert_eq!(found, best, "{row:?} with {replicas}, at most {most}");
            }
        }
    }
}
