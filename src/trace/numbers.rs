//! The numbers of a load file as they are read: whole numbers as long as there are no others.

use super::LoadHistory;
use crate::error::Error;

pub enum Numbers {
    Counts(Vec<u64>),
    Values(Vec<f64>),
}

impl Numbers {
    pub fn new() -> Self {
        Self::Counts(Vec::new())
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Counts(counts) => counts.len(),
            Self::Values(values) => values.len(),
        }
    }

    pub fn push_count(&mut self, count: u64) {
        match self {
            Self::Counts(counts) => counts.push(count),
            Self::Values(values) => values.push(count as f64),
        }
    }

    pub fn push_value(&mut self, value: f64) {
        if let Self::Counts(counts) = self {
            *self = Self::Values(counts.iter().map(|&count| count as f64).collect());
        }
        if let Self::Values(values) = self {
            values.push(value);
        }
    }

    pub fn history(self, windows: usize, layers: usize, experts: usize) -> Result<LoadHistory, Error> {
        match self {
            Self::Counts(counts) => LoadHistory::from_counts(windows, layers, experts, counts),
            Self::Values(values) => LoadHistory::from_values(windows, layers, experts, values),
        }
    }
}
