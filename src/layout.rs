//! Where everything lies in the device's buffers: the uniform block of a dispatch, and the parts of each
//! buffer. `shaders/shared/problem.wgsl` and `candidate.wgsl` read the same numbers.

use crate::mirror::rng::NORMAL;
use crate::mirror::s5_counts;
use crate::options::{GroupRule, Objective};
use crate::params::{COUNT_NOISE, Params, SAMPLED_ASSIGNMENTS};

/// Words of a candidate's control block (`CONTROL_WORDS` in `candidate.wgsl`).
pub const CONTROL_WORDS: u32 = 23;
/// Words of a node's kept state (`NODE_WORDS` in `problem.wgsl`).
pub const NODE_WORDS: u32 = 7;
/// Words of a layer's kept state (`LAYER_WORDS` in `problem.wgsl`).
pub const LAYER_WORDS: u32 = 6;
/// In it: why the search ended (`LAYER_END`), whether a start was cut off (`LAYER_CUT`), and whether a further assignment
/// could win (`LAYER_OPEN`).
pub const LAYER_END: usize = 1;
/// See [`LAYER_END`].
pub const LAYER_CUT: usize = 4;
/// See [`LAYER_END`].
pub const LAYER_OPEN: usize = 5;
/// Words of a layer's walk before its list (`WALK_LIST` in `s2_groups_to_nodes.wgsl`).
pub const WALK_WORDS: u32 = 6;

macro_rules! gpu_params {
    ($($name:ident),* $(,)?) => {
        /// The uniform block of one dispatch: `Params` in `shaders/shared/problem.wgsl`, word for word.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        #[allow(missing_docs)]
        pub struct GpuParams { $(pub $name: u32,)* }

        impl GpuParams {
            /// Name and byte offset of every member, in order.
            #[cfg(feature = "test-support")]
            pub const MEMBERS: &[(&str, usize)] =
                &[$((stringify!($name), std::mem::offset_of!(GpuParams, $name)),)*];
        }
    };
}

gpu_params! {
    layers, experts, groups, nodes, group_size, node_groups, node_experts, node_replicas, node_gpus,
    slots_per_gpu, node_slots, max_count, windows, quads,
    avoid_duplicates, seed_low, seed_high, count_noise, packing_noise, objective, heaviest, lightest,
    moves, steps, iterations, patience, later_patience, exchange_slots, pair_slots, losers, gainers, stop_fraction, start_fraction,
    assignments, group_rule, enumerated, samples,
    lanes, fuel, spread, begin, end, assignment, layer_begin, layer_count, start_begin, start_count, candidates, turn,
    at_group_rank, at_built, at_build_state, at_shares, at_chosen, at_walk, at_node_state, at_node_slots,
    at_layer_state, at_plan, at_control, at_expert, at_load, at_snapshot, at_counts, at_gpu_load, at_marks,
    at_scratch, at_tables, at_enumerated, at_windows, at_window_groups, at_node_windows, at_floors, at_tabu, at_no_gain,
    at_no_loss, at_replicated, at_peaks, at_rank, at_order,
    at_logical, at_count_search, candidate_words,
}

/// The buffers of one call, in words, and the parts in them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The uniform block with everything that all dispatches share.
    pub base: GpuParams,
    /// Words of the problem buffer.
    pub problem_words: u64,
    /// Words of the groups buffer.
    pub groups_words: u64,
    /// Words of the kept buffer.
    pub kept_words: u64,
    /// Words of one candidate in the arena.
    pub candidate_words: u64,
    /// Where the result to read back begins in the kept buffer: layer states, then the plan.
    pub result_begin: u64,
}

/// Hands out the parts of a buffer one after the other.
struct Parts(u64);

impl Parts {
    fn take(&mut self, words: u64) -> u32 {
        let at = self.0;
        self.0 += words;
        // Calls whose buffers pass a binding limit are cut before this matters.
        u32::try_from(at).unwrap_or(u32::MAX)
    }
}

