//! The cells of a heat map, and what lies over it: a table of their numbers, which the pointer and the keyboard show.
//!
//! A page has thousands of cells. Each stands there once, as its number in a cell of the table: the style sheet says its row
//! and column, near the pointer for one cell and at the foot of the window for a row.

use super::text::escaped;

/// A cell: its class, and its number as text. One without a class is not drawn: the ground is seen there, where there is one.
pub type Cell = (&'static str, String);

/// A row of cells.
pub struct CellRow {
    /// The text to the left of the row. It is left out where rows are too narrow for it.
    pub label: String,
    /// The text before its numbers: letters, digits, blanks and `()%.:`.
    pub name: String,
    pub cells: Vec<Cell>,
}

/// The cells of a heat map.
pub struct HeatMap {
    pub rows: Vec<CellRow>,
    /// Whether a column is a GPU, by number from 0: numbers have its name before them then.
    pub of_gpus: bool,
    /// Left, top, width and height of all, in the units of the view box.
    pub area: [f64; 4],
}

impl HeatMap {
    /// The layer over the chart on a page. `group` is that of its radio buttons, `place` where it lies.
    pub fn table(&self, group: &str, place: &str) -> String {
        let class = if self.of_gpus { "grid gpus" } else { "grid" };
        let mut text = format!("<table class=\"{class}\" style=\"--n:{};{place}\">", self.rows.len());
        for (at, row) in self.rows.iter().enumerate() {
            text += &format!(
                "<tbody style=\"--i:{at};--r:'{} '\"><tr><th scope=\"rowgroup\"><input type=\"radio\" name=\"{group}\" \
                 aria-labelledby=\"{group}-{at}\"/></th></tr><tr id=\"{group}-{at}\">",
                escaped(&row.name)
            );
            for (_, says) in &row.cells {
                match says.as_str() {
                    "" => text += "<td></td>",
                    says => text += &format!("<td><b>{}</b></td>", escaped(says)),
                }
            }
            text += "</tr></tbody>";
        }
        text + "</table>"
    }

    /// The layer over the chart in a file of its own: cells that are not seen, and have titles.
    pub fn titles(&self) -> String {
        let [left, top, width, height] = self.area;
        let columns = self.rows.iter().map(|row| row.cells.len()).max().unwrap_or(0).max(1) as f64;
        let (wide, high) = (width / columns, height / self.rows.len().max(1) as f64);
        let mut text = String::from("<g class=\"over\">");
        for (y, row) in self.rows.iter().enumerate() {
            for (x, (_, says)) in row.cells.iter().enumerate().filter(|(_, (_, says))| !says.is_empty()) {
                let gpu = if self.of_gpus { format!("G{x} ") } else { String::new() };
                text += &format!(
                    "<rect x=\"{:.2}\" y=\"{:.2}\" width=\"{wide:.2}\" height=\"{high:.2}\"><title>{}</title></rect>",
                    left + x as f64 * wide,
                    top + y as f64 * high,
                    escaped(&format!("{} {gpu}{says}", row.name))
                );
            }
        }
        text + "</g>"
    }
}
