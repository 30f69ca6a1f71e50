//! Plans a small skewed layer and prints where the replicas went.

use eplb_wgpu::{Cluster, DeviceChoice, Error, Loads, PlanOptions, Planner};

fn main() -> Result<(), Error> {
    let loads = Loads::from_counts(1, 8, &[600, 560, 120, 120, 20, 10, 10, 10])?;
    let cluster = Cluster::new(16, 1, 1, 8)?;
    let planner = Planner::new(DeviceChoice::Auto)?;
    let plan = planner.plan(&loads, &cluster, &PlanOptions::default())?;
    println!("on {}:", planner.device().label());
    for (gpu, slots) in plan.physical_to_logical().chunks(cluster.slots_per_gpu()).enumerate() {
        println!("GPU {gpu}: experts {slots:?}");
    }
    println!("replicas of each expert: {:?}", plan.replica_counts());
    let layer = &plan.quality().layers[0];
    println!(
        "busiest GPU {:.1}, mean {:.1}, bound {:.1}",
        layer.max_gpu_load, layer.mean_gpu_load, layer.lower_bound
    );
    Ok(())
}
