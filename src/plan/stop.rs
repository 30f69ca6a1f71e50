//! Why the search of a layer ended.

/// Why the search of a layer ended. Shaders know it by its number; 0 is a search that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Stop {
    /// The heaviest GPU is within the stop gap of the layer's bound.
    BoundReached = 1,
    /// No move helps, or none helped for as long as the patience lasts.
    NoMoveLeft,
    /// The iterations of a start, or the steps of a descent, were used up first.
    BudgetSpent,
    /// The layer is small, and no plan of it is better: all were searched.
    Optimal,
    /// The plan was made from a previous one, and no further move was worth its transfer.
    PreviousPlan,
}

impl Stop {
    /// That of a shader's number.
    #[cfg(feature = "gpu")]
    pub(crate) fn of_word(word: u32) -> Self {
        [Stop::BoundReached, Stop::NoMoveLeft]
            .into_iter()
            .find(|&s| s as u32 == word)
            .unwrap_or(Stop::BudgetSpent)
    }

    /// Whether the search ended above its gap.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Stop::NoMoveLeft | Stop::BudgetSpent)
    }

    /// `bound reached`, `no move left`, `budget spent`, `optimal` or `previous plan`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stop::BoundReached => "bound reached",
            Stop::NoMoveLeft => "no move left",
            Stop::BudgetSpent => "budget spent",
            Stop::Optimal => "optimal",
            Stop::PreviousPlan => "previous plan",
        }
    }
}
