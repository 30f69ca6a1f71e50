//! The results of one run of the suite, as a record file holds them: `eplb-bench/1`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::trace::read_file;
use crate::{Error, PLAN_VERSION, ParseError};

/// The format's name and version.
const FORMAT: &str = "eplb-bench/1";

/// One machine's run.
#[derive(Debug, Deserialize, Serialize)]
pub struct Record {
    pub format: String,
    /// Of the crate.
    pub version: String,
    /// Plans of different plan versions may differ. Records from before there were any have none.
    #[serde(default)]
    pub plan_version: Option<u32>,
    /// Operating system and processor family it was built for.
    pub platform: String,
    pub devices: Vec<Device>,
}

/// One device's run.
#[derive(Debug, Deserialize, Serialize)]
pub struct Device {
    pub name: String,
    pub backend: String,
    pub kind: String,
    /// A driver that runs the shaders on the processor: its times say nothing of a GPU.
    pub software: bool,
    pub driver: String,
    pub driver_info: String,
    pub features: Vec<String>,
    pub limits: BTreeMap<String, u64>,
    /// Why there is nothing more, or less than there should be.
    pub error: Option<String>,
    /// Until the device was ready for its first plan.
    pub open_ms: Option<f64>,
    pub cases: Vec<Case>,
    pub batch: Option<BatchRecord>,
    /// Device memory held for the largest case; none on the CPU backend.
    pub device_bytes: Option<u64>,
}

/// Plans of one case of the suite.
#[derive(Debug, Deserialize, Serialize)]
pub struct Case {
    /// Layers, experts, cluster.
    pub case: String,
    pub preset: String,
    pub fingerprint: String,
    /// The first plan of the case, end to end, and the median of later ones.
    pub first_ms: f64,
    pub later_ms: f64,
    /// By the device's own clock, where it has one.
    pub stages_ms: Option<BTreeMap<String, f64>>,
}

/// A fixed amount of work, the same on every device: see `profile::Batch`. The CPU backend does it
/// on one thread.
#[derive(Debug, Deserialize, Serialize)]
pub struct BatchRecord {
    pub candidates: u64,
    pub total_ms: f64,
    pub stages_ms: Option<BTreeMap<String, f64>>,
    /// Candidates over the time of stage 5.
    pub candidates_per_second: Option<f64>,
}

impl Record {
    /// A record of these devices, made by this program.
    pub fn new(devices: Vec<Device>) -> Self {
        Self {
            format: FORMAT.to_string(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            plan_version: Some(PLAN_VERSION),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            devices,
        }
    }

    /// Reads a record file.
    ///
    /// # Errors
    /// [`Error::Read`] where it cannot be read, [`Error::Parse`] with what is missing or damaged.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |source: ParseError| Error::parse(path, source);
        let bytes = read_file(path)?;
        let record: Self =
            serde_json::from_slice(&bytes).map_err(|error| refuse(ParseError::not("a record", error)))?;
        if record.format != FORMAT {
            let reason = format!("format {} is not {FORMAT}", record.format);
            return Err(refuse(ParseError::content(reason)));
        }
        for case in record.devices.iter().flat_map(|device| &device.cases) {
            let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            if case.fingerprint.len() != 16 || !case.fingerprint.chars().all(hexadecimal) {
                return Err(refuse(ParseError::damaged(format!(
                    "damaged: fingerprint {} is not 16 hexadecimal digits",
                    case.fingerprint
                ))));
            }
        }
        Ok(record)
    }

    /// The record as JSON, in lines.
    pub fn text(&self) -> String {
        // Strings, numbers and lists alone: nothing that could be refused.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Device {
    /// Name, backend and what kind of device it is.
    pub fn label(&self) -> String {
        let kind = if self.software { "software driver" } else { self.kind.as_str() };
        let driver = [self.driver.as_str(), self.driver_info.as_str()].map(str::trim);
        let parts = [kind, driver[0], driver[1]].into_iter().filter(|part| !part.is_empty());
        format!("{} ({}): {}", self.name, self.backend, parts.collect::<Vec<_>>().join(", "))
    }
}
