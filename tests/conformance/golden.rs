//! Reads the golden cases: `golden/*.json` and the loads in `data/` that they name.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use eplb_wgpu::{Cluster, Loads};
use serde_json::Value;

/// All cases.
pub struct Golden {
    pub cases: Vec<Case>,
}

/// One set of loads on one cluster, and what was answered.
pub struct Case {
    pub name: String,
    pub loads: Loads,
    pub cluster: Cluster,
    pub deepseek: Answer,
    /// `[layers]`
    pub mean_gpu_load: Vec<f64>,
    /// `[layers]`, hierarchical cases only: the least possible load of the heaviest node.
    pub best_max_node_load: Option<Vec<f64>>,
    /// Results of the planners of the field.
    pub peers: Vec<Peer>,
}

/// DeepSeek's answer.
pub struct Answer {
    /// `[layers][slots]`
    pub physical_to_logical: Vec<i32>,
    /// `[layers]`
    pub max_gpu_load: Vec<f64>,
}

impl Answer {
    /// Replicas of each expert of a layer.
    pub fn counts(&self, layer: usize, experts: usize) -> Vec<u32> {
        let slots = self.physical_to_logical.len() / self.max_gpu_load.len();
        let mut counts = vec![0; experts];
        for &expert in &self.physical_to_logical[layer * slots..(layer + 1) * slots] {
            counts[usize::try_from(expert).expect("an expert")] += 1;
        }
        counts
    }
}

/// A planner of the field, or `_bound`.
pub struct Peer {
    pub name: String,
    /// None where it failed on the case.
    pub balancedness: Option<f64>,
    /// Its duplicates, or why its number does not count.
    pub remark: String,
}

/// Reads everything in the folder that `EPLB_SHARED` names; none where it is not set.
///
/// # Panics
/// Where a file is missing or is not what it should be: then there is nothing to compare with.
pub fn read() -> Option<Golden> {
    let shared = PathBuf::from(std::env::var_os("EPLB_SHARED")?);
    let folder = shared.join("golden");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let (peers, paths): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.ends_with("peers.json"));
    let peers = json(peers.first().unwrap_or_else(|| panic!("{}: no peers.json", folder.display())));
    let cases: Vec<Case> = paths.iter().map(|path| case(path, &shared, &peers)).collect();
    for name in peers.as_object().expect("peers.json is an object").keys() {
        assert!(cases.iter().any(|case| case.name == *name), "{}: no case {name}", folder.display());
    }
    assert!(!cases.is_empty(), "{}: no case", folder.display());
    Some(Golden { cases })
}

fn case(path: &Path, shared: &Path, peers: &Value) -> Case {
    let value = json(path);
    let at = |field: &str| &value[field];
    let size = |field: &str| {
        let number = at(field).as_u64().and_then(|number| usize::try_from(number).ok());
        number.unwrap_or_else(|| panic!("{}: {field} is not a number", path.display()))
    };
    let name = at("case").as_str().expect("case is a string").to_string();
    let rows = match at("loads_file").as_str() {
        Some(file) => {
            file_rows(&shared.join("data").join(file), at("loads_rows").as_str().unwrap_or_default())
        }
        None => matrix(at("loads")),
    };
    let deepseek = at("deepseek");
    let placed = matrix(&deepseek["physical_to_logical"]);
    let peers = peers[&name].as_object().into_iter().flatten();
    Case {
        loads: Loads::from_f64(rows.len(), rows[0].len(), &rows.concat())
            .unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        cluster: Cluster::new(size("num_replicas"), size("num_groups"), size("num_nodes"), size("num_gpus"))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display())),
        deepseek: Answer {
            physical_to_logical: placed.concat().into_iter().map(|expert| expert as i32).collect(),
            max_gpu_load: row(&deepseek["max_gpu_load"]),
        },
        mean_gpu_load: row(at("mean_gpu_load")),
        best_max_node_load: at("best_max_node_load").is_array().then(|| row(at("best_max_node_load"))),
        peers: peers.map(|(name, reached)| peer(name, reached)).collect(),
        name,
    }
}

fn peer(name: &str, reached: &Value) -> Peer {
    let duplicates = reached["same_gpu_duplicates"].as_u64();
    let mut remark = duplicates.map_or_else(String::new, |number| format!("{number} duplicates"));
    if reached["valid"] == false {
        remark = "not a valid plan".to_string();
    }
    if let Some(error) = reached["error"].as_str() {
        remark = error.to_string();
    }
    Peer { name: name.to_string(), balancedness: reached["balancedness"].as_f64(), remark }
}

/// The rows of a file of loads that a case is about.
fn file_rows(path: &Path, which: &str) -> Vec<Vec<f64>> {
    let is_npy = path.extension().is_some_and(|extension| extension == "npy");
    let (windows, layers) = if is_npy { npy(path) } else { (1, matrix(&json(path)["logical_count"])) };
    match which {
        "as is" if windows == 1 => layers,
        "windows summed" => sum_windows(&layers, windows),
        range => {
            let (first, last) = range
                .strip_prefix("layers ")
                .and_then(|range| range.split_once(".."))
                .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)))
                .unwrap_or_else(|| panic!("{}: loads_rows {which:?} is not known", path.display()));
            let all: std::ops::RangeInclusive<usize> = first..=last;
            layers[all].to_vec()
        }
    }
}

/// `[windows x layers][experts]` to `[layers][experts]`.
fn sum_windows(rows: &[Vec<f64>], windows: usize) -> Vec<Vec<f64>> {
    let layers = rows.len() / windows;
    let sum =
        |layer: usize, expert: usize| (0..windows).map(|window| rows[window * layers + layer][expert]).sum();
    (0..layers).map(|layer| (0..rows[layer].len()).map(|expert| sum(layer, expert)).collect()).collect()
}

/// Number of windows (1 for a 2-D file), and all rows.
fn npy(path: &Path) -> (usize, Vec<Vec<f64>>) {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let npy = npyz::NpyFile::new(BufReader::new(file)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(npy.order(), npyz::Order::C, "{}", path.display());
    let shape = npy.shape().to_vec();
    let counts: Vec<u32> = npy.into_vec().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let experts = *shape.last().expect("a dimension") as usize;
    let rows = counts.chunks_exact(experts).map(|row| row.iter().map(|&count| f64::from(count)).collect());
    (if shape.len() == 3 { shape[0] as usize } else { 1 }, rows.collect())
}

fn json(path: &Path) -> Value {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_reader(BufReader::new(file)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn matrix(value: &Value) -> Vec<Vec<f64>> {
    value.as_array().expect("an array of rows").iter().map(row).collect()
}

fn row(value: &Value) -> Vec<f64> {
    value.as_array().expect("a row").iter().map(|number| number.as_f64().expect("a number")).collect()
}
