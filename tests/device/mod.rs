//! The device suite: each stage and the whole plan, byte for byte against the CPU backend.
//!
//! Runs on the adapter that `EPLB_TEST_DEVICE` chooses (an index or a part of a name), else on any; where none
//! is found it fails, unless `EPLB_ALLOW_NO_ADAPTER=1`. `EPLB_TEST_SHORT=1` takes a shorter list of cases.

mod common;
mod faults;
mod s1_group_loads;
mod s2_groups_to_nodes;
mod s3_replicate;
mod s4_pack;
mod s4_pack_windows;
mod s5_refine;
mod s5_refine_windows;
mod s6_select;
mod whole_plan;

use crate::cases::{Case, random_case, random_windows_case};
use crate::engine::budget;
use crate::engine::device::Opening;
use crate::engine::gpu::{Gpu, Part};
use crate::engine::recording::{Dispatch, Form, Recording};
use crate::layout::{GpuParams, Layout, window_quads};
use crate::mirror::s2_groups_to_nodes::Assignment;
use crate::mirror::s5_refine::Candidate;
use crate::mirror::s5_refine_windows as windows;
use crate::mirror::{
    rng, s1_group_loads as mirror_s1, s2_groups_to_nodes as mirror_s2, s3_replicate as mirror_s3,
    s4_pack as mirror_s4, s4_pack_windows as mirror_s4_windows,
};
use crate::params::{Params, enumerate_assignments};
use crate::planner::cpu_windows;
use crate::planner::gpu::shaders;
use crate::stages::{self, Batch};
use crate::{DeviceChoice, Duplicates, GroupRule, Objective, Planner, Search};

pub use common::{is_short, planner};

/// How many of `full` cases to run.
pub fn cases(full: u64) -> u64 {
    if is_short() { full.div_ceil(8) } else { full }
}

