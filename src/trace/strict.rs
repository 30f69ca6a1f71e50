//! JSON as a tree, in which no object has a field twice: of two, a reader would take one without a word.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::ParseError;
use crate::trace::brief;

/// The most bytes of a text: its tree takes 13 to 30 times as much memory.
const MOST: usize = 1 << 30;

/// Reads a whole text.
pub fn read(bytes: &[u8], what: &str) -> Result<Value, ParseError> {
    if bytes.len() > MOST {
        let reason = format!("it has {} bytes, and a plan, a map or a table may have {MOST}", bytes.len());
        return Err(ParseError::content(reason));
    }
    let strict: Result<Strict, _> = serde_json::from_slice(bytes);
    strict.map(|strict| strict.0).map_err(|error| match error.is_data() {
        true => ParseError::content(error.to_string()),
        false => ParseError::not(what, error),
    })
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        value.deserialize_any(Tree).map(Strict)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((field, Strict(value))) = fields.next_entry::<String, Strict>()? {
            if object.contains_key(&field) {
                return Err(A::Error::custom(format_args!("the field {:?} is there twice", brief(&field))));
            }
            object.insert(field, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_past_the_limit_is_refused_before_it_is_read() {
        // Nothing of it is touched, so that it takes no memory.
        let said = read(&vec![0; MOST + 1], "a plan file").unwrap_err().to_string();
        assert_eq!(said, "it has 1073741825 bytes, and a plan, a map or a table may have 1073741824");
        assert!(read(b"[1]", "a plan file").is_ok());
    }
}
