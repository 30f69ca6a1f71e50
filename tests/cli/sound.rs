//! A hostile machine: full disks, odd environments, names that steer a terminal, links and modes.

use std::process::{Command, Stdio};

use super::{assert_refused, eplb, plan_args, write};

const LOADS: &[u8] = b"[[1,2,3,4,5,60,7,8]]";

#[cfg(target_os = "linux")]
#[test]
fn what_could_not_be_written_to_standard_output_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", LOADS);
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    for args in [plan_args(&loads, &["--json"]), plan_args(&loads, &["--out", "-"]), vec!["--help"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_eplb")).args(&args).stdout(full()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains("cannot write to standard output: "), "{args:?}: {error}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", LOADS);
    let script = "\"$0\" \"$@\" | true; exit ${PIPESTATUS[0]}";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_eplb")]).args(plan_args(&loads, &["--json"]));
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[cfg(unix)]
#[test]
fn a_file_keeps_its_mode_and_its_links() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", LOADS);
    let path = |name: &str| folder.path().join(name);
    let plan = |name: &str| eplb(&plan_args(&loads, &["--out", path(name).to_str().unwrap()]));
    let mode = |name: &str| path(name).metadata().unwrap().permissions().mode() & 0o777;
    let set =
        |name: &str, mode| std::fs::set_permissions(path(name), PermissionsExt::from_mode(mode)).unwrap();
    write(folder.path(), "secret.json", b"old");
    set("secret.json", 0o600);
    assert!(plan("secret.json").status.success());
    assert_eq!(mode("secret.json"), 0o600);
    symlink("secret.json", path("link.json")).unwrap();
    write(folder.path(), "secret.json", b"old");
    assert!(plan("link.json").status.success());
    assert!(path("link.json").symlink_metadata().unwrap().is_symlink());
    assert!(std::fs::metadata(path("secret.json")).unwrap().len() > 3);
    // A link to a file that is not there yet, by another; and a circle of two.
    symlink("link2.json", path("link1.json")).unwrap();
    symlink("later.json", path("link2.json")).unwrap();
    assert!(plan("link1.json").status.success());
    assert!(path("link1.json").is_symlink() && path("link2.json").is_symlink());
    assert!(path("later.json").metadata().unwrap().is_file());
    symlink("b.json", path("a.json")).unwrap();
    symlink("a.json", path("b.json")).unwrap();
    let circle = path("a.json");
    assert_refused(&plan_args(&loads, &["--out", circle.to_str().unwrap()]), "lead to no place");
    assert!(circle.is_symlink());
    write(folder.path(), "one.json", b"old");
    std::fs::hard_link(path("one.json"), path("other.json")).unwrap();
    assert!(plan("one.json").status.success());
    assert_eq!(path("other.json").metadata().unwrap().nlink(), 2);
    assert_eq!(std::fs::read(path("one.json")).unwrap(), std::fs::read(path("other.json")).unwrap());
    write(folder.path(), "fixed.json", b"old");
    set("fixed.json", 0o444);
    assert_refused(&plan_args(&loads, &["--out", path("fixed.json").to_str().unwrap()]), "it is read-only");
    assert_eq!(std::fs::read(path("fixed.json")).unwrap(), b"old");
    // A new file has what the process gives its files.
    let script = "umask 027; exec \"$0\" \"$@\"";
    let out = path("new.json");
    let args = plan_args(&loads, &["--out", out.to_str().unwrap()]);
    let output =
        Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_eplb")]).args(args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(mode("new.json"), 0o640);
}

#[test]
fn nothing_raw_reaches_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", LOADS);
    let clean = |output: &std::process::Output, shown: &str| {
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        assert!(!text.contains(&0x1b), "{output:?}");
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(shown), "{text:?}");
    };
    let plan = write(folder.path(), "plan.json", b"{\"format\":\"\\u001b[31mRED\\u001b[2J\"}");
    clean(&eplb(&["check", &loads, &plan]), "\\u001b[31mRED");
    clean(&eplb(&plan_args("no\u{1b}[2Jfile.json", &[])), "no\\u001b[2Jfile.json");
    clean(&eplb(&plan_args(&loads, &["--preset", "\u{1b}[2J"])), "invalid value");
    if cfg!(unix) {
        let odd = write(folder.path(), "\u{1b}[2J.json", LOADS);
        clean(&eplb(&[&["plan", odd.as_str()], &plan_args(&loads, &[])[1..]].concat()), "\\u001b[2J.json");
    }
}

#[test]
fn no_environment_makes_it_fail() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", LOADS);
    for threads in ["40000", "-1", "0", "many", "18446744073709551616"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eplb"));
        let output = command.args(plan_args(&loads, &[])).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!(output.status.success(), "{threads}: {output:?}");
    }
}

#[test]
fn windows_of_very_different_size_are_planned_together() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = write(folder.path(), "tiny.json", b"[[5e-324,5e-324,0,0]]");
    let usual = write(folder.path(), "usual.json", b"[[1,2,3,4]]");
    let output =
        eplb(&["plan", &tiny, &usual, "--replicas", "6", "--gpus", "3", "--device", "cpu", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert!(report["mean_gap"].as_f64().is_some_and(f64::is_finite), "{report}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_limit_bounds_the_threads_of_the_whole_run() {
    let folder = tempfile::tempdir().unwrap();
    // Larger than a moment, with a bound that takes its time.
    let out = folder.path().join("loads.json");
    let out = out.to_str().unwrap();
    assert!(eplb(&["generate", "--layers", "40", "--out", out]).status.success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_eplb"));
    command.args(["plan", out, "--replicas", "288", "--gpus", "144", "--device", "cpu", "--threads", "1"]);
    let mut child = command.env("NODEVICE_SELECT", "1").stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        if let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", child.id())) {
            most = most.max(tasks.count());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let which = "the first, which waits, one that works, one that shows how far it is, one for signals";
    assert!((1..=4).contains(&most), "{most} threads: {which}");
}
