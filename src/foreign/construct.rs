//! Replicas for a target, by node totals: a heavy node's experts get foreign replicas until what is left fits.

use super::nodes::{Copies, NodeExperts};

/// How often a node's choice is brought closer to what it needs.
const CLOSER: usize = 2;

/// Sets the replicas of all experts so that nodes carry about `target` a GPU; whether there was room for them.
pub fn construct(nodes: &NodeExperts, target: i64, copies: &mut Copies) -> bool {
    let all = nodes.experts.len();
    let wanted: Vec<u32> = (0..all).map(|expert| wanted(nodes, expert, target)).collect();
    let foreign = choose(nodes, &wanted, target);
    copies.here.clear();
    copies.here.resize(all * nodes.nodes, 0);
    copies.foreign = 0;
    let mut free: Vec<i64> = vec![i64::from(nodes.spare); nodes.nodes];
    let mut totals = nodes.totals.clone();
    let mut leaving = Vec::new();
    for expert in 0..all {
        let (home, away) = (nodes.homes[expert], foreign[expert]);
        let count = if away > 0 { wanted[expert].max(away + 1) } else { wanted[expert] };
        let at_home = count - away;
        copies.here[expert * nodes.nodes + home] = at_home;
        free[home] -= i64::from(at_home) - 1;
        let share = nodes.loads[expert] / i64::from(count);
        totals[home] -= share * i64::from(away);
        leaving.extend((0..away).map(|_| (-share, expert)));
    }
    if free.iter().any(|&free| free < 0) {
        return false;
    }
    leaving.sort_unstable();
    for (share, expert) in leaving {
        let row = expert * nodes.nodes;
        let open = |&node: &usize| {
            node != nodes.homes[expert] && free[node] > 0 && copies.here[row + node] < nodes.most_here
        };
        let Some(node) = (0..nodes.nodes).filter(open).min_by_key(|&node| (totals[node], node)) else {
            return false;
        };
        copies.here[row + node] += 1;
        copies.foreign += 1;
        free[node] -= 1;
        totals[node] -= share;
    }
    copies.counts.clear();
    copies.counts.extend(copies.here.chunks_exact(nodes.nodes).map(|row| row.iter().sum::<u32>()));
    fill(nodes, &foreign, &free, copies) && finish(nodes, copies)
}

/// The fewest replicas of an expert such that a GPU with one of them and the lightest experts of the node keeps to the target.
fn wanted(nodes: &NodeExperts, expert: usize, target: i64) -> u32 {
    let room = (target - nodes.beside[nodes.homes[expert]]).max(1);
    (((nodes.loads[expert] - 1).max(0) / room + 1).min(i64::from(nodes.most_wanted())) as u32).max(1)
}

/// How many foreign replicas each expert gets: node after node, each next one where it takes most away, until the node
/// needs no more.
fn choose(nodes: &NodeExperts, wanted: &[u32], target: i64) -> Vec<u32> {
    let mut foreign = vec![0; nodes.experts.len()];
    let most = nodes.most_away();
    let taken = |expert: usize, foreign: u32| {
        nodes.loads[expert] * i64::from(foreign) / i64::from((foreign + 1).max(wanted[expert]))
    };
    let mut left = nodes.most_foreign;
    for node in 0..nodes.nodes {
        let experts = nodes.begins[node]..nodes.begins[node + 1];
        let mut need = nodes.totals[node] - target * nodes.gpus;
        let mut steps: Vec<i64> = experts.clone().map(|expert| taken(expert, 1)).collect();
        while need > 0 && left > 0 {
            let best = experts.clone().max_by_key(|&e| (steps[e - experts.start], usize::MAX - e));
            let Some(best) = best.filter(|&e| steps[e - experts.start] > 0) else { break };
            need -= steps[best - experts.start];
            foreign[best] += 1;
            left -= 1;
            let next = foreign[best] + 1;
            steps[best - experts.start] =
                if next > most { 0 } else { taken(best, next) - taken(best, next - 1) };
        }
        for _ in 0..CLOSER {
            need += closer(experts.clone(), -need, &mut foreign, &|expert| taken(expert, 1));
        }
    }
    foreign
}

/// A node may send away more than it needs to. This exchanges an expert with one foreign replica for one without, so that as
/// much as possible of that surplus stays; returns how much.
fn closer(
    experts: std::ops::Range<usize>,
    too_much: i64,
    foreign: &mut [u32],
    taken: &dyn Fn(usize) -> i64,
) -> i64 {
    let (mut best, mut pair) = (0, None);
    if too_much <= 0 {
        return 0;
    }
    let others: Vec<(usize, i64)> =
        experts.clone().filter(|&e| foreign[e] == 0).map(|e| (e, taken(e))).collect();
    for out in experts.filter(|&e| foreign[e] == 1) {
        let of_out = taken(out);
        for &(other, of_other) in &others {
            let stays = of_out - of_other;
            if stays > best && stays <= too_much {
                (best, pair) = (stays, Some((out, other)));
            }
        }
    }
    if let Some((out, other)) = pair {
        (foreign[out], foreign[other]) = (0, 1);
    }
    best
}

/// Fills what is free in each node with further replicas of its own experts, the heaviest first; of those with foreign replicas
///  none, if possible, since a copy at home calls load back.
fn fill(nodes: &NodeExperts, foreign: &[u32], free: &[i64], copies: &mut Copies) -> bool {
    for (node, &free) in free.iter().enumerate() {
        for _ in 0..free {
            let open = |&e: &usize| {
                copies.here[e * nodes.nodes + node] < nodes.most_here && copies.counts[e] < nodes.most
            };
            let heavier = |&a: &usize, &b: &usize| {
                let of = |e: usize, count: u32| nodes.loads[e] * i64::from(count);
                let by_foreign = (foreign[b] > 0).cmp(&(foreign[a] > 0));
                by_foreign.then(of(a, copies.counts[b]).cmp(&of(b, copies.counts[a]))).then(b.cmp(&a))
            };
            let Some(best) = (nodes.begins[node]..nodes.begins[node + 1]).filter(open).max_by(heavier) else {
                return false;
            };
            copies.here[best * nodes.nodes + node] += 1;
            copies.counts[best] += 1;
        }
    }
    true
}

/// The loads of replicas and nodes.
fn finish(nodes: &NodeExperts, copies: &mut Copies) -> bool {
    copies.shares.clear();
    copies.totals.clone_from(&nodes.totals);
    for (expert, &load) in nodes.loads.iter().enumerate() {
        let share = load / i64::from(copies.counts[expert]);
        copies.shares.push(share);
        copies.totals[nodes.homes[expert]] -= load;
        let here = &copies.here[expert * nodes.nodes..(expert + 1) * nodes.nodes];
        for (total, &here) in copies.totals.iter_mut().zip(here) {
            *total += share * i64::from(here);
        }
    }
    true
}
