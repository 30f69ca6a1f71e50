//! Readers and writers of maps: which slot holds which expert, in the forms that serving engines read and write. Feature
//! `files`.
//!
//! | [`PlanFormat`] | name | file | layers | GPUs |
//! |---|---|---|---|---|
//! | `Eplb` | `eplb` | `.json`, a plan with checksum and cluster | by number | told |
//! | `Sglang` | `sglang` | `.json` for `--init-expert-location` | from 0 on, all of the model | not told |
//! | `Vllm` | `vllm` | `.json`, an array of rows or an object by layer | by place, or by number | not told |
//! | `TensorRtLlm` | `tensorrt-llm` | `.yaml` for `load_balancer` | by number | not told |
//! | `Ascend` | `vllm-ascend` | `.json` for `expert_map_path` | by number | told |
//! | `Npy` | `npy` | `.npy`, `[layers][slots]` | by place | not told |

mod format;
mod json;
mod yaml;

use std::path::Path;

use crate::check::{self, CheckOptions, Quality};
use crate::cluster::{Cluster, MAX_SLOTS};
use crate::error::{Error, ParseError};
use crate::loads::{self, Loads, MAX_LAYERS};
use crate::plan::Plan;
use crate::previous::PreviousMap;
use crate::trace::{self, PlanFile, plan_bytes, read_file, strict};

pub use format::PlanFormat;

/// Layers that a map may lack and SGLang's must have.
const MOST_MISSING: usize = 256;

/// A map as a file holds it: nothing in it is held against loads or a cluster yet. -1 stands for a slot that holds nothing;
/// any other number may be there.
///
/// ```
/// use eplb_wgpu::maps::{MapFile, PlanFormat};
/// let map = MapFile::parse(PlanFormat::Sglang, br#"{"physical_to_logical_map": [[0, 1, 2, 0]]}"#).unwrap();
/// assert_eq!((map.layers(), map.slots()), (1, 4));
/// let yaml = String::from_utf8(map.bytes(PlanFormat::TensorRtLlm)?).unwrap();
/// assert!(yaml.contains("  0: [0,1,2,0]"));
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MapFile {
    format: PlanFormat,
    slots: usize,
    rows: Vec<i32>,
    /// Where they are known.
    layer_ids: Option<Vec<u32>>,
    /// Where it is known.
    gpus: Option<usize>,
    /// Where it is a plan's.
    cluster: Option<Cluster>,
    /// Where the file is a plan.
    plan: Option<PlanFile>,
}

