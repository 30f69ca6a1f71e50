//! The sections of a page that go layer by layer: loads of GPUs, balancedness, hot experts, moves.

use super::cells::{Cell, CellRow};
use super::data::{Facts, View, bytes_text};
use super::grid::heat_map;
use super::page::Section;
use super::svg::{Chart, Line, Table, bars, lines};
use crate::cli::mean_and_most;

/// The most cells of a heat map: four of these are some 300 kB of text.
const MOST_CELLS: usize = 3200;
/// The most rows of a chart, and of a table.
const MOST_LAYERS: usize = 256;
/// Hot experts of a layer that are shown.
const HOT: usize = 16;

/// Loads over the mean up to which a cell has the class of its place.
const STEPS: [f64; 8] = [0.5, 0.8, 0.95, 1.05, 1.15, 1.3, 1.6, 2.2];
const EVEN: &str = "h3";
const HEAT: [&str; 9] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7", "h8"];

pub fn sections(facts: &Facts) -> Vec<Section> {
    let mut sections = vec![gpus(facts), balance(facts), hot_experts(facts)];
    sections.extend(moves(facts));
    sections
}

/// Numbers from 0, cut into runs of equal length, at most `most` of them.
fn runs(count: usize, most: usize) -> Vec<std::ops::Range<usize>> {
    let step = count.div_ceil(most.max(1)).max(1);
    (0..count).step_by(step).map(|from| from..(from + step).min(count)).collect()
}

/// `3`, or `3 to 5`.
fn run_name(names: impl Fn(usize) -> String, run: &std::ops::Range<usize>) -> String {
    match run.len() {
        1 => names(run.start),
        _ => format!("{} to {}", names(run.start), names(run.end - 1)),
    }
}

/// The load of GPUs: all of them, and sorted.
fn gpus(facts: &Facts) -> Section {
    let shown = || facts.views.iter().filter(|view| !view.is_old);
    let top = shown().filter_map(|view| profile(facts, view).first().copied()).fold(1.0, f64::max);
    let pair = |view| [heat(facts, view), sorted(facts, view, top)];
    let charts = shown().flat_map(pair).collect();
    let text = |at: usize| match at {
        0 => format!("under {}", STEPS[0]),
        8 => format!("{} and more", STEPS[7]),
        at => format!("{} to {}", STEPS[at - 1], STEPS[at]),
    };
    Section {
        title: "Load of every GPU",
        text: vec![
            "A layer is done when its busiest GPU is. Trivial is expert after expert, then the first ones again: what runs \
             before any plan. Greedy is DeepSeek's rule, which may hold an expert twice on a GPU."
                .into(),
            "Colours: the load of a GPU over the mean of its layer. Point at a cell for the number, or press Tab and the arrow keys: L is the layer, G the GPU."
                .to_string()
                + if facts.quality.layers_without_load() > 0 { " Layers without load are grey." } else { "" },
        ],
        commands: vec![],
        key: HEAT.iter().enumerate().map(|(at, &class)| (class, text(at))).collect(),
        charts,
    }
}

