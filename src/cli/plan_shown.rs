//! What `eplb plan` prints.

use serde_json::{Value, json};

use super::check::foreign_text;
use super::plan::{Made, Plan};
use super::traffic::Served;
use super::{MOST_BARS, bars, limit, mean_and_most, milliseconds, percent, speeds, table};
use crate::check::Quality;
use crate::{Duplicates, Error, PLAN_VERSION, Policy};

impl Plan {
    /// What `--json` prints. `of_all_gpus` is the plan in the numbering of all GPUs, gone ones included.
    pub(super) fn json_report(
        &self,
        made: &Made,
        of_all_gpus: &crate::Plan,
        greedy: &Quality,
    ) -> Result<Value, Error> {
        let plan = made.replan.plan();
        let mut report = json_report(plan, greedy, self.previous.is_some());
        report["fingerprint"] = json!(format!("{:016x}", of_all_gpus.fingerprint()));
        let windows = several_windows(plan)?;
        if !windows.is_empty() {
            report["windows"] = windows
                .iter()
                .zip(plan.loads().window_weights())
                .map(|(window, weight)| {
                    json!({ "weight": weight, "balancedness": window.balancedness(), "mean_gap": window.mean_gap() })
                })
                .collect();
        }
        if let Some(strategy) = &made.strategy {
            report["strategy"] = json!(strategy.name());
        }
        if self.previous.is_some() {
            let moves = made.replan.moves();
            report["previous_balancedness"] = json!(made.before);
            report["moves"] = json!({
                "changed_slots": moves.changed_slots, "received": moves.received, "repairs": moves.repairs,
                "slots": moves.slots, "share": moves.share(),
                "lost": made.replan.lost().iter().map(|&(layer, e)| (plan.layer_ids()[layer], e)).collect::<Vec<_>>(),
                "bytes": u64::try_from(moves.bytes(self.expert_bytes)).unwrap_or(u64::MAX),
                "layers_to_move": made.replan.layers_to_move().iter().map(|&layer| plan.layer_ids()[layer]).collect::<Vec<_>>(),
                "layers": made.replan.layers().iter().map(|layer| json!({
                    "received": layer.received, "repairs": layer.repairs, "rounds": layer.rounds, "gain": layer.gain,
                })).collect::<Vec<_>>(),
            });
        }
        report["traffic"] = self.served(plan).json()?;
        if !of_all_gpus.cluster().has_equal_speeds() {
            report["gpu_speeds"] = json!(of_all_gpus.cluster().gpu_speeds());
        }
        if self.with_map {
            report["physical_to_logical"] =
                json!(of_all_gpus.physical_to_logical().chunks(of_all_gpus.slots()).collect::<Vec<_>>());
        }
        Ok(report)
    }

    /// The plan's map and loads.
    fn served<'a>(&self, plan: &'a crate::Plan) -> Served<'a> {
        let (loads, cluster, map) = (plan.loads(), plan.cluster(), plan.physical_to_logical());
        Served { loads, cluster, map, sources: None, dispatch: self.dispatch }
    }

    /// What is printed for people; see [`Plan::json_report`].
    pub(super) fn report(
        &self,
        made: &Made,
        of_all_gpus: &crate::Plan,
        greedy: &Quality,
    ) -> Result<String, Error> {
        let plan = made.replan.plan();
        let windows = several_windows(plan)?;
        // What it is compared with: the greedy rule moves what it likes, and knows of one window.
        let greedy_is = match (self.previous.is_some(), windows.is_empty()) {
            (true, _) => "greedy, which may move all",
            (false, false) => "greedy on the mean",
            (false, true) => "greedy",
        };
        let mut rows = report(plan, of_all_gpus.fingerprint(), (greedy, greedy_is));
        if let Some(before) = made.before {
            rows.insert(4, ("before the moves", format!("{before:.5}")));
        }
        if self.previous.is_none() {
            rows.extend(duplicates_win(plan, greedy));
        }
        let after = 4 + usize::from(made.before.is_some());
        let cluster = speeds::row(of_all_gpus.cluster());
        rows.splice(after + 2..after + 2, shape(plan).into_iter().chain(foreign_row(plan)).chain(cluster));
        rows.splice(after..after, self.served(plan).rows()?);
        if !windows.is_empty() {
            rows.insert(
                3,
                ("loads", format!("{} at once; what follows is of their weighted mean", windows.len())),
            );
        }
        let name = |i: usize| match (self.loads.get(i), self.loads.len()) {
            (Some(file), 2..) => file.display().to_string(),
            _ if i + 1 == windows.len() => "last window".to_string(),
            _ => match windows.len() - 1 - i {
                1 => "the window before".to_string(),
                before => format!("{before} windows before"),
            },
        };
        if !windows.is_empty() {
            for (i, (window, weight)) in windows.iter().zip(plan.loads().window_weights()).enumerate() {
                let text = format!("{:.5}   weight {weight:.3}, {}", window.balancedness(), name(i));
                rows.push(("balancedness alone", text));
            }
        }
        if let Some(strategy) = &made.strategy {
            rows.push(("planned from", strategy.to_string()));
        }
        if self.previous.is_some() {
            let moves = made.replan.moves();
            let first: Vec<String> = made
                .replan
                .layers_to_move()
                .iter()
                .take(5)
                .map(|&l| plan.layer_ids()[l].to_string())
                .collect();
            let share = percent(moves.share());
            rows.push(("slots that move", format!("{} of {}, {share}", moves.received, moves.slots)));
            if moves.repairs > 0 {
                rows.push(("of them repairs", moves.repairs.to_string()));
            }
            let lost = made.replan.lost();
            if !lost.is_empty() {
                let named = lost.iter().take(8).map(|&(l, e)| format!("{}/{e}", plan.layer_ids()[l]));
                let named = named.collect::<Vec<_>>().join(", ");
                rows.push(("experts from disk", format!("{} (layer/expert {named})", lost.len())));
            }
            rows.push(("slots that change", moves.changed_slots.to_string()));
            if self.expert_bytes > 0 {
                rows.push(("bytes to transfer", moves.bytes(self.expert_bytes).to_string()));
            }
            rows.push((
                "layers to move first",
                if first.is_empty() { "none".into() } else { first.join(", ") },
            ));
        }
        let mut lines = vec![table(&rows)];
        lines.push(
            "balancedness: mean over heaviest GPU. gap: heaviest GPU over what no plan goes below. greedy: DeepSeek's rule, which may \
             hold an expert twice on a GPU."
                .into(),
        );
        Ok(lines.join("\n"))
    }
}

