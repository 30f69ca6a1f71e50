//! Files are written whole or not at all, and a damaged plan file is refused with the reason.

use std::path::Path;
use std::process::{Command, Stdio};

use eplb_wgpu::trace::{LoadHistory, PlanFile};

use super::{assert_refused, eplb, json, plan_args, stdout, write};

/// A small plan file and its loads.
fn plan_file(folder: &Path) -> (String, String) {
    let loads = write(folder, "loads.json", b"[[1.5,2,3.25,4,5,60,7,8],[0,0,0,0,0,0,0,0]]");
    let plan = folder.join("plan.json").to_str().unwrap().to_string();
    assert!(eplb(&plan_args(&loads, &["--out", &plan])).status.success());
    (loads, plan)
}

#[test]
fn a_plan_file_survives_reformatting_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (_, plan) = plan_file(folder.path());
    let text = std::fs::read_to_string(&plan).unwrap();
    let root: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pretty = serde_json::to_string_pretty(&root).unwrap();
    assert_eq!(PlanFile::parse(pretty.as_bytes()).unwrap(), PlanFile::parse(text.as_bytes()).unwrap());
    let refused = |bytes: &[u8], part: &str| {
        let reason = PlanFile::parse(bytes).unwrap_err().to_string();
        assert!(reason.contains(part), "{reason:?} does not hold {part:?}");
    };
    for (field, value) in root.as_object().unwrap() {
        let mut less = root.clone();
        less.as_object_mut().unwrap().remove(field);
        let reason = match field.as_str() {
            "format" => "not a plan file: it has no format",
            "checksum" => "damaged: it has no checksum",
            _ => "damaged: checksum",
        };
        refused(less.to_string().as_bytes(), reason);
        if let Some(at) = value.as_f64() {
            let mut other = root.clone();
            other[field] = (at + 1.0).into();
            refused(other.to_string().as_bytes(), "damaged: checksum");
        }
    }
    for length in [0, 1, text.len() / 2, text.len() - 2] {
        refused(&text.as_bytes()[..length], "not a plan file");
    }
}

#[test]
fn what_a_plan_file_tells_of_other_loads_is_told_as_its_own_word() {
    let folder = tempfile::tempdir().unwrap();
    let (loads, plan) = plan_file(folder.path());
    let other = write(folder.path(), "other.json", b"[[9,2,3,4,5,6,7,8],[0,0,0,0,0,0,0,1]]");
    let told = json(&["check", &loads, &plan])["balancedness"].as_f64().unwrap();
    let report = json(&["check", &other, &plan]);
    assert_eq!(report["told_balancedness"], told);
    assert_ne!(report["balancedness"], told);
    let row = format!("in the plan file       balancedness {told:.5}, of the loads it was made from");
    assert!(stdout(&eplb(&["check", &other, &plan])).contains(&row));
    assert!(!stdout(&eplb(&["check", &loads, &plan])).contains("in the plan file"));
}

#[test]
fn every_damaged_digit_of_a_plan_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (_, plan) = plan_file(folder.path());
    let mut bytes = std::fs::read(&plan).unwrap();
    let content = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    let whole = content(&bytes);
    for at in 0..bytes.len() {
        if bytes[at].is_ascii_digit() {
            bytes[at] ^= 1;
            // The last digit of a float may say the same number.
            assert_eq!(PlanFile::parse(&bytes).is_ok(), content(&bytes) == whole, "byte {at}");
            bytes[at] ^= 1;
        }
    }
    assert!(PlanFile::parse(&bytes).is_ok());
}

/// Arguments that write 2 MB or so of loads.
fn generate_args(out: &str) -> Vec<&str> {
    let size = ["--windows", "24", "--layers", "58", "--experts", "256", "--drift", "0.1"];
    [&["generate", "--out", out][..], &size].concat()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs the command where no file may have more than some kilobytes, as on a disk that is full. The shell that
/// sets the limit ignores its signal or leaves it to kill.
#[cfg(unix)]
fn on_a_full_disk(killed: bool, args: &[&str]) -> std::process::Output {
    let trap = if killed { "" } else { "trap '' XFSZ; " };
    let script = format!("{trap}ulimit -c 0; ulimit -f 8; exec \"$0\" \"$@\"");
    Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_eplb")]).args(args).output().unwrap()
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_file_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    for extension in ["json", "npy"] {
        let name = format!("loads.{extension}");
        let path = write(folder.path(), &name, b"old");
        let output = on_a_full_disk(false, &generate_args(&path));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&format!("cannot write {path}: ")), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), [name]);
        std::fs::remove_file(&path).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn a_kill_in_the_middle_of_writing_leaves_the_old_file() {
    use std::os::unix::process::ExitStatusExt;
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "loads.json", b"old");
    // The signal of the limit kills inside a write.
    let output = on_a_full_disk(true, &generate_args(&path));
    assert!(output.status.signal().is_some(), "{:?}", output.status);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let left = names(folder.path());
    assert!(matches!(&left[..], [temporary, _] if temporary.starts_with(".eplb-")), "{left:?}");
}

#[test]
fn a_kill_at_any_time_leaves_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let (loads, plan) = plan_file(folder.path());
    let old = std::fs::read(&plan).unwrap();
    let args = plan_args(&loads, &["--seed", "7", "--out", &plan]);
    for milliseconds in 0..20 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eplb"));
        let mut child = command.args(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        // It may have ended by itself.
        let _ = child.kill();
        child.wait().unwrap();
        PlanFile::read(Path::new(&plan)).unwrap();
    }
    assert!(eplb(&args).status.success());
    assert_ne!(std::fs::read(&plan).unwrap(), old, "the seed is in the file");
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,6,7,8]]");
    let socket = folder.path().join("plan.json");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let socket = socket.to_str().unwrap();
    assert_refused(&plan_args(&loads, &["--out", socket]), "it is not a regular file");
    assert!(!Path::new(socket).is_file() && Path::new(socket).exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_without_an_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loads.csv");
    // Sparse: it takes no room on the disk.
    std::fs::File::create(&path).unwrap().set_len((1 << 32) + 1).unwrap();
    let error = LoadHistory::read(&path).unwrap_err().to_string();
    assert!(error.ends_with("the file has more than 4294967296 bytes"), "{error}");
    let (path, page) = (path.to_str().unwrap(), folder.path().join("page.html"));
    for option in ["--replay", "--advice"] {
        let args = ["report", option, path, "--out", page.to_str().unwrap()];
        assert_refused(&args, "the file has more than 4294967296 bytes");
    }
    #[cfg(feature = "gpu")]
    assert_refused(&["bench", "--collate", path], "the file has more than 4294967296 bytes");
}
