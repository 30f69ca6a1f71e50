//! The names of presets.

use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::Preset;

/// The text of `--preset help`: first the presets for users, then the programs that this planner is measured against.
pub fn presets() -> String {
    let (lineage, own): (Vec<Preset>, Vec<Preset>) = Preset::all().partition(is_lineage);
    let line = |preset: &Preset| format!("  {:9} {}", preset.name(), preset.summary());
    let lines = |presets: &[Preset]| presets.iter().map(line).collect::<Vec<_>>().join("\n");
    format!(
        "Presets of this planner:\n{}\n\nRules of earlier programs and their variants, to compare with (`eplb bench --lineage` runs them \
         all):\n{}",
        lines(&own),
        lines(&lineage)
    )
}

pub fn is_lineage(preset: &Preset) -> bool {
    preset.name().starts_with("gen") || preset.name().starts_with("rec")
}

/// `default`, `fast` and so on, and `help`, which alone tells of earlier programs.
pub fn parse_preset() -> PossibleValuesParser {
    let value = |preset: Preset| PossibleValue::new(preset.name()).hide(is_lineage(&preset));
    PossibleValuesParser::new(Preset::all().map(value).chain([PossibleValue::new("help")]))
}
