//! `eplb bench` as a user runs it: the record of a run, and records joined.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

fn eplb(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_eplb")).args(args).env("NODEVICE_SELECT", "1").output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The record of the suite on the CPU backend, run once.
fn record() -> Value {
    static RECORD: OnceLock<String> = OnceLock::new();
    let text = RECORD.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record.json");
        let output = eplb(&["bench", "--device", "cpu", "--json", "--out", path.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, stdout(&output));
        written
    });
    serde_json::from_str(text).unwrap()
}

/// Runs `bench --collate` on these records.
fn collate(records: &[String], json: bool) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut args = vec!["bench".to_string(), "--collate".to_string()];
    for (at, record) in records.iter().enumerate() {
        let path = folder.path().join(format!("{at}.json"));
        std::fs::write(&path, record).unwrap();
        args.push(path.to_str().unwrap().to_string());
    }
    args.extend(json.then(|| "--json".to_string()));
    eplb(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The same run as on another machine, whose device is a GPU.
fn elsewhere(record: &Value) -> Value {
    let mut other = record.clone();
    other["devices"][0]["name"] = "Some GPU".into();
    other["devices"][0]["kind"] = "discrete".into();
    other["devices"][0]["backend"] = "vulkan".into();
    other
}

#[test]
fn a_record_tells_the_device_and_what_it_did() {
    let record = record();
    assert_eq!(
        (&record["format"], &record["version"], &record["plan_version"]),
        (&"eplb-bench/1".into(), &env!("CARGO_PKG_VERSION").into(), &eplb_wgpu::PLAN_VERSION.into())
    );
    let [device] = &record["devices"].as_array().unwrap()[..] else { panic!("{record}") };
    assert_eq!(
        (&device["kind"], &device["software"], &device["error"]),
        (&"cpu".into(), &false.into(), &Value::Null)
    );
    assert!(device["limits"]["threads"].as_u64().unwrap() > 0);
    let cases = device["cases"].as_array().unwrap();
    let presets: Vec<&str> = cases.iter().map(|case| case["preset"].as_str().unwrap()).collect();
    assert!(["gen00", "fast", "default"].iter().all(|preset| presets.contains(preset)), "{presets:?}");
    for case in cases {
        assert!(
            case["first_ms"].as_f64().unwrap() > 0.0 && case["later_ms"].as_f64().unwrap() > 0.0,
            "{case}"
        );
    }
    let batch = &device["batch"];
    assert!(
        batch["candidates"].as_u64().unwrap() > 0 && batch["candidates_per_second"].as_f64().unwrap() > 0.0
    );
    assert!(batch["stages_ms"]["s4_pack"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_record_that_cannot_be_written_is_refused_before_the_suite_runs() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/record.json");
    for out in [folder.path(), &missing] {
        let output = eplb(&["bench", "--device", "cpu", "--out", out.to_str().unwrap()]);
        let error = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("cannot write"), "{error}");
        // The table is printed before the record is written.
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn equal_plans_are_shown_as_equal() {
    let record = record();
    let records = [record.to_string(), elsewhere(&record).to_string()];
    let output = collate(&records, false);
    let table = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{table}");
    let fingerprint = record["devices"][0]["cases"][0]["fingerprint"].as_str().unwrap();
    assert!(table.contains(&format!("{fingerprint} (2 equal)")), "{table}");
    assert!(table.contains("Some GPU (vulkan)") && !table.contains("differ**"), "{table}");
    let report: Value = serde_json::from_str(&stdout(&collate(&records, true))).unwrap();
    assert_eq!((&report["equal"], report["devices"].as_array().map(Vec::len)), (&true.into(), Some(2)));
}

#[test]
fn a_plan_that_differs_is_marked_and_fails() {
    let record = record();
    let mut other = elsewhere(&record);
    other["devices"][0]["cases"][1]["fingerprint"] = "0123456789abcdef".into();
    // The CPU backend's plan is the reference, wherever it stands.
    let records = [other.to_string(), record.to_string()];
    let output = collate(&records, false);
    let table = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{table}");
    let fingerprint = record["devices"][0]["cases"][1]["fingerprint"].as_str().unwrap();
    assert!(table.contains(&format!("{fingerprint} (**1 of 2 differ**)")), "{table}");
    assert_eq!(table.matches("**0123456789abcdef**").count(), 1, "{table}");
    let output = collate(&records, true);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let unequal = report["cases"].as_array().unwrap().iter().filter(|case| case["equal"] == false).count();
    assert_eq!((&report["equal"], unequal), (&false.into(), 1));
}

#[test]
fn plans_of_different_plan_versions_are_not_compared() {
    let record = record();
    let mut other = elsewhere(&record);
    other["plan_version"] = 99.into();
    other["devices"][0]["cases"][1]["fingerprint"] = "0123456789abcdef".into();
    let output = collate(&[record.to_string(), other.to_string()], false);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("| plan version 99: "));
}

#[test]
fn a_damaged_record_is_refused() {
    let record = record();
    let changed = |change: fn(&mut Value)| {
        let mut damaged = record.clone();
        change(&mut damaged);
        damaged.to_string()
    };
    let text = record.to_string();
    let cases = [
        (text[..text.len() - 2].to_string(), "not a record"),
        (String::new(), "not a record"),
        (changed(|r| r["format"] = "eplb-bench/9".into()), "format eplb-bench/9 is not eplb-bench/1"),
        (changed(|r| drop(r.as_object_mut().unwrap().remove("devices"))), "missing field `devices`"),
        (changed(|r| r["devices"][0]["cases"][0]["first_ms"] = "fast".into()), "not a record"),
        (changed(|r| r["devices"][0]["cases"][0]["fingerprint"] = "xyz".into()), "fingerprint xyz is not"),
    ];
    for (damaged, part) in cases {
        let output = collate(&[text.clone(), damaged], false);
        let error = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), String::new()), "{part}: {error}");
        assert!(error.contains(part) && error.contains("1.json"), "{part}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
}

#[test]
fn the_records_shipped_agree_and_say_that_they_are_of_software() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/records");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let output = collate(&texts, false);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    for text in texts {
        let record: Value = serde_json::from_str(&text).unwrap();
        for device in record["devices"].as_array().unwrap() {
            assert!(device["software"] == true || device["kind"] == "cpu", "{device}");
        }
    }
}
