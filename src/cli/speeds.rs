//! `--gpu-speeds`.

use std::path::Path;

use crate::cluster::Cluster;
use crate::error::Error;

/// The speeds of GPUs that an option names: 1,1,0.5, or a file of such numbers, separated by commas or white space.
pub fn read(given: &str) -> Result<Vec<f64>, Error> {
    if let Some(speeds) = numbers(given) {
        return Ok(speeds);
    }
    let refuse = |what: String| {
        let rule = format!("is neither a list of numbers, as 1,1,0.5, nor a file of them: {what}");
        Error::invalid("gpu_speeds", given, rule)
    };
    let text = std::fs::read_to_string(Path::new(given)).map_err(|error| refuse(error.to_string()))?;
    let wrong = || {
        let words = words(&text);
        words.into_iter().find(|word| word.parse::<f64>().is_err()).unwrap_or("it is empty").to_string()
    };
    numbers(&text).ok_or_else(|| refuse(wrong()))
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).collect()
}

/// All numbers of a text, if it has nothing else.
fn numbers(text: &str) -> Option<Vec<f64>> {
    let numbers: Vec<f64> = words(text).into_iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    (!numbers.is_empty()).then_some(numbers)
}

/// A row about GPUs of unequal speed, where they are.
pub fn row(cluster: &Cluster) -> Option<(&'static str, String)> {
    let speeds = cluster.gpu_speeds();
    let gone = speeds.iter().filter(|speed| **speed == 0.0).count();
    let slow = speeds.iter().filter(|speed| **speed < 1.0).count() - gone;
    let least = speeds.iter().copied().filter(|speed| *speed > 0.0).fold(1.0, f64::min);
    let gone = if gone > 0 { format!(", {gone} gone") } else { String::new() };
    let text =
        format!("{slow} of {} GPUs slower, {least} at least{gone}; loads are over speed", speeds.len());
    (!cluster.has_equal_speeds()).then_some(("GPU speeds", text))
}
