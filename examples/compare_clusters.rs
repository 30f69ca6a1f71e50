//! How much are more replicas worth? One skewed model, three sizes of redundancy.

use eplb_wgpu::{Cluster, DeviceChoice, Error, Loads, PlanOptions, Planner, Preset};

fn main() -> Result<(), Error> {
    let (layers, experts) = (4, 64);
    let counts: Vec<u64> = (0..layers * experts).map(|i| 1_000_000 / (1 + (i as u64 * 37) % 64)).collect();
    let loads = Loads::from_counts(layers, experts, &counts)?;
    let planner = Planner::new(DeviceChoice::Cpu)?;
    println!("replicas  greedy   this plan");
    for replicas in [64, 80, 96] {
        let cluster = Cluster::new(replicas, 1, 1, 16)?;
        let greedy = planner.plan(&loads, &cluster, &Preset::GREEDY.options())?;
        let plan = planner.plan(&loads, &cluster, &PlanOptions::default())?;
        let (greedy, plan) = (greedy.quality().balancedness(), plan.quality().balancedness());
        println!("{replicas:8}  {greedy:.4}   {plan:.4}");
    }
    Ok(())
}
