//! Plan files, `eplb-plan/1`.

use std::path::Path;

use serde_json::{Value, json};

use crate::check;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::plan::{Placement, Plan};

/// The format's name and version.
pub const FORMAT: &str = "eplb-plan/1";

/// A plan as a plan file holds it.
#[must_use]
pub fn plan_json(plan: &Plan) -> Value {
    let cluster = plan.cluster();
    let quality = plan.quality();
    let layers: Vec<Value> = quality
        .layers
        .iter()
        .zip(plan.stops())
        .map(|(layer, stop)| {
            json!({
                "max": layer.max_gpu_load, "mean": layer.mean_gpu_load, "lower_bound": layer.lower_bound,
                "stop": stop.name(),
            })
        })
        .collect();
    let (slots, experts) = (plan.slots(), plan.experts());
    let options = plan.options();
    json!({
        "format": FORMAT,
        "num_replicas": cluster.num_replicas(),
        "num_groups": cluster.num_groups(),
        "num_nodes": cluster.num_nodes(),
        "num_gpus": cluster.num_gpus(),
        "slots_per_gpu": cluster.slots_per_gpu(),
        "physical_to_logical": plan.physical_to_logical().chunks_exact(slots).collect::<Vec<_>>(),
        "logical_to_physical": plan.logical_to_physical().chunks_exact(experts * plan.max_replicas())
            .map(|layer| layer.chunks_exact(plan.max_replicas()).collect::<Vec<_>>()).collect::<Vec<_>>(),
        "replica_counts": plan.replica_counts().chunks_exact(experts).collect::<Vec<_>>(),
        "layers": layers,
        "summary": {
            "balancedness": quality.balancedness(), "replica_balancedness": quality.replica_balancedness(),
            "max_over_mean": quality.max_over_mean(), "mean_gap": quality.mean_gap(),
            "worst_gap": quality.worst_gap(), "same_gpu_duplicates": quality.same_gpu_duplicates(),
            "layers_without_load": quality.layers_without_load(),
        },
        "options": {
            "seed": options.seed, "restarts": options.restarts, "kicks": options.kicks,
            "assignments": options.assignments, "all": format!("{options:?}"),
        },
        "device": plan.device(),
        "backend": plan.backend(),
        "fingerprint": format!("{:016x}", plan.fingerprint()),
    })
}

/// A plan read from a file: its cluster and placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFile {
    /// The cluster it is for.
    pub cluster: Cluster,
    /// Where every replica sits.
    pub placement: Placement,
}

impl PlanFile {
    /// Reads a plan file; its maps must agree with each other and with its fingerprint.
    ///
    /// # Errors
    /// [`Error::Read`] with what is missing, damaged or inconsistent.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Read { path: path.to_path_buf(), reason };
        let bytes = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        Self::parse(&bytes).map_err(refuse)
    }

    /// Reads the bytes of a plan file.
    ///
    /// # Errors
    /// What is missing, damaged or inconsistent.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let root: Value =
            serde_json::from_slice(bytes).map_err(|error| format!("not a plan file: {error}"))?;
        let format = root.get("format").and_then(Value::as_str).unwrap_or("none");
        if format != FORMAT {
            return Err(format!("format {format} is not {FORMAT}"));
        }
        let number = |field: &str| {
            let value = root.get(field).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
            value.ok_or_else(|| format!("{field} is not a whole number"))
        };
        let cluster = Cluster::with_slots_per_gpu(
            number("num_replicas")?,
            number("num_groups")?,
            number("num_nodes")?,
            number("num_gpus")?,
            number("slots_per_gpu")?,
        )
        .map_err(|error| error.to_string())?;
        let rows = numbers(&root, "physical_to_logical", 1)?;
        let counts = numbers(&root, "replica_counts", 1)?;
        let lists = numbers(&root, "logical_to_physical", 2)?;
        let experts = root["replica_counts"].get(0).and_then(Value::as_array).map_or(0, Vec::len);
        let placement =
            Placement::new(experts, cluster.num_slots(), rows).map_err(|error| error.to_string())?;
        let counts: Vec<u32> = counts.into_iter().map(|c| u32::try_from(c).unwrap_or(u32::MAX)).collect();
        check::check_maps(experts, cluster.num_slots(), placement.physical_to_logical(), &lists, &counts)
            .map_err(|error| error.to_string())?;
        let written = root.get("fingerprint").and_then(Value::as_str).unwrap_or("missing");
        let computed = format!("{:016x}", placement.fingerprint());
        if written != computed {
            return Err(format!("damaged: fingerprint {written} is not that of its maps, {computed}"));
        }
        Ok(Self { cluster, placement })
    }
}

/// The whole numbers of an array nested `depth` deep below the rows.
fn numbers(root: &Value, field: &str, depth: usize) -> Result<Vec<i32>, String> {
    fn collect(value: &Value, depth: usize, out: &mut Vec<i32>) -> Option<()> {
        match (value, depth) {
            (Value::Array(items), 1..) => items.iter().try_for_each(|item| collect(item, depth - 1, out)),
            (Value::Number(number), 0) => {
                out.push(i32::try_from(number.as_i64()?).ok()?);
                Some(())
            }
            _ => None,
        }
    }
    let mut out = Vec::new();
    let found = root.get(field).and_then(|value| collect(value, depth + 1, &mut out));
    found.map(|()| out).ok_or_else(|| format!("{field} is not an array of whole numbers, {} deep", depth + 1))
}
