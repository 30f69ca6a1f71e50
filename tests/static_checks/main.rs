//! Checks of the shaders and of the source tree that need no device.
//!
//! Each check is a function from one composed shader (or from the source tree) to the complaints it has. It is
//! run over everything the library ships, and over small fixtures with one fault each, which show that the
//! check can fail.

mod circles;
mod fixture;
mod floats;
mod host;
mod licences;
mod limits;
mod loops;
mod lowered;
mod modules;
mod operations;
mod stems;
mod text;
mod tint;
mod translate;

use eplb_wgpu::testing::{ShaderUnit, shaders};

/// Runs a check over every shader of the library; all complaints are printed, not the first alone.
fn over_all(check: impl Fn(&ShaderUnit) -> Vec<String>) {
    let units = shaders();
    assert!(!units.is_empty(), "testing::shaders() is empty: nothing would be checked");
    let complaints: Vec<String> = units
        .iter()
        .flat_map(|unit| {
            let place = match unit.variant.as_str() {
                "" => format!("shaders/{}.wgsl, {}", unit.stem, unit.entry_point),
                variant => format!("shaders/{}.wgsl, {} ({variant})", unit.stem, unit.entry_point),
            };
            check(unit).into_iter().map(move |complaint| format!("{place}: {complaint}"))
        })
        .collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

/// The root of the source tree.
fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}
