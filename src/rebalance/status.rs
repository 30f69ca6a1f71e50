//! The numbers of a serving loop, for an operator's graphs.

use std::fmt::Write;
use std::time::Duration;

/// Numbers of a [`super::Rebalancer`] since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// Windows observed.
    pub windows: u64,
    /// Plans proposed.
    pub proposals: u64,
    /// Balancedness of the plan that ran on the last window; `None` where none ran that fits the cluster.
    pub balancedness: Option<f64>,
    /// Balancedness of the last proposal on what it was made from; `None` before the first.
    pub expected_balancedness: Option<f64>,
    /// Slots that the proposals move, all together.
    pub moves_proposed: u64,
    /// Those of them that make valid what was not.
    pub repairs_proposed: u64,
    /// Slots that moved between the plans that ran.
    pub moves_made: u64,
    /// Time of the last proposal's plan.
    pub last_plan: Duration,
    /// Time of all of them.
    pub planning: Duration,
}

impl Status {
    /// The numbers in Prometheus' text format. What is not known yet is left out.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
            }
        };
        let counted = |count: u64| Some(count as f64);
        add("eplb_windows_total", "counter", "Windows observed.", counted(self.windows));
        add("eplb_proposals_total", "counter", "Plans proposed.", counted(self.proposals));
        let help = "Mean over heaviest GPU of the plan that ran, on the last window.";
        add("eplb_balancedness", "gauge", help, self.balancedness);
        let help = "Balancedness that the last proposal is expected to have.";
        add("eplb_expected_balancedness", "gauge", help, self.expected_balancedness);
        let help = "Slots that proposals move.";
        add("eplb_moves_proposed_total", "counter", help, counted(self.moves_proposed));
        let help = "Slots that proposals move to make a map valid.";
        add("eplb_repairs_proposed_total", "counter", help, counted(self.repairs_proposed));
        add("eplb_moves_made_total", "counter", "Slots that moved.", counted(self.moves_made));
        let help = "Time of the last proposal's plan.";
        add("eplb_last_plan_seconds", "gauge", help, Some(self.last_plan.as_secs_f64()));
        let help = "Time of all proposals' plans.";
        add("eplb_plan_seconds_total", "counter", help, Some(self.planning.as_secs_f64()));
        out
    }
}
