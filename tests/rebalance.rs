//! Plans for several windows, plans from a previous plan, and replays: on generated loads, by the public API.

#[path = "rebalance/replans.rs"]
mod replans;
#[path = "rebalance/serving.rs"]
mod serving;
#[path = "rebalance/windows.rs"]
mod windows;

use eplb_wgpu::trace::{Family, Generate, Window};
use eplb_wgpu::{Cluster, DeviceChoice, Loads, Planner, check};

fn planner() -> Planner {
    Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always there")
}

/// `windows` windows of drifting loads.
fn drifting(windows: usize, layers: usize, experts: usize, drift: f64, seed: u64) -> Vec<Loads> {
    let family = Family::Lognormal(1.0);
    let trace = Generate { family, windows, layers, experts, drift, seed, ..Generate::default() };
    let trace = trace.history().expect("the sizes are valid");
    (0..windows).map(|w| trace.loads(Window::Index(w)).expect("the window is there")).collect()
}

/// The objective of several windows, layer by layer, from the loads as given: the weighted mean of the heaviest
/// GPU's share.
fn objective(loads: &Loads, cluster: &Cluster, map: &[i32]) -> Vec<f64> {
    let mut sums = vec![0.0; loads.layers()];
    for (window, weight) in loads.windows().zip(loads.window_weights()) {
        let quality = check::score(window, cluster, map).expect("the plan is valid");
        for (sum, layer) in sums.iter_mut().zip(&quality.layers) {
            let total = layer.mean_gpu_load * cluster.num_gpus() as f64;
            *sum += if total > 0.0 { weight * layer.max_gpu_load / total } else { 0.0 };
        }
    }
    sums
}
