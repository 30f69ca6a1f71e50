//! Where everything lies in the device's buffers. The uniform block ([`GpuParams`]) and the words of records
//! ([`words`]) are named once, here, and written into the shaders.

use crate::given::GivenNode;
use crate::mirror::rng::NORMAL;
use crate::options::GroupRule;
use crate::params::{COUNT_NOISE, Params, SAMPLED_ASSIGNMENTS, SearchKind};

mod foreign;
mod replan;
mod shares;
mod uniform;
pub mod words;

pub use foreign::{ForeignLayout, ForeignParts};
pub use uniform::GpuParams;
pub use words::CHOSEN;

/// The buffers of one call, in words, and the parts in them.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The uniform block with everything that all dispatches share.
    pub base: GpuParams,
    /// Words of the problem buffer.
    pub problem_words: u64,
    /// Words of the groups buffer.
    pub groups_words: u64,
    /// Words of the results buffer.
    pub results_words: u64,
    /// Words of one candidate in the arena.
    pub candidate_words: u64,
    /// Where the result to read back begins in the results buffer: layer states, then the plan.
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
        let mut base = sizes_and_rules(params, enumerated, samples);
        // Words of the loads of one expert in all windows; none where there is one window.
        let several = if params.windows > 1 { 4 * wide(params.quads()) } else { 0 };

        let mut problem = Parts(0);
        problem.take(layers * experts);
        base.at_tables = problem.take((NORMAL.len() + COUNT_NOISE.len()) as u64);
        base.at_enumerated = problem.take(wide(enumerated) * groups);
        base.at_windows = problem.take(layers * experts * several);
        base.at_given = problem.take(if params.fixed_counts { layers * (experts + 1) } else { 0 });

        let mut group = Parts(0);
        group.take(layers * groups);
        base.at_group_rank = group.take(layers * groups);
        base.at_built = group.take(layers * wide(samples + 1) * groups);
        base.at_build_state = group.take(layers * wide(samples + 1) * nodes * wide(words::build::WORDS));
        base.at_averages = group.take(layers * wide(enumerated + samples));
        base.at_chosen = group.take(layers * (assignments + 2) * (groups + 1));
        base.at_walk =
            group.take(layers * (wide(words::walk::WORDS) + wide(words::kept::WORDS) * assignments));
        base.at_window_groups = group.take(layers * groups * several);

        let slots = nodes * wide(params.node_slots);
        let mut results = Parts(0);
        results.take(layers * experts);
        base.at_rank = results.take(layers * experts);
        base.at_order = results.take(layers * experts);
        base.at_logical = results.take(layers * experts);
        base.at_node_state = results.take(layers * nodes * wide(words::node::WORDS));
        base.at_node_slots = results.take(layers * slots);
        base.at_node_windows = results.take(layers * experts * several);
        base.at_floors = results.take(layers * several);
        let result_begin = results.0;
        base.at_layer_state = results.take(layers * wide(words::layer::WORDS));
        base.at_plan = results.take(layers * slots);

        let arena = candidate(params, &mut base);
        Self {
            base,
            problem_words: problem.0,
            groups_words: group.0,
            results_words: results.0,
            candidate_words: arena,
            result_begin,
        }
    }

    /// Words of the largest buffer, but for the arena.
    pub fn largest_words(&self) -> u64 {
        self.problem_words.max(self.groups_words).max(self.results_words)
    }

    /// Words of an arena for this many candidates.
    pub fn arena_words(&self, candidates: u32) -> u64 {
        u64::from(candidates) * self.candidate_words
    }

    /// Words of the queue of an arena: two lengths, and two lists of its candidates.
    pub fn queue_words(&self, arena_words: u64) -> u64 {
        2 + 2 * (arena_words / self.candidate_words)
    }

    /// The problem buffer at the start; `windows` as [`window_quads`] lays them out.
    pub fn problem(&self, loads: &[u32], windows: &[u32], table: &[Vec<u32>]) -> Vec<u32> {
        let mut words = Vec::with_capacity(self.problem_words as usize);
        words.extend_from_slice(loads);
        words.extend(NORMAL.iter().chain(&COUNT_NOISE).map(|&n| n as u32));
        words.extend(table.iter().take(self.base.enumerated as usize).flatten());
        words.extend_from_slice(windows);
        words
    }
}

