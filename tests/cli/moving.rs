//! Several load files, strategies, previous plans and replays.

use std::path::Path;

use approx::assert_abs_diff_eq;

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
    // Read first: each load alone, of the plan and of greedy's plan of their mean; nothing of the mean is beside it.
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let alone = &report["windows_alone"];
    for field in ["balancedness", "greedy_balancedness"] {
        let each: Vec<f64> = windows.iter().map(|w| number(&w[field])).collect();
        assert_abs_diff_eq!(number(&alone[field]["mean"]), each.iter().sum::<f64>() / 2.0, epsilon = 1e-9);
        assert_eq!(number(&alone[field]["worst"]), each.iter().copied().fold(1.0, f64::min));
    }
    assert!(number(&alone["balancedness"]["mean"]) > number(&alone["greedy_balancedness"]["mean"]) + 0.05);
    let head = text.lines().find(|line| line.starts_with("balancedness  ")).unwrap();
    let said = |field: &str| {
        let of = |part: &str| number(&alone[field][part]);
        format!("{:.5} mean, {:.5} worst", of("mean"), of("worst"))
    };
    assert!(head.contains(&said("balancedness")) && head.contains(&said("greedy_balancedness")), "{text}");
    assert!(!text.contains("gap to the bound"), "{text}");
    for (window, name) in windows.iter().zip([&day, &night]) {
        assert_eq!(window["name"], **name);
        let row = text.lines().find(|line| line.ends_with(name.as_str())).unwrap();
        let greedy = format!("(greedy: {:.5};", number(&window["greedy_balancedness"]));
        assert!(row.contains(&format!("{:.5}", number(&window["balancedness"]))) && row.contains(&greedy));
    }
    // A load that weighs nothing is not the worst of those planned for.
    assert_eq!(
        weighted["windows_alone"]["balancedness"]["worst"],
        weighted["windows_alone"]["balancedness"]["mean"]
    );
    let text = stdout(&eplb(&[&args, &["--weights", "1,0"][..]].concat()));
    assert!(text.contains(" worst of weight above 0   (greedy"), "{text}");
    assert_refused(
        &[&args, &["--weights", "1"][..]].concat(),
        "--weights 1 are not as many as the 2 load files",
    );
    let other = write(folder.path(), "other.json", b"[[1,2,3]]");
    let said = format!("other.json: its 1 layers x 3 experts are not those of {day}, 1 x 8");
    assert_refused(&[&["plan", &day, &other], &SMALL[..]].concat(), &said);
    let longer = write(folder.path(), "longer.json", b"[[1,2,3,4,5,6,7,8],[1,2,3,4,5,6,7,8]]");
    let longer = [&["plan", &day, &longer], &SMALL[..]].concat();
    assert_refused(&longer, "--layers A..B reads the same layers of all files");
    assert!(eplb(&[&longer[..], &["--layers", "0..1"]].concat()).status.success());
    for (weights, said) in
        [("1,-1", "-1 is not a finite number, at least 0"), ("-1,inf", "-1 is not"), ("0,0", "0,0 are all 0")]
    {
        assert_refused(&[&args, &["--weights", weights][..]].concat(), &format!("--weights {said}"));
    }
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
fn the_map_that_runs_is_told_on_each_of_several_loads() {
    let folder = tempfile::tempdir().unwrap();
    let day = write(folder.path(), "day.json", b"[[90,10,10,10,10,10,10,10]]");
    let night = write(folder.path(), "night.json", b"[[1,1,1,1,1,1,1,9]]");
    let runs = folder.path().join("runs.json").to_str().unwrap().to_string();
    let first = json(&plan_args(&day, &["--out", &runs]));
    let from = ["plan", &day, &night, "--previous", &runs, "--device", "cpu"];
    let report = json(&from);
    assert_eq!(report["windows"][0]["previous_balancedness"], first["balancedness"]);
    let worst = report["windows_alone"]["previous_balancedness"]["worst"].as_f64().unwrap();
    assert_eq!(report["windows"][1]["previous_balancedness"].as_f64(), Some(worst));
    let text = stdout(&eplb(&from));
    assert!(text.contains("before the moves") && text.contains(&format!("{worst:.5} worst")), "{text}");
}

