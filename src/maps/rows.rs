//! The rows of a map, as they are read and as texts have them.

use super::{MapFile, PlanFormat};
use crate::error::ParseError;
use crate::loads;

/// Rows as they are read, with the numbers of their layers.
#[derive(Default)]
pub struct Rows {
    rows: Vec<(u32, Vec<i32>)>,
}

impl Rows {
    pub fn push(&mut self, layer: u32, row: Vec<i32>) {
        self.rows.push((layer, row));
    }

    pub fn first(&self) -> Option<(u32, &[i32])> {
        self.rows.first().map(|(layer, row)| (*layer, row.as_slice()))
    }

    /// The map of layers whose numbers the file tells.
    pub fn numbered(mut self, format: PlanFormat) -> Result<MapFile, ParseError> {
        self.rows.sort_by_key(|row| row.0);
        let ids: Vec<u32> = self.rows.iter().map(|row| row.0).collect();
        let file = self.by_place(format)?;
        loads::check_layer_ids(ids.len(), &ids)?;
        Ok(MapFile { layer_ids: Some(ids), ..file })
    }

    /// The map of layers that the file tells by their place alone.
    pub fn by_place(self, format: PlanFormat) -> Result<MapFile, ParseError> {
        // Of no layers, the number of slots is no fault.
        let slots = self.rows.first().map_or(1, |row| row.1.len());
        for (layer, row) in &self.rows {
            if row.len() != slots {
                let first = self.rows[0].0;
                let reason = format!("layer {layer} has {} slots, layer {first} has {slots}", row.len());
                return Err(ParseError::content(reason));
            }
        }
        let rows = self.rows.into_iter().flat_map(|row| row.1).collect();
        Ok(MapFile { format, ..MapFile::new(slots, rows)? })
    }
}

/// `[1,2,3]`, which is JSON and YAML alike.
pub fn list(row: &[i32]) -> String {
    let entries: Vec<String> = row.iter().map(i32::to_string).collect();
    format!("[{}]", entries.join(","))
}
