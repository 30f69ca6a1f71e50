//! GPUs of two slots: whether given replicas can be paired off below a load is decided without a search.
//!
//! **When.** GPUs are edges between items (experts and the free slot), and an item with `c` replicas lies on
//! `c` of them. Two items may share a GPU where their loads sum to at most `T`; an item may share one with
//! itself where that holds too and duplicates are allowed (free slots always may). By Tutte's theorem such
//! edges exist iff no set of items that can share no GPU among themselves has more replicas than all their
//! partners have. (Its term for odd components never decides here: the items that can meet light ones hang
//! together, and parity does the rest.) Call an item heavy if two of its replicas exceed `T`. Heavy items
//! never meet, light ones always do, and heavier items have fewer partners. So it is enough to look at
//! - the `j` heaviest items, for each heavy one: they need as many light partners;
//! - a light item that may not meet itself, with the heavy items that it cannot meet: all on different GPUs.

use super::SlotContent;
use crate::params::FREE;

/// Whether `items`, heaviest first, fill `gpus` GPUs of two slots with at most `most` on each.
pub(super) fn fit(items: &[SlotContent], gpus: u32, avoid_duplicates: bool, most: u32) -> bool {
    if items.first().is_some_and(|item| item.load > most) {
        return false;
    }
    let lights = items.partition_point(|item| item.load > most / 2);
    let (mut heavy, mut partners, mut lightest) = (0, 0, items.len());
    for item in &items[..lights] {
        heavy += item.count;
        while lightest > 0 && items[lightest - 1].load <= most - item.load {
            lightest -= 1;
            partners += items[lightest].count;
        }
        if heavy > partners {
            return false;
        }
    }
    if avoid_duplicates {
        let (mut apart, mut met) = (heavy, lights);
        for item in items[lights..].iter().filter(|item| item.expert != FREE) {
            while met > 0 && items[met - 1].load + item.load <= most {
                met -= 1;
                apart -= items[met].count;
            }
            if item.count + apart > gpus {
                return false;
            }
        }
    }
    true
}

/// The least load of the heaviest GPU, which is known to be at most `most` and at least `least`.
pub(super) fn least_load(
    items: &[SlotContent],
    gpus: u32,
    avoid_duplicates: bool,
    least: u32,
    most: u32,
) -> u32 {
    let (mut low, mut high) = (least.min(most), most);
    while low < high {
        let middle = low + (high - low) / 2;
        if fit(items, gpus, avoid_duplicates, middle) { high = middle } else { low = middle + 1 }
    }
    high
}

/// The experts of all slots, GPU by GPU: the heaviest item left gets the lightest partner with which the rest
/// still fits.
pub(super) fn pair_up(items: &mut [SlotContent], gpus: u32, avoid_duplicates: bool, most: u32) -> Vec<u32> {
    let mut slots = Vec::with_capacity(2 * gpus as usize);
    for left in (0..gpus).rev() {
        let Some(first) = items.iter().position(|item| item.count > 0) else { break };
        items[first].count -= 1;
        slots.push(items[first].expert);
        for second in (first..items.len()).rev() {
            let refused = second == first && !items[first].repeats(avoid_duplicates);
            if refused || items[second].count == 0 || items[first].load + items[second].load > most {
                continue;
            }
            items[second].count -= 1;
            if fit(items, left, avoid_duplicates, most) {
                slots.push(items[second].expert);
                break;
            }
            items[second].count += 1;
        }
    }
    slots
}
