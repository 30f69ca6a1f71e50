//! Tables as they come: Markdown for people, or one JSON object a row.

use serde_json::{Map, Value, json};

/// Lines, printed as they come.
pub struct Report {
    /// All of them.
    pub lines: Vec<String>,
    /// Rows as JSON objects, and nothing else.
    json: bool,
    title: String,
    columns: Vec<String>,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { lines: Vec::new(), json, title: String::new(), columns: Vec::new() }
    }

    /// A line for people.
    pub fn line(&mut self, line: String) {
        if !self.json {
            self.put(line);
        }
    }

    /// A row whose JSON form is its cells by column.
    pub fn row(&mut self, cells: &[String]) {
        let by_column = self.columns.iter().zip(cells);
        let object: Map<_, _> = by_column.map(|(name, cell)| (name.clone(), json!(cell))).collect();
        self.entry(cells, object.into());
    }

    /// A row whose JSON form has numbers.
    pub fn entry(&mut self, cells: &[String], mut object: Value) {
        if self.json {
            object["table"] = json!(self.title);
            self.put(object.to_string());
        } else {
            self.put(format!("| {} |", cells.join(" | ")));
        }
    }

    /// An object that is no row.
    pub fn record(&mut self, object: Value) {
        if self.json {
            self.put(object.to_string());
        }
    }

    pub fn table(&mut self, title: &str, columns: &[String]) {
        (self.title, self.columns) = (title.to_string(), columns.to_vec());
        for line in ["", &format!("### {title}"), ""] {
            self.line(line.to_string());
        }
        self.line(format!("| {} |", columns.join(" | ")));
        self.line(format!("|{}", "---|".repeat(columns.len())));
    }

    fn put(&mut self, line: String) {
        println!("{line}");
        self.lines.push(line);
    }
}

/// Names of columns.
pub fn columns<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).to_vec()
}
