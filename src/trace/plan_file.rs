//! Plan files, `eplb-plan/1`.

use std::io::Write;
use std::path::Path;

use serde::ser::{Serialize, SerializeSeq, Serializer};
use serde_json::{Value, json};

use super::strict;
use super::{brief, read_file, write_whole};
use crate::check::{self, CheckOptions, Quality};
use crate::cluster::Cluster;
use crate::error::{Error, ParseError};
use crate::loads::{self, Loads};
use crate::plan::{PLAN_VERSION, Placement, Plan, Stop};
use crate::previous::PreviousMap;

/// A plan as the bytes of a plan file, `eplb-plan/1`. Other forms of it are in [`crate::maps`].
///
/// ```
/// use eplb_wgpu::trace::{PlanFile, plan_bytes};
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
/// let (loads, cluster) = (Loads::from_counts(1, 2, &[3, 1])?, Cluster::new(4, 1, 1, 2)?);
/// let plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &PlanOptions::default())?;
/// let file = PlanFile::parse(&plan_bytes(&plan)).unwrap();
/// assert_eq!(&file.placement, plan.placement());
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[must_use]
pub fn plan_bytes(plan: &Plan) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Nothing in it fails: keys are names, and a vector takes all.
    let _ = serde_json::to_writer(&mut bytes, &written(plan));
    bytes.push(b'\n');
    bytes
}

/// Writes a plan file, whole or not at all.
///
/// # Errors
/// [`Error::Write`] where the file cannot be written.
pub fn write_plan(plan: &Plan, path: &Path) -> Result<(), Error> {
    write_whole(path, &plan_bytes(plan))
}

/// The format's name and version.
const FORMAT: &str = "eplb-plan/1";

/// The field that holds the checksum.
pub(super) const CHECKSUM: &str = "checksum";

/// A plan as a plan file holds it. Fields are in the order of their names, as the checksum takes them: xxHash64 (seed 0)
/// over the compact JSON of all fields but itself, keys in order, in hexadecimal. In a file white space and the order of
/// fields are free.
#[derive(serde::Serialize)]
struct Written<'a> {
    backend: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    device: &'a str,
    fingerprint: String,
    format: &'static str,
    /// Where they are unequal.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_speeds: Option<Vec<f64>>,
    layer_ids: &'a [u32],
    layers: Value,
    logical_to_physical: Lists<'a>,
    /// Where replicas may be foreign.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_foreign: Option<u32>,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_replicas_per_expert: Option<u32>,
    num_gpus: usize,
    num_groups: usize,
    num_nodes: usize,
    num_replicas: usize,
    options: Value,
    physical_to_logical: Vec<&'a [i32]>,
    plan_version: u32,
    replica_counts: Vec<&'a [u32]>,
    slots_per_gpu: usize,
    summary: Value,
    /// Warnings for users of the plan. One tells that time cut the plan short, so that other ranks do not come to the same.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

/// The padded lists of slots, layer after layer: all at once they may take much more memory than the plan.
struct Lists<'a>(&'a Placement);

impl Serialize for Lists<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let width = self.0.max_replicas().max(1);
        let mut layers = to.serialize_seq(Some(self.0.layers()))?;
        for layer in 0..self.0.layers() {
            layers.serialize_element(&self.0.lists_of(layer).chunks(width).collect::<Vec<_>>())?;
        }
        layers.end()
    }
}

