//! The largest sizes and budgets that calls may have; more is refused by name.

pub use crate::cluster::{MAX_SLOTS, MAX_SLOTS_PER_GPU};
pub use crate::loads::{MAX_EXPERTS, MAX_LAYERS, MAX_WINDOWS};
pub use crate::options::{MAX_ASSIGNMENTS, MAX_ITERATIONS, MAX_STARTS, MAX_THREE_GPUS};
