//! GPUs of unequal speed.

use serde_json::Value;

use super::{assert_refused, eplb, json, stdout, write};

const SPEEDS: &str = "1,1,1,1,1,1,.5,.5";

#[test]
fn speeds_are_planned_for_kept_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (loads, plan, map) = (path("loads.npy"), path("plan.json"), path("map.npy"));
    let sizes = ["--layers", "3", "--experts", "32", "--seed", "5"];
    assert!(eplb(&[&["generate", "--out", &loads], &sizes[..]].concat()).status.success());
    write(folder.path(), "speeds.txt", b"2 2 2 2\n2 2 1 1\n");
    let base = ["plan", &loads, "--replicas", "40", "--gpus", "8"];
    let of = |report: &Value, field: &str| report[field].as_f64().unwrap();

    let made = json(&[&base[..], &["--gpu-speeds", SPEEDS, "--out", &plan]].concat());
    assert!(
        of(&made, "mean_gap") < 0.003 && of(&made, "balancedness") > of(&made, "greedy_balancedness"),
        "{made}"
    );
    assert_eq!(made["gpu_speeds"], serde_json::json!([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]));
    let of_file = json(&[&base[..], &["--gpu-speeds", &path("speeds.txt")]].concat());
    assert_eq!(of_file["fingerprint"], made["fingerprint"]);
    let equal = json(&base);
    assert!(equal.get("gpu_speeds").is_none() && equal["fingerprint"] != made["fingerprint"]);
    let same = json(&[&base[..], &["--gpu-speeds", "3,3,3,3,3,3,3,3"]].concat());
    assert_eq!(same["fingerprint"], equal["fingerprint"]);
    let text = stdout(&eplb(&[&base[..], &["--gpu-speeds", SPEEDS]].concat()));
    assert!(text.contains("2 of 8 GPUs slower, 0.5 at least"), "{text}");

    // The plan file tells the speeds; a map does not.
    let checked = json(&["check", &loads, &plan]);
    assert_eq!(
        (&checked["balancedness"], &checked["gpu_speeds"]),
        (&made["balancedness"], &made["gpu_speeds"])
    );
    assert!(stdout(&eplb(&["check", &loads, &plan])).contains("GPU speeds"));
    let lost = |output: std::process::Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let loses = "npy does not tell the speeds of GPUs: who reads it needs --gpu-speeds";
    assert!(lost(eplb(&["convert", &plan, &map])).contains(loses));
    assert!(lost(eplb(&[&base[..], &["--gpu-speeds", SPEEDS, "--out", &map]].concat())).contains(loses));
    let blind = json(&["check", &loads, &map, "--gpus", "8"]);
    assert!(of(&blind, "balancedness") < 0.95, "{blind}");
    let told = json(&["check", &loads, &map, "--gpus", "8", "--gpu-speeds", SPEEDS]);
    assert_eq!(told["balancedness"], made["balancedness"]);
    let twice = ["check", &loads, &plan, "--gpu-speeds", SPEEDS];
    assert_refused(
        &twice,
        "--gpu-speeds does nothing here: it is for a plan that tells no speeds, and this one does",
    );
    let shown = eplb(&["report", &loads, &plan, "--out", "-"]);
    let said = String::from_utf8_lossy(&shown.stderr).to_string();
    assert!(!shown.status.success() && said.contains("a page wants equal ones"), "{said}");
    // Tables of shares are over speed too.
    let split = json(&["split", &loads, &plan, "--batch"]);
    assert_eq!(split["balancedness_even"], made["balancedness"]);
    // But for 256 parts of an expert, which are coarser than the plan.
    assert!(of(&split, "balancedness_shares") > 0.995, "{split}");
}