impl Layout {
    /// The layout for a call; `enumerated` is the number of assignments in the table.
    pub fn new(params: &Params, enumerated: u32) -> Self {
        let wide = |n: u32| u64::from(n);
        let (layers, experts, groups, nodes) =
            (wide(params.layers), wide(params.experts), wide(params.groups), wide(params.nodes));
        let best_first = params.group_rule == GroupRule::BestFirst;
        let samples = match (best_first, enumerated) {
            (true, 0) => SAMPLED_ASSIGNMENTS,
            (true, _) => 0,
            (false, _) => 1,
        };
        let enumerated = if best_first { enumerated } else { 0 };
        let assignments = wide(params.assignments);
        let mut problem = Parts(0);
        problem.take(layers * experts);
        let at_tables = problem.take((NORMAL.len() + COUNT_NOISE.len()) as u64);
        let at_enumerated = problem.take(wide(enumerated) * groups);
        // Words of the loads of one expert in all windows; none where there is one window.
        let several = if params.windows > 1 { 4 * wide(params.quads()) } else { 0 };
        let at_windows = problem.take(layers * experts * several);

        let mut group = Parts(0);
        group.take(layers * groups);
        let at_group_rank = group.take(layers * groups);
        let at_built = group.take(layers * wide(samples + 1) * groups);
        let at_build_state = group.take(layers * wide(samples + 1) * nodes * 3);
        let at_shares = group.take(layers * wide(enumerated + samples));
        let at_chosen = group.take(layers * (assignments + 2) * (groups + 1));
        let at_walk = group.take(layers * (wide(WALK_WORDS) + 2 * assignments));
        let at_window_groups = group.take(layers * groups * several);

        let slots = nodes * wide(params.node_slots);
        let mut kept = Parts(0);
        kept.take(layers * experts);
        let at_rank = kept.take(layers * experts);
        let at_order = kept.take(layers * experts);
        let at_logical = kept.take(layers * experts);
        let at_node_state = kept.take(layers * nodes * wide(NODE_WORDS));
        let at_node_slots = kept.take(layers * slots);
        let at_node_windows = kept.take(layers * experts * several);
        let at_floors = kept.take(layers * several);
        let result_begin = kept.0;
        let at_layer_state = kept.take(layers * wide(LAYER_WORDS));
        let at_plan = kept.take(layers * slots);

        let mut arena = Parts(0);
        let (node_slots, node_gpus, node_experts) =
            (wide(params.node_slots), wide(params.node_gpus), wide(params.node_experts));
        let at_control = arena.take(wide(CONTROL_WORDS));
        let at_expert = arena.take(node_slots);
        let windows = wide(params.windows);
        let at_load = arena.take(node_slots * windows);
        let at_snapshot = arena.take(node_slots);
        let at_counts = arena.take(node_experts);
        let at_gpu_load = arena.take(node_gpus * windows);
        let at_marks = arena.take(node_gpus);
        // Replication: 2 an expert and 1 a block of them; the order of packing: 3 an expert; packing: 2 a GPU after
        // them.
        let at_scratch = arena.take((4 * node_experts).max(3 * node_experts + 2 * node_gpus));
        // Of the trajectory alone.
        let mut of_trajectory =
            |words: u64| arena.take(if params.trajectory && !s5_counts::applies(params) { words } else { 0 });
        let at_tabu = of_trajectory(node_slots);
        let at_no_gain = of_trajectory(node_experts);
        let at_no_loss = of_trajectory(node_experts);
        let at_replicated = of_trajectory(node_experts);
        let at_peaks = of_trajectory(node_experts * (1 + 3 * windows));
        // The search of counts: 5 an expert, and 18 a row of its table.
        let counts = s5_counts::applies(params);
        let at_count_search = arena.take(if counts { 5 * node_experts + 18 * (node_experts + 2) } else { 0 });
        // Candidates begin at lines of the cache.
        arena.0 = arena.0.next_multiple_of(16);

        let search = &params.descent;
        let moves = [search.swaps, search.pair_swaps, search.bipartition];
        let base = GpuParams {
            layers: params.layers,
            experts: params.experts,
            groups: params.groups,
            nodes: params.nodes,
            group_size: params.group_size,
            node_groups: params.node_groups,
            node_experts: params.node_experts,
            node_replicas: params.node_replicas,
            node_gpus: params.node_gpus,
            slots_per_gpu: params.slots_per_gpu,
            node_slots: params.node_slots,
            max_count: params.max_count,
            windows: params.windows,
            quads: params.quads(),
            avoid_duplicates: u32::from(params.avoid_duplicates),
            seed_low: params.seed[0],
            seed_high: params.seed[1],
            count_noise: u32::from(params.count_noise),
            packing_noise: u32::from(params.packing_noise),
            objective: match search.objective {
                Objective::Max => 0,
                Objective::Variance => 1,
                Objective::VarianceThenMax => 2,
            },
            heaviest: search.heaviest,
            lightest: search.lightest,
            moves: (0u32..).zip(moves).map(|(bit, on)| u32::from(on) << bit).sum(),
            steps: search.steps,
            stop_fraction: params.stop_fraction,
            start_fraction: params.start_fraction,
            iterations: params.iterations,
            patience: params.patience,
            later_patience: params.later_patience,
            exchange_slots: params.exchange_slots,
            pair_slots: params.pair_slots,
            losers: params.losers,
            gainers: params.gainers,
            assignments: params.assignments,
            group_rule: match params.group_rule {
                GroupRule::Lpt => 0,
                GroupRule::LptVariance => 1,
                GroupRule::BestFirst => 2,
            },
            enumerated,
            samples,
            spread: 1,
            at_group_rank,
            at_built,
            at_build_state,
            at_shares,
            at_chosen,
            at_walk,
            at_node_state,
            at_node_slots,
            at_layer_state,
            at_plan,
            at_control,
            at_expert,
            at_load,
            at_snapshot,
            at_counts,
            at_gpu_load,
            at_marks,
            at_scratch,
            at_tables,
            at_enumerated,
            at_windows,
            at_window_groups,
            at_node_windows,
            at_floors,
            at_tabu,
            at_no_gain,
            at_no_loss,
            at_replicated,
            at_peaks,
            at_rank,
            at_order,
            at_logical,
            at_count_search,
            candidate_words: u32::try_from(arena.0).unwrap_or(u32::MAX),
            ..GpuParams::default()
        };
        Self {
            base,
            problem_words: problem.0,
            groups_words: group.0,
            kept_words: kept.0,
            candidate_words: arena.0,
            result_begin,
        }
    }

