//! The device: which there are, how work is recorded and cut into dispatches, and how it runs.
//!
//! Knows a kernel as a piece of WGSL with an entry point; which kernels there are and in what order they run
//! is the business of `stages` and `planner`.

pub mod budget;
pub mod buffers;
pub mod clock;
pub mod device;
pub mod gpu;
pub mod keeper;
pub mod pending;
pub mod recording;
pub mod scopes;
pub mod shaders;
pub mod trusted;
pub mod turns;
pub mod wait;
