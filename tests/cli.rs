//! The `eplb` command as a user runs it: formats, errors, files.
#![cfg(feature = "cli")]

#[path = "cli/files.rs"]
mod files;
#[path = "cli/foreign.rs"]
mod foreign;
#[path = "cli/guide.rs"]
mod guide;
#[path = "cli/idle.rs"]
mod idle;
#[path = "cli/loads.rs"]
mod loads;
#[path = "cli/maps.rs"]
mod maps;
#[path = "cli/moving.rs"]
mod moving;
#[path = "cli/options.rs"]
mod options;
#[path = "cli/progress.rs"]
mod progress;
#[path = "cli/report.rs"]
mod report;
#[path = "cli/shares.rs"]
mod shares;
#[path = "cli/sound.rs"]
mod sound;
#[path = "cli/speeds.rs"]
mod speeds;
#[path = "cli/traffic.rs"]
mod traffic;

use std::path::Path;
use std::process::{Command, Output};

use eplb_wgpu::trace::{LoadHistory, Window};
use proptest::prelude::*;

fn eplb(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eplb")).args(args).env("NODEVICE_SELECT", "1").output().unwrap()
}

/// The one line of JSON that a command prints.
fn json(args: &[&str]) -> serde_json::Value {
    let output = eplb(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stdout(&output).lines().count(), 1);
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Exit code 2, one line on stderr that holds `part`, and nothing on stdout.
#[track_caller]
fn assert_refused(args: &[&str], part: &str) {
    let output = eplb(args);
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", stdout(&output));
    assert!(error.contains(part), "{args:?}: {error:?} does not hold {part:?}");
    assert_eq!(error.trim_end().lines().count(), 1, "{args:?}: {error:?}");
}

const SMALL: [&str; 6] = ["--replicas", "12", "--gpus", "4", "--device", "cpu"];

fn plan_args<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["plan", file], &SMALL[..], more].concat()
}

fn write(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn every_format_gives_the_same_plan() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [[90u64, 132, 40, 61, 104, 165, 39, 4], [20, 107, 104, 64, 19, 197, 187, 157]];
    let history = LoadHistory::from_counts(1, 2, 8, rows.concat()).unwrap();
    let mut files = Vec::new();
    for extension in ["json", "npy", "csv"] {
        let path = folder.path().join(format!("loads.{extension}"));
        history.write(&path).unwrap();
        assert_eq!(LoadHistory::read(&path).unwrap(), history, "{extension}");
        files.push(path.to_str().unwrap().to_string());
    }
    let rows = format!("{rows:?}");
    files.push(write(folder.path(), "bare.json", rows.as_bytes()));
    let floats = rows.replace(',', ".0,").replace("].0,", "],").replace(']', ".0]").replace("].0]", "]]");
    files.push(write(folder.path(), "floats.json", floats.as_bytes()));
    let trace = format!("{{\"load_history\": [{{\"logical_expert_load\": {rows}}}]}}");
    files.push(write(folder.path(), "trace.json", trace.as_bytes()));
    files.push(write(folder.path(), "windows.json", format!("{{\"logical_count\": [{rows}]}}").as_bytes()));
    let fingerprints: Vec<String> = files
        .iter()
        .map(|file| {
            let output = eplb(&plan_args(file, &["--json"]));
            let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect(file);
            report["fingerprint"].as_str().unwrap().to_string()
        })
        .collect();
    assert!(fingerprints.iter().all(|f| *f == fingerprints[0]), "{fingerprints:?}");
}

