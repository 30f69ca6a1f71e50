//! The progress of a call while it runs, and how to stop it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use web_time::Instant;

use crate::bound::{self, BoundOptions};
use crate::check::{self, LayerQuality};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::loads::Loads;
use crate::options::PlanOptions;

/// Stops calls of the planners that were given it ([`crate::Planner::with_cancel`]); clones stop the same ones.
///
/// A call that is stopped ends with [`Error::Cancelled`] once the layers in work are done, or on a device once what was
/// submitted last is. A handle stays as it is until [`Cancel::reset`]: later calls of the same planners end at once.
///
/// ```
/// use eplb_wgpu::{Cancel, Cluster, DeviceChoice, Error, Loads, PlanOptions, Planner};
/// let cancel = Cancel::new();
/// let planner = Planner::new(DeviceChoice::Cpu)?.with_cancel(&cancel);
/// let (loads, cluster) = (Loads::from_counts(1, 2, &[3, 1])?, Cluster::new(4, 1, 1, 2)?);
/// assert!(planner.plan(&loads, &cluster, &PlanOptions::default()).is_ok());
/// cancel.cancel(); // from any thread
/// assert_eq!(planner.plan(&loads, &cluster, &PlanOptions::default()).err(), Some(Error::Cancelled));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A handle that stops nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the calls.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Lets later calls run again; for after the stopped ones have ended.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the calls were stopped.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a call is, as [`crate::Planner::with_progress`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Layers that are planned.
    pub layers_done: usize,
    /// Layers of the call.
    pub layers: usize,
    /// [`crate::check::Quality::mean_gap`] of the layers that are planned, in millionths, but for those of the first half second
    /// of a call. It is that of the search: what is done to the plan after it can lower it, and in
    /// [`crate::Planner::replan`] a limit on the moves of all layers together, which are shared out once all layers are
    /// searched, can raise it. `None` while no such layer has load.
    pub mean_gap_ppm: Option<u32>,
}

/// It is told of a call's progress.
type Listener = Arc<dyn Fn(Progress) + Send + Sync>;

/// A planner's handles.
#[derive(Clone, Default)]
pub struct Watch {
    pub cancel: Option<Cancel>,
    pub progress: Option<Listener>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("cancel", &self.cancel)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

/// One attempt of a call, as its threads share it.
#[derive(Debug)]
pub struct Attempt<'a> {
    watch: &'a Watch,
    loads: &'a Loads,
    cluster: &'a Cluster,
    bound: BoundOptions,
    start: Instant,
    done: Mutex<Done>,
}

/// From this time of a call on it tells the gap of the layers that end: a bound can take longer than the plan, and of a
/// shorter call nobody sees it. Tests do not wait.
const GAP_AFTER: Duration = Duration::from_millis(if cfg!(test) { 0 } else { 500 });

/// The progress of an attempt.
#[derive(Debug, Default)]
struct Done {
    layers: usize,
    /// The sum of the gaps that are known, and how many they are.
    gaps: (f64, usize),
}

