//! The page around the charts.

use super::style::{CHARTS, PAGE};
use super::svg::{Chart, Table};
use super::text::escaped;

/// Some charts about one thing.
pub struct Section {
    pub title: &'static str,
    /// Sentences, as text.
    pub text: Vec<String>,
    /// Lines to type.
    pub commands: Vec<String>,
    /// The legend: a class of the style, and its text.
    pub key: Vec<(&'static str, String)>,
    pub charts: Vec<Chart>,
}

/// A number that is read first: what it is, the number, and what it is compared with.
pub type Tile = (&'static str, String, String);

/// The whole page.
pub fn page(title: &str, lead: &[String], tiles: &[Tile], sections: &[Section]) -> String {
    let lead: String = lead.iter().map(|line| format!("<p class=\"dim\">{}</p>", escaped(line))).collect();
    let tile = |(name, value, small): &Tile| {
        format!(
            "<div><dt>{}</dt><dd>{}<small>{}</small></dd></div>",
            escaped(name),
            escaped(value),
            escaped(small)
        )
    };
    let tiles: String = tiles.iter().map(tile).collect();
    let tiles = if tiles.is_empty() { tiles } else { format!("<dl class=\"tiles\">{tiles}</dl>") };
    let sections: String = sections.iter().enumerate().map(|(at, all)| section(at, all)).collect();
    let title = escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/>\
         <meta name=\"color-scheme\" content=\"light dark\"/><title>{title}</title>\
         <style>{CHARTS}{PAGE}</style></head>\n<body><h1>{title}</h1>{lead}{tiles}\
         {sections}</body></html>\n"
    )
}

fn section(place: usize, section: &Section) -> String {
    let text: String = section.text.iter().map(|line| format!("<p>{}</p>", escaped(line))).collect();
    let commands: String =
        section.commands.iter().map(|line| format!("<pre>{}</pre>", escaped(line))).collect();
    let key = |(class, text): &(&str, String)| {
        let text = escaped(text);
        format!(
            "<li><svg viewBox=\"0 0 1 1\" aria-hidden=\"true\"><path class=\"{class}\" d=\"M0 0h1v1h-1z\"/></svg>{text}</li>"
        )
    };
    let key: String = section.key.iter().map(key).collect();
    let key = if key.is_empty() { key } else { format!("<ul class=\"key\">{key}</ul>") };
    let figures = section.charts.iter().enumerate();
    let charts: String = figures.map(|(at, chart)| figure(&format!("k{place}{at}"), chart)).collect();
    format!(
        "\n<section><h2>{}</h2>{text}{commands}{key}<div class=\"charts\">{charts}</div></section>",
        escaped(section.title)
    )
}

fn figure(group: &str, chart: &Chart) -> String {
    let class = if chart.wide { " class=\"wide\"" } else { "" };
    format!(
        "\n<figure{class}><figcaption>{}<span>{}</span></figcaption><div class=\"scroll\"><div class=\"plot\">{}{}</div></div>{}{}</figure>",
        escaped(&chart.title),
        escaped(&chart.note),
        chart.element(),
        chart.keys(group),
        table(&chart.summary, None),
        table(&chart.table, Some(&chart.title))
    )
}

/// A table, folded under a title where it has one.
fn table(table: &Table, title: Option<&str>) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let row = |cells: &[String], tag: &str| -> String {
        let cells: String = cells.iter().map(|text| format!("<{tag}>{}</{tag}>", escaped(text))).collect();
        format!("<tr>{cells}</tr>")
    };
    let rows: String = table.rows.iter().map(|cells| row(cells, "td")).collect();
    let head = row(&table.head, "th");
    let all = format!("<div class=\"table\"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>");
    match title {
        Some(title) => format!("<details><summary>Numbers: {}</summary>{all}</details>", escaped(title)),
        None => all,
    }
}
