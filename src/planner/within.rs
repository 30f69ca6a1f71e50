//! Plans within a time: layers that are not planned by then have the plan of the greedy rule.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use web_time::Instant;

#[cfg(feature = "gpu")]
use super::backend::Backend;
use super::{Planner, checked};
use crate::check;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::foreign;
use crate::loads::Loads;
use crate::options::PlanOptions;
use crate::params::Params;
use crate::plan::Plan;
use crate::presets::Preset;
use crate::watch::{Cancel, Watch};

/// Layers, and their plan.
type PlannedPart = (Vec<usize>, Result<Plan, Error>);

/// Layers that a device plans at once: more would be lost together at the end of the time.
#[cfg(feature = "gpu")]
const AT_ONCE: usize = 8;

/// How often a call that waits looks whether it was stopped.
const LOOK: Duration = Duration::from_millis(20);

impl Planner {
    /// [`Planner::plan`] that ends after `limit` and the short time of the greedy rule. Layers that are planned by then have
    /// their plan, the others that of DeepSeek's greedy rule ([`Preset::GREEDY`]).
    ///
    /// The layers in which that rule is furthest from even are planned first. Where all were planned in time the plan is
    /// that of [`Planner::plan`]. Else it depends on how fast the machine was: [`Plan::is_cut_short`] says so, and ranks that
    /// plan for themselves must not use it. The layers that are in work at the end of the time are worked on until they
    /// are done, on threads of their own, unseen.
    ///
    /// # Errors
    /// As for [`Planner::plan`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};
    /// let planner = Planner::new(DeviceChoice::Cpu)?;
    /// let (loads, cluster) = (Loads::from_counts(1, 4, &[90, 30, 20, 10])?, Cluster::new(6, 1, 1, 3)?);
    /// let plan = planner.plan_within(&loads, &cluster, &PlanOptions::default(), Duration::ZERO)?;
    /// assert!(plan.is_cut_short() && plan.warnings()[0].starts_with("time limit"));
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn plan_within(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &PlanOptions,
        limit: Duration,
    ) -> Result<Plan, Error> {
        let start = Instant::now();
        // Bad options are refused however short the time is.
        let params = Params::new(loads, cluster, options)?;
        foreign::check_one_window(&params, cluster, options)?;
        let attempt = self.watch.attempt(loads, cluster, options);
        attempt.go_on()?;
        let mut plan = self.greedy(loads, cluster, options)?;
        let cancel = Cancel::new();
        let parts = self.parts(&plan, options, &cancel)?;
        let slots = cluster.num_slots();
        let mut map = plan.physical_to_logical().to_vec();
        let mut done = 0;
        let deadline = start.checked_add(limit);
        let outcome = loop {
            let left = deadline.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() || done == loads.layers() {
                break Ok(());
            }
            match (attempt.go_on(), parts.recv_timeout(left.min(LOOK))) {
                (Err(error), _) | (_, Ok((_, Err(error)))) => break Err(error),
                (_, Ok((layers, Ok(part)))) => {
                    for ((&layer, row), stop) in
                        layers.iter().zip(part.physical_to_logical().chunks_exact(slots)).zip(part.stops())
                    {
                        map[layer * slots..(layer + 1) * slots].copy_from_slice(row);
                        plan.stops[layer] = *stop;
                        attempt.finish_as(layer, row.iter().copied());
                    }
                    (plan.device, plan.backend) = (part.device.clone(), part.backend.clone());
                    plan.warnings.extend(part.warnings);
                    done += layers.len();
                }
                (_, Err(RecvTimeoutError::Timeout)) => {}
                (_, Err(RecvTimeoutError::Disconnected)) => {
                    let reason = "the threads of the plan died".to_string();
                    break Err(Error::Device { device: self.inner.info.label(), reason });
                }
            }
        };
        cancel.cancel();
        outcome?;
        plan.placement = checked(loads, cluster, options, map)?;
        plan.warnings.dedup();
        plan.is_cut_short = done < loads.layers();
        if plan.is_cut_short {
            plan.warnings.insert(0, cut_short(limit, done, loads.layers()));
        }
        plan.options = options.clone();
        plan.quality = OnceLock::new();
        plan.elapsed = start.elapsed();
        Ok(plan)
    }

    /// The greedy rule's plan, by the CPU backend, under what the options forbid; where there are several windows, of their
    /// mean.
    fn greedy(&self, loads: &Loads, cluster: &Cluster, options: &PlanOptions) -> Result<Plan, Error> {
        let mean = match loads.windows().len() {
            1 => loads.clone(),
            _ => Loads::from_f64(loads.layers(), loads.experts(), loads.values())?,
        };
        Ok(Plan {
            loads: loads.clone(),
            ..self.on_cpu().plan(&mean, cluster, &Preset::greedy_under(options))?
        })
    }

