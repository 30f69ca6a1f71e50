//! The report of `eplb plan`.

use serde_json::{Value, json};

use super::Plan;
use super::made::Made;
use crate::check::{self, Quality};
use crate::cli::check::foreign_text;
use crate::cli::compared::MapScores;
use crate::cli::report::data::bytes_text;
use crate::cli::traffic::Served;
use crate::cli::{MOST_BARS, bars, limit, mean_and_most, milliseconds, percent, speeds, table};
use crate::{Duplicates, Error, Loads, PLAN_VERSION, Policy};

impl Plan {
    /// The report as JSON. `of_all_gpus` is the plan in the numbering of all GPUs, gone ones included.
    pub(super) fn json_report(
        &self,
        made: &Made,
        of_all_gpus: &crate::Plan,
        greedy: &MapScores,
    ) -> Result<Value, Error> {
        let plan = made.replan.plan();
        let mut report = json_report(plan, &greedy.mean, self.previous.is_some());
        report["fingerprint"] = json!(format!("{:016x}", of_all_gpus.fingerprint()));
        let (scored, weights) = (MapScores::of_plan(plan)?, plan.loads().window_weights());
        if !scored.alone.is_empty() {
            let before = made.before.as_ref();
            let alone = scored.alone.iter().zip(&greedy.alone).zip(&weights).enumerate();
            let alone = alone.map(|(i, ((window, greedy), weight))| {
                json!({
                    "name": self.window_name(i, weights.len()), "weight": weight,
                    "balancedness": window.balancedness(), "greedy_balancedness": greedy.balancedness(),
                    "previous_balancedness": before.map(|before| before.alone[i].balancedness()),
                    "limit": limit(window), "mean_gap": window.mean_gap(),
                })
            });
            report["windows"] = alone.collect();
            report["windows_alone"] = json!({
                "balancedness": scored.json(&weights), "greedy_balancedness": greedy.json(&weights),
                "previous_balancedness": before.map(|before| before.json(&weights)),
            });
        }
        if let Some(strategy) = &made.strategy {
            report["strategy"] = json!(strategy.name());
        }
        if self.previous.is_some() {
            let moves = made.replan.moves();
            report["previous_balancedness"] =
                json!(made.before.as_ref().map(|before| before.mean.balancedness()));
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
        if self.with_gpu_loads {
            let of = |loads: &Loads| gpu_loads(loads, of_all_gpus);
            report["gpu_loads"] = of(plan.loads())?;
            for (window, loads) in
                report["windows"].as_array_mut().into_iter().flatten().zip(plan.loads().windows())
            {
                window["gpu_loads"] = of(loads)?;
            }
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

    /// The report for people; see [`Plan::json_report`].
    pub(super) fn report(
        &self,
        made: &Made,
        of_all_gpus: &crate::Plan,
        greedy: &MapScores,
    ) -> Result<String, Error> {
        let plan = made.replan.plan();
        let (scored, weights) = (MapScores::of_plan(plan)?, plan.loads().window_weights());
        let several = !scored.alone.is_empty();
        // It is compared with a rule that moves all it likes, and knows of one window.
        let greedy_is = match (self.previous.is_some(), several) {
            (true, _) => "greedy, which may move all",
            (false, true) => "greedy on their mean",
            (false, false) => "greedy",
        };
        let limit = match several {
            false => format!("; no plan passes {:.5}", limit(plan.quality())),
            true => String::new(),
        };
        let texts = (scored.text(&weights), greedy.text(&weights));
        let mut rows = vec![("plan", title(plan))];
        rows.push(("device", format!("{} ({})", plan.device(), plan.backend())));
        let times = (milliseconds(plan.elapsed()), milliseconds(plan.bound_elapsed()));
        rows.push(("time", format!("{}, bound {}", times.0, times.1)));
        if several {
            rows.push(("loads", format!("{} at once; balancedness is that of each alone", weights.len())));
        }
        rows.push(("balancedness", format!("{}   ({greedy_is}: {}{limit})", texts.0, texts.1)));
        if let Some(before) = &made.before {
            rows.push(("before the moves", before.text(&weights)));
        }
        rows.extend(self.alone_rows(&scored, greedy, &weights));
        rows.extend(self.served(plan).rows()?);
        // Of several loads the bound of their mean says nothing: no plan is made for it.
        if !several {
            rows.push(("mean gap to the bound", percent(plan.quality().mean_gap())));
            rows.push(("worst gap", crate::cli::worst_gap(plan.quality(), plan.layer_ids())));
            rows.extend(shape(plan));
        }
        rows.extend(foreign_row(plan));
        rows.extend(speeds::row(of_all_gpus.cluster()));
        let duplicates = (plan.quality().same_gpu_duplicates(), greedy.mean.same_gpu_duplicates());
        rows.push(("duplicates on a GPU", format!("{}   ({greedy_is}: {})", duplicates.0, duplicates.1)));
        rows.push(("layers without load", plan.quality().layers_without_load().to_string()));
        let fingerprint = of_all_gpus.fingerprint();
        let label = if plan.is_cut_short() { "; cut short by time, not reproducible" } else { "" };
        rows.push(("fingerprint", format!("{fingerprint:016x}   (plan version {PLAN_VERSION}{label})")));
        if self.previous.is_none() {
            rows.extend(duplicates_win(plan, &greedy.mean));
        }
        if let Some(strategy) = &made.strategy {
            rows.push(("planned from", strategy.to_string()));
        }
        rows.extend(self.moves_rows(made));
        let mut lines = vec![table(&rows)];
        let gap = if several { "" } else { " gap: heaviest GPU over what no plan goes below." };
        lines.push(format!(
            "balancedness: mean over heaviest GPU.{gap} greedy: DeepSeek's rule, which may hold an expert twice on a GPU."
        ));
        Ok(lines.join("\n"))
    }

    /// Each of several loads alone.
    fn alone_rows(
        &self,
        scored: &MapScores,
        greedy: &MapScores,
        weights: &[f64],
    ) -> Vec<(&'static str, String)> {
        let pairs = scored.alone.iter().zip(&greedy.alone).zip(weights).enumerate();
        let row = |(i, ((window, greedy), weight)): (usize, ((&Quality, &Quality), &f64))| {
            let (plan, greedy, most) = (window.balancedness(), greedy.balancedness(), limit(window));
            let name = self.window_name(i, weights.len());
            let text = format!(
                "{plan:.5}   (greedy: {greedy:.5}; no plan passes {most:.5})   weight {weight:.3}, {name}"
            );
            ("balancedness alone", text)
        };
        pairs.map(row).collect()
    }

    /// The name of one of several loads: its file, or its number.
    fn window_name(&self, i: usize, count: usize) -> String {
        match (self.loads.get(i), self.loads.len()) {
            (Some(file), 2..) => file.display().to_string(),
            // Not windows that were: they are moved around the forecast, and some are left out.
            _ => format!("scenario {} of {count} around the forecast", i + 1),
        }
    }

    /// The moves from the previous plan, where there is one.
    fn moves_rows(&self, made: &Made) -> Vec<(&'static str, String)> {
        if self.previous.is_none() {
            return Vec::new();
        }
        let (plan, moves) = (made.replan.plan(), made.replan.moves());
        let mut rows = Vec::new();
        let first: Vec<String> =
            made.replan.layers_to_move().iter().take(5).map(|&l| plan.layer_ids()[l].to_string()).collect();
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
            let bytes = moves.bytes(self.expert_bytes);
            rows.push(("bytes to transfer", format!("{bytes}, {}", bytes_text(bytes))));
        }
        rows.push(("layers to move first", if first.is_empty() { "none".into() } else { first.join(", ") }));
        rows
    }
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

/// The load of each GPU of a plan under some loads, a row for each layer.
fn gpu_loads(loads: &Loads, plan: &crate::Plan) -> Result<Value, Error> {
    let loads = check::gpu_loads(loads, plan.cluster(), plan.physical_to_logical())?;
    Ok(json!(loads.chunks(plan.cluster().num_gpus()).collect::<Vec<_>>()))
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

/// The shape of the loads and of the cluster.
fn title(plan: &crate::Plan) -> String {
    let cluster = plan.cluster();
    let why = match (cluster.policy(), cluster.num_groups(), cluster.num_nodes()) {
        (Policy::Global, groups @ 2.., nodes @ 2..) => {
            format!(
                ": {groups} groups are not a multiple of {nodes} nodes, so nodes do not hold whole groups"
            )
        }
        _ => String::new(),
    };
    format!(
        "{} layers x {} experts, {} replicas on {} GPUs, {}{why}",
        plan.layers(),
        plan.experts(),
        cluster.num_replicas(),
        cluster.num_gpus(),
        cluster.policy().name()
    )
}

/// Foreign replicas, and the load they serve, where there may be any.
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
    let text = || ("foreign replicas", foreign_text(quality.foreign_replicas(), most, shares));
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
