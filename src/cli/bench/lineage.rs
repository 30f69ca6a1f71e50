//! `eplb bench --lineage`: every preset on the same loads.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::super::progress::ShownProgress;
use crate::check::Quality;
use crate::cli::print;
use crate::trace::{LoadHistory, Window};
use crate::{Cluster, DeviceChoice, Error, Loads, Planner, Preset, bound, check};

/// The presets that are compared, and the loads.
pub struct Lineage {
    /// Load file.
    pub loads: PathBuf,
    /// Layers of the file.
    pub layers: Option<std::ops::Range<usize>>,
    /// The cluster.
    pub cluster: Cluster,
    /// The device.
    pub device: DeviceChoice,
    /// Whether to print one JSON object.
    pub json: bool,
}

/// The results of one preset: means over the windows planned on.
#[derive(Default)]
struct PresetRow {
    balancedness: f64,
    replica_balancedness: f64,
    next_balancedness: Option<f64>,
    next_replica_balancedness: Option<f64>,
    worst_gap: f64,
    duplicates: usize,
    milliseconds: f64,
}

impl PresetRow {
    /// The lineage's score: the mean of speed and next-window replica balancedness, on this window where there
    /// is no next. All its programs were given speed 1, and so is every preset here.
    fn combined(&self) -> f64 {
        (1.0 + self.next_replica_balancedness.unwrap_or(self.replica_balancedness)) / 2.0
    }
}

impl Lineage {
    pub fn run(self) -> Result<ExitCode, Error> {
        let history = LoadHistory::read(&self.loads)?;
        let history = match &self.layers {
            Some(range) => history.select_layers(range.clone())?,
            None => history,
        };
        let planner = Planner::new(self.device)?;
        // Each window but the last is planned on and its plan scored on the next; a single one on itself.
        let windows =
            (0..history.windows()).map(|w| history.loads(Window::Index(w))).collect::<Result<Vec<_>, _>>()?;
        let planned = windows.len().saturating_sub(1).max(1);
        let presets: Vec<Preset> = Preset::all().collect();
        let progress = ShownProgress::new(presets.len(), "presets");
        let mut rows = Vec::new();
        for preset in presets {
            rows.push((preset, measure(&planner, &self.cluster, preset, &windows, planned)?));
            progress.step();
        }
        drop(progress);
        print(&if self.json { report_json(&rows, planner.device().label(), planned) } else { report(&rows) });
        Ok(ExitCode::SUCCESS)
    }
}

fn measure(
    planner: &Planner,
    cluster: &Cluster,
    preset: Preset,
    windows: &[Loads],
    planned: usize,
) -> Result<PresetRow, Error> {
    let options = preset.options();
    // The first call pays for what later ones reuse.
    planner.plan(&windows[0], cluster, &options)?;
    let share = 1.0 / planned as f64;
    let mut row = PresetRow::default();
    for (at, loads) in windows.iter().take(planned).enumerate() {
        let plan = planner.plan(loads, cluster, &options)?;
        row.milliseconds += plan.elapsed().as_secs_f64() * 1e3 * share;
        let score = |loads: &Loads| -> Result<Quality, Error> {
            let quality = check::score(loads, cluster, plan.physical_to_logical())?;
            Ok(quality.with_bounds(&bound::lower_bounds(loads, cluster)))
        };
        let quality = score(loads)?;
        row.balancedness += quality.balancedness() * share;
        row.replica_balancedness += quality.replica_balancedness() * share;
        row.worst_gap = row.worst_gap.max(quality.worst_gap());
        row.duplicates += quality.same_gpu_duplicates();
        if let Some(next) = windows.get(at + 1) {
            let next = score(next)?;
            *row.next_balancedness.get_or_insert(0.0) += next.balancedness() * share;
            *row.next_replica_balancedness.get_or_insert(0.0) += next.replica_balancedness() * share;
        }
    }
    Ok(row)
}

fn report(rows: &[(Preset, PresetRow)]) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_string(), |v| format!("{v:.4}"));
    let mut lines = vec![
        "| preset | balancedness | replicas | next window | replicas, next | worst gap | duplicates | ms | combined |"
            .to_string(),
        "|---|---|---|---|---|---|---|---|---|".to_string(),
    ];
    lines.extend(rows.iter().map(|(preset, row)| {
        format!(
            "| `{preset}` | {:.5} | {:.4} | {} | {} | {:.3} % | {} | {:.1} | {:.3} |",
            row.balancedness,
            row.replica_balancedness,
            number(row.next_balancedness),
            number(row.next_replica_balancedness),
            row.worst_gap * 100.0,
            row.duplicates,
            row.milliseconds,
            row.combined()
        )
    }));
    // A line of its own, as Markdown has it.
    lines.push(String::new());
    lines.push(
        "balancedness: the mean GPU over the heaviest; replicas: the same of replicas; next window: of the same plans on the window \
         after. ms: of a plan. combined: the score of the programs that gen and rec are. Those may hold an expert twice on a GPU \
         (duplicates), the other presets do not."
            .into(),
    );
    lines.join("\n")
}

fn report_json(rows: &[(Preset, PresetRow)], device: String, planned: usize) -> String {
    let presets: Vec<_> = rows
        .iter()
        .map(|(preset, row)| {
            json!({
                "preset": preset.name(),
                "balancedness": row.balancedness,
                "replica_balancedness": row.replica_balancedness,
                "next_balancedness": row.next_balancedness,
                "next_replica_balancedness": row.next_replica_balancedness,
                "worst_gap": row.worst_gap,
                "same_gpu_duplicates": row.duplicates,
                "plan_ms": row.milliseconds,
                "combined": row.combined(),
            })
        })
        .collect();
    json!({ "device": device, "windows_planned": planned, "presets": presets }).to_string()
}
