//! Records of one or more machines as one table.
//!
//! Plans are compared where plan version, case and preset are the same. The reference is the CPU backend's plan,
//! where a record has one, else the first; a device whose plan is another is marked.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::DIFFERENT;
use crate::suite::record::{self, Case, Device, Record};

/// Devices and the cases they ran.
pub struct CaseTable {
    devices: Vec<(Source, Device)>,
    rows: Vec<CaseRow>,
}

/// The record that a device is from.
#[derive(Clone)]
struct Source {
    version: String,
    plan_version: Option<u32>,
    platform: String,
}

/// One case of one plan version.
struct CaseRow {
    plan_version: Option<u32>,
    case: String,
    preset: String,
    reference: String,
}

impl CaseTable {
    /// The table of these records.
    pub fn of(records: Vec<Record>) -> Self {
        let devices: Vec<(Source, Device)> = records
            .into_iter()
            .flat_map(|Record { version, plan_version, platform, devices, .. }| {
                let source = Source { version, plan_version, platform };
                devices.into_iter().map(move |device| (source.clone(), device))
            })
            .collect();
        let mut rows: Vec<CaseRow> = Vec::new();
        // The CPU backends first: the first plan of a row is its reference.
        let cpu_first = |cpu: bool| devices.iter().filter(move |(_, d)| (d.kind == "cpu") == cpu);
        for (source, device) in cpu_first(true).chain(cpu_first(false)) {
            for case in &device.cases {
                if !rows.iter().any(|row| row.is_of(source, case)) {
                    rows.push(CaseRow {
                        plan_version: source.plan_version,
                        case: case.case.clone(),
                        preset: case.preset.clone(),
                        reference: case.fingerprint.clone(),
                    });
                }
            }
        }
        Self { devices, rows }
    }

    /// Failure where any plan differs from its reference.
    pub fn exit_code(&self) -> ExitCode {
        if self.rows.iter().all(|row| self.equal(row)) {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(DIFFERENT)
        }
    }

    /// The number of each device in a row.
    fn cells<'a>(&'a self, row: &'a CaseRow) -> impl Iterator<Item = Option<&'a Case>> {
        let find =
            |(source, device): &'a (Source, Device)| device.cases.iter().find(|case| row.is_of(source, case));
        self.devices.iter().map(find)
    }

    fn equal(&self, row: &CaseRow) -> bool {
        self.cells(row).flatten().all(|case| case.fingerprint == row.reference)
    }

    /// Markdown, for people.
    pub fn markdown(&self) -> String {
        let mut lines = vec!["Devices:".to_string()];
        for (at, (source, device)) in self.devices.iter().enumerate() {
            let error = device.error.as_ref().map_or(String::new(), |error| format!("; failed: {error}"));
            let Source { version, platform, .. } = source;
            let plans = source.plan_version.map_or(String::new(), |plans| format!(" (plan version {plans})"));
            lines.push(format!("{}. {}; eplb {version}{plans}, {platform}{error}", at + 1, device.label()));
        }
        let versions = self.rows.iter().any(|row| row.plan_version != self.rows[0].plan_version);
        let numbers = || (1..=self.devices.len()).map(|n| n.to_string());
        lines.extend([
            "".to_string(),
            "Plans, ms: later plans (the first); plans that differ are bold.".into(),
        ]);
        lines.push(String::new());
        lines
            .extend(header(["case", "preset", "fingerprint"].map(String::from).into_iter().chain(numbers())));
        for row in &self.rows {
            let case = match row.plan_version {
                Some(version) if versions => format!("plan version {version}: {}", row.case),
                None if versions => format!("no plan version: {}", row.case),
                _ => row.case.clone(),
            };
            let mut cells = vec![case, format!("`{}`", row.preset)];
            let equal = self.cells(row).flatten().filter(|case| case.fingerprint == row.reference).count();
            let all = self.cells(row).flatten().count();
            cells.push(match equal == all {
                true => format!("{} ({all} equal)", row.reference),
                false => format!("{} (**{} of {all} differ**)", row.reference, all - equal),
            });
            cells.extend(self.cells(row).map(|case| match case {
                None => "-".to_string(),
                Some(case) => {
                    let differs = case.fingerprint != row.reference;
                    let mark = if differs { format!(" **{}**", case.fingerprint) } else { String::new() };
                    format!("{:.1} ({:.1}){mark}", case.later_ms, case.first_ms)
                }
            }));
            lines.push(line(cells));
        }
        lines.extend(["", "A fixed batch, ms; stages by the device's own clock."].map(String::from));
        lines.push(String::new());
        lines.extend(header(std::iter::once("stage".to_string()).chain(numbers())));
        let batches: Vec<_> = self.devices.iter().map(|(_, device)| device.batch.as_ref()).collect();
        let mut stems: Vec<&String> = batches
            .iter()
            .flatten()
            .filter_map(|batch| batch.stages_ms.as_ref())
            .flatten()
            .map(|s| s.0)
            .collect();
        stems.sort();
        stems.dedup();
        let number = |value: Option<f64>, digits: usize| {
            value.map_or("-".to_string(), |value| format!("{value:.digits$}"))
        };
        for stem in stems {
            let of_stem = |batch: &Option<&record::BatchRecord>| {
                number(batch.and_then(|batch| batch.stages_ms.as_ref()?.get(stem).copied()), 1)
            };
            lines.push(line(std::iter::once(format!("`{stem}`")).chain(batches.iter().map(of_stem))));
        }
        let total = |batch: &Option<&record::BatchRecord>| number(batch.map(|batch| batch.total_ms), 1);
        lines.push(line(std::iter::once("total".to_string()).chain(batches.iter().map(total))));
        let rate = |batch: &Option<&record::BatchRecord>| {
            number(batch.and_then(|batch| Some(batch.candidates_per_second? / 1e3)), 0)
        };
        let title = "thousand candidates/s".to_string();
        lines.push(line(std::iter::once(title).chain(batches.iter().map(rate))));
        lines.join("\n")
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let devices: Vec<_> = self
            .devices
            .iter()
            .map(|(source, device)| {
                json!({
                    "version": source.version, "plan_version": source.plan_version,
                    "platform": source.platform, "device": device,
                })
            })
            .collect();
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let plans: Vec<_> = self
                    .cells(row)
                    .enumerate()
                    .filter_map(|(device, case)| Some((device, case?)))
                    .map(|(device, case)| {
                        json!({
                            "device": device, "fingerprint": case.fingerprint,
                            "equal": case.fingerprint == row.reference,
                            "first_ms": case.first_ms, "later_ms": case.later_ms,
                        })
                    })
                    .collect();
                json!({
                    "plan_version": row.plan_version, "case": row.case, "preset": row.preset,
                    "fingerprint": row.reference, "equal": self.equal(row), "plans": plans,
                })
            })
            .collect();
        let equal = self.rows.iter().all(|row| self.equal(row));
        json!({ "equal": equal, "devices": devices, "cases": rows })
    }
}

impl CaseRow {
    fn is_of(&self, source: &Source, case: &Case) -> bool {
        self.plan_version == source.plan_version && self.case == case.case && self.preset == case.preset
    }
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    format!("| {} |", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

fn header(cells: impl Iterator<Item = String>) -> [String; 2] {
    let cells: Vec<String> = cells.collect();
    let rule = format!("|{}", "---|".repeat(cells.len()));
    [line(cells), rule]
}
