//! `eplb report`: plans, replays and advice as a page to look at.

mod alone;
mod cells;
mod curves;
pub mod data;
mod grid;
mod layers;
mod page;
mod style;
pub mod svg;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{FilePart, MapForm, complain, io, print, speeds, words};
use crate::Error;
use data::Facts;
use page::{Section, Tile};
use svg::Chart;

#[derive(Args)]
#[command(after_help = "Examples:
  eplb report loads.json plan.json -o report.html
  eplb report loads.json old.json new.json --expert-bytes 18874368 -o report.html
  eplb report loads.json map.npy --gpus 32 -o report.html     a map of another program
  eplb report --replay replay.json --svg charts

A plan file tells its cluster, and a map beside it has the same; else --gpus, --groups and --nodes tell that of maps.
Exit codes: 0 written, 2 bad input or a file that could not be read or written.")]
pub struct Report {
    /// Load file, as for `eplb plan`; - is standard input
    #[arg(required_unless_present_any = ["replay", "advice"])]
    loads: Option<PathBuf>,
    /// Plans or maps in any format of `eplb convert`, in order of time: the page is about the last, and about what moves from
    /// the one before it
    #[arg(requires = "loads", value_name = "PLAN")]
    plans: Vec<PathBuf>,
    #[command(flatten)]
    part: FilePart,
    #[command(flatten)]
    maps: MapForm,
    /// Output of `eplb replay --json`, drawn as curves
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Output of `eplb advise --json`, drawn as a chart
    #[arg(long, value_name = "FILE")]
    advice: Option<PathBuf>,
    /// Bytes of an expert's weights, as 44040192 or 42MiB, to tell what is transferred
    #[arg(long, default_value_t = 0, value_parser = words::parse_bytes)]
    expert_bytes: u64,
    /// Page to write: one file that needs no other
    #[arg(long, short, required_unless_present = "svg")]
    out: Option<PathBuf>,
    /// Folder to write every chart into, as a file of its own
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
}

impl Report {
    pub fn run(self) -> Result<ExitCode, Error> {
        let inputs = self.plans.iter().chain(&self.loads).chain(&self.replay).chain(&self.advice);
        let inputs = io::Inputs::new(inputs, self.maps.gpu_speeds.as_deref().and_then(speeds::file_of))?;
        if let Some(out) = &self.out {
            inputs.check_writable(out)?;
        }
        let given = [(self.expert_bytes > 0 && self.plans.len() < 2, "--expert-bytes")];
        words::check_effect(&given, "what moves from one plan to the next: name the one before, too")?;
        if self.loads.is_none() {
            let wanted = "loads and a plan or map: eplb report LOADS PLAN";
            words::check_effect(&self.part.given(), wanted)?;
            words::check_effect(&self.maps.given(), wanted)?;
        }
        let (mut lead, mut tiles, mut sections) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(loads) = &self.loads {
            if self.plans.is_empty() {
                return Err(words::needed("PLAN", "a plan or map: eplb plan LOADS ... --out PLAN makes one"));
            }
            let facts = Facts::gather(loads, &self.part, &self.plans, &self.maps, self.expert_bytes)?;
            lead = facts.lead();
            tiles = facts.tiles();
            sections.extend(layers::sections(&facts));
            sections.extend(curves::windows(&facts)?);
        }
        sections.extend(self.replay.as_deref().map(curves::replay).transpose()?);
        sections.extend(self.advice.as_deref().map(curves::advice).transpose()?);
        self.write(&inputs, &lead, &tiles, &sections)
    }

    fn write(
        &self,
        inputs: &io::Inputs,
        lead: &[String],
        tiles: &[Tile],
        sections: &[Section],
    ) -> Result<ExitCode, Error> {
        if let Some(out) = &self.out {
            let title = if self.loads.is_some() { "Where the experts live" } else { "Plans of experts" };
            let text = page::page(title, lead, tiles, sections);
            io::write(out, text.as_bytes())?;
            if io::is_standard(out) {
                return Ok(ExitCode::SUCCESS);
            }
            print(&format!("{}: {} charts, {} kB", out.display(), count(sections), text.len() / 1000));
        }
        if let Some(folder) = &self.svg {
            std::fs::create_dir_all(folder).map_err(|error| Error::write(folder, error))?;
            let charts = || sections.iter().flat_map(|all| all.charts.iter().map(|chart| (chart, &all.key)));
            let name = |chart: &Chart| format!("{}.svg", chart.name);
            for (chart, key) in charts() {
                let path = folder.join(name(chart));
                inputs.check_writable(&path)?;
                io::write(&path, alone::file(chart, key).as_bytes())?;
            }
            let names: Vec<String> = charts().map(|(chart, _)| name(chart)).collect();
            tell_others(folder, &names);
            print(&format!("{}: {} charts", folder.display(), count(sections)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Names the charts of a folder that an earlier run wrote, perhaps of other plans.
fn tell_others(folder: &Path, written: &[String]) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<String> =
        names.filter(|name| name.ends_with(".svg") && !written.contains(name)).collect();
    others.sort();
    if !others.is_empty() {
        let (more, shown) = (others.len().saturating_sub(MOST_NAMED), others.iter().take(MOST_NAMED));
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = shown.map(String::as_str).collect::<Vec<_>>().join(", ");
        complain(&format!("warning: not of this run, and still in {}: {shown}{more}", folder.display()));
    }
}

/// The most charts that are named.
const MOST_NAMED: usize = 8;

fn count(sections: &[Section]) -> usize {
    sections.iter().map(|section| section.charts.len()).sum()
}
