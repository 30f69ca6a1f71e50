//! Shares for one batch, from its own loads: load flows between the GPUs of each replicated expert until they are level.

use std::cmp::Reverse;

use super::layer::{PARTS, Replicas};
use super::speeds::Speeds;
use super::task::Task;

/// Sweeps that move more load than levels two GPUs, so that load from afar arrives sooner.
pub const SWEEPS: u32 = 20;

/// Sweeps over rounded shares, at most.
const ROUNDED_SWEEPS: u32 = 4;

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
    let mut rounding = Rounding { replicas, loads, gpus, sums: Vec::new() };
    let peak = rounding.round(have, parts);
    // Rounding may take back what little there was to gain.
    if peak >= heaviest * u64::from(PARTS) {
        let (mut have, mut even) = (Vec::new(), vec![0; parts.len()]);
        replicas.even(|expert| loads[expert] as i32, &mut have);
        if rounding.round(&have, &mut even) < peak {
            parts.copy_from_slice(&even);
        }
    }
}

/// Shares are rounded to parts of [`PARTS`] such that the heaviest GPU stays light: the more replicas an expert has, the more
/// load is in a part of each.
struct Rounding<'a> {
    replicas: &'a Replicas,
    loads: &'a [u32],
    gpus: (usize, &'a Speeds),
    /// The load of each GPU, in parts of an expert's load.
    sums: Vec<u64>,
}

impl Rounding<'_> {
    /// Rounds down; then each expert, heaviest first, gives what is left of it to the lightest of its GPUs, a part each; then
    /// parts move between pairs of replicas. Returns the heaviest GPU, over its speed.
    fn round(&mut self, have: &[i32], parts: &mut [u16]) -> u64 {
        let mut left = self.round_down(have, parts);
        left.sort_unstable_by_key(|&(expert, _)| (Reverse(self.loads[expert]), expert));
        let mut order: Vec<usize> = Vec::new();
        for (expert, left) in left {
            order.clear();
            order.extend(self.replicas.of(expert));
            let over = |&place: &usize| {
                let gpu = self.replicas.gpu(place);
                (self.gpus.1.over(self.sums[gpu], gpu), place)
            };
            order.sort_unstable_by_key(over);
            for &place in order.iter().take(left) {
                self.add(expert, place, 1, parts);
            }
        }
        for _ in 0..ROUNDED_SWEEPS {
            if !self.sweep(parts) {
                break;
            }
        }
        self.gpus.1.peak(self.sums.iter().copied())
    }

    /// Rounds all shares down, and counts the loads of GPUs; returns the experts of which parts are left, and how many.
    fn round_down(&mut self, have: &[i32], parts: &mut [u16]) -> Vec<(usize, usize)> {
        self.sums.clear();
        self.sums.resize(self.gpus.0, 0);
        parts.fill(0);
        let mut experts = Vec::new();
        for expert in 0..self.loads.len() {
            let mut left = PARTS;
            for (place, part, _) in self.replicas.rounded_down(expert, have) {
                self.add(expert, place, part, parts);
                left -= part;
            }
            // An expert without a replica has all left, and nobody to give it to.
            if left > 0 {
                experts.push((expert, left.into()));
            }
        }
        experts
    }

    fn add(&mut self, expert: usize, place: usize, part: u16, parts: &mut [u16]) {
        parts[self.replicas.slot(place)] += part;
        self.sums[self.replicas.gpu(place)] += u64::from(self.loads[expert]) * u64::from(part);
    }

    /// Moves as many whole parts between the replicas of each pair as level their GPUs; whether any moved.
    fn sweep(&mut self, parts: &mut [u16]) -> bool {
        let mut has_moved = false;
        for pair in &self.replicas.pairs {
            let each = u64::from(self.loads[pair.expert as usize]);
            if each == 0 {
                continue;
            }
            let [g, u] = pair.gpus.map(|gpu| gpu as usize);
            let over = |gpu: usize| self.gpus.1.over(self.sums[gpu], gpu);
            let swap = over(g) < over(u);
            let (heavy, light) = if swap { (u, g) } else { (g, u) };
            let places = if swap { [pair.places[1], pair.places[0]] } else { pair.places };
            let [from, to] = places.map(|place| self.replicas.slot(place as usize));
            let wanted = self.gpus.1.whole_parts((self.sums[heavy], heavy), (self.sums[light], light), each);
            let moved = wanted.min(parts[from].into()) as u16;
            parts[from] -= moved;
            parts[to] += moved;
            self.sums[heavy] -= each * u64::from(moved);
            self.sums[light] += each * u64::from(moved);
            has_moved |= moved > 0;
        }
        has_moved
    }
}
