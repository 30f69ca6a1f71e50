//! Named options: the project's own four, and the twenty programs and five recommendations of the lineage.
//!
//! The programs grew out of an evolutionary search for DeepSeek's EPLB problem; each is a value of the same
//! [`PlanOptions`], so all run on the same kernels and can be compared on the same loads. What sets them apart
//! is how replicas are refined after the same greedy construction.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::options::{Descent, Duplicates, GroupRule, Objective, PlanOptions, Search};

/// A preset: a constant of this type, or what its name is parsed as.
///
/// ```
/// use eplb_wgpu::{PlanOptions, Preset};
/// assert_eq!(Preset::DEFAULT.options(), PlanOptions::default());
/// assert_eq!("thorough".parse::<Preset>()?, Preset::THOROUGH);
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset(&'static Entry);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: &'static str,
    summary: &'static str,
    recipe: Recipe,
}

/// How a preset's options come about.
#[derive(Debug, PartialEq, Eq)]
enum Recipe {
    /// The default.
    Default,
    /// The default's search on a larger budget.
    Thorough,
    /// For several windows: one start, since the bound is out of reach.
    Scenarios,
    /// One short start.
    Fast,
    /// Greedy construction and this refinement, as the lineage's programs are; then starts.
    Lineage(Refinement, u32),
    /// `rec3`: greedy construction, swaps, and repair of the groups.
    Repair,
    /// `rec4`: variance-aware groups and swaps.
    VarianceGroups,
}

/// Refinements of the lineage.
#[derive(Debug, PartialEq, Eq)]
enum Refinement {
    None,
    /// Objective, heaviest and lightest GPUs (0: all), steps.
    Swaps(Objective, u32, u32, u32),
    Bipartition,
    PairSwaps,
}

use Objective::{Max, Variance, VarianceThenMax};
use Recipe::{Default as ByDefault, Fast, Lineage, Repair, Scenarios, Thorough, VarianceGroups};
use Refinement::{Bipartition, PairSwaps, Swaps};

/// More steps than any descent takes.
const UNTIL_STUCK: u32 = 1000;

macro_rules! presets {
    ($($constant:ident $name:literal $summary:literal $recipe:expr;)*) => {
        impl Preset {
            $(
                #[doc = concat!("`", $name, "`: ", $summary, ".")]
                pub const $constant: Preset = Preset(&Entry { name: $name, summary: $summary, recipe: $recipe });
            )*
        }

        /// The project's own first, then the lineage in order.
        const ALL: &[Preset] = &[$(Preset::$constant),*];
    };
}

#[rustfmt::skip]
presets! {
    DEFAULT "default" "near the bound in milliseconds: one trajectory a node, more where it ends short" ByDefault;
    FAST "fast" "one short trajectory a node: never worse than greedy" Fast;
    THOROUGH "thorough" "a larger budget of the same search, a smaller gap" Thorough;
    SCENARIOS "scenarios" "several windows at once: one trajectory a node, clean counts" Scenarios;
    GREEDY "gen00" "hierarchical greedy: DeepSeek's rule" Lineage(Refinement::None, 1);
    GEN01 "gen01" "LPT with iterative swaps: heaviest and lightest GPU, least variance" Lineage(Swaps(Variance, 1, 1, UNTIL_STUCK), 1);
    GEN02 "gen02" "vectorised DeepSeek EPLB: the greedy rule, all layers at once" Lineage(Refinement::None, 1);
    GEN03 "gen03" "vectorised LPT with swaps out of the heaviest GPU, with any" Lineage(Swaps(Max, 1, 0, UNTIL_STUCK), 1);
    GEN04 "gen04" "vectorised hierarchical: the greedy rule, all layers at once" Lineage(Refinement::None, 1);
    GEN05 "gen05" "LPT and local search: heaviest and lightest GPU, least max, 50 steps" Lineage(Swaps(Max, 1, 1, 50), 1);
    GEN06 "gen06" "LPT and iterative refinement: heaviest and lightest GPU, least max, until stuck" Lineage(Swaps(Max, 1, 1, UNTIL_STUCK), 1);
    GEN07 "gen07" "greedy with swap refinement: 20 steps of heaviest and lightest GPU" Lineage(Swaps(Max, 1, 1, 20), 1);
    GEN08 "gen08" "LPT packing and local search: heaviest and lightest GPU, least variance, 50 steps" Lineage(Swaps(Variance, 1, 1, 50), 1);
    GEN09 "gen09" "10 randomized restarts of LPT with pairwise swaps" Lineage(Swaps(Max, 1, 1, UNTIL_STUCK), 10);
    GEN10 "gen10" "LPT and iterative swapping: heaviest GPU with all others, least max" Lineage(Swaps(Max, 1, 0, UNTIL_STUCK), 1);
    GEN11 "gen11" "10 randomized LPT packings: heaviest and lightest GPU, least max" Lineage(Swaps(Max, 1, 1, UNTIL_STUCK), 10);
    GEN12 "gen12" "LPT and iterative refinement: heaviest GPU with all others, 50 steps" Lineage(Swaps(Max, 1, 0, 50), 1);
    GEN13 "gen13" "L2 local search: 4 heaviest with 4 lightest GPUs, least variance" Lineage(Swaps(Variance, 4, 4, UNTIL_STUCK), 1);
    GEN14 "gen14" "all pairs of GPUs, least variance" Lineage(Swaps(Variance, 0, 0, UNTIL_STUCK), 1);
    GEN15 "gen15" "8 overloaded with 8 underloaded GPUs at once, least variance" Lineage(Swaps(Variance, 8, 8, UNTIL_STUCK), 1);
    GEN16 "gen16" "greedy-swap balancer: heaviest and lightest GPU, least max, 100 steps" Lineage(Swaps(Max, 1, 1, 100), 1);
    GEN17 "gen17" "iterative bipartition of the items of the heaviest and the lightest GPU" Lineage(Bipartition, 1);
    GEN18 "gen18" "two phases: all pairs by variance, then the heaviest GPU by max" Lineage(Swaps(VarianceThenMax, 0, 0, UNTIL_STUCK), 1);
    GEN19 "gen19" "10 restarts and pairwise refinement, least variance" Lineage(Swaps(Variance, 1, 1, UNTIL_STUCK), 10);
    REC1 "rec1" "batch-parallel refinement: 4 heaviest with 4 lightest GPUs, all 16 pairs at once" Lineage(Swaps(Max, 4, 4, UNTIL_STUCK), 1);
    REC2 "rec2" "multi-item swaps: 2-for-1 and 2-for-2 when 1-1 swaps are stuck" Lineage(PairSwaps, 1);
    REC3 "rec3" "post-hierarchical repair: swap groups of the heaviest and the lightest node" Repair;
    REC4 "rec4" "variance-aware group packing" VarianceGroups;
    REC5 "rec5" "256 randomized LPT packings, no refinement" Lineage(Refinement::None, 256);
}

