//! Traffic that stays on GPUs and in nodes, as `plan`, `check` and `report` tell it.

use approx::assert_abs_diff_eq;
use serde_json::Value;

use super::{assert_refused, eplb, json, stdout, write};

fn run(args: &[&str]) -> String {
    let output = eplb(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    stdout(&output)
}

#[test]
fn what_stays_is_told_where_nodes_are_known_or_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (loads, plan, page) = (path("loads.npy"), path("plan.json"), path("page.html"));
    run(&["generate", "--layers", "3", "--experts", "64", "--out", &loads]);
    let size = ["plan", &loads, "--replicas", "72", "--gpus", "8", "--device", "cpu"];
    let nodes = [&size[..], &["--nodes", "4"]].concat();
    assert!(json(&size)["traffic"].is_null());
    assert!(!run(&size).contains("traffic that stays"));
    assert!(run(&[&size[..], &["--dispatch", "own-gpu"]].concat()).contains("(dispatch own-gpu)"));
    let told = &json(&[&nodes[..], &["--out", &plan]].concat())["traffic"];
    let of = |told: &Value, dispatch: &str, what: &str| told[dispatch][what].as_f64().unwrap();
    assert_abs_diff_eq!(of(told, "equal", "in_node"), 0.25, epsilon = 1e-9);
    assert!(of(told, "nearest", "in_node") > 0.27 && of(told, "nearest", "on_gpu") > 0.125, "{told}");
    assert!(run(&nodes).contains("(dispatch nearest)"));
    let checked = ["check", &loads, &plan];
    assert_eq!(json(&checked)["traffic"], *told);
    let shown = format!("{:.1} % in the node", of(told, "nearest", "in_node") * 100.0);
    assert!(run(&checked).contains(&shown), "{}", run(&checked));
    run(&["report", &loads, &plan, "-o", &page]);
    assert!(std::fs::read_to_string(&page).unwrap().contains("in their node"));
    assert_refused(&[&size[..], &["--dispatch", "near"]].concat(), "it is one of [equal, nearest, own-gpu]");
}

#[test]
fn of_several_loads_what_stays_is_told_of_each_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (day, night, plan) = (path("day.npy"), path("night.npy"), path("plan.json"));
    for (file, seed) in [(&day, "1"), (&night, "2")] {
        run(&["generate", "--layers", "3", "--experts", "64", "--seed", seed, "--out", file]);
    }
    let size = ["--replicas", "72", "--gpus", "8", "--nodes", "4", "--device", "cpu", "--out", &plan];
    let text = run(&[&["plan", &day, &night, "--weights", "3,1"], &size[..]].concat());
    let row = text.lines().find(|row| row.starts_with("traffic that stays")).unwrap();
    let of = |loads: &str, what: &str| {
        json(&["check", loads, &plan])["traffic"]["nearest"][what].as_f64().unwrap()
    };
    let mean = |what: &str| of(&day, what) * 0.75 + of(&night, what) * 0.25;
    let worst = of(&day, "balancedness").min(of(&night, "balancedness"));
    let balancedness = format!("balancedness {:.5} mean, {worst:.5} worst", mean("balancedness"));
    assert!(row.contains(&balancedness), "{row}: {balancedness}");
    assert!(row.contains(&format!("{:.1} % in the node", mean("in_node") * 100.0)), "{row}");
}

#[test]
fn tokens_that_each_gpu_sends_are_dealt_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| write(folder.path(), name, content);
    // Two nodes of two GPUs: expert 0 on GPUs 0 and 2, expert 1 on GPU 1, expert 2 on GPU 3.
    let map = file("map.json", br#"{"physical_to_logical_map": [[0, 1, 0, 2]]}"#);
    let loads = file("loads.json", b"[[60, 20, 20]]");
    let sent = br#"{"logical_count": [[[30, 0, 0]], [[10, 0, 4]], [[0, 20, 0]], [[20, 0, 16]]]}"#;
    let sent = file("sent.json", sent);
    let check = ["check", &loads, &map, "--gpus", "4", "--nodes", "2", "--groups", "1", "--sources", &sent];
    let told = json(&check)["traffic"]["nearest"].clone();
    // GPU loads 40, 20, 20, 20; on their GPU 30 + 16, in their node 10 + 20 beside.
    for (what, wanted) in [("balancedness", 25.0 / 40.0), ("on_gpu", 0.46), ("in_node", 0.76)] {
        assert_abs_diff_eq!(told[what].as_f64().unwrap(), wanted, epsilon = 1e-9);
    }
    assert!(run(&check).contains("76.0 % in the node, 46.0 % on the GPU; balancedness 0.62500"));
    assert!(run(&check).contains("(dispatch nearest, as GPUs sent)"));
    let few = file("few.json", br#"{"logical_count": [[[30, 0, 0]], [[10, 0, 4]]]}"#);
    let refused = |sources: &str, part: &str| assert_refused(&[&check[..10], &[sources]].concat(), part);
    refused(&few, "number of sources 2 is not --gpus 4: one for each GPU is needed");
    refused(&file("other.json", b"[[60, 20]]"), "1 layers x 2 experts are not those of the loads, 1 x 3");
}
