//! The CPU backend: each move against brute force over all moves of its kind, and what every plan must hold.

mod counts;
mod moves;
mod pinned;
mod plans;

use crate::cases::Random;
use crate::params::FREE;

/// Every expert, further replicas of some and free slots, in random order.
fn shuffled(random: &mut Random, experts: usize, replicas: usize, slots: usize) -> Vec<u32> {
    let mut placed: Vec<u32> = (0..experts as u32).collect();
    placed.extend((experts..replicas).map(|_| random.below(experts) as u32));
    placed.resize(slots, FREE);
    for i in (1..placed.len()).rev() {
        placed.swap(i, random.below(i + 1));
    }
    placed
}

/// Whether a GPU of this many slots holds an expert twice.
fn has_duplicates(expert: &[u32], slots: usize) -> bool {
    expert.chunks(slots).any(|gpu| gpu.iter().enumerate().any(|(i, e)| *e != FREE && gpu[..i].contains(e)))
}
