//! The progress that a long command shows, how Ctrl-C ends it, and plans within a time.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{assert_refused, eplb, stdout};

/// A plan that takes a second a layer, of twelve layers.
fn long_plan(folder: &Path) -> Vec<String> {
    plan_of(folder, "12", "65536")
}

/// A plan of this many layers, by this many starts: a second has some 65,536 of them.
fn plan_of(folder: &Path, layers: &str, starts: &str) -> Vec<String> {
    let loads = folder.join("loads.npy").to_str().unwrap().to_string();
    let generate = ["generate", "--layers", layers, "--out", &loads];
    assert!(eplb(&generate).status.success());
    let shape = ["--replicas", "288", "--gpus", "32", "--device", "cpu"];
    let budget = ["--preset", "rec5", "--starts", starts];
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
    assert!(
        warning.starts_with("time limit of 0.05 s: none of the 12 layers was planned by then"),
        "{warning}"
    );
    assert!(warning.contains("not reproducible"), "{warning}");
    // The file tells so too, and a reader sees it beside the fingerprint.
    let file: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(file["warnings"][0], warning);
    let read = eplb(&["check", args[1], out.to_str().unwrap()]);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let shown = [&args[..args.len() - 3], &["--layers", "0..2"]].concat();
    assert!(stdout(&eplb(&shown)).contains("; cut short by time, not reproducible)"));
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

/// How a command that Ctrl-C ends has to end.
#[cfg(unix)]
const AT_ONCE: Duration = Duration::from_millis(100);

/// Starts a command, waits until `is_ready`, presses Ctrl-C; what the command said, and how long it took to end.
#[cfg(unix)]
fn stopped(args: &[&str], is_ready: impl Fn() -> bool) -> (std::process::Output, Duration) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_eplb"));
    let child = child.args(args).env("NODEVICE_SELECT", "1");
    let child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // Held open: a command that reads it waits for more.
    let input = child.stdin.take();
    let waits = Instant::now();
    while waits.elapsed() < Duration::from_millis(400) || !is_ready() {
        assert!(waits.elapsed() < Duration::from_secs(60), "{args:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.try_wait().unwrap(), None, "{args:?} takes too little time");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let start = Instant::now();
    // The time until it has ended, not that until what it printed is read.
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(20), "{args:?} goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = start.elapsed();
    drop(input);
    (child.wait_with_output().unwrap(), took)
}

/// Presses Ctrl-C in the midst of a command, which must end at once, print nothing, and leave what is in the folder.
#[cfg(unix)]
#[track_caller]
fn assert_stops(folder: &Path, args: &[&str]) {
    let names = || {
        let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    let mut times = Vec::new();
    // A busy machine may be late; it is not so each time.
    while times.len() < 5 && times.iter().all(|took| *took >= AT_ONCE) {
        let (output, took) = stopped(args, || true);
        assert_eq!(output.status.code(), Some(130), "{args:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error, "eplb: stopped: no file was written\n", "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
        assert_eq!(names(), before, "{args:?}");
        times.push(took);
    }
    assert!(times.iter().any(|took| *took < AT_ONCE), "{args:?}: {times:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_every_long_command_at_once_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let stops = |args: &[&str]| assert_stops(folder.path(), args);
    let long = long_plan(folder.path());
    let out = path("out.json");
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    stops(&[&long[..], &["--out", &out]].concat());
    stops(&[&long[..], &["--out", &out, "--time-limit", "60"]].concat());

    let (trace, plan) = (path("trace.npy"), path("before.json"));
    let of_trace = ["--layers", "300", "--windows", "17", "--drift", "0.2", "--out"];
    assert!(eplb(&[&["generate"], &of_trace[..], &[&trace]].concat()).status.success());
    let shape = ["--replicas", "288", "--gpus", "32", "--device", "cpu"];
    let made = [&["plan", &trace, "--preset", "gen00", "--allow-duplicates", "--out", &plan], &shape[..]];
    assert!(eplb(&made.concat()).status.success());
    let replan = ["plan", &trace, "--strategy", "scenarios", "--previous", &plan, "--out", &out];
    stops(&[&replan[..], &shape].concat());
    stops(&[&["replay", trace.as_str()], &shape[..]].concat());
    stops(&["advise", &trace, "--gpus", "32", "--device", "cpu", "--preset", "thorough"]);
    stops(&["generate", "--layers", "300", "--windows", "200", "--out", &path("new.npy")]);
    // These take less time than a key is pressed in: here their loads are still to come.
    stops(&["report", "-", &plan, "-o", &path("page.html"), "--svg", &path("charts")]);
    stops(&["check", "-", &plan]);
    stops(&["split", "-", &plan, "--out", &out]);
    stops(&["convert", "-", &path("map.npy")]);
    #[cfg(feature = "gpu")]
    stops(&[&["bench", "--lineage", &trace], &shape[..]].concat());
}

/// Every command that takes a device loads its drivers, some of which take half a second for it.
#[cfg(unix)]
#[test]
fn ctrl_c_waits_for_no_driver_that_is_loaded() {
    use std::os::unix::process::ExitStatusExt;
    for delay in [20, 60, 100, 150, 200, 250] {
        let mut times = Vec::new();
        while times.len() < 5 && times.iter().all(|took| *took >= AT_ONCE) {
            let mut devices = Command::new(env!("CARGO_BIN_EXE_eplb"));
            let devices = devices.arg("devices").env("NODEVICE_SELECT", "1");
            let mut child = devices.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            let start = Instant::now();
            let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
            assert!(killed.success());
            let status = child.wait().unwrap();
            times.push(start.elapsed());
            // It may be done already, or not have begun.
            let is_stopped = status.code() == Some(130) || status.signal() == Some(2);
            assert!(is_stopped || status.success(), "{status:?}");
        }
        assert!(times.iter().any(|took| *took < AT_ONCE), "after {delay} ms: {times:?}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_says_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (loads, plan) = (path("loads.npy"), path("plan.json"));
    assert!(eplb(&["generate", "--layers", "300", "--out", &loads]).status.success());
    // Nobody reads what it prints after the plan is written, so it waits there.
    let args =
        ["plan", &loads, "--replicas", "288", "--gpus", "32", "--preset", "gen00", "--allow-duplicates"];
    let args = [&args[..], &["--device", "cpu", "--out", &plan, "--json", "--with-map"]].concat();
    let (output, _) = stopped(&args, || Path::new(&plan).exists());
    assert_eq!(output.status.code(), Some(130));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, format!("eplb: stopped: {plan} was written before, and is whole\n"));
    // A plan file has a checksum.
    let checked = eplb(&["check", &loads, &plan]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// The output of a command on a terminal, which `script` plays.
#[cfg(target_os = "linux")]
fn on_terminal(args: &[String]) -> String {
    shown_with("", args)
}

/// The same, with a variable of the environment.
#[cfg(target_os = "linux")]
fn shown_with(variable: &str, args: &[String]) -> String {
    let command =
        format!("TERM=xterm NO_COLOR= {variable} {} {}", env!("CARGO_BIN_EXE_eplb"), args.join(" "));
    let output = Command::new("script").args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output();
    let output = output.expect("script, of the package bsdutils or util-linux");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Loads in many windows, and a plan of the first. So many layers take several times the half second after which work is shown,
/// on a fast machine too.
#[cfg(target_os = "linux")]
fn running(folder: &Path) -> [String; 2] {
    let [trace, plan] = ["t.npy", "p.json"].map(|name| folder.join(name).to_str().unwrap().to_string());
    let shape = ["--layers", "1200", "--windows", "12", "--drift", "0.2", "--out", &trace];
    assert!(eplb(&[&["generate"], &shape[..]].concat()).status.success());
    let shape = ["--replicas", "288", "--gpus", "32", "--preset", "gen00", "--device", "cpu"];
    let made = [&["plan", &trace, "--window", "0", "--allow-duplicates", "--out", &plan], &shape[..]];
    assert!(eplb(&made.concat()).status.success());
    [trace, plan]
}

#[cfg(target_os = "linux")]
#[test]
fn plans_from_a_plan_replays_and_advice_tell_the_gap_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let [trace, plan] = running(folder.path());
    let shown = |command: String| on_terminal(&command.split(' ').map(String::from).collect::<Vec<_>>());
    let replan =
        format!("plan {trace} --strategy scenarios --previous {plan} --gpus 32 --device cpu --threads 1");
    let text = shown(replan);
    assert!(text.contains("/1200 layers (mean gap ") && text.contains("before the moves"), "{text:?}");
    let text =
        shown(format!("replay {trace} --replicas 288 --gpus 32 --windows 4 --layers 0..400 --device cpu"));
    assert!(text.contains("/11 windows (mean gap "), "{text:?}");
    assert!(!text.contains("/400 layers"), "{text:?}");
    let text = shown(format!("advise {trace} --gpus 32 --preset default --layers 0..300 --device cpu"));
    assert!(text.contains("/9 plans (mean gap "), "{text:?}");
    let out = folder.path().join("new.npy");
    let text = shown(format!("generate --layers 300 --windows 150 --out {}", out.display()));
    assert!(text.contains("generating, 0 s so far"), "{text:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn long_work_is_shown_on_a_terminal_and_short_work_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut long = long_plan(folder.path());
    long.extend(["--time-limit".to_string(), "1.2".to_string()]);
    let shown = on_terminal(&long);
    assert!(shown.contains("/12 layers, 0 s so far"), "{shown:?}");
    let mut of_many = plan_of(folder.path(), "500", "4096");
    of_many.extend(["--time-limit".to_string(), "1.5".to_string()]);
    let shown = on_terminal(&of_many);
    assert!(shown.contains("/500 layers (mean gap ") && shown.contains(" %), "), "{shown:?}");
    assert!(shown.contains(" s left"), "{shown:?}");
    let short = ["plan", &long[1], "--replicas", "256", "--gpus", "2", "--device", "cpu"].map(String::from);
    let shown = on_terminal(&short);
    assert!(!shown.contains("layers, ") && shown.contains("balancedness"), "{shown:?}");
    // Bars are coloured on a terminal alone, and not where the user wants none.
    assert!(shown.contains("\u{1b}[33m█"), "{shown:?}");
    let plain = shown_with("NO_COLOR=1", &short);
    assert!(plain.contains('█') && !plain.contains("\u{1b}[33m"), "{plain:?}");
    let piped = stdout(&eplb(&short.each_ref().map(String::as_str)));
    assert!(piped.contains("GPUs of that layer") && !piped.contains('\u{1b}'), "{piped:?}");
}