fn written(plan: &Plan) -> Written<'_> {
    let (cluster, quality, options) = (plan.cluster(), plan.quality(), plan.options());
    let layer = |(layer, stop): (&check::LayerQuality, &Stop)| {
        json!({
            "max": layer.max_gpu_load, "mean": layer.mean_gpu_load, "lower_bound": layer.lower_bound,
            "stop": stop.name(),
        })
    };
    let sorted = |mut value: Value| {
        value.sort_all_objects();
        value
    };
    let mut written = Written {
        backend: plan.backend(),
        checksum: None,
        device: plan.device(),
        fingerprint: format!("{:016x}", plan.fingerprint()),
        format: FORMAT,
        gpu_speeds: (!cluster.has_equal_speeds()).then(|| cluster.gpu_speeds()),
        layer_ids: plan.layer_ids(),
        layers: sorted(quality.layers.iter().zip(plan.stops()).map(layer).collect()),
        logical_to_physical: Lists(plan.placement()),
        max_foreign: Some(options.max_foreign).filter(|most| *most > 0),
        max_replicas_per_expert: options.max_replicas_per_expert,
        num_gpus: cluster.num_gpus(),
        num_groups: cluster.num_groups(),
        num_nodes: cluster.num_nodes(),
        num_replicas: cluster.num_replicas(),
        options: sorted(json!({
            "seed": options.seed, "starts": options.starts, "iterations": options.iterations,
            "assignments": options.assignments, "all": format!("{options:?}"),
        })),
        physical_to_logical: plan.physical_to_logical().chunks_exact(plan.slots()).collect(),
        plan_version: PLAN_VERSION,
        replica_counts: plan.replica_counts().chunks_exact(plan.experts()).collect(),
        slots_per_gpu: cluster.slots_per_gpu(),
        summary: sorted(json!({
            "balancedness": quality.balancedness(), "replica_balancedness": quality.replica_balancedness(),
            "max_over_mean": quality.max_over_mean(), "mean_gap": quality.mean_gap(),
            "worst_gap": quality.worst_gap(), "same_gpu_duplicates": quality.same_gpu_duplicates(),
            "layers_without_load": quality.layers_without_load(),
        })),
        warnings: plan.warnings(),
    };
    written.checksum = Some(format!("{:016x}", hash(&written)));
    written
}

/// The hash of a value's compact JSON, which is never there as a whole.
fn hash(value: &impl Serialize) -> u64 {
    struct Hasher(xxhash_rust::xxh64::Xxh64);
    impl Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(xxhash_rust::xxh64::Xxh64::new(0));
    let mut buffered = std::io::BufWriter::new(&mut hasher);
    // Nothing in it fails: keys are names, and the hasher takes all.
    let _ = serde_json::to_writer(&mut buffered, value).map(|()| buffered.flush());
    drop(buffered);
    hasher.0.digest()
}

/// The checksum of an object without one. Numbers are written as the shortest text that is read back as the
/// same, so a file gives the same bytes as the plan it was made from.
pub(super) fn checksum(root: &mut Value) -> String {
    root.sort_all_objects();
    format!("{:016x}", hash(root))
}

/// The object in the bytes of a file of `what`, without its checksum, which is that of its content.
pub(super) fn checksummed(bytes: &[u8], what: &str, wanted: &str) -> Result<Value, ParseError> {
    let mut root = strict::read(bytes, what)?;
    let Some(fields) = root.as_object_mut() else {
        return Err(ParseError::content(format!("not {what}: not an object")));
    };
    let written = fields.remove(CHECKSUM);
    match fields.get("format") {
        Some(format) if format == wanted => {}
        Some(format) => {
            let format = brief(format.as_str().unwrap_or("of no name"));
            return Err(ParseError::content(format!("format {format} is not {wanted}")));
        }
        None => {
            let reason = format!("not {what}: it has no format, such as {wanted}");
            return Err(ParseError::content(reason));
        }
    }
    let Some(Value::String(written)) = written else {
        return Err(ParseError::damaged("damaged: it has no checksum"));
    };
    let computed = checksum(&mut root);
    if written != computed {
        let written = brief(&written);
        let reason = format!("damaged: checksum {written} is not that of its content, {computed}");
        return Err(ParseError::damaged(reason));
    }
    Ok(root)
}

/// A plan read from a file: its cluster and placement.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlanFile {
    /// The cluster it is for.
    pub cluster: Cluster,
    /// Where every replica sits.
    pub placement: Placement,
    /// The numbers of its layers, `[layers]`: see [`Loads::with_layer_ids`]. From 0 on in files that do not say.
    pub layer_ids: Vec<u32>,
    /// The [`PLAN_VERSION`] of the library that made it; `None` in files that do not say.
    pub plan_version: Option<u32>,
    /// The most replicas of a layer outside the home node of their group that it was made with, see
    /// [`PlanOptions::max_foreign`](crate::PlanOptions::max_foreign); 0 in files that do not say.
    pub max_foreign: u32,
    /// The most replicas of an expert that it was made with, see
    /// [`PlanOptions::max_replicas_per_expert`](crate::PlanOptions::max_replicas_per_expert); `None` in files that do not say.
    pub max_replicas_per_expert: Option<u32>,
    /// The balancedness that the file tells, of the loads it was made from: its planner's word, held against nothing. `None`
    /// in files that do not say.
    pub told_balancedness: Option<f64>,
}

impl PlanFile {
    /// The rules of the plan beyond those of its cluster.
    #[must_use]
    pub fn rules(&self) -> CheckOptions {
        CheckOptions { max_foreign: self.max_foreign, max_replicas_per_expert: self.max_replicas_per_expert }
    }

