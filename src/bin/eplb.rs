//! The `eplb` command; what it does is in `eplb_wgpu::cli`.

fn main() -> std::process::ExitCode {
    #[cfg(all(target_os = "linux", feature = "gpu"))]
    quiet_device_selection();
    eplb_wgpu::cli::main()
}

/// Without a desktop Mesa's Vulkan layer that chooses a device prints errors about it before the first answer. It reads the
/// environment when a driver is loaded, and a process cannot safely change its own: so it begins anew, within a few
/// milliseconds, with the variable that turns the layer off. What the user has said of the layer stays.
#[cfg(all(target_os = "linux", feature = "gpu"))]
fn quiet_device_selection() {
    use std::os::unix::process::CommandExt;
    const OFF: &str = "NODEVICE_SELECT";
    let said = ["XDG_RUNTIME_DIR", "MESA_VK_DEVICE_SELECT", OFF]
        .into_iter()
        .any(|name| std::env::var_os(name).is_some());
    if said {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "eplb".into());
    // It comes back only where it failed; the errors are no reason not to go on.
    let _ = std::process::Command::new(program).arg0(name).args(arguments).env(OFF, "1").exec();
}
