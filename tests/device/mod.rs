//! The device suite: each stage and the whole plan, byte for byte against the CPU backend.
//!
//! Runs on the adapter that `EPLB_TEST_DEVICE` chooses (an index or a part of a name), else on any; where none
//! is found it fails, unless `EPLB_ALLOW_NO_ADAPTER=1`. `EPLB_TEST_SHORT=1` takes a shorter list of cases.

mod common;
mod faults;
mod foreign;
mod given;
mod replan;
mod s1_group_loads;
mod s2_groups_to_nodes;
mod s3_replicate;
mod s4_pack;
mod s5_counts;
mod s5_descend;
mod s5_search;
mod s6_select;
mod shares;
mod whole_plan;

use crate::cases::{Case, random_case, random_windows_case};
use crate::engine::budget;
use crate::engine::buffers::{Part, Work};
use crate::engine::device::Opening;
use crate::engine::gpu::Gpu;
use crate::engine::recording::{KernelDispatch, Recording, Tuning};
use crate::layout::{GpuParams, Layout, window_quads};

use crate::mirror::candidate::Candidate;
use crate::mirror::s2_groups_to_nodes::Assignment;
use crate::mirror::{
    bound as mirror_bound, gather as mirror_gather, rng, s1_group_loads as mirror_s1,
    s2_groups_to_nodes as mirror_s2, s3_replicate as mirror_s3, s4_pack as mirror_s4,
};
use crate::params::{Params, enumerate_assignments};
use crate::planner::gpu::shaders;
use crate::stages::{self, Batch};
use crate::watch::Watch;
use crate::{Descent, DeviceChoice, GroupRule, PlanOptions, Planner, Search};

pub use common::{is_short, planner};

pub use crate::layout::words::control::{BEST_MAX, END};

/// How many of `full` cases to run.
pub fn cases(full: u64) -> u64 {
    if is_short() { full.div_ceil(8) } else { full }
}

/// The device that is tested, opened once more, with shaders of a tuning that may be meant for another kind.
pub fn with_tuning(tuning: Tuning) -> Option<Gpu> {
    let device = planner()?.device();
    let choice = DeviceChoice::Name(format!("{} {}", device.name, device.backend));
    let opening = Opening { tuning: Some(tuning), ..Opening::new(choice) };
    let open = pollster::block_on(opening.open()).expect("it opened before");
    let open = open.expect("it is no CPU backend");
    Some(pollster::block_on(Gpu::new(open, &shaders())).expect("it opened before"))
}

/// One call, prepared for both sides.
pub struct Bench {
    pub case: Case,
    pub params: Params,
    pub table: Vec<Vec<u32>>,
    pub layout: Layout,
    pub batch: Batch,
}

impl Bench {
    pub fn new(seed: u64) -> Self {
        Self::of(random_case(seed, 1 << 14))
    }

    /// With other options.
    pub fn with(seed: u64, change: impl Fn(&mut PlanOptions)) -> Self {
        let mut case = random_case(seed, 1 << 14);
        change(&mut case.options);
        Self::of(case)
    }

    /// With several windows.
    pub fn with_windows(seed: u64) -> Self {
        Self::of(random_windows_case(seed, 1 << 12))
    }

    pub fn of(mut case: Case) -> Self {
        case.options.starts = case.options.starts.min(9);
        let params = Params::new(&case.loads, &case.cluster, &case.options).expect("the case is valid");
        let table = enumerate_assignments(params.groups, params.nodes);
        let layout = Layout::new(&params, table.len() as u32);
        let (layers, starts) = ((0, params.layers), (0, params.starts));
        let batch = Batch { assignment: 0, layers, starts, work_divisor: 1 };
        Self { case, params, table, layout, batch }
    }

    pub fn loads(&self, layer: u32) -> &[u32] {
        let experts = self.params.experts as usize;
        &self.case.loads.fixed()[layer as usize * experts..(layer as usize + 1) * experts]
    }

    /// Runs a recording on the device and reads a part of a buffer.
    pub fn run(&self, gpu: &Gpu, recording: &Recording, part: Part) -> Vec<u32> {
        let candidates = self.batch.params(&self.layout.base).candidates;
        let problem = self.layout.problem(
            self.case.loads.fixed(),
            &window_quads(&self.params, self.case.loads.fixed_windows()),
            &self.table,
        );
        let arena = self.layout.arena_words(candidates);
        let layout = &self.layout;
        let work = Work { recording, layout, problem: &problem, arena_words: arena, part };
        pollster::block_on(gpu.run(&work)).expect("the device works")
    }

    /// Stages 1 and 2, and the start of the first assignment.
    pub fn record_to_nodes(&self) -> Recording {
        let mut recording = Recording::default();
        stages::s1_group_loads::record(&mut recording, &self.layout.base);
        stages::s2_groups_to_nodes::record(&mut recording, &self.layout.base);
        stages::gather::record(&mut recording, &self.layout.base, 0);
        recording
    }

