//! Loads as comma-separated values: one row a layer, no header; blank lines are skipped.

use super::numbers::Numbers;
use super::{LoadHistory, brief};
use crate::error::ParseError;

pub fn read(bytes: &[u8]) -> Result<LoadHistory, ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ParseError::not("UTF-8", error))?;
    let mut numbers = Numbers::new();
    let (mut rows, mut experts) = (0, 0);
    for (line, row) in (1..).zip(text.lines()) {
        if row.trim().is_empty() {
            continue;
        }
        let before = numbers.len();
        for (column, field) in (1..).zip(row.split(',')) {
            let field = field.trim();
            let bad = || {
                ParseError::syntax(format!(
                    "line {line}, column {column}: {:?} is not a number",
                    brief(field)
                ))
            };
            match field.parse() {
                Ok(count) => numbers.push_count(count),
                Err(_) => numbers.push_value(field.parse().map_err(|_| bad())?),
            }
        }
        let width = numbers.len() - before;
        if rows > 0 && width != experts {
            let reason = format!("line {line} has {width} columns, the first row has {experts}");
            return Err(ParseError::content(reason));
        }
        (rows, experts) = (rows + 1, width);
    }
    Ok(numbers.history(1, rows, experts)?)
}

pub fn write(history: &LoadHistory) -> Vec<u8> {
    let layer = |layer: usize| history.row_text(0, layer) + "\n";
    (0..history.layers).map(layer).collect::<String>().into_bytes()
}
