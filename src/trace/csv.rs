//! Loads as comma-separated values: one row a layer, no header; blank lines are skipped.

use super::LoadHistory;

pub fn read(bytes: &[u8]) -> Result<LoadHistory, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let mut values: Vec<f64> = Vec::new();
    let mut counts: Option<Vec<u64>> = Some(Vec::new());
    let (mut rows, mut experts) = (0, 0);
    for (line, row) in (1..).zip(text.lines()) {
        if row.trim().is_empty() {
            continue;
        }
        let before = values.len();
        for (column, field) in (1..).zip(row.split(',')) {
            let field = field.trim();
            let bad = |_| format!("line {line}, column {column}: {field:?} is not a number");
            let value: f64 = field.parse().map_err(bad)?;
            values.push(value);
            match (field.parse::<u64>(), &mut counts) {
                (Ok(count), Some(all)) => all.push(count),
                _ => counts = None,
            }
        }
        let width = values.len() - before;
        if rows > 0 && width != experts {
            return Err(format!("line {line} has {width} columns, the first row has {experts}"));
        }
        (rows, experts) = (rows + 1, width);
    }
    match counts {
        Some(counts) => LoadHistory::from_counts(1, rows, experts, counts),
        None => LoadHistory::from_values(1, rows, experts, values),
    }
    .map_err(|error| error.to_string())
}

pub fn write(history: &LoadHistory) -> Vec<u8> {
    let row = |row: &[f64]| row.iter().map(f64::to_string).collect::<Vec<_>>().join(",") + "\n";
    history.values.chunks_exact(history.experts).map(row).collect::<String>().into_bytes()
}
