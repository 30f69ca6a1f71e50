//! Where the choice of foreign replicas lies in the device's buffers: loads, limits and sets in `problem`, the aims of layers in
//! `groups`, three candidates a layer in the arena, choices in `results`.

use super::uniform::shared_struct;
use super::words::{self, CONTROL_WORDS};
use super::{GpuParams, Layout, Parts, sizes_and_rules};
use crate::foreign::layer::{ASSIGNMENTS, NodeShares};
use crate::foreign::nodes::NodeExperts;
use crate::foreign::target::most_of_expert;
use crate::foreign::{ForeignLayer, GroupSets, tabu};
use crate::params::Params;

shared_struct! {
    /// Sizes and places of the choice of foreign replicas, at the head of `problem`: `params` would become too large by them.
    ForeignParts, "ForeignParts":
    /// Words of the bits of a set.
    set_words,
    /// Those of an expert, for the target.
    most_of_expert,
    /// Those of an expert, for construction.
    most_away,
    /// The most replicas of an expert for its own load's sake.
    most_wanted,
    /// The most replicas of an expert in a node.
    most_here,
    /// Experts of a node that share a GPU with a replica.
    beside,
    /// In `problem`: loads of the layers, `[layers][experts]`.
    at_loads,
    /// In `problem`: limits of the layers, of `LIMIT_WORDS`.
    at_limits,
    /// In `problem`: the groups of each set, a bit each.
    at_sets,
    /// In `problem`: the groups of each set, `[sets][node_groups]`.
    at_set_groups,
    /// In `problem`: the set with each group, `[enumerated][groups]`.
    at_set_with,
    /// In `problem`: the set of each node, `[enumerated][nodes]`.
    at_node_sets,
    /// Words of a layer's aim, in `groups`.
    aim_words,
    /// In an aim: loads of the experts of each group, falling.
    at_sorted,
    /// In an aim: load of each group.
    at_group_totals,
    /// In an aim: load of each set.
    at_set_loads,
    /// In an aim: steps of each group.
    at_step_counts,
    /// In an aim: replicas that the heavy experts of each group need beyond one.
    at_overweight,
    /// In an aim: steps of the experts of each group, `[groups][most_steps]`.
    at_steps,
    /// In an aim: the largest of them, falling, `[groups][most_foreign]`.
    at_group_steps,
    /// In an aim: those of all groups, falling, each with its group.
    at_merged,
    /// In an aim: the fewest foreign replicas of each set.
    at_fewest,
    /// In an aim: the surplus of each assignment, or `NONE`.
    at_surplus,
    /// In a candidate: loads of the experts of each node, falling.
    at_falling,
    /// In a candidate: load of the experts at home in each node.
    at_node_totals,
    /// In a candidate: that of those which have one replica.
    at_rest,
    /// In a candidate: the load that shares a GPU with a replica of each node.
    at_beside,
    /// In a candidate: replicas of each expert for its own load's sake.
    at_wanted,
    /// In a candidate: foreign replicas that each expert gets.
    at_away,
    /// In a candidate: those of them without a node.
    at_leaving,
    /// In a candidate: replicas of each expert in each node.
    at_here,
    /// In a candidate: the best of them so far.
    at_best_here,
    /// In a candidate: load of a replica of each expert.
    at_shares,
    /// In a candidate: load of each node.
    at_totals,
    /// In a candidate: replicas that each node has room for.
    at_free,
    /// In a candidate: the effect of a replica less of each expert, of 4 words.
    at_less,
    /// In a candidate: that of one more.
    at_more,
    /// In a candidate: experts of each node that may lose a replica, and gain one.
    at_offers,
    /// Words of a layer's choice, in `results`.
    choice_words,
    /// In a choice: the experts that may have several replicas.
    at_choice_experts,
    /// In a choice: replicas of each of them in each node.
    at_choice_here,
}

