//! Assignments of groups to nodes: how many are tried, and all of them where they are few.

use super::SAMPLED_ASSIGNMENTS;
use crate::options::{GroupRule, PlanOptions};

/// Balanced group assignments are enumerated up to this many a layer, and sampled beyond.
const MAX_ENUMERATED: usize = 8192;

/// Assignments tried a layer where they can be enumerated: as many as could win, of those whose nodes are few enough to solve
/// each of them.
const ENUMERATED_TRIED: u32 = 128;

/// Assignments tried a layer where they are sampled.
const SAMPLED_TRIED: u32 = 4;

/// Group assignments tried a layer under the hierarchical policy.
pub fn tried(options: &PlanOptions, groups: u32, nodes: u32) -> u32 {
    let all = count_assignments(groups, nodes);
    let few = all <= MAX_ENUMERATED as u64;
    match (options.groups, options.assignments) {
        (GroupRule::BestFirst, Some(tried)) if few => tried.min(all as u32).max(1),
        (GroupRule::BestFirst, Some(tried)) => tried.min(SAMPLED_ASSIGNMENTS),
        (GroupRule::BestFirst, None) if few => ENUMERATED_TRIED.min(all as u32).max(1),
        (GroupRule::BestFirst, None) => SAMPLED_TRIED,
        (GroupRule::Lpt | GroupRule::LptVariance, _) => 1,
    }
}

/// All ways to give `groups` groups to `nodes` equal nodes, nodes not told apart; empty where there are more
/// than [`MAX_ENUMERATED`]. Each is the groups node after node, nodes by their first group.
pub fn enumerate_assignments(groups: u32, nodes: u32) -> Vec<Vec<u32>> {
    // Counted first: the walk below has dead ends, and would not come to its end.
    if count_assignments(groups, nodes) > MAX_ENUMERATED as u64 {
        return Vec::new();
    }
    if groups == nodes {
        return vec![(0..groups).collect()];
    }
    let room = groups / nodes;
    let mut found = Vec::new();
    // `places` is filled node after node; the lowest group left opens each node, so every assignment is met once.
    fn extend(places: &mut Vec<u32>, used: &mut [bool], room: u32, found: &mut Vec<Vec<u32>>) {
        if places.len() == used.len() {
            found.push(places.clone());
            return;
        }
        let opens = (places.len() as u32).is_multiple_of(room);
        let first = if opens { 0 } else { places.last().map_or(0, |&group| group + 1) };
        for group in first..used.len() as u32 {
            if used[group as usize] {
                continue;
            }
            used[group as usize] = true;
            places.push(group);
            extend(places, used, room, found);
            places.pop();
            used[group as usize] = false;
            if opens {
                break;
            }
        }
    }
    extend(&mut Vec::new(), &mut vec![false; groups as usize], room, &mut found);
    found
}

/// How many there are, or more than [`MAX_ENUMERATED`]: node by node, the lowest group left takes any others.
fn count_assignments(groups: u32, nodes: u32) -> u64 {
    let room = u64::from(groups / nodes);
    let mut ways = 1;
    for left in (1..=u64::from(nodes)).map(|node| node * room) {
        let (n, k) = (left - 1, (room - 1).min(left - room));
        let mut choices = 1;
        for i in 1..=k {
            choices = choices * (n - k + i) / i;
            if choices * ways > MAX_ENUMERATED as u64 {
                return choices * ways;
            }
        }
        ways *= choices;
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_enumerated_where_they_are_few_and_at_once_refused_where_not() {
        for (groups, nodes, count) in [
            (8, 4, 105),
            (4, 2, 3),
            (8, 2, 35),
            (16, 2, 6435),
            (10, 5, 945),
            (6, 1, 1),
            (4096, 4096, 1),
            (12, 6, 0),
            (128, 2, 0),
            (4096, 2, 0),
            (4096, 64, 0),
            (4096, 2048, 0),
        ] {
            let found = enumerate_assignments(groups, nodes);
            assert_eq!(found.len(), count, "{groups} groups, {nodes} nodes");
            assert!(found.iter().all(|assignment| assignment.len() == groups as usize));
            let distinct: std::collections::HashSet<_> = found.iter().collect();
            assert_eq!(distinct.len(), count);
        }
    }
}
