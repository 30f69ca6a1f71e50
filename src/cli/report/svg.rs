//! Charts as SVG text, each with the numbers that it shows as a table.
//!
//! Colours are classes, which `style.css` sets for a light and a dark page.

use super::cells::HeatMap;
use super::text::escaped;

/// A chart and its numbers.
pub struct Chart {
    /// Its name in file names.
    pub name: String,
    pub title: String,
    /// The chart, in a sentence.
    pub note: String,
    /// Width and height of the view box.
    pub(super) size: (f64, f64),
    pub(super) body: String,
    pub table: Table,
    /// The stops of the keyboard.
    pub marks: Marks,
    /// The cells, where it is a heat map.
    pub(super) grid: Option<HeatMap>,
    /// A short table that is always seen.
    pub summary: Table,
    /// Whether it takes the whole width of a page.
    pub wide: bool,
}

/// The columns of a chart, which the arrow keys go through: one stop for the tab key a chart, whatever its size.
#[derive(Default)]
pub struct Marks {
    /// Left, top, width and height of all of them, in the units of the view box.
    area: [f64; 4],
    /// The numbers of each, as text.
    says: Vec<String>,
}

/// Numbers as text, row by row.
#[derive(Default)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// A line of a chart: its name, its class, and a value a step, where there is one.
pub struct Line {
    pub name: String,
    pub class: String,
    pub values: Vec<Option<f64>>,
}

/// Width of a chart that shares its row, in units of about a pixel: that of a phone.
pub(super) const NARROW: f64 = 340.0;
const WIDE: f64 = 720.0;
/// The room for axes.
pub(super) const LEFT: f64 = 38.0;
pub(super) const TOP: f64 = 22.0;
pub(super) const BOTTOM: f64 = 32.0;
pub(super) const RIGHT: f64 = 10.0;
/// Height of a chart's field.
const HEIGHT: f64 = 180.0;

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&text| text.into()).collect(), rows: Vec::new() }
    }
}

impl Chart {
    pub fn with_name(mut self, name: &str, title: &str, note: &str) -> Self {
        (self.name, self.title, self.note) = (name.into(), title.into(), note.into());
        self
    }

    pub fn with_table(mut self, table: Table) -> Self {
        self.table = table;
        self
    }

    fn with_marks(mut self, area: [f64; 4], says: Vec<String>) -> Self {
        self.marks = Marks { area, says };
        self
    }

    /// The layer that a page has over the chart: a group of radio buttons, which browsers step through by the arrow keys without
    /// any script. They are seen while they have the focus alone, and let the pointer through to the marks below them.
    /// `group` is theirs alone.
    pub fn keys(&self, group: &str) -> String {
        let Marks { area, says } = &self.marks;
        let inner: String = match &self.grid {
            Some(grid) => grid.table(group, &style_of(grid.area, self.size)),
            None if says.is_empty() => return String::new(),
            None => says
                .iter()
                .enumerate()
                .map(|(at, says)| {
                    let input = format!("<input type=\"radio\" name=\"{group}\" style=\"--i:{at}\"/>");
                    format!("<label>{input}<span>{}</span></label>", escaped(says))
                })
                .collect(),
        };
        format!(
            "<div class=\"keys\" role=\"radiogroup\" aria-label=\"Numbers: {}\" style=\"--n:{};{}\">{inner}</div>",
            escaped(&self.title),
            says.len(),
            style_of(*area, self.size)
        )
    }

    pub fn with_summary(mut self, summary: Table) -> Self {
        self.summary = summary;
        self
    }

    pub(super) fn of(size: (f64, f64), body: String) -> Self {
        let (name, title, note) = (String::new(), String::new(), String::new());
        Self {
            name,
            title,
            note,
            size,
            body,
            table: Table::default(),
            marks: Marks::default(),
            grid: None,
            summary: Table::default(),
            wide: size.0 > NARROW,
        }
    }

    /// As an element of a page that holds the style.
    pub fn element(&self) -> String {
        let (width, height) = self.size;
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">{}</svg>",
            escaped(&format!("{}. {}", self.title, self.note)),
            self.body
        )
    }
}