impl MapFile {
    /// The map of rows `[layers][slots]`, -1 for a slot that holds nothing: what [`MapFile::bytes`] turns into a file of
    /// any other program.
    ///
    /// ```
    /// use eplb_wgpu::maps::{MapFile, PlanFormat};
    /// let map = MapFile::new(4, vec![0, 1, 2, 0])?.with_gpus(2)?.with_layer_ids(&[3])?;
    /// assert!(MapFile::parse(PlanFormat::Ascend, &map.bytes(PlanFormat::Ascend)?).unwrap().layer_ids() == Some(&[3]));
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] where the number of entries is not a multiple of `slots`, or there are no layers or too many,
    /// or no slots or too many.
    pub fn new(slots: usize, physical_to_logical: Vec<i32>) -> Result<Self, Error> {
        if slots == 0 || slots > MAX_SLOTS {
            let rule = format!("is not between 1 and {MAX_SLOTS}");
            return Err(Error::invalid("slots of the map", slots, rule));
        }
        let (layers, rest) = (physical_to_logical.len() / slots, physical_to_logical.len() % slots);
        if rest > 0 {
            let rule = format!("is not a multiple of the number of slots {slots}");
            return Err(Error::invalid("length of physical_to_logical", physical_to_logical.len(), rule));
        }
        if layers == 0 || layers > MAX_LAYERS {
            let rule = format!("is not between 1 and {MAX_LAYERS}");
            return Err(Error::invalid("layers of the map", layers, rule));
        }
        let rows = physical_to_logical;
        Ok(Self {
            format: PlanFormat::Npy,
            slots,
            rows,
            layer_ids: None,
            gpus: None,
            cluster: None,
            plan: None,
        })
    }

    /// The same map with these numbers of layers.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there are not as many as layers, or one is there twice.
    pub fn with_layer_ids(mut self, layer_ids: &[u32]) -> Result<Self, Error> {
        loads::check_layer_ids(self.layers(), layer_ids)?;
        self.layer_ids = Some(layer_ids.to_vec());
        Ok(self)
    }

    /// The rows of these layers alone, where the map is SGLang's: that has one for every layer of the model, and loads may
    /// lack some, such as dense ones. All rows where the layers are the first ones: loads that do not tell their layers number
    /// them so. Any other map as it is.
    #[must_use]
    pub fn for_layers(mut self, layer_ids: &[u32]) -> Self {
        let all = self.layer_ids.as_deref().filter(|_| self.format == PlanFormat::Sglang);
        if let Some(places) = all.and_then(|all| loads::places(all, layer_ids)) {
            let row = |&at: &usize| &self.rows[at * self.slots..(at + 1) * self.slots];
            self.rows = places.iter().flat_map(row).copied().collect();
            self.layer_ids = Some(layer_ids.to_vec());
        }
        self
    }

    /// Reads a file, by its content and its ending where no format is given.
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be read, [`Error::Parse`] with what is wrong in it, by layer and slot.
    pub fn read(path: &Path, format: Option<PlanFormat>) -> Result<Self, Error> {
        let bytes = read_file(path)?;
        if trace::is_torch_name(path) {
            let reason = "the Python package reads torch's files: eplb_wgpu.read_map(PATH).save(\"map.json\", \"sglang\")";
            return Err(Error::parse(path, ParseError::content(reason)));
        }
        Self::of_bytes(&bytes, format).map_err(|source| Error::parse(path, source))
    }

    /// Reads bytes of a format that may not be known.
    ///
    /// # Errors
    /// What is wrong in them, by layer and slot; and where they could be two things.
    pub fn of_bytes(bytes: &[u8], format: Option<PlanFormat>) -> Result<Self, ParseError> {
        let bytes = trace::without_mark(bytes);
        let format = format.map_or_else(|| format_of(bytes), Ok)?;
        Self::parse(format, bytes)
    }

    /// Reads the bytes of a file. It takes at most 128 times their memory, and 64 KiB.
    ///
    /// # Errors
    /// What is wrong in them, by layer and slot. A plan file must have its checksum.
    pub fn parse(format: PlanFormat, bytes: &[u8]) -> Result<Self, ParseError> {
        let bytes = trace::without_mark(bytes);
        match format {
            PlanFormat::Eplb => Ok(PlanFile::parse(bytes)?.into()),
            PlanFormat::TensorRtLlm => yaml::read(bytes),
            PlanFormat::Npy => {
                let (slots, rows) = trace::npy_rows(bytes)?;
                let mut all = Rows::default();
                (0..).zip(rows.chunks(slots.max(1))).for_each(|(layer, row)| all.push(layer, row.to_vec()));
                all.by_place(PlanFormat::Npy)
            }
            PlanFormat::Sglang | PlanFormat::Vllm | PlanFormat::Ascend => json::read(bytes, format),
        }
    }

    /// The same map, on this many GPUs.
    ///
    /// # Errors
    /// [`Error::Invalid`] where its slots are not a multiple of them.
    pub fn with_gpus(mut self, gpus: usize) -> Result<Self, Error> {
        self.slots_per_gpu(gpus)?;
        self.gpus = Some(gpus);
        Ok(self)
    }

    /// The format it was read from.
    #[must_use]
    pub fn format(&self) -> PlanFormat {
        self.format
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.rows.len() / self.slots
    }

    /// Slots of a layer.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The expert of each slot, `[layers][slots]`; -1 where the slot holds nothing.
    #[must_use]
    pub fn physical_to_logical(&self) -> &[i32] {
        &self.rows
    }

    /// The numbers of the layers, where the file tells them.
    #[must_use]
    pub fn layer_ids(&self) -> Option<&[u32]> {
        self.layer_ids.as_deref()
    }

    /// The number of GPUs, where the file tells it.
    #[must_use]
    pub fn num_gpus(&self) -> Option<usize> {
        self.gpus
    }

    /// The plan, where the file is one.
    #[must_use]
    pub fn plan(&self) -> Option<&PlanFile> {
        self.plan.as_ref()
    }

    /// The map as the one that runs before a plan is made: see [`crate::Planner::replan`].
    ///
    /// # Errors
    /// [`Error::InvalidPlan`] where an entry is below -1.
    pub fn previous_map(&self) -> Result<PreviousMap, Error> {
        if let Some(plan) = &self.plan {
            return Ok(plan.previous_map());
        }
        let map = PreviousMap::new(self.slots, self.rows.clone())?;
        let map = match self.gpus {
            Some(gpus) => map.with_slots_per_gpu(self.slots / gpus.max(1))?,
            None => map,
        };
        match &self.layer_ids {
            Some(ids) => map.with_layer_ids(ids),
            None => Ok(map),
        }
    }

    /// The cluster of the map: that of a plan file, else as many replicas as the first layer has filled slots.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the numbers break a rule, as for [`Cluster::with_slots_per_gpu`].
    pub fn cluster(&self, groups: usize, nodes: usize, gpus: usize) -> Result<Cluster, Error> {
        let each = self.slots_per_gpu(gpus)?;
        let filled = self.rows[..self.slots].iter().filter(|&&expert| expert != -1).count();
        Cluster::with_slots_per_gpu(filled, groups, nodes, gpus, each)
    }

    fn slots_per_gpu(&self, gpus: usize) -> Result<usize, Error> {
        if gpus == 0 || !self.slots.is_multiple_of(gpus) {
            let rule = format!("is not a multiple of num_gpus {gpus}");
            return Err(Error::invalid("slots of the map", self.slots, rule));
        }
        Ok(self.slots / gpus)
    }

    /// The most replicas of a layer outside the home node of their group, where the file is a plan that was made with
    /// them; else 0.
    #[must_use]
    pub fn max_foreign(&self) -> u32 {
        self.plan.as_ref().map_or(0, |plan| plan.max_foreign)
    }

    /// The rules that a plan file was made by, beyond those of its cluster; none for other maps.
    #[must_use]
    pub fn rules(&self) -> CheckOptions {
        self.plan.as_ref().map_or_else(CheckOptions::default, PlanFile::rules)
    }

    /// The map's quality on these loads, as [`check::score_with`] has it, by the rules that it was made by.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the loads are of other layers than the map is, and as for [`check::score_with`].
    pub fn score(&self, loads: &Loads, cluster: &Cluster) -> Result<Quality, Error> {
        self.score_with(loads, cluster, &self.rules())
    }

    /// The map's quality on these loads, as [`check::score_with`] has it.
    ///
    /// # Errors
    /// As for [`MapFile::score`] and [`check::score_with`].
    pub fn score_with(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &CheckOptions,
    ) -> Result<Quality, Error> {
        // Of other shapes the judge tells more.
        if let Some(ids) = self.layer_ids.as_ref().filter(|ids| ids.len() == loads.layers()) {
            loads::check_same_layers("layers of the plan", ids, loads.layer_ids())?;
        }
        check::score_with(loads, cluster, &self.rows, options)
    }

    /// The bytes of a file of this map.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the format cannot hold the map, with the reason: a slot that is free, or what the format
    /// tells and the map does not.
    pub fn bytes(&self, format: PlanFormat) -> Result<Vec<u8>, Error> {
        let refuse = |rule: &str| Err(Error::invalid("format", format, rule));
        let rows = || self.rows.chunks_exact(self.slots);
        let holds_free_slots = matches!(format, PlanFormat::Npy | PlanFormat::Ascend);
        if let Some(at) = self.rows.iter().position(|&expert| expert < 0).filter(|_| !holds_free_slots) {
            let (layer, slot, entry) = (self.id(at / self.slots), at % self.slots, self.rows[at]);
            return refuse(&format!("cannot hold a free slot: layer {layer}, slot {slot} is {entry}"));
        }
        let with_ids = || -> Vec<(u32, &[i32])> { (0..).map(|layer| self.id(layer)).zip(rows()).collect() };
        Ok(match format {
            PlanFormat::Eplb => {
                return refuse("is that of a plan made here: it needs loads and a cluster (eplb plan)");
            }
            PlanFormat::Sglang => {
                json::write_sglang(&self.all_layers()?.iter().map(Vec::as_slice).collect::<Vec<_>>())
            }
            PlanFormat::Vllm => json::write_vllm(&rows().collect::<Vec<_>>()),
            PlanFormat::TensorRtLlm => yaml::write(&with_ids(), self.slots),
            PlanFormat::Ascend => match self.gpus {
                Some(gpus) => json::write_ascend(&with_ids(), gpus),
                None => {
                    return refuse(
                        "tells the experts of each GPU, and the map does not tell how many there are",
                    );
                }
            },
            PlanFormat::Npy => return trace::npy_of_rows(self.slots, &self.rows),
        }
        .into_bytes())
    }

    /// Writes a file of this map, whole or not at all, in the format of its ending where none is given.
    ///
    /// # Errors
    /// [`Error::Write`] where the file cannot be written, or its ending says no format; and as for [`MapFile::bytes`].
    pub fn write(&self, path: &Path, format: Option<PlanFormat>) -> Result<(), Error> {
        trace::write_whole(path, &self.bytes(PlanFormat::to_write(path, format)?)?)
    }

    /// What a file of this format says otherwise than the map, in words.
    #[must_use]
    pub fn losses(&self, format: PlanFormat) -> Vec<String> {
        let mut said = Vec::new();
        let in_order = (0..self.layers()).all(|layer| self.id(layer) as usize == layer);
        if !in_order && matches!(format, PlanFormat::Vllm | PlanFormat::Npy) {
            said.push(format!("{format} has no layer numbers: row 0 is layer {}", self.id(0)));
        }
        let is_numbered = matches!(format, PlanFormat::Sglang | PlanFormat::TensorRtLlm | PlanFormat::Ascend);
        if self.layer_ids.is_none() && is_numbered {
            said.push(
                "the map does not tell the numbers of its layers: row 0 is taken for layer 0".to_string(),
            );
        }
        let missing = self.last() as usize + 1 - self.layers();
        if !in_order && format == PlanFormat::Sglang && missing > 0 {
            said.push(format!(
                "sglang has a row for every layer from 0 on: the {missing} that the map lacks hold what SGLang starts with"
            ));
        }
        if format != PlanFormat::Eplb
            && let Some(cluster) = self.cluster.as_ref().filter(|cluster| !cluster.has_equal_speeds())
        {
            let gone: Vec<String> = cluster.gone_gpus().iter().map(usize::to_string).collect();
            let gone = if gone.is_empty() { String::new() } else { format!(" (gone: {})", gone.join(",")) };
            said.push(format!(
                "{format} does not tell the speeds of GPUs{gone}: who reads it needs gpu_speeds"
            ));
        }
        if format == PlanFormat::Ascend && self.rows.contains(&-1) {
            said.push("vllm-ascend has no free slots: GPUs have lists of unequal length".to_string());
        }
        said
    }

    /// The number of a layer.
    fn id(&self, layer: usize) -> u32 {
        self.layer_ids.as_ref().and_then(|ids| ids.get(layer).copied()).unwrap_or(layer as u32)
    }

    /// The largest number of a layer.
    fn last(&self) -> u32 {
        (0..self.layers()).map(|layer| self.id(layer)).max().unwrap_or(0)
    }

    /// Rows from layer 0 on; those that are not there are as SGLang starts, expert after expert over and over.
    fn all_layers(&self) -> Result<Vec<Vec<i32>>, Error> {
        let last = self.last() as usize;
        // What a map of a few layers asks for must not fill the memory.
        let most = self.layers() + self.layers().max(MOST_MISSING);
        if last >= most {
            let rule =
                format!("is too far: the map has {} layers, and SGLang's all from 0 on", self.layers());
            return Err(Error::invalid("layer id", last, rule));
        }
        let largest = self.rows.iter().copied().max().unwrap_or(0).max(0);
        let experts = largest.saturating_add(1);
        let start: Vec<i32> = (0..self.slots as i32).map(|slot| slot % experts).collect();
        let mut all = vec![start; last + 1];
        for (layer, row) in self.rows.chunks_exact(self.slots).enumerate() {
            all[self.id(layer) as usize] = row.to_vec();
        }
        Ok(all)
    }
}

