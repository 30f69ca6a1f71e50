//! Expert-parallel load balancing for Mixture-of-Experts serving.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod bound;
pub mod check;
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

pub use cluster::{Cluster, Policy};
pub use engine::device::{DeviceChoice, DeviceInfo, auto_device, devices};
pub use error::Error;
pub use loads::Loads;
pub use options::{Duplicates, GroupRule, Objective, PlanOptions, Search};
pub use plan::{Placement, Plan, Stop};
pub use planner::Planner;
pub use presets::Preset;