impl Layout {
    /// The problem buffer of nodes whose replicas are given, a layer each. Where a node has fewer experts than others, those after
    /// its last have neither load nor replicas: they would be packed after all replicas that there are.
    pub fn given_problem(&self, nodes: &[GivenNode], table: &[Vec<u32>]) -> Vec<u32> {
        let experts = self.base.experts as usize;
        let (mut loads, mut given) = (Vec::new(), Vec::new());
        for (at, node) in (1..).zip(nodes) {
            given.push(node.enough);
            for (load, count) in node.filled(self.base.node_slots) {
                loads.push(load);
                given.push(count);
            }
            loads.resize(at * experts, 0);
            given.resize(at * (experts + 1), 0);
        }
        let mut words = self.problem(&loads, &[], table);
        words.extend(given);
        words
    }
}

/// The members of the uniform block that follow from the call alone.
fn sizes_and_rules(params: &Params, enumerated: u32, samples: u32) -> GpuParams {
    let descent = &params.descent;
    let moves = [
        (descent.swaps, words::MOVE_SWAP),
        (descent.pair_swaps, words::MOVE_PAIR),
        (descent.bipartition, words::MOVE_BIPARTITION),
    ];
    GpuParams {
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
        fixed_counts: u32::from(params.fixed_counts),
        count_noise: u32::from(params.count_noise),
        packing_noise: u32::from(params.packing_noise),
        objective: descent.objective as u32,
        heaviest: descent.heaviest,
        lightest: descent.lightest,
        moves: moves.iter().map(|&(on, bit)| u32::from(on) * bit).sum(),
        steps: descent.steps,
        iterations: params.iterations,
        patience: params.patience,
        later_patience: params.later_patience,
        exchange_slots: params.exchange_slots,
        pair_slots: params.pair_slots,
        losers: params.losers,
        gainers: params.gainers,
        stop_fraction: params.stop_fraction,
        start_fraction: params.start_fraction,
        assignments: params.assignments,
        group_rule: params.group_rule as u32,
        enumerated,
        samples,
        start_patience: params.start_patience,
        spread: 1,
        ..GpuParams::default()
    }
}

/// Lays out a candidate in the arena; returns its words.
fn candidate(params: &Params, base: &mut GpuParams) -> u64 {
    let wide = |n: u32| u64::from(n);
    let (slots, gpus, experts) = (wide(params.node_slots), wide(params.node_gpus), wide(params.node_experts));
    let windows = wide(params.windows);
    let mut arena = Parts(0);
    base.at_control = arena.take(wide(words::CONTROL_WORDS));
    base.at_expert = arena.take(slots);
    base.at_load = arena.take(slots * windows);
    base.at_snapshot = arena.take(slots);
    base.at_counts = arena.take(experts);
    base.at_gpu_load = arena.take(gpus * windows);
    base.at_marks = arena.take(gpus);
    // Replication: 2 an expert and 1 a block of them; the order of packing: 3 an expert; packing: 2 a GPU after them.
    base.at_scratch = arena.take((4 * experts).max(3 * experts + 2 * gpus));
    match params.search_kind() {
        // 5 words an expert, and 18 a row of its table.
        SearchKind::Counts => base.at_count_search = arena.take(5 * experts + 18 * (experts + 2)),
        SearchKind::Trajectory => {
            base.at_tabu = arena.take(slots);
            base.at_no_gain = arena.take(experts);
            base.at_no_loss = arena.take(experts);
            base.at_replicated = arena.take(experts);
            base.at_peaks = arena.take(experts * (1 + u64::from(words::peak::WORDS) * windows));
        }
        SearchKind::Descent => {}
    }
    // Candidates begin at lines of the cache.
    let words = arena.0.next_multiple_of(16);
    base.candidate_words = u32::try_from(words).unwrap_or(u32::MAX);
    words
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