/// The device that is tested, opened once more, with shaders of a form that may be meant for another kind.
pub fn with_form(form: Form) -> Option<Gpu> {
    let device = planner()?.device();
    let choice = DeviceChoice::Name(format!("{} {}", device.name, device.backend));
    let open = pollster::block_on(Opening::new(choice).open()).expect("it opened before");
    let gpu = Gpu::new(open.expect("it is no CPU backend"), &shaders()).expect("it opened before");
    Some(gpu.with_form(form))
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

    /// With a search that has a wide shape.
    pub fn wide(seed: u64) -> Self {
        let cases = (0..).map(|attempt| random_case(seed ^ (attempt << 32), 1 << 14));
        let benches = cases.map(|mut case| {
            if let Some(search) = &mut case.options.search {
                let plain = Search { objective: Objective::Max, heaviest: 1, lightest: 0, ..*search };
                *search = Search { bipartition: false, ..plain };
                if seed % 4 == 3 {
                    *search = Search { swaps: false, pair_swaps: true, ..*search };
                }
            }
            case.options.duplicates = Duplicates::Avoid;
            Self::of(case)
        });
        let mut wide = benches.filter(|bench| stages::s5_refine::has_wide(&bench.layout.base));
        wide.next().expect("there is no end to the cases")
    }

    /// With several windows.
    pub fn with_windows(seed: u64) -> Self {
        let mut bench = Self::of(random_windows_case(seed, 1 << 14));
        bench.params = small_budget(bench.params, seed);
        bench.layout = Layout::new(&bench.params, bench.table.len() as u32);
        bench
    }

    fn of(mut case: Case) -> Self {
        case.options.restarts = case.options.restarts.min(9);
        let params = Params::new(&case.loads, &case.cluster, &case.options).expect("the case is valid");
        let table = enumerate_assignments(params.groups, params.nodes);
        let layout = Layout::new(&params, table.len() as u32);
        let (layers, restarts) = ((0, params.layers), (0, params.restarts));
        let batch = Batch { assignment: 0, layers, restarts, haste: 1 };
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
        gpu.run(recording, &self.layout, &problem, arena, part).expect("the device works")
    }

    /// Stages 1 and 2, and the start of the first assignment.
    pub fn record_to_nodes(&self) -> Recording {
        let mut recording = Recording::default();
        stages::s1_group_loads::record(&mut recording, &self.layout.base);
        stages::s2_groups_to_nodes::record(&mut recording, &self.layout.base);
        stages::s2_groups_to_nodes::record_gather(&mut recording, &self.layout.base, 0);
        recording
    }

    /// Runs a recording and reads one array of every candidate.
    pub fn run_candidates(&self, gpu: &Gpu, recording: &Recording, begin: u32, words: u32) -> Vec<Vec<u32>> {
        let candidates = self.batch.params(&self.layout.base).candidates;
        let all = Part::Arena { begin: 0, words: self.layout.arena_words(candidates) };
        let arena = self.run(gpu, recording, all);
        let side_by_side = gpu.form().tile as usize;
        let of_tile = |tile: &[u32], candidate: usize| {
            let rows = tile.chunks_exact(side_by_side).skip(begin as usize).take(words as usize);
            rows.map(|row| row[candidate]).collect()
        };
        let tiles = arena.chunks_exact(side_by_side * self.layout.candidate_words as usize);
        let of_tile = tiles.flat_map(|tile| (0..side_by_side).map(move |c| of_tile(tile, c)));
        of_tile.take(candidates as usize).collect()
    }

    /// The windows' loads of a layer.
    pub fn rows(&self, layer: u32) -> Vec<&[u32]> {
        let experts = self.params.experts as usize;
        let windows = self.case.loads.fixed_windows().chunks_exact(self.params.layers as usize * experts);
        windows.map(|window| &window[layer as usize * experts..(layer as usize + 1) * experts]).collect()
    }

    /// What the mirror chooses for a layer with several windows, and its floors.
    pub fn windows_assignment(&self, layer: u32) -> (Assignment, Vec<windows::Quad>) {
        let group_loads = |loads: &[u32]| {
            let mut out = Vec::new();
            mirror_s1::group_loads(&self.params, loads, &mut out);
            out
        };
        let each: Vec<Vec<u32>> = self.rows(layer).into_iter().map(group_loads).collect();
        let mean = group_loads(self.loads(layer));
        let assignment = mirror_s2::choose_windows(&self.params, &self.table, &mean, &each);
        let floors = cpu_windows::floors(&self.params, &assignment, &each);
        (assignment, floors)
    }

    /// As [`Bench::each_candidate`], with several windows.
    pub fn each_windows_candidate(
        &self,
        mut check: impl FnMut(usize, &[windows::Quad], u32, u32, &mut windows::Candidate),
    ) {
        let mut number = 0;
        for layer in 0..self.params.layers {
            let (assignment, floors) = self.windows_assignment(layer);
            let (mut mean, mut loads) = (Vec::new(), Vec::new());
            for node in 0..self.params.nodes {
                mirror_s2::node_loads(&self.params, &assignment.groups, node, self.loads(layer), &mut mean);
                cpu_windows::quads(&self.params, &assignment.groups, node, &self.rows(layer), &mut loads);
                for restart in 0..self.params.restarts {
                    let key = rng::key(&self.params, node, restart);
                    let mut candidate = windows::Candidate::default();
                    candidate.floors.clone_from(&floors);
                    let windows::Candidate { counts, scratch, .. } = &mut candidate;
                    mirror_s3::replicate(&self.params, key, restart, &mean, counts, scratch);
                    mirror_s4_windows::pack(&self.params, key, restart, &mean, &loads, &mut candidate);
                    let stop = self.params.stop_load(assignment.bound);
                    check(number, &loads, key, stop, &mut candidate);
                    number += 1;
                }
            }
        }
    }

    /// What the mirror chooses for a layer.
    pub fn assignments(&self, layer: u32) -> Vec<Assignment> {
        let mut group_loads = Vec::new();
        mirror_s1::group_loads(&self.params, self.loads(layer), &mut group_loads);
        mirror_s2::choose(&self.params, &self.table, self.loads(layer), &group_loads)
    }

    /// Calls `check` with every candidate of the batch as the mirror packs it: its number, its node's loads and
    /// key, the stop load, and the candidate.
    pub fn each_candidate(&self, mut check: impl FnMut(usize, &[u32], u32, u32, &mut Candidate)) {
        let mut number = 0;
        for layer in 0..self.params.layers {
            let assignment = &self.assignments(layer)[0];
            let mut loads = Vec::new();
            for node in 0..self.params.nodes {
                mirror_s2::node_loads(&self.params, &assignment.groups, node, self.loads(layer), &mut loads);
                for restart in 0..self.params.restarts {
                    let key = rng::key(&self.params, node, restart);
                    let mut candidate = Candidate::default();
                    let Candidate { counts, scratch, .. } = &mut candidate;
                    mirror_s3::replicate(&self.params, key, restart, &loads, counts, scratch);
                    mirror_s4::pack(&self.params, key, restart, &loads, &mut candidate);
                    let stop = self.params.stop_load(assignment.bound);
                    check(number, &loads, key, stop, &mut candidate);
                    number += 1;
                }
            }
        }
    }
}

/// Cuts what packs into dispatches of so many items, as long recordings are.
pub fn cut_packing(recording: &mut Recording, items: u32) {
    let cut = |dispatch: &Dispatch| -> Vec<Dispatch> {
        let GpuParams { begin, end, .. } = dispatch.params;
        if dispatch.kernel.entry != "pack" {
            return vec![dispatch.clone()];
        }
        let ranges = budget::ranges(end - begin, items);
        let ranges =
            ranges.map(|(from, to)| GpuParams { begin: begin + from, end: begin + to, ..dispatch.params });
        ranges.map(|params| Dispatch { params, ..dispatch.clone() }).collect()
    };
    recording.dispatches = recording.dispatches.iter().flat_map(cut).collect();
}

/// A budget of the search that keeps the suite short; one in three ends in the middle of a first scan.
pub fn small_budget(params: Params, seed: u64) -> Params {
    let most = if seed.is_multiple_of(3) { 2000 + 500 * (seed % 60) as u32 } else { 1 << 15 };
    Params { work_limit: params.work_limit.min(most), ..params }
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