    /// Reads a plan file; its content must have its checksum, and its maps agree with each other.
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be read, [`Error::Parse`] with what is missing, damaged or inconsistent.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&read_file(path)?).map_err(|source| Error::parse(path, source))
    }

    /// Reads the bytes of a plan file. It takes at most 128 times their memory, and 64 KiB.
    ///
    /// # Errors
    /// The part that is missing, damaged or inconsistent.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let root = checksummed(bytes, "a plan file", FORMAT)?;
        let number = |field: &str| {
            let value = root.get(field).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
            value.ok_or_else(|| ParseError::content(format!("{field} is not a whole number")))
        };
        let cluster = Cluster::with_slots_per_gpu(
            number("num_replicas")?,
            number("num_groups")?,
            number("num_nodes")?,
            number("num_gpus")?,
            number("slots_per_gpu")?,
        )?;
        let cluster = match root.get("gpu_speeds") {
            Some(speeds) => cluster.with_gpu_speeds(
                &serde_json::from_value::<Vec<f64>>(speeds.clone())
                    .map_err(|_| ParseError::content("gpu_speeds is not an array of numbers"))?,
            )?,
            None => cluster,
        };
        let rows = numbers(&root, "physical_to_logical", 1)?;
        let counts = numbers(&root, "replica_counts", 1)?;
        let lists = numbers(&root, "logical_to_physical", 2)?;
        let experts = root["replica_counts"].get(0).and_then(Value::as_array).map_or(0, Vec::len);
        let counts: Vec<u32> = counts.into_iter().map(|c| u32::try_from(c).unwrap_or(u32::MAX)).collect();
        let slots = cluster.num_slots();
        // First, since it shows that the lists a placement has are no longer than the file's.
        check::check_maps(experts, slots, &rows, &lists, &counts)?;
        let placement = Placement::new(experts, slots, rows)?;
        let written = root.get("fingerprint").and_then(Value::as_str).unwrap_or("missing");
        let computed = format!("{:016x}", placement.fingerprint());
        if written != computed {
            let written = brief(written);
            let reason = format!("damaged: fingerprint {written} is not that of its maps, {computed}");
            return Err(ParseError::damaged(reason));
        }
        let layer_ids: Vec<u32> = match root.get("layer_ids") {
            Some(ids) => serde_json::from_value(ids.clone())
                .map_err(|_| ParseError::content("layer_ids is not an array of whole numbers"))?,
            None => (0..placement.layers() as u32).collect(),
        };
        loads::check_layer_ids(placement.layers(), &layer_ids)?;
        let plan_version = match root.get("plan_version") {
            Some(_) => Some(u32::try_from(number("plan_version")?).unwrap_or(u32::MAX)),
            None => None,
        };
        let most = |field: &str| match root.get(field) {
            Some(_) => number(field).map(|most| Some(u32::try_from(most).unwrap_or(u32::MAX))),
            None => Ok(None),
        };
        let max_foreign = most("max_foreign")?.unwrap_or(0);
        let max_replicas_per_expert = most("max_replicas_per_expert")?;
        let told_balancedness = root["summary"]["balancedness"].as_f64();
        Ok(Self {
            cluster,
            placement,
            layer_ids,
            plan_version,
            max_foreign,
            max_replicas_per_expert,
            told_balancedness,
        })
    }

    /// The plan as the one that runs before another is made, for loads of the same layers: see
    /// [`crate::Planner::replan`].
    #[must_use]
    pub fn previous_map(&self) -> PreviousMap {
        PreviousMap::of_layers(&self.placement, &self.cluster, &self.layer_ids)
    }

    /// The plan's quality on these loads, as [`check::score_with`] has it, by the rules on replicas that it was made with.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the loads are of other layers than the plan is, and as for [`check::score_with`].
    pub fn score(&self, loads: &Loads) -> Result<Quality, Error> {
        // Of other shapes the judge tells more.
        if loads.layers() == self.layer_ids.len() {
            loads::check_same_layers("layers of the plan", &self.layer_ids, loads.layer_ids())?;
        }
        check::score_with(loads, &self.cluster, self.placement.physical_to_logical(), &self.rules())
    }
}

/// The whole numbers of an array nested `depth` deep below the rows.
pub(super) fn numbers(root: &Value, field: &str, depth: usize) -> Result<Vec<i32>, ParseError> {
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
    let refuse =
        || ParseError::content(format!("{field} is not an array of whole numbers, {} deep", depth + 1));
    found.map(|()| out).ok_or_else(refuse)
}
