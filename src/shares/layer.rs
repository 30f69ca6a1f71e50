//! A layer of a plan as the solvers see it: the replicas of each expert, and the GPUs that they are on.

use std::cmp::Reverse;

/// The parts that an expert's tokens are dealt in.
pub const PARTS: u16 = 256;

/// The replicas of a layer, expert after expert.
#[derive(Default)]
pub struct Replicas {
    /// Where the replicas of each expert begin, and of one expert more where they end.
    first: Vec<u32>,
    /// GPU and slot of each replica.
    gpu: Vec<u32>,
    slot: Vec<u32>,
    /// Pairs of an expert's replicas on different GPUs, expert after expert: each with those 1, 2, 4 and so on after it. Of
    /// two or three these are all.
    pub pairs: Vec<Pair>,
}

/// Two replicas of an expert that tokens can be shifted between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub expert: u32,
    /// Their places in the list of replicas.
    pub places: [u32; 2],
    /// Their GPUs.
    pub gpus: [u32; 2],
}

impl Replicas {
    /// Takes over a row of `physical_to_logical`, whose entries are experts or negative.
    pub fn lay(&mut self, experts: usize, slots_per_gpu: usize, row: &[i32]) {
        self.first.clear();
        self.first.resize(experts + 1, 0);
        let filled =
            || row.iter().enumerate().filter_map(|(slot, &e)| Some((slot, usize::try_from(e).ok()?)));
        filled().for_each(|(_, expert)| self.first[expert] += 1);
        // From counts to ends; each replica, last slot first, then takes the place before.
        let mut end = 0;
        for first in &mut self.first {
            end += *first;
            *first = end;
        }
        self.gpu.clear();
        self.gpu.resize(end as usize, 0);
        self.slot.clear();
        self.slot.resize(end as usize, 0);
        let gpus = row.chunks(slots_per_gpu).enumerate().rev();
        for (gpu, held) in gpus {
            for (i, &expert) in held.iter().enumerate().rev() {
                if let Ok(expert) = usize::try_from(expert) {
                    self.first[expert] -= 1;
                    let at = self.first[expert] as usize;
                    self.gpu[at] = gpu as u32;
                    self.slot[at] = (gpu * slots_per_gpu + i) as u32;
                }
            }
        }
        self.lay_pairs(experts);
    }

    fn lay_pairs(&mut self, experts: usize) {
        self.pairs.clear();
        for expert in 0..experts {
            let replicas = self.of(expert);
            let mut step = 1;
            while step < replicas.len() {
                for at in replicas.start..replicas.end - step {
                    let (places, gpus) = ([at, at + step], [self.gpu[at], self.gpu[at + step]]);
                    if gpus[0] != gpus[1] {
                        let places = places.map(|place| place as u32);
                        self.pairs.push(Pair { expert: expert as u32, places, gpus });
                    }
                }
                step *= 2;
            }
        }
    }

    /// How many replicas there are.
    pub fn len(&self) -> usize {
        self.gpu.len()
    }

    /// The replicas of an expert, as places.
    pub fn of(&self, expert: usize) -> std::ops::Range<usize> {
        self.first[expert] as usize..self.first[expert + 1] as usize
    }

    /// The GPU of a replica.
    pub fn gpu(&self, place: usize) -> usize {
        self.gpu[place] as usize
    }

    /// The slot of a replica.
    pub fn slot(&self, place: usize) -> usize {
        self.slot[place] as usize
    }

    /// Deals `whole` out to the replicas of each expert, evenly; what is left over goes to the first ones.
    pub fn even(&self, whole: impl Fn(usize) -> i32, out: &mut Vec<i32>) {
        out.clear();
        out.resize(self.len(), 0);
        for expert in 0..self.first.len() - 1 {
            let replicas = self.of(expert);
            let (whole, count) = (whole(expert), replicas.len() as i32);
            if count == 1 {
                out[replicas.start] = whole;
                continue;
            }
            for (i, part) in out[replicas].iter_mut().enumerate() {
                *part = whole / count + i32::from((i as i32) < whole % count);
            }
        }
    }

    /// What the replicas of an expert have, rounded down to parts of [`PARTS`]: each with its place, and in proportion to what
    /// rounding takes. Where the expert has nothing its replicas are even.
    pub fn rounded_down(&self, expert: usize, have: &[i32]) -> impl Iterator<Item = (usize, u16, u64)> {
        let replicas = self.of(expert);
        let whole: u64 = have[replicas.clone()].iter().map(|&part| part as u64).sum();
        let count = replicas.len() as u64;
        replicas.map(move |place| {
            let (of, from) = if whole > 0 { (have[place] as u64, whole) } else { (1, count) };
            let all = of * u64::from(PARTS);
            (place, (all / from) as u16, all % from)
        })
    }

    /// Rounds what the replicas of each expert have to parts of [`PARTS`], into `parts` by slot: down, then one more
    /// for those that lost most by it, ties to the lower slot. Where an expert has nothing its replicas are even.
    pub fn round(&self, have: &[i32], parts: &mut [u16]) {
        let mut order = Vec::new();
        parts.fill(0);
        for expert in 0..self.first.len() - 1 {
            let replicas = self.of(expert);
            if replicas.len() == 1 {
                parts[self.slot[replicas.start] as usize] = PARTS;
                continue;
            }
            let mut left = PARTS;
            order.clear();
            for (place, part, lost) in self.rounded_down(expert, have) {
                order.push((Reverse(lost), place));
                parts[self.slot[place] as usize] = part;
                left -= part;
            }
            if left > 0 {
                order.sort_unstable();
                for &(_, place) in order.iter().take(left as usize) {
                    parts[self.slot[place] as usize] += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_listed_by_expert_and_slot() {
        let mut replicas = Replicas::default();
        replicas.lay(4, 2, &[2, 0, 0, -1, 3, 0]);
        assert_eq!((0..4).map(|e| replicas.of(e)).collect::<Vec<_>>(), [0..3, 3..3, 3..4, 4..5]);
        assert_eq!((replicas.gpu, replicas.slot), (vec![0, 1, 2, 0, 2], vec![1, 2, 5, 0, 4]));
        let pair = Pair { expert: 0, places: [1, 2], gpus: [1, 2] };
        assert_eq!(replicas.pairs[1], pair);
        assert_eq!(
            replicas.pairs.iter().map(|pair| pair.places).collect::<Vec<_>>(),
            [[0, 1], [1, 2], [0, 2]]
        );
    }

    #[test]
    fn parts_are_rounded_to_a_whole() {
        let mut replicas = Replicas::default();
        replicas.lay(2, 1, &[0, 0, 0, 1]);
        let mut parts = [9; 4];
        replicas.round(&[1, 1, 1, 7], &mut parts);
        assert_eq!(parts, [86, 85, 85, 256]);
        replicas.round(&[0, 5, 0, 0], &mut parts);
        assert_eq!(parts, [0, 256, 0, 256]);
        replicas.round(&[0, 0, 0, 0], &mut parts);
        assert_eq!(parts, [86, 85, 85, 256]);
    }
}
