//! `eplb bench`: the suite on every adapter here, as one record; records of many machines in one table; every
//! preset on the same loads.

mod collate;
mod lineage;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::io::Inputs;
use super::progress::ShownProgress;
use super::{print, progress, words};
use crate::edge;
use crate::suite::bench;
use crate::suite::record::Record;
use crate::{Cluster, DeviceChoice, Error};

use collate::CaseTable;

#[derive(Args)]
#[command(after_help = "Examples:
  eplb bench --out record.json                           times and fingerprints of every device
  eplb bench --collate here.json there.json              records of several machines in one table
  eplb bench --lineage loads.json --replicas 288 --gpus 32

Exit codes: 0 done, 1 fingerprints differ or a device failed, 2 bad input or a file that could not be read or written.")]
pub struct Bench {
    /// With --lineage: load file, .json, .npy or .csv
    #[arg(requires = "lineage")]
    loads: Option<PathBuf>,
    /// Compare every preset on the loads of a file
    #[arg(long, requires_all = ["loads", "replicas", "gpus"])]
    lineage: bool,
    /// With --lineage: layers of the file, as A..B
    #[arg(long, value_parser = super::parse_range, requires = "lineage")]
    layers: Option<std::ops::Range<usize>>,
    /// With --lineage: replicas of a layer
    #[arg(long, requires = "lineage")]
    replicas: Option<usize>,
    /// With --lineage: GPUs
    #[arg(long, requires = "lineage")]
    gpus: Option<usize>,
    /// With --lineage: groups of experts that are routed together [default: 1]
    #[arg(long, requires = "lineage")]
    groups: Option<usize>,
    /// With --lineage: nodes [default: 1]
    #[arg(long, requires = "lineage")]
    nodes: Option<usize>,
    /// Join records of `eplb bench --out` into one table; fails where fingerprints differ
    #[arg(long, num_args = 1.., value_name = "RECORD", conflicts_with_all = ["lineage", "device", "out"])]
    collate: Vec<PathBuf>,
    /// auto, cpu, gpu, an index or a part of a name (see `eplb devices`) [default: all, with --lineage auto]
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// Record to write
    #[arg(long, conflicts_with = "lineage")]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Exit code where fingerprints differ.
const DIFFERENT: u8 = 1;
/// Exit code where a device failed; its record says why.
const FAILED: u8 = 1;

impl Bench {
    pub fn run(self) -> Result<ExitCode, Error> {
        if let (true, Some(loads)) = (self.lineage, self.loads) {
            let [replicas, gpus] = [self.replicas, self.gpus].map(Option::unwrap_or_default);
            let [groups, nodes] = [self.groups, self.nodes].map(|n| n.unwrap_or(1));
            let cluster = Cluster::new(replicas, groups, nodes, gpus)?;
            words::tell_idle_groups(groups, self.nodes);
            let device = self.device.unwrap_or_default();
            return lineage::Lineage { loads, layers: self.layers, cluster, device, json: self.json }.run();
        }
        if !self.collate.is_empty() {
            let records = self.collate.iter().map(|path| Record::read(path));
            let table = CaseTable::of(records.collect::<Result<Vec<_>, _>>()?);
            print(&if self.json { table.json().to_string() } else { table.markdown() });
            return Ok(table.exit_code());
        }
        if let Some(out) = &self.out {
            Inputs::new([], None)?.check_writable(out)?;
        }
        let (record, failed) = {
            let progress = ShownProgress::new(0, "cases");
            let mut done = 0;
            let mut tell = |told: bench::Told<'_>| {
                progress.expect(told.all);
                (done..told.done).for_each(|_| progress.step());
                done = told.done;
            };
            edge::now(bench::run(self.device, "", &mut tell))?
        };
        let text = record.text();
        let table = CaseTable::of(vec![record]);
        // Shown before it is written, so that a full disk does not cost the minutes it took.
        print(&if self.json { text.clone() } else { table.markdown() });
        if let Some(out) = &self.out {
            progress::write(out, (text + "\n").as_bytes())?;
        }
        Ok(if failed { ExitCode::from(FAILED) } else { table.exit_code() })
    }
}
