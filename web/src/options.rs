//! Options, as objects of JavaScript: what is not there is as the preset has it.

use eplb_wgpu::{Duplicates, Error, MaxMoves, MoveLimits, PlanOptions};
use serde::Deserialize;

/// `PlanOptions` of `types.d.ts`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    preset: Option<String>,
    seed: Option<u64>,
    starts: Option<u32>,
    iterations: Option<u32>,
    allow_duplicates: Option<bool>,
    max_replicas_per_expert: Option<u32>,
}

impl Options {
    /// # Errors
    /// Where there is no such preset.
    pub fn of_core(self) -> Result<PlanOptions, Error> {
        let mut options = super::preset(self.preset.as_deref())?.options();
        options.seed = self.seed.unwrap_or(options.seed);
        options.starts = self.starts.unwrap_or(options.starts);
        options.iterations = self.iterations.unwrap_or(options.iterations);
        match self.allow_duplicates {
            Some(true) => options.duplicates = Duplicates::Allow,
            Some(false) => options.duplicates = Duplicates::Avoid,
            None => {}
        }
        options.max_replicas_per_expert = self.max_replicas_per_expert.or(options.max_replicas_per_expert);
        Ok(options)
    }
}

/// `MoveLimits` of `types.d.ts`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    max_moves: Option<usize>,
    max_moves_per_layer: Option<usize>,
    max_rounds_per_layer: Option<usize>,
    min_gain_ppm: Option<u32>,
    skip_if_balanced_ppm: Option<u32>,
}

impl Limits {
    pub fn of_core(self) -> MoveLimits {
        let none = MoveLimits::default();
        MoveLimits {
            max_moves: self.max_moves.map(MaxMoves::Slots),
            max_moves_per_layer: self.max_moves_per_layer.map(MaxMoves::Slots),
            max_rounds_per_layer: self.max_rounds_per_layer,
            min_gain_ppm: self.min_gain_ppm.or(none.min_gain_ppm),
            skip_if_balanced_ppm: self.skip_if_balanced_ppm,
        }
    }
}