impl Watch {
    /// An attempt to plan all layers of `loads`.
    pub fn attempt<'a>(
        &'a self,
        loads: &'a Loads,
        cluster: &'a Cluster,
        options: &PlanOptions,
    ) -> Attempt<'a> {
        let max_replicas_per_expert = options.max_replicas_per_expert;
        let bound = BoundOptions { max_replicas_per_expert, ..BoundOptions::default() };
        Attempt { watch: self, loads, cluster, bound, start: Instant::now(), done: Mutex::default() }
    }

    /// # Errors
    /// [`Error::Cancelled`] where the call was stopped.
    pub fn go_on(&self) -> Result<(), Error> {
        match &self.cancel {
            Some(cancel) if cancel.is_cancelled() => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    /// The watch of a call that plans the other layers of one, after this many were planned.
    pub fn after(&self, planned: usize) -> Self {
        let progress = self.progress.clone().map(|tell| -> Listener {
            Arc::new(move |p: Progress| {
                let (layers_done, layers) = (p.layers_done + planned, p.layers + planned);
                tell(Progress { layers_done, layers, ..p });
            })
        });
        Self { cancel: self.cancel.clone(), progress }
    }
}

impl Attempt<'_> {
    /// # Errors
    /// [`Error::Cancelled`] where the call was stopped.
    pub fn go_on(&self) -> Result<(), Error> {
        self.watch.go_on()
    }

    /// Tells that layers are planned: those from `first` on, with the expert of each of their slots, -1 where it is free.
    pub fn finish_as(&self, first: usize, map: impl Iterator<Item = i32>) {
        if let Some(tell) = &self.watch.progress {
            let map: Vec<i32> = map.collect();
            let layers: Vec<usize> = (first..first + map.len() / self.cluster.num_slots()).collect();
            if self.start.elapsed() < GAP_AFTER {
                return self.tell(tell, layers.len(), &[]);
            }
            let loads = self.loads.select_layers(&layers);
            // Before the lock: these use rayon's threads, and one that waits here could be given a layer that ends here.
            let quality = check::score(&loads, self.cluster, &map);
            let bounds = bound::lower_bounds_with(&loads, self.cluster, &self.bound);
            let quality = quality.map(|quality| quality.with_bounds(&bounds).layers).unwrap_or_default();
            let gaps: Vec<f64> = quality.iter().filter_map(LayerQuality::gap).collect();
            self.tell(tell, layers.len(), &gaps);
        }
    }

    /// Listeners are told by one thread at a time, in order.
    fn tell(&self, listener: &Listener, layers: usize, gaps: &[f64]) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.layers += layers;
        done.gaps = (done.gaps.0 + gaps.iter().sum::<f64>(), done.gaps.1 + gaps.len());
        let (sum, known) = done.gaps;
        // A float that is too large becomes the largest number.
        let mean_gap_ppm = (known > 0).then(|| (sum / known as f64 * 1e6).round() as u32);
        listener(Progress { layers_done: done.layers, layers: self.loads.layers(), mean_gap_ppm });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cluster, DeviceChoice, Loads, PlanOptions, Planner, Preset};

    /// 6 layers too large for the exact search, and their cluster.
    fn call() -> (Loads, Cluster) {
        let counts: Vec<u64> = (0..6 * 32).map(|i| (i * 7919) % 101 + 1).collect();
        (Loads::from_counts(6, 32, &counts).unwrap(), Cluster::new(40, 1, 1, 8).unwrap())
    }

    #[test]
    fn the_gap_that_is_told_last_is_that_of_the_plan() {
        let (loads, cluster) = call();
        for (preset, limit) in [(Preset::GREEDY, None), (Preset::FAST, None), (Preset::FAST, Some(()))] {
            let last = Arc::new(Mutex::new(None));
            let heard = last.clone();
            let planner = Planner::new(DeviceChoice::Cpu).unwrap();
            let planner = planner.with_progress(move |told| *heard.lock().unwrap() = told.mean_gap_ppm);
            let plan = match limit {
                None => planner.plan(&loads, &cluster, &preset.options()).unwrap(),
                Some(()) => planner
                    .plan_within(&loads, &cluster, &preset.options(), std::time::Duration::MAX)
                    .unwrap(),
            };
            let gap = (plan.quality().mean_gap() * 1e6).round() as u32;
            assert_eq!(*last.lock().unwrap(), Some(gap), "{preset}");
            assert!(gap > 0, "{preset}");
        }
    }

    #[test]
    fn a_replan_tells_the_gap_too() {
        let (loads, cluster) = call();
        let options = Preset::FAST.options();
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let counts: Vec<u64> = (0..6 * 32).map(|i| (i * 6661) % 97 + 1).collect();
        let running = planner.plan(&Loads::from_counts(6, 32, &counts).unwrap(), &cluster, &options).unwrap();
        let last = Arc::new(Mutex::new(None));
        let heard = last.clone();
        let planner = planner.with_progress(move |told| *heard.lock().unwrap() = told.mean_gap_ppm);
        for per_layer in [None, Some(crate::MaxMoves::Slots(2))] {
            let limits = crate::MoveLimits { max_moves_per_layer: per_layer, ..Default::default() };
            let replan = planner.replan(&loads, &cluster, running.placement(), &options, &limits).unwrap();
            let gap = (replan.plan().quality().mean_gap() * 1e6).round() as u32;
            assert_eq!(*last.lock().unwrap(), Some(gap), "{per_layer:?}");
            assert!(gap > 0);
        }
    }

    /// The calls that a listener of a planner heard.
    fn heard(planner: &Planner, call: impl FnOnce(&Planner)) -> Vec<(usize, usize)> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = heard.clone();
        let planner = planner
            .clone()
            .with_progress(move |progress| log.lock().unwrap().push((progress.layers_done, progress.layers)));
        call(&planner);
        heard.lock().unwrap().clone()
    }

    #[test]
    fn every_layer_is_told_once_in_order() {
        let planner = Planner::new(DeviceChoice::Cpu).unwrap();
        let (loads, cluster) = call();
        let small =
            (Loads::from_counts(3, 2, &[3, 1, 2, 2, 1, 3]).unwrap(), Cluster::new(4, 1, 1, 2).unwrap());
        for ((loads, cluster), layers) in [((loads, cluster), 6), (small, 3)] {
            let told = heard(&planner, |planner| {
                planner.plan(&loads, &cluster, &PlanOptions::default()).unwrap();
            });
            assert_eq!(told, (1..=layers).map(|done| (done, layers)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_call_ends_between_two_layers_and_the_planner_stays_usable() {
        let (loads, cluster) = call();
        let options = Preset::FAST.options();
        let planner = Planner::new(DeviceChoice::Cpu).unwrap().with_threads(1).unwrap();
        let cancel = Cancel::new();
        let (handle, done) = (cancel.clone(), Arc::new(Mutex::new(0)));
        let log = done.clone();
        let watched = planner.clone().with_cancel(&cancel).with_progress(move |progress| {
            *log.lock().unwrap() = progress.layers_done;
            if progress.layers_done == 2 {
                handle.cancel();
            }
        });
        assert_eq!(watched.plan(&loads, &cluster, &options).err(), Some(Error::Cancelled));
        assert_eq!(*done.lock().unwrap(), 2);
        assert!(cancel.is_cancelled());
        let plan = planner.plan(&loads, &cluster, &options).unwrap();
        let again = watched.clone().with_cancel(&Cancel::new()).plan(&loads, &cluster, &options);
        assert_eq!(again.unwrap().fingerprint(), plan.fingerprint());
    }

    #[test]
    fn a_replan_can_be_stopped() {
        let (loads, cluster) = call();
        let options = Preset::FAST.options();
        let cancel = Cancel::new();
        let planner = Planner::new(DeviceChoice::Cpu).unwrap().with_cancel(&cancel);
        let plan = planner.plan(&loads, &cluster, &options).unwrap();
        cancel.cancel();
        let limits = crate::MoveLimits::default();
        let replan = planner.replan(&loads, &cluster, plan.placement(), &options, &limits);
        assert_eq!(replan.err(), Some(Error::Cancelled));
    }
}