/// The quality on each window where there are several: that on a single one is the plan's own, bound and all.
fn several_windows(plan: &crate::Plan) -> Result<Vec<Quality>, Error> {
    if plan.loads().windows().len() > 1 { plan.window_quality() } else { Ok(vec![]) }
}

/// The layers in which DeepSeek's rule, which may put an expert on a GPU twice, is better than a plan that may not: the
/// layer, its heaviest GPU there and here. A plan for several windows aims at each of them, not at their mean, which is
/// what `greedy` plans.
fn where_duplicates_win(plan: &crate::Plan, greedy: &Quality) -> Vec<(u32, f64, f64)> {
    let options = plan.options();
    let several = plan.loads().windows().len() > 1;
    if several || options.duplicates == Duplicates::Allow {
        return Vec::new();
    }
    // Fixed point rounds each replica by less than a millionth of the layer.
    let rounding = 1e-6 * plan.cluster().num_gpus() as f64;
    let pairs = greedy.layers.iter().zip(&plan.quality().layers).enumerate();
    let pairs = pairs.map(|(layer, (greedy, plan))| (layer, greedy.max_gpu_load, plan.max_gpu_load));
    let wins = pairs.filter(|&(_, greedy, plan)| greedy < plan * (1.0 - rounding));
    wins.map(|(layer, greedy, max)| (plan.layer_ids()[layer], greedy, max)).collect()
}

fn json_report(plan: &crate::Plan, greedy: &Quality, is_bound_to_moves: bool) -> Value {
    let quality = plan.quality();
    json!({
        "balancedness": quality.balancedness(),
        "limit": limit(quality),
        "max_over_mean": quality.max_over_mean(),
        "mean_gap": quality.mean_gap(),
        "worst_gap": quality.worst_gap(),
        "worst_layer": quality.worst_layer().map(|layer| plan.layer_ids()[layer]),
        "replica_balancedness": quality.replica_balancedness(),
        "same_gpu_duplicates": quality.same_gpu_duplicates(),
        "plan_version": PLAN_VERSION,
        "device": plan.device(),
        "backend": plan.backend(),
        "plan_ms": plan.elapsed().as_secs_f64() * 1e3,
        "bound_ms": plan.bound_elapsed().as_secs_f64() * 1e3,
        "starts": plan.options().starts,
        "iterations": plan.options().iterations,
        "layers": plan.layers(),
        "layer_ids": plan.layer_ids(),
        "layers_without_load": quality.layers_without_load(),
        "foreign": foreign(plan),
        "policy": plan.cluster().policy().name(),
        "greedy_balancedness": greedy.balancedness(),
        // A plan that may move little is no match for one that may move all.
        "duplicates_win": where_duplicates_win(plan, greedy).into_iter().filter(|_| !is_bound_to_moves)
            .map(|(layer, greedy, max)| json!({ "layer": layer, "greedy_max": greedy, "max": max }))
            .collect::<Vec<_>>(),
        "warnings": plan.warnings(),
    })
}