#[test]
fn loads_of_gpus_are_told_layer_by_layer() {
    let folder = tempfile::tempdir().unwrap();
    let day = write(folder.path(), "day.json", b"[[90,10,10,10,10,10,10,10],[1,2,3,4,5,6,7,8]]");
    let night = write(folder.path(), "night.json", b"[[1,1,1,1,1,1,1,9],[8,7,6,5,4,3,2,1]]");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (plan, shares) = (path("plan.json"), path("shares.json"));
    let rows = |report: &serde_json::Value| -> Vec<Vec<f64>> {
        serde_json::from_value(report["gpu_loads"].clone()).unwrap()
    };
    let made = json(&plan_args(&day, &["--out", &plan, "--with-gpu-loads"]));
    let gpus = rows(&made);
    assert_eq!(gpus.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
    for (row, sum) in gpus.iter().zip([160.0, 36.0]) {
        assert_abs_diff_eq!(row.iter().sum::<f64>(), sum, epsilon = 1e-9);
    }
    let heaviest: f64 = gpus.iter().map(|row| row.iter().copied().fold(0.0, f64::max)).sum();
    let balancedness = made["balancedness"].as_f64().unwrap();
    assert_abs_diff_eq!(balancedness, (160.0 + 36.0) / 4.0 / heaviest, epsilon = 1e-9);
    let check = ["check", &day, &plan, "--with-gpu-loads"];
    assert_eq!(rows(&json(&check)), gpus);
    assert!(json(&check[..3]).get("gpu_loads").is_none());
    // Of several loads each has its own; of a table of shares each slot its part.
    let both = json(&[&["plan", &day, &night, "--with-gpu-loads"], &SMALL[..]].concat());
    let sum = |row: &[f64]| row.iter().sum::<f64>();
    assert_abs_diff_eq!(sum(&rows(&both["windows"][1])[0]), 16.0, epsilon = 1e-9);
    let split = json(&["split", &day, &plan, "--batch", "--out", &shares]);
    let dealt = rows(&json(&[&check[..], &["--shares", &shares]].concat()));
    for (row, layer) in dealt.iter().zip(split["layers"].as_array().unwrap()) {
        let most = row.iter().copied().fold(0.0, f64::max);
        assert_abs_diff_eq!(most, layer["max_shares"].as_f64().unwrap(), epsilon = 1e-9);
    }
    // A GPU that is gone carries nothing, and keeps its place.
    let gone = ["plan", &day, "--previous", &plan, "--without-gpus", "1", "--with-gpu-loads"];
    let gone = rows(&json(&gone));
    assert!(gone[0].len() == 4 && gone[0][1] == 0.0, "{gone:?}");
    assert_abs_diff_eq!(sum(&gone[0]), 160.0, epsilon = 1e-9);
    assert_refused(&["check", &day, &plan, "--with-gpu-loads"], "--json");
}

#[test]
fn a_plan_file_that_runs_tells_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let trace = trace(folder.path());
    let plan = folder.path().join("plan.json").to_str().unwrap().to_string();
    let shape = ["--replicas", "16", "--groups", "2", "--nodes", "2", "--gpus", "4"];
    assert!(eplb(&[&["plan", &trace, "--out", &plan], &shape[..]].concat()).status.success());
    let from = ["plan", &trace, "--window", "0", "--previous", &plan];
    let (told, given) = (json(&from), json(&[&from[..], &shape[..]].concat()));
    assert_eq!((&told["fingerprint"], &told["policy"]), (&given["fingerprint"], &given["policy"]));
    assert_eq!(told["policy"], "hierarchical");
    // Three GPUs do not divide among two nodes.
    assert_eq!(json(&[&from[..], &["--without-gpus", "3"]].concat())["policy"], "global");
    let warned = |more: &[&str]| {
        let output = eplb(&[&from[..], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let lost = "the plan is global, on one node, so nodes do not hold whole groups";
    let said = warned(&["--without-gpus", "3"]);
    assert!(said.contains("2 nodes cannot have equal numbers of GPUs where 1 of 4 GPUs are gone"), "{said}");
    assert!(said.contains(lost) && warned(&["--gpus", "3"]).contains(lost), "{said}");
    assert!(warned(&["--nodes", "2", "--without-gpus", "3"]).contains("copies are not spread over nodes"));
    // Each node loses one.
    assert_eq!(warned(&["--without-gpus", "0,3"]), "");
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