#[test]
fn gpus_at_speed_0_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (loads, plan) = (path("loads.npy"), path("plan.json"));
    let sizes = ["--layers", "2", "--experts", "32", "--seed", "5"];
    assert!(eplb(&[&["generate", "--out", &loads], &sizes[..]].concat()).status.success());
    let base = ["plan", &loads, "--replicas", "35", "--gpus", "8", "--with-map"];
    let made = json(&[&base[..], &["--gpu-speeds", "1,1,1,0,1,1,1,.5", "--out", &plan]].concat());
    for row in made["physical_to_logical"].as_array().unwrap() {
        assert_eq!(row.as_array().unwrap()[15..20], vec![Value::from(-1); 5]);
    }
    let checked = json(&["check", &loads, &plan]);
    assert_eq!(checked["balancedness"], made["balancedness"]);
    let map = eplb(&["convert", &plan, &path("map.npy")]);
    let said = String::from_utf8(map.stderr).unwrap();
    assert!(said.contains("npy does not tell the speeds of GPUs (gone: 3)"), "{said}");
    // Nodes that hold whole groups must lose as many GPUs each; of others there is one.
    let two_gone = [
        "plan",
        &loads,
        "--replicas",
        "42",
        "--gpus",
        "8",
        "--nodes",
        "2",
        "--gpu-speeds",
        "0,0,1,1,1,1,1,1",
    ];
    assert_refused(
        &[&two_gone[..], &["--groups", "4"]].concat(),
        "--nodes 2 are left with unequal numbers of GPUs where 2 of --gpus 8 are gone",
    );
    assert!(eplb(&two_gone).status.success());
    let one_of_each = ["--groups", "4", "--gpu-speeds", "0,1,1,1,1,1,1,0"];
    assert!(eplb(&[&two_gone[..8], &one_of_each].concat()).status.success());
    // From a plan that runs the same GPU is left out as by --without-gpus.
    assert!(eplb(&["plan", &loads, "--replicas", "40", "--gpus", "8", "--out", &plan]).status.success());
    let from = ["plan", &loads, "--gpus", "8", "--previous", &plan];
    let gone = json(&[&from[..], &["--gpu-speeds", "1,1,1,0,1,1,1,1"]].concat());
    let without = json(&[&from[..], &["--without-gpus", "3"]].concat());
    assert_eq!((&gone["fingerprint"], &gone["moves"]), (&without["fingerprint"], &without["moves"]));
    // The GPUs that remain are not what --gpus says.
    assert_refused(
        &[&from[..], &["--without-gpus", "3", "--replicas", "36"]].concat(),
        "--replicas 36 is not a multiple of the 7 GPUs that remain; 35 or 42 would do",
    );
    let far = [&from[..], &["--gpu-speeds", "1e308,1,1,1,1,1,1,1"]].concat();
    assert_refused(&far, "--gpu-speeds 1 of GPU 1 is less than a hundredth of the fastest, 1e308; 0 leaves");
    // Its file tells that the GPU is gone, and a plan from it that it gets experts again.
    let left = folder.path().join("left.json").to_str().unwrap().to_string();
    assert!(eplb(&[&from[..], &["--without-gpus", "3", "--out", &left]].concat()).status.success());
    let text = stdout(&eplb(&[&from[..], &["--without-gpus", "3"]].concat()));
    assert!(text.contains("1 of 8 GPUs gone, the others equal"), "{text}");
    let judged = json(&["check", &loads, &left]);
    assert_eq!((&judged["gpu_speeds"][3], &judged["balancedness"]), (&0.0.into(), &without["balancedness"]));
    let back = eplb(&["plan", &loads, "--previous", &left]);
    assert!(String::from_utf8_lossy(&back.stderr).contains("get experts again: 3. Where they are not back"));
}

