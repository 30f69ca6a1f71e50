//! The choice of foreign replicas on a device.

use crate::engine::buffers::{Part, Work};
use crate::engine::gpu::Gpu;
use crate::engine::recording::Recording;
use crate::error::Error;
use crate::foreign::layer::NodeShares;
use crate::foreign::{ForeignLayer, GroupSets};
use crate::layout::ForeignLayout;
use crate::params::Params;
use crate::stages::foreign as stages;
use crate::watch::Attempt;

/// Whether a device chooses for these layers: not where assignments are too many to look at each, or no expert may have a foreign
/// replica, nor on a software driver where layers are too large for its loops.
pub fn chooses(gpu: &Gpu, params: &Params, sets: &GroupSets, layers: &[&ForeignLayer<'_>]) -> bool {
    let each = layers.iter().all(|layer| {
        let one = ForeignLayout::new(params, sets, &[layer]);
        let fits = !gpu.is_software() || stages::fits(&one.layout.base);
        fits && one.parts.most_of_expert > 0 && one.layout.largest_words() <= gpu.max_buffer_words()
    });
    each && !sets.assignments.is_empty() && !layers.is_empty()
}

/// Shares out the replicas of layers, all at once or as many as the device's memory allows: as [`ForeignLayer::share_out`].
///
/// # Errors
/// [`Error::Device`] where the device fails, [`Error::Cancelled`] where the call was stopped.
pub async fn share_out(
    gpu: &Gpu,
    params: &Params,
    sets: &GroupSets,
    layers: &[&ForeignLayer<'_>],
    attempt: &Attempt<'_>,
) -> Result<Vec<Option<NodeShares>>, Error> {
    let mut found = Vec::with_capacity(layers.len());
    let all = ForeignLayout::new(params, sets, layers).layout;
    let words = all.groups_words.max(all.results_words).max(all.arena_words(all.base.candidates));
    let at_once = layers.len() as u64 * gpu.max_buffer_words().min(gpu.arena_words()) / words.max(1);
    for layers in layers.chunks(at_once.max(1) as usize) {
        let foreign = ForeignLayout::new(params, sets, layers);
        let mut recording = Recording::default();
        let limits = layers.iter().map(|layer| (layer.floor, layer.before));
        stages::record(&mut recording, &foreign.layout.base, limits);
        let (layout, problem) = (&foreign.layout, foreign.problem(sets, layers));
        let work = Work {
            recording: &recording,
            layout,
            problem: &problem,
            arena_words: layout.arena_words(layout.base.candidates),
            part: Part::Results { begin: 0, words: layout.results_words },
        };
        let words = gpu.run_while(&|| attempt.go_on(), &work).await?;
        let choices = words.chunks_exact(foreign.parts.choice_words as usize);
        found.extend(choices.map(|words| foreign.node_shares(words)));
    }
    Ok(found)
}
