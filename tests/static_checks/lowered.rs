//! A unit as naga's module: parsed, validated with the portable capabilities, its overrides applied.

use eplb_wgpu::testing::ShaderUnit;
use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{EntryPoint, Function, Module, ShaderStage};

/// The unit as it is written, and what its pipeline would be made of.
pub struct Lowered {
    /// The whole text, overrides open.
    pub written: Module,
    pub written_info: ModuleInfo,
    /// Overrides applied, and what the entry point does not reach dropped.
    pub module: Module,
    pub info: ModuleInfo,
    /// The position of the unit's entry point.
    pub entry: usize,
}

impl Lowered {
    pub fn new(unit: &ShaderUnit) -> Result<Self, String> {
        let source = unit.source.as_str();
        let written = naga::front::wgsl::parse_str(source).map_err(|error| error.emit_to_string(source))?;
        let written_info = Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&written)
            .map_err(|error| error.emit_to_string(source))?;
        let stage = Some((ShaderStage::Compute, unit.entry_point));
        let constants = unit.constants.iter().map(|&(name, value)| (name.to_string(), value)).collect();
        let (module, info) = process_overrides(&written, &written_info, stage, &constants)
            .map_err(|error| format!("overrides {:?}: {error}", unit.constants))?;
        let (module, info) = (module.into_owned(), info.into_owned());
        let entry = module.entry_points.iter().position(|entry| entry.name == unit.entry_point);
        let entry = entry.ok_or_else(|| format!("it has no entry point {}", unit.entry_point))?;
        Ok(Self { written, written_info, module, info, entry })
    }

    pub fn entry_point(&self) -> &EntryPoint {
        &self.module.entry_points[self.entry]
    }

    /// Every function as it is written, with its analysis and its name, entry points among them.
    pub fn functions(&self) -> impl Iterator<Item = (&Function, &FunctionInfo, &str)> {
        let plain = self.written.functions.iter().map(|(handle, function)| {
            (function, &self.written_info[handle], function.name.as_deref().unwrap_or("a function"))
        });
        let entries = self.written.entry_points.iter().enumerate();
        let entries = entries
            .map(|(at, entry)| (&entry.function, self.written_info.get_entry_point(at), entry.name.as_str()));
        plain.chain(entries)
    }
}

/// Runs a check on the lowered unit; a unit that cannot be lowered is a complaint.
pub fn lowered(unit: &ShaderUnit, check: impl FnOnce(&Lowered) -> Vec<String>) -> Vec<String> {
    match Lowered::new(unit) {
        Ok(lowered) => check(&lowered),
        Err(complaint) => vec![complaint],
    }
}

mod tests {
    use super::*;
    use crate::fixture::{fails, good, passes, with};

    fn check(unit: &ShaderUnit) -> Vec<String> {
        lowered(unit, |_| Vec::new())
    }

    #[test]
    fn every_shader_validates_with_the_portable_capabilities() {
        crate::over_all(check);
    }

    #[test]
    fn what_is_not_portable_is_refused() {
        passes(check);
        fails(check, &with("result[id.x] =", "result[id.y] == "), "expected");
        fails(check, &with("bitcast<u32>(params.bias)", "u32(u64(params.seed))"), "u64");
        fails(check, &with("array<u32, 16>", "array<u32, WORKGROUP>"), "array");
        let mut unit = good();
        unit.entry_point = "other";
        fails(check, &unit, "other");
        let mut unit = good();
        unit.constants.clear();
        unit.source = unit.source.replace("override WORKGROUP: u32 = 64;", "override WORKGROUP: u32;");
        fails(check, &unit, "WORKGROUP");
        let mut unit = good();
        unit.constants.push(("WIDTH", 1.0));
        fails(check, &unit, "WIDTH");
    }
}
