//! Plans that hold up while loads move: what stands for the next window, when to leave a plan alone, and a
//! replay that scores strategies on a trace.
//!
//! A plan made from one window serves the next one. [`Strategy`] says what stands for the next window: the last
//! ones around a forecast, or the forecast alone. [`Rebalancer`] is the object for a serving loop;
//! [`replay`] walks a recorded trace with it.

mod rebalancer;
mod replay;
mod status;

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::loads::MAX_WINDOWS;
use crate::moves::MoveLimits;
use crate::options::PlanOptions;
use crate::presets::Preset;

pub use crate::outlook::forecast;
pub use rebalancer::{Proposal, Rebalancer};
pub use replay::{ReplayOptions, ReplayRow, Series, SharesFrom, replay, replay_one_by_one};
pub use status::Status;

/// How the next window is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Strategy {
    /// The last windows at once, each GPU with one load a window, moved so that their mean is the forecast. Windows before a
    /// break, after which the load is of another kind, are left out, unless it has come back to their kind.
    Scenarios,
    /// An AR(1) forecast of each expert's share: see [`forecast`].
    Forecast,
}

impl Strategy {
    /// All of them.
    pub const ALL: &'static [Strategy] = &[Strategy::Scenarios, Strategy::Forecast];

    /// `scenarios` or `forecast`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Scenarios => "scenarios",
            Strategy::Forecast => "forecast",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Strategy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().copied().find(|s| s.name() == text);
        found.ok_or_else(|| Error::invalid("strategy", text, "is not scenarios or forecast"))
    }
}

/// How a [`Rebalancer`] plans.
///
/// A minor version may add fields, each with a default that changes nothing: construct it with
/// `..RebalanceOptions::default()`, and later versions compile.
#[derive(Clone, Debug, PartialEq)]
pub struct RebalanceOptions {
    /// How the next window is planned. Default: [`Strategy::Scenarios`].
    pub strategy: Strategy,
    /// Windows of [`Strategy::Scenarios`], from 1 to [`MAX_WINDOWS`]. Default: 16.
    pub windows: usize,
    /// Each window of [`Strategy::Scenarios`] weighs this much of the one after it, above 0 and at most 1. Default: 0.9.
    pub decay: f64,
    /// Windows that forecasts look at, from 1 to 1,024. Default: 32.
    pub forecast_windows: usize,
    /// How a single window is planned where no plan runs. Default: that of [`PlanOptions`] without noise on counts, up to 500
    /// millionths above the bound.
    pub plan: PlanOptions,
    /// How several windows are planned where no plan runs. Default: [`Preset::SCENARIOS`].
    pub scenario_plan: PlanOptions,
    /// How far a plan may move from the one that runs. Default: [`MoveLimits::each_window`].
    pub limits: MoveLimits,
    /// Whether to plan anew each time, whatever runs. Default: `false`.
    pub fresh: bool,
}

impl Default for RebalanceOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::Scenarios,
            // More windows are more robust against noise: at 5 % of the slots a step, 16 for 8 bring gpt-oss-20b .8240 ->
            // .8285 (40 replicas on 8 GPUs) and .7320 -> .7377 (48 on 16), V3 drift .8252 -> .8256 and .9128 -> .9133 (means
            // over four seeds), for half as much time again.
            windows: 16,
            decay: 0.9,
            forecast_windows: 32,
            // The counts of the greedy rule hold up better on the next window than noisy ones that win here, and
            // what is closer to the bound than this makes no difference there.
            plan: PlanOptions { count_noise: false, stop_gap_ppm: 500, ..PlanOptions::default() },
            scenario_plan: Preset::SCENARIOS.options(),
            limits: MoveLimits::each_window(),
            fresh: false,
        }
    }
}

impl RebalanceOptions {
    /// Checks the numbers that have a range.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field, its value and the rule.
    pub fn check(&self) -> Result<(), Error> {
        if self.windows == 0 || self.windows > MAX_WINDOWS {
            return Err(Error::invalid(
                "windows",
                self.windows,
                format!("is not between 1 and {MAX_WINDOWS}"),
            ));
        }
        if !(self.decay > 0.0 && self.decay <= 1.0) {
            return Err(Error::invalid("decay", self.decay, "is not above 0 and at most 1"));
        }
        if self.forecast_windows == 0 || self.forecast_windows > 1024 {
            return Err(Error::invalid(
                "forecast_windows",
                self.forecast_windows,
                "is not between 1 and 1024",
            ));
        }
        Ok(())
    }
}
