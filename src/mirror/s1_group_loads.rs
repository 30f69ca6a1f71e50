//! Stage 1, the mirror of `shaders/s1_group_loads.wgsl`: the load of each group.

use crate::params::Params;

/// Sums the loads of each group of one layer, `[experts] -> [groups]`. Groups are runs of experts.
pub fn group_loads(params: &Params, loads: &[u32], out: &mut Vec<u32>) {
    out.clear();
    out.extend(loads.chunks_exact(params.group_size as usize).map(|group| group.iter().sum::<u32>()));
}
