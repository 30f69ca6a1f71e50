//! A chart as a file of its own, with what the page around it tells: its title, what is seen, and what colours mean.

use super::cells::HeatMap;
use super::style::CHARTS;
use super::svg::Chart;
use super::text::escaped;

/// Room left of all text.
const LEFT: f64 = 8.0;
/// Width of a character, in the sizes of the style: of a title, and of other text.
const TITLE: f64 = 7.4;
const TEXT: f64 = 5.9;
/// Heights of a line.
const TITLE_LINE: f64 = 18.0;
const TEXT_LINE: f64 = 15.0;
/// A square of a key with the room after it, and the room after its text.
const SQUARE: f64 = 15.0;
const AFTER: f64 = 12.0;

/// The chart as a file. Of the keys, which are a class and its text each, those are drawn that the chart has.
pub fn file(chart: &Chart, key: &[(&str, String)]) -> String {
    let (width, height) = chart.size;
    let room = width - 2.0 * LEFT;
    let title = wrapped(&chart.title, room / TITLE);
    let note = wrapped(&chart.note, room / TEXT);
    let above = title.len() as f64 * TITLE_LINE + note.len() as f64 * TEXT_LINE + 10.0;
    let mut y = -above + 4.0;
    let mut text = String::new();
    for (lines, class, step) in [(title, "title", TITLE_LINE), (note, "name", TEXT_LINE)] {
        for line in lines {
            y += step;
            text += &format!("<text x=\"{LEFT}\" y=\"{y}\" class=\"{class}\">{}</text>", escaped(&line));
        }
    }
    let is_used = key.iter().any(|(class, _)| chart.body.contains(&format!("class=\"{class}\"")));
    let (keys, below) = squares(if is_used { key } else { &[] }, width, height);
    // Not every viewer sizes by style.
    let body = chart.body.replace("<circle cx", "<circle r=\"2.5\" cx");
    let over = chart.grid.as_ref().map_or_else(String::new, HeatMap::titles);
    let all = above + below;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 -{above} {width} {all}\" width=\"{width}\">\
         <style>{CHARTS}</style><rect y=\"-{above}\" width=\"{width}\" height=\"{all}\" class=\"paper\"/>{text}{body}{over}{keys}</svg>\n"
    )
}

/// Squares of colour with what they mean, in rows from `y` on; and where they end.
fn squares(key: &[(&str, String)], width: f64, y: f64) -> (String, f64) {
    let (mut x, mut y) = (LEFT, y + 6.0);
    let mut body = String::new();
    for (class, text) in key {
        let takes = SQUARE + TEXT * text.chars().count() as f64 + AFTER;
        if x + takes > width && x > LEFT {
            (x, y) = (LEFT, y + TEXT_LINE);
        }
        body += &format!(
            "<path class=\"{class}\" d=\"M{x:.0} {y:.0}h11v11h-11z\"/><text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            x + SQUARE,
            y + 9.5,
            escaped(text)
        );
        x += takes;
    }
    (body, if key.is_empty() { y } else { y + TEXT_LINE + 4.0 })
}

/// Lines of at most this many characters, broken between words.
fn wrapped(text: &str, most: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if ((line.chars().count() + word.chars().count() + 1) as f64) <= most => {
                *line += " ";
                *line += word;
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_lose_none() {
        assert_eq!(wrapped("one two three", 7.0), ["one two", "three"]);
        assert_eq!(wrapped("a longer-than-that b", 5.0), ["a", "longer-than-that", "b"]);
        assert_eq!(wrapped("", 5.0), [] as [String; 0]);
    }
}
