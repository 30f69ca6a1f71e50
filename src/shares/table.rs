//! The table, and how one is made for all layers of a plan.

use super::layer::{PARTS, Replicas};
use super::speeds::Speeds;
use super::task::Level;
use super::{batch, windows};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::{Loads, check_same_layers};
use crate::threads;

/// A table of shares: how many of an expert's [`PARTS`] parts each slot serves, `[layers][slots]`.
///
/// The parts of an expert's slots sum to [`PARTS`] in each layer, and a free slot has none. Equal calls give equal tables
/// on every processor. The guide tells what an engine needs to use one.
///
/// ```
/// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner, check};
/// let loads = Loads::from_counts(1, 4, &[90, 30, 20, 10])?;
/// let cluster = Cluster::new(6, 1, 1, 3)?;
/// let plan = Planner::new(DeviceChoice::Cpu)?.plan(&loads, &cluster, &PlanOptions::default())?;
/// let batch = Loads::from_counts(1, 4, &[80, 50, 10, 10])?;
/// let shares = plan.batch_shares(&batch)?;
/// let even = check::score(&batch, &cluster, plan.physical_to_logical())?;
/// let dealt = check::score_shares(&batch, &cluster, plan.physical_to_logical(), shares.parts())?;
/// assert!(dealt.balancedness() >= even.balancedness());
/// # Ok::<(), eplb_wgpu::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    slots: usize,
    parts: Vec<u16>,
}

impl Shares {
    /// The last windows that a table for the next one is made from. Earlier ones are not looked at.
    pub const WINDOWS: usize = windows::HISTORY;

    /// A table from elsewhere, for the plan whose `physical_to_logical` (`[layers][slots]`, -1 for a free slot) this is.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the length is not that of the map, or the map's is not a multiple of the slots;
    /// [`Error::InvalidPlan`] where an entry of the map is no expert, a free slot has parts, or those of an expert do not
    /// sum to [`PARTS`].
    pub fn new(
        experts: usize,
        cluster: &Cluster,
        physical_to_logical: &[i32],
        parts: Vec<u16>,
    ) -> Result<Self, Error> {
        let subject = Subject::new(experts, cluster, physical_to_logical)?;
        if parts.len() != physical_to_logical.len() {
            let rule = format!("is not that of physical_to_logical, {}", physical_to_logical.len());
            return Err(Error::invalid("length of shares", parts.len(), rule));
        }
        let slots = cluster.num_slots();
        let rows = physical_to_logical.chunks_exact(slots).zip(parts.chunks_exact(slots));
        for (layer, (row, parts)) in rows.enumerate() {
            subject.check_layer(row, parts).map_err(|rule| Error::InvalidPlan { layer, rule })?;
        }
        Ok(Self { slots, parts })
    }

    /// Even parts of each expert, as far as [`PARTS`] can be divided: what an engine does without a table.
    ///
    /// # Errors
    /// As for [`Shares::of_batch`].
    pub fn even(experts: usize, cluster: &Cluster, physical_to_logical: &[i32]) -> Result<Self, Error> {
        let subject = Subject::new(experts, cluster, physical_to_logical)?;
        Ok(subject.each(|layer, replicas: &mut Replicas, parts| {
            subject.lay(layer, replicas);
            let none = vec![0; replicas.len()];
            replicas.round(&none, parts);
        }))
    }

    /// [`crate::Plan::shares`] of any map, as of a plan file.
    ///
    /// # Errors
    /// As for [`Shares::of_sample`].
    pub fn of_windows(
        cluster: &Cluster,
        physical_to_logical: &[i32],
        windows: &[Loads],
    ) -> Result<Self, Error> {
        of_windows(cluster, physical_to_logical, (windows, None), None)
    }

    /// [`crate::Plan::shares_with_sample`] of any map, as of a plan file.
    ///
    /// # Errors
    /// [`Error::Invalid`] where there is no window, windows, sample and map are not of the same layers and experts, or one
    /// is several windows at once; [`Error::InvalidPlan`] where an entry of the map is no expert.
    pub fn of_sample(
        cluster: &Cluster,
        physical_to_logical: &[i32],
        windows: &[Loads],
        sample: &Loads,
    ) -> Result<Self, Error> {
        of_windows(cluster, physical_to_logical, (windows, Some(sample)), None)
    }

    /// [`crate::Plan::batch_shares`] of any map, as of a plan file.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the batch is not of the map's layers, or is several windows at once; [`Error::InvalidPlan`]
    /// where an entry of the map is no expert.
    pub fn of_batch(cluster: &Cluster, physical_to_logical: &[i32], batch: &Loads) -> Result<Self, Error> {
        of_batch(cluster, physical_to_logical, batch, None)
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.parts.len() / self.slots
    }

