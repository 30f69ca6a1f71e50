//! Layers without load, as a model's dense layers are recorded: all their plans are as good, so none is searched.
//!
//! They all get the plan that one layer of even loads has, so that no expert is favoured, by the first start of its search.

use super::Planner;
use crate::check::Dispatch;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::options::PlanOptions;
use crate::plan::{Plan, Stop};

impl Planner {
    /// The plan of loads of which some layers have none: these have `of_even_loads`, the others are planned.
    pub(super) async fn plan_loaded(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        let loaded: Vec<usize> = (0..loads.layers()).filter(|&layer| loads.has_load(layer)).collect();
        let mut plan = self.of_even_loads(loads, cluster, options).await?;
        let even = plan.physical_to_logical().to_vec();
        let mut map = even.repeat(loads.layers());
        let mut stops = vec![Stop::Optimal; loads.layers()];
        (plan.device, plan.backend) = (self.inner.info.name.clone(), self.inner.info.backend.clone());
        if !loaded.is_empty() {
            let planner = Self { watch: self.watch.after(loads.layers() - loaded.len()), ..self.clone() };
            let made = Box::pin(planner.plan_here(&loads.select_layers(&loaded), cluster, options)).await?;
            let rows = made.physical_to_logical().chunks_exact(cluster.num_slots());
            for ((&layer, row), stop) in loaded.iter().zip(rows).zip(made.stops()) {
                map[layer * row.len()..(layer + 1) * row.len()].copy_from_slice(row);
                stops[layer] = *stop;
            }
            plan = made;
        }
        plan.placement = super::checked(loads, cluster, options, map)?;
        plan.cluster = cluster.clone();
        (plan.loads, plan.stops) = (loads.clone(), stops);
        (plan.options, plan.threads) = (options.clone(), self.threads.clone());
        Ok(plan)
    }

    /// The plan of one layer of even loads, by the host.
    async fn of_even_loads(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        let even = Loads::from_counts(1, loads.experts(), &vec![1; loads.experts()])?;
        // Speeds and dispatch do not matter where there is no load.
        let cluster = cluster.clone().with_gpu_speeds(&vec![1.0; cluster.num_gpus()])?;
        let (assignments, dispatch) = (Some(1), Dispatch::Equal);
        let first = PlanOptions { starts: 1, assignments, three_gpus: 0, dispatch, ..options.clone() };
        Box::pin(self.on_cpu().plan_here(&even, &cluster, &first)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::{DeviceChoice, Progress};

    fn loads(layers: &[u64]) -> Loads {
        let counts: Vec<u64> =
            layers.iter().flat_map(|&factor| (0..32).map(move |i| factor * ((i * 7919) % 101 + 1))).collect();
        Loads::from_counts(layers.len(), 32, &counts).unwrap()
    }

    #[test]
    fn layers_without_load_share_a_plan_and_change_no_other() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let watched = planner.clone().with_progress(move |progress: Progress| {
            heard.lock().unwrap().push((progress.layers_done, progress.layers));
        });
        let (cluster, options) = (Cluster::new(40, 1, 1, 10).unwrap(), PlanOptions::default());
        let plan = watched.plan(&loads(&[0, 1, 0, 3]), &cluster, &options).unwrap();
        let told = told.lock().unwrap().clone();
        assert_eq!(told, [(3, 4), (4, 4)]);
        let rows: Vec<&[i32]> = plan.physical_to_logical().chunks_exact(40).collect();
        assert_eq!(rows[0], rows[2]);
        let alone = planner.plan(&loads(&[1, 3]), &cluster, &options).unwrap();
        assert_eq!([rows[1], rows[3]].concat(), alone.physical_to_logical());
        assert_eq!((plan.stops()[0], plan.stops()[3]), (Stop::Optimal, alone.stops()[1]));
        let none = planner.plan(&loads(&[0]), &cluster, &options).unwrap();
        assert_eq!(none.physical_to_logical(), rows[0]);
        // No expert is favoured, though none has load, and whatever the GPUs are.
        assert_eq!(none.max_replicas(), 2);
        let uneven = cluster.clone().with_gpu_speeds(&[[1.0; 5], [0.5; 5]].concat()).unwrap();
        let uneven = planner.plan(&loads(&[0, 1]), &uneven, &options).unwrap();
        assert_eq!(uneven.physical_to_logical()[..40], *rows[0]);
        assert_eq!(uneven.cluster().gpu_speeds()[9], 0.5);
    }
}
