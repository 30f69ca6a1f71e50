//! Loads that each tell their window, layer and expert.

use super::LoadHistory;
use super::numbers::check_room;
use crate::error::{Error, ParseError};
use crate::loads::MAX_EXPERTS;

/// Memory of a load: as a count and as a float.
const SIZE: usize = 16;

/// Memory of all loads for each byte of the file, and what is always allowed.
const RATIO: usize = 32;
const BASE: usize = 4 << 20;

#[derive(Default)]
pub struct Sparse {
    /// Window, layer, expert, and how often.
    entries: Vec<(u64, u64, u16, u64)>,
    experts: usize,
}

impl Sparse {
    /// Experts that are there whether or not they have a load.
    pub fn with_experts(experts: usize) -> Self {
        Self { experts, ..Self::default() }
    }

    pub fn add(&mut self, window: u64, layer: u64, expert: u64, count: u64) -> Result<(), String> {
        let known = u16::try_from(expert).ok().filter(|&expert| usize::from(expert) < MAX_EXPERTS);
        let known =
            known.ok_or_else(|| format!("expert {expert} is not below {MAX_EXPERTS}, the most experts"))?;
        self.experts = self.experts.max(usize::from(known) + 1);
        // As a trace comes, equal ones follow each other.
        match self.entries.last_mut() {
            Some(last) if (last.0, last.1, last.2) == (window, layer, known) => {
                last.3 = last.3.checked_add(count).ok_or("the sum of counts is too large")?;
            }
            _ => {
                check_room(self.entries.len())?;
                self.entries.push((window, layer, known, count));
            }
        }
        Ok(())
    }

    /// The history, of a file of `length` bytes. `named` gives the layers, in ascending order, their numbers.
    pub fn history(
        mut self,
        length: usize,
        named: impl Fn(&[u64]) -> Result<Vec<u32>, ParseError>,
    ) -> Result<LoadHistory, ParseError> {
        self.entries.sort_unstable_by_key(|entry| (entry.1, entry.0, entry.2));
        let mut layers: Vec<u64> = self.entries.iter().map(|entry| entry.1).collect();
        layers.dedup();
        let mut windows: Vec<u64> = self.entries.iter().map(|entry| entry.0).collect();
        windows.sort_unstable();
        windows.dedup();
        let most = (length.saturating_mul(RATIO).saturating_add(BASE)) / SIZE;
        let loads = windows.len().saturating_mul(layers.len()).saturating_mul(self.experts);
        if loads > most {
            let (w, l, e) = (windows.len(), layers.len(), self.experts);
            let reason =
                format!("{w} windows x {l} layers x {e} experts are too many loads for {length} bytes");
            return Err(ParseError::content(reason));
        }
        let mut counts = vec![0u64; loads];
        for &(window, layer, expert, count) in &self.entries {
            // Both are there: they are made of these entries.
            let at = |all: &[u64], one: u64| all.partition_point(|&other| other < one);
            let row = at(&windows, window) * layers.len() + at(&layers, layer);
            let sum = &mut counts[row * self.experts + usize::from(expert)];
            let more = sum.checked_add(count);
            *sum = more.ok_or_else(|| Error::invalid("sum of counts", "", "is larger than 2^64 - 1"))?;
        }
        let ids = named(&layers)?;
        let history = LoadHistory::from_counts(windows.len(), layers.len(), self.experts, counts)?;
        Ok(history.with_layer_ids(ids)?)
    }
}

/// Layers whose numbers are those in the file.
pub fn as_they_are(layers: &[u64]) -> Result<Vec<u32>, ParseError> {
    let number = |&layer: &u64| {
        u32::try_from(layer).map_err(|_| ParseError::content(format!("layer {layer} is not below 2^32")))
    };
    layers.iter().map(number).collect()
}
