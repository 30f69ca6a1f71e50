//! Maps of the serving engines: read, written, converted, checked, and planned from.

use std::path::Path;

use eplb_wgpu::maps::{MapFile, PlanFormat};

use super::loads::sample;
use super::{assert_refused, eplb, stdout, write};

const FOREIGN: [PlanFormat; 5] =
    [PlanFormat::Sglang, PlanFormat::Vllm, PlanFormat::TensorRtLlm, PlanFormat::Ascend, PlanFormat::Npy];

/// The expert map of an issue of vLLM on Ascend.
const ASCEND: &str = r#"{"moe_layer_count":1,"layer_list":[{"layer_id":0,"device_count":2,"device_list":[
    {"device_id":1,"device_expert":[3,0,1]},{"device_id":0,"device_expert":[0,1,2]}]}]}"#;

#[test]
fn every_format_reads_what_it_writes_and_every_other() {
    let map = MapFile::read(&sample("placement.yaml"), None).unwrap();
    assert_eq!((map.format(), map.layers(), map.slots()), (PlanFormat::TensorRtLlm, 2, 8));
    assert_eq!(map.layer_ids(), Some([3, 4].as_slice()));
    assert_eq!(map.physical_to_logical()[..8], [0, 1, 2, 3, 4, 5, 0, 1]);
    let map = map.with_gpus(4).unwrap();
    for format in FOREIGN {
        let bytes = map.bytes(format).unwrap();
        let again = MapFile::of_bytes(&bytes, None).unwrap();
        assert_eq!(again.format(), format);
        // SGLang has a row for each layer of the model.
        let skipped = if format == PlanFormat::Sglang { 3 } else { 0 };
        assert_eq!(again.physical_to_logical()[skipped * 8..], *map.physical_to_logical(), "{format}");
        let numbered = matches!(format, PlanFormat::TensorRtLlm | PlanFormat::Ascend);
        assert_eq!(map.losses(format).is_empty(), numbered, "{format}");
        assert_eq!(again.layer_ids() == map.layer_ids(), numbered, "{format}");
    }
    let sglang = MapFile::of_bytes(&map.bytes(PlanFormat::Sglang).unwrap(), None).unwrap();
    assert_eq!(
        (sglang.layers(), &sglang.physical_to_logical()[..8]),
        (5, [0, 1, 2, 3, 4, 5, 0, 1].as_slice())
    );
    let ascend = MapFile::parse(PlanFormat::Ascend, ASCEND.as_bytes()).unwrap();
    assert_eq!((ascend.num_gpus(), ascend.physical_to_logical()), (Some(2), [0, 1, 2, 3, 0, 1].as_slice()));
}

#[test]
fn a_free_slot_is_kept_where_the_format_has_them_and_named_where_it_has_not() {
    let map = MapFile::read(&sample("map.npy"), None).unwrap().with_gpus(4).unwrap();
    assert_eq!(map.physical_to_logical()[15], -1);
    for format in [PlanFormat::Npy, PlanFormat::Ascend] {
        let again = MapFile::of_bytes(&map.bytes(format).unwrap(), None).unwrap();
        assert_eq!(again.physical_to_logical(), map.physical_to_logical(), "{format}");
    }
    for format in [PlanFormat::Sglang, PlanFormat::Vllm, PlanFormat::TensorRtLlm] {
        let error = map.bytes(format).unwrap_err().to_string();
        assert!(error.ends_with("cannot hold a free slot: layer 1, slot 7 is -1"), "{error}");
    }
}

