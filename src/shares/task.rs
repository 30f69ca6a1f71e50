//! A layer of a table as a device is given it: the shares to begin with, and the pairs of replicas that tokens are shifted
//! between.

use super::layer::{Pair, Replicas};

/// Windows that are scenarios. Twice as many take longer, and gain as much: over even shares .0110 on the mean of thirteen
/// runs of five series.
pub const SCENARIOS: usize = 8;

/// Moves shares of each layer towards where they are to be, in the place of the host's threads: for each task the shares of its
/// replicas; `None` where the host has to.
pub type Level<'a> = dyn Fn(&[Task]) -> Result<Option<Vec<Vec<i32>>>, crate::Error> + Sync + 'a;

/// A layer.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// Pairs, round after round; those of a round touch no GPU twice.
    pub pairs: Vec<Pair>,
    /// The end of each round in them.
    pub ends: Vec<u32>,
    /// The terms of each pair's expert, by the place of the expert among those with pairs; none for a batch.
    pub terms: Vec<Terms>,
    /// The share of each replica to begin with.
    pub have: Vec<i32>,
    /// The load of each GPU with these shares: in each scenario, or of the batch.
    pub load: Vec<i32>,
    /// A sweep that moves no more than this is the last.
    pub still: i32,
}

/// The numbers of an expert that its shares for the next window are moved by.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Which expert it is.
    pub expert: u32,
    /// Its load in each scenario.
    pub loads: [i32; SCENARIOS],
    /// The pull to even shares.
    pub even: i64,
    /// The sum of the squares of its loads, and the pull.
    pub squares: i64,
}

impl Task {
    /// The task of a layer on this many GPUs.
    pub fn new(replicas: &Replicas, gpus: usize) -> Self {
        let (pairs, ends) = rounds(&replicas.pairs, gpus);
        Self { pairs, ends, ..Self::default() }
    }
}

/// Orders pairs by rounds, so that those of a round touch no GPU twice and each comes after those before it that touch one of
/// its GPUs: round by round they do what they do one after the other. Returns them, and where each round ends.
fn rounds(pairs: &[Pair], gpus: usize) -> (Vec<Pair>, Vec<u32>) {
    let mut next = vec![0; gpus];
    let mut ends: Vec<u32> = Vec::new();
    let mut numbered = Vec::with_capacity(pairs.len());
    for &pair in pairs {
        let [g, u] = pair.gpus.map(|gpu| gpu as usize);
        let round: usize = next[g].max(next[u]);
        (next[g], next[u]) = (round + 1, round + 1);
        if ends.len() == round {
            ends.push(0);
        }
        ends[round] += 1;
        numbered.push((round, pair));
    }
    let mut end = 0;
    for in_round in &mut ends {
        end += *in_round;
        *in_round = end;
    }
    // Sorting is stable, though within a round any order would do.
    numbered.sort_by_key(|&(round, _)| round);
    (numbered.into_iter().map(|(_, pair)| pair).collect(), ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_a_round_touch_no_gpu_twice_and_keep_the_order_on_each() {
        let mut random = crate::cases::Random(5);
        for gpus in [2, 3, 8, 40] {
            let pair = |expert, g, u| Pair { expert, places: [0, 0], gpus: [g, u] };
            let mut draw = || random.next() as u32;
            let pairs: Vec<Pair> = (0..60)
                .map(|at| {
                    let g = draw() % gpus;
                    pair(at, g, (g + 1 + draw() % (gpus - 1)) % gpus)
                })
                .collect();
            let (ordered, ends) = rounds(&pairs, gpus as usize);
            assert_eq!(*ends.last().unwrap(), 60);
            let mut first = 0;
            for &end in &ends {
                let mut touched: Vec<u32> =
                    ordered[first..end as usize].iter().flat_map(|pair| pair.gpus).collect();
                let all = touched.len();
                touched.sort_unstable();
                touched.dedup();
                assert_eq!(touched.len(), all);
                first = end as usize;
            }
            for gpu in 0..gpus {
                let of = |pairs: &[Pair]| -> Vec<u32> {
                    pairs.iter().filter(|pair| pair.gpus.contains(&gpu)).map(|pair| pair.expert).collect()
                };
                assert_eq!(of(&ordered), of(&pairs), "GPU {gpu}");
            }
        }
    }
}
