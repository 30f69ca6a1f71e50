//! Every command of the guide, run as a reader would type it.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{eplb, stdout, write};

/// Commands of other programs, which a reader of the guide types there.
const OTHERS: [&str; 1] = ["python -m sglang.launch_server"];

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in entries {
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// The commands of a page's blocks, in order.
fn commands(page: &str) -> Vec<String> {
    let (mut block, mut found) = (None, Vec::new());
    for line in page.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(kind), None) => {
                // Blocks without a kind are code, which `cargo test --doc` runs; browsers run the other.
                assert!(
                    ["", "console", "text", "js"].contains(&kind),
                    "a command in a block {kind:?} would not be run"
                );
                block = Some(kind);
            }
            (Some(_), Some(_)) => block = None,
            (None, Some("console")) => {
                let command = line.strip_prefix("$ ");
                found.push(command.unwrap_or_else(|| panic!("{line:?} is no command")).to_string());
            }
            _ => {}
        }
    }
    assert_eq!(block, None);
    found
}

/// Files that a reader has: loads of a model in the forms that the pages name, and plans that run.
fn prepare(folder: &Path) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let run = |args: &[&str]| {
        let output = eplb(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir(folder.join("examples")).unwrap();
    std::fs::copy(root.join("examples/loads.json"), folder.join("examples/loads.json")).unwrap();
    for (name, seed) in [("loads.npy", "1"), ("loads.json", "1"), ("before.npy", "2")] {
        run(&["generate", "--layers", "3", "--seed", seed, "--out", &path(name)]);
    }
    run(&["generate", "--layers", "3", "--windows", "3", "--out", &path("trace.npy")]);
    for (loads, plan) in [("before.npy", "old.json"), ("loads.npy", "new.json")] {
        run(&["plan", &path(loads), "--replicas", "288", "--gpus", "32", "--out", &path(plan)]);
    }
    run(&["convert", &path("old.json"), &path("running.npy")]);
    let (trace, loads) = (path("trace.npy"), path("loads.npy"));
    let printed = [
        ("replay.json", vec!["replay", &trace, "--replicas", "288"]),
        ("advice.json", vec!["advise", &loads]),
    ];
    for (name, args) in printed {
        let output = eplb(&[&args[..], &["--gpus", "32", "--json"]].concat());
        write(folder, name, stdout(&output).as_bytes());
    }
    let rows = (0..3).flat_map(|layer| (0..256).map(move |expert| (layer, expert, expert * 7919 % 251 + 1)));
    let rows = rows.map(|(layer, expert, count)| format!("{layer},{expert},{count}\n"));
    write(
        folder,
        "recorder.csv",
        ("layer_id,expert_id,count\n".to_string() + &rows.collect::<String>()).as_bytes(),
    );
    let samples = root.join("tests/samples");
    std::fs::create_dir(folder.join("expert_statistic")).unwrap();
    for name in ["meta_info.json", "rank0.safetensors", "rank1.safetensors"] {
        let to = folder.join("expert_statistic").join(name);
        std::fs::copy(samples.join("statistics").join(name), to).unwrap();
    }
    std::fs::create_dir(folder.join("traces")).unwrap();
    let trace = "router_trace_rank0.jsonl";
    std::fs::copy(samples.join(trace), folder.join("traces").join(trace)).unwrap();
}

#[test]
fn every_command_of_the_guide_runs() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let mut found = Vec::new();
    pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide"), &mut found);
    found.sort();
    let mut count = 0;
    for page in found {
        for command in commands(&std::fs::read_to_string(&page).unwrap()) {
            let Some(args) = command.strip_prefix("eplb ") else {
                assert!(
                    OTHERS.iter().any(|other| command.starts_with(other)),
                    "{}: {command}",
                    page.display()
                );
                continue;
            };
            let mut eplb = Command::new(env!("CARGO_BIN_EXE_eplb"));
            let eplb = eplb.args(args.split(' ')).current_dir(&folder).env("NODEVICE_SELECT", "1");
            let output = eplb.output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {command}: {error}", page.display());
            count += 1;
        }
    }
    // Were no block found, nothing would be tested.
    assert!(count >= 24, "{count}");
}
