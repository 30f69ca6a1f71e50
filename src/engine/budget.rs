//! The dispatch budget: how much one dispatch may do.
//!
//! llvmpipe and lavapipe end every loop of an invocation, without a word, once a vector of 8 invocations has
//! made 65,535 trips in all, so every dispatch is cut below that; on real devices the same cut keeps a
//! dispatch far from the watchdogs of operating systems.

/// Trips after which llvmpipe and lavapipe end a loop.
pub const LIMIT: u64 = 65_535;

/// Trips a dispatch may make where all lanes walk the same loops in step; the rest is for what it does once.
pub const TRIPS: u32 = 48_000;

/// Lanes of one llvmpipe vector: the trips of lanes that walk different loops add up.
pub const VECTOR: u32 = 8;

/// How many steps of `trips` trips each fit in one dispatch; at least one.
pub fn steps_per_dispatch(trips: u64) -> u32 {
    steps_beside(0, trips)
}

/// The same where the dispatch makes `others` trips besides.
pub fn steps_beside(others: u32, trips: u64) -> u32 {
    // A loop entered costs a trip more than it makes.
    (u64::from(TRIPS.saturating_sub(others)) / (trips + 1)).clamp(1, u64::from(u32::MAX)) as u32
}

/// The ranges that cut `0..count` into pieces of `size`.
pub fn ranges(count: u32, size: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..count).step_by(size.max(1) as usize).map(move |begin| (begin, (begin + size).min(count)))
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
