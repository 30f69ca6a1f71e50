//! The CPU backend: the six stages as plain sequential Rust, one file a shader.
//!
//! Each file here is the specification of the shader of the same stem, and computes the same integers. Sizes
//! and constants come from [`crate::params`]; nothing here knows wgpu.

pub mod candidate;
pub mod rng;
pub mod s1_group_loads;
pub mod s2_groups_to_nodes;
pub mod s3_replicate;
pub mod s4_pack;
pub mod s5_counts;
pub mod s5_descend;
pub mod s5_search;
pub mod s6_select;
