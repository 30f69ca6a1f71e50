//! Options that bound the moves from one plan to the next, and options of the windows that a plan is made on.

use clap::Args;

use super::words;
use crate::rebalance::RebalanceOptions;
use crate::{Error, MaxMoves, MoveLimits};

/// How a plan may move away from the one before.
#[derive(Args)]
pub(super) struct MoveLimitArgs {
    /// The most slots that may move, all layers together: a number, or a part of all slots as in 15% [default: no limit; 5% in
    /// `eplb replay` and with --strategy]
    #[arg(long, value_parser = parse_most)]
    max_moves: Option<MaxMoves>,
    /// The most slots of a layer that may move: a number, or a part of its slots as in 15% [default: no
    /// limit]
    #[arg(long, value_parser = parse_most)]
    max_moves_per_layer: Option<MaxMoves>,
    /// The most rounds that the moves of a layer may take. In a round each GPU exchanges experts with at most one other GPU
    /// [default: no limit]
    #[arg(long)]
    max_rounds_per_layer: Option<usize>,
    /// The least gain of moving all slots of a layer, as a part of the mean GPU: 0.1 is 10 % [default: 0.1; where
    /// --max-moves allows more than 5% of the slots less, down to 0.05]
    #[arg(long, value_parser = parse_part)]
    min_gain: Option<u32>,
    /// Leave layers alone whose balancedness is at least this, 0 to 1 [default: none]
    #[arg(long, value_parser = parse_part)]
    skip_if_balanced: Option<u32>,
}

impl MoveLimitArgs {
    /// The options given.
    pub(super) fn given(&self) -> [(bool, &'static str); 5] {
        [
            (self.max_moves.is_some(), "--max-moves"),
            (self.max_moves_per_layer.is_some(), "--max-moves-per-layer"),
            (self.max_rounds_per_layer.is_some(), "--max-rounds-per-layer"),
            (self.min_gain.is_some(), "--min-gain"),
            (self.skip_if_balanced.is_some(), "--skip-if-balanced"),
        ]
    }

    /// Some limits, as the flags change them.
    pub(super) fn limits(&self, default: &MoveLimits) -> MoveLimits {
        MoveLimits {
            max_moves: self.max_moves.or(default.max_moves),
            max_moves_per_layer: self.max_moves_per_layer.or(default.max_moves_per_layer),
            max_rounds_per_layer: self.max_rounds_per_layer.or(default.max_rounds_per_layer),
            min_gain_ppm: self.min_gain.or(default.min_gain_ppm),
            skip_if_balanced_ppm: self.skip_if_balanced.or(default.skip_if_balanced_ppm),
        }
    }
}

/// Options of the windows that a plan is made on.
#[derive(Args)]
pub(super) struct Outlook {
    /// Windows that `scenarios` plans on, 1 to 16 [default: 16]
    #[arg(long)]
    windows: Option<usize>,
    /// Under `scenarios` each window weighs this part of the next one: above 0, at most 1 [default: 0.9]
    #[arg(long)]
    decay: Option<f64>,
}

impl Outlook {
    /// The options given.
    pub(super) fn given(&self) -> [(bool, &'static str); 2] {
        [(self.windows.is_some(), "--windows"), (self.decay.is_some(), "--decay")]
    }

    /// Refuses a weight of the windows before the last one where there is none.
    pub(super) fn check(&self) -> Result<(), Error> {
        let is_idle = self.decay.is_some() && self.windows == Some(1);
        words::check_effect(&[(is_idle, "--decay")], "several windows: --windows, at least 2")
    }

    pub(super) fn options(&self, limits: MoveLimits) -> RebalanceOptions {
        let default = RebalanceOptions::default();
        RebalanceOptions {
            windows: self.windows.unwrap_or(default.windows),
            decay: self.decay.unwrap_or(default.decay),
            limits,
            ..default
        }
    }
}

fn parse_most(text: &str) -> Result<MaxMoves, String> {
    let rule = "is neither a number of slots nor a part as in 15%";
    match text.strip_suffix('%').map(str::parse::<f64>) {
        None => text.parse().map(MaxMoves::Slots).map_err(|_| rule.to_string()),
        Some(Ok(percent)) if (0.0..=100.0).contains(&percent) => {
            Ok(MaxMoves::Ppm((percent * 1e4).round() as u32))
        }
        Some(Ok(_)) => Err("is not between 0% and 100%".to_string()),
        Some(Err(_)) => Err(rule.to_string()),
    }
}

/// A part of one, in millionths.
fn parse_part(text: &str) -> Result<u32, String> {
    let part = text.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
    part.map(|part| (part * 1e6).round() as u32).ok_or_else(|| "is not between 0 and 1".to_string())
}
