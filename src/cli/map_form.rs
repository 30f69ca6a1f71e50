//! Options that tell what a map does not tell itself.

use std::path::Path;

use clap::Args;

use super::{io, parse_format, speeds, words};
use crate::maps::{MapFile, PlanFormat};
use crate::{Cluster, Error};

/// Facts that a map does not tell itself.
#[derive(Args)]
pub(super) struct MapForm {
    /// Format of the plan or map, where its content could be two
    #[arg(long, value_parser = parse_format())]
    pub(super) format: Option<PlanFormat>,
    /// GPUs of a map that does not tell them
    #[arg(long)]
    pub(super) gpus: Option<usize>,
    /// Groups of experts, of a map [default: 1]
    #[arg(long)]
    pub(super) groups: Option<usize>,
    /// Nodes, of a map [default: 1]
    #[arg(long)]
    pub(super) nodes: Option<usize>,
    /// Speeds of the GPUs, as for `eplb plan`, of a map or a plan file that does not tell them
    #[arg(long, value_name = "SPEEDS", allow_hyphen_values = true)]
    pub(super) gpu_speeds: Option<String>,
}

impl MapForm {
    /// The options given.
    pub(super) fn given(&self) -> [(bool, &'static str); 5] {
        [
            (self.format.is_some(), "--format"),
            (self.gpus.is_some(), "--gpus"),
            (self.groups.is_some(), "--groups"),
            (self.nodes.is_some(), "--nodes"),
            (self.gpu_speeds.is_some(), "--gpu-speeds"),
        ]
    }

    pub(super) fn read(&self, path: &Path) -> Result<MapFile, Error> {
        io::read_map(path, self.format)
    }

    /// One cluster for all these maps. The last plan file among them tells it; where there is none, the options and the last
    /// map do.
    pub(super) fn cluster(&self, maps: &[MapFile]) -> Result<Cluster, Error> {
        if let Some(plan) = maps.iter().rev().find_map(MapFile::plan) {
            // The options that tell a cluster.
            words::check_effect(&self.given()[1..4], "a map without a cluster, and a plan file has one")?;
            return self.with_speeds(plan.cluster.clone());
        }
        let needed = || words::needed("--gpus", "the map does not tell how many there are");
        let gpus = self.gpus.or(maps.iter().rev().find_map(MapFile::num_gpus)).ok_or_else(needed)?;
        words::tell_idle_groups(self.groups.unwrap_or(1), self.nodes);
        let last = maps.last().ok_or_else(|| words::needed("PLAN", "a plan or map"))?;
        self.with_speeds(last.cluster(self.groups.unwrap_or(1), self.nodes.unwrap_or(1), gpus)?)
    }

    /// A cluster with the speeds that are given.
    fn with_speeds(&self, cluster: Cluster) -> Result<Cluster, Error> {
        let Some(given) = &self.gpu_speeds else { return Ok(cluster) };
        let tells = !cluster.has_equal_speeds();
        words::check_effect(&[(tells, "--gpu-speeds")], "a plan that tells no speeds, and this one does")?;
        cluster.with_gpu_speeds(&speeds::read(given)?)
    }
}
