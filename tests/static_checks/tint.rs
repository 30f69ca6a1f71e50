//! Tint, the WGSL compiler of Dawn and Chromium, compiles every shader: a second opinion beside naga's.
//!
//! It is installed by `npm ci --prefix tests/tint`, needs a Vulkan driver that Dawn takes (SwiftShader is one), and
//! is run where `EPLB_REQUIRE_TINT=1`.

use std::io::Write;
use std::process::{Command, Stdio};

use eplb_wgpu::testing::ShaderUnit;

/// The complaints of Tint about some shaders, all of them at once: starting Dawn is what takes the time.
fn complaints(units: &[ShaderUnit]) -> Result<Vec<String>, String> {
    let describe = |unit: &ShaderUnit| {
        let constants: serde_json::Map<_, _> =
            unit.constants.iter().map(|&(name, value)| (name.to_string(), value.into())).collect();
        serde_json::json!({
            "place": format!("shaders/{}.wgsl, {}", unit.stem, unit.entry_point),
            "source": unit.source, "entry_point": unit.entry_point, "constants": constants,
        })
    };
    let input = serde_json::Value::from(units.iter().map(describe).collect::<Vec<_>>()).to_string();
    let mut child = Command::new("node")
        .arg(crate::root().join("tests/tint/compile.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("node does not start: {error}"))?;
    let mut stdin = child.stdin.take().expect("its input is piped");
    // Where it ended before it read all, its exit says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<String> = said.lines().map(str::to_string).collect();
    let last = lines.pop();
    if !output.status.success() || last != Some(format!("compiled {}", units.len())) {
        return Err(format!("it failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(lines)
}

/// Whether to run it. Not wherever it is installed: Dawn refuses some drivers that wgpu takes.
fn with_tint() -> bool {
    let required = std::env::var("EPLB_REQUIRE_TINT").as_deref() == Ok("1");
    if !required {
        eprintln!("not run: EPLB_REQUIRE_TINT is not 1");
    }
    required
}

mod tests {
    use super::*;
    use crate::fixture::{good, with};

    #[test]
    fn tint_compiles_every_shader() {
        if with_tint() {
            let complaints = complaints(&eplb_wgpu::testing::shaders()).unwrap();
            assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
        }
    }

    #[test]
    fn what_tint_refuses_is_found() {
        if with_tint() {
            // naga lets a barrier depend on loaded values.
            let barrier = "if loads[id.x] > 0u { workgroupBarrier(); }";
            let faulty = [good(), with("workgroupBarrier();", barrier), with("u32, 64>;", "u32, 64>")];
            let complaints = complaints(&faulty).unwrap();
            let about = |part: &str| complaints.iter().any(|complaint| complaint.contains(part));
            assert!(about("'workgroupBarrier' must only be called from uniform"), "{complaints:?}");
            assert!(about("expected ';'"), "{complaints:?}");
            let good = super::complaints(&[good()]).unwrap();
            assert_eq!(good, Vec::<String>::new());
        }
    }
}
