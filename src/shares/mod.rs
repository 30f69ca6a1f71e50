//! Tables of shares: which part of an expert's tokens each of its replicas serves.
//!
//! A plan decides where replicas sit, and an engine deals an expert's tokens out to them evenly. With a table it deals
//! unevenly: what a replica gets less relieves its GPU, and the next table moves no weights. All of it is in integers, so
//! that ranks that make a table for themselves have the same one.

pub mod batch;
pub mod layer;
pub mod speeds;
mod table;
// A device alone reads all of a task.
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
pub mod task;
pub mod windows;

pub use layer::PARTS;
pub use table::Shares;
pub(crate) use table::{of_batch, of_windows};
