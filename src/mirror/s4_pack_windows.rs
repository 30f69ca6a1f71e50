//! Stage 4 where there are several windows, the mirror of `shaders/s4_pack_windows.wgsl`.

use crate::mirror::s4_pack::{self, packing_order};
use crate::mirror::s5_refine_windows::{Candidate, Quad, sum};
use crate::mirror::{rng, s5_refine_windows as refine};
use crate::params::{FREE, Params};

/// Longest-processing-time packing as in stage 4, by the objective of several windows: each replica goes to the
/// GPU after which the sum over windows of the heaviest GPU (not below the window's floor) is least; ties to
/// the GPU with the least mean load, then the lower one.
///
/// `mean` is the loads that decided the counts, by which the replicas are ordered; `loads` has
/// `params.quads()` quads an expert. Reads `candidate.counts` and `floors`; writes its placement.
pub fn pack(
    params: &Params,
    key: u32,
    restart: u32,
    mean: &[u32],
    loads: &[Quad],
    candidate: &mut Candidate,
) {
    let noisy = params.packing_noise && restart > 0;
    let (gpus, slots, quads) =
        (params.node_gpus as usize, params.slots_per_gpu as usize, params.quads() as usize);
    let mut order = std::mem::take(&mut candidate.order);
    packing_order(params, mean, &candidate.counts, &mut order);
    candidate.clear(params);
    candidate.heaviest.clone_from(&candidate.floors);
    for (item, &packed) in (0..).zip(order.iter()) {
        let (replica, e) = s4_pack::item(packed);
        let word = rng::draw(key, rng::PACKING + item);
        let mut best: Option<(u32, u32, usize)> = None;
        for gpu in 0..gpus {
            if candidate.used[gpu] as usize == slots || (params.avoid_duplicates && candidate.last[gpu] == e)
            {
                continue;
            }
            let noise = if noisy { rng::place_noise(word, gpu as u32, replica) } else { 0 };
            let mut value = noise;
            for q in 0..quads {
                let load = refine::divided(loads[e as usize * quads + q], candidate.counts[e as usize]);
                let on = refine::plus(candidate.gpu_load[gpu * quads + q], load);
                value += sum(refine::larger(candidate.heaviest[q], on));
            }
            let choice = (value, candidate.mean[gpu] + noise, gpu);
            if best.is_none_or(|b| choice < b) {
                best = Some(choice);
            }
        }
        let (gpu, slot) = match best {
            Some((_, _, gpu)) => {
                candidate.used[gpu] += 1;
                (gpu, gpu * slots + candidate.used[gpu] as usize - 1)
            }
            None => make_room(params, mean, e, candidate),
        };
        candidate.put(params, loads, slot, e);
        candidate.mean[gpu] += replica;
        candidate.last[gpu] = e;
        for q in 0..quads {
            candidate.heaviest[q] =
                refine::larger(candidate.heaviest[q], candidate.gpu_load[gpu * quads + q]);
        }
    }
    candidate.order = order;
}

/// Frees a slot for expert `e` where every GPU without it is full, as in stage 4, by the mean loads.
fn make_room(params: &Params, mean: &[u32], e: u32, candidate: &mut Candidate) -> (usize, usize) {
    let slots = params.slots_per_gpu as usize;
    let lightest = |fits: &dyn Fn(usize) -> bool| {
        (0..params.node_gpus as usize)
            .filter(|&gpu| fits(gpu))
            .min_by_key(|&gpu| (candidate.mean[gpu], gpu))
            .unwrap_or(0)
    };
    let a = lightest(&|gpu| (candidate.used[gpu] as usize) < slots);
    let b = lightest(&|gpu| candidate.last[gpu] != e);
    let held = a * slots..a * slots + candidate.used[a] as usize;
    let lacking = |slot: &usize| !candidate.expert[held.clone()].contains(&candidate.expert[*slot]);
    let from = (b * slots..(b + 1) * slots).find(lacking).unwrap_or(b * slots);
    let to = held.end;
    if candidate.expert[from] != FREE {
        let moved = candidate.expert[from] as usize;
        let replica = mean[moved] / candidate.counts[moved];
        candidate.mean[a] += replica;
        candidate.mean[b] -= replica;
        candidate.exchange(params, from, to);
    }
    candidate.used[a] += 1;
    (b, from)
}
