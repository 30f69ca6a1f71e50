//! The next window, as far as the last ones tell. It knows loads alone: the serving loop plans from it, and tables of shares
//! are made from it.

mod breaks;
mod forecast;
mod scenarios;

pub use forecast::{ONE, forecast, persistence};
pub use scenarios::scenarios;
