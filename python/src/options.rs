//! Options of a caller, by name.

use eplb_wgpu::rebalance::{RebalanceOptions, Strategy};
use eplb_wgpu::{Dispatch, Duplicates, MaxMoves, MoveLimits, PlanOptions, Preset};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{invalid, raise};

type Dict<'a, 'py> = &'a Bound<'py, PyDict>;

/// The value of a field as `T`. The error names the field and a value that does not fit.
fn value<'py, T>(field: &str, value: &Bound<'py, PyAny>, rule: &str) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py>,
{
    value.extract().map_err(|_| invalid(field, value, rule))
}

fn unknown(kind: &str, field: &str, known: &[&str]) -> PyErr {
    invalid(kind, field, format!("is not one of {}", known.join(", ")))
}

/// A share as millionths.
fn ppm(field: &str, share: &Bound<'_, PyAny>) -> PyResult<u32> {
    ppm_within(field, share, 0, 1)
}

/// A number from `least` to `most` as millionths.
fn ppm_within(field: &str, given: &Bound<'_, PyAny>, least: u32, most: u32) -> PyResult<u32> {
    let rule = format!("is not a number from {least} to {most}");
    let number: f64 = value(field, given, &rule)?;
    if !(f64::from(least)..=f64::from(most)).contains(&number) {
        return Err(invalid(field, given, rule));
    }
    Ok((number * 1e6).round() as u32)
}

const WHOLE: &str = "is not a whole number, at least 0 and below 2^32";

/// Names of the options of a plan.
const PLAN: [&str; 12] = [
    "preset",
    "seed",
    "starts",
    "iterations",
    "patience",
    "assignments",
    "allow_duplicates",
    "max_replicas_per_expert",
    "dispatch",
    "connected",
    "max_foreign",
    "foreign_target",
];

/// Options of a plan. Where no preset is named, the number of windows decides which it is.
pub fn plan(options: Dict, several_windows: bool) -> PyResult<PlanOptions> {
    let preset = match options.get_item("preset")? {
        Some(name) => name.str()?.to_string().parse().map_err(raise)?,
        None if several_windows => Preset::SCENARIOS,
        None => Preset::DEFAULT,
    };
    let mut out = preset.options();
    for (name, given) in options {
        let name: String = name.extract()?;
        let field = name.as_str();
        match field {
            "preset" => {}
            "seed" => out.seed = value(field, &given, "is not a whole number, at least 0 and below 2^64")?,
            "starts" => out.starts = value(field, &given, WHOLE)?,
            "iterations" => out.iterations = value(field, &given, WHOLE)?,
            "patience" => out.patience = value(field, &given, WHOLE)?,
            "assignments" => out.assignments = value(field, &given, WHOLE)?,
            "allow_duplicates" => {
                let allow: bool = value(field, &given, "is not True or False")?;
                out.duplicates = if allow { Duplicates::Allow } else { Duplicates::Avoid };
            }
            "max_replicas_per_expert" => out.max_replicas_per_expert = value(field, &given, WHOLE)?,
            "dispatch" => out.dispatch = dispatch(&given.str()?.to_string())?,
            "connected" => out.connected = value(field, &given, "is not True or False")?,
            "max_foreign" => out.max_foreign = value(field, &given, WHOLE)?,
            "foreign_target" => out.foreign_target_ppm = ppm_within(field, &given, 1, 4000)?,
            _ => return Err(unknown("option", field, &PLAN)),
        }
    }
    Ok(out)
}

/// Names of the limits on moves.
const LIMITS: [&str; 6] = [
    "max_moves",
    "max_moves_share",
    "max_moves_per_layer",
    "max_rounds_per_layer",
    "min_gain",
    "skip_if_balanced",
];

/// `limits` with what is given; of a number and a share of moves, the share.
pub fn limits(given: Dict, mut limits: MoveLimits) -> PyResult<MoveLimits> {
    for (name, given) in given {
        let name: String = name.extract()?;
        let field = name.as_str();
        let share = || if given.is_none() { Ok(None) } else { ppm(field, &given).map(Some) };
        let slots = || value::<Option<usize>>(field, &given, WHOLE).map(|most| most.map(MaxMoves::Slots));
        match field {
            "max_moves" => limits.max_moves = slots()?,
            "max_moves_share" => limits.max_moves = share()?.map(MaxMoves::Ppm),
            "max_moves_per_layer" => limits.max_moves_per_layer = slots()?,
            "max_rounds_per_layer" => limits.max_rounds_per_layer = value(field, &given, WHOLE)?,
            "min_gain" => limits.min_gain_ppm = Some(ppm(field, &given)?),
            "skip_if_balanced" => limits.skip_if_balanced_ppm = share()?,
            _ => return Err(unknown("limit", field, &LIMITS)),
        }
    }
    Ok(limits)
}

/// The most slots of `slots` that may move; `None` without a bound.
pub fn most_moves(limits: &MoveLimits, slots: usize) -> Option<usize> {
    limits.max_moves.map(|most| most.of(slots))
}

/// The same limits with another on the number of moves.
pub fn with_most_moves(limits: &MoveLimits, most: Option<usize>) -> MoveLimits {
    MoveLimits { max_moves: most.map(MaxMoves::Slots), ..limits.clone() }
}

/// Names of the options of a rebalancer.
const REBALANCE: [&str; 6] =
    ["strategy", "scenario_windows", "decay", "forecast_windows", "fresh", "connected"];

/// Options of a rebalancer.
pub fn rebalance(options: Dict, move_limits: Dict) -> PyResult<RebalanceOptions> {
    let mut out = RebalanceOptions::default();
    out.limits = limits(move_limits, out.limits)?;
    for (name, given) in options {
        let name: String = name.extract()?;
        let field = name.as_str();
        match field {
            "strategy" => out.strategy = strategy(&given.str()?.to_string())?,
            "scenario_windows" => out.windows = value(field, &given, WHOLE)?,
            "decay" => out.decay = value(field, &given, "is not a number")?,
            "forecast_windows" => out.forecast_windows = value(field, &given, WHOLE)?,
            "fresh" => out.fresh = value(field, &given, "is not True or False")?,
            "connected" => {
                out.plan.connected = value(field, &given, "is not True or False")?;
                out.scenario_plan.connected = out.plan.connected;
            }
            _ => return Err(unknown("option", field, &REBALANCE)),
        }
    }
    out.check().map_err(raise)?;
    Ok(out)
}

/// A dispatch by name.
pub fn dispatch(name: &str) -> PyResult<Dispatch> {
    name.parse().map_err(raise)
}

/// A strategy by name.
pub fn strategy(name: &str) -> PyResult<Strategy> {
    name.parse().map_err(raise)
}
