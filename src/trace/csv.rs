//! Loads as comma-separated values: a row a layer, or rows of layer, expert and count. Blank lines are skipped.

use super::numbers::Numbers;
use super::sparse::{Sparse, as_they_are};
use super::{LoadFormat, LoadHistory, brief};
use crate::error::ParseError;
use crate::loads::{MAX_EXPERTS, MAX_LAYERS};

/// The columns of rows, in order.
const ROWS: [&str; 3] = ["layer_id", "expert_id", "count"];

/// The head of a column of a table, before the number of the expert.
const EXPERT: &str = "expert_";

/// Said where a first line is neither numbers nor a header.
const FORMS: &str =
    "a csv file has a row of loads for each layer, or rows under the header layer_id,expert_id,count";

pub fn read(bytes: &[u8], format: LoadFormat) -> Result<LoadHistory, ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ParseError::not("UTF-8", error))?;
    let lines = || (1..).zip(text.lines()).filter(|(_, row)| !row.trim().is_empty());
    let first = lines().next().map_or("", |(_, row)| row);
    let separates = |other: &char| first.trim().contains(*other) && !first.contains(',');
    if let Some(other) = [';', '\t'].into_iter().find(separates) {
        let reason = format!("its columns are separated by {other:?}, and those of a csv file by commas");
        return Err(ParseError::syntax(reason));
    }
    let heads: Vec<&str> = first.split(',').take(4).map(str::trim).collect();
    let columns = ROWS.map(|name| heads.iter().position(|head| head.eq_ignore_ascii_case(name)));
    let titled = first
        .split(',')
        .enumerate()
        .all(|(at, head)| head.trim().strip_prefix(EXPERT).is_some_and(|number| number.parse() == Ok(at)));
    match (columns, format) {
        ([Some(layer), Some(expert), Some(count)], LoadFormat::Csv | LoadFormat::Rows)
            if heads.len() == 3 =>
        {
            rows(lines().skip(1), [layer, expert, count], bytes.len())
        }
        (_, LoadFormat::Rows) => rows(lines(), [0, 1, 2], bytes.len()),
        _ if titled => table(lines().skip(1)),
        (_, LoadFormat::Csv) if !first.is_empty() && could_be_rows(lines()) => {
            let reason = "it could be two things: loads of three experts, a row for each layer, or rows of layer, expert and \
                          count; a first line expert_0,expert_1,expert_2 or layer_id,expert_id,count tells, or the format \
                          table or rows";
            Err(ParseError::content(reason))
        }
        _ => table(lines()),
    }
}

/// Whether all rows are three whole numbers that can be a layer, an expert and a count.
fn could_be_rows<'a>(mut lines: impl Iterator<Item = (usize, &'a str)>) -> bool {
    lines.all(|(_, row)| {
        let fields: Option<Vec<u64>> =
            row.split(',').take(4).map(|field| field.trim().parse().ok()).collect();
        let most = [MAX_LAYERS as u64, MAX_EXPERTS as u64];
        fields.is_some_and(|fields| fields.len() == 3 && fields[0] < most[0] && fields[1] < most[1])
    })
}

fn table<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<LoadHistory, ParseError> {
    let mut numbers = Numbers::new();
    let (mut rows, mut experts) = (0, 0);
    for (line, row) in lines {
        let before = numbers.len();
        for (column, field) in (1..).zip(row.split(',')) {
            numbers.check_room().map_err(ParseError::content)?;
            let field = field.trim();
            let bad = || {
                let forms = if rows == 0 { format!("; {FORMS}") } else { String::new() };
                let field = brief(field);
                ParseError::syntax(format!("line {line}, column {column}: {field:?} is not a number{forms}"))
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
    Ok(LoadHistory::new(1, rows, experts, numbers)?)
}

/// Rows whose layer, expert and count are in these columns.
fn rows<'a>(
    lines: impl Iterator<Item = (usize, &'a str)>,
    columns: [usize; 3],
    length: usize,
) -> Result<LoadHistory, ParseError> {
    let mut loads = Sparse::default();
    for (line, row) in lines {
        let fields: Vec<&str> = row.split(',').take(4).map(str::trim).collect();
        if fields.len() != 3 {
            return Err(ParseError::content(format!(
                "line {line} does not have the 3 columns {}",
                ROWS.join(",")
            )));
        }
        let number = |which: usize| {
            let field = fields[columns[which]];
            field.parse::<u64>().map_err(|_| {
                let (name, field) = (ROWS[which], brief(field));
                ParseError::syntax(format!("line {line}: {name} {field:?} is not a whole number"))
            })
        };
        let added = loads.add(0, number(0)?, number(1)?, number(2)?);
        added.map_err(|reason| ParseError::content(format!("line {line}: {reason}")))?;
    }
    loads.history(length, as_they_are)
}

pub fn write(history: &LoadHistory) -> Vec<u8> {
    // Three columns of whole numbers could be rows too.
    let head = match history.experts {
        3 => format!("{EXPERT}0,{EXPERT}1,{EXPERT}2\n"),
        _ => String::new(),
    };
    let layer = |layer: usize| history.row_text(0, layer) + "\n";
    (head + &(0..history.layers).map(layer).collect::<String>()).into_bytes()
}

pub fn write_rows(history: &LoadHistory, counts: &[u64]) -> Vec<u8> {
    let row = |(at, count): (usize, &u64)| {
        format!("{},{},{count}\n", history.layer_ids[at / history.experts], at % history.experts)
    };
    let rows: String = counts.iter().enumerate().map(row).collect();
    format!("{}\n{rows}", ROWS.join(",")).into_bytes()
}
