//! A small shader that passes every check, and the means to put one fault into it.

use eplb_wgpu::testing::{Binding, BindingKind, ShaderUnit};

const GOOD: &str = "
// A comment may say f32 and 1.5,
/* and so may a block: /* vec2<f32>(0.5) */
   as it may nest; */
override WORKGROUP: u32 = 64;
struct Params { experts: u32, slots: u32, bias: i32, seed: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> loads: array<u32>;
@group(0) @binding(2) var<storage, read_write> result: array<u32>;
var<workgroup> partial: array<u32, 64>;

fn share(load: u32, count: u32) -> u32 {
    return load / max(count, 1u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    var scratch: array<u32, 16>;
    partial[lane] = loads[id.x % params.experts];
    workgroupBarrier();
    scratch[lane % 16u] = share(partial[63u - lane], params.slots);
    result[id.x] = scratch[lane % 16u] + params.seed + bitcast<u32>(params.bias);
}
";

/// The fixture without a fault.
pub fn good() -> ShaderUnit {
    use BindingKind::{StorageRead, StorageReadWrite, Uniform};
    let bindings = [Uniform, StorageRead, StorageReadWrite];
    let bindings = (0u32..).zip(bindings).map(|(binding, kind)| Binding { group: 0, binding, kind });
    ShaderUnit {
        stem: "s0_fixture",
        variant: String::new(),
        source: GOOD.to_string(),
        entry_point: "main",
        workgroup_size: [64, 1, 1],
        constants: vec![("WORKGROUP", 64.0)],
        bindings: bindings.collect(),
        uniform_layout: vec![("experts", 0), ("slots", 4), ("bias", 8), ("seed", 12)],
        uniform_size: 16,
    }
}

/// The fixture with `from` replaced by `to` in its text, once.
pub fn with(from: &str, to: &str) -> ShaderUnit {
    let mut unit = good();
    assert!(unit.source.contains(from), "the fixture has no {from}");
    unit.source = unit.source.replacen(from, to, 1);
    unit
}

/// Asserts that a check passes the fixture as it is.
pub fn passes(check: impl Fn(&ShaderUnit) -> Vec<String>) {
    let complaints = check(&good());
    assert!(complaints.is_empty(), "the good fixture does not pass: {complaints:?}");
}

/// Asserts that a check has exactly one complaint about a faulty unit, which names `reason`.
pub fn fails(check: impl Fn(&ShaderUnit) -> Vec<String>, unit: &ShaderUnit, reason: &str) {
    let complaints = check(unit);
    assert!(complaints.len() == 1 && complaints[0].contains(reason), "not about {reason:?}: {complaints:?}");
}
