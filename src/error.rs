//! The one error type. Every message names the field, its value and the rule it broke.

use std::path::PathBuf;

/// What can go wrong between a user's input and a plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A number or a shape that breaks a rule: `num_replicas 289 is not a multiple of num_gpus 32`.
    #[error("{field} {value} {rule}")]
    Invalid {
        /// The name of the field, as the API or the command line spells it.
        field: String,
        /// The offending value, as given.
        value: String,
        /// The rule it breaks, worded to follow the value.
        rule: String,
    },
    /// A plan that does not fit its loads or its cluster; see [`crate::check`].
    #[error("plan is not valid: layer {layer}: {rule}")]
    InvalidPlan {
        /// The first layer that breaks the rule.
        layer: usize,
        /// The rule, with the slot, expert or node it names.
        rule: String,
    },
    /// A file that cannot be read as what it should be.
    #[error("{}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong in it, with the place where one is known.
        reason: String,
    },
    /// A file that cannot be written; the previous file of that name, if any, is untouched.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// No adapter fits the choice of device.
    #[error("device {wanted} is not here; found: {}", found_list(found))]
    NoDevice {
        /// The choice as given.
        wanted: String,
        /// Every adapter found, by name.
        found: Vec<String>,
    },
    /// The device refused or lost the work.
    #[error("device {device} failed: {reason}")]
    Device {
        /// The adapter's name.
        device: String,
        /// What the driver or wgpu said.
        reason: String,
    },
}

fn found_list(found: &[String]) -> String {
    if found.is_empty() { "none".to_string() } else { found.join(", ") }
}

impl Error {
    /// An [`Error::Invalid`] from displayable parts.
    pub(crate) fn invalid(field: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Error::Invalid { field: field.into(), value: value.to_string(), rule: rule.into() }
    }
}
