//! Exact bipartition, the mirror of `shaders/s5_descend/bipartition.wgsl`.

use crate::mirror::candidate::Candidate;
use crate::params::{BIPARTITION_SLOTS, FREE, Params};

/// Splits the items of the heaviest and the lightest GPU anew so that the heavier of the two is as light as it
/// can be, both full as before. Whether that helped. GPUs of more than [`BIPARTITION_SLOTS`] slots are left.
///
/// Items are numbered heavy GPU first, slots ascending; a split is the mask of the items on the heavy GPU.
/// Mirrored splits are equal, so item 0 stays. Ties go to the lower mask.
pub fn step(params: &Params, candidate: &mut Candidate) -> bool {
    let k = params.slots_per_gpu as usize;
    if !(2..=BIPARTITION_SLOTS).contains(&params.slots_per_gpu) || params.node_gpus < 2 {
        return false;
    }
    let (heavy, light) = (candidate.heaviest(), candidate.lightest());
    let slot_of = |item: usize| if item < k { heavy * k + item } else { light * k + item - k };
    let items: Vec<(u32, u32)> =
        (0..2 * k).map(|item| (candidate.expert[slot_of(item)], candidate.load[slot_of(item)])).collect();
    let total = candidate.gpu_load[heavy] + candidate.gpu_load[light];
    let mut best = candidate.gpu_load[heavy];
    let mut best_mask = 0;
    // The lowest mask of k items with item 0: the rest of the mask walks all (k - 1)-subsets in order.
    let mut rest = (1u32 << (k - 1)) - 1;
    while rest < 1 << (2 * k - 1) {
        let mask = (rest << 1) | 1;
        let on_heavy = |item: usize| mask >> item & 1 == 1;
        let sum: u32 = (0..2 * k).filter(|&item| on_heavy(item)).map(|item| items[item].1).sum();
        // Replicas of one expert, of which each GPU had one, have to stay apart.
        let are_apart =
            |a: usize, b: usize| items[a].0 != items[b].0 || items[a].0 == FREE || on_heavy(a) != on_heavy(b);
        let is_allowed = || !params.avoid_duplicates || (0..k).all(|a| (k..2 * k).all(|b| are_apart(a, b)));
        if sum.max(total - sum) < best && is_allowed() {
            best = sum.max(total - sum);
            best_mask = mask;
        }
        // The next larger number with as many ones (Gosper's hack).
        let lowest = rest & rest.wrapping_neg();
        let ripple = rest + lowest;
        rest = ripple | (((rest ^ ripple) >> 2) / lowest);
    }
    if best_mask == 0 {
        return false;
    }
    let (mut to_heavy, mut to_light) = (0, k);
    for (item, (expert, load)) in items.into_iter().enumerate() {
        let to = if best_mask >> item & 1 == 1 { &mut to_heavy } else { &mut to_light };
        candidate.expert[slot_of(*to)] = expert;
        candidate.load[slot_of(*to)] = load;
        *to += 1;
    }
    for gpu in [heavy, light] {
        candidate.gpu_load[gpu] = candidate.load[gpu * k..(gpu + 1) * k].iter().sum();
    }
    true
}
