//! A new choice of foreign replicas for a plan that runs: homes stay, and so does every replica that its node still holds.

use std::cmp::Reverse;

use super::homes;
use super::layer::{ForeignLayer, ForeignScratch};
use super::target::GroupSets;
use crate::given::Held;
use crate::params::{FREE, Params};

/// A row in which nodes hold the replicas that they had best hold, made of a valid one; `None` where that is as good, or where
/// they find no place. `loads` is `[experts]`.
pub fn choose_anew(params: &Params, loads: &[u32], row: &[u32]) -> Option<Vec<u32>> {
    let layer = ForeignLayer::new(params, loads, row)?;
    let sets = GroupSets::new(params, vec![homes(params, row)]);
    let shares = layer.share_out(&sets, &mut ForeignScratch::default())?;
    let mut anew = row.to_vec();
    for (node, slots) in anew.chunks_exact_mut(params.node_slots as usize).enumerate() {
        hand_over(params, &shares.held(params, &sets, loads, node), slots)?;
    }
    Some(anew)
}

/// Makes the slots of a node hold these replicas. Those that come take the places of those that go, heaviest first, each on the
/// lightest GPU.
fn hand_over(params: &Params, held: &[Held], slots: &mut [u32]) -> Option<()> {
    let each = params.slots_per_gpu as usize;
    let mut missing: Vec<Held> = held.to_vec();
    let mut of_gpus = vec![0; slots.len() / each];
    for (slot, expert) in slots.iter_mut().enumerate() {
        let wanted = missing.iter_mut().find(|held| held.expert == *expert && held.count > 0);
        match wanted {
            Some(held) => {
                let share = held.load / held.count;
                (held.load, held.count) = (held.load - share, held.count - 1);
                of_gpus[slot / each] += share;
            }
            None => *expert = FREE,
        }
    }
    let mut comes: Vec<(u32, u32)> = missing
        .iter()
        .flat_map(|held| (0..held.count).map(|_| (held.load / held.count, held.expert)))
        .collect();
    comes.sort_by_key(|&(share, expert)| (Reverse(share), expert));
    for (share, expert) in comes {
        let gpus = slots.chunks_exact(each).enumerate();
        let open = gpus.filter(|(_, gpu)| gpu.contains(&FREE) && !gpu.contains(&expert));
        let (lightest, _) = open.min_by_key(|&(gpu, _)| (of_gpus[gpu], gpu))?;
        let free = slots[lightest * each..].iter().position(|&held| held == FREE)?;
        slots[lightest * each + free] = expert;
        of_gpus[lightest] += share;
    }
    Some(())
}
