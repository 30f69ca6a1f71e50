//! The one place of `unsafe` code: shaders without the counter that wgpu adds to every loop.
//!
//! wgpu has each loop of a shader count its turns and leave after 2^32 of them, since compilers may take it for granted
//! that loops end. With the counters lavapipe's front end took three times as long over the search's shader (1.2 s, not
//! .4 s), and its compiler a tenth longer over all shaders; what runs is hardly slower. All other checks stay on: of
//! indices, of divisors.

/// Makes a shader, of which every loop has to end; see the proof inside.
#[allow(unsafe_code)]
pub fn shader_module(
    device: &wgpu::Device,
    descriptor: wgpu::ShaderModuleDescriptor<'_>,
) -> wgpu::ShaderModule {
    let checks =
        wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: of what `checked` asks for, only the bounding of loops is off, for which the caller must ensure that no loop
    // is infinite. The engine is given the shaders of `shaders/` alone, for problems that the host has checked, and
    // each of their loops ends: a `for` counts by a constant towards a bound that the loop does not change, sizes
    // being far below 2^32; the few other loops are listed, each with the reason why it ends. The list is in
    // `tests/static_checks/loops.rs`, which fails for a loop that is neither.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
