//! `eplb split`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{MapForm, complain, io, print, read_layers, speeds, table, words};
use crate::check::{self, Quality};
use crate::maps::MapFile;
use crate::trace::{LoadHistory, Window, shares_bytes};
use crate::{Cluster, DeviceChoice, Error, Loads, Placement, Planner, Shares};

#[derive(Args)]
#[command(after_help = "Examples:
  eplb split trace.npy plan.json --out shares.json                  for the next window, from all windows of the file
  eplb split trace.npy plan.json --sample now.npy --out shares.json  and from what has run of it
  eplb split batch.npy plan.json --batch --out shares.json          for one batch whose loads these are

The table tells how many of 256 parts of its expert's tokens each slot serves. A plan made with --connected is levelled
best batch by batch. A plan file tells its cluster; of a map without one, --gpus, --groups and --nodes do.
Exit codes: 0 made, 2 bad input or a file that could not be read or written.")]
pub struct Split {
    /// Load file: the windows so far, oldest first, or with --batch the batch; as for `eplb plan`; - is standard input
    loads: PathBuf,
    /// Plan or map, in any format of `eplb convert`; - is standard input
    plan: PathBuf,
    /// Make the table for one batch whose loads these are
    #[arg(long)]
    batch: bool,
    /// With --batch, the windows of the file that are the batch: sum, last, or a number from 0 [default: sum]
    #[arg(long, requires = "batch")]
    window: Option<Window>,
    /// Loads of what has run of the window that the table is for: counts of routings, all windows of the file added up
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    sample: Option<PathBuf>,
    /// Layers of the files by number, as A..B: from A on, up to but not B
    #[arg(long, value_parser = super::parse_range, value_name = "A..B")]
    layers: Option<std::ops::Range<usize>>,
    #[command(flatten)]
    form: super::Form,
    #[command(flatten)]
    maps: MapForm,
    /// The device that makes the table: auto, cpu, gpu, an index or a part of a name (see `eplb devices`)
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// File to write, eplb-shares/1; - is standard output
    #[arg(long, short)]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The loads that a table is scored on.
struct SplitLoads {
    what: &'static str,
    loads: Loads,
    even: Quality,
    dealt: Quality,
}

impl Split {
    pub fn run(self) -> Result<ExitCode, Error> {
        let inputs = [&self.loads, &self.plan].into_iter().chain(&self.sample);
        let inputs = io::Inputs::new(inputs, self.maps.gpu_speeds.as_deref().and_then(speeds::file_of))?;
        if let Some(out) = &self.out {
            inputs.check_writable(out)?;
            if self.json && io::is_standard(out) {
                let rule = "is for the report, and --out - has the table alone on standard output";
                return Err(Error::invalid("--json", "", rule));
            }
        }
        let map = self.maps.read(&self.plan)?;
        let cluster = self.maps.cluster(std::slice::from_ref(&map))?;
        let history = read_layers(&self.loads, self.layers.as_ref(), &self.form)?;
        let map = words::of_loads(&map, history.layer_ids())?;
        let (shares, what, loads) = self.make(&map, &cluster, &history)?;
        // That the loads are of the plan's layers is checked there.
        let even = map.score(&loads, &cluster)?;
        let rows = map.physical_to_logical();
        let dealt = check::score_shares_with(&loads, &cluster, rows, shares.parts(), &map.rules())?;
        let scored = SplitLoads { what, loads, even, dealt };
        if let Some(out) = &self.out {
            let placement =
                Placement::new(scored.loads.experts(), map.slots(), map.physical_to_logical().to_vec())?;
            io::write(out, &shares_bytes(&shares, &placement, scored.loads.layer_ids()))?;
            if io::is_standard(out) {
                return Ok(ExitCode::SUCCESS);
            }
        }
        let (even, dealt) = (scored.even.balancedness(), scored.dealt.balancedness());
        if self.batch && dealt < even {
            complain(&format!(
                "warning: even shares are better for this batch ({even:.5} over {dealt:.5}): 256 parts are too coarse for its experts; \
                 deal evenly"
            ));
        }
        let parts = check::parts(&cluster, map.physical_to_logical())?;
        self.show(&shares, &scored, &cluster, &parts);
        Ok(ExitCode::SUCCESS)
    }

    /// The table, and what it is scored on.
    fn make(
        &self,
        map: &MapFile,
        cluster: &Cluster,
        history: &LoadHistory,
    ) -> Result<(Shares, &'static str, Loads), Error> {
        let (rows, planner) = (map.physical_to_logical(), Planner::new(self.device.clone())?);
        if self.batch {
            let batch = history.loads(self.window.unwrap_or_default())?;
            return Ok((planner.batch_shares(cluster, rows, &batch)?, "the batch", batch));
        }
        // A table looks at no others.
        let first = history.windows().saturating_sub(Shares::WINDOWS);
        let windows = (first..history.windows()).map(|window| history.loads(Window::Index(window)));
        let windows = windows.collect::<Result<Vec<_>, _>>()?;
        if let Some(sample) = &self.sample {
            let sample = read_layers(sample, self.layers.as_ref(), &self.form)?.loads(Window::Sum)?;
            return Ok((planner.shares_with_sample(cluster, rows, &windows, &sample)?, "the sample", sample));
        }
        Ok((planner.shares(cluster, rows, &windows)?, "the last window", history.loads(Window::Last)?))
    }

    fn show(&self, shares: &Shares, scored: &SplitLoads, cluster: &Cluster, parts: &[usize]) {
        let SplitLoads { what, loads, even, dealt } = scored;
        let joined = parts.iter().filter(|&&parts| parts == cluster.planned_nodes()).count();
        let fingerprint = format!("{:016x}", shares.fingerprint());
        if self.json {
            let layers = loads.layer_ids().iter().zip(parts).enumerate().map(|(at, (id, parts))| {
                let (even, dealt) = (&even.layers[at], &dealt.layers[at]);
                json!({
                    "layer": id, "mean": even.mean_gpu_load, "max_even": even.max_gpu_load,
                    "max_shares": dealt.max_gpu_load, "parts": parts,
                })
            });
            let report = json!({
                "scored_on": what,
                "balancedness_even": even.balancedness(),
                "balancedness_shares": dealt.balancedness(),
                "max_over_mean_even": even.max_over_mean(),
                "max_over_mean_shares": dealt.max_over_mean(),
                "layers_connected": joined,
                "fingerprint": fingerprint,
                "layers": layers.collect::<Vec<_>>(),
            });
            return print(&report.to_string());
        }
        let rows = [
            ("shares", format!("{} layers x {} slots", shares.layers(), shares.slots())),
            ("scored on", what.to_string()),
            (
                "balancedness",
                format!("{:.5}   (even shares: {:.5})", dealt.balancedness(), even.balancedness()),
            ),
            (
                "worst layer",
                format!(
                    "heaviest GPU {:.4} of the mean   (even shares: {:.4})",
                    dealt.max_over_mean(),
                    even.max_over_mean()
                ),
            ),
            ("GPUs connected", format!("in {joined} of {} layers", parts.len())),
            ("fingerprint", fingerprint),
        ];
        let says = "balancedness: mean over heaviest GPU. A table for the next window is made for what may come, not for the last one.";
        print(&format!("{}\n{says}", table(&rows)));
    }
}
