//! Errors of the library, as Python's errors.

use eplb_wgpu::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError};

pyo3::import_exception!(eplb_wgpu._errors, InvalidError);

/// An error of the core, or one of these bindings in its words.
pub enum Failure {
    Core(Error),
    Invalid { field: String, value: String, rule: String },
}

impl Failure {
    pub fn invalid(field: &str, value: impl ToString, rule: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), value: value.to_string(), rule: rule.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<Failure> for PyErr {
    /// An `InvalidError`, a `ValueError`, for what the caller can mend; `RuntimeError` for a device that fails.
    fn from(failure: Failure) -> Self {
        let error = match failure {
            Failure::Invalid { field, value, rule } => return InvalidError::new_err((field, value, rule)),
            Failure::Core(error) => error,
        };
        let message = error.to_string();
        match error {
            Error::Invalid { field, value, rule, .. } => InvalidError::new_err((field, value, rule)),
            Error::InvalidPlan { layer, rule, .. } => {
                InvalidError::new_err(("plan", format!("of layer {layer}:"), rule))
            }
            Error::NoDevice { wanted, found, .. } => {
                let found = if found.is_empty() { "none".into() } else { found.join(", ") };
                InvalidError::new_err(("device", wanted, format!("is not here; found: {found}")))
            }
            Error::Parse { path, source, .. } => InvalidError::new_err((
                "file",
                path.display().to_string(),
                format!("cannot be read: {source}"),
            )),
            Error::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                PyFileNotFoundError::new_err(message)
            }
            Error::Read { .. } | Error::Write { .. } => PyOSError::new_err(message),
            _ => PyRuntimeError::new_err(message),
        }
    }
}

/// The core's error as Python's.
pub fn raise(error: Error) -> PyErr {
    Failure::Core(error).into()
}

/// An error of these bindings, worded as the core words its own.
pub fn invalid(field: &str, value: impl ToString, rule: impl Into<String>) -> PyErr {
    Failure::invalid(field, value, rule).into()
}
