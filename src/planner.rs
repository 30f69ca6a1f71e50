//! The planner: loads and a cluster in, a checked plan out.

pub(crate) mod cpu;

use std::sync::OnceLock;
use std::time::Instant;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::mirror::s5_refine::End;
use crate::options::PlanOptions;
use crate::params::{FREE, Params};
use crate::plan::{Placement, Plan, Stop};

/// Makes plans; made once and used often, from many threads.
pub struct Planner {}

impl Planner {
    /// A planner on the CPU.
    pub fn new() -> Self {
        Self {}
    }
    /// Plans.
    pub fn plan(&self, loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Result<Plan, Error> {
        let start = Instant::now();
        let params = Params::new(loads, cluster, options)?;
        let planned = cpu::plan(&params, loads.fixed());
        let slots = planned.slots.iter().map(|&e| if e == FREE { -1 } else { e as i32 }).collect();
        let placement = Placement::new(loads.experts(), cluster.num_slots(), slots)?;
        let stops = planned
            .ends
            .iter()
            .map(|e| match e {
                End::Reached => Stop::BoundReached,
                End::Stuck => Stop::NoMoveLeft,
                End::Spent => Stop::BudgetSpent,
            })
            .collect();
        Ok(Plan {
            placement,
            loads: loads.clone(),
            cluster: cluster.clone(),
            options: options.clone(),
            stops,
            device: "CPU backend".into(),
            backend: "cpu".into(),
            elapsed: start.elapsed(),
            warnings: vec![],
            quality: OnceLock::new(),
        })
    }
}
