//! Heat maps: colours as paths, under the numbers of their cells.

use super::cells::{CellRow, HeatMap};
use super::svg::{BOTTOM, Chart, LEFT, NARROW, RIGHT, TOP, axis_names, outline, spread, x_labels};
use super::text::escaped;

/// Rows of cells over a ground of this class. `of_gpus`: a column is a GPU, by number from 0.
pub fn heat_map(
    rows: Vec<CellRow>,
    columns: &[String],
    axes: (&str, &str),
    ground: Option<&str>,
    of_gpus: bool,
) -> Chart {
    let count = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0).max(1);
    let width = NARROW - LEFT - RIGHT;
    let step = (260.0 / rows.len().max(1) as f64).clamp(2.0, 14.0);
    let height = step * rows.len() as f64;
    let mut body = String::new();
    if let Some(class) = ground {
        body += &format!("<path class=\"{class}\" d=\"M{LEFT} {TOP}h{width}v{height:.1}h-{width}z\"/>");
    }
    body += &format!(
        "<g class=\"cells\" transform=\"translate({LEFT} {:.2}) scale({:.4} {step:.4})\">",
        TOP + step / 2.0,
        width / count as f64
    );
    let mut classes: Vec<&str> = rows.iter().flat_map(|row| row.cells.iter().map(|cell| cell.0)).collect();
    classes.sort_unstable();
    classes.dedup();
    for class in classes.into_iter().filter(|class| !class.is_empty()) {
        body += &format!("<path class=\"{class}\" d=\"{}\"/>", runs_of(class, &rows));
    }
    body += "</g>";
    body += &outline(width, height);
    for (at, label) in spread(rows.len(), (height / 14.0) as usize) {
        let y = TOP + (at as f64 + 0.5) * step + 3.5;
        body += &format!(
            "<text x=\"{}\" y=\"{y:.1}\" class=\"end\">{}</text>",
            LEFT - 4.0,
            escaped(&rows[label].label)
        );
    }
    body += &x_labels(columns, width, height, 0.5);
    body += &axis_names(axes, width, height);
    let mut chart = Chart::of((NARROW, TOP + height + BOTTOM), body);
    chart.grid = Some(HeatMap { rows, of_gpus, area: [LEFT, TOP, width, height] });
    chart
}

/// The cells of a class as strokes from left to right, one for those beside each other.
fn runs_of(class: &str, rows: &[CellRow]) -> String {
    let mut path = String::new();
    for (y, row) in rows.iter().enumerate() {
        let mut x = 0;
        for run in row.cells.chunk_by(|a, b| a.0 == b.0) {
            if run[0].0 == class {
                path += &format!("M{x} {y}h{}", run.len());
            }
            x += run.len();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_a_class_beside_each_other_are_one_stroke() {
        let row = |classes: &[&'static str]| CellRow {
            label: String::new(),
            name: String::new(),
            cells: classes.iter().map(|&class| (class, String::new())).collect(),
        };
        let rows = [row(&["a", "a", "b", "a"]), row(&["", "a", "b", "b"])];
        assert_eq!(runs_of("a", &rows), "M0 0h2M3 0h1M1 1h1");
        assert_eq!(runs_of("b", &rows), "M2 0h1M2 1h2");
    }
}
