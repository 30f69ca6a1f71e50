//! What the last windows say of the next one. It knows loads alone: the serving loop plans from it, and tables of shares
//! are made from it.

mod forecast;
mod scenarios;
mod turns;

pub use forecast::{ONE, forecast, persistence};
pub use scenarios::scenarios;