fn heat(facts: &Facts, view: &View) -> Chart {
    let layers = runs(facts.layers(), MOST_LAYERS / 2);
    let columns = runs(view.on.cluster.num_gpus(), (MOST_CELLS / layers.len().max(1)).max(16));
    let gpu = |gpu: usize| view.on.name(gpu);
    // Else a page counts them itself.
    let is_named = view.on.have_gaps() || layers.iter().chain(&columns).any(|run| run.len() > 1);
    let rows: Vec<CellRow> = layers
        .iter()
        .map(|run| {
            let name = run_name(|layer| facts.layer_name(layer), run);
            let cells = columns.iter().map(|gpus| -> Cell {
                let ratio = |layer: usize| {
                    let row = facts.gpus(view, layer);
                    let (mean, most) = (mean_and_most(row).0, mean_and_most(&row[gpus.clone()]).1);
                    if mean > 0.0 { most / mean } else { 0.0 }
                };
                let most = run.clone().map(ratio).fold(0.0, f64::max);
                // Even ones are the ground of the map: a page of good plans is small by that.
                let class = match HEAT[STEPS.iter().filter(|step| most >= **step).count()] {
                    EVEN => "",
                    _ if most == 0.0 => "",
                    class => class,
                };
                let name = if is_named { format!("G{}: ", run_name(gpu, gpus)) } else { String::new() };
                (class, format!("{name}{most:.2}"))
            });
            CellRow { name: format!("L{name}"), cells: cells.collect(), label: name }
        })
        .collect();
    let mut table = Table::new(&["layer", "lightest GPU", "heaviest GPU", "which", "heaviest / mean"]);
    table.rows = (0..facts.layers().min(MOST_LAYERS))
        .map(|layer| {
            let row = facts.gpus(view, layer);
            let (mean, most) = mean_and_most(row);
            let least = row.iter().copied().fold(f64::INFINITY, f64::min);
            let which = row.iter().position(|&load| load == most).unwrap_or(0);
            vec![
                facts.layer_name(layer),
                format!("{least:.0}"),
                format!("{most:.0}"),
                gpu(which),
                if mean > 0.0 { format!("{:.3}", most / mean) } else { "-".into() },
            ]
        })
        .collect();
    let binned = match (layers.first(), columns.first()) {
        (Some(layers), Some(gpus)) if layers.len() * gpus.len() > 1 => {
            format!(" A cell is the heaviest of {} GPUs in {} layers.", gpus.len(), layers.len())
        }
        _ => String::new(),
    };
    let columns: Vec<String> = columns.iter().map(|run| gpu(run.start)).collect();
    let note = format!("Balancedness {:.4}.{binned}", facts.balancedness(view));
    heat_map(rows, &columns, ("GPU", "layer"), Some(EVEN), !is_named)
        .with_name(&format!("load-{}", slug(view)), &capital(&view.name), &note)
        .with_table(table)
}

/// The heaviest GPU over the mean, the second, and so on: means over the layers with load.
fn profile(facts: &Facts, view: &View) -> Vec<f64> {
    let mut sums = vec![0.0; view.on.cluster.num_gpus()];
    let mut layers = 0.0;
    for layer in 0..facts.layers() {
        let row = facts.gpus(view, layer);
        let (mean, _) = mean_and_most(row);
        if mean > 0.0 {
            let mut row = row.to_vec();
            row.sort_by(|a, b| b.total_cmp(a));
            row.iter().zip(&mut sums).for_each(|(load, sum)| *sum += load / mean);
            layers += 1.0;
        }
    }
    sums.iter().map(|sum| if layers > 0.0 { sum / layers } else { 0.0 }).collect()
}

fn sorted(facts: &Facts, view: &View, top: f64) -> Chart {
    let profile = profile(facts, view);
    let runs = runs(profile.len(), 96);
    let place = |at: usize| (at + 1).to_string();
    let values: Vec<(f64, String)> = runs
        .iter()
        .map(|run| {
            let value = profile[run.start];
            (value, format!("GPU of rank {}: {value:.3} of the mean", run_name(place, run)))
        })
        .collect();
    let columns: Vec<String> = runs.iter().map(|run| (run.start + 1).to_string()).collect();
    let mut table = Table::new(&["rank of the GPU", "load over mean"]);
    table.rows =
        columns.iter().zip(&values).map(|(at, (value, _))| vec![at.clone(), format!("{value:.4}")]).collect();
    bars(&values, &columns, ("GPUs of a layer, sorted by load", "load / mean"), top, Some(1.0))
        .with_name(
            &format!("sorted-{}", slug(view)),
            &format!("{}: GPUs sorted", capital(&view.name)),
            "Mean over layers. Dashed: an even spread.",
        )
        .with_table(table)
}

