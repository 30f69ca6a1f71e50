//! Curves over the windows of a trace, and the chart of an advice.

use std::path::Path;

use serde_json::Value;

use super::data::{Facts, bytes_text};
use super::page::Section;
use super::svg::{Line, Table, lines};
use crate::cli::mean_and_most;
use crate::trace::{Window, read_file};
use crate::{Error, ParseError, check};

/// The most windows of a chart: of longer traces some are left out, evenly.
const MOST: usize = 240;

/// The classes of lines, in turn.
const CLASSES: [&str; 7] = ["s3", "s1", "s2", "s4", "s5", "s0", "s6"];

/// The balancedness of each placement on every window of the load file, where there are several.
pub fn windows(facts: &Facts) -> Result<Option<Section>, Error> {
    let count = facts.history.windows();
    if count < 2 {
        return Ok(None);
    }
    let shown: Vec<usize> = (0..count).step_by(count.div_ceil(MOST)).collect();
    let mut all: Vec<Line> = facts
        .views
        .iter()
        .map(|view| Line { name: view.name.clone(), class: view.class.into(), values: Vec::new() })
        .collect();
    for &window in &shown {
        let loads = facts.history.loads(Window::Index(window))?;
        for (line, view) in all.iter_mut().zip(&facts.views) {
            let gpus = check::gpu_loads(&loads, &view.on.cluster, &view.map)?;
            let (mut means, mut most) = (0.0, 0.0);
            for row in gpus.chunks(view.on.cluster.num_gpus()) {
                let (mean, heaviest) = mean_and_most(row);
                (means, most) = (means + mean, most + heaviest);
            }
            line.values.push((most > 0.0).then(|| (means / most).min(1.0)));
        }
    }
    let columns: Vec<String> = shown.iter().map(usize::to_string).collect();
    let chart = lines(&all, &columns, ("window", "balancedness"))
        .with_name(
            "windows",
            "Each placement on each window of the loads",
            "Nothing is planned anew in between.",
        )
        .with_table(table_of("window", &columns, &all));
    Ok(Some(Section { title: "Over time", text: vec![], commands: vec![], key: vec![], charts: vec![chart] }))
}

fn table_of(first: &str, columns: &[String], lines: &[Line]) -> Table {
    let mut table = Table::new(&[first]);
    table.head.extend(lines.iter().map(|line| line.name.clone()));
    let cell =
        |value: Option<&Option<f64>>| value.copied().flatten().map_or("-".into(), |v| format!("{v:.4}"));
    table.rows = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            std::iter::once(name.clone()).chain(lines.iter().map(|line| cell(line.values.get(at)))).collect()
        })
        .collect();
    table
}

/// An object that this command printed before.
fn read(path: &Path, command: &str) -> Result<(Value, Vec<Value>), Error> {
    let text = read_file(path)?;
    let refuse =
        || Error::parse(path, ParseError::content(format!("is not what eplb {command} --json prints")));
    let root: Value = serde_json::from_slice(&text).map_err(|_| refuse())?;
    let rows = root["rows"].as_array().filter(|rows| !rows.is_empty()).ok_or_else(refuse)?.clone();
    Ok((root, rows))
}

