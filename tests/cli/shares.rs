//! Tables of shares, and connected plans.

use eplb_wgpu::trace::SharesFile;
use serde_json::Value;

use super::{SMALL, assert_refused, eplb, json, stdout, write};

#[test]
fn tables_are_made_written_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (trace, plan, shares) = (path("trace.npy"), path("plan.json"), path("shares.json"));
    let sizes = ["--windows", "6", "--layers", "2", "--experts", "8", "--drift", "0.4", "--seed", "3"];
    assert!(eplb(&[&["generate", "--out", &trace], &sizes[..]].concat()).status.success());
    let made = ["plan", &trace, "--window", "0", "--connected", "--out", &plan];
    assert!(eplb(&[&made, &SMALL[..]].concat()).status.success());
    assert_eq!(json(&["check", &trace, &plan])["layers_connected"], 2);
    let batch = json(&["split", &trace, &plan, "--batch", "--window", "5", "--out", &shares]);
    assert_eq!((&batch["scored_on"], &batch["layers"][0]["parts"]), (&"the batch".into(), &1.into()));
    let of = |report: &Value, field: &str| report[field].as_f64().unwrap();
    assert!(of(&batch, "balancedness_shares") > of(&batch, "balancedness_even") + 0.01, "{batch}");
    // The judge says so too, and the file is for this plan alone.
    let checked = json(&["check", &trace, &plan, "--window", "5", "--shares", &shares]);
    assert_eq!(of(&checked, "balancedness"), of(&batch, "balancedness_shares"));
    assert_eq!(SharesFile::read(shares.as_ref()).unwrap().layer_ids, [0, 1]);
    let other = path("other.json");
    let args = ["plan", &trace, "--window", "3", "--out", &other];
    assert!(eplb(&[&args, &SMALL[..]].concat()).status.success());
    assert_refused(&["check", &trace, &other, "--shares", &shares], "the table is for another one");
    let bytes = std::fs::read_to_string(&shares).unwrap();
    let damaged = write(folder.path(), "damaged.json", bytes.replacen("256", "255", 1).as_bytes());
    assert_refused(&["check", &trace, &plan, "--shares", &damaged], "damaged: checksum");
    // For the next window, and with a sample of it.
    let windows = json(&["split", &trace, &plan, "--out", &shares]);
    let sample = json(&["split", &trace, &plan, "--sample", &trace]);
    assert_eq!(
        (&windows["scored_on"], &sample["scored_on"]),
        (&"the last window".into(), &"the sample".into())
    );
    assert_ne!(windows["fingerprint"], sample["fingerprint"]);
    let text = stdout(&eplb(&["split", &trace, &plan]));
    assert!(text.contains("even shares: ") && text.contains("GPUs connected"), "{text}");
    let piped = eplb(&["split", &trace, &plan, "--out", "-"]);
    assert_eq!(piped.stdout, std::fs::read(&shares).unwrap());
    assert_refused(&["split", &trace, &plan, "--out", &plan], "it is an input of this command");
    assert_refused(&["split", &trace, &plan, "--window", "0"], "--batch");
    assert_refused(&["split", &trace, &plan, "--batch", "--sample", &trace], "cannot be used with");
    let few = write(folder.path(), "few.json", b"[[1,2,3,4,5,6,7,8]]");
    assert_refused(&["split", &few, &plan, "--batch"], "layers of the loads: 1 are not the 2 of the map");
}

#[test]
fn replays_deal_by_tables() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace.npy").to_str().unwrap().to_string();
    let sizes = ["--windows", "5", "--layers", "2", "--experts", "8", "--drift", "0.4", "--seed", "3"];
    assert!(eplb(&[&["generate", "--out", &trace], &sizes[..]].concat()).status.success());
    let args = [&["replay", &trace, "--connected", "--shares", "windows,sample,batch"], &SMALL[..]].concat();
    let report = json(&args);
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    let dealt = ["scenarios", "scenarios + windows", "scenarios + sample", "scenarios + batch"];
    assert_eq!(names, [&dealt[..], &["oracle", "greedy", "never move"]].concat());
    let mean = |row: &Value| row["balancedness"]["mean"].as_f64().unwrap();
    assert!(mean(&rows[3]) > mean(&rows[0]) && mean(&rows[3]) > mean(&rows[1]), "{report}");
    let small = json(&[&args[..], &["--batch-routings", "64"]].concat());
    assert!(mean(&small["rows"][0]) < mean(&rows[0]), "small batches are less even");
    assert_eq!(eplb(&[&args[..], &["--batch-routings", "0"]].concat()).status.code(), Some(2));
    assert_refused(&["replay", &trace, "--shares", "luck"], "is not windows, sample or batch");
}

#[test]
fn tables_of_plans_with_foreign_replicas_are_made_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (plan, shares) = (path("plan.json"), path("shares.json"));
    let loads = write(folder.path(), "loads.json", b"[[90,80,70,60,9,8,7,6]]");
    let sizes = ["--replicas", "12", "--gpus", "4", "--groups", "2", "--nodes", "2", "--device", "cpu"];
    let made = ["plan", &loads, "--max-foreign", "2", "--out", &plan];
    assert!(eplb(&[&made, &sizes[..]].concat()).status.success());
    let checked = json(&["check", &loads, &plan]);
    assert!(checked["foreign"]["replicas"].as_u64() > Some(0), "{checked}");
    let split = json(&["split", &loads, &plan, "--batch", "--out", &shares]);
    assert_eq!(split["balancedness_even"], checked["balancedness"]);
    let dealt = json(&["check", &loads, &plan, "--shares", &shares]);
    assert_eq!(dealt["balancedness"], split["balancedness_shares"]);
}

#[test]
fn what_cannot_be_connected_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[9,8,7,6,5,4,3,2]]");
    let told = |replicas: &str| {
        let args = ["plan", &loads, "--replicas", replicas, "--gpus", "4", "--connected", "--device", "cpu"];
        String::from_utf8(eplb(&args).stderr).unwrap()
    };
    let said =
        "warning: --connected does nothing: there are 0 replicas beyond one an expert, and 4 GPUs need 3";
    assert!(told("8").contains(said), "{}", told("8"));
    assert_eq!(told("12"), "");
}