#[test]
fn wrong_things_give_one_line_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = write(folder.path(), "good.json", b"[[1,2,3,4,5,6,7,8]]");
    let out = folder.path().join("plan.json");
    let out = out.to_str().unwrap();
    let bad = |name: &str, content: &[u8]| write(folder.path(), name, content);
    let file = |file: &str, part: &str| assert_refused(&plan_args(file, &["--out", out]), part);
    file(&bad("ragged.json", b"[[1,2],[1]]"), "layer 1 has 1 loads");
    file(&bad("negative.csv", b"1,-2\n"), "-2 is negative");
    file(&bad("nan.csv", b"1,NaN\n"), "is not a finite number");
    file(&bad("infinite.csv", b"1,inf\n"), "is not a finite number");
    file(&bad("large.csv", b"1,1e30\n"), "is larger than 2^64");
    file(&bad("ragged.csv", b"1,2\n3\n"), "line 2 has 1 columns");
    file(&bad("empty.json", b""), "the file is empty");
    file(&bad("blank.csv", b"\n\n"), "layers 0");
    file(&bad("deep.json", b"[1,2]"), "the array of loads has 1 dimensions");
    file(&bad("words.json", b"[[\"a\"]]"), "is not a number");
    file(&bad("loads.txt", b"1"), "is not json, jsonl, npy, npz, csv or safetensors");
    file(&bad("damaged.npy", b"\x93NUMPY"), "not an npy file");
    let history = LoadHistory::from_counts(1, 2, 8, vec![1; 16]).unwrap();
    let whole = folder.path().join("whole.npy");
    history.write(&whole).unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    file(&bad("short.npy", &bytes[..bytes.len() - 9]), "truncated");
    let header = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00".as_slice(), &length, text.as_bytes()].concat()
    };
    let nested = format!(
        "{{'descr': {}1{}, 'fortran_order': False, 'shape': (2, 2), }}",
        "[".repeat(40),
        "]".repeat(40)
    );
    file(&bad("nested.npy", &header(&nested)), "is not a plain number");
    let huge = "{'descr': '<u4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }";
    file(&bad("huge.npy", &header(huge)), "the shape is too large");
    file("missing.json", "missing.json");
    let wrong = |args: &[&str], part: &str| {
        assert_refused(&[&["plan", good.as_str(), "--device", "cpu"], args].concat(), part)
    };
    wrong(&["--replicas", "13", "--gpus", "4"], "--replicas 13 is not a multiple of --gpus 4");
    wrong(&["--replicas", "4", "--gpus", "4"], "is less than the number of experts 8");
    wrong(&["--replicas", "12", "--gpus", "4", "--nodes", "3"], "--gpus 4 is not a multiple of --nodes 3");
    wrong(&["--replicas", "12", "--gpus", "4", "--groups", "3"], "is not a multiple of --groups 3");
    wrong(&["--replicas", "12", "--gpus", "4", "--window", "1"], "--window 1 is not there");
    wrong(&["--replicas", "12", "--gpus", "4", "--layers", "0..9"], "is not a range within 0..1");
    wrong(&["--replicas", "12", "--gpus", "4", "--preset", "gen99"], "invalid value 'gen99'");
    wrong(&["--replicas", "12", "--gpus", "4", "--starts", "0"], "--starts 0 is not between 1 and 65536");
    wrong(
        &["--replicas", "12", "--gpus", "4", "--iterations", "1048577"],
        "--iterations 1048577 is not between",
    );
    wrong(
        &["--replicas", "12", "--gpus", "4", "--groups", "2", "--nodes", "2", "--assignments", "0"],
        "--assignments 0 is not between 1 and 1024",
    );
    wrong(
        &["--replicas", "12", "--gpus", "4", "--max-replicas-per-expert", "1"],
        "--max-replicas-per-expert 1 is too few: 12 replicas of 8 experts need 2",
    );
    wrong(&["--replicas", "12", "--gpus", "4", "--out", "/nowhere/plan.json"], "cannot write");
    assert_refused(&["plan", &good, "--replicas", "12", "--gpus", "4", "--device", "no such"], "found:");
    let output = eplb(&plan_args(&good, &["--fallback", "gpu"]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("'gpu' for '--fallback <FALLBACK>'; it is one of [cpu, never]"), "{error}");
    assert!(!Path::new(out).exists());
}

