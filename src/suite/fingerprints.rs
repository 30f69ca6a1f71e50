//! `eplb check --fingerprints` and its page: a fixed list of calls, planned on any device, against the fingerprints that are
//! committed in `src/suite/fingerprints.json`. They are the same on every machine.
//!
//! A change of the planner that is meant to change plans remakes the file, on the CPU:
//! `cargo run --release -- check --fingerprints --device cpu --json | jq '{plan_version, fingerprints}' >
//! src/suite/fingerprints.json`, and raises [`PLAN_VERSION`]: `tests/plan_versions.txt` holds it to that.
//! `tests/mirror/pinned.rs` holds what random calls come to.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::trace::{Family, Generate, Window};
use crate::{
    Cluster, Dispatch, Duplicates, Error, Loads, MaxMoves, MoveLimits, PLAN_VERSION, Plan, PlanOptions,
    Planner, Preset,
};

/// Fingerprints by the name of their case.
pub type Fingerprints = BTreeMap<String, String>;

/// The entry that is a hash of the generated loads, so that a generator that differs is not taken for a planner.
const LOADS: &str = "loads";

/// The committed list.
#[derive(serde::Deserialize)]
struct Committed {
    /// Of the library that made them.
    plan_version: u32,
    fingerprints: Fingerprints,
}

/// One call of the planner.
struct PrintedCase {
    name: String,
    /// Of several windows where it is about plans over time or shares.
    loads: Loads,
    cluster: Cluster,
    options: PlanOptions,
    printed: Printed,
}

/// The result that is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Printed {
    /// A plan made anew.
    Plan,
    /// A plan for all windows from the one for the first window, with at most a tenth of the slots moved.
    Replan,
    /// The table of shares that the windows make for the plan for the first one, and that for the last window as one batch.
    Shares,
}

impl PrintedCase {
    /// The fingerprint, and the warnings of the plan.
    async fn print(&self, planner: &Planner) -> Result<(u64, Vec<String>), Error> {
        let Self { loads, cluster, options, .. } = self;
        let windows: Vec<Loads> = loads.windows().cloned().collect();
        let first = match self.printed {
            Printed::Plan => return Ok(print_of(&planner.plan_here(loads, cluster, options).await?)),
            Printed::Replan | Printed::Shares => planner.plan_here(&windows[0], cluster, options).await?,
        };
        if self.printed == Printed::Replan {
            let limits = MoveLimits { max_moves: Some(MaxMoves::Ppm(100_000)), ..MoveLimits::default() };
            let replan = planner.replan(loads, cluster, first.placement(), options, &limits)?;
            return Ok(print_of(replan.plan()));
        }
        let map = first.physical_to_logical();
        let tables = [
            planner.shares(cluster, map, &windows)?,
            planner.batch_shares(cluster, map, &windows[windows.len() - 1])?,
        ];
        let parts = tables.iter().flat_map(|table| table.parts());
        let bytes: Vec<u8> = parts.flat_map(|part| part.to_le_bytes()).collect();
        Ok((xxhash_rust::xxh64::xxh64(&bytes, 0), first.warnings().to_vec()))
    }
}

/// The fingerprint and the warnings of a plan.
fn print_of(plan: &Plan) -> (u64, Vec<String>) {
    (plan.fingerprint(), plan.warnings().to_vec())
}

/// The result of a run.
pub struct PrintedRun {
    /// The plan version that the committed fingerprints are of.
    pub committed_for: u32,
    pub committed: Fingerprints,
    pub found: Fingerprints,
    /// Cases that were planned, and all there are.
    pub cases: usize,
    pub all: usize,
    /// Names of those that are not as committed.
    pub differing: Vec<String>,
    /// Of plans, with the case.
    pub warnings: Vec<String>,
}

impl PrintedRun {
    /// Whether all of it is as committed, and made by the device that was meant.
    pub fn equal(&self) -> bool {
        self.differing.is_empty() && self.warnings.is_empty() && self.committed_for == PLAN_VERSION
    }

    /// One JSON object.
    pub fn json(&self, device: &str) -> Value {
        json!({
            "equal": self.equal(),
            "version": env!("CARGO_PKG_VERSION"),
            "plan_version": PLAN_VERSION,
            "device": device,
            "cases": self.cases,
            "differing": self.differing,
            "warnings": self.warnings,
            "fingerprints": self.found,
        })
    }
}

