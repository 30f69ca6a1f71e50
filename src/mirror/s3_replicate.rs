//! Stage 3, the mirror of `shaders/s3_replicate.wgsl`: how many replicas each expert of a node gets.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::mirror::rng;
use crate::params::Params;

/// Gives each expert one replica, then each further replica to the expert with the highest load per replica
/// (ties to the lower index) among those below `params.max_count`: Adams' divisor method, DeepSeek's rule.
///
/// Starts whose noise strength is not 0 decide on perturbed loads. `loads` and `counts` are
/// `[node_experts]`; `scratch` is overwritten.
pub fn replicate(
    params: &Params,
    key: u32,
    start: u32,
    loads: &[u32],
    counts: &mut Vec<u32>,
    scratch: &mut Vec<u32>,
) {
    let strength = rng::count_noise(params, start);
    scratch.clear();
    scratch.extend(loads.iter().zip(0..).map(|(&load, expert)| match strength {
        0 => load,
        _ => rng::perturbed(load, strength, rng::draw(key, rng::COUNTS + expert)),
    }));
    give_replicas(scratch, params.node_replicas, params.max_count, counts);
}

/// The rule itself; also the heaviest replica of a node is judged by it in stage 2.
pub fn give_replicas(loads: &[u32], replicas: u32, max_count: u32, counts: &mut Vec<u32>) {
    counts.clear();
    counts.resize(loads.len(), 1);
    if replicas as usize <= loads.len() {
        return;
    }
    let further = replicas as usize - loads.len();
    let mut heaviest = if max_count > 1 { heaviest(loads, further) } else { BinaryHeap::new() };
    for _ in 0..further {
        // Room is left: `max_count` is set so that all replicas fit.
        let Some(mut top) = heaviest.peek_mut() else { return };
        top.count += 1;
        counts[top.expert as usize] = top.count;
        if top.count == max_count {
            PeekMut::pop(top);
        }
    }
}

/// The experts that can get one of `further` replicas, each with one replica: no more than these, the heaviest, since
/// one of them without a further replica goes before any other expert.
fn heaviest(loads: &[u32], further: usize) -> BinaryHeap<ReplicaShare> {
    let mut keys: Vec<u64> = (0..).zip(loads).map(|(e, &load)| u64::from(!load) << 32 | e).collect();
    if further < keys.len() {
        keys.select_nth_unstable(further);
        keys.truncate(further);
    }
    keys.into_iter()
        .map(|key| ReplicaShare { load: !((key >> 32) as u32), count: 1, expert: key as u32 })
        .collect()
}

/// The load of a replica of an expert: `load / count`, compared exactly; of equals the lower expert is greater.
#[derive(PartialEq, Eq)]
struct ReplicaShare {
    load: u32,
    count: u32,
    expert: u32,
}

impl Ord for ReplicaShare {
    fn cmp(&self, other: &Self) -> Ordering {
        let cross = |a: &Self, b: &Self| u64::from(a.load) * u64::from(b.count);
        cross(self, other).cmp(&cross(other, self)).then(other.expert.cmp(&self.expert))
    }
}

impl PartialOrd for ReplicaShare {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
