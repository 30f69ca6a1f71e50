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
//!
//! # Features
//!
//! All but `test-support` are on by default; `default-features = false` leaves them out.
//!
//! - `gpu`: devices, by wgpu. Without it the CPU backend makes every plan, the same ones.
//! - `files`: readers and writers of load files, plan files and maps, and a generator of loads: the modules `trace` and
//!   `maps`.
//! - `cli`: the `eplb` command, and `files`.
//! - `suite`: benchmarks and fingerprints, which the command and the pages for browsers both run. No part of the API.
//! - `test-support`: parts of the inside that this project's own tests use. No part of the API.
#![warn(missing_docs)]
// Only `engine::trusted` allows it.
#![deny(unsafe_code)]

pub mod bound;
pub mod check;
mod choice;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod cluster;
mod edge;
#[cfg(feature = "gpu")]
// The profiler alone reads its clock.
#[cfg_attr(not(any(feature = "suite", feature = "test-support")), allow(dead_code))]
mod engine;
mod error;
mod exact;
mod foreign;
mod given;
#[cfg(doc)]
pub mod guide;
#[cfg(feature = "gpu")]
mod layout;
pub mod limits;
mod loads;
#[cfg(feature = "files")]
pub mod maps;
mod mirror;
mod moves;
mod options;
mod outlook;
// Some of its constants are about dispatches alone.
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
mod params;
mod plan;
mod planner;
mod presets;
mod previous;
#[cfg(all(feature = "gpu", feature = "test-support"))]
#[doc(hidden)]
pub mod profile;
#[cfg(all(feature = "gpu", feature = "suite", not(feature = "test-support")))]
mod profile;
pub mod rebalance;
mod replan;
mod rows;
mod shares;
mod spread;
#[cfg(feature = "gpu")]
mod stages;
#[cfg(feature = "suite")]
#[doc(hidden)]
pub mod suite;
#[cfg(all(feature = "gpu", feature = "test-support"))]
#[doc(hidden)]
pub mod testing;
mod threads;
mod three_gpus;
#[cfg(feature = "files")]
pub mod trace;
mod watch;

pub use check::Dispatch;
pub use choice::{DeviceChoice, DeviceInfo};
#[cfg(not(feature = "gpu"))]
pub use choice::{auto_device, devices, devices_async};
pub use cluster::{Cluster, Policy};
#[cfg(feature = "gpu")]
pub use engine::device::{auto_device, devices, devices_async};
pub use error::{Error, ParseError};
pub use loads::Loads;
pub use moves::{MaxMoves, MoveLimits, Moves};
pub use options::{Descent, Duplicates, GroupRule, Objective, PlanOptions, Search};
pub use plan::{PLAN_VERSION, Placement, Plan, Stop};
pub use planner::{Fallback, LayerMoves, Planner, Replan};
pub use presets::Preset;
pub use previous::PreviousMap;
pub use shares::{PARTS, Shares};
pub use watch::{Cancel, Progress};

// The program in the README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

// The device suite is compiled into the unit tests, to see single stages; its helpers name the crate.
#[cfg(test)]
extern crate self as eplb_wgpu;
#[cfg(test)]
// The device suite reads all of it.
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
#[path = "../tests/support/cases.rs"]
mod cases;
#[cfg(all(test, feature = "gpu"))]
#[path = "../tests/device/mod.rs"]
mod device;
#[cfg(test)]
#[path = "../tests/mirror/mod.rs"]
mod mirror_tests;
