//! Inputs of the targets: any bytes, valid files with some bytes changed, and words of each format.

use std::sync::LazyLock;

use eplb_wgpu::maps::{MapFile, PlanFormat};
use eplb_wgpu::trace::{LoadFormat, LoadHistory, plan_bytes};
use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Numbers at the ends of ranges, and what is no number.
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "2",
    "7",
    "-1",
    "-0.0",
    "0.5",
    "1e-320",
    "1e308",
    "1e999",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "4294967296",
    "1152921504606846976",
    "256",
    "16385",
    "NaN",
    "inf",
    "null",
    "true",
    "\"1\"",
];

/// Pieces of JSON and plan files, besides numbers.
const JSON: [&str; 16] = [
    "[",
    "]",
    "[",
    "]",
    ",",
    ",",
    "{",
    "}",
    ":",
    "\"logical_count\":",
    "{\"load_history\":[",
    "{\"logical_expert_load\":",
    "[[1,2],[3,4]]",
    " ",
    "\"x\":",
    "\"\\ud800\"",
];

/// Speeds of GPUs, as options and files list them.
const SPEEDS: [&str; 3] = ["1,1,0.5,0", "2 2 2 2\n2 2 1 1\n", "1e3,1e2,\t10,1000"];

/// Pieces of comma-separated values.
const CSV: [&str; 8] = [",", ",", ",", "\n", "\n", "\r\n", " ", "\u{feff}"];

/// Inputs of a target, by its name.
pub fn inputs(target: &str) -> BoxedStrategy<Vec<u8>> {
    let any_bytes = vec(any::<u8>(), 0..300);
    match target {
        "json" => prop_oneof![
            1 => any_bytes,
            3 => words(&JSON),
            4 => changed(file(LoadFormat::Json)),
        ]
        .boxed(),
        "csv" => prop_oneof![
            1 => any_bytes,
            3 => words(&CSV),
            4 => changed(file(LoadFormat::Csv)),
        ]
        .boxed(),
        "npy" => prop_oneof![
            1 => any_bytes.prop_map(|bytes| [b"\x93NUMPY\x01\x00".as_slice(), &bytes].concat()),
            4 => npy(),
            3 => changed(file(LoadFormat::Npy)),
        ]
        .boxed(),
        "others" => prop_oneof![
            1 => any_bytes,
            2 => words(&CSV),
            5 => changed(select(samples(&[
                "half.npy",
                "loads.csv.gz",
                "loads.npz",
                "router_trace_rank0.jsonl",
                "statistics/rank0.safetensors",
            ]))),
        ]
        .boxed(),
        "map" => prop_oneof![
            1 => any_bytes,
            2 => words(&JSON),
            5 => changed(select(maps())),
        ]
        .boxed(),
        "plan_file" => prop_oneof![
            1 => words(&JSON),
            7 => changed(select(PLANS.as_slice())),
        ]
        .boxed(),
        "shares_file" => prop_oneof![
            1 => words(&JSON),
            7 => changed(Just(crate::targets::shares_file_bytes())),
        ]
        .boxed(),
        "speeds" => prop_oneof![
            1 => any_bytes,
            3 => words(&CSV),
            4 => changed(select(SPEEDS.as_slice()).prop_map(|text| text.as_bytes().to_vec())),
        ]
        .boxed(),
        _ => vec(any::<u8>(), 0..400).boxed(),
    }
}

/// Files as other programs write them.
fn samples(names: &[&str]) -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples");
    names.iter().map(|name| std::fs::read(folder.join(name)).expect("a sample")).collect()
}

/// A map in every format that is not a plan's.
fn maps() -> Vec<Vec<u8>> {
    let map = MapFile::of_bytes(&samples(&["placement.yaml"])[0], None)
        .expect("a map")
        .with_gpus(4)
        .expect("4 x 2");
    let formats = PlanFormat::ALL.into_iter().filter(|format| *format != PlanFormat::Eplb);
    formats.map(|format| map.bytes(format).expect("it holds the map")).collect()
}

/// Words of a format, in any order.
fn words(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![select(words), select(NUMBERS.as_slice())];
    vec(word, 0..40).prop_map(|words| words.concat().into_bytes())
}

/// A file that is written by the library.
fn file(format: LoadFormat) -> impl Strategy<Value = Vec<u8>> {
    let most_windows: usize = if format == LoadFormat::Csv { 1 } else { 3 };
    (1..=most_windows, 1..4usize, 1..6usize, vec(any::<u64>(), 64), 0..64u32, any::<bool>()).prop_map(
        move |(windows, layers, experts, counts, shift, whole)| {
            let counts = counts.iter().take(windows * layers * experts).map(|count| count >> shift);
            let history = if whole {
                LoadHistory::from_counts(windows, layers, experts, counts.collect())
            } else {
                let values = counts.map(|count| count as f64 / 3.0).collect();
                LoadHistory::from_values(windows, layers, experts, values)
            };
            history.expect("a shape").bytes(format).expect("one window")
        },
    )
}