#[test]
fn plans_from_one_that_runs_are_over_speed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (loads, plan, slow) = (path("loads.npy"), path("plan.json"), path("slow.json"));
    let sizes = ["--layers", "2", "--experts", "32", "--windows", "4", "--seed", "3"];
    assert!(eplb(&[&["generate", "--out", &loads], &sizes[..]].concat()).status.success());
    let base = ["plan", &loads, "--replicas", "48", "--gpus", "8"];
    assert!(eplb(&[&base[..], &["--out", &plan]].concat()).status.success());
    // Two of the GPUs turn out to be slow.
    let from = ["plan", &loads, "--previous", &plan, "--gpu-speeds", SPEEDS, "--max-moves", "25%"];
    let made = json(&[&from[..], &["--out", &slow]].concat());
    let number = |report: &Value, name: &str| report[name].as_f64().unwrap();
    assert!(number(&made, "balancedness") > 1.2 * number(&made, "previous_balancedness"), "{made}");
    assert!(made["moves"]["share"].as_f64().unwrap() <= 0.25);
    assert_eq!(made["gpu_speeds"], serde_json::json!([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]));
    assert_eq!(json(&["check", &loads, &slow])["balancedness"], made["balancedness"]);
    // The speeds of the plan that runs are not forgotten, and can be told anew.
    let again = ["plan", &loads, "--previous", &slow];
    let same = json(&[&again[..], &["--gpu-speeds", SPEEDS]].concat());
    assert_eq!(json(&again)["fingerprint"], same["fingerprint"]);
    let equal = json(&[&again[..], &["--gpu-speeds", "1,1,1,1,1,1,1,1"]].concat());
    assert!(equal.get("gpu_speeds").is_none() && equal["fingerprint"] != same["fingerprint"]);
    assert_refused(
        &[&again[..], &["--gpus", "9"]].concat(),
        "--gpus 9 is not the number of GPUs of the previous plan, 8, whose speeds are unequal: give --gpu-speeds",
    );
    // A slow GPU that is gone.
    let left = json(&[&again[..], &["--without-gpus", "6"]].concat());
    assert_eq!(left["gpu_speeds"], serde_json::json!([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.5]));
    let of_both = json(&[&again[..], &["--without-gpus", "6,7"]].concat());
    assert_eq!(of_both["moves"]["slots"], 2 * 36);
    // A loop of them, from its first plan on.
    assert!(
        eplb(&[&base[..], &["--strategy", "scenarios", "--gpu-speeds", SPEEDS]].concat()).status.success()
    );
    let replay = ["replay", &loads, "--replicas", "40", "--gpus", "8", "--gpu-speeds", "1,1,1,1,0,1,.5,1"];
    let replay =
        ["--slots-per-gpu", "6"].iter().fold(replay.to_vec(), |all, more| [&all[..], &[more]].concat());
    let rows = json(&replay);
    assert!(
        rows["rows"].as_array().unwrap().iter().all(|row| row["balancedness"]["mean"].as_f64() > Some(0.3))
    );
    assert_refused(&[&replay[..], &["--connected"]].concat(), "--connected wants equal ones: leave it out");
}

#[test]
fn what_knows_no_speeds_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (loads, plan) = (path("loads.npy"), path("plan.json"));
    let sizes = ["--layers", "1", "--experts", "32", "--windows", "3"];
    assert!(eplb(&[&["generate", "--out", &loads], &sizes[..]].concat()).status.success());
    let base = ["plan", &loads, "--replicas", "40", "--gpus", "8"];
    assert!(eplb(&[&base[..], &["--out", &plan]].concat()).status.success());
    let with = |more: &[&str], speeds: &str, said: &str| {
        assert_refused(&[&base[..], more, &["--gpu-speeds", speeds]].concat(), said);
    };
    let unequal = "--gpu-speeds 0.5 of GPU 6 is not that of the others, and ";
    for (more, what) in [
        (&["--connected"][..], "--connected wants equal ones: leave it out"),
        (
            &["--groups", "4", "--nodes", "2", "--max-foreign", "2"],
            "--max-foreign wants equal ones: give --max-foreign 0",
        ),
        (&["--dispatch", "nearest"], "a dispatch other than equal wants equal ones: take the dispatch equal"),
        (&["--preset", "gen01"], "a rule of earlier programs (preset) wants equal ones: take the preset"),
        (&["--previous", &plan, "--connected"], "--connected wants equal ones: leave it out"),
    ] {
        with(more, SPEEDS, &format!("{unequal}{what}"));
    }
    for (speeds, said) in [
        ("1,1", "--gpu-speeds names 2 speeds for --gpus 8: one for each GPU is needed"),
        ("-1,1,1,1,1,1,1,1", "--gpu-speeds -1 of GPU 0 is not a number, at least 0"),
        ("1,1,1,1,1,1,1,nan", "--gpu-speeds NaN of GPU 7 is not a number, at least 0"),
        ("0,0,0,0,0,0,0,0", "--gpu-speeds 0 is the speed of every GPU"),
        ("1,1,1,1,1,1,1,.001", "--gpu-speeds 0.001 of GPU 7 is less than a hundredth of the fastest, 1"),
        ("1,x", "--gpu-speeds 1,x is neither a list of numbers, as 1,1,0.5, nor a file of them"),
    ] {
        with(&[], speeds, said);
    }
}