/// Plans the cases, those with one of `only` in their names if there is any. `tell` is told how many are done, and of how many.
///
/// # Errors
/// Where a part of `only` is in the name of no case, and those of the planner.
pub async fn run(
    planner: &Planner,
    only: &[String],
    mut tell: impl FnMut(usize, usize),
) -> Result<PrintedRun, Error> {
    let Committed { plan_version, fingerprints: mut committed } =
        serde_json::from_str(include_str!("fingerprints.json"))
            .map_err(|error| Error::invalid("src/suite/fingerprints.json", "", error.to_string()))?;
    let mut cases = cases()?;
    let all = cases.len();
    // The loads of all cases, whichever are planned: it is one hash.
    let mut found = Fingerprints::from([(LOADS.to_string(), hash_of_loads(&cases))]);
    for part in only {
        if !cases.iter().any(|case| is_meant(&case.name, std::slice::from_ref(part))) {
            return Err(Error::invalid("--only", format!("{part:?}"), "is in the name of no case"));
        }
    }
    cases.retain(|case| is_meant(&case.name, only));
    committed.retain(|name, _| name == LOADS || is_meant(name, only));
    let mut warnings = Vec::new();
    for (done, case) in cases.iter().enumerate() {
        tell(done, cases.len());
        let (print, warned) = case.print(planner).await?;
        // A plan that another device finished says nothing about this one.
        warnings.extend(warned.iter().map(|warning| format!("{}: {warning}", case.name)));
        found.insert(case.name.clone(), format!("{print:016x}"));
    }
    let differing = differing(&committed, &found);
    Ok(PrintedRun {
        committed_for: plan_version,
        committed,
        found,
        cases: cases.len(),
        all,
        differing,
        warnings,
    })
}

/// Whether a case is one of those asked for: all are where nothing is said.
fn is_meant(name: &str, only: &[String]) -> bool {
    only.is_empty() || only.iter().any(|part| name.to_lowercase().contains(&part.to_lowercase()))
}

/// Names whose fingerprints are not the same on both sides, or only on one.
fn differing(committed: &Fingerprints, found: &Fingerprints) -> Vec<String> {
    let names = committed.keys().chain(found.keys().filter(|name| !committed.contains_key(*name)));
    names.filter(|name| committed.get(*name) != found.get(*name)).cloned().collect()
}

fn hash_of_loads(cases: &[PrintedCase]) -> String {
    let numbers = cases.iter().flat_map(|case| case.loads.fixed_windows());
    let bytes: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
    format!("{:016x}", xxhash_rust::xxh64::xxh64(&bytes, 0))
}

/// Every preset on both policies, and the corners of the problem.
fn cases() -> Result<Vec<PrintedCase>, Error> {
    let default = PlanOptions::default();
    let budget = |starts, iterations| PlanOptions { starts, iterations, ..PlanOptions::default() };
    let mut cases = Vec::new();
    let mut add = |name: String, family: Family, (layers, experts): (usize, usize), cluster, options| {
        // By its name, so that a case added or removed changes no other.
        let seed = name.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let dense_layers = usize::from(layers > 2);
        let loads = Generate { family, layers, experts, dense_layers, seed, ..Generate::default() };
        let loads = loads.history()?.loads(Window::Sum)?;
        cases.push(PrintedCase { name, loads, cluster, options, printed: Printed::Plan });
        Ok::<(), Error>(())
    };
    // The first layer of these has no load.
    for preset in Preset::all() {
        let options = preset.options();
        let hierarchical = Cluster::new(48, 4, 2, 8)?;
        add(
            format!("{preset} hierarchical"),
            Family::Lognormal(1.0),
            (3, 32),
            hierarchical,
            options.clone(),
        )?;
        let global = Cluster::new(30, 1, 1, 6)?;
        add(format!("{preset} global"), Family::Zipf(1.0), (3, 24), global, options)?;
    }
    let lognormal = Family::Lognormal(1.0);
    let mut small =
        |name: &str, family, size, cluster, options| add(name.into(), family, size, cluster, options);
    small("uniform", Family::Lognormal(0.0), (2, 64), Cluster::new(72, 1, 1, 8)?, default.clone())?;
    small("hot group", Family::HotGroup, (2, 64), Cluster::new(80, 8, 4, 8)?, default.clone())?;
    small("hot experts", Family::HotExperts, (2, 100), Cluster::new(120, 1, 1, 12)?, default.clone())?;
    small("steep", Family::Lognormal(3.0), (2, 64), Cluster::new(128, 1, 1, 16)?, default.clone())?;
    small("one expert", lognormal, (1, 1), Cluster::new(4, 1, 1, 4)?, default.clone())?;
    small("one GPU", lognormal, (1, 7), Cluster::new(9, 1, 1, 1)?, default.clone())?;
    small("one slot a GPU", lognormal, (1, 20), Cluster::new(32, 1, 1, 32)?, default.clone())?;
    small("two slots a GPU", lognormal, (1, 64), Cluster::new(72, 1, 1, 36)?, default.clone())?;
    small("many slots a GPU", lognormal, (1, 128), Cluster::new(140, 1, 1, 2)?, default.clone())?;
    small("no spare slot", lognormal, (2, 64), Cluster::new(64, 8, 2, 8)?, default.clone())?;
    let free = Cluster::with_slots_per_gpu(36, 4, 2, 8, 6)?;
    small("free slots", lognormal, (2, 32), free, default.clone())?;
    small("duplicates that must be", lognormal, (1, 3), Cluster::new(16, 1, 1, 4)?, default.clone())?;
    let allow = PlanOptions { duplicates: Duplicates::Allow, ..default.clone() };
    small("duplicates allowed", lognormal, (2, 12), Cluster::new(48, 1, 1, 6)?, allow)?;
    small("groups no multiple of nodes", lognormal, (2, 30), Cluster::new(36, 5, 2, 4)?, default.clone())?;
    let (nodes, free) = (Cluster::new(112, 1, 4, 16)?, Cluster::with_slots_per_gpu(70, 3, 2, 8, 10)?);
    small("spread over nodes", lognormal, (3, 96), nodes.clone(), default.clone())?;
    small("spread over nodes, free slots", Family::Zipf(0.5), (2, 60), free, default.clone())?;
    for dispatch in [Dispatch::Nearest, Dispatch::OwnGpu] {
        let options = PlanOptions { dispatch, ..default.clone() };
        small(&format!("dispatch {dispatch}"), lognormal, (2, 96), nodes.clone(), options)?;
    }
    let assignments = PlanOptions { assignments: Some(4), ..default.clone() };
    small("four assignments", lognormal, (2, 48), Cluster::new(64, 12, 4, 16)?, assignments)?;
    small("one start, no iteration", lognormal, (2, 64), Cluster::new(80, 8, 2, 8)?, budget(1, 0))?;
    small("odd starts and iterations", lognormal, (2, 64), Cluster::new(80, 8, 2, 8)?, budget(37, 5))?;
    let seeded = PlanOptions { seed: u64::MAX, ..default.clone() };
    small("largest seed", lognormal, (2, 64), Cluster::new(80, 8, 2, 8)?, seeded)?;
    small("DeepSeek-V3, one layer", lognormal, (1, 256), Cluster::new(288, 8, 4, 32)?, budget(8, 200))?;
    let foreign = PlanOptions { max_foreign: 4, ..default.clone() };
    small("foreign replicas", lognormal, (3, 64), Cluster::new(80, 8, 4, 16)?, foreign)?;
    let connected = PlanOptions { connected: true, ..default };
    small("connected", lognormal, (2, 64), Cluster::new(80, 4, 2, 8)?, connected)?;
    cases.extend(over_time()?);
    Ok(cases)
}

