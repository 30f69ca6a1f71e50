//! Several load files, strategies, previous plans and replays.

use std::path::Path;

use super::{SMALL, assert_refused, eplb, json, plan_args, stdout, write};

/// A generated trace of six windows.
fn trace(folder: &Path) -> String {
    let file = folder.join("trace.npy").to_str().unwrap().to_string();
    let sizes = ["--windows", "6", "--layers", "2", "--experts", "8", "--drift", "0.4", "--seed", "3"];
    assert!(eplb(&[&["generate", "--out", &file], &sizes[..]].concat()).status.success());
    file
}

#[test]
fn several_files_are_planned_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let day = write(folder.path(), "day.json", b"[[90,10,10,10,10,10,10,10]]");
    let night = write(folder.path(), "night.json", b"[[1,1,1,1,1,1,1,9]]");
    let args = [&["plan", &day, &night], &SMALL[..]].concat();
    let report = json(&args);
    let windows = report["windows"].as_array().unwrap();
    assert_eq!(windows.len(), 2);
    assert!(windows.iter().all(|w| w["weight"] == 0.5 && w["balancedness"].as_f64().unwrap() > 0.5));
    // With all the weight on one of them, it is as good as it can be.
    let weighted = json(&[&args, &["--weights", "1,0"][..]].concat());
    let best = json(&plan_args(&day, &[]))["balancedness"].as_f64().unwrap();
    assert!(weighted["windows"][0]["balancedness"].as_f64().unwrap() >= best - 1e-4);
    let text = stdout(&eplb(&args));
    assert!(text.contains("night.json") && text.contains("2 at once"), "{text}");
    assert_refused(&[&args, &["--weights", "1"][..]].concat(), "number of weights 1 is not");
    let other = write(folder.path(), "other.json", b"[[1,2,3]]");
    assert_refused(&[&["plan", &day, &other], &SMALL[..]].concat(), "shape of window 1");
}

#[test]
fn strategies_say_what_they_plan_from() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let report = json(&plan_args(&trace, &["--strategy", "scenarios"]));
    assert_eq!(report["strategy"], "scenarios");
    assert!(stdout(&eplb(&plan_args(&trace, &["--strategy", "forecast"]))).contains("planned from"));
    assert_eq!(eplb(&plan_args(&trace, &["--strategy", "psychic"])).status.code(), Some(2));
    let both = [&["plan", &trace, &trace, "--strategy", "forecast"], &SMALL[..]].concat();
    assert_refused(&both, "one load file");
}

#[test]
fn a_plan_file_that_runs_tells_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let plan = folder.path().join("plan.json").to_str().unwrap().to_string();
    let shape = ["--replicas", "12", "--groups", "2", "--nodes", "2", "--gpus", "4"];
    assert!(eplb(&[&["plan", &trace, "--out", &plan], &shape[..]].concat()).status.success());
    let from = ["plan", &trace, "--window", "0", "--previous", &plan];
    let (told, given) = (json(&from), json(&[&from[..], &shape[..]].concat()));
    assert_eq!((&told["fingerprint"], &told["policy"]), (&given["fingerprint"], &given["policy"]));
    assert_eq!(told["policy"], "hierarchical");
    // Three GPUs do not divide among two nodes.
    assert_eq!(json(&[&from[..], &["--without-gpus", "3"]].concat())["policy"], "global");
    assert_eq!(json(&[&from[..], &["--nodes", "1"]].concat())["policy"], "global");
}

#[test]
fn a_previous_plan_is_moved_from_within_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let file = folder.path().join("plan.json").to_str().unwrap().to_string();
    let first = json(&plan_args(&trace, &["--window", "0", "--out", &file]));
    let stay = json(&plan_args(&trace, &["--window", "0", "--previous", &file]));
    assert_eq!(stay["fingerprint"], first["fingerprint"]);
    assert_eq!(stay["moves"]["received"], 0);
    let free = ["--window", "last", "--previous", &file, "--min-gain", "0"];
    let moved = json(&plan_args(&trace, &[&free[..], &["--expert-bytes", "1000"]].concat()));
    let moves = &moved["moves"];
    let received = moves["received"].as_u64().unwrap();
    assert!(received > 3, "{moves}");
    assert_eq!(moves["bytes"], 1000 * received);
    assert_eq!(moves["slots"], 24);
    assert!(!moves["layers_to_move"].as_array().unwrap().is_empty());
    let few = json(&plan_args(&trace, &[&free[..], &["--max-moves", "3"]].concat()));
    assert!(few["moves"]["received"].as_u64().unwrap() <= 3);
    let part = json(&plan_args(&trace, &[&free[..], &["--max-moves", "13%"]].concat()));
    assert!(part["moves"]["received"].as_u64().unwrap() <= 3);
    let none = json(&plan_args(&trace, &[&free[..], &["--skip-if-balanced", "0"]].concat()));
    assert_eq!(none["fingerprint"], first["fingerprint"]);
    let text = stdout(&eplb(&plan_args(&trace, &free)));
    assert!(text.contains("slots that move") && text.contains("layers to move first"), "{text}");
    // Another GPU, and one that is gone: what can stay stays.
    let other = ["plan", &trace, "--previous", &file, "--gpus", "4", "--device", "cpu"];
    let gone = json(&[&other[..], &["--without-gpus", "1"]].concat());
    assert!(gone["moves"]["repairs"].as_u64().unwrap() <= gone["moves"]["received"].as_u64().unwrap());
    assert!(gone["moves"]["slots"].as_u64().unwrap() < 24);
    assert_refused(&plan_args(&trace, &["--previous", &trace]), "is not [layers][slots]");
    for refused in [["--min-gain", "2"], ["--max-moves", "101%"], ["--max-moves", "few"]] {
        assert_eq!(eplb(&plan_args(&trace, &refused)).status.code(), Some(2), "{refused:?}");
    }
}

#[test]
fn replays_print_a_table_json_and_csv() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let args = [&["replay", &trace], &SMALL[..]].concat();
    let report = json(&args);
    let names: Vec<&str> =
        report["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["scenarios", "oracle", "greedy", "never move"]);
    for row in report["rows"].as_array().unwrap() {
        let scores = &row["balancedness"];
        assert_eq!(scores["windows"].as_array().unwrap().len(), 5);
        let (mean, worst) = (scores["mean"].as_f64().unwrap(), scores["worst"].as_f64().unwrap());
        assert!(worst <= mean && scores["p5"].as_f64().unwrap() >= worst && mean <= 1.0);
    }
    let csv = stdout(&eplb(
        &[&args, &["--csv", "--strategy", "forecast", "--interval", "3", "--fresh"][..]].concat(),
    ));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line.split(',').count() == 9), "{csv}");
    let text = stdout(&eplb(&args));
    assert!(text.contains("oracle") && text.contains("moved"), "{text}");
    assert_refused(&[&args, &["--interval", "0"][..]].concat(), "interval 0");
    let one = write(folder.path(), "one.json", b"[[1,2,3,4,5,6,7,8]]");
    assert_refused(&[&["replay", &one], &SMALL[..]].concat(), "windows of the trace 1 is not at least 2");
    assert_refused(&[&args, &["--windows", "17"][..]].concat(), "windows 17 is not between 1 and 16");
}