impl From<PlanFile> for MapFile {
    fn from(plan: PlanFile) -> Self {
        Self {
            format: PlanFormat::Eplb,
            slots: plan.placement.slots(),
            rows: plan.placement.physical_to_logical().to_vec(),
            layer_ids: Some(plan.layer_ids.clone()),
            gpus: Some(plan.cluster.num_gpus()),
            cluster: Some(plan.cluster.clone()),
            plan: Some(plan),
        }
    }
}

impl From<&Plan> for MapFile {
    fn from(plan: &Plan) -> Self {
        Self {
            format: PlanFormat::Eplb,
            slots: plan.slots(),
            rows: plan.physical_to_logical().to_vec(),
            layer_ids: Some(plan.layer_ids().to_vec()),
            gpus: Some(plan.cluster().num_gpus()),
            cluster: Some(plan.cluster().clone()),
            plan: None,
        }
    }
}

/// The format of a file's content, as far as that tells.
fn format_of(bytes: &[u8]) -> Result<PlanFormat, ParseError> {
    let start = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    match start {
        None => Err(ParseError::content("the file is empty")),
        _ if bytes.starts_with(b"\x93NUMPY") => Ok(PlanFormat::Npy),
        // An object or array of JSON is YAML too.
        Some(b'{' | b'[') => json::format_of(&strict::read(bytes, "a plan file or a map")?),
        _ => Ok(PlanFormat::TensorRtLlm),
    }
}

