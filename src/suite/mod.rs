//! Runs that `eplb` and the pages in `web/` share: the benchmark suite with its record, and the calls whose fingerprints
//! are committed. No part of the API.
// The page takes no part of records but the writing.
#![cfg_attr(not(feature = "cli"), allow(dead_code))]

#[cfg(feature = "gpu")]
pub mod bench;
pub mod fingerprints;
pub mod record;