fn report(
    plan: &crate::Plan,
    fingerprint: u64,
    (greedy, greedy_is): (&Quality, &str),
) -> Vec<(&'static str, String)> {
    let quality = plan.quality();
    let cluster = plan.cluster();
    let why = match (cluster.policy(), cluster.num_groups(), cluster.num_nodes()) {
        (Policy::Global, groups @ 2.., nodes @ 2..) => {
            format!(
                ": {groups} groups are not a multiple of {nodes} nodes, so nodes do not hold whole groups"
            )
        }
        _ => String::new(),
    };
    let shape = format!(
        "{} layers x {} experts, {} replicas on {} GPUs, {}{why}",
        plan.layers(),
        plan.experts(),
        cluster.num_replicas(),
        cluster.num_gpus(),
        cluster.policy().name()
    );
    let worst = super::worst_gap(quality, plan.layer_ids());
    vec![
        ("plan", shape),
        ("device", format!("{} ({})", plan.device(), plan.backend())),
        ("time", format!("{}, bound {}", milliseconds(plan.elapsed()), milliseconds(plan.bound_elapsed()))),
        (
            "balancedness",
            format!(
                "{:.5}   ({greedy_is}: {:.5}; no plan passes {:.5})",
                quality.balancedness(),
                greedy.balancedness(),
                limit(quality)
            ),
        ),
        ("mean gap to the bound", percent(quality.mean_gap())),
        ("worst gap", worst),
        (
            "duplicates on a GPU",
            format!("{}   ({greedy_is}: {})", quality.same_gpu_duplicates(), greedy.same_gpu_duplicates()),
        ),
        ("layers without load", quality.layers_without_load().to_string()),
        ("fingerprint", format!("{fingerprint:016x}   (plan version {PLAN_VERSION})")),
    ]
}

/// Replicas abroad, and the load they serve, where there may be any.
fn foreign(plan: &crate::Plan) -> Option<Value> {
    let (options, quality) = (plan.options(), plan.quality());
    let (share, least) = quality.foreign_shares(plan.cluster().num_gpus());
    (options.max_foreign > 0).then(|| {
        json!({
            "max_foreign": options.max_foreign, "target": f64::from(options.foreign_target_ppm) / 1e6,
            "replicas": quality.foreign_replicas(), "share": share, "least_share": least,
            "layers": quality.layers.iter().map(|layer| layer.foreign_replicas).collect::<Vec<_>>(),
        })
    })
}

/// The same for people.
fn foreign_row(plan: &crate::Plan) -> Option<(&'static str, String)> {
    let (most, quality) = (plan.options().max_foreign, plan.quality());
    let shares = quality.foreign_shares(plan.cluster().num_gpus());
    let text = || ("replicas abroad", foreign_text(quality.foreign_replicas(), most, shares));
    (most > 0).then(text)
}

/// The layers that are named of those in which duplicates win.
const NAMED: usize = 3;

fn duplicates_win(plan: &crate::Plan, greedy: &Quality) -> Vec<(&'static str, String)> {
    let wins = where_duplicates_win(plan, greedy);
    let row = |&(layer, greedy, max): &(u32, f64, f64)| {
        let text = format!(
            "layer {layer}: heaviest GPU {greedy:.4} with an expert twice on a GPU (greedy), {max:.4} without: \
             --allow-duplicates"
        );
        ("duplicates win", text)
    };
    let mut rows: Vec<_> = wins.iter().take(NAMED).map(row).collect();
    if wins.len() > NAMED {
        rows.push(("duplicates win", format!("in {} layers more, which --json lists", wins.len() - NAMED)));
    }
    rows
}

/// The GPUs of the layer with the widest gap, and how far every layer is from even, as rows of bars.
fn shape(plan: &crate::Plan) -> Vec<(&'static str, String)> {
    let Some(worst) = plan.quality().worst_layer() else { return Vec::new() };
    let loads = plan.gpu_loads();
    let gpus = plan.cluster().num_gpus();
    let speeds = plan.cluster().gpu_speeds();
    let row = loads[worst * gpus..(worst + 1) * gpus].iter().zip(&speeds).filter(|(_, speed)| **speed > 0.0);
    let mean = plan.quality().layers[worst].mean_gpu_load;
    let row: Vec<f64> = row.map(|(load, speed)| load / speed / mean).collect();
    let least = row.iter().copied().fold(f64::INFINITY, f64::min);
    let of_worst = format!(
        "{} {}: {least:.2} to {:.2} of the mean",
        bars(&row, 0.0),
        match row.len().div_ceil(MOST_BARS) {
            0 | 1 => "a bar a GPU".to_string(),
            several => format!("a bar the heaviest of {several} GPUs"),
        },
        mean_and_most(&row).1
    );
    let layers = plan.quality().layers.iter().filter(|layer| layer.mean_gpu_load > 0.0);
    let ratios: Vec<f64> = layers.map(|layer| layer.max_gpu_load / layer.mean_gpu_load).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let of_all = format!(
        "{} {}: {least:.4} to {:.4} of the mean",
        bars(&ratios, 1.0),
        match ratios.len().div_ceil(MOST_BARS) {
            0 | 1 => "a bar the heaviest GPU of a layer".to_string(),
            several => format!("a bar the heaviest GPU of {several} layers"),
        },
        mean_and_most(&ratios).1
    );
    vec![("GPUs of that layer", of_worst), ("layer by layer", of_all)]
}