/// A plan as the bytes of a file of any format.
///
/// # Errors
/// [`Error::Invalid`] where the format cannot hold the plan; `eplb-plan/1` holds every one.
pub fn bytes_of_plan(plan: &Plan, format: PlanFormat) -> Result<Vec<u8>, Error> {
    match format {
        PlanFormat::Eplb => Ok(plan_bytes(plan)),
        _ => MapFile::from(plan).bytes(format),
    }
}

/// Writes a plan to a file of any format, whole or not at all: that of its ending where none is given.
///
/// # Errors
/// [`Error::Write`] where the file cannot be written, or its ending says no format; and as for [`bytes_of_plan`].
pub fn write_plan(plan: &Plan, path: &Path, format: Option<PlanFormat>) -> Result<(), Error> {
    trace::write_whole(path, &bytes_of_plan(plan, PlanFormat::to_write(path, format)?)?)
}

/// Rows as they are read, with the numbers of their layers.
#[derive(Default)]
struct Rows {
    rows: Vec<(u32, Vec<i32>)>,
}

impl Rows {
    fn push(&mut self, layer: u32, row: Vec<i32>) {
        self.rows.push((layer, row));
    }

    fn first(&self) -> Option<(u32, &[i32])> {
        self.rows.first().map(|(layer, row)| (*layer, row.as_slice()))
    }

