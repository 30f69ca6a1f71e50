//! The host's view of a shader: its bindings and the layout of its uniform struct.

use std::collections::BTreeSet;

use eplb_wgpu::testing::{Binding, BindingKind, ShaderUnit, shaders};
use naga::{AddressSpace, GlobalVariable, StorageAccess, TypeInner};

use crate::lowered::{Lowered, lowered};

/// The bindings that the shader declares are those of the host's table, with the same access.
pub fn bindings(unit: &ShaderUnit) -> Vec<String> {
    lowered(unit, |lowered| {
        let declared: BTreeSet<Binding> = declared(lowered).map(|(_, binding)| binding).collect();
        let host: BTreeSet<Binding> = unit.bindings.iter().copied().collect();
        let mut complaints = Vec::new();
        complaints.extend(declared.difference(&host).map(|b| format!("the host's table lacks {b:?}")));
        complaints.extend(host.difference(&declared).map(|b| format!("the shader lacks {b:?}")));
        if host.len() != unit.bindings.len() {
            complaints.push("the host's table lists a binding twice".to_string());
        }
        complaints
    })
}

/// The uniform struct has the members, the offsets and the size of the struct in Rust.
pub fn uniform(unit: &ShaderUnit) -> Vec<String> {
    lowered(unit, |lowered| {
        let uniforms: Vec<_> = declared(lowered)
            .filter(|(_, binding)| binding.kind == BindingKind::Uniform)
            .map(|(variable, _)| &lowered.written.types[variable.ty].inner)
            .collect();
        match uniforms[..] {
            [] if unit.uniform_layout.is_empty() => vec![],
            [] => vec!["the host writes a uniform buffer, the shader has none".to_string()],
            [TypeInner::Struct { members, span }] => {
                let shader: Vec<(&str, u32)> =
                    members.iter().map(|m| (m.name.as_deref().unwrap_or("?"), m.offset)).collect();
                let mut complaints = Vec::new();
                if shader != unit.uniform_layout {
                    let host = &unit.uniform_layout;
                    complaints.push(format!("the uniform struct is {shader:?}, in Rust {host:?}"));
                }
                if *span != unit.uniform_size {
                    let host = unit.uniform_size;
                    complaints.push(format!("the uniform struct has {span} bytes, in Rust {host}"));
                }
                complaints
            }
            [_] => vec!["the uniform buffer is not a struct".to_string()],
            _ => vec!["it has more than one uniform buffer".to_string()],
        }
    })
}

/// The bindings of a unit's shader that its entry point reaches.
fn reached(unit: &ShaderUnit) -> BTreeSet<Binding> {
    let Ok(lowered) = Lowered::new(unit) else { return BTreeSet::new() };
    let info = lowered.info.get_entry_point(lowered.entry);
    let globals = lowered.module.global_variables.iter().filter(|(handle, _)| !info[*handle].is_empty());
    globals.filter_map(|(_, variable)| binding_of(variable)).collect()
}

/// Bindings of the host's tables that no shader reaches: a buffer for nothing.
fn idle(units: &[ShaderUnit]) -> Vec<String> {
    let reached: BTreeSet<Binding> = units.iter().flat_map(reached).collect();
    let bound: BTreeSet<Binding> = units.iter().flat_map(|unit| unit.bindings.iter().copied()).collect();
    bound.difference(&reached).map(|binding| format!("no shader uses {binding:?}")).collect()
}

fn declared(lowered: &Lowered) -> impl Iterator<Item = (&GlobalVariable, Binding)> {
    let variables = lowered.written.global_variables.iter().map(|(_, variable)| variable);
    variables.filter_map(|variable| Some((variable, binding_of(variable)?)))
}

fn binding_of(variable: &GlobalVariable) -> Option<Binding> {
    let place = variable.binding?;
    let kind = match variable.space {
        AddressSpace::Uniform => BindingKind::Uniform,
        AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
            BindingKind::StorageReadWrite
        }
        AddressSpace::Storage { .. } => BindingKind::StorageRead,
        _ => return None,
    };
    Some(Binding { group: place.group, binding: place.binding, kind })
}

mod tests {
    use super::*;
    use crate::fixture::{fails, good, passes, with};

    #[test]
    fn the_bindings_are_those_of_the_hosts_tables() {
        crate::over_all(bindings);
    }

    #[test]
    fn the_uniform_struct_is_that_of_rust() {
        crate::over_all(uniform);
    }

    #[test]
    fn every_binding_is_used_by_a_shader() {
        assert_eq!(idle(&shaders()), Vec::<String>::new());
    }

    #[test]
    fn a_binding_that_differs_is_found() {
        passes(bindings);
        assert_eq!(bindings(&with("storage, read_write", "storage, read")).len(), 1, "not even lowered");
        let mut access = good();
        access.bindings[1].kind = BindingKind::StorageReadWrite;
        assert_eq!(bindings(&access).len(), 2, "lacking in each other");
        let mut more = good();
        more.bindings.push(Binding { group: 1, binding: 0, kind: BindingKind::StorageRead });
        fails(bindings, &more, "the shader lacks Binding { group: 1, binding: 0");
        let mut fewer = good();
        fewer.bindings.pop();
        fails(bindings, &fewer, "the host's table lacks Binding { group: 0, binding: 2");
        let mut twice = good();
        twice.bindings.push(twice.bindings[0]);
        fails(bindings, &twice, "twice");
    }

    #[test]
    fn a_uniform_struct_that_differs_is_found() {
        passes(uniform);
        fails(uniform, &with("slots: u32, bias: i32", "bias: i32, slots: u32"), "in Rust");
        fails(uniform, &with("seed: u32 }", "@size(8) seed: u32 }"), "20 bytes, in Rust 16");
        let mut renamed = good();
        renamed.uniform_layout[1].0 = "gpus";
        fails(uniform, &renamed, "\"gpus\"");
        let mut moved = good();
        moved.uniform_layout[3].1 = 16;
        fails(uniform, &moved, "(\"seed\", 16)");
        let mut without = good();
        without.uniform_layout.clear();
        fails(uniform, &without, "in Rust []");
    }

    #[test]
    fn a_binding_that_nothing_uses_is_found() {
        assert_eq!(idle(&[good()]), Vec::<String>::new());
        let unused = with("loads[id.x % params.experts]", "id.x % params.experts");
        assert_eq!(idle(std::slice::from_ref(&unused)).len(), 1);
        // Another shader with the same layout may use it.
        assert_eq!(idle(&[unused, good()]), Vec::<String>::new());
    }
}
