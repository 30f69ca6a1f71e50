//! The uniform block of a dispatch. [`GpuParams::wgsl`] writes the struct that shaders read, so each member is named here
//! alone.

macro_rules! shared_struct {
    ($(#[$about:meta])* $of:ident, $wgsl:literal: $($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $(#[$about])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $of { $($(#[$doc])* pub $name: u32,)* }

        impl $of {
            /// Name and byte offset of every member, in order.
            pub const MEMBERS: &[(&str, usize)] =
                &[$((stringify!($name), std::mem::offset_of!($of, $name)),)*];

            /// The struct of shaders.
            pub fn wgsl() -> String {
                let members = Self::MEMBERS.iter().map(|(name, _)| format!("    {name}: u32,\n"));
                format!("struct {} {{\n{}}}\n", $wgsl, members.collect::<String>())
            }
        }
    };
}
pub(super) use shared_struct;

shared_struct! {
    /// The uniform block of one dispatch, `Params` in shaders.
    GpuParams, "Params":
    // Sizes of the call.
    /// Layers of the call.
    layers,
    /// Logical experts of a layer.
    experts,
    /// Groups of a layer that stay whole.
    groups,
    /// Nodes that are planned apart.
    nodes,
    /// Experts of a group.
    group_size,
    /// Groups of a node.
    node_groups,
    /// Experts of a node.
    node_experts,
    /// Replicas of a node.
    node_replicas,
    /// GPUs of a node.
    node_gpus,
    /// Slots of a GPU.
    slots_per_gpu,
    /// Slots of a node.
    node_slots,
    /// The most replicas of an expert.
    max_count,
    /// Windows of the loads.
    windows,
    /// Windows in fours, rounded up.
    quads,
    // Rules and budgets.
    /// 1: no GPU may hold an expert twice.
    avoid_duplicates,
    /// Low word of the seed.
    seed_low,
    /// High word of the seed.
    seed_high,
    /// 1: replica counts are given and stay as they are.
    fixed_counts,
    /// 1: starts after the first perturb the loads that decide replica counts.
    count_noise,
    /// 1: starts after the first perturb the packing.
    packing_noise,
    /// A code of the descent's objective: `OBJECTIVE_…`.
    objective,
    /// GPUs that propose a swap of the descent; 0 for all.
    heaviest,
    /// GPUs that may be partners; 0 for all others.
    lightest,
    /// Kinds of moves of the descent, a bit each: `MOVE_…`.
    moves,
    /// Steps of a descent.
    steps,
    /// Iterations of a start.
    iterations,
    /// Iterations without a new best after which the first start ends.
    patience,
    /// The same of other starts.
    later_patience,
    /// Slots of a GPU that an iteration offers for exchange.
    exchange_slots,
    /// Those that it offers in pairs.
    pair_slots,
    /// Experts that an iteration lets lose a replica.
    losers,
    /// Slots of the heaviest GPU whose experts it lets gain one.
    gainers,
    /// A start ends at `bound + bound * stop_fraction / 2^32`.
    stop_fraction,
    /// A node gets no further starts at `bound + bound * start_fraction / 2^32`.
    start_fraction,
    /// Group assignments of a layer that are tried.
    assignments,
    /// A code of the rule for groups: `RULE_…`.
    group_rule,
    /// Assignments in the table of all.
    enumerated,
    /// Assignments that are built where there is no such table.
    samples,
    /// Starts without a new best after which a node gets no more.
    start_patience,
    // The work of this dispatch.
    /// Lanes that have something to do.
    lanes,
    /// Loop trips that a descent may spend.
    fuel,
    /// One lane in this many has a candidate.
    spread,
    /// The first item of this dispatch.
    begin,
    /// The item after its last; for a search its iterations.
    end,
    /// The assignment it is about, or `CHOSEN`.
    assignment,
    /// The first layer of the batch.
    layer_begin,
    /// Layers of the batch.
    layer_count,
    /// The first start of the batch.
    start_begin,
    /// Starts of the batch.
    start_count,
    /// Candidates of the batch.
    candidates,
    /// Which of the queue's two lists this dispatch reads.
    turn,
    // Where each part of a buffer begins, in words.
    /// In `groups`: ranks of groups, `[layers][groups]`.
    at_group_rank,
    /// In `groups`: assignments built, `[layers][samples + 1][groups]`.
    at_built,
    /// In `groups`: what building needs of each node, `[layers][samples + 1][nodes]` of `BUILD_WORDS`.
    at_build_state,
    /// In `groups`: the busiest node's average for each candidate, `[layers][enumerated + samples]`.
    at_averages,
    /// In `groups`: assignments chosen, `[layers][assignments + 2]` of a bound and `groups` groups.
    at_chosen,
    /// In `groups`: the walk through candidates, `[layers]` of `WALK_WORDS` and a list.
    at_walk,
    /// In `results`: states of nodes, `[layers][nodes]` of `NODE_WORDS`.
    at_node_state,
    /// In `results`: the best placement of each node, `[layers][nodes][node_slots]`.
    at_node_slots,
    /// In `results`: states of layers, `[layers]` of `LAYER_WORDS`.
    at_layer_state,
    /// In `results`: the plan, `[layers][nodes][node_slots]`.
    at_plan,
    /// In a candidate: its control block, of `CONTROL_WORDS`.
    at_control,
    /// In a candidate: the expert of each slot.
    at_expert,
    /// In a candidate: the load of each slot, `[node_slots][windows]`.
    at_load,
    /// In a candidate: the best placement so far.
    at_snapshot,
    /// In a candidate: replicas of each expert.
    at_counts,
    /// In a candidate: the load of each GPU, `[node_gpus][windows]`.
    at_gpu_load,
    /// In a candidate: a word a GPU that a search needs for an iteration.
    at_marks,
    /// In a candidate: scratch of replication, packing and the search.
    at_scratch,
    /// In `problem`: tables of noise.
    at_tables,
    /// In `problem`: all balanced assignments, `[enumerated][groups]`.
    at_enumerated,
    /// In `problem`: loads of several windows, `[layers][experts][4 * quads]`.
    at_windows,
    /// In `problem`, where counts are given: of each layer the load that is good enough, then counts, `[layers][1 + experts]`.
    at_given,
    /// In `groups`: group loads of several windows, `[layers][groups][4 * quads]`.
    at_window_groups,
    /// In `results`: node loads of several windows, `[layers][experts][4 * quads]`.
    at_node_windows,
    /// In `results`: what each window's heaviest GPU cannot go below, `[layers][4 * quads]`.
    at_floors,
    /// In a candidate: the iteration up to which each slot stays.
    at_tabu,
    /// In a candidate: the iteration up to which each expert gains no replica.
    at_no_gain,
    /// In a candidate: the iteration up to which each expert loses no replica.
    at_no_loss,
    /// In a candidate: experts with two replicas or more.
    at_replicated,
    /// In a candidate: the heaviest holders of each expert, see `s5_search/transfer.wgsl`.
    at_peaks,
    /// In `results`: ranks of a node's experts by load, `[layers][experts]`.
    at_rank,
    /// In `results`: a node's experts by falling load, `[layers][experts]`.
    at_order,
    /// In `results`: the logical expert of each expert of a node, `[layers][experts]`.
    at_logical,
    /// In a candidate: tables of the search of counts.
    at_count_search,
    /// Words of a candidate.
    candidate_words,
    // Of the trajectories of plans over time, whose candidates are whole layers: see `layout/replan.rs`.
    /// GPUs of the layer.
    gpus,
    /// GPUs of a node, as the count of work has them: rounded up.
    node_lanes,
    /// GPUs of a node that copies are spread over; 0 where that does not matter.
    spread_gpus,
    /// 1: there may be foreign replicas.
    foreign,
    /// The most iterations that there is memory for.
    extent,
    /// Words of a task, in `problem`.
    task_words,
    /// In a task: means of the windows, factors and shifts of their squares, and floors, `[4][4 * quads]`.
    at_squares_of,
    /// In a task: loads of the experts, `[experts][4 * quads]`.
    at_weights,
    /// In a task: replicas of each expert.
    at_task_counts,
    /// In a task, where there may be foreign replicas: the home node of each expert.
    at_task_homes,
    /// In a task: what each GPU received.
    at_task_received,
    /// In a task: what runs.
    at_previous,
    /// In a task: where the search starts.
    at_begin,
    /// Words of a trail, in `results`.
    trail_words,
    /// In a trail: its states, of `STATE_WORDS`.
    at_states,
    /// In a trail: its changes, a slot and what it holds.
    at_changes,
    /// In a candidate: squares of each GPU.
    at_squares,
    /// In a candidate: what each GPU received.
    at_received,
    /// In a candidate: the GPUs that hold each expert, `[experts]` sets of a bit a GPU.
    at_held,
    /// In a candidate: those that held it in the plan that runs.
    at_home,
    /// In a candidate: loads of GPUs while transfers are weighed, `[4 * quads][gpus]`.
    at_after,
    // Of tables of shares: see `layout/shares.rs`.
    /// Replicas of a layer, at most.
    replicas,
    /// Rounds of pairs of a layer, at most.
    rounds,
    /// In a task: the end of each round.
    at_rounds,
    /// In a task: its pairs, of `PAIR_WORDS`.
    at_pairs,
    /// In a task: the terms of experts, of `TERMS_WORDS` and a load for each scenario.
    at_terms,
    /// In a task: the share of each replica to begin with.
    at_first_shares,
    /// In a task: the load of each GPU with these, `[gpus]` or `[gpus][SCENARIOS]`.
    at_first_loads,
    // Of foreign replicas: see `layout/foreign.rs`.
    /// The most foreign replicas of a layer.
    most_foreign,
    /// Replicas of a node beyond one for each expert at home.
    spare,
    /// Sets of groups that nodes may have.
    sets,
    /// Steps of a group at most.
    most_steps,
    /// Experts of a node that may have several replicas.
    active_experts,
}
