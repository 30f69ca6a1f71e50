//! Recorded loads, window by window.

use super::numbers::{MAX_VALUES, Numbers};
use crate::error::{Error, ParseError};
use crate::loads::{Loads, MAX_EXPERTS, MAX_LAYERS};

/// Which windows of a history a plan is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// All, added up.
    #[default]
    Sum,
    /// The last.
    Last,
    /// This one, from 0.
    Index(usize),
}

impl std::str::FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "sum" => Ok(Self::Sum),
            "last" => Ok(Self::Last),
            _ => text
                .parse()
                .map(Self::Index)
                .map_err(|_| Error::invalid("window", text, "is not sum, last or a number")),
        }
    }
}

/// Loads of some windows: `[windows][layers][experts]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadHistory {
    pub(super) windows: usize,
    pub(super) layers: usize,
    pub(super) experts: usize,
    pub(super) numbers: Numbers,
    /// The numbers of the layers, ascending.
    pub(super) layer_ids: Vec<u32>,
}

impl LoadHistory {
    /// A history of counts.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a dimension is 0 or too large, or the number of counts is not their product.
    pub fn from_counts(
        windows: usize,
        layers: usize,
        experts: usize,
        counts: Vec<u64>,
    ) -> Result<Self, Error> {
        Self::new(windows, layers, experts, Numbers::of_counts(counts))
    }

    /// A history of floats; whether they are valid loads is checked by [`LoadHistory::loads`].
    ///
    /// # Errors
    /// As for [`LoadHistory::from_counts`].
    pub fn from_values(
        windows: usize,
        layers: usize,
        experts: usize,
        values: Vec<f64>,
    ) -> Result<Self, Error> {
        Self::new(windows, layers, experts, Numbers::Values(values))
    }

    pub(super) fn new(
        windows: usize,
        layers: usize,
        experts: usize,
        numbers: Numbers,
    ) -> Result<Self, Error> {
        check_shape(windows, layers, experts, numbers.len())?;
        Ok(Self { windows, layers, experts, numbers, layer_ids: numbered(layers) })
    }

    /// Bad values are the file's fault, and are named with the file.
    pub(super) fn checked(self) -> Result<Self, ParseError> {
        for window in 0..self.windows {
            self.loads(Window::Index(window))?;
        }
        Ok(self)
    }

    /// The same history with these numbers of layers.
    pub(super) fn with_layer_ids(self, layer_ids: Vec<u32>) -> Result<Self, Error> {
        crate::loads::check_layer_ids(self.layers, &layer_ids)?;
        Ok(Self { layer_ids, ..self })
    }

    /// The same history of this many experts: those it does not tell of have no load.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it has more experts, or they are too many.
    pub fn with_experts(&self, experts: usize) -> Result<Self, Error> {
        if experts < self.experts {
            let rule = format!("is less than the loads have, {}", self.experts);
            return Err(Error::invalid("experts", experts, rule));
        }
        check_shape(self.windows, self.layers, experts, self.windows * self.layers * experts)?;
        let numbers = self.numbers.rows(self.experts, 0..self.windows * self.layers, experts);
        Ok(Self { experts, numbers, layer_ids: self.layer_ids.clone(), ..*self })
    }

