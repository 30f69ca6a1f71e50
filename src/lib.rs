//! Expert-parallel load balancing for Mixture-of-Experts serving.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod bound;
pub mod check;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod cluster;
pub(crate) mod engine;
pub mod error;
pub(crate) mod layout;
pub mod loads;
pub(crate) mod mirror;
pub mod options;
pub(crate) mod params;
pub mod plan;
pub mod planner;
pub mod presets;
pub(crate) mod stages;
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "cli")]
pub mod trace;

pub use cluster::{Cluster, Policy};
pub use engine::device::{DeviceChoice, DeviceInfo, auto_device, devices};
pub use error::Error;
pub use loads::Loads;
pub use options::{Duplicates, GroupRule, Objective, PlanOptions, Search};
pub use plan::{Placement, Plan, Stop};
pub use planner::Planner;
pub use presets::Preset;

// The device suite is compiled into the unit tests, to see single stages; its helpers name the crate.
#[cfg(test)]
extern crate self as eplb_wgpu;
#[cfg(test)]
#[path = "../tests/support/cases.rs"]
mod cases;
#[cfg(test)]
#[path = "../tests/device/mod.rs"]
mod device;
#[cfg(test)]
#[path = "../tests/mirror/mod.rs"]
mod mirror_tests;
