//! The numbers of a load file: whole ones as long as there are no others, of four bytes as long as they fit.

use std::ops::Range;

/// The most numbers a load file may hold: 2 GiB of `f64`.
pub const MAX_VALUES: usize = 1 << 28;

/// In the order of a history, `[windows][layers][experts]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// Whole numbers below 2^32.
    Small(Vec<u32>),
    /// Whole numbers, one of which is not below 2^32.
    Counts(Vec<u64>),
    Values(Vec<f64>),
}

impl Numbers {
    pub fn new() -> Self {
        Self::Small(Vec::new())
    }

    pub fn of_counts(counts: Vec<u64>) -> Self {
        let small: Option<Vec<u32>> = counts.iter().map(|&count| u32::try_from(count).ok()).collect();
        small.map_or(Self::Counts(counts), Self::Small)
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Small(small) => small.len(),
            Self::Counts(counts) => counts.len(),
            Self::Values(values) => values.len(),
        }
    }

    pub fn push_count(&mut self, count: u64) {
        match (&mut *self, u32::try_from(count)) {
            (Self::Small(small), Ok(count)) => small.push(count),
            (Self::Small(small), Err(_)) => {
                *self = Self::Counts(small.iter().map(|&old| old.into()).chain([count]).collect());
            }
            (Self::Counts(counts), _) => counts.push(count),
            (Self::Values(values), _) => values.push(count as f64),
        }
    }

    pub fn push_value(&mut self, value: f64) {
        if !matches!(self, Self::Values(_)) {
            *self = Self::Values(self.values(0..self.len()));
        }
        if let Self::Values(values) = self {
            values.push(value);
        }
    }

    /// Some of them as floats.
    pub fn values(&self, range: Range<usize>) -> Vec<f64> {
        match self {
            Self::Small(small) => small[range].iter().map(|&count| count.into()).collect(),
            Self::Counts(counts) => counts[range].iter().map(|&count| count as f64).collect(),
            Self::Values(values) => values[range].to_vec(),
        }
    }

    /// Some of them as whole numbers; `None` where they are not.
    pub fn counts(&self, range: Range<usize>) -> Option<Vec<u64>> {
        match self {
            Self::Small(small) => Some(small[range].iter().map(|&count| count.into()).collect()),
            Self::Counts(counts) => Some(counts[range].to_vec()),
            Self::Values(_) => None,
        }
    }

    /// The same numbers in another order: which comes next, one by one.
    pub fn in_order(&self, order: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Small(small) => Self::Small(order.map(|at| small[at]).collect()),
            Self::Counts(counts) => Self::Counts(order.map(|at| counts[at]).collect()),
            Self::Values(values) => Self::Values(order.map(|at| values[at]).collect()),
        }
    }

    /// Refuses one more number where there are as many as a file may hold, before memory is taken for it.
    pub fn check_room(&self) -> Result<(), String> {
        check_room(self.len())
    }

    /// The rows of `length` numbers that `kept` names, each with zeros up to `width`.
    pub fn rows(&self, length: usize, kept: impl Iterator<Item = usize>, width: usize) -> Self {
        fn take<T: Copy + Default>(
            all: &[T],
            length: usize,
            kept: impl Iterator<Item = usize>,
            width: usize,
        ) -> Vec<T> {
            let mut rows = Vec::with_capacity(kept.size_hint().0 * width);
            for row in kept {
                rows.extend_from_slice(&all[row * length..(row + 1) * length]);
                rows.resize(rows.len() + width - length, T::default());
            }
            rows
        }
        match self {
            Self::Small(small) => Self::Small(take(small, length, kept, width)),
            Self::Counts(counts) => Self::of_counts(take(counts, length, kept, width)),
            Self::Values(values) => Self::Values(take(values, length, kept, width)),
        }
    }
}

/// Refuses one more number after so many.
pub fn check_room(numbers: usize) -> Result<(), String> {
    if numbers < MAX_VALUES {
        return Ok(());
    }
    Err(format!("it has more than {MAX_VALUES} loads, and a file may have no more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_numbers_as_a_file_may_have() {
        assert!(check_room(MAX_VALUES - 1).is_ok());
        let said = "it has more than 268435456 loads, and a file may have no more";
        assert_eq!(check_room(MAX_VALUES), Err(said.to_string()));
    }

    #[test]
    fn numbers_are_as_narrow_as_the_widest_needs() {
        let mut numbers = Numbers::new();
        numbers.push_count(7);
        assert_eq!(numbers, Numbers::Small(vec![7]));
        numbers.push_count(1 << 32);
        numbers.push_count(8);
        assert_eq!(numbers, Numbers::of_counts(vec![7, 1 << 32, 8]));
        // The wide one is left out.
        assert_eq!(numbers.rows(1, [0, 2].into_iter(), 2), Numbers::Small(vec![7, 0, 8, 0]));
        numbers.push_value(0.5);
        numbers.push_count(9);
        assert_eq!(numbers, Numbers::Values(vec![7.0, 4_294_967_296.0, 8.0, 0.5, 9.0]));
        assert_eq!((numbers.counts(0..1), numbers.values(3..5)), (None, vec![0.5, 9.0]));
    }
}
