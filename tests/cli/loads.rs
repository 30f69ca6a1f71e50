//! Load files as other programs write them: what is read from them, and what could be two things.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use eplb_wgpu::trace::{LoadFormat, LoadHistory, Window};

use super::{assert_refused, plan_args, stdout, write};

pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)
}

fn sums(path: &Path) -> (Vec<u32>, Vec<f64>) {
    let loads = LoadHistory::read(path).unwrap().loads(Window::Sum).unwrap();
    (loads.layer_ids().to_vec(), loads.values().to_vec())
}

/// The counts in the samples of two layers of six experts.
fn counted(factor: f64) -> Vec<f64> {
    (1..=12).map(|count| f64::from(count) * factor).collect()
}

#[test]
fn arrays_archives_and_packed_text_hold_the_same() {
    for name in ["half.npy", "loads.npz", "loads.csv.gz"] {
        assert_eq!(sums(&sample(name)), (vec![0, 1], counted(1.0)), "{name}");
    }
}

#[test]
fn statistics_of_ranks_are_added_up_and_layers_keep_their_numbers() {
    // Two iterations; the second rank has twice the first.
    for path in ["statistics", "statistics/meta_info.json"] {
        assert_eq!(sums(&sample(path)), (vec![3, 4], counted(6.0)), "{path}");
    }
    let history = LoadHistory::read(&sample("statistics")).unwrap();
    assert_eq!((history.windows(), history.experts()), (2, 6));
    assert_eq!(sums(&sample("statistics/rank0.safetensors")).1, counted(2.0));
}

#[test]
fn a_router_trace_counts_tokens_by_step_and_numbers_predicting_layers_last() {
    let history = LoadHistory::read(&sample("router_trace_rank0.jsonl")).unwrap();
    assert_eq!((history.windows(), history.layers(), history.experts()), (2, 3, 6));
    assert_eq!(history.layer_ids(), [3, 4, 5]);
    // In the second step the tokens of each layer went to 1 and the layer's own number, and to 5 and 1.
    let second = history.loads(Window::Last).unwrap();
    assert_eq!(second.layer(0), [0.0, 2.0, 0.0, 1.0, 0.0, 1.0]);
    assert_eq!(second.layer(2), [1.0, 2.0, 0.0, 0.0, 0.0, 1.0]);
    let folder = tempfile::tempdir().unwrap();
    let trace = std::fs::read(sample("router_trace_rank0.jsonl")).unwrap();
    write(folder.path(), "router_trace_rank0.jsonl", &trace);
    write(folder.path(), "router_trace_rank1.jsonl", &trace);
    let both = LoadHistory::read(folder.path()).unwrap().loads(Window::Last).unwrap();
    assert_eq!(both.layer(0), [0.0, 4.0, 0.0, 2.0, 0.0, 2.0]);
}

const ROWS: &str = "3,0,24990\n3,2,39249\n3,3,13378\n3,5,13874\n3,5,1\n\n4,1,22360\n4,4,100\n";

#[test]
fn rows_of_a_recorder_are_added_up_and_absent_experts_have_no_load() {
    let folder = tempfile::tempdir().unwrap();
    let read = |text: String| LoadHistory::read(write(folder.path(), "rows.csv", text.as_bytes()).as_ref());
    let wanted = [24990.0, 0.0, 39249.0, 13378.0, 0.0, 13875.0, 0.0, 22360.0, 0.0, 0.0, 100.0, 0.0];
    let history = read(format!("layer_id,expert_id,count\r\n{ROWS}")).unwrap();
    assert_eq!((history.layer_ids(), history.values()), ([3, 4].as_slice(), wanted.to_vec()));
    // With a byte-order mark, and the columns in another order.
    let turned: String = ROWS
        .lines()
        .filter(|row| !row.is_empty())
        .map(|row| {
            let fields: Vec<_> = row.split(',').collect();
            format!("{},{},{}\n", fields[2], fields[0], fields[1])
        })
        .collect();
    assert_eq!(read(format!("\u{feff}count,layer_id,expert_id\n{turned}")).unwrap(), history);
    // Without a header it could be loads of three experts.
    let error = read(ROWS.to_string()).unwrap_err().to_string();
    assert!(
        error.contains("it could be two things") && error.contains("layer_id,expert_id,count"),
        "{error}"
    );
    let path = write(folder.path(), "rows.csv", ROWS.as_bytes());
    assert_eq!(LoadHistory::read_as(path.as_ref(), Some(LoadFormat::Rows)).unwrap(), history);
    let table = LoadHistory::read_as(path.as_ref(), Some(LoadFormat::Table)).unwrap();
    assert_eq!((table.layers(), table.experts()), (7, 3));
    assert_refused(&plan_args(&path, &[]), "it could be two things");
    // As many experts as there are, not as many as had tokens.
    let args = ["--load-format", "rows", "--experts", "8", "--layers", "4..5", "--json"];
    let report: serde_json::Value =
        serde_json::from_str(&stdout(&super::eplb(&plan_args(&path, &args)))).unwrap();
    assert_eq!(report["layer_ids"], serde_json::json!([4]));
    let few = plan_args(&path, &["--load-format", "rows", "--experts", "5"]);
    assert_refused(&few, "experts 5 is less than the loads have, 6");
}