    /// Runs a recording and reads one array of every candidate.
    pub fn run_candidates(&self, gpu: &Gpu, recording: &Recording, begin: u32, words: u32) -> Vec<Vec<u32>> {
        let candidates = self.batch.params(&self.layout.base).candidates;
        let all = Part::Arena { begin: 0, words: self.layout.arena_words(candidates) };
        let arena = self.run(gpu, recording, all);
        let of = |candidate: &[u32]| candidate[begin as usize..(begin + words) as usize].to_vec();
        arena.chunks_exact(self.layout.candidate_words as usize).take(candidates as usize).map(of).collect()
    }

    /// The windows' loads of a layer.
    pub fn rows(&self, layer: u32) -> Vec<&[u32]> {
        let experts = self.params.experts as usize;
        let windows = self.case.loads.fixed_windows().chunks_exact(self.params.layers as usize * experts);
        windows.map(|window| &window[layer as usize * experts..(layer as usize + 1) * experts]).collect()
    }

    /// The mirror's choice for a layer with several windows, and its floors.
    pub fn windows_assignment(&self, layer: u32) -> (Assignment, Vec<u32>) {
        let group_loads = |loads: &[u32]| {
            let mut out = Vec::new();
            mirror_s1::group_loads(&self.params, loads, &mut out);
            out
        };
        let each: Vec<Vec<u32>> = self.rows(layer).into_iter().map(group_loads).collect();
        let mean = group_loads(self.loads(layer));
        let assignment = mirror_s2::choose_windows(&self.params, &self.table, &mean, &each);
        let floors = mirror_gather::floors(&self.params, &assignment, &each);
        (assignment, floors)
    }

    /// The mirror's choices for a layer.
    pub fn assignments(&self, layer: u32) -> Vec<Assignment> {
        let mut group_loads = Vec::new();
        mirror_s1::group_loads(&self.params, self.loads(layer), &mut group_loads);
        mirror_s2::choose(&self.params, &self.table, self.loads(layer), &group_loads)
    }

    /// Calls `check` with every candidate of the batch as the mirror packs it.
    pub fn each_candidate(&self, mut check: impl FnMut(Packed<'_>, &mut Candidate)) {
        let mut number = 0;
        for layer in 0..self.params.layers {
            let (assignment, floors) = match self.params.windows {
                1 => (self.assignments(layer)[0].clone(), vec![0]),
                _ => self.windows_assignment(layer),
            };
            let (mut combined, mut windows) = (Vec::new(), Vec::new());
            for groups in assignment.groups.chunks_exact(self.params.node_groups as usize) {
                mirror_bound::node_loads(&self.params, groups, self.loads(layer), &mut combined);
                mirror_gather::lay_windows(&self.params, groups, &self.rows(layer), &mut windows);
                let bound = match self.params.windows {
                    1 => assignment.bound.max(mirror_gather::node_bound(&self.params, &combined)),
                    _ => assignment.bound,
                };
                for start in 0..self.params.starts {
                    let key = rng::key(&self.params, groups[0], start);
                    let mut candidate = Candidate::default();
                    let Candidate { counts, scratch, .. } = &mut candidate;
                    mirror_s3::replicate(&self.params, key, start, &combined, counts, scratch);
                    mirror_s4::pack(&self.params, key, start, &combined, &mut candidate);
                    let stop_load = self.params.stop_load(bound);
                    let (loads, floors) = (&windows[..], &floors[..]);
                    let packed = Packed { number, key, start, combined: &combined, loads, floors, stop_load };
                    check(packed, &mut candidate);
                    number += 1;
                }
            }
        }
    }
}

/// A packed candidate, and what its search needs.
pub struct Packed<'a> {
    /// Its number in the batch.
    pub number: usize,
    pub key: u32,
    pub start: u32,
    /// Loads of the node's experts, all windows together, and `[experts][windows]`.
    pub combined: &'a [u32],
    pub loads: &'a [u32],
    /// The load that the heaviest GPU of each window cannot go below.
    pub floors: &'a [u32],
    pub stop_load: u32,
}

/// Cuts packing into dispatches of this many items, as long recordings are cut.
pub fn cut_packing(recording: &mut Recording, items: u32) {
    let cut = |dispatch: &KernelDispatch| -> Vec<KernelDispatch> {
        let GpuParams { begin, end, .. } = dispatch.params;
        if dispatch.kernel.entry != "pack" {
            return vec![dispatch.clone()];
        }
        let ranges = budget::ranges(end - begin, items);
        let ranges =
            ranges.map(|(from, to)| GpuParams { begin: begin + from, end: begin + to, ..dispatch.params });
        ranges.map(|params| KernelDispatch { params, ..dispatch.clone() }).collect()
    };
    recording.dispatches = recording.dispatches.iter().flat_map(cut).collect();
}

/// Fails with the place of the first difference.
#[track_caller]
pub fn assert_same(what: &str, seed: u64, expected: &[u32], found: &[u32]) {
    assert_eq!(expected.len(), found.len(), "{what}, seed {seed}: lengths");
    if let Some(at) = (0..expected.len()).find(|&i| expected[i] != found[i]) {
        let device = planner().map(|p| p.device().label());
        panic!(
            "{what} on {device:?}, seed {seed}: index {at} is {}, not {}\n{:?}",
            found[at],
            expected[at],
            crate::cases::random_case(seed, 1 << 14)
        );
    }
}
