//! Shares for one batch, from its own loads: load flows between the GPUs of each replicated expert until they are level.

use super::layer::{PARTS, Replicas};
use super::speeds::Speeds;
use super::task::Task;

/// Sweeps that move more load than levels two GPUs, so that load from afar arrives sooner.
pub const SWEEPS: u32 = 20;

/// Memory that a thread reuses from layer to layer.
#[derive(Default)]
pub struct BatchScratch {
    pub replicas: Replicas,
    /// The load of each replica.
    have: Vec<i32>,
    /// The load of each GPU.
    load: Vec<i32>,
}

/// Works out the parts of a layer whose plan `scratch.replicas` holds, by slot, from its loads, `[experts]`.
///
/// The heaviest GPU is no heavier than with even shares. Where GPUs are of unequal speed, what they carry is over it.
pub fn solve(loads: &[u32], gpus: (usize, &Speeds), scratch: &mut BatchScratch, parts: &mut [u16]) {
    match gpus.1.are_equal() {
        true => solve_by::<false>(loads, gpus, scratch, parts),
        false => solve_by::<true>(loads, gpus, scratch, parts),
    }
}

fn solve_by<const SPEEDS: bool>(
    loads: &[u32],
    (gpus, speeds): (usize, &Speeds),
    scratch: &mut BatchScratch,
    parts: &mut [u16],
) {
    let (heaviest, least) = scratch.lay_loads(loads, (gpus, speeds));
    let BatchScratch { replicas, have, load, .. } = scratch;
    for sweep in 0..=SWEEPS {
        let is_last = sweep == SWEEPS;
        let mut most = 0;
        for pair in &replicas.pairs {
            let ([i, j], [g, u]) = (pair.places.map(|i| i as usize), pair.gpus.map(|g| g as usize));
            // 13/16 of the difference, where a half would level the two; a half in the last sweep.
            let apart = if SPEEDS { speeds.apart(load, g, u) } else { load[g] - load[u] };
            let flow = if is_last { apart >> 1 } else { apart - (apart >> 2) + (apart >> 4) };
            let flow = flow.clamp(-have[j], have[i]);
            have[i] -= flow;
            have[j] += flow;
            load[g] -= flow;
            load[u] += flow;
            most = most.max(flow.abs());
        }
        if most <= least {
            break;
        }
    }
    finish(replicas, loads, (gpus, speeds), (heaviest, have), parts);
}

impl BatchScratch {
    /// The share of each replica: after [`solve`], unless even ones were as good.
    #[cfg(all(test, feature = "gpu"))]
    pub fn have(&self) -> &[i32] {
        &self.have
    }

    /// Lays out even shares, and the loads of GPUs with them. Returns the heaviest GPU, and the load that is too little to move
    /// on for.
    fn lay_loads(&mut self, loads: &[u32], (gpus, speeds): (usize, &Speeds)) -> (u64, i32) {
        let Self { replicas, have, load, .. } = self;
        replicas.even(|expert| loads[expert] as i32, have);
        load.clear();
        load.resize(gpus, 0);
        for (place, &part) in have.iter().enumerate() {
            load[replicas.gpu(place)] += part;
        }
        let heaviest = speeds.peak(load.iter().map(|&load| load as u64));
        (heaviest, (load.iter().map(|&load| i64::from(load)).sum::<i64>() / gpus as i64) as i32 >> 12)
    }

    /// The layer as a device is given it, whose GPUs are equally fast, and its heaviest GPU with even shares. Its `replicas` hold
    /// the plan.
    pub fn task(&mut self, loads: &[u32], gpus: (usize, &Speeds)) -> (Task, u64) {
        let (heaviest, still) = self.lay_loads(loads, gpus);
        let (have, load) = (self.have.clone(), self.load.clone());
        (Task { have, load, still, ..Task::new(&self.replicas, gpus.0) }, heaviest)
    }
}

/// The parts of a layer, by slot, from the shares that came out and the heaviest GPU with even ones.
pub fn finish(
    replicas: &Replicas,
    loads: &[u32],
    gpus: (usize, &Speeds),
    (heaviest, have): (u64, &[i32]),
    parts: &mut [u16],
) {
    replicas.round(have, parts);
    // Rounding may take back what little there was to gain.
    let peak_now = peak(replicas, loads, gpus, parts);
    if peak_now >= heaviest * u64::from(PARTS) {
        let (mut have, mut even) = (Vec::new(), vec![0; parts.len()]);
        replicas.even(|expert| loads[expert] as i32, &mut have);
        replicas.round(&have, &mut even);
        if peak_now > peak(replicas, loads, gpus, &even) {
            parts.copy_from_slice(&even);
        }
    }
}

/// The heaviest GPU under a table, in parts of a load.
fn peak(replicas: &Replicas, loads: &[u32], (gpus, speeds): (usize, &Speeds), parts: &[u16]) -> u64 {
    let mut sums = vec![0; gpus];
    for (expert, &load) in loads.iter().enumerate() {
        for place in replicas.of(expert) {
            sums[replicas.gpu(place)] += u64::from(load) * u64::from(parts[replicas.slot(place)]);
        }
    }
    speeds.peak(sums.into_iter())
}
