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
mod rows;
mod write;
mod yaml;

use std::path::Path;

use crate::check::{self, CheckOptions, Quality};
use crate::cluster::{Cluster, MAX_SLOTS};
use crate::error::{Error, ParseError};
use crate::loads::{self, Loads, MAX_LAYERS};
use crate::plan::Plan;
use crate::previous::PreviousMap;
use crate::trace::{self, PlanFile, read_file, strict};
use rows::Rows;

pub use format::PlanFormat;
pub use write::{bytes_of_plan, write_plan};

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
    /// The fault in them, by layer and slot; and where they could be two things.
    pub fn of_bytes(bytes: &[u8], format: Option<PlanFormat>) -> Result<Self, ParseError> {
        let bytes = trace::without_mark(bytes);
        let format = format.map_or_else(|| format_of(bytes), Ok)?;
        Self::parse(format, bytes)
    }

    /// Reads the bytes of a file. It takes at most 128 times their memory, and 64 KiB.
    ///
    /// # Errors
    /// The fault in them, by layer and slot. A plan file must have its checksum.
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
