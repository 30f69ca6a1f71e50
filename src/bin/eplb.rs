//! The `eplb` command; what it does is in `eplb_wgpu::cli`.

fn main() -> std::process::ExitCode {
    eplb_wgpu::cli::main()
}
