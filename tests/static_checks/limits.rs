//! Within WebGPU's default limits, and within what a software driver compiles in reasonable time.

use eplb_wgpu::testing::{BindingKind, ShaderUnit};
use naga::{AddressSpace, TypeInner};

use crate::lowered::{Lowered, lowered};

/// WebGPU's default of `maxStorageBuffersPerShaderStage`.
const STORAGE_BUFFERS: usize = 8;
/// WebGPU's default of `maxComputeWorkgroupStorageSize`, in bytes.
const WORKGROUP_BYTES: u32 = 16 << 10;
/// WebGPU's default of `maxComputeInvocationsPerWorkgroup`.
const INVOCATIONS: u32 = 256;
/// A private array that is indexed dynamically costs seconds of compilation beyond this, in words.
const PRIVATE_WORDS: u32 = 128;

pub fn check(unit: &ShaderUnit) -> Vec<String> {
    lowered(unit, |lowered| {
        let mut complaints = Vec::new();
        // All of the pipeline's layout count, used or not.
        let storage = unit.bindings.iter().filter(|binding| binding.kind != BindingKind::Uniform).count();
        if storage > STORAGE_BUFFERS {
            complaints.push(format!("it binds {storage} storage buffers, more than {STORAGE_BUFFERS}"));
        }
        // As wgpu counts it: each variable rounded up to 16 bytes.
        let workgroup = used(lowered).filter(|variable| variable.space == AddressSpace::WorkGroup);
        let bytes: u32 =
            workgroup.map(|variable| size_of(&lowered.module, variable.ty).next_multiple_of(16)).sum();
        if bytes > WORKGROUP_BYTES {
            complaints
                .push(format!("it uses {bytes} bytes of workgroup memory, more than {WORKGROUP_BYTES}"));
        }
        let size = lowered.entry_point().workgroup_size;
        if size != unit.workgroup_size {
            let host = unit.workgroup_size;
            complaints.push(format!("its workgroup size is {size:?}, the host believes {host:?}"));
        }
        let invocations: u32 = size.iter().product();
        if invocations > INVOCATIONS {
            complaints
                .push(format!("its workgroups have {invocations} invocations, more than {INVOCATIONS}"));
        }
        complaints.extend(private_arrays(lowered));
        complaints
    })
}

/// Global variables that the entry point reaches.
fn used(lowered: &Lowered) -> impl Iterator<Item = &naga::GlobalVariable> {
    let info = lowered.info.get_entry_point(lowered.entry);
    let all = lowered.module.global_variables.iter();
    all.filter(move |(handle, _)| !info[*handle].is_empty()).map(|(_, variable)| variable)
}

fn private_arrays(lowered: &Lowered) -> Vec<String> {
    let globals = lowered.written.global_variables.iter().map(|(_, variable)| variable);
    let private = globals
        .filter(|variable| variable.space == AddressSpace::Private)
        .map(|variable| (variable.ty, variable.name.as_deref(), "the module"));
    let locals = lowered.functions().flat_map(|(function, _, place)| {
        function.local_variables.iter().map(move |(_, local)| (local.ty, local.name.as_deref(), place))
    });
    private
        .chain(locals)
        .filter(|&(ty, _, _)| !matches!(lowered.written.types[ty].inner, TypeInner::Scalar(_)))
        .map(|(ty, name, place)| {
            (size_of(&lowered.written, ty).div_ceil(4), name.unwrap_or("a variable"), place)
        })
        .filter(|&(words, _, _)| words > PRIVATE_WORDS)
        .map(|(words, name, place)| format!("{name} of {place} has {words} words, more than {PRIVATE_WORDS}"))
        .collect()
}

fn size_of(module: &naga::Module, ty: naga::Handle<naga::Type>) -> u32 {
    // A type too large for naga to count is too large for the limits.
    module.types[ty].inner.try_size(module.to_ctx()).unwrap_or(u32::MAX / 4)
}

mod tests {
    use eplb_wgpu::testing::Binding;

    use super::*;
    use crate::fixture::{fails, good, passes, with};

    #[test]
    fn every_shader_keeps_to_webgpus_default_limits() {
        crate::over_all(check);
    }

    #[test]
    fn what_is_beyond_a_limit_is_found() {
        passes(check);
        fails(check, &with("array<u32, 64>", "array<u32, 4097>"), "16400 bytes of workgroup memory");
        fails(check, &with("array<u32, 16>", "array<u32, 129>"), "scratch of main has 129 words");
        fails(
            check,
            &with(
                "var<workgroup> partial",
                "var<private> table: array<vec2<u32>, 65>; var<workgroup> partial",
            ),
            "table of the module has 130 words",
        );
        let mut wide = good();
        wide.constants = vec![("WORKGROUP", 512.0)];
        wide.workgroup_size = [512, 1, 1];
        fails(check, &wide, "512 invocations");
        let mut wrong = good();
        wrong.constants = vec![("WORKGROUP", 32.0)];
        fails(check, &wrong, "[32, 1, 1], the host believes [64, 1, 1]");
    }

    #[test]
    fn storage_buffers_beyond_the_limit_are_found() {
        let mut unit = good();
        let buffer = |binding| Binding { group: 0, binding, kind: BindingKind::StorageRead };
        unit.bindings.extend((3..9).map(buffer));
        assert_eq!(check(&unit), Vec::<String>::new());
        unit.bindings.push(buffer(9));
        fails(check, &unit, "it binds 9 storage buffers");
    }
}
