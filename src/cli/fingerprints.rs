//! `eplb check --fingerprints`.

use super::progress::ShownProgress;
use super::{print, table};
use crate::suite::fingerprints::{self, Fingerprints};
use crate::{DeviceChoice, Error, PLAN_VERSION, Planner, edge};

/// Plans the cases on the device, those with one of `only` in their names if there is any, and prints what came out. True
/// where all of that is as committed, on this device.
pub fn run(device: DeviceChoice, only: &[String], as_json: bool) -> Result<bool, Error> {
    let planner = Planner::new(device)?;
    let progress = ShownProgress::new(0, "cases");
    let outcome = edge::now(fingerprints::run(&planner, only, |done, all| progress.reach(done, all)))?;
    drop(progress);
    let (equal, device) = (outcome.equal(), planner.device().label());
    print(&if as_json {
        outcome.json(&device).to_string()
    } else {
        let none = || "none".to_string();
        let (cases, all) = (outcome.cases, outcome.all);
        let mut rows = vec![
            ("device", device),
            ("plan version", PLAN_VERSION.to_string()),
            ("cases", if only.is_empty() { all.to_string() } else { format!("{cases} of {all}") }),
        ];
        if outcome.committed_for != PLAN_VERSION {
            rows.push(("committed for", format!("plan version {}", outcome.committed_for)));
        }
        rows.extend(outcome.differing.iter().map(|name| {
            let of = |all: &Fingerprints| all.get(name).cloned().unwrap_or_else(none);
            ("differs", format!("{name}: {}, not {}", of(&outcome.found), of(&outcome.committed)))
        }));
        rows.extend(outcome.warnings.into_iter().map(|warning| ("warning", warning)));
        rows.push(("fingerprints", if equal { "all equal".into() } else { "not as committed".into() }));
        table(&rows)
    });
    Ok(equal)
}
