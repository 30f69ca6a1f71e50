//! Expert-parallel load balancing for Mixture-of-Experts serving: near-optimal plans from WGSL compute shaders,
//! the same bytes on every device and on the CPU.
//!
//! Given how many tokens each expert of each layer received ([`Loads`]) and a [`Cluster`], a [`Planner`] decides
//! how many copies every expert gets and which GPU slot holds each copy, so that the busiest GPU does as little as
//! possible. A [`Plan`] carries the three maps of DeepSeek's contract. [`Plan::quality`] tells how far the plan is
//! above a lower bound that no plan can pass.
//!
//! ```
//! use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
//!
//! let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
//! let cluster = Cluster::new(6, 1, 1, 3)?; // 6 replicas on 3 GPUs of one node
//! let planner = Planner::new(DeviceChoice::Auto)?;
//! let plan = planner.plan(&loads, &cluster, &PlanOptions::default())?;
//! assert_eq!(plan.placement().replica_counts(), [2, 1, 1, 2]);
//! assert!(plan.quality().balancedness() > 0.999);
//! # Ok::<(), eplb_wgpu::Error>(())
//! ```
//!
//! The [`guide`] shows how to use the crate, page by page. This page tells how it works: [the problem](#the-problem) and
//! [its words](#words), [how a plan is made](#how-a-plan-is-made),
//! [why the bytes are equal everywhere](#why-the-bytes-are-equal-everywhere), and
//! [how the device side works](#how-the-device-side-works).
//!
#![doc = include_str!("guide/theory/words.md")]
//!
#![doc = include_str!("guide/theory/stages.md")]
//!
#![doc = include_str!("guide/theory/bytes.md")]
//!
#![doc = include_str!("guide/theory/device.md")]
#![warn(missing_docs)]
// But for `engine::trusted`.
#![deny(unsafe_code)]

pub mod bound;
pub mod check;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod cluster;
pub(crate) mod engine;
pub mod error;
pub(crate) mod exact;
#[cfg(doc)]
pub mod guide;
pub(crate) mod layout;
pub mod loads;
pub(crate) mod mirror;
pub mod moves;
pub mod options;
pub(crate) mod params;
pub mod plan;
pub mod planner;
pub mod presets;
mod previous;
pub mod profile;
pub mod rebalance;
pub(crate) mod stages;
#[doc(hidden)]
pub mod testing;
pub(crate) mod threads;
#[cfg(feature = "files")]
pub mod trace;

pub use cluster::{Cluster, Policy};
pub use engine::device::{DeviceChoice, DeviceInfo, auto_device, devices};
pub use error::{Error, ParseError};
pub use loads::Loads;
pub use moves::{MaxMoves, MoveLimits, Moves};
pub use options::{Descent, Duplicates, GroupRule, Objective, PlanOptions, Search};
pub use plan::{Placement, Plan, Stop};
pub use planner::{Fallback, LayerMoves, Planner, Replan};
pub use presets::Preset;
pub use previous::PreviousMap;

// The program in the README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
