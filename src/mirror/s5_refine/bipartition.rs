//! Exact bipartition, the mirror of `shaders/s5_moves/bipartition.wgsl`.

use super::Candidate;
use crate::params::{BIPARTITION_CHUNK, BIPARTITION_SLOTS, Params, TURN, blocks};

/// Splits the items of the heaviest and the lightest GPU anew so that the heavier of the two is as light as it
/// can be, both full as before. Whether that helped. GPUs of more than [`BIPARTITION_SLOTS`] slots are left.
///
/// Items are numbered heavy GPU first, slots ascending; a split is the mask of the items on the heavy GPU.
/// Mirrored splits are equal, so item 0 stays. Ties go to the lower mask.
pub fn step(params: &Params, candidate: &mut Candidate) -> bool {
    let k = params.slots_per_gpu;
    if !(2..=BIPARTITION_SLOTS).contains(&k) || params.node_gpus < 2 {
        return false;
    }
    let slots = k as usize;
    let (heavy, light) = (candidate.heaviest(), candidate.lightest());
    candidate.charge(2 + blocks(params.node_gpus) + params.node_gpus);
    let slot_of = |item: u32| {
        if item < k { heavy * slots + item as usize } else { light * slots + (item - k) as usize }
    };
    let total = candidate.gpu_load[heavy] + candidate.gpu_load[light];
    let items = 2 * k;
    let mut best = candidate.gpu_load[heavy];
    let mut best_mask = 0;
    // The lowest mask of k items with item 0: the rest of the mask walks all (k - 1)-subsets in order.
    let mut rest = (1u32 << (k - 1)) - 1;
    let mut tried = 0;
    while rest < 1 << (items - 1) {
        if tried % BIPARTITION_CHUNK == 0 {
            candidate.charge(TURN + items + BIPARTITION_CHUNK);
        }
        tried += 1;
        let mask = (rest << 1) | 1;
        let on = |item: u32| mask >> item & 1 == 1;
        let sum: u32 = (0..items).filter(|&i| on(i)).map(|i| candidate.load[slot_of(i)]).sum();
        let max = sum.max(total - sum);
        if max < best {
            candidate.charge(k * (1 + k));
            let twins = |i: u32| {
                let (a, b) = (candidate.expert[slot_of(i)], k..items);
                b.filter(|&j| candidate.count_at(slot_of(j)) > 1 && candidate.expert[slot_of(j)] == a)
                    .any(|j| on(i) == on(j))
            };
            if !(params.avoid_duplicates && (0..k).any(twins)) {
                best = max;
                best_mask = mask;
            }
        }
        // The next larger number with as many ones (Gosper's hack).
        let lowest = rest & rest.wrapping_neg();
        let ripple = rest + lowest;
        rest = ripple | (((rest ^ ripple) >> 2) / lowest);
    }
    if best_mask == 0 {
        return false;
    }
    candidate.charge(4 * k);
    let held: Vec<(u32, u32)> =
        (0..items).map(|i| (candidate.expert[slot_of(i)], candidate.load[slot_of(i)])).collect();
    let (mut to_heavy, mut to_light) = (0, k);
    for (item, (expert, load)) in (0u32..).zip(held) {
        let to = if best_mask >> item & 1 == 1 { &mut to_heavy } else { &mut to_light };
        candidate.expert[slot_of(*to)] = expert;
        candidate.load[slot_of(*to)] = load;
        *to += 1;
    }
    for gpu in [heavy, light] {
        candidate.gpu_load[gpu] = candidate.load[gpu * slots..(gpu + 1) * slots].iter().sum();
    }
    true
}
