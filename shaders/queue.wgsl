// The queue between dispatches: which candidates still run. A dispatch over the queue has as many workgroups
// as `tally` wrote for it, so candidates that are done cost nothing.

// Five grids (x, y, z). Of each queued candidate the first has `spread` lanes; the second a workgroup; the third a lane for
// each block of experts; the fourth one for each expert that may have several replicas; the fifth one for each block of these.
@group(1) @binding(0) var<storage, read_write> grids: array<u32>;

@compute @workgroup_size(1)
fn open() {
    atomicStore(&queue[0], 0u);
    atomicStore(&queue[1], 0u);
}

// Sizes the grids for the list of this turn, and empties the other.
@compute @workgroup_size(1)
fn tally() {
    take_params();
    let count = queued();
    write_grid(0u, count * params.spread);
    write_grid(3u, count * LANES);
    write_grid(6u, count * expert_blocks(params.node_experts));
    write_grid(9u, count * most_replicated());
    write_grid(12u, count * replicated_blocks());
    atomicStore(&queue[1u - params.turn], 0u);
}

fn write_grid(at: u32, lanes: u32) {
    let workgroups = (lanes + LANES - 1u) / LANES;
    let x = min(workgroups, 65535u);
    grids[at] = x;
    grids[at + 1u] = select((workgroups + x - 1u) / max(x, 1u), 0u, x == 0u);
    grids[at + 2u] = 1u;
}
