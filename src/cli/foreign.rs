//! Options of foreign replicas.

use clap::Args;

use crate::PlanOptions;

/// How many replicas may lie outside the home of their group.
#[derive(Args)]
pub(super) struct ForeignArgs {
    /// The most replicas of a layer outside the home node of their group, where each expert keeps a replica [default: 0, or
    /// as many as the plan of --previous may have]
    #[arg(long)]
    max_foreign: Option<u32>,
    /// With --max-foreign: heaviest GPU over the mean at which a layer gets no more of them, 1.05 for 5 % [default: 1]
    #[arg(long, requires = "max_foreign", value_parser = parse_target)]
    target: Option<u32>,
}

impl ForeignArgs {
    /// Whether any may.
    pub(super) fn is_given(&self) -> bool {
        self.max_foreign.is_some_and(|most| most > 0)
    }

    /// Options, as the flags change them.
    pub(super) fn set(&self, options: &mut PlanOptions) {
        options.max_foreign = self.max_foreign.unwrap_or(options.max_foreign);
        options.foreign_target_ppm = self.target.unwrap_or(options.foreign_target_ppm);
    }
}

fn parse_target(text: &str) -> Result<u32, String> {
    let target = text.parse::<f64>().ok().filter(|target| (1.0..=4000.0).contains(target));
    target.map(|target| (target * 1e6).round() as u32).ok_or_else(|| "is not a number from 1 to 4000".into())
}