    /// Number of slots in a layer.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The parts of each slot, `[layers][slots]`.
    #[must_use]
    pub fn parts(&self) -> &[u16] {
        &self.parts
    }

    /// A stable 64-bit hash, for ranks to compare: xxHash64 (seed 0) over the number of slots as a little-endian `i32` and
    /// the parts as little-endian `u16`.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let head = (self.slots as i32).to_le_bytes();
        let bytes: Vec<u8> =
            head.into_iter().chain(self.parts.iter().flat_map(|part| part.to_le_bytes())).collect();
        xxhash_rust::xxh64::xxh64(&bytes, 0)
    }
}

/// A table for the next window after some, drawn towards a sample of it where there is one. Without `level` the host moves the
/// shares; it does too where GPUs are of unequal speed.
///
/// # Errors
/// As for [`Shares::of_sample`], and those of `level`.
pub(crate) fn of_windows(
    cluster: &Cluster,
    physical_to_logical: &[i32],
    (all, sample): (&[Loads], Option<&Loads>),
    level: Option<&Level<'_>>,
) -> Result<Shares, Error> {
    let Some(last) = all.last() else {
        return Err(Error::invalid("number of windows", 0, "is not at least 1"));
    };
    let subject = Subject::new(last.experts(), cluster, physical_to_logical)?;
    let known = &all[all.len().saturating_sub(windows::HISTORY)..];
    for window in known.iter().chain(sample) {
        let what =
            if sample.is_some_and(|sample| std::ptr::eq(sample, window)) { "sample" } else { "window" };
        subject.check(what, window)?;
        check_same_layers(&format!("layers of the {what}"), window.layer_ids(), last.layer_ids())?;
    }
    let known = Known { windows: known, sample };
    let gpus = (cluster.num_gpus(), &subject.speeds);
    if let Some(level) = level.filter(|_| subject.speeds.are_equal()) {
        let laid = threads::each(subject.layers(), |layer, scratch: &mut windows::WindowScratch| {
            subject.lay(layer, &mut scratch.replicas);
            let task = known.with(layer, |windows| scratch.task(windows, gpus.0));
            (std::mem::take(&mut scratch.replicas), task)
        });
        let (replicas, tasks): (Vec<_>, Vec<_>) = laid.into_iter().unzip();
        if let Some(found) = level(&tasks)? {
            return Ok(subject.each(|layer, (): &mut (), parts| replicas[layer].round(&found[layer], parts)));
        }
    }
    Ok(subject.each(|layer, scratch: &mut windows::WindowScratch, parts| {
        subject.lay(layer, &mut scratch.replicas);
        known.with(layer, |windows| windows::Solve { windows, gpus, scratch, parts }.run());
    }))
}

/// A table for one batch. Without `level` the host moves the shares; it does too where GPUs are of unequal speed.
///
/// # Errors
/// As for [`Shares::of_batch`], and those of `level`.
pub(crate) fn of_batch(
    cluster: &Cluster,
    physical_to_logical: &[i32],
    batch: &Loads,
    level: Option<&Level<'_>>,
) -> Result<Shares, Error> {
    let experts = batch.experts();
    let subject = Subject::new(experts, cluster, physical_to_logical)?;
    subject.check("batch", batch)?;
    let loads = |layer: usize| &batch.fixed()[layer * experts..(layer + 1) * experts];
    let gpus = (cluster.num_gpus(), &subject.speeds);
    if let Some(level) = level.filter(|_| subject.speeds.are_equal()) {
        let laid = threads::each(subject.layers(), |layer, (): &mut ()| {
            let mut scratch = batch::BatchScratch::default();
            subject.lay(layer, &mut scratch.replicas);
            let (task, heaviest) = scratch.task(loads(layer), gpus);
            ((scratch.replicas, heaviest), task)
        });
        let (laid, tasks): (Vec<_>, Vec<_>) = laid.into_iter().unzip();
        if let Some(found) = level(&tasks)? {
            return Ok(subject.each(|layer, (): &mut (), parts| {
                let (replicas, heaviest) = &laid[layer];
                batch::finish(replicas, loads(layer), gpus, (*heaviest, &found[layer]), parts);
            }));
        }
    }
    Ok(subject.each(|layer, scratch: &mut batch::BatchScratch, parts| {
        subject.lay(layer, &mut scratch.replicas);
        batch::solve(loads(layer), gpus, scratch, parts);
    }))
}

/// The windows that a table is made from, and the sample of the next one.
struct Known<'a> {
    windows: &'a [Loads],
    sample: Option<&'a Loads>,
}