/// Balancedness of each layer, against what no plan can pass.
fn balance(facts: &Facts) -> Section {
    let runs = runs(facts.layers(), MOST_LAYERS);
    let worst = |value: &dyn Fn(usize) -> Option<f64>| -> Vec<Option<f64>> {
        runs.iter().map(|run| run.clone().filter_map(value).reduce(f64::min)).collect()
    };
    let limit = |layer: usize| {
        let layer = &facts.quality.layers[layer];
        let bound = layer.lower_bound.max(layer.mean_gpu_load);
        (bound > 0.0).then(|| layer.mean_gpu_load / bound)
    };
    let mut all: Vec<Line> = facts
        .views
        .iter()
        .map(|view| Line {
            name: view.name.clone(),
            class: view.class.into(),
            values: worst(&|layer| facts.balance(view, layer)),
        })
        .collect();
    all.push(Line { name: "limit of any plan".into(), class: "bound".into(), values: worst(&limit) });
    let columns: Vec<String> = runs.iter().map(|run| facts.layer_name(run.start)).collect();
    let mut table = Table::new(&["layer"]);
    table.head.extend(all.iter().map(|line| line.name.clone()));
    table.head.push("plan above the bound".into());
    table.rows = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let mut row = vec![name.clone()];
            row.extend(all.iter().map(|line| line.values[at].map_or("-".into(), |v| format!("{v:.4}"))));
            let gaps = runs[at].clone().filter_map(|layer| facts.quality.layers[layer].gap());
            row.push(gaps.reduce(f64::max).map_or("-".into(), |gap| format!("{:.3} %", gap * 100.0)));
            row
        })
        .collect();
    let chart = lines(&all, &columns, ("layer", "mean / heaviest"))
        .with_name(
            "balancedness",
            "Balancedness of each layer",
            "1 is even; no plan passes the dashed limit.",
        )
        .with_table(table);
    Section { title: "Layer by layer", text: vec![], commands: vec![], key: vec![], charts: vec![chart] }
}

/// Replicas of the hottest experts, and where they live.
fn hot_experts(facts: &Facts) -> Section {
    let shades = ["h3", "h4", "h5", "h6", "h7", "h8"];
    let shade = |count: usize| shades[count.clamp(1, 6) - 1];
    let hot = HOT.min(facts.loads.experts());
    let layers = runs(facts.layers(), MOST_LAYERS / 2);
    let rows: Vec<CellRow> = layers
        .iter()
        .map(|run| {
            let (layer, label) = (run.start, facts.layer_name(run.start));
            let cells = facts.hottest(layer).into_iter().take(hot).map(|expert| -> Cell {
                let (count, share) = (facts.homes(layer, expert).len(), facts.share(layer, expert) * 100.0);
                (shade(count), format!("E{expert} x{count}, {share:.2} %"))
            });
            CellRow { name: format!("L{label}"), cells: cells.collect(), label }
        })
        .collect();
    let columns: Vec<String> = (1..=hot).map(|rank| rank.to_string()).collect();
    let mut table = Table::new(&["layer", "expert", "load", "replicas", "GPUs"]);
    for layer in 0..facts.layers().min(MOST_LAYERS) {
        for expert in facts.hottest(layer).into_iter().take(hot) {
            let homes = facts.homes(layer, expert);
            let told: Vec<String> = homes.iter().take(32).map(|gpu| facts.gpu_name(*gpu)).collect();
            let rest = if homes.len() > 32 { ", …" } else { "" };
            table.rows.push(vec![
                facts.layer_name(layer),
                expert.to_string(),
                format!("{:.2} %", facts.share(layer, expert) * 100.0),
                homes.len().to_string(),
                told.join(", ") + rest,
            ]);
        }
    }
    let counts = heat_map(rows, &columns, ("experts of a layer, the hottest first", "layer"), None, false)
        .with_name(
            "replicas",
            "Replicas of hot experts",
            "How often the plan holds each of them. L is the layer, E the expert, x how often; then its part of the load.",
        )
        .with_table(table);
    let text = |count: usize| match count {
        1 => "1 replica".to_string(),
        6 => "6 replicas and more".to_string(),
        count => format!("{count} replicas"),
    };
    Section {
        title: "Hot experts",
        text: vec!["An expert that is hotter than a GPU's share has to be in several places.".into()],
        commands: vec![],
        key: (1..=6).map(|count| (shade(count), text(count))).collect(),
        charts: vec![counts, homes(facts, facts.hardest_layer())],
    }
}

/// The GPUs that hold the hottest experts of a layer.
fn homes(facts: &Facts, layer: usize) -> Chart {
    let name = facts.layer_name(layer);
    let runs = runs(facts.cluster.num_gpus(), 128);
    let mut table = Table::new(&["expert", "load", "GPUs"]);
    let mut rows: Vec<CellRow> = Vec::new();
    for expert in facts.hottest(layer).into_iter().take(HOT) {
        let (homes, share) = (facts.homes(layer, expert), facts.share(layer, expert) * 100.0);
        let cells = runs.iter().map(|run| -> Cell {
            let here: Vec<String> = homes
                .iter()
                .filter(|gpu| run.contains(gpu))
                .map(|gpu| format!("GPU {}", facts.gpu_name(*gpu)))
                .collect();
            (if here.is_empty() { "" } else { "bar" }, here.join(", "))
        });
        let name = format!("expert {expert} ({share:.2} %):");
        rows.push(CellRow { label: expert.to_string(), name, cells: cells.collect() });
        let told: Vec<String> = homes.iter().map(|gpu| facts.gpu_name(*gpu)).collect();
        table.rows.push(vec![expert.to_string(), format!("{share:.2} %"), told.join(", ")]);
    }
    let columns: Vec<String> = runs.iter().map(|run| facts.gpu_name(run.start)).collect();
    heat_map(rows, &columns, ("GPU", "expert"), None, false)
        .with_name(
            "homes",
            &format!("Where the hottest experts of layer {name} live"),
            "The layer in which the plan is least even. A square: that GPU holds the expert.",
        )
        .with_table(table)
}

