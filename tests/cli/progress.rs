//! What a long command shows, how Ctrl-C ends it, and plans within a time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{assert_refused, eplb, stdout};

/// A plan that takes a second a layer, of twelve layers.
fn long_plan(folder: &Path) -> Vec<String> {
    let loads = folder.join("loads.npy").to_str().unwrap().to_string();
    let generate = ["generate", "--layers", "12", "--out", &loads];
    assert!(eplb(&generate).status.success());
    let shape = ["--replicas", "288", "--gpus", "32", "--device", "cpu"];
    let budget = ["--preset", "rec5", "--starts", "65536"];
    [&["plan", loads.as_str()], &shape[..], &budget[..]].concat().into_iter().map(String::from).collect()
}

#[test]
fn a_time_limit_ends_a_plan_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (args, out) = (long_plan(folder.path()), folder.path().join("plan.json"));
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.extend(["--time-limit", "0.05", "--json", "--out", out.to_str().unwrap()]);
    let start = Instant::now();
    let output = eplb(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let warning = report["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("time limit of 0.05 s: 0 of 12 layers are planned"), "{warning}");
    assert!(warning.contains("not reproducible"), "{warning}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        error,
        format!("eplb: warning: {warning}\n"),
        "nothing but the warning where there is no terminal"
    );
    assert!(out.exists());
    for bad in ["-1", "x", "nan", "1e300"] {
        let args = ["plan", "a.json", "--replicas", "8", "--gpus", "4", &format!("--time-limit={bad}")];
        let output = eplb(&args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && error.contains("is not a number of seconds"),
            "{bad}: {error}"
        );
    }
    let both =
        ["plan", "a.json", "--replicas", "8", "--gpus", "4", "--time-limit", "1", "--previous", "b.json"];
    assert!(String::from_utf8(eplb(&both).stderr).unwrap().contains("cannot be used with"));
    assert_refused(
        &["plan", "missing.json", "--replicas", "8", "--gpus", "4", "--time-limit", "1"],
        "missing.json",
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_plan_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let args = long_plan(folder.path());
    let out = folder.path().join("plan.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_eplb"));
    let child = child.args(&args).arg("--out").arg(&out).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    let start = Instant::now();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    // A tenth of a second, and what a busy machine adds.
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "eplb: stopped: no file was written\n");
    assert_eq!(output.stdout, b"");
    let left = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["loads.npy"]);
}

/// What a command shows on a terminal, which `script` plays.
#[cfg(target_os = "linux")]
fn on_terminal(args: &[String]) -> String {
    let command = format!("{} {}", env!("CARGO_BIN_EXE_eplb"), args.join(" "));
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output();
    let output = output.expect("script, of the package bsdutils or util-linux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn long_work_is_shown_on_a_terminal_and_short_work_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = long_plan(folder.path());
    long.extend(["--time-limit".to_string(), "1.2".to_string()]);
    let shown = on_terminal(&long);
    assert!(shown.contains("/12 layers, "), "{shown:?}");
    let short = ["plan", &long[1], "--replicas", "256", "--gpus", "2", "--device", "cpu"].map(String::from);
    let shown = on_terminal(&short);
    assert!(!shown.contains("layers, ") && shown.contains("balancedness"), "{shown:?}");
}