#[test]
fn what_could_be_two_things_or_is_another_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path, part: &str| {
        let error = LoadHistory::read(path).unwrap_err().to_string();
        assert!(error.contains(part), "{error:?} does not hold {part:?}");
    };
    refused(&sample("two.npz"), "it could be several things");
    refused(&sample("bomb.csv.gz"), "it unpacks to more than");
    let file = |name: &str, text: &str, part: &str| {
        refused(write(folder.path(), name, text.as_bytes()).as_ref(), part);
    };
    let both = r#"{"load_history": [{"logical_expert_load": [[1]]}], "logical_count": [[1]]}"#;
    file("both.json", both, "could be two things: load_history and logical_count");
    file("twice.json", r#"{"logical_count": [[1]], "logical_count": [[2]]}"#, "has a field twice");
    file("map.json", r#"{"physical_to_logical_map": [[0, 1]]}"#, "it holds a map, not loads");
    file("words.csv", "layer,load\n1,2\n", "under the header layer_id,expert_id,count");
    file("far.csv", "layer_id,expert_id,count\n0,4096,1\n", "line 2: expert 4096 is not below 4096");
    let sparse: String = (0..2000).map(|layer| format!("{layer},4095,1\n")).collect();
    file("sparse.csv", &format!("layer_id,expert_id,count\n{sparse}"), "are too many loads for");
    file("half.jsonl", "{\"step\":0,\"layer\":1,\"top_indices\":[[1]]}\n{\"step\"", "line 2");
    for name in ["a.jsonl", "rank0.safetensors"] {
        write(folder.path(), name, b"");
    }
    refused(folder.path(), "it could be two things: TensorRT-LLM's statistics");
}

#[test]
fn histories_with_layer_numbers_are_read_as_they_are_written() {
    let history = LoadHistory::read(&sample("statistics")).unwrap();
    let again = LoadHistory::parse(LoadFormat::Json, &history.bytes(LoadFormat::Json).unwrap()).unwrap();
    assert_eq!(again, history);
    let error = history.bytes(LoadFormat::Npy).unwrap_err().to_string();
    assert!(error.contains("holds no layer numbers"), "{error}");
    let rows = LoadHistory::parse(LoadFormat::Rows, b"7,1,5\n9,0,2\n").unwrap();
    let bytes = rows.bytes(LoadFormat::Rows).unwrap();
    assert_eq!(LoadHistory::parse(LoadFormat::Csv, &bytes).unwrap(), rows);
    let three = LoadHistory::from_counts(1, 2, 3, vec![0, 1, 2, 3, 4, 5]).unwrap();
    let bytes = three.bytes(LoadFormat::Csv).unwrap();
    assert_eq!(LoadHistory::parse(LoadFormat::Csv, &bytes).unwrap(), three);
    assert_eq!(history.select_layers(4..5).unwrap().layer_ids(), [4]);
    let error = history.select_layers(0..2).unwrap_err().to_string();
    assert_eq!(error, "layers 0..2 is not a range within 3..5");
}

/// Runs the command with this on standard input.
pub fn eplb_with_input(args: &[&str], input: &[u8]) -> std::process::Output {
    use std::io::Write;
    let mut command = Command::new(env!("CARGO_BIN_EXE_eplb"));
    command.args(args).env("NODEVICE_SELECT", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it has read all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn standard_input_and_output_stand_for_files() {
    let folder = tempfile::tempdir().unwrap();
    let loads = b"[[9,2,3,4,5,60,7,8]]";
    let path = write(folder.path(), "loads.json", loads);
    let plan = folder.path().join("plan.json");
    assert!(super::eplb(&plan_args(&path, &["--out", plan.to_str().unwrap()])).status.success());
    let piped = eplb_with_input(&plan_args("-", &["--out", "-"]), loads);
    assert!(piped.status.success(), "{piped:?}");
    let same = |bytes: &[u8]| eplb_wgpu::trace::PlanFile::parse(bytes).unwrap();
    assert_eq!(same(&piped.stdout), same(&std::fs::read(&plan).unwrap()));
    let checked = eplb_with_input(&["check", &path, "-"], &piped.stdout);
    assert!(checked.status.success(), "{checked:?}");
    for binary in ["loads.npz", "statistics/rank0.safetensors"] {
        let piped = eplb_with_input(&plan_args("-", &["--json"]), &std::fs::read(sample(binary)).unwrap());
        assert!(piped.status.success(), "{piped:?}");
    }
    assert_refused(&["check", "-", "-"], "standard input - is named twice");
    assert_refused(&plan_args(&path, &["--out", "-", "--json"]), "--json --with-map has both");
}
