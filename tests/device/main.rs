//! The device suite: what the shaders compute on an adapter equals what the CPU backend computes, byte for
//! byte. `tests/run.sh` runs it on every adapter of the machine; see `common` for the variables it reads.

mod adapters;
mod common;
mod drivers;
mod profile;