impl ForeignParts {
    /// The struct of shaders, and how a lane takes it over.
    pub fn wgsl_with_head() -> String {
        let words = (0..Self::MEMBERS.len()).map(|word| format!("problem[{word}u]"));
        let head = words.collect::<Vec<_>>().join(", ");
        format!(
            "{}fn foreign_parts() -> ForeignParts {{\n    return ForeignParts({head});\n}}\n",
            Self::wgsl()
        )
    }
}

/// The buffers of the choice.
pub struct ForeignLayout {
    /// All of them, and the uniform block.
    pub layout: Layout,
    /// The places in them.
    pub parts: ForeignParts,
}

impl ForeignLayout {
    /// The layout of the choices of some layers.
    pub fn new(params: &Params, sets: &GroupSets, layers: &[&ForeignLayer<'_>]) -> Self {
        let wide = |n: usize| n as u64;
        let nodes = NodeExperts::of(params);
        let mut base = sizes_and_rules(params, sets.assignments.len() as u32, 0);
        let mut parts = ForeignParts::default();
        base.layers = layers.len() as u32;
        base.candidates = base.layers * ASSIGNMENTS as u32;
        base.max_count = nodes.most;
        base.sets = sets.groups.len() as u32;
        parts.set_words = base.groups.div_ceil(32);
        base.most_foreign = nodes.most_foreign;
        parts.most_of_expert = most_of_expert(params);
        base.most_steps = most_steps(params, layers);
        parts.most_away = nodes.most_away();
        parts.most_wanted = nodes.most_wanted();
        parts.most_here = nodes.most_here;
        base.spare = nodes.spare;
        base.active_experts = nodes.active as u32;
        parts.beside = nodes.lightest as u32;

        let (experts, groups) = (u64::from(base.experts), u64::from(base.groups));
        let (sets_of, assignments) = (wide(sets.groups.len()), wide(sets.assignments.len()));
        let mut problem = Parts(ForeignParts::MEMBERS.len() as u64);
        parts.at_loads = problem.take(wide(layers.len()) * experts);
        parts.at_limits = problem.take(wide(layers.len()) * u64::from(words::limit::WORDS));
        parts.at_sets = problem.take(sets_of * u64::from(parts.set_words));
        parts.at_set_groups = problem.take(sets_of * u64::from(base.node_groups));
        parts.at_set_with = problem.take(assignments * groups);
        parts.at_node_sets = problem.take(assignments * u64::from(base.nodes));

        let kept = groups * u64::from(base.most_foreign);
        let mut aim = Parts(u64::from(words::aim::WORDS) - 1 + ASSIGNMENTS as u64);
        parts.at_sorted = aim.take(experts);
        parts.at_group_totals = aim.take(groups);
        parts.at_set_loads = aim.take(sets_of);
        parts.at_step_counts = aim.take(groups);
        parts.at_overweight = aim.take(groups);
        parts.at_steps = aim.take(groups * u64::from(base.most_steps));
        parts.at_group_steps = aim.take(kept);
        parts.at_merged = aim.take(2 * kept);
        parts.at_fewest = aim.take(sets_of);
        parts.at_surplus = aim.take(assignments);
        parts.aim_words = aim.take(0);

        let active = u64::from(base.active_experts) * u64::from(base.nodes);
        let mut choice = Parts(u64::from(words::choice::WORDS));
        parts.at_choice_experts = choice.take(active);
        parts.at_choice_here = choice.take(active * u64::from(base.nodes));
        parts.choice_words = choice.take(0);

        let candidate_words = candidate((&mut base, &mut parts), active);
        let layout = Layout {
            base,
            problem_words: problem.0,
            groups_words: wide(layers.len()) * aim.0,
            results_words: wide(layers.len()) * choice.0,
            candidate_words,
            result_begin: 0,
        };
        Self { layout, parts }
    }

    /// The problem buffer of layers whose replicas are to be chosen.
    pub fn problem(&self, sets: &GroupSets, layers: &[&ForeignLayer<'_>]) -> Vec<u32> {
        let base = &self.layout.base;
        let mut words = bytemuck::cast_slice(&[self.parts]).to_vec();
        words.extend(layers.iter().flat_map(|layer| layer.loads));
        words.extend(layers.iter().flat_map(|layer| [layer.floor as u32, layer.before as u32]));
        for groups in &sets.groups {
            let mut bits = vec![0u32; self.parts.set_words as usize];
            groups.iter().for_each(|group| bits[(group / 32) as usize] |= 1 << (group % 32));
            words.extend(bits);
        }
        words.extend(sets.groups.iter().flatten());
        for nodes in &sets.assignments {
            let mut with = vec![0; base.groups as usize];
            for &set in nodes {
                sets.groups[set].iter().for_each(|&group| with[group as usize] = set as u32);
            }
            words.extend(with);
        }
        words.extend(sets.assignments.iter().flatten().map(|&set| set as u32));
        words
    }

    /// The choice of a layer in what is read back.
    pub fn node_shares(&self, words: &[u32]) -> Option<NodeShares> {
        let (experts, here) = (self.parts.at_choice_experts as usize, self.parts.at_choice_here as usize);
        (words[words::choice::VALUE] != u32::MAX).then(|| NodeShares {
            value: words[words::choice::VALUE].into(),
            enough: words[words::choice::ENOUGH].into(),
            assignment: words[words::choice::ASSIGNMENT] as usize,
            experts: words[experts..here].to_vec(),
            here: words[here..].to_vec(),
        })
    }
}

/// The most steps of a group, at the least target that there may be: the higher it is, the fewer experts are heavy.
fn most_steps(params: &Params, layers: &[&ForeignLayer<'_>]) -> u32 {
    let most = most_of_expert(params);
    let of_group = |group: &[u32], floor: i64| {
        let heavy = group.iter().filter(|&&load| i64::from(load) > floor).count() as u32;
        let light = (heavy + 1..=params.group_size).map(|rank| most.min(params.most_foreign / rank));
        heavy * most + light.sum::<u32>()
    };
    let of_layer = |layer: &&ForeignLayer<'_>| {
        let groups = layer.loads.chunks_exact(params.group_size as usize);
        groups.map(|group| of_group(group, layer.floor)).max().unwrap_or(0)
    };
    layers.iter().map(of_layer).max().unwrap_or(0)
}

/// Lays out a candidate in the arena; returns its words.
fn candidate((base, parts): (&mut GpuParams, &mut ForeignParts), active: u64) -> u64 {
    let nodes = u64::from(base.nodes);
    let mut arena = Parts(0);
    base.at_control = arena.take(u64::from(CONTROL_WORDS));
    for part in [
        &mut base.at_expert,
        &mut base.at_load,
        &mut base.at_counts,
        &mut parts.at_shares,
        &mut parts.at_wanted,
        &mut parts.at_away,
        &mut parts.at_leaving,
        &mut base.at_no_loss,
        &mut base.at_no_gain,
    ] {
        *part = arena.take(active);
    }
    parts.at_here = arena.take(active * nodes);
    parts.at_best_here = arena.take(active * nodes);
    parts.at_less = arena.take(4 * active);
    parts.at_more = arena.take(4 * active);
    parts.at_falling = arena.take(u64::from(base.experts));
    for part in [
        &mut parts.at_node_totals,
        &mut parts.at_rest,
        &mut parts.at_beside,
        &mut parts.at_totals,
        &mut parts.at_free,
    ] {
        *part = arena.take(nodes);
    }
    parts.at_offers = arena.take(nodes * 2 * tabu::GAINERS as u64);
    // Candidates begin at lines of the cache.
    let words = arena.0.next_multiple_of(16);
    base.candidate_words = u32::try_from(words).unwrap_or(u32::MAX);
    words
}
