//! The CPU backend: each move against brute force over all moves of its kind, and what every plan must hold.

mod counts;
mod moves;
mod plans;
mod warm_moves;
