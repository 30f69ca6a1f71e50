//! Shares for one batch, from its own loads: load flows between the GPUs of each replicated expert until they are level.

use super::layer::{PARTS, Replicas};
use super::speeds::Speeds;

/// Sweeps that move more load than levels two GPUs, so that load from afar arrives sooner.
const SWEEPS: u32 = 20;

/// Memory that a thread reuses from layer to layer.
#[derive(Default)]
pub struct Scratch {
    pub replicas: Replicas,
    /// The load of each replica.
    have: Vec<i32>,
    /// The load of each GPU.
    load: Vec<i32>,
    even: Vec<u16>,
}

/// Works out the parts of a layer whose plan `scratch.replicas` holds, by slot, from its loads, `[experts]`.
///
/// The heaviest GPU is no heavier than with even shares. Where GPUs are of unequal speed, what they carry is over it.
pub fn solve(loads: &[u32], gpus: (usize, &Speeds), scratch: &mut Scratch, parts: &mut [u16]) {
    match gpus.1.are_equal() {
        true => solve_by::<false>(loads, gpus, scratch, parts),
        false => solve_by::<true>(loads, gpus, scratch, parts),
    }
}

fn solve_by<const SPEEDS: bool>(
    loads: &[u32],
    (gpus, speeds): (usize, &Speeds),
    scratch: &mut Scratch,
    parts: &mut [u16],
) {
    let Scratch { replicas, have, load, even } = scratch;
    replicas.even(|expert| loads[expert] as i32, have);
    load.clear();
    load.resize(gpus, 0);
    for (place, &part) in have.iter().enumerate() {
        load[replicas.gpu(place)] += part;
    }
    let heaviest = speeds.peak(load.iter().map(|&load| load as u64));
    let least = (load.iter().map(|&load| i64::from(load)).sum::<i64>() / gpus as i64) as i32 >> 12;
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
    replicas.round(have, parts);
    // Rounding may take back what little there was to gain.
    let peak_now = peak(replicas, loads, (gpus, speeds), parts);
    if peak_now >= heaviest * u64::from(PARTS) {
        replicas.even(|expert| loads[expert] as i32, have);
        even.resize(parts.len(), 0);
        replicas.round(have, even);
        if peak_now > peak(replicas, loads, (gpus, speeds), even) {
            parts.copy_from_slice(even);
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