    /// Plans parts of the layers on threads of their own until it is stopped, those first in which `greedy` is furthest from
    /// even.
    fn parts(
        &self,
        greedy: &Plan,
        options: &PlanOptions,
        cancel: &Cancel,
    ) -> Result<mpsc::Receiver<PlannedPart>, Error> {
        let layers = check::score(&greedy.loads, &greedy.cluster, greedy.physical_to_logical())?.layers;
        let excess = layers.iter().map(|layer| layer.max_gpu_load - layer.mean_gpu_load);
        let excess: Vec<f64> = excess.collect();
        let mut order: Vec<usize> = (0..excess.len()).collect();
        order.sort_by(|&a, &b| excess[b].total_cmp(&excess[a]).then(a.cmp(&b)));
        let (workers, at_once) = match &self.inner.backend {
            #[cfg(feature = "gpu")]
            Backend::Device(_) => (1, AT_ONCE),
            _ => (self.on_threads(rayon::current_num_threads), 1),
        };
        let parts: Arc<[Vec<usize>]> = order.chunks(at_once).map(<[usize]>::to_vec).collect();
        let next = Arc::new(AtomicUsize::new(0));
        let (send, receive) = mpsc::channel();
        for _ in 0..workers.min(parts.len()) {
            let watch = Watch { cancel: Some(cancel.clone()), progress: None };
            // Each has a pool of its own: the caller may be on the only thread of its pool.
            let planner = Planner { watch, ..self.clone() }.with_threads(1)?;
            let (parts, next, send, cancel) = (parts.clone(), next.clone(), send.clone(), cancel.clone());
            let (loads, cluster, options) = (greedy.loads.clone(), greedy.cluster.clone(), options.clone());
            let work = move || {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let planned = planner.plan(&loads.select_layers(part), &cluster, &options);
                    if cancel.is_cancelled() || send.send((part.clone(), planned)).is_err() {
                        break;
                    }
                }
            };
            // Where no thread starts, the receiver finds that there is no sender.
            let _ = std::thread::Builder::new().name("eplb-plan".into()).spawn(work);
        }
        Ok(receive)
    }
}

/// The warning about a plan that time cut short.
fn cut_short(limit: Duration, done: usize, layers: usize) -> String {
    let came_to = match done {
        0 => format!("none of the {layers} layers was planned by then, and all have the greedy plan"),
        _ => format!("{done} of {layers} layers were planned by then, and the others have the greedy plan"),
    };
    let limit = limit.as_secs_f64();
    format!("time limit of {limit} s: {came_to}; not reproducible: another run may give another plan")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceChoice, Duplicates};

    /// 5 layers too large for the exact search, and their cluster.
    fn call() -> (Loads, Cluster) {
        let counts: Vec<u64> = (0..5 * 32).map(|i| (i * 7919) % 101 + 1).collect();
        (Loads::from_counts(5, 32, &counts).unwrap(), Cluster::new(40, 1, 1, 8).unwrap())
    }

    #[test]
    fn enough_time_gives_the_whole_plan_and_none_the_greedy_one() {
        let planner = Planner::new(DeviceChoice::Cpu).unwrap().with_threads(2).unwrap();
        let (one, cluster) = call();
        let values: Vec<f64> =
            one.values().iter().enumerate().map(|(i, v)| v + (i % 3) as f64 / 4.0).collect();
        let other = Loads::from_f64(5, 32, &values).unwrap();
        let both = Loads::from_windows(&[one.clone(), other.clone()], &[1.0, 2.0]).unwrap();
        let options = Preset::FAST.options();
        for loads in [one, other, both] {
            let within = |limit| planner.plan_within(&loads, &cluster, &options, limit).unwrap();
            let whole = planner.plan(&loads, &cluster, &options).unwrap();
            let ample = within(Duration::MAX);
            assert_eq!((ample.fingerprint(), ample.stops()), (whole.fingerprint(), whole.stops()));
            assert_eq!(ample.warnings(), [] as [String; 0]);
            let none = within(Duration::ZERO);
            let greedy = PlanOptions { duplicates: Duplicates::Avoid, ..Preset::GREEDY.options() };
            let mean = Loads::from_f64(5, 32, loads.values()).unwrap();
            let greedy = planner.plan(&mean, &cluster, &greedy).unwrap();
            assert_eq!(none.fingerprint(), greedy.fingerprint());
            assert!(none.warnings()[0].contains("none of the 5 layers was planned"), "{:?}", none.warnings());
            assert!(none.warnings()[0].contains("not reproducible"), "{:?}", none.warnings());
        }
    }

    #[test]
    fn the_time_holds_where_a_layer_takes_longer() {
        let counts: Vec<u64> = (0..256).map(|i| (i * i * 7919) % 10_007 + 1).collect();
        let loads = Loads::from_counts(1, 256, &counts).unwrap();
        // With three slots a GPU the search does not come to the bound: half a second for the layer.
        let cluster = Cluster::new(432, 1, 1, 144).unwrap();
        let long = PlanOptions { starts: 1 << 16, iterations: 1 << 20, ..Preset::THOROUGH.options() };
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let start = Instant::now();
        let plan = planner.plan_within(&loads, &cluster, &long, Duration::from_millis(5)).unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(plan.warnings().len(), 1);
    }

    #[test]
    fn it_tells_of_every_layer_refuses_what_plan_refuses_and_can_be_stopped() {
        let (loads, cluster) = call();
        let told = Arc::new(AtomicUsize::new(0));
        let heard = told.clone();
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let watched = planner.clone().with_progress(move |p| heard.store(p.layers_done, Ordering::Relaxed));
        watched.plan_within(&loads, &cluster, &Preset::FAST.options(), Duration::MAX).unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 5);
        let bad = PlanOptions { starts: 0, ..PlanOptions::default() };
        let error = planner.plan_within(&loads, &cluster, &bad, Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "starts 0 is not between 1 and 65536");
        let cancel = Cancel::new();
        cancel.cancel();
        let stopped = planner.with_cancel(&cancel);
        let stopped = stopped.plan_within(&loads, &cluster, &PlanOptions::default(), Duration::MAX);
        assert_eq!(stopped.err(), Some(Error::Cancelled));
    }
}
