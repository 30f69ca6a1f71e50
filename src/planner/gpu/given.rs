//! Given replicas on the GPUs of nodes, on a device: each node is a layer of a call whose counts are given.

use super::plan_layers;
use crate::engine::gpu::Gpu;
use crate::error::Error;
use crate::given::{GivenNode, Placed};
use crate::layout::Layout;
use crate::params::{Params, enumerate_assignments};
use crate::planner::planned::Planned;
use crate::watch::Attempt;

/// [`crate::given::place`] on a device, in as many calls as its largest buffer asks for; `None` where nodes are not for it: where
/// GPUs hold an expert twice, or one node is too large for a buffer.
///
/// # Errors
/// [`Error::Device`] where the device fails, [`Error::Cancelled`] where the call was stopped.
pub async fn place(
    gpu: &Gpu,
    params: &Params,
    gpus: u32,
    nodes: &[GivenNode],
    attempt: &Attempt<'_>,
) -> Result<Option<Vec<Placed>>, Error> {
    let each = || nodes.iter().map(|node| node.params(params, gpus));
    let avoids = each().all(|params| params.avoid_duplicates);
    let most = each().map(|params| params.experts).max();
    let Some(experts) = most.filter(|_| avoids) else { return Ok(None) };
    let params = params.of_given(gpus, experts, true);
    let table = enumerate_assignments(params.groups, params.nodes);
    let layout =
        |layers: usize| Layout::new(&Params { layers: layers as u32, ..params.clone() }, table.len() as u32);
    let mut at_once = nodes.len();
    while layout(at_once).largest_words() > gpu.max_buffer_words() {
        if at_once == 1 {
            return Ok(None);
        }
        at_once = at_once.div_ceil(2);
    }
    let mut placed = Vec::with_capacity(nodes.len());
    for nodes in nodes.chunks(at_once) {
        let (layout, params) = (layout(nodes.len()), Params { layers: nodes.len() as u32, ..params.clone() });
        let problem = layout.given_problem(nodes, &table);
        let mut planned = Planned { slots: Vec::new(), ends: Vec::new() };
        plan_layers(gpu, &params, (&layout, &problem), &mut planned, attempt).await?;
        let rows = planned.slots.chunks_exact(params.node_slots as usize);
        placed.extend(nodes.iter().zip(rows).map(|(node, row)| node.placed(row)));
    }
    Ok(Some(placed))
}