/// Plans from one that runs, and tables of shares, for windows that drift.
fn over_time() -> Result<Vec<PrintedCase>, Error> {
    let default = PlanOptions::default();
    let foreign = PlanOptions { max_foreign: 4, ..default.clone() };
    let allow = PlanOptions { duplicates: Duplicates::Allow, ..default.clone() };
    let free = Cluster::with_slots_per_gpu(66, 4, 2, 8, 9)?;
    let cases = [
        ("replan, small layers", Cluster::new(72, 1, 1, 8)?, &default, Printed::Replan),
        ("replan, global", Cluster::new(80, 1, 1, 20)?, &default, Printed::Replan),
        ("replan, nodes", Cluster::new(80, 8, 4, 16)?, &default, Printed::Replan),
        ("replan, free slots", free, &default, Printed::Replan),
        ("replan, duplicates allowed", Cluster::new(96, 1, 1, 12)?, &allow, Printed::Replan),
        ("replan, foreign replicas", Cluster::new(80, 8, 4, 16)?, &foreign, Printed::Replan),
        ("replan, spread over nodes", Cluster::new(96, 1, 4, 16)?, &default, Printed::Replan),
        ("shares", Cluster::new(96, 1, 1, 12)?, &default, Printed::Shares),
        ("shares, nodes", Cluster::new(96, 8, 4, 16)?, &default, Printed::Shares),
    ];
    let case = |(name, cluster, options, printed): (&str, Cluster, &PlanOptions, Printed)| {
        let (windows, seed) = (6, name.len() as u64);
        let generate = Generate { windows, layers: 3, experts: 64, drift: 0.3, seed, ..Generate::default() };
        let history = generate.history()?;
        let windows: Vec<Loads> =
            (0..windows).map(|at| history.loads(Window::Index(at))).collect::<Result<_, _>>()?;
        let loads = Loads::from_windows(&windows, &[1.0; 6])?;
        Ok(PrintedCase { name: name.into(), loads, cluster, options: options.clone(), printed })
    };
    cases.into_iter().map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_what_differs_is_named() {
        let cases = cases().unwrap();
        let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        assert_eq!(names.len(), cases.len());
        let all = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(name, print)| (name.to_string(), print.to_string())).collect::<Fingerprints>()
        };
        let (committed, found) =
            (all(&[("a", "1"), ("b", "2"), ("c", "3")]), all(&[("a", "1"), ("b", "0"), ("d", "4")]));
        assert_eq!(differing(&committed, &found), ["b", "c", "d"]);
    }
}
