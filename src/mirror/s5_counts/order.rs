//! The loads of replicas, and the order of experts by them.

use super::Tables;
use super::table::Change;

impl Tables {
    /// Shares and order for some counts, which are the best so far.
    pub fn begin(&mut self, loads: &[u32], counts: &[u32]) {
        let experts = loads.len();
        for array in [&mut self.share, &mut self.more, &mut self.fewer, &mut self.row, &mut self.tabu] {
            array.clear();
            array.resize(experts, 0);
        }
        self.changes.iter_mut().for_each(|changes| changes.resize(experts, Change::default()));
        self.best_counts.clear();
        self.best_counts.extend_from_slice(counts);
        (0..experts).for_each(|e| self.weigh(loads, counts, e));
        let Self { order, share, .. } = self;
        order.clear();
        order.extend(0..experts as u32);
        order.sort_unstable_by_key(|&e| (u32::MAX - share[e as usize], e));
    }

    /// The loads of an expert's replicas.
    pub fn weigh(&mut self, loads: &[u32], counts: &[u32], e: usize) {
        let (load, count) = (loads[e], counts[e]);
        self.share[e] = load / count;
        self.more[e] = load / (count + 1);
        self.fewer[e] = if count > 1 { load / (count - 1) } else { 0 };
    }

    /// Brings an expert whose share changed to its place in the order.
    pub fn reorder(&mut self, e: usize) {
        let Self { order, share, .. } = self;
        let mut at = order.iter().position(|&other| other == e as u32).unwrap_or(0);
        let goes_before = |a: u32, b: u32| (share[b as usize], a) < (share[a as usize], b);
        while at > 0 && goes_before(order[at], order[at - 1]) {
            order.swap(at, at - 1);
            at -= 1;
        }
        while at + 1 < order.len() && goes_before(order[at + 1], order[at]) {
            order.swap(at, at + 1);
            at += 1;
        }
    }
}
