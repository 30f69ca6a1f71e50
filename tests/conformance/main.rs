//! Plans beside the answers of DeepSeek's rule and the field's other planners on the same loads.
//!
//! The answers and the loads are not part of this repository: `EPLB_SHARED` names the folder that holds them,
//! and `.ci/run` sets it. Without it these tests say so and pass; with it a missing file is a failure.
//! `-- --nocapture` prints the tables.

mod devices;
mod golden;
mod moving;
mod replicas;

use std::sync::LazyLock;

use approx::relative_ne;
use eplb_wgpu::check::{self, Quality};
use eplb_wgpu::{DeviceChoice, Duplicates, Plan, PlanOptions, Planner, Preset, bound};

use golden::{Case, Golden};

/// Loads are counts of some thousands or millions, and the answers were computed in `f32`.
const RELATIVE: f64 = 1e-6;

static GOLDEN: LazyLock<Option<Golden>> = LazyLock::new(golden::read);

/// Every case, or none where `EPLB_SHARED` is not set.
fn cases() -> &'static [Case] {
    if GOLDEN.is_none() {
        eprintln!("not run: EPLB_SHARED is not set");
    }
    GOLDEN.as_ref().map_or(&[], |golden| &golden.cases)
}

fn plan(case: &Case, options: &PlanOptions) -> (Plan, Quality) {
    static CPU: LazyLock<Planner> =
        LazyLock::new(|| Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always there"));
    let plan = CPU.plan(&case.loads, &case.cluster, options).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let quality = check::score(&case.loads, &case.cluster, plan.physical_to_logical());
    (plan, quality.unwrap_or_else(|e| panic!("{}: {e}", case.name)))
}

fn gen00() -> PlanOptions {
    Preset::GREEDY.options()
}

/// Asserts that there are no complaints, and prints all of them where there are.
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn gen00_gives_the_readme_example_slot_for_slot() {
    let Some(readme) = cases().iter().find(|case| case.name == "readme") else {
        assert!(cases().is_empty(), "there is no case readme");
        return;
    };
    let (plan, _) = plan(readme, &gen00());
    assert_eq!(plan.physical_to_logical(), readme.deepseek.physical_to_logical);
}

/// Counts are equal but where the float32 of the answer cannot tell two experts apart.
#[test]
fn gen00_gives_every_expert_as_many_replicas_as_deepseek() {
    let (mut complaints, mut near_ties, mut layers) = (Vec::new(), Vec::new(), 0);
    for case in cases() {
        let (plan, _) = plan(case, &gen00());
        let experts = case.loads.experts();
        for (layer, counts) in plan.replica_counts().chunks_exact(experts).enumerate() {
            layers += 1;
            let place = format!("{}, layer {layer}", case.name);
            match replicas::compare(case.loads.layer(layer), counts, &case.deepseek.counts(layer, experts)) {
                Ok(None) => {}
                Ok(Some(tie)) => near_ties.push(format!("{place}: {tie}")),
                Err(difference) => complaints.push(format!("{place}: {difference}")),
            }
        }
    }
    println!("\n{layers} layers, near-ties in {}:\n{}", near_ties.len(), near_ties.join("\n"));
    assert_none(&complaints);
    assert!(near_ties.len() * 200 <= layers, "near-ties in {} of {layers} layers", near_ties.len());
}

#[test]
fn gen00_loads_the_busiest_gpu_no_more_than_deepseek() {
    let mut complaints = Vec::new();
    for case in cases() {
        let (_, quality) = plan(case, &gen00());
        for (layer, (ours, theirs)) in quality.layers.iter().zip(&case.deepseek.max_gpu_load).enumerate() {
            if ours.max_gpu_load > theirs * (1.0 + RELATIVE) {
                complaints.push(format!("{}, layer {layer}: {} > {theirs}", case.name, ours.max_gpu_load));
            }
        }
    }
    assert_none(&complaints);
}

/// The score of DeepSeek's own plans is the load that came with them: `check` and the answers mean the same.
#[test]
fn the_score_of_deepseeks_plans_is_what_they_say() {
    let mut complaints = Vec::new();
    for case in cases() {
        let score = check::score(&case.loads, &case.cluster, &case.deepseek.physical_to_logical);
        let score = score.unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for (layer, quality) in score.layers.iter().enumerate() {
            let (max, mean) = (case.deepseek.max_gpu_load[layer], case.mean_gpu_load[layer]);
            if differ(quality.max_gpu_load, max) || differ(quality.mean_gpu_load, mean) {
                complaints.push(format!("{}, layer {layer}: {quality:?}, not {max} and {mean}", case.name));
            }
        }
    }
    assert_none(&complaints);
}

fn differ(a: f64, b: f64) -> bool {
    relative_ne!(a, b, max_relative = RELATIVE)
}

#[test]
fn bounds_are_below_every_answer_and_not_below_the_best_node() {
    let mut complaints = Vec::new();
    for case in cases() {
        let node_gpus = (case.cluster.num_gpus() / case.cluster.planned_nodes()) as f64;
        for (layer, bound) in bound::lower_bounds(&case.loads, &case.cluster).into_iter().enumerate() {
            let reached = case.deepseek.max_gpu_load[layer];
            let node = case.best_max_node_load.as_ref().map_or(0.0, |best| best[layer]);
            if bound > reached * (1.0 + RELATIVE) || bound * node_gpus < node * (1.0 - RELATIVE) {
                let rule = format!("not above {reached}, and {node} at least on {node_gpus} GPUs");
                complaints.push(format!("{}, layer {layer}: {bound} should be {rule}", case.name));
            }
        }
    }
    assert_none(&complaints);
}

/// Never worse than DeepSeek's rule held to the same rule about duplicates; and the table of everyone.
#[test]
fn the_default_plan_is_never_worse_than_gen00() {
    let avoiding = PlanOptions { duplicates: Duplicates::Avoid, ..gen00() };
    let mut complaints = Vec::new();
    for case in cases() {
        let (_, ours) = plan(case, &PlanOptions::default());
        let (_, greedy) = plan(case, &avoiding);
        for (layer, (ours, greedy)) in ours.layers.iter().zip(&greedy.layers).enumerate() {
            if ours.max_gpu_load > greedy.max_gpu_load * (1.0 + RELATIVE) {
                let (ours, greedy) = (ours.max_gpu_load, greedy.max_gpu_load);
                complaints.push(format!("{}, layer {layer}: {ours} > {greedy}", case.name));
            }
        }
        println!("{}", table(case, &ours));
    }
    assert_none(&complaints);
}

/// One case's lines of the table: balancedness of everyone, best first, with same-GPU duplicates.
fn table(case: &Case, ours: &Quality) -> String {
    let bounds = bound::lower_bounds(&case.loads, &case.cluster);
    let sums = |of: &[f64]| of.iter().sum::<f64>();
    let within = |bound: f64| if bound > 0.0 { sums(&case.mean_gpu_load) / bound } else { 1.0 };
    let deepseek = within(sums(&case.deepseek.max_gpu_load));
    let mine = format!("{} duplicates", ours.same_gpu_duplicates());
    let mut rows = vec![
        ("(our bound)", Some(within(sums(&bounds))), ""),
        ("eplb-wgpu", Some(ours.balancedness()), &mine),
        ("(deepseek's answer)", Some(deepseek), ""),
    ];
    rows.extend(case.peers.iter().map(|peer| (&*peer.name, peer.balancedness, &*peer.remark)));
    rows.sort_by(|a, b| b.1.unwrap_or(0.0).total_cmp(&a.1.unwrap_or(0.0)));
    let line = |&(name, balancedness, remark): &(&str, Option<f64>, &str)| {
        let balancedness = balancedness.map_or_else(|| "-".to_string(), |number| format!("{number:.6}"));
        format!("  {name:<24}{balancedness:>10}  {remark}").trim_end().to_string()
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    format!("\n{}\n{}", case.name, lines.join("\n"))
}
