//! TensorRT-LLM's map: YAML of `num_slots`, `initial_global_assignments` (layer number: experts of the slots) and
//! `layer_updates_per_iter`. Other fields are passed over.
//!
//! The events of the parser are taken as they come: a tree of values would need many times their memory. Aliases in what is
//! read are refused: they can repeat a part without an end.

use saphyr_parser::{Event, Parser};

use super::rows::{Rows, list};
use super::{MapFile, PlanFormat};
use crate::error::ParseError;
use crate::trace::brief;

const SLOTS: &str = "num_slots";
const MAP: &str = "initial_global_assignments";

/// The events, one after the other.
struct Events<'a>(Parser<'a, saphyr_parser::StrInput<'a>>);

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<Event<'a>, ParseError> {
        match self.0.next() {
            Some(Ok((event, _))) => Ok(event),
            Some(Err(error)) => Err(ParseError::not("YAML", error)),
            None => Ok(Event::StreamEnd),
        }
    }

    /// The next value, which must be a scalar; `None` at the end of the array or mapping that it would be in.
    fn scalar(&mut self, what: &str) -> Result<Option<String>, ParseError> {
        match self.next()? {
            Event::Scalar(text, ..) => Ok(Some(text.into_owned())),
            Event::SequenceEnd | Event::MappingEnd => Ok(None),
            _ => Err(ParseError::content(format!("{what} is not a plain value"))),
        }
    }

    /// Passes over a value of any kind.
    fn pass(&mut self) -> Result<(), ParseError> {
        let mut depth = 0usize;
        loop {
            match self.next()? {
                Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
                Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
                Event::StreamEnd => return Err(ParseError::damaged("truncated")),
                _ => {}
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

pub fn read(bytes: &[u8]) -> Result<MapFile, ParseError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ParseError::not("UTF-8", error))?;
    let mut events = Events(Parser::new_from_str(text));
    loop {
        match events.next()? {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::MappingStart(..) => break,
            _ => return Err(ParseError::content(format!("not a mapping with {MAP}"))),
        }
    }
    let (mut slots, mut rows) = (None, None);
    while let Some(field) = events.scalar("a field's name")? {
        match field.as_str() {
            SLOTS if slots.is_none() => {
                let value = events.scalar(SLOTS)?.unwrap_or_default();
                let number = value.parse::<usize>();
                let bad =
                    |_| ParseError::content(format!("{SLOTS} {:?} is not a whole number", brief(&value)));
                slots = Some(number.map_err(bad)?);
            }
            MAP if rows.is_none() => rows = Some(layers(&mut events)?),
            SLOTS | MAP => return Err(ParseError::content(format!("the field {field} is there twice"))),
            _ => events.pass()?,
        }
    }
    let rows = rows.ok_or_else(|| ParseError::content(format!("it has no {MAP}")))?;
    if let (Some(slots), Some((layer, row))) = (slots, rows.first())
        && row.len() != slots
    {
        let reason = format!("layer {layer} has {} slots, not {SLOTS} {slots}", row.len());
        return Err(ParseError::content(reason));
    }
    rows.numbered(PlanFormat::TensorRtLlm)
}

fn layers(events: &mut Events<'_>) -> Result<Rows, ParseError> {
    if !matches!(events.next()?, Event::MappingStart(..)) {
        return Err(ParseError::content(format!("{MAP} is not a mapping of layer numbers")));
    }
    let mut rows = Rows::default();
    while let Some(name) = events.scalar("a layer's number")? {
        let bad = |_| ParseError::content(format!("{:?} is not a layer's number", brief(&name)));
        let layer = name.parse::<u32>().map_err(bad)?;
        if !matches!(events.next()?, Event::SequenceStart(..)) {
            return Err(ParseError::content(format!("layer {layer} is not an array")));
        }
        let mut row = Vec::new();
        while let Some(text) = events.scalar(&format!("layer {layer}, slot {}:", row.len()))? {
            let slot = row.len();
            let bad = |_| {
                let text = brief(&text);
                ParseError::content(format!("layer {layer}, slot {slot}: {text:?} is not an expert or -1"))
            };
            row.push(text.parse::<i32>().map_err(bad)?);
        }
        rows.push(layer, row);
    }
    Ok(rows)
}

pub fn write(rows: &[(u32, &[i32])], slots: usize) -> String {
    let layers: String = rows.iter().map(|(layer, row)| format!("  {layer}: {}\n", list(row))).collect();
    format!("{SLOTS}: {slots}\n{MAP}:\n{layers}layer_updates_per_iter: 0\n")
}