/// A header of any type and shape, with or without the data it needs.
fn npy() -> impl Strategy<Value = Vec<u8>> {
    let types = [
        "<u1",
        "|u1",
        "<u2",
        ">u4",
        "<u8",
        "|i1",
        "<i2",
        ">i8",
        "<f2",
        "<f4",
        ">f8",
        "<c16",
        "|b1",
        "|S5",
        "|V16",
        "<u0",
        "<f18446744073709551615",
        "<M8[ns]",
        "",
    ];
    let size = select(
        [
            "0",
            "1",
            "2",
            "3",
            "1",
            "2",
            "3",
            "65537",
            "4294967296",
            "1152921504606846976",
            "18446744073709551615",
            "18446744073709551616",
            "-1",
            "1L",
            "1.5",
            "0xffffffffff",
        ]
        .as_slice(),
    );
    let order = select(["False", "True", "False", "None"].as_slice());
    let version = select([[1u8, 0], [1, 0], [2, 0], [3, 0], [9, 9]].as_slice());
    (select(types.to_vec()), vec(size, 0..5), order, version, vec(any::<u8>(), 0..120), 0..4i64).prop_map(
        |(kind, shape, order, version, data, off)| {
            let shape: String = shape.iter().map(|size| format!("{size}, ")).collect();
            let header = format!("{{'descr': '{kind}', 'fortran_order': {order}, 'shape': ({shape}), }}\n");
            // Now and then the length is wrong.
            let length = header.len() as i64 + if off == 3 { data.len() as i64 - 60 } else { 0 };
            let length = (length as u32).to_le_bytes();
            let length = if version[0] == 1 { &length[..2] } else { &length[..] };
            [b"\x93NUMPY", &version[..], length, header.as_bytes(), &data].concat()
        },
    )
}

/// Plan files of all kinds: both policies, free slots, a layer without load, one of everything.
static PLANS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let planner = Planner::new(DeviceChoice::Cpu).expect("a CPU");
    let options = PlanOptions { starts: 1, ..PlanOptions::default() };
    let plan = |counts: &[u64], layers: usize, cluster: Cluster| {
        let loads = Loads::from_counts(layers, counts.len() / layers, counts).expect("a shape");
        let plan = planner.plan(&loads, &cluster, &options).expect("a plan");
        plan_bytes(&plan)
    };
    vec![
        plan(&[9, 5, 3, 1, 0, 0, 0, 0], 2, Cluster::new(6, 2, 2, 2).expect("a cluster")),
        plan(&[9, 5, 3], 1, Cluster::with_slots_per_gpu(4, 1, 1, 3, 2).expect("a cluster")),
        plan(&[1], 1, Cluster::new(1, 1, 1, 1).expect("a cluster")),
    ]
});

/// One change of a file. Places are relative, so that they fit any length.
#[derive(Clone, Debug)]
enum Change {
    /// A bit is flipped.
    Flip(Index, u8),
    /// Some bytes are taken out.
    Cut(Index, usize),
    /// The rest is lost.
    End(Index),
    /// Some bytes come twice.
    Repeat(Index, usize),
    /// A word comes in.
    Insert(Index, &'static str),
    /// The number at or after a place is another.
    Number(Index, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        2 => (place(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => (place(), 1..30usize).prop_map(|(at, length)| Change::Cut(at, length)),
        1 => place().prop_map(Change::End),
        1 => (place(), 1..60usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        1 => (place(), select(JSON.as_slice())).prop_map(|(at, word)| Change::Insert(at, word)),
        5 => (place(), select(NUMBERS.as_slice())).prop_map(|(at, word)| Change::Number(at, word)),
    ]
}

fn changed(file: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (file, vec(change(), 0..4)).prop_map(|(mut bytes, changes)| {
        for change in changes {
            apply(&mut bytes, &change);
        }
        bytes
    })
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    // One past the end is a place too.
    let len = bytes.len();
    let place = |at: &Index| at.index(len + 1);
    let range = |at: &Index, length: usize| place(at)..(place(at) + length).min(len);
    match change {
        Change::Flip(at, bit) => {
            if let Some(byte) = bytes.get_mut(place(at)) {
                *byte ^= 1 << bit;
            }
        }
        Change::Cut(at, length) => drop(bytes.drain(range(at, *length))),
        Change::End(at) => bytes.truncate(place(at)),
        Change::Repeat(at, length) => {
            let again = bytes[range(at, *length)].to_vec();
            bytes.splice(place(at)..place(at), again);
        }
        Change::Insert(at, word) => drop(bytes.splice(place(at)..place(at), word.bytes())),
        Change::Number(at, word) => {
            let digit = |byte: &u8| byte.is_ascii_digit() || b"-.".contains(byte);
            if let Some(start) = bytes.iter().skip(place(at)).position(digit).map(|start| place(at) + start) {
                let end = bytes.iter().skip(start).position(|byte| !digit(byte)).map_or(len, |n| start + n);
                bytes.splice(start..end, word.bytes());
            }
        }
    }
}
