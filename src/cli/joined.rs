//! Several load files as the windows of one plan, with errors that name files and `--weights`.

use std::path::PathBuf;

use crate::{Error, Loads, ParseError};

/// The loads of all files, each by its weight.
pub fn join(files: &[PathBuf], windows: &[Loads], weights: Option<&[f64]>) -> Result<Loads, Error> {
    if let Some(weights) = weights {
        check_weights(weights, files.len())?;
    }
    let shape = |loads: &Loads| (loads.layers(), loads.experts());
    let other = files.iter().zip(windows).find(|(_, window)| shape(window) != shape(&windows[0]));
    if let Some((file, window)) = other {
        let (first, (layers, experts)) = (files[0].display(), shape(&windows[0]));
        let (these, of_each) = shape(window);
        let offer =
            if of_each == experts { "; --layers A..B reads the same layers of all files" } else { "" };
        let reason = format!(
            "its {these} layers x {of_each} experts are not those of {first}, {layers} x {experts}{offer}"
        );
        return Err(Error::parse(file, ParseError::content(reason)));
    }
    let equal = vec![1.0; windows.len()];
    Loads::from_windows(windows, weights.unwrap_or(&equal))
}

fn check_weights(weights: &[f64], files: usize) -> Result<(), Error> {
    let all = || weights.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
    let refuse = |value: String, rule: String| Err(Error::invalid("--weights", value, rule));
    if weights.len() != files {
        return refuse(all(), format!("are not as many as the {files} load files: one for each is needed"));
    }
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        return refuse(weight.to_string(), "is not a finite number, at least 0".into());
    }
    if weights.iter().all(|weight| *weight == 0.0) {
        return refuse(all(), "are all 0: one must be above".into());
    }
    Ok(())
}