impl Preset {
    /// All presets: the project's own first, then the lineage in order.
    pub fn all() -> impl Iterator<Item = Preset> {
        ALL.iter().copied()
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Its use, in a line.
    #[must_use]
    pub fn summary(self) -> &'static str {
        self.0.summary
    }

    /// The options of DeepSeek's greedy rule, under what others forbid.
    pub(crate) fn greedy_under(options: &PlanOptions) -> PlanOptions {
        PlanOptions {
            duplicates: options.duplicates,
            max_replicas_per_expert: options.max_replicas_per_expert,
            ..Self::GREEDY.options()
        }
    }

    /// Its options. Presets of the lineage allow duplicates, as the programs did.
    #[must_use]
    pub fn options(self) -> PlanOptions {
        let default = PlanOptions::default();
        let search = |moves: &Refinement| match *moves {
            Refinement::None => Search::None,
            Swaps(objective, heaviest, lightest, steps) => {
                Search::Descent(Descent { objective, heaviest, lightest, steps, ..Descent::SWAPS })
            }
            Bipartition => Search::Descent(Descent { swaps: false, bipartition: true, ..Descent::SWAPS }),
            PairSwaps => Search::Descent(Descent { pair_swaps: true, ..Descent::SWAPS }),
        };
        let lineage = |moves: &Refinement, starts| PlanOptions {
            starts,
            assignments: Some(1),
            groups: GroupRule::Lpt,
            count_noise: false,
            search: search(moves),
            duplicates: Duplicates::Allow,
            stop_gap_ppm: 0,
            start_gap_ppm: 0,
            ..PlanOptions::default()
        };
        let swaps = Swaps(Max, 1, 0, UNTIL_STUCK);
        match &self.0.recipe {
            ByDefault => default,
            Thorough => PlanOptions {
                iterations: 1200,
                patience: 800,
                stop_gap_ppm: 60,
                start_gap_ppm: 220,
                three_gpus: 1536,
                ..default
            },
            Scenarios => PlanOptions { starts: 1, patience: 8, count_noise: false, ..default },
            Fast => PlanOptions { starts: 1, patience: 8, assignments: Some(1), three_gpus: 0, ..default },
            Lineage(moves, starts) => lineage(moves, *starts),
            Repair => PlanOptions { repair: true, ..lineage(&swaps, 1) },
            VarianceGroups => PlanOptions { groups: GroupRule::LptVariance, ..lineage(&swaps, 1) },
        }
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::all().find(|preset| preset.name() == name).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Preset::name).collect();
            Error::invalid("preset", name, format!("is not one of {}", names.join(", ")))
        })
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_parse() {
        for preset in Preset::all() {
            assert_eq!(preset.name().parse::<Preset>().unwrap(), preset);
            assert_eq!(Preset::all().filter(|other| other.name() == preset.name()).count(), 1);
            assert!(!preset.summary().is_empty());
        }
        assert!("gen99".parse::<Preset>().unwrap_err().to_string().starts_with("preset gen99 is not one of"));
    }

    #[test]
    fn the_default_preset_is_the_default() {
        assert_eq!(Preset::DEFAULT.options(), PlanOptions::default());
    }

    #[test]
    fn constants_are_called_as_their_names() {
        assert_eq!(Preset::all().count(), 29);
        assert_eq!(Preset::all().next(), Some(Preset::DEFAULT));
        assert_eq!((Preset::GREEDY.name(), Preset::SCENARIOS.name()), ("gen00", "scenarios"));
        assert_eq!((Preset::GEN19.name(), Preset::REC5.name()), ("gen19", "rec5"));
    }
}
