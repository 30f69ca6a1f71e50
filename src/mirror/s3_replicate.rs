//! Stage 3, the mirror of `shaders/s3_replicate.wgsl`: how many replicas each expert of a node gets.

use crate::mirror::rng;
use crate::params::Params;

/// Gives each expert one replica, then each further replica to the expert with the highest load per replica
/// (ties to the lower index) among those below `params.max_count`: Adams' divisor method, DeepSeek's rule.
///
/// Restarts whose noise strength is not 0 decide on perturbed loads. `loads` and `counts` are
/// `[node_experts]`; `scratch` is overwritten.
pub fn replicate(
    params: &Params,
    key: u32,
    restart: u32,
    loads: &[u32],
    counts: &mut Vec<u32>,
    scratch: &mut Vec<u32>,
) {
    let strength = rng::count_noise(params, restart);
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
    for _ in loads.len() as u32..replicas {
        let mut best: Option<usize> = None;
        for e in 0..loads.len() {
            let room = counts[e] < max_count;
            if room && best.is_none_or(|b| heavier(loads[e], counts[e], loads[b], counts[b])) {
                best = Some(e);
            }
        }
        // Room is left: `max_count` is set so that all replicas fit.
        let Some(best) = best else { return };
        counts[best] += 1;
    }
}

/// Whether `load_a / count_a > load_b / count_b`, exactly.
fn heavier(load_a: u32, count_a: u32, load_b: u32, count_b: u32) -> bool {
    u64::from(load_a) * u64::from(count_b) > u64::from(load_b) * u64::from(count_a)
}
