//! Every shader translates to what the other APIs take: SPIR-V, HLSL, MSL, GLSL ES.
//!
//! Where `spirv-val` is installed it reads the SPIR-V; `EPLB_REQUIRE_SPIRV_VAL=1` makes its absence a failure.

use std::io::Write;
use std::process::{Command, Stdio};

use eplb_wgpu::testing::ShaderUnit;
use naga::ShaderStage::Compute;
use naga::back::{glsl, hlsl, msl, spv};

use crate::lowered::{Lowered, lowered};

/// One translation, with the name that its complaints carry.
type Backend = (&'static str, fn(&Lowered) -> Result<(), String>);

const BACKENDS: [Backend; 5] = [
    ("SPIR-V", |lowered| to_spirv(lowered).map(|_| ())),
    // The older shader model is for the compiler that every Windows has.
    ("HLSL 5.1", |lowered| to_hlsl(lowered, hlsl::ShaderModel::V5_1)),
    ("HLSL 6.0", |lowered| to_hlsl(lowered, hlsl::ShaderModel::V6_0)),
    ("MSL", to_msl),
    ("GLSL ES 3.10", to_glsl),
];

pub fn check(unit: &ShaderUnit) -> Vec<String> {
    lowered(unit, |lowered| {
        let translated = BACKENDS.iter().map(|(name, translate)| (name, translate(lowered)));
        translated.filter_map(|(name, result)| Some(format!("{name}: {}", result.err()?))).collect()
    })
}

fn to_spirv(lowered: &Lowered) -> Result<Vec<u32>, String> {
    let pipeline =
        spv::PipelineOptions { shader_stage: Compute, entry_point: lowered.entry_point().name.clone() };
    spv::write_vec(&lowered.module, &lowered.info, &spv::Options::default(), Some(&pipeline))
        .map_err(|error| error.to_string())
}

fn to_hlsl(lowered: &Lowered, shader_model: hlsl::ShaderModel) -> Result<(), String> {
    let options = hlsl::Options { shader_model, ..hlsl::Options::default() };
    let entry_point = Some((Compute, lowered.entry_point().name.clone()));
    let pipeline = hlsl::PipelineOptions { entry_point };
    let mut text = String::new();
    let written =
        hlsl::Writer::new(&mut text, &options, &pipeline).write(&lowered.module, &lowered.info, None);
    let info = written.map_err(|error| error.to_string())?;
    first_error(info.entry_point_names)
}

fn to_msl(lowered: &Lowered) -> Result<(), String> {
    let options = msl::Options { lang_version: (2, 0), ..msl::Options::default() };
    let entry_point = Some((Compute, lowered.entry_point().name.clone()));
    let pipeline = msl::PipelineOptions { entry_point, ..msl::PipelineOptions::default() };
    let written = msl::write_string(&lowered.module, &lowered.info, &options, &pipeline);
    let (_, info) = written.map_err(|error| error.to_string())?;
    first_error(info.entry_point_names)
}

fn to_glsl(lowered: &Lowered) -> Result<(), String> {
    let options = glsl::Options { version: glsl::Version::new_gles(310), ..glsl::Options::default() };
    let entry_point = lowered.entry_point().name.clone();
    let pipeline = glsl::PipelineOptions { shader_stage: Compute, entry_point, multiview: None };
    let mut text = String::new();
    let policies = naga::proc::BoundsCheckPolicies::default();
    glsl::Writer::new(&mut text, &lowered.module, &lowered.info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write())
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn first_error<E: std::fmt::Display>(names: Vec<Result<String, E>>) -> Result<(), String> {
    names.into_iter().try_for_each(|name| name.map(|_| ()).map_err(|error| error.to_string()))
}

/// The complaint of `spirv-val` about the words, if it has one.
fn spirv_val(words: &[u32]) -> Result<(), String> {
    let mut child = Command::new("spirv-val")
        .args(["--target-env", "vulkan1.1", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("spirv-val does not start: {error}"))?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut input = child.stdin.take().expect("its input is piped");
    input.write_all(&bytes).map_err(|error| format!("spirv-val does not read: {error}"))?;
    drop(input);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("spirv-val: {}", String::from_utf8_lossy(&said).trim()))
}

/// Whether to run `spirv-val`: it is here, or has to be.
fn with_spirv_val() -> bool {
    let required = std::env::var("EPLB_REQUIRE_SPIRV_VAL").as_deref() == Ok("1");
    let here = Command::new("spirv-val").arg("--version").output().is_ok();
    if !here && !required {
        eprintln!("not run: spirv-val is not installed (package spirv-tools)");
    }
    here || required
}

mod tests {
    use super::*;
    use crate::fixture::{good, passes, with};

    #[test]
    fn every_shader_translates_to_every_api() {
        crate::over_all(check);
    }

    #[test]
    fn what_one_api_lacks_is_named_with_it() {
        passes(check);
        // A module that validates, but has no such entry point, is refused by every backend.
        let mut lowered = Lowered::new(&good()).unwrap();
        lowered.module.entry_points[0].name = "float".to_string();
        let renamed: Vec<bool> = BACKENDS.iter().map(|(_, translate)| translate(&lowered).is_ok()).collect();
        assert_eq!(renamed, [true; 5], "a reserved word of the target is renamed");
        lowered.module.entry_points[0].stage = naga::ShaderStage::Vertex;
        for (name, translate) in BACKENDS {
            assert!(translate(&lowered).is_err(), "{name} translates a compute shader that is not there");
        }
        let broken = with("result[id.x] =", "result[id.x] +");
        assert_eq!(check(&broken).len(), 1);
    }

    #[test]
    fn spirv_val_accepts_every_shader() {
        if with_spirv_val() {
            crate::over_all(|unit| {
                lowered(unit, |lowered| {
                    to_spirv(lowered).and_then(|words| spirv_val(&words)).err().into_iter().collect()
                })
            });
        }
    }

    #[test]
    fn spirv_val_refuses_what_is_not_spirv() {
        if with_spirv_val() {
            let words = to_spirv(&Lowered::new(&good()).unwrap()).unwrap();
            assert_eq!(spirv_val(&words), Ok(()));
            assert!(spirv_val(&words[..words.len() - 1]).is_err(), "the last instruction is cut");
        }
    }
}
