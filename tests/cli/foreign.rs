//! Replicas outside the home node of their group.

use serde_json::Value;

use super::{assert_refused, eplb, json, stdout};

/// Two nodes of four GPUs, with groups of eight experts.
const NODES: [&str; 6] = ["--replicas", "40", "--groups", "4", "--nodes", "2"];

/// A plan with further options.
fn made<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [base, more].concat()
}

#[test]
fn foreign_replicas_are_planned_told_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (loads, trace, plan) = (path("loads.npy"), path("trace.npy"), path("plan.json"));
    let sizes = ["--layers", "3", "--experts", "32", "--seed", "5"];
    assert!(eplb(&[&["generate", "--out", &loads], &sizes[..]].concat()).status.success());
    assert!(
        eplb(&[&["generate", "--windows", "6", "--drift", "0.4", "--out", &trace], &sizes[..]].concat())
            .status
            .success()
    );
    let base = [&["plan", &loads[..], "--gpus", "8"], &NODES[..]].concat();
    let of = |report: &Value, field: &str| report[field].as_f64().unwrap();

    let at_home = json(&made(&base, &[]));
    assert!(at_home["foreign"].is_null(), "{at_home}");
    let foreign = json(&made(&base, &["--max-foreign", "4", "--out", &plan]));
    let told = &foreign["foreign"];
    assert!(of(&foreign, "balancedness") > of(&at_home, "balancedness") + 0.01, "{foreign} {at_home}");
    let each: Vec<u64> = told["layers"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    assert!(each.iter().all(|&replicas| replicas <= 4) && told["replicas"] == each.iter().sum::<u64>());
    assert!(of(told, "share") >= of(told, "least_share") && of(told, "least_share") > 0.0, "{told}");

    // The judge says so too, holds the number that the file tells or another, and knows the strict rule.
    let checked = json(&["check", &loads, &plan]);
    assert_eq!(checked["balancedness"], foreign["balancedness"]);
    assert_eq!(
        (&checked["foreign"]["replicas"], &checked["foreign"]["share"]),
        (&told["replicas"], &told["share"])
    );
    let text = stdout(&eplb(&["check", &loads, &plan]));
    assert!(text.contains("foreign replicas") && text.contains("at most 4 a layer"), "{text}");
    let page = path("page.html");
    assert!(eplb(&["report", &loads, &plan, "--out", &page]).status.success());
    let strict = eplb(&["check", &loads, &plan, "--max-foreign", "0"]);
    assert!(!strict.status.success() && stdout(&strict).contains("which is in node"), "{}", stdout(&strict));
    let hint = format!("it is valid: --max-foreign {}", each.iter().max().unwrap());
    assert!(stdout(&strict).contains(&hint), "{}", stdout(&strict));
    let fewer = eplb(&["check", &loads, &plan, "--max-foreign", "1"]);
    assert!(stdout(&fewer).contains("more than --max-foreign 1 replicas"), "{}", stdout(&fewer));

    // As the plan that runs it is scored by the rule that it was made by, and foreign replicas stay where they pay.
    let next = json(&made(&base, &["--previous", &plan]));
    assert_eq!(next["previous_balancedness"], foreign["balancedness"]);
    assert_eq!((of(&next["moves"], "repairs"), of(&next["foreign"], "max_foreign")), (0.0, 4.0), "{next}");
    let home = json(&made(&base, &["--previous", &plan, "--max-foreign", "0"]));
    assert!(of(&home["moves"], "repairs") > 0.0 && home["foreign"].is_null(), "{home}");
    // So it is in a loop.
    let series = ["plan", &trace, "--strategy", "scenarios", "--gpus", "8", "--max-foreign", "4"];
    let series = [&series, &NODES[..], &["--previous", &plan, "--max-moves", "10%"]].concat();
    let moved = json(&series);
    assert!(of(&moved["foreign"], "replicas") > 0.0 && of(&moved["moves"], "received") > 0.0, "{moved}");
    let replay = ["replay", &trace, "--gpus", "8", "--device", "cpu", "--csv"];
    let balanced = |more: &[&str]| -> f64 {
        let text = stdout(&eplb(&[&replay, &NODES[..], more].concat()));
        let row = text.lines().find(|line| line.starts_with("scenarios")).unwrap().to_string();
        row.split(',').nth(1).unwrap().parse().unwrap()
    };
    assert!(balanced(&["--max-foreign", "4"]) > balanced(&[]) + 0.01);

    // A map in another format tells nothing of it.
    let map = path("map.npy");
    assert!(eplb(&["convert", &plan, &map]).status.success());
    let blind = eplb(&["check", &loads, &map, "--groups", "4", "--nodes", "2", "--gpus", "8"]);
    assert!(!blind.status.success(), "{}", stdout(&blind));

    // A target is kept to with fewer of them.
    let near = json(&made(&base, &["--max-foreign", "4", "--target", "1.2"]));
    assert!(near["foreign"]["replicas"].as_u64() < told["replicas"].as_u64(), "{near}");
    assert!(stdout(&eplb(&made(&base, &["--max-foreign", "4"]))).contains("foreign replicas"));
    // None is the plan that there was.
    assert_eq!(json(&made(&base, &["--max-foreign", "0"]))["fingerprint"], at_home["fingerprint"]);

    assert_refused(
        &made(&base, &["--max-foreign", "8"]),
        "--max-foreign 8 is not less than the 8 experts of a group",
    );
    assert_refused(&made(&base, &["--max-foreign", "2", "--target", "0.9"]), "not a number from 1 to 4000");
    assert_refused(&made(&base, &["--target", "1.1"]), "--max-foreign");
    assert_refused(
        &made(&base, &["--max-foreign", "2", "--connected"]),
        "does not go together with --connected",
    );
    assert_refused(
        &made(&base, &["--max-foreign", "2", "--preset", "gen05"]),
        "is not for rules of earlier programs",
    );
    let flat = ["plan", &loads, "--gpus", "8", "--replicas", "40", "--max-foreign", "2"];
    assert_refused(&flat, "--max-foreign");
    let several = ["plan", &loads, &loads, "--gpus", "8", "--max-foreign", "2"];
    assert_refused(&[&several, &NODES[..]].concat(), "is for one window where no plan runs");
}