#[test]
fn what_is_wrong_is_said_by_layer_and_slot() {
    let refused = |text: &str, part: &str| {
        let error = MapFile::of_bytes(text.as_bytes(), None).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not hold {part:?}");
    };
    refused("", "the file is empty");
    refused("[[0, 1], [0]]", "layer 1 has 1 slots, layer 0 has 2");
    refused("[[0, 1.5]]", "layer 0, slot 1: 1.5 is not an expert or -1");
    refused(r#"{"3": [0, 1], "5": [0, "a"]}"#, "layer 5, slot 1");
    refused(
        r#"{"physical_to_logical_map": [[0]], "rank": 0}"#,
        r#"SGLang takes "physical_to_logical_map" alone"#,
    );
    refused(r#"{"physical_to_logical_map": [[0]], "physical_to_logical_map": [[1]]}"#, "is there twice");
    refused(r#"{"physical_to_logical_map": [[0]], "layer_list": []}"#, "it could be two things");
    refused(r#"{"logical_count": [[0]]}"#, "so it holds loads");
    refused(&ASCEND.replace("\"device_id\":1", "\"device_id\":2"), "layer 0: device 1 is not there once");
    refused(&ASCEND.replace("\"device_count\":2", "\"device_count\":3"), "layer 0: device_count 3");
    refused(&ASCEND.replace("\"moe_layer_count\":1", "\"moe_layer_count\":2"), "moe_layer_count 2");
    refused("num_slots: 2\ninitial_global_assignments:\n  7: [0, x]\n", "layer 7, slot 1: \"x\"");
    refused(
        "num_slots: 3\ninitial_global_assignments:\n  7: [0, 1]\n",
        "layer 7 has 2 slots, not num_slots 3",
    );
    refused("num_slots: 3\n", "it has no initial_global_assignments");
    refused("a: &x [1]\ninitial_global_assignments:\n  7: *x\n", "layer 7 is not an array");
    refused("initial_global_assignments:\n  7: [0]\n  7: [1]\n", "layer id 7 is there twice");
}

#[test]
fn a_plan_is_written_in_every_format_and_each_is_a_previous_map_and_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let text = "layer_id,expert_id,count\n3,0,9\n3,1,2\n3,2,3\n3,3,4\n4,0,1\n4,1,8\n4,2,5\n4,3,4\n";
    let loads = write(folder.path(), "loads.csv", text.as_bytes());
    let cluster = ["--replicas", "8", "--gpus", "4", "--device", "cpu"];
    let plan = |more: &[&str]| eplb(&[&["plan", loads.as_str()], &cluster[..], more].concat());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let own = path("plan.json");
    assert!(plan(&["--out", &own]).status.success());
    for format in FOREIGN {
        let out = path(&format!("{format}.map"));
        let output = plan(&["--out", &out, "--format", format.name()]);
        assert!(output.status.success(), "{output:?}");
        let converted = path(&format!("{format}.again"));
        let output = eplb(&["convert", &own, &converted, "--format", format.name()]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(std::fs::read(&converted).unwrap(), std::fs::read(&out).unwrap(), "{format}");
        let output = plan(&["--previous", &out, "--json"]);
        let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(report["moves"]["received"], 0, "{format}");
        let told = if format == PlanFormat::Ascend { vec![] } else { vec!["--gpus", "4"] };
        let output = eplb(&[&["check", &loads, &out], &told[..]].concat());
        assert!(output.status.success(), "{output:?}");
    }
    // SGLang's has the layers 0 to 2 too, and those that loads do not number may be any of them.
    let sglang = path("sglang.map");
    let unnumbered = write(folder.path(), "unnumbered.json", b"[[9,2,3,4],[1,8,5,4]]");
    let beyond = write(folder.path(), "beyond.csv", b"layer_id,expert_id,count\n4,0,1\n5,3,1\n");
    for other in [&unnumbered, &beyond] {
        let args = ["check", other, &sglang, "--gpus", "4"];
        assert_refused(&args, "layers of the loads: 2 are not the 5 of the map");
    }
    let page = path("page.html");
    let others: [&[&str]; 2] = [&["report", "-o", &page], &["split", "--batch"]];
    for args in others {
        let output = eplb(&[args, &[&loads, &sglang, "--gpus", "4"]].concat());
        assert!(output.status.success(), "{output:?}");
    }
    assert_refused(&["check", &loads, &path("npy.map")], "--gpus is needed");
    let ascend = ["convert", &path("npy.map"), &path("x.json"), "--format", "vllm-ascend"];
    assert_refused(&ascend, "--gpus is needed: vllm-ascend tells the experts of each GPU");
    let error = String::from_utf8(eplb(&["convert", &own, &path("x.npy")]).stderr).unwrap();
    assert!(error.contains("warning: npy has no layer numbers: row 0 is layer 3"), "{error}");
    assert_refused(&["convert", &own, &path("x.toml")], "; --format says what it is");
    // The other way round its numbers can be told.
    let from = ["convert", &path("npy.map"), &path("again.map"), "--format", "tensorrt-llm"];
    let error = String::from_utf8(eplb(&from).stderr).unwrap();
    assert!(error.contains("warning: the map does not tell the numbers of its layers"), "{error}");
    let output = eplb(&[&from[..], &["--layers", "3..5"]].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(std::fs::read(path("again.map")).unwrap(), std::fs::read(path("tensorrt-llm.map")).unwrap());
    let more = [&from[..], &["--layers", "3..9"]].concat();
    assert_refused(&more, "--layers 3..9 is not of the 2 layers of the map: 3..5 would do");
    let own_numbers = ["convert", &own, &path("again.map"), "--format", "tensorrt-llm", "--layers", "3..5"];
    assert_refused(&own_numbers, "the map tells the numbers of its layers");
    assert_refused(&["convert", &own, &own], "it is an input of this command");
    let link = path("link.json");
    std::fs::hard_link(&own, &link).unwrap();
    if cfg!(unix) {
        assert_refused(&["convert", &own, &link], "it is an input of this command");
    }
    // Other layers than the plan's.
    let other = write(folder.path(), "other.json", b"[[9,2,3,4],[1,8,5,4]]");
    assert_refused(&["check", &other, &own], "layers of the plan 3, 4 are not those of the loads, 0, 1");
}

#[test]
fn a_map_that_runs_is_taken_as_it_is_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4]]");
    let map = write(folder.path(), "expert_map.json", ASCEND.as_bytes());
    let args = ["plan", &loads, "--replicas", "6", "--gpus", "2", "--device", "cpu", "--previous", &map];
    assert!(eplb(&args).status.success());
    let output = eplb(&["check", &loads, &map]);
    assert!(stdout(&output).contains("vllm-ascend"), "{}", stdout(&output));
    let short = write(folder.path(), "short.json", b"[[0,1,2,0,1,2]]");
    let output = eplb(&["check", &loads, &short, "--gpus", "2"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "not valid: layer 0: expert 3 has no replica\n");
    let foreign = write(folder.path(), "foreign.json", b"[[0,1,2,3,1,9]]");
    let output = eplb(&["check", &loads, &foreign, "--gpus", "2"]);
    assert!(stdout(&output).contains("layer 0: slot 5 holds 9"), "{}", stdout(&output));
}

#[test]
fn strict_fails_on_a_duplicate_and_on_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "loads.json", b"[[5,5,5,5]]");
    let twice = write(folder.path(), "twice.json", b"[[0,0,1,2,3,1]]");
    let output = eplb(&["check", &loads, &twice, "--gpus", "3", "--strict", "--max-gap", "9"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("layer 0: GPU 0 holds expert 0 twice"), "{}", stdout(&output));
    assert!(eplb(&["check", &loads, &twice, "--gpus", "3"]).status.success());
    let uneven = write(folder.path(), "uneven.json", b"[[2,3,0,1,0,1]]");
    let strict = ["check", &loads, &uneven, "--gpus", "3", "--strict", "--json"];
    let report: serde_json::Value = serde_json::from_str(&stdout(&eplb(&strict))).unwrap();
    assert_eq!(report["strict"]["passed"], false);
    assert!(report["strict"]["faults"][0].as_str().unwrap().starts_with("layer 0: gap "), "{report}");
    assert!(eplb(&[&strict[..], &["--max-gap", "1"]].concat()).status.success());
    assert!(Path::new(&twice).exists());
}
