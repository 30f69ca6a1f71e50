//! Loads as comma-separated values: one row a layer, no header; blank lines are skipped.

use super::numbers::Numbers;
use super::{LoadHistory, brief};

pub fn read(bytes: &[u8]) -> Result<LoadHistory, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut numbers = Numbers::new();
    let (mut rows, mut experts) = (0, 0);
    for (line, row) in (1..).zip(text.lines()) {
        if row.trim().is_empty() {
            continue;
        }
        let before = numbers.len();
        for (column, field) in (1..).zip(row.split(',')) {
            let field = field.trim();
            let bad = |_| format!("line {line}, column {column}: {:?} is not a number", brief(field));
            match field.parse() {
                Ok(count) => numbers.push_count(count),
                Err(_) => numbers.push_value(field.parse().map_err(bad)?),
            }
        }
        let width = numbers.len() - before;
        if rows > 0 && width != experts {
            return Err(format!("line {line} has {width} columns, the first row has {experts}"));
        }
        (rows, experts) = (rows + 1, width);
    }
    numbers.history(1, rows, experts).map_err(|error| error.to_string())
}

pub fn write(history: &LoadHistory) -> Vec<u8> {
    let layer = |layer: usize| history.row_text(0, layer) + "\n";
    (0..history.layers).map(layer).collect::<String>().into_bytes()
}