    /// Words of an arena for this many candidates.
    pub fn arena_words(&self, candidates: u32) -> u64 {
        u64::from(candidates) * self.candidate_words
    }

    /// Words of the queue of an arena: two lengths, and two lists of its candidates.
    pub fn queue_words(&self, arena_words: u64) -> u64 {
        2 + 2 * (arena_words / self.candidate_words)
    }

    /// What the problem buffer holds at the start; `windows` as [`window_quads`] lays them out.
    pub fn problem(&self, loads: &[u32], windows: &[u32], table: &[Vec<u32>]) -> Vec<u32> {
        let mut words = Vec::with_capacity(self.problem_words as usize);
        words.extend_from_slice(loads);
        words.extend(NORMAL.iter().chain(&COUNT_NOISE).map(|&n| n as u32));
        words.extend(table.iter().take(self.base.enumerated as usize).flatten());
        words.extend_from_slice(windows);
        words
    }
}

/// Loads of several windows as shaders read them, `[layers][experts][4 * quads]`, from
/// `[windows][layers][experts]`; nothing where there is one window.
pub fn window_quads(params: &Params, windows: &[u32]) -> Vec<u32> {
    if params.windows == 1 {
        return Vec::new();
    }
    let (rows, each) = (params.layers as usize * params.experts as usize, 4 * params.quads() as usize);
    let mut words = vec![0; rows * each];
    for (window, loads) in windows.chunks_exact(rows).enumerate() {
        for (words, &load) in words.chunks_exact_mut(each).zip(loads) {
            words[window] = load;
        }
    }
    words
}