#[test]
fn a_plan_is_never_written_over_an_input() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let plan = folder.path().join("plan.json");
    let plan = plan.to_str().unwrap();
    assert!(eplb(&plan_args(&loads, &["--out", plan])).status.success());
    let before = [&loads, plan].map(|path| std::fs::read(path).unwrap());
    let same = folder.path().join(".").join("loads.json");
    for out in [&loads, same.to_str().unwrap(), plan] {
        assert_refused(
            &plan_args(&loads, &["--previous", plan, "--out", out]),
            "it is an input of this command",
        );
    }
    assert_eq!(before, [&loads, plan].map(|path| std::fs::read(path).unwrap()));
    // Nor over the file of speeds, whatever reads it.
    let speeds = write(folder.path(), "speeds.json", b"1 1 1 1");
    let split = ["split", &loads, plan, "--batch", "--gpu-speeds", &speeds, "--out", &speeds];
    let report = ["report", &loads, plan, "--gpu-speeds", &speeds, "--out", &speeds];
    let args = [plan_args(&loads, &["--gpu-speeds", &speeds, "--out", &speeds]), split.into(), report.into()];
    for args in args {
        assert_refused(&args, "it is an input of this command");
    }
    assert_eq!(std::fs::read(&speeds).unwrap(), b"1 1 1 1");
    // Of a folder all files that are read are inputs, and others are not.
    let traces = folder.path().join("traces");
    std::fs::create_dir(&traces).unwrap();
    let line = br#"{"step": 0, "layer": 0, "top_indices": [[0, 1, 2, 3, 4, 5, 6, 7]]}"#;
    let trace = write(&traces, "router_trace_rank0.jsonl", line);
    let other = traces.join("plan.json").to_str().unwrap().to_string();
    let traces = traces.to_str().unwrap();
    assert_refused(
        &plan_args(traces, &["--format", "sglang", "--out", &trace]),
        "it is an input of this command",
    );
    for _ in 0..2 {
        let made = eplb(&plan_args(traces, &["--out", &other]));
        assert!(made.status.success(), "{made:?}");
    }
}

#[test]
fn a_plan_file_passes_the_check_and_a_damaged_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8],[0,0,0,0,0,0,0,0]]");
    let path = folder.path().join("plan.json");
    let plan = path.to_str().unwrap();
    assert!(eplb(&plan_args(&loads, &["--out", plan])).status.success());
    let output = eplb(&["check", &loads, plan, "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((output.status.code(), &report["valid"]), (Some(0), &true.into()));
    assert_eq!(report["layers_without_load"], 1);
    let text = std::fs::read_to_string(&path).unwrap();
    let damaged = write(
        folder.path(),
        "damaged.json",
        text.replacen("\"fingerprint\":\"", "\"fingerprint\":\"0", 1).as_bytes(),
    );
    assert_refused(&["check", &loads, &damaged], "damaged: checksum");
    let other = write(folder.path(), "other.json", text.replace("eplb-plan/1", "eplb-plan/9").as_bytes());
    assert_refused(&["check", &loads, &other], "format eplb-plan/9 is not eplb-plan/1");
    // A plan for other loads: valid maps, wrong shape.
    let fewer = write(folder.path(), "fewer.json", b"[[1,2,3,4,5,60,7,8]]");
    assert_refused(&["check", &fewer, plan], "layers of the loads: 1 are not the 2 of the map");
}

#[test]
fn generated_loads_are_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: &str| {
        let path = folder.path().join(name);
        let out = path.to_str().unwrap();
        let args = [
            "generate",
            "--layers",
            "3",
            "--experts",
            "16",
            "--windows",
            "2",
            "--drift",
            "0.1",
            "--dense-layers",
            "1",
            "--seed",
            seed,
            "--out",
            out,
        ];
        assert!(eplb(&args).status.success());
        LoadHistory::read(&path).unwrap()
    };
    let first = make("a.json", "5");
    assert_eq!(first, make("b.npy", "5"));
    assert_ne!(first, make("c.json", "6"));
    assert_eq!((first.windows(), first.layers(), first.experts()), (2, 3, 16));
    assert_eq!(first.loads(Window::Last).unwrap().layers_without_load(), 1);
}