/// One bar a value, from 0 up to the largest or `top`; a dashed line at `mark`, where there is one.
pub fn bars(
    values: &[(f64, String)],
    columns: &[String],
    axes: (&str, &str),
    top: f64,
    mark: Option<f64>,
) -> Chart {
    let width = NARROW - LEFT - RIGHT;
    let most = values.iter().map(|(value, _)| *value).fold(top, f64::max);
    let step = width / values.len().max(1) as f64;
    let y = |value: f64| TOP + HEIGHT * (1.0 - if most > 0.0 { value / most } else { 0.0 });
    let mut body = y_axis(0.0, most, width, mark.is_none()) + "<g class=\"bar\">";
    for (at, (value, says)) in values.iter().enumerate() {
        body += &format!(
            "<path d=\"M{:.1} {:.1}h{:.1}V{}h-{:.1}z\"><title>{}</title></path>",
            LEFT + at as f64 * step,
            y(*value),
            (step * 0.88).max(0.5),
            TOP + HEIGHT,
            (step * 0.88).max(0.5),
            escaped(says)
        );
    }
    body += "</g>";
    if let Some(mark) = mark {
        body += &format!("<path class=\"mark\" d=\"M{LEFT} {:.1}h{width}\"/>", y(mark));
    }
    body += &x_labels(columns, width, HEIGHT, 0.5);
    body += &axis_names(axes, width, HEIGHT);
    let says = values.iter().map(|(_, says)| says.clone()).collect();
    Chart::of((NARROW, TOP + HEIGHT + BOTTOM), body).with_marks([LEFT, TOP, width, HEIGHT], says)
}

/// Lines over the same steps, between the least and the largest value, with a legend below.
pub fn lines(lines: &[Line], columns: &[String], axes: (&str, &str)) -> Chart {
    let wide = columns.len() > 24;
    let full = if wide { WIDE } else { NARROW };
    let width = full - LEFT - RIGHT;
    let all = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    let (least, most) = if least <= most { (least, most) } else { (0.0, 1.0) };
    let room = (most - least) * 0.06;
    // Values that differ by less are as good as equal, and their numbers have no room.
    let least = (least - room).min(most - 0.004);
    let steps = columns.len().saturating_sub(1).max(1) as f64;
    let x = |at: usize| LEFT + width * if columns.len() > 1 { at as f64 / steps } else { 0.5 };
    let y = |value: f64| TOP + HEIGHT * (1.0 - (value - least) / (most - least));
    let mut body = y_axis(least, most, width, false);
    for line in lines {
        let mut path = String::new();
        let mut dots = String::new();
        let mut pen = 'M';
        for (at, value) in line.values.iter().enumerate() {
            let Some(value) = value else {
                pen = 'M';
                continue;
            };
            path += &format!("{pen}{:.1} {:.1}", x(at), y(*value));
            pen = 'L';
            let says = format!("{}, {} {}: {value:.4}", line.name, axes.0, columns.get(at).map_or("", |c| c));
            dots += &format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\"><title>{}</title></circle>",
                x(at),
                y(*value),
                escaped(&says)
            );
        }
        body += &format!("<g class=\"{}\"><path class=\"line\" d=\"{path}\"/>{dots}</g>", line.class);
    }
    body += &x_labels(columns, width, HEIGHT, if columns.len() > 1 { 0.0 } else { 0.5 });
    body += &axis_names(axes, width, HEIGHT);
    let (legend, height) = legend(lines, full, TOP + HEIGHT + BOTTOM + 8.0);
    let says = (0..columns.len()).map(|at| {
        let value = |line: &Line| {
            let value = line.values.get(at).copied().flatten()?;
            Some(format!("{} {value:.4}", line.name))
        };
        let values: Vec<String> = lines.iter().filter_map(value).collect();
        format!("{} {}: {}", axes.0, columns[at], values.join("; "))
    });
    // A column is around its points.
    let each = if columns.len() > 1 { width / steps } else { width };
    let area = [x(0) - each / 2.0, TOP, each * columns.len() as f64, HEIGHT];
    Chart::of((full, height), body + &legend).with_marks(area, says.collect())
}

/// A part of a chart as parts of the whole, for what lies over it.
fn style_of([left, top, wide, high]: [f64; 4], (width, height): (f64, f64)) -> String {
    let percent = |part: f64, whole: f64| format!("{:.2}%", part / whole * 100.0);
    format!(
        "--l:{};--t:{};--w:{};--h:{}",
        percent(left, width),
        percent(top, height),
        percent(wide, width),
        percent(high, height)
    )
}

/// The names of lines, in rows from `y` on; and where they end.
fn legend(lines: &[Line], full: f64, mut y: f64) -> (String, f64) {
    let mut body = String::new();
    let mut x = LEFT;
    for line in lines {
        let takes = 34.0 + 6.2 * line.name.chars().count() as f64;
        if x + takes > full && x > LEFT {
            (x, y) = (LEFT, y + 16.0);
        }
        body += &format!(
            "<g class=\"{}\"><path class=\"line\" d=\"M{x:.0} {:.0}h20\"/></g><text x=\"{:.0}\" y=\"{y:.0}\">{}</text>",
            line.class,
            y - 4.0,
            x + 24.0,
            escaped(&line.name)
        );
        x += takes;
    }
    (body, y + 8.0)
}