/// The moves from the plan before.
fn moves(facts: &Facts) -> Option<Section> {
    let layers = facts.transfers.as_ref()?;
    let bytes = |slots: usize| match facts.expert_bytes {
        0 => String::new(),
        bytes => format!(", {}", bytes_text(slots as u128 * u128::from(bytes))),
    };
    let runs = runs(layers.len(), MOST_LAYERS);
    let sums: Vec<(usize, usize, usize)> = runs
        .iter()
        .map(|run| {
            let part = &layers[run.clone()];
            (
                part.iter().map(|layer| layer.slots).sum(),
                part.iter().map(|layer| layer.between_nodes).sum(),
                part.iter().map(|layer| layer.rounds).sum(),
            )
        })
        .collect();
    let names: Vec<String> = runs.iter().map(|run| run_name(|layer| facts.layer_name(layer), run)).collect();
    let chart = |value: &dyn Fn(&(usize, usize, usize)) -> f64, unit: &str| {
        let says = |(name, sum): (&String, &(usize, usize, usize))| {
            let text = format!("layer {name}: {} slots{}, {} rounds", sum.0, bytes(sum.0), sum.2);
            (value(sum), text)
        };
        let values: Vec<(f64, String)> = names.iter().zip(&sums).map(says).collect();
        let columns: Vec<String> = runs.iter().map(|run| facts.layer_name(run.start)).collect();
        bars(&values, &columns, ("layer", unit), 1.0, None)
    };
    let mut table = Table::new(&["layer", "slots", "from another node", "rounds", "bytes"]);
    table.rows = names
        .iter()
        .zip(&sums)
        .map(|(name, sum)| {
            let bytes = match facts.expert_bytes {
                0 => "-".to_string(),
                bytes => (sum.0 as u128 * u128::from(bytes)).to_string(),
            };
            vec![name.clone(), sum.0.to_string(), sum.1.to_string(), sum.2.to_string(), bytes]
        })
        .collect();
    let mut of_rounds = Table::new(&["layer", "rounds"]);
    of_rounds.rows =
        names.iter().zip(&sums).map(|(name, sum)| vec![name.clone(), sum.2.to_string()]).collect();
    let total: usize = layers.iter().map(|layer| layer.slots).sum();
    let lost = match layers.iter().map(|layer| layer.lost).sum::<usize>() {
        0 => String::new(),
        lost => format!(" Experts that no GPU which is left holds, and that come from disk: {lost}."),
    };
    let hint = if facts.expert_bytes == 0 { " --expert-bytes tells them in bytes." } else { "" };
    let (each, unit) = match facts.expert_bytes {
        0 => (1.0, "slots"),
        bytes => (bytes as f64, "bytes"),
    };
    let slots = chart(&|sum| sum.0 as f64 * each, unit).with_table(table);
    let rounds = chart(&|sum| sum.2 as f64, "rounds").with_table(of_rounds);
    Some(Section {
        title: "Moves from the previous plan",
        text: vec![format!(
            "{total} slots receive an expert that their GPU does not hold{}.{lost}{hint} A round lets each GPU exchange experts \
             with one other; the number is that of a greedy schedule.",
            bytes(total)
        )],
        commands: vec![],
        key: vec![],
        charts: vec![
            slots.with_name(
                "moves",
                &format!("{} that move", capital(unit)),
                "From the previous plan, layer by layer.",
            ),
            rounds.with_name("rounds", "Rounds of transfers", "In each a GPU deals with one other."),
        ],
    })
}

fn capital(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// A view's name in file names.
fn slug(view: &View) -> String {
    view.name.replace(' ', "-")
}