#[test]
fn devices_are_listed_and_presets_explained() {
    let report: serde_json::Value = serde_json::from_str(&stdout(&eplb(&["devices", "--json"]))).unwrap();
    assert!(report["devices"].is_array() && report["auto"].is_string());
    let help = stdout(&eplb(&["plan", "--preset", "help"]));
    for preset in eplb_wgpu::Preset::all() {
        assert!(help.contains(preset.name()), "{preset}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn what_is_written_is_read(counts in prop::collection::vec(any::<u64>(), 12), kind in 0usize..3) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(["x.json", "x.npy", "x.csv"][kind]);
        let history = LoadHistory::from_counts(1, 4, 3, counts).unwrap();
        history.write(&path).unwrap();
        prop_assert_eq!(LoadHistory::read(&path).unwrap(), history);
    }
}

#[cfg(feature = "gpu")]
#[test]
fn the_lineage_is_compared_on_this_and_the_next_window() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[[1,2,3,4,5,60,7,8]],[[9,2,3,4,5,60,7,1]]]");
    let output =
        eplb(&["bench", "--lineage", &loads, "--replicas", "12", "--gpus", "4", "--device", "cpu", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let presets = report["presets"].as_array().unwrap();
    assert_eq!(presets.len(), eplb_wgpu::Preset::all().count());
    let of = |name: &str| presets.iter().find(|row| row["preset"] == name).unwrap();
    let number = |row: &serde_json::Value, field: &str| row[field].as_f64().unwrap();
    assert!(number(of("default"), "balancedness") >= number(of("gen00"), "balancedness"));
    assert_eq!(of("gen00")["next_replica_balancedness"], of("gen10")["next_replica_balancedness"]);
}

#[test]
fn the_cpu_backend_has_the_fingerprints_that_are_committed() {
    let output = eplb(&["check", "--fingerprints", "--device", "cpu", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((output.status.code(), &report["equal"]), (Some(0), &true.into()), "{report}");
    let committed =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/suite/fingerprints.json"));
    let committed: serde_json::Value = serde_json::from_str(&committed.unwrap()).unwrap();
    assert_eq!(report["plan_version"], committed["plan_version"]);
    assert_eq!(report["fingerprints"], committed["fingerprints"]);
    for preset in eplb_wgpu::Preset::all() {
        for policy in ["global", "hierarchical"] {
            let name = format!("{preset} {policy}");
            assert!(committed["fingerprints"][&name].is_string(), "{preset} {policy}");
        }
    }
    let mixed = eplb(&["check", "loads.json", "plan.json", "--device", "cpu"]);
    assert_eq!(mixed.status.code(), Some(2), "a plan file is checked on no device");
    let output = eplb(&["check", "--fingerprints", "--device", "cpu"]);
    assert!(stdout(&output).contains("fingerprints  all equal"), "{}", stdout(&output));
}

#[test]
fn some_of_the_fingerprints_can_be_compared() {
    let some = |only: &[&str]| {
        let output = eplb(&[&["check", "--fingerprints", "--device", "cpu", "--json"], only].concat());
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!((output.status.code(), &report["equal"]), (Some(0), &true.into()), "{report}");
        let names: Vec<_> = report["fingerprints"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(report["cases"], names.len() - 1, "the loads are no case");
        names
    };
    assert_eq!(some(&["--only", "FAST global"]), ["fast global", "loads"]);
    assert_eq!(some(&["--only", "largest", "--only", "gen03"]).len(), 4);
    let output = eplb(&["check", "--fingerprints", "--device", "cpu", "--only", "steep"]);
    let rows: Vec<_> =
        stdout(&output).lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(rows.contains(&"cases 1 of 92".to_string()), "{rows:?}");
    assert_refused(
        &["check", "--fingerprints", "--device", "cpu", "--only", "fast", "--only", "none"],
        "\"none\"",
    );
    assert_eq!(eplb(&["check", "loads.json", "plan.json", "--only", "fast"]).status.code(), Some(2));
}