pub(super) fn outline(width: f64, height: f64) -> String {
    format!("<path class=\"axis\" d=\"M{LEFT} {TOP}v{height:.1}h{width:.1}\"/>")
}

/// Lines across at round numbers, and what they stand for; at whole ones where the values are counts.
fn y_axis(least: f64, most: f64, width: f64, counts: bool) -> String {
    let step = round_step((most - least) / 5.0).max(if counts { 1.0 } else { 0.0 });
    // Far less than a pixel.
    let slack = 1e-6;
    let digits = (-(step.log10() + slack).floor()).max(0.0) as usize;
    let mut body = String::new();
    let (first, last) = ((least / step - slack).ceil() as i64, (most / step + slack).floor() as i64);
    for value in (first..=last).map(|at| at as f64 * step) {
        let y = TOP + HEIGHT * (1.0 - (value - least) / (most - least));
        body += &format!(
            "<path class=\"across\" d=\"M{LEFT} {y:.1}h{width}\"/><text x=\"{}\" y=\"{:.1}\" class=\"end\">{}</text>",
            LEFT - 4.0,
            y + 3.5,
            short(value, digits)
        );
    }
    body
}

/// The next of 1, 2, 5, 10, 20 and so on.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= least)
        .unwrap_or(10.0 * power)
}

/// A number of few characters.
fn short(value: f64, digits: usize) -> String {
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")];
    match units.iter().find(|(unit, _)| value >= *unit) {
        Some((1e4, name)) => format!("{:.0}{name}", value / 1e3),
        // There is room for five characters.
        Some((unit, name)) if value >= 100.0 * unit => format!("{:.0}{name}", value / unit),
        Some((unit, name)) => format!("{:.1}{name}", value / unit),
        None => format!("{value:.digits$}"),
    }
}

/// At most `most` of `count` steps, evenly spread from the first on.
pub(super) fn spread(count: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = count.div_ceil(most.max(1)).max(1);
    (0..count).step_by(step).map(|at| (at, at))
}

pub(super) fn x_labels(columns: &[String], width: f64, height: f64, middle: f64) -> String {
    let longest = columns.iter().map(|label| label.chars().count()).max().unwrap_or(1) as f64;
    let room = (width / (longest * 6.5 + 10.0)) as usize;
    let steps = if middle > 0.0 { columns.len().max(1) as f64 } else { (columns.len() - 1).max(1) as f64 };
    let label = |(at, label): (usize, usize)| {
        let x = LEFT + (at as f64 + middle) * width / steps;
        format!(
            "<text x=\"{x:.1}\" y=\"{:.1}\" class=\"mid\">{}</text>",
            TOP + height + 12.0,
            escaped(&columns[label])
        )
    };
    spread(columns.len(), room).map(label).collect()
}

/// The names of the two axes.
pub(super) fn axis_names((x, y): (&str, &str), width: f64, height: f64) -> String {
    format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" class=\"mid name\">{}</text><text x=\"8\" y=\"10\" class=\"name\">{}</text>",
        LEFT + width / 2.0,
        TOP + height + 26.0,
        escaped(x),
        escaped(y)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The labels of the horizontal lines.
    fn beside(least: f64, most: f64, counts: bool) -> Vec<String> {
        let body = y_axis(least, most, 100.0, counts);
        body.split("class=\"end\">").skip(1).map(|rest| rest.split('<').next().unwrap().to_string()).collect()
    }

    #[test]
    fn lines_across_are_at_round_numbers() {
        assert_eq!(beside(0.7766, 1.0, false), ["0.80", "0.85", "0.90", "0.95", "1.00"]);
        assert_eq!(beside(0.0, 7.1, false), ["0", "2", "4", "6"]);
        assert_eq!(beside(0.0, 2.0, false), ["0.0", "0.5", "1.0", "1.5", "2.0"]);
        assert_eq!(beside(0.996, 1.0, false), ["0.996", "0.997", "0.998", "0.999", "1.000"]);
        assert_eq!(beside(0.0, 3.0, true), ["0", "1", "2", "3"]);
        assert_eq!(beside(0.0, 31_000.0, true), ["0", "10k", "20k", "30k"]);
        // At their place: a line that is drawn at 1 is on it.
        assert!(y_axis(0.0, 2.0, 100.0, false).contains(&format!("M{LEFT} {:.1}h100", TOP + HEIGHT / 2.0)));
    }
}
