//! What moves from one plan to the next: which GPU sends an expert to which, and in how many rounds.

use crate::Cluster;

/// The transfers of one layer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Slots whose GPU receives an expert that it does not hold.
    pub slots: usize,
    /// Those whose expert comes from another node.
    pub between_nodes: usize,
    /// Rounds in which a GPU exchanges experts with at most one other.
    pub rounds: usize,
}

/// The transfers between two rows of a map. Every expert comes from a GPU that holds it, from the same node where one does,
/// and there from one that the receiver deals with already, or else has the fewest peers. The rounds are those of a
/// greedy schedule: no fewer than the peers of the busiest GPU, and less than twice as many.
pub fn transfers(cluster: &Cluster, old: &[i32], new: &[i32]) -> Transfers {
    let (slots, gpus) = (cluster.slots_per_gpu(), cluster.num_gpus());
    let node = |gpu: usize| gpu * cluster.num_nodes() / gpus;
    let mut found = Transfers::default();
    let mut peers: Vec<Vec<usize>> = vec![Vec::new(); gpus];
    for (gpu, (before, after)) in old.chunks(slots).zip(new.chunks(slots)).enumerate() {
        for &expert in &missing(before, after) {
            found.slots += 1;
            let holders = old.chunks(slots).enumerate().filter(|(_, held)| held.contains(&expert));
            let cost =
                |from: usize| (node(from) != node(gpu), !peers[gpu].contains(&from), peers[from].len());
            let from =
                holders.map(|(from, _)| from).filter(|&from| from != gpu).min_by_key(|&from| cost(from));
            let Some(from) = from else { continue };
            found.between_nodes += usize::from(node(from) != node(gpu));
            if !peers[gpu].contains(&from) {
                peers[gpu].push(from);
                peers[from].push(gpu);
            }
        }
    }
    found.rounds = rounds(&peers);
    found
}

/// What a GPU's new list has beyond its old one.
fn missing(before: &[i32], after: &[i32]) -> Vec<i32> {
    let mut held = before.to_vec();
    let is_new = |expert: &&i32| match held.iter().position(|h| h == *expert) {
        Some(at) => {
            held.swap_remove(at);
            false
        }
        None => **expert >= 0,
    };
    after.iter().filter(is_new).copied().collect()
}

/// Pairs, those of busy GPUs first, each in the first round in which both are free.
fn rounds(peers: &[Vec<usize>]) -> usize {
    let pairs = peers.iter().enumerate().flat_map(|(a, list)| list.iter().map(move |&b| (a, b)));
    let mut pairs: Vec<(usize, usize)> = pairs.filter(|(a, b)| a < b).collect();
    pairs.sort_by_key(|&(a, b)| std::cmp::Reverse(peers[a].len().max(peers[b].len())));
    let mut busy: Vec<Vec<bool>> = Vec::new();
    for (a, b) in pairs {
        let round = busy.iter().position(|round| !round[a] && !round[b]).unwrap_or(busy.len());
        if round == busy.len() {
            busy.push(vec![false; peers.len()]);
        }
        busy[round][a] = true;
        busy[round][b] = true;
    }
    busy.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_deals_with_one_peer_a_round_and_the_own_node_first() {
        let cluster = Cluster::new(8, 1, 2, 4).unwrap();
        let old = [0, 1, 2, 3, 4, 5, 6, 7];
        // A swap inside GPU 0 is none; GPU 1 gets 0 from its node; GPU 3 gets 1 and 4, from two peers.
        let new = [1, 0, 2, 0, 4, 5, 1, 4];
        let found = transfers(&cluster, &old, &new);
        assert_eq!(found, Transfers { slots: 3, between_nodes: 1, rounds: 2 });
        // Both of a pair's experts go in one round.
        let pair = transfers(&cluster, &old, &[0, 1, 0, 1, 4, 5, 6, 7]);
        assert_eq!(pair, Transfers { slots: 2, between_nodes: 0, rounds: 1 });
        assert_eq!(transfers(&cluster, &old, &old), Transfers::default());
    }
}
