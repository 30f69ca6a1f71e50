//! Where the experts of a layer come from that move, and in how many rounds.

use super::IsFree;

/// Rounds in which a GPU deals with at most one other, and how many experts come from another node. Every expert comes from a GPU that holds it, from the same node where
/// one does, and there from one that the receiver deals with already, or else has the fewest peers. The schedule is greedy:
/// no fewer rounds than the peers of the busiest GPU, and less than twice as many.
pub(crate) fn transfers<T: Copy + PartialEq + IsFree>(
    slots_per_gpu: usize,
    node_gpus: usize,
    old: &[T],
    new: &[T],
) -> (usize, usize) {
    let node = |gpu: usize| gpu / node_gpus.max(1);
    let gpus = old.len().div_ceil(slots_per_gpu);
    let mut peers: Vec<Vec<usize>> = vec![Vec::new(); gpus];
    let mut between_nodes = 0;
    for (gpu, (before, after)) in old.chunks(slots_per_gpu).zip(new.chunks(slots_per_gpu)).enumerate() {
        let mut held = before.to_vec();
        for expert in after.iter().filter(|expert| !expert.is_free()) {
            if let Some(at) = held.iter().position(|other| other == expert) {
                held.swap_remove(at);
                continue;
            }
            let holds = |&(from, other): &(usize, &[T])| from != gpu && other.contains(expert);
            let cost =
                |from: usize| (node(from) != node(gpu), !peers[gpu].contains(&from), peers[from].len());
            let holders = old.chunks(slots_per_gpu).enumerate().filter(holds);
            // An expert that no GPU holds comes from disk.
            let Some((from, _)) = holders.min_by_key(|&(from, _)| cost(from)) else { continue };
            between_nodes += usize::from(node(from) != node(gpu));
            if !peers[gpu].contains(&from) {
                peers[gpu].push(from);
                peers[from].push(gpu);
            }
        }
    }
    (rounds(&peers), between_nodes)
}

/// Pairs, those of busy GPUs first, each in the first round in which both are free.
fn rounds(peers: &[Vec<usize>]) -> usize {
    let pairs = peers.iter().enumerate().flat_map(|(a, list)| list.iter().map(move |&b| (a, b)));
    let mut pairs: Vec<(usize, usize)> = pairs.filter(|(a, b)| a < b).collect();
    pairs.sort_by_key(|&(a, b)| std::cmp::Reverse(peers[a].len().max(peers[b].len())));
    let mut rounds: Vec<Vec<bool>> = Vec::new();
    for (a, b) in pairs {
        let round = rounds.iter().position(|busy| !busy[a] && !busy[b]).unwrap_or(rounds.len());
        if round == rounds.len() {
            rounds.push(vec![false; peers.len()]);
        }
        rounds[round][a] = true;
        rounds[round][b] = true;
    }
    rounds.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_deals_with_one_peer_a_round_and_the_own_node_first() {
        let old = [0, 1, 2, 3, 4, 5, 6, 7];
        let found = |node_gpus, new: [i32; 8]| transfers(2, node_gpus, &old, &new);
        assert_eq!(found(2, old), (0, 0));
        // A swap inside GPU 0 is none; GPU 1 gets 0 from its node; GPU 3 gets 1 and 4, from two peers.
        assert_eq!(found(2, [1, 0, 2, 0, 4, 5, 1, 4]), (2, 1));
        // Both of a pair's experts go in one round, and two pairs at once.
        assert_eq!(found(2, [0, 1, 0, 1, 4, 5, 6, 7]), (1, 0));
        assert_eq!(found(2, [2, 1, 0, 3, 6, 5, 4, 7]), (1, 0));
        // GPU 0 is a peer of all three.
        assert_eq!(found(4, [2, 4, 0, 3, 0, 5, 6, 1]), (3, 0));
        // From the node of the receiver where it is there too.
        let two = [0, 1, 2, 3, 0, 5, 6, 7];
        assert_eq!(transfers(2, 2, &two, &[0, 2, 2, 1, 0, 5, 6, 0]), (1, 0));
        // A free slot takes, an expert of nobody comes from disk.
        assert_eq!(transfers(2, 2, &[0, -1, 2, 3], &[0, 9, 2, -1]), (0, 0));
    }
}