    /// Number of windows.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.windows
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// All values, `[windows][layers][experts]`; made at each call.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.numbers.values(0..self.numbers.len())
    }

    /// The numbers of the layers, ascending: from 0 on where the file does not tell.
    #[must_use]
    pub fn layer_ids(&self) -> &[u32] {
        &self.layer_ids
    }

    /// The history of the layers with these numbers alone. They keep them: see [`Loads::layer_ids`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where the range is empty, or passes the first or the last layer.
    pub fn select_layers(&self, layers: std::ops::Range<usize>) -> Result<Self, Error> {
        let ids = || self.layer_ids.iter().map(|&id| id as usize);
        let (first, end) = (ids().min().unwrap_or(0), ids().max().unwrap_or(0) + 1);
        let chosen: Vec<usize> =
            (0..self.layers).filter(|&at| layers.contains(&(self.layer_ids[at] as usize))).collect();
        if chosen.is_empty() || layers.start < first || layers.end > end {
            let value = format!("{}..{}", layers.start, layers.end);
            return Err(Error::invalid("layers", value, format!("is not a range within {first}..{end}")));
        }
        let rows =
            (0..self.windows).flat_map(|window| chosen.iter().map(move |at| window * self.layers + at));
        Ok(Self {
            layers: chosen.len(),
            numbers: self.numbers.rows(self.experts, rows, self.experts),
            layer_ids: chosen.iter().map(|&at| self.layer_ids[at]).collect(),
            ..*self
        })
    }

    /// The loads of a window, or of all added up. Sums of counts past `u64` are made in `f64`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the window is not there or a load is negative, not finite or too large.
    pub fn loads(&self, window: Window) -> Result<Loads, Error> {
        let n = self.layers * self.experts;
        let index = match window {
            Window::Sum if self.windows > 1 => return self.summed(),
            Window::Sum => 0,
            Window::Last => self.windows - 1,
            Window::Index(index) if index < self.windows => index,
            Window::Index(index) => {
                let rule = format!("is not there: the file has windows 0..{}", self.windows);
                return Err(Error::invalid("window", index, rule));
            }
        };
        let range = index * n..(index + 1) * n;
        let loads = match self.numbers.counts(range.clone()) {
            Some(counts) => Loads::from_counts(self.layers, self.experts, &counts),
            None => Loads::from_f64(self.layers, self.experts, &self.numbers.values(range)),
        };
        self.numbered(loads?)
    }

    /// The loads with the numbers of the history's layers.
    fn numbered(&self, loads: Loads) -> Result<Loads, Error> {
        loads.with_layer_ids(&self.layer_ids)
    }

    fn summed(&self) -> Result<Loads, Error> {
        let n = self.layers * self.experts;
        for window in 0..self.windows {
            self.loads(Window::Index(window))?;
        }
        let (mut counts, mut values) = (Some(vec![0u64; n]), vec![0.0; n]);
        for window in 0..self.windows {
            let range = window * n..(window + 1) * n;
            counts = counts.zip(self.numbers.counts(range.clone())).and_then(|(sums, more)| {
                sums.iter().zip(more).map(|(sum, more)| sum.checked_add(more)).collect()
            });
            values.iter_mut().zip(self.numbers.values(range)).for_each(|(sum, more)| *sum += more);
        }
        self.numbered(match counts {
            Some(counts) => Loads::from_counts(self.layers, self.experts, &counts)?,
            None => Loads::from_f64(self.layers, self.experts, &values)?,
        })
    }

    /// One row of the text formats.
    pub(super) fn row_text(&self, window: usize, layer: usize) -> String {
        let start = (window * self.layers + layer) * self.experts;
        let row = start..start + self.experts;
        let texts: Vec<String> = match self.numbers.counts(row.clone()) {
            Some(counts) => counts.iter().map(u64::to_string).collect(),
            // With a point or an exponent even where whole, so that floats are read as floats again.
            None => self.numbers.values(row).iter().map(|value| format!("{value:?}")).collect(),
        };
        texts.join(",")
    }
}

/// Layers numbered from 0.
pub fn numbered(layers: usize) -> Vec<u32> {
    (0..layers as u32).collect()
}

pub fn check_shape(windows: usize, layers: usize, experts: usize, len: usize) -> Result<(), Error> {
    let fields =
        [("windows", windows, MAX_LAYERS), ("layers", layers, MAX_LAYERS), ("experts", experts, MAX_EXPERTS)];
    for (field, value, most) in fields {
        if value == 0 || value > most {
            return Err(Error::invalid(field, value, format!("is not between 1 and {most}")));
        }
    }
    let expected =
        windows.checked_mul(layers).and_then(|n| n.checked_mul(experts)).filter(|&n| n <= MAX_VALUES);
    if expected != Some(len) {
        let rule = format!("is not windows {windows} x layers {layers} x experts {experts}, or too large");
        return Err(Error::invalid("number of loads", len, rule));
    }
    Ok(())
}
