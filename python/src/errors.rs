//! The core's errors as Python's.

use eplb_wgpu::Error;
use pyo3::PyErr;
use pyo3::exceptions::PyRuntimeError;

pyo3::import_exception!(eplb_wgpu._errors, InvalidError);

/// An `InvalidError`, a `ValueError`, for what the caller can mend; `RuntimeError` for a device that fails.
pub fn raise(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Invalid { field, value, rule } => InvalidError::new_err((field, value, rule)),
        Error::InvalidPlan { layer, rule } => {
            InvalidError::new_err(("plan", format!("of layer {layer}:"), rule))
        }
        Error::NoDevice { wanted, found } => {
            let found = if found.is_empty() { "none".into() } else { found.join(", ") };
            InvalidError::new_err(("device", wanted, format!("is not here; found: {found}")))
        }
        _ => PyRuntimeError::new_err(message),
    }
}

/// An error of these bindings, worded as the core words its own.
pub fn invalid(field: &str, value: impl ToString, rule: impl Into<String>) -> PyErr {
    raise(Error::Invalid { field: field.into(), value: value.to_string(), rule: rule.into() })
}
