//! Options that would do nothing beside others, or in this file: they are refused with what they want.

use super::{assert_refused, eplb, json, plan_args, write};

/// The loads of eight experts in a file of one window, and a plan for 12 replicas on 4 GPUs.
fn files(folder: &tempfile::TempDir) -> (String, String) {
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let plan = folder.path().join("plan.json").to_str().unwrap().to_string();
    assert!(eplb(&plan_args(&loads, &["--out", &plan])).status.success());
    (loads, plan)
}

#[test]
fn a_plan_from_the_one_that_runs_refuses_the_search_of_a_plan_from_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (loads, plan) = files(&folder);
    let from = |more: &[&str]| plan_args(&loads, &[&["--previous", &plan][..], more].concat()).join(" ");
    let given = [
        ["--preset", "default"],
        ["--preset", "thorough"],
        ["--preset", "gen00"],
        ["--starts", "64"],
        ["--iterations", "9"],
        ["--assignments", "2"],
    ];
    for more in given {
        let args = from(&more);
        let said = "does nothing here: it is for a plan from nothing: leave out --previous";
        assert_refused(&args.split(' ').collect::<Vec<_>>(), &format!("{} {said}", more[0]));
    }
    for more in [["--seed", "7"], ["--max-replicas-per-expert", "3"], ["--min-gain", "0"]] {
        assert!(eplb(&from(&more).split(' ').collect::<Vec<_>>()).status.success(), "{more:?}");
    }
}

#[test]
fn a_rule_of_an_earlier_program_has_starts_and_neither_iterations_nor_assignments() {
    let folder = tempfile::tempdir().unwrap();
    let loads = folder.path().join("loads.json").to_str().unwrap().to_string();
    assert!(eplb(&["generate", "--layers", "2", "--experts", "32", "--out", &loads]).status.success());
    let shape = ["plan", &loads, "--replicas", "40", "--gpus", "8", "--device", "cpu"];
    let nodes = ["--groups", "8", "--nodes", "4"];
    for name in ["gen00", "gen17", "rec3", "rec5"] {
        let rule = ["--preset", name];
        for option in ["--iterations", "--assignments"] {
            let said = format!(
                "{option} does nothing here: it is for the presets default, fast, thorough and scenarios, and {name} is a rule"
            );
            assert_refused(&[&shape[..], &nodes, &rule, &[option, "5"]].concat(), &said);
        }
        // The first start is built without noise, and others pack with it.
        let print =
            |starts: &str| json(&[&shape[..], &rule, &["--starts", starts]].concat())["fingerprint"].clone();
        assert_ne!(print("1"), print("5"), "{name}");
    }
    let warned = [&shape[..], &["--nodes", "4", "--dispatch", "nearest", "--preset", "gen00"]].concat();
    let said = String::from_utf8(eplb(&warned).stderr).unwrap();
    assert!(said.contains("--dispatch nearest changes nothing in this plan"), "{said}");
}

#[test]
fn a_window_that_is_not_there_is_refused_and_the_only_one_has_a_number_too() {
    let folder = tempfile::tempdir().unwrap();
    let (loads, plan) = files(&folder);
    let print = |args: &[&str]| json(args)["fingerprint"].clone();
    let whole = print(&plan_args(&loads, &[]));
    for window in ["sum", "last", "0"] {
        assert_eq!(print(&plan_args(&loads, &["--window", window])), whole, "{window}");
        assert!(eplb(&["check", &loads, &plan, "--window", window]).status.success());
    }
    let verbs: [&[&str]; 5] = [
        &plan_args(&loads, &[]),
        &["check", &loads, &plan],
        &["split", &loads, &plan, "--batch"],
        &["report", &loads, &plan, "--out", &format!("{plan}.html")],
        &["advise", &loads, "--gpus", "4"],
    ];
    for args in verbs {
        let said = "--window 5 is not there: the file has windows 0..1";
        assert_refused(&[args, &["--window", "5"]].concat(), said);
    }
}

