//! The yardstick of the benchmarks does what DeepSeek's rule does: as good as the preset `gen00` on every layer,
//! with replica counts as even.
#![cfg(feature = "cli")]

#[path = "../benches/plans/greedy.rs"]
mod greedy;

use approx::relative_eq;
use eplb_wgpu::trace::{Family, Generate, Window};
use eplb_wgpu::{Cluster, DeviceChoice, Planner, Preset, check};
use greedy::{Shape, rebalance};

const SHAPES: [Shape; 6] = [
    Shape { experts: 256, replicas: 288, groups: 8, nodes: 4, gpus: 32 },
    Shape { experts: 256, replicas: 288, groups: 8, nodes: 2, gpus: 16 },
    Shape { experts: 256, replicas: 288, groups: 8, nodes: 3, gpus: 72 },
    Shape { experts: 128, replicas: 160, groups: 1, nodes: 1, gpus: 32 },
    Shape { experts: 64, replicas: 72, groups: 1, nodes: 1, gpus: 72 },
    Shape { experts: 8, replicas: 8, groups: 1, nodes: 1, gpus: 4 },
];

#[test]
fn greedy_is_as_good_as_gen00_on_every_layer() {
    let families = [Family::Lognormal(1.0), Family::Zipf(1.0), Family::HotGroup, Family::HotExperts];
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let options = Preset::GREEDY.options();
    for shape in SHAPES {
        for family in families {
            let generate = Generate { family, layers: 6, experts: shape.experts, ..Generate::default() };
            let loads = generate.history().unwrap().loads(Window::Sum).unwrap();
            let cluster = Cluster::new(shape.replicas, shape.groups, shape.nodes, shape.gpus).unwrap();
            let plan = planner.plan(&loads, &cluster, &options).unwrap();
            let maps = rebalance(loads.values(), shape);
            let slots: Vec<i32> = maps.physical_to_logical.iter().map(|&e| e as i32).collect();
            let (experts, replicas) = (shape.experts, shape.replicas);
            let (lists, counts) = (&maps.logical_to_physical, &maps.replica_counts);
            check::check_maps(experts, replicas, &slots, lists, counts).unwrap();
            let greedy = check::score(&loads, &cluster, &slots).unwrap();
            for (layer, (own, gen00)) in greedy.layers.iter().zip(&plan.quality().layers).enumerate() {
                let same = |a: f64, b: f64| relative_eq!(a, b, max_relative = 1e-6);
                let context = format!("{shape:?} {family:?} layer {layer}: {own:?} {gen00:?}");
                assert!(same(own.max_gpu_load, gen00.max_gpu_load), "{context}");
                assert!(same(own.max_replica_load, gen00.max_replica_load), "{context}");
            }
        }
    }
}