/// The curves of a replay.
pub fn replay(path: &Path) -> Result<Section, Error> {
    let (root, rows) = read(path, "replay")?;
    let scores = |row: &Value| -> Vec<Option<f64>> {
        row["balancedness"]["windows"].as_array().into_iter().flatten().map(Value::as_f64).collect()
    };
    let count = rows.iter().map(|row| scores(row).len()).max().unwrap_or(0);
    let step = count.div_ceil(MOST).max(1);
    let line = |(at, row): (usize, &Value)| Line {
        name: row["name"].as_str().unwrap_or("?").to_string(),
        class: CLASSES[at % CLASSES.len()].into(),
        values: scores(row).into_iter().step_by(step).collect(),
    };
    let all: Vec<Line> = rows.iter().enumerate().map(line).collect();
    // The first window is planned on alone.
    let columns: Vec<String> = (0..count).step_by(step).map(|at| (at + 1).to_string()).collect();
    if columns.is_empty() {
        return Err(Error::parse(path, ParseError::content("holds no window's balancedness")));
    }
    let mut means = Table::new(&["plans", "balancedness", "worst window", "moved", "ms a plan"]);
    let number =
        |value: &Value, digits: usize| value.as_f64().map_or("-".into(), |v| format!("{v:.digits$}"));
    means.rows = rows
        .iter()
        .map(|row| {
            let moved = row["moved"].as_f64().map_or("-".into(), |share| format!("{:.1} %", share * 100.0));
            vec![
                row["name"].as_str().unwrap_or("?").to_string(),
                number(&row["balancedness"]["mean"], 4),
                number(&row["balancedness"]["worst"], 4),
                moved,
                number(&row["plan_ms"], 1),
            ]
        })
        .collect();
    let chart = lines(&all, &columns, ("window", "balancedness"))
        .with_name(
            "replay",
            "Each way of planning, scored on the window after",
            "Higher is better; 1 is even.",
        )
        .with_table(table_of("window", &columns, &all));
    let text = vec![
        format!("Replay of {}.", root["trace"].as_str().unwrap_or("a trace")),
        "Every plan is scored on the window after those it was made from. The oracle's is made for that window, which nobody \
         knows before. Oracle and greedy (DeepSeek's rule, on the last window) may move all. Moved: slots, at each new plan."
            .into(),
    ];
    Ok(Section {
        title: "Replay",
        text,
        commands: vec![],
        key: vec![],
        charts: vec![chart.with_summary(means)],
    })
}

/// The gain and the cost of each number of replicas.
fn costs(rows: &[Value]) -> Table {
    let mut table = Table::new(&["replicas", "nodes", "heaviest / mean", "time", "memory a GPU"]);
    table.rows = rows
        .iter()
        .map(|row| {
            let number = |field: &str, digits: usize| {
                row[field].as_f64().map_or("-".into(), |value| format!("{value:.digits$}"))
            };
            // The gain is on the time without balancing.
            let time =
                row["gain"].as_f64().map_or("-".into(), |gain| format!("{:.1} %", (1.0 - gain) * 100.0));
            let memory = match row["more_bytes_per_gpu"].as_u64() {
                Some(bytes @ 1..) => format!("+{}", bytes_text(bytes.into())),
                _ => "-".into(),
            };
            vec![number("replicas", 0), number("nodes", 0), number("max_over_mean", 3), time, memory]
        })
        .collect();
    table
}

/// The chart of an advice.
pub fn advice(path: &Path) -> Result<Section, Error> {
    let (root, rows) = read(path, "advise")?;
    let mut replicas: Vec<u64> = rows.iter().filter_map(|row| row["replicas"].as_u64()).collect();
    let mut nodes: Vec<u64> = rows.iter().filter_map(|row| row["nodes"].as_u64()).collect();
    [&mut replicas, &mut nodes].into_iter().for_each(|list| {
        list.sort_unstable();
        list.dedup();
    });
    let values = |nodes: u64, field: &str| -> Vec<Option<f64>> {
        let row = |replicas: &u64| {
            rows.iter().find(|row| row["nodes"] == nodes && row["replicas"] == *replicas)?[field].as_f64()
        };
        replicas.iter().map(row).collect()
    };
    let mut all = Vec::new();
    for (at, &nodes) in nodes.iter().enumerate() {
        let word = if nodes == 1 { "node" } else { "nodes" };
        let class = CLASSES[at % CLASSES.len()];
        for (name, class, field) in
            [("plan", class.to_string(), "balancedness"), ("limit", format!("{class} limit"), "limit")]
        {
            all.push(Line { name: format!("{name}, {nodes} {word}"), class, values: values(nodes, field) });
        }
    }
    let columns: Vec<String> = replicas.iter().map(u64::to_string).collect();
    if columns.is_empty() {
        return Err(Error::parse(path, ParseError::content("holds no number of replicas")));
    }
    let chart = lines(&all, &columns, ("replicas of a layer", "balancedness"))
        .with_name("advice", "What replicas bring", "Dashed: what no plan passes.")
        .with_table(table_of("replicas", &columns, &all))
        .with_summary(costs(&rows));
    let lines_of = |field: &str| root[field].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut text: Vec<String> = lines_of("says").map(str::to_string).collect();
    let commands = root["command"].as_str().into_iter().chain(lines_of("other_commands"));
    let commands = commands.map(str::to_string).collect();
    text.push("Time in the table: of a step, as a part of that without balancing. Memory: beyond the fewest slots, all layers.".into());
    Ok(Section { title: "How many replicas", text, commands, key: vec![], charts: vec![chart] })
}
