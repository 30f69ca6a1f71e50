//! Loads as JSON: `{"logical_count": …}`, `{"load_history": [{"logical_expert_load": …}, …]}`, or a bare array.
//!
//! The numbers are taken as the text is read: a tree of JSON values would need many times their memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::numbers::Numbers;
use super::{LoadHistory, brief};
use crate::error::ParseError;

pub fn read(bytes: &[u8]) -> Result<LoadHistory, ParseError> {
    let mut loads = Nest::new();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = json.deserialize_any(Root(&mut loads)).and_then(|()| json.end());
    read.map_err(|error| match error.is_data() {
        true => ParseError::content(error.to_string()),
        false => ParseError::not("JSON", error),
    })?;
    let (layers, experts) =
        loads.layers.zip(loads.experts).ok_or_else(|| ParseError::content("there are no loads"))?;
    let history = LoadHistory::new(loads.windows, layers, experts, loads.numbers)?;
    Ok(match loads.layer_ids {
        Some(ids) => history.with_layer_ids(ids)?,
        None => history,
    })
}

/// Arrays of loads, as far as they are read. A 3-D array is windows of layers, a 2-D array is one window.
struct Nest {
    numbers: Numbers,
    /// How many arrays a load is in.
    dimensions: Option<usize>,
    experts: Option<usize>,
    layers: Option<usize>,
    /// Windows that are complete.
    windows: usize,
    /// Layers of the next window that are complete.
    rows: usize,
    layer_ids: Option<Vec<u32>>,
}

impl Nest {
    fn new() -> Self {
        Self {
            numbers: Numbers::new(),
            dimensions: None,
            experts: None,
            layers: None,
            windows: 0,
            rows: 0,
            layer_ids: None,
        }
    }

    /// Before a load that is `depth` arrays deep.
    fn enter(&mut self, depth: usize) -> Result<(), String> {
        if !(2..=3).contains(&depth) {
            return Err(format!("the array of loads has {depth} dimensions, not 2 or 3"));
        }
        self.numbers.check_room()?;
        match *self.dimensions.get_or_insert(depth) {
            first if first == depth => Ok(()),
            first => Err(format!("a load is in {depth} arrays, the first is in {first}")),
        }
    }

    /// At the end of an array of `length` items that is itself `depth` arrays deep.
    fn leave(&mut self, depth: usize, length: usize) -> Result<(), String> {
        let (window, layer) = (self.windows, self.rows);
        match self.dimensions {
            _ if length == 0 => return Err(format!("window {window}, layer {layer}: an array is empty")),
            Some(dimensions) if depth + 1 == dimensions => {
                let first = *self.experts.get_or_insert(length);
                if length != first {
                    return Err(format!(
                        "window {window}, layer {layer} has {length} loads, the first has {first}"
                    ));
                }
                self.rows += 1;
            }
            Some(dimensions) if depth + 2 == dimensions => {
                let first = *self.layers.get_or_insert(length);
                if length != first {
                    return Err(format!("window {window} has {length} layers, the first has {first}"));
                }
                (self.windows, self.rows) = (window + 1, 0);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The whole file.
struct Root<'a>(&'a mut Nest);

impl<'de> Visitor<'de> for Root<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of loads or an object that holds one")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<(), A::Error> {
        LoadItem { loads: self.0, depth: 0 }.visit_seq(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut found = None;
        while let Some(field) = fields.next_key::<String>()? {
            let loads = ["logical_count", "load_history"].into_iter().find(|name| *name == field);
            match (loads, found) {
                (Some(second), Some(first)) => {
                    let what = if first == second { "has a field twice" } else { "could be two things" };
                    return Err(A::Error::custom(format_args!("it {what}: {first} and {second}")));
                }
                (Some("load_history"), None) => fields.next_value_seed(HistorySteps(&mut *self.0))?,
                (Some(_), None) => fields.next_value_seed(LoadItem { loads: &mut *self.0, depth: 0 })?,
                (None, _) if field == "layer_ids" => {
                    if self.0.layer_ids.replace(fields.next_value()?).is_some() {
                        return Err(A::Error::custom("it has a field twice: layer_ids"));
                    }
                }
                (None, _)
                    if ["physical_to_logical_map", "physical_to_logical", "layer_list"]
                        .contains(&field.as_str()) =>
                {
                    return Err(A::Error::custom(format_args!("it has {field}: it holds a map, not loads")));
                }
                (None, _) => drop(fields.next_value::<IgnoredAny>()?),
            }
            found = loads.or(found);
        }
        match found {
            None => Err(A::Error::custom("the object has neither logical_count nor load_history")),
            Some(_) => Ok(()),
        }
    }
}

/// An array of loads, or one load, that is `depth` arrays deep.
struct LoadItem<'a> {
    loads: &'a mut Nest,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for LoadItem<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for LoadItem<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or an array of numbers")
    }

    fn visit_u64<E: Error>(self, count: u64) -> Result<(), E> {
        self.loads.enter(self.depth).map_err(E::custom)?;
        self.loads.numbers.push_count(count);
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.loads.enter(self.depth).map_err(E::custom)?;
        self.loads.numbers.push_value(value);
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        Err(E::custom(format_args!("{:?} is not a number", brief(text))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let LoadItem { loads, depth } = self;
        let mut length = 0;
        while items.next_element_seed(LoadItem { loads: &mut *loads, depth: depth + 1 })?.is_some() {
            length += 1;
        }
        loads.leave(depth, length).map_err(A::Error::custom)
    }
}

/// The array `load_history`: a window a step.
struct HistorySteps<'a>(&'a mut Nest);

impl<'de> DeserializeSeed<'de> for HistorySteps<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for HistorySteps<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of steps")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut steps: A) -> Result<(), A::Error> {
        let mut length = 0;
        while steps.next_element_seed(Step(&mut *self.0, length))?.is_some() {
            length += 1;
        }
        Ok(())
    }
}

/// One step of the history, by its place.
struct Step<'a>(&'a mut Nest, usize);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a step with logical_expert_load")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Step(loads, step) = self;
        let mut found = false;
        while let Some(field) = fields.next_key::<String>()? {
            if field != "logical_expert_load" {
                fields.next_value::<IgnoredAny>()?;
            } else if found {
                return Err(A::Error::custom(format_args!(
                    "load_history[{step}] has logical_expert_load twice"
                )));
            } else {
                // The step is an item of the outermost array, so its loads must be in three.
                loads.dimensions = Some(3);
                fields.next_value_seed(LoadItem { loads: &mut *loads, depth: 1 })?;
                found = true;
            }
        }
        if !found {
            return Err(A::Error::custom(format_args!("load_history[{step}] has no logical_expert_load")));
        }
        Ok(())
    }
}

pub fn write(history: &LoadHistory) -> Vec<u8> {
    let window = |w: usize| {
        let rows: Vec<String> =
            (0..history.layers).map(|l| format!("[{}]", history.row_text(w, l))).collect();
        rows.join(",\n")
    };
    let windows: Vec<String> = (0..history.windows).map(window).collect();
    let array = match windows.as_slice() {
        [one] => one.clone(),
        many => many.iter().map(|w| format!("[{w}]")).collect::<Vec<_>>().join(",\n"),
    };
    let ids = match history.layer_ids == super::history::numbered(history.layers) {
        true => String::new(),
        false => format!("\"layer_ids\": {:?}, ", history.layer_ids),
    };
    format!("{{{ids}\"logical_count\": [\n{array}\n]}}\n").into_bytes()
}