    /// The map of layers whose numbers the file tells.
    fn numbered(mut self, format: PlanFormat) -> Result<MapFile, ParseError> {
        self.rows.sort_by_key(|row| row.0);
        let ids: Vec<u32> = self.rows.iter().map(|row| row.0).collect();
        let file = self.by_place(format)?;
        loads::check_layer_ids(ids.len(), &ids)?;
        Ok(MapFile { layer_ids: Some(ids), ..file })
    }

    /// The map of layers that the file tells by their place alone.
    fn by_place(self, format: PlanFormat) -> Result<MapFile, ParseError> {
        // Of no layers, the number of slots is no fault.
        let slots = self.rows.first().map_or(1, |row| row.1.len());
        for (layer, row) in &self.rows {
            if row.len() != slots {
                let first = self.rows[0].0;
                let reason = format!("layer {layer} has {} slots, layer {first} has {slots}", row.len());
                return Err(ParseError::content(reason));
            }
        }
        let rows = self.rows.into_iter().flat_map(|row| row.1).collect();
        Ok(MapFile { format, ..MapFile::new(slots, rows)? })
    }
}

/// `[1,2,3]`, which is JSON and YAML alike.
fn list(row: &[i32]) -> String {
    let entries: Vec<String> = row.iter().map(i32::to_string).collect();
    format!("[{}]", entries.join(","))
}