#[test]
fn what_is_of_the_report_is_refused_where_the_map_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (loads, plan) = files(&folder);
    let refused = |more: &[&str], part: &str| {
        assert_refused(&[&["plan", &loads, "--device", "cpu", "--out", "-"], more].concat(), part);
    };
    let said = "does nothing here: it is for the report, and --out - has the map alone on standard output";
    refused(&["--previous", &plan, "--expert-bytes", "5"], &format!("--expert-bytes {said}"));
    refused(&["--replicas", "8", "--gpus", "4", "--tight-bound"], &format!("--tight-bound {said}"));
    assert_refused(
        &["convert", &plan, "-", "--json"],
        "--json is for the report, and OUT - has the map alone on standard output",
    );
}

#[test]
fn a_conversion_takes_gpus_where_they_are_written_and_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let (_, plan) = files(&folder);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (bare, map) = (path("map.npy"), path("map.json"));
    assert!(eplb(&["convert", &plan, &bare]).status.success());
    let gpus = |from: &str, format: &str| {
        ["convert", from, &map, "--format", format, "--gpus", "4"].map(str::to_string)
    };
    let refused = |args: [String; 7], part: &str| {
        assert_refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), part);
    };
    refused(gpus(&bare, "sglang"), "--gpus does nothing here: it is for --format vllm-ascend");
    refused(gpus(&plan, "vllm-ascend"), "it is for a map that does not tell its GPUs, and this one does");
    let args = gpus(&bare, "vllm-ascend");
    assert!(eplb(&args.iter().map(String::as_str).collect::<Vec<_>>()).status.success());
}

#[test]
fn options_of_several_windows_are_refused_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loads.json").to_str().unwrap().to_string();
    let generate = ["generate", "--layers", "2", "--experts", "8", "--out", &path];
    let drift = [&generate[..], &["--drift", "0.5"]].concat();
    assert_refused(&drift, "--drift does nothing here: it is for several windows: --windows");
    assert!(!std::path::Path::new(&path).exists());
    assert!(eplb(&[&drift[..], &["--windows", "3"]].concat()).status.success());
    let one = ["--windows", "1", "--decay", "0.5"];
    let said = "--decay does nothing here: it is for several windows: --windows, at least 2";
    assert_refused(&plan_args(&path, &[&["--strategy", "scenarios"], &one[..]].concat()), said);
    let replay = ["replay", &path, "--replicas", "12", "--gpus", "4", "--device", "cpu"];
    assert_refused(&[&replay[..], &one].concat(), said);
}

#[test]
fn what_tells_of_loads_and_maps_is_refused_where_there_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let trace = write(folder.path(), "trace.json", b"[[[1,2,3,4]],[[4,3,2,1]],[[1,2,3,4]]]");
    let replay = ["replay", &trace, "--replicas", "6", "--gpus", "2", "--device", "cpu"];
    let curves = write(folder.path(), "replay.json", json(&replay).to_string().as_bytes());
    let page = folder.path().join("page.html").to_str().unwrap().to_string();
    let report = ["report", "--replay", &curves, "--out", &page];
    let given = [
        ["--window", "1"],
        ["--layers", "0..1"],
        ["--load-format", "json"],
        ["--experts", "8"],
        ["--format", "npy"],
        ["--gpus", "2"],
        ["--groups", "2"],
        ["--nodes", "2"],
        ["--gpu-speeds", "1,1"],
    ];
    for more in given {
        let said = "does nothing here: it is for loads and a plan or map: eplb report LOADS PLAN";
        assert_refused(&[&report[..], &more].concat(), &format!("{} {said}", more[0]));
    }
    for more in [["--experts", "8"], ["--load-format", "json"]] {
        assert_refused(&[&["check", "--fingerprints"], &more[..]].concat(), "cannot be used with");
    }
}
