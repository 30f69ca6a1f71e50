//! A hostile world: no bytes make a reader, the planner or the judges panic, overflow, hang, or take memory
//! beyond a stated multiple of the input.
//!
//! The short run is the same every time. A million cases a target, and others than the last time:
//!
//! ```text
//! EPLB_HOSTILE_CASES=1000000 EPLB_HOSTILE_SEED=1 cargo test --locked --test hostile -- --nocapture
//! ```
//!
//! An input that a campaign finds goes into `corpus/`, as a file of any name in the folder of its target.
#![cfg(feature = "cli")]

mod inputs;
mod targets;

use std::path::Path;
use std::time::Instant;

use proptest::test_runner::{Config, RngSeed, TestRunner};
use targets::TARGETS;

/// Cases of a target, unless the environment says how many.
const CASES: u64 = 1000;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} {text} is not a number")),
        Err(_) => default,
    }
}

fn campaign(name: &str) {
    let (_, target) = TARGETS.into_iter().find(|target| target.0 == name).expect("a target");
    let (cases, seed) = (number("EPLB_HOSTILE_CASES", CASES), number("EPLB_HOSTILE_SEED", 0));
    let config = Config {
        cases: u32::try_from(cases).expect("at most 2^32 cases"),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let start = Instant::now();
    let run = TestRunner::new(config).run(&inputs::inputs(name), |bytes| {
        target(&bytes);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{name}: {error}");
    }
    println!("{name}: {cases} cases in {:.1} s", start.elapsed().as_secs_f64());
}

#[test]
fn json_of_any_kind() {
    campaign("json");
}

#[test]
fn npy_of_any_kind() {
    campaign("npy");
}

#[test]
fn csv_of_any_kind() {
    campaign("csv");
}

#[test]
fn loads_of_others_of_any_kind() {
    campaign("others");
}

#[test]
fn maps_of_others_of_any_kind() {
    campaign("map");
}

#[test]
fn plan_files_of_any_kind() {
    campaign("plan_file");
}

#[test]
fn files_of_shares_of_any_kind() {
    campaign("shares_file");
}

#[test]
fn speeds_of_any_kind() {
    campaign("speeds");
}

#[test]
fn plans_of_any_kind() {
    campaign("plan");
}

#[test]
fn maps_of_any_kind() {
    campaign("judge");
}

#[test]
fn the_corpus_and_all_its_beginnings() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/corpus");
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            println!("{}", file.display());
            for length in 0..=bytes.len().min(4096) {
                target(&bytes[..length]);
            }
            target(&bytes);
        }
    }
}

/// The worst a reader can be given: the least text for the most memory, and a header that lies.
#[test]
fn memory_stays_within_its_multiple() {
    let many = |start: &str, item: &str, end: &str| {
        let items = vec![item; 20_000 / item.len().max(1)];
        [start, &items.join(","), end].concat().into_bytes()
    };
    let plan = "{\"format\":\"eplb-plan/1\",\"num_replicas\":1,\"num_groups\":1,\"num_nodes\":1,\"num_gpus\":1,\
                \"slots_per_gpu\":1,\"logical_to_physical\":[[[0]]],";
    for (start, item, end) in [
        ("[[", "0", "]]"),
        ("[[", "0.5", "]]"),
        ("[", "[0]", "]"),
        ("[", "[[0]]", "]"),
        ("[", "[]", "]"),
        ("[", "{\"\":0}", "]"),
        ("{\"x\":[", "{\"\":[]}", "]}"),
        ("{\"load_history\":[", "{\"logical_expert_load\":[[0]]}", "]}"),
    ] {
        targets::json(&many(start, item, end));
        targets::plan_file(&many("{\"format\":\"eplb-plan/1\",\"x\":[", item, "]}"));
    }
    // Layers of the first map times experts of the last would be 10^8 entries.
    let rows = many("\"physical_to_logical\":[", "[0]", "],");
    let counts = many("\"replica_counts\":[[", "1", "]]}");
    targets::plan_file(&[plan.as_bytes(), &rows, &counts].concat());
    targets::csv(&many("", "0", ""));
    targets::csv(&many("", "0\n0", ""));
    let npy = |header: &str, data: usize| {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &vec![1; data]].concat()
    };
    for kind in ["|u1", "<u2", "<f4", "<f8"] {
        for fortran in ["False", "True"] {
            let header = format!("{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': (100, 200), }}");
            targets::npy(&npy(&header, 160_000));
        }
    }
    for filling in [" ", "a", ",", "'',", "'':'',", "\\x41", "-", "None,"] {
        for length in [900, 60_000] {
            let filling = filling.repeat(length / filling.len());
            for kind in [format!("'{filling}'"), filling] {
                targets::npy(&npy(
                    &format!("{{'descr': {kind}, 'fortran_order': False, 'shape': (1, 1), }}"),
                    8,
                ));
            }
        }
    }
}
