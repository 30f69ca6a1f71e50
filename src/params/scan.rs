//! How much one iteration of the trajectory weighs: with many slots it looks at some of them, so that it fits a dispatch on any
//! device.

use super::pairs;

/// The most exchanges of one slot for another, as (slots offered) x (slots of a node). With up to 9 slots a GPU, all slots
/// are offered on up to 202 GPUs. Several windows divide this number by half of theirs.
const EXCHANGE_SCAN: u32 = 1 << 14;
/// The most slots of a GPU that are offered for exchange, as bits of a word.
const EXCHANGE_SLOTS: u32 = 32;
/// The most exchanges of two slots for two.
const PAIR_SCAN: u32 = 1 << 16;
/// The most slots of a GPU that are offered for exchange in pairs.
const MOST_PAIR_SLOTS: u32 = 16;
/// For transfers, the most (experts that may lose a replica) x (slots of a node) x windows.
const LOSER_SCAN: u32 = 1 << 16;
/// For transfers, the most (slots of the proposing GPU whose expert may gain a replica) x (slots of a node) x windows.
const GAINER_SCAN: u32 = 1 << 14;

/// The numbers of [`super::Params`] of the same names.
pub struct Scan {
    pub exchange_slots: u32,
    pub pair_slots: u32,
    pub losers: u32,
    pub gainers: u32,
}

impl Scan {
    pub fn new(windows: u32, node_gpus: u32, slots_per_gpu: u32) -> Self {
        let node_slots = node_gpus * slots_per_gpu;
        let exchanges = EXCHANGE_SCAN / windows.div_ceil(2);
        let exchange_slots = slots_per_gpu.min(EXCHANGE_SLOTS).min((exchanges / node_slots).max(1));
        let fits = |n: &u32| u64::from(pairs(*n)).pow(2) * u64::from(node_gpus) <= u64::from(PAIR_SCAN);
        Self {
            exchange_slots,
            pair_slots: (0..=exchange_slots.min(MOST_PAIR_SLOTS)).rev().find(fits).unwrap_or(0),
            losers: (LOSER_SCAN / windows / node_slots).max(1),
            gainers: slots_per_gpu.min((GAINER_SCAN / windows / node_slots).max(1)),
        }
    }
}
