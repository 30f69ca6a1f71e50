//! The shapes that sections share, and their loads.

use eplb_wgpu::trace::{Family, Generate, Window};
use eplb_wgpu::{Cluster, Error, Loads, Policy};

use crate::greedy::Shape;

/// `experts, replicas, groups, nodes, gpus`.
pub const fn shape(experts: usize, replicas: usize, groups: usize, nodes: usize, gpus: usize) -> Shape {
    Shape { experts, replicas, groups, nodes, gpus }
}

/// DeepSeek-V3's layers that have experts.
pub const V3_LAYERS: usize = 58;
/// DeepSeek-V3 on 4 nodes: 9 slots a GPU.
pub const V3: Shape = shape(256, 288, 8, 4, 32);
/// On 2 nodes: 18 slots a GPU.
pub const V3_TWO_NODES: Shape = shape(256, 288, 8, 2, 16);
/// DeepSeek-V3 without nodes: 9 slots a GPU.
pub const V3_GLOBAL: Shape = v3_on(32);

/// DeepSeek-V3 without nodes: 288 replicas.
pub const fn v3_on(gpus: usize) -> Shape {
    shape(256, 288, 1, 1, gpus)
}

/// Qwen3-235B: 94 layers, 5 slots a GPU.
pub const QWEN3: Shape = shape(128, 160, 1, 1, 32);
/// Kimi-K2: 61 layers, 7 slots a GPU.
pub const KIMI_K2: Shape = shape(384, 448, 1, 1, 64);
/// 48 layers, 9 slots a GPU.
pub const E512: Shape = shape(512, 576, 1, 1, 64);
/// Kimi-K3: 93 layers, 15 slots a GPU.
pub const KIMI_K3: Shape = shape(896, 960, 1, 1, 64);
/// 64 layers, 9 slots a GPU.
pub const E1024: Shape = shape(1024, 1152, 1, 1, 128);

pub fn cluster(shape: Shape) -> Result<Cluster, Error> {
    Cluster::new(shape.replicas, shape.groups, shape.nodes, shape.gpus)
}

pub fn name(shape: Shape) -> String {
    let Shape { replicas, groups, nodes, gpus, .. } = shape;
    match cluster(shape).map(|cluster| cluster.policy()) {
        Ok(Policy::Hierarchical) => {
            format!("{replicas} replicas, {groups} groups, {nodes} nodes, {gpus} GPUs")
        }
        _ => format!("{replicas} replicas, global, {gpus} GPUs"),
    }
}

/// Loads of a family, one window.
pub fn drawn(family: Family, layers: usize, experts: usize, seed: u64) -> Result<Loads, Error> {
    Generate { family, layers, experts, seed, ..Generate::default() }.history()?.loads(Window::Sum)
}

/// About as uneven as DeepSeek-V3's measured loads.
pub fn generated(layers: usize, experts: usize) -> Result<Loads, Error> {
    drawn(Family::Lognormal(0.6), layers, experts, 0)
}