impl Known<'_> {
    /// Does some work with the loads of a layer.
    fn with<T>(&self, layer: usize, work: impl FnOnce(windows::Windows<'_>) -> T) -> T {
        let row = |loads: &'_ Loads| layer * loads.experts()..(layer + 1) * loads.experts();
        let routings = |loads: &Loads| loads.layer(layer).iter().sum::<f64>() as u64;
        let loads: Vec<&[u32]> = self.windows.iter().map(|window| &window.fixed()[row(window)]).collect();
        let of_windows: Vec<u64> = match self.sample {
            Some(_) => self.windows.iter().map(routings).collect(),
            None => Vec::new(),
        };
        let sample = self.sample.map(|sample| windows::Sample {
            loads: &sample.fixed()[row(sample)],
            routings: routings(sample),
            of_windows: &of_windows,
        });
        work(windows::Windows { loads: &loads, sample })
    }
}

/// The plan that a table is made for.
struct Subject<'a> {
    experts: usize,
    slots: usize,
    slots_per_gpu: usize,
    map: &'a [i32],
    speeds: Speeds,
}

impl<'a> Subject<'a> {
    fn new(experts: usize, cluster: &Cluster, map: &'a [i32]) -> Result<Self, Error> {
        let slots = cluster.num_slots();
        if !map.len().is_multiple_of(slots) {
            let rule = format!("is not a multiple of the number of slots {slots}");
            return Err(Error::invalid("length of physical_to_logical", map.len(), rule));
        }
        let gone = cluster.gone_gpus();
        for (layer, row) in map.chunks_exact(slots).enumerate() {
            let is_entry = |e: i32| usize::try_from(e).map_or(e == -1, |e| e < experts);
            if let Some(slot) = row.iter().position(|&e| !is_entry(e)) {
                let rule = format!("slot {slot} holds {}, not an expert in 0..{experts} or -1", row[slot]);
                return Err(Error::InvalidPlan { layer, rule });
            }
            let each = cluster.slots_per_gpu();
            for &gpu in &gone {
                if let Some(slot) = (gpu * each..(gpu + 1) * each).find(|&slot| row[slot] >= 0) {
                    let rule = format!(
                        "slot {slot} on GPU {gpu}, which is gone (speed 0), holds expert {}",
                        row[slot]
                    );
                    return Err(Error::InvalidPlan { layer, rule });
                }
            }
        }
        let slots_per_gpu = cluster.slots_per_gpu();
        Ok(Self { experts, slots, slots_per_gpu, map, speeds: Speeds::new(cluster) })
    }

    /// Checks that loads are of one window, and of the layers and experts of the map.
    fn check(&self, what: &str, loads: &Loads) -> Result<(), Error> {
        let layers = self.layers();
        for (field, found, wanted) in [
            (format!("windows of the {what}"), loads.windows().len(), 1),
            (format!("layers of the {what}"), loads.layers(), layers),
            (format!("experts of the {what}"), loads.experts(), self.experts),
        ] {
            if found != wanted {
                return Err(Error::invalid(field, found, format!("is not {wanted}")));
            }
        }
        Ok(())
    }

    /// Whether a layer's parts sum up.
    fn check_layer(&self, row: &[i32], parts: &[u16]) -> Result<(), String> {
        let mut sums = vec![None; self.experts];
        for (slot, (&expert, &part)) in row.iter().zip(parts).enumerate() {
            match usize::try_from(expert) {
                Ok(expert) => *sums[expert].get_or_insert(0u64) += u64::from(part),
                Err(_) if part > 0 => return Err(format!("slot {slot} is free and has {part} parts")),
                Err(_) => {}
            }
        }
        let wrong = sums.iter().position(|sum| sum.is_some_and(|sum| sum != u64::from(PARTS)));
        match wrong {
            Some(expert) => {
                let sum = sums[expert].unwrap_or(0);
                Err(format!("the parts of expert {expert} sum to {sum}, not {PARTS}"))
            }
            None => Ok(()),
        }
    }

    fn layers(&self) -> usize {
        self.map.len() / self.slots
    }

    /// Lays out the replicas of a layer.
    fn lay(&self, layer: usize, replicas: &mut Replicas) {
        let row = &self.map[layer * self.slots..(layer + 1) * self.slots];
        replicas.lay(self.experts, self.slots_per_gpu, row);
    }

    /// The table that `work` makes layer by layer: it is given the layer, and its parts to fill.
    fn each<S: Default>(&self, work: impl Fn(usize, &mut S, &mut [u16]) + Sync) -> Shares {
        let rows = threads::each(self.layers(), |layer, scratch: &mut S| {
            let mut parts = vec![0; self.slots];
            work(layer, scratch, &mut parts);
            parts
        });
        Shares { slots: self.slots, parts: rows.concat() }
    }
}
