//! Plans from a plan that runs.

use std::sync::OnceLock;

use web_time::Instant;

#[cfg(feature = "gpu")]
use super::gpu;
use super::{Fallback, Planner, checked};
use crate::bound::BoundEffort;
use crate::check::Dispatch;
use crate::choice::DeviceInfo;
use crate::cluster::Cluster;
#[cfg(feature = "gpu")]
use crate::engine::gpu::Gpu;
use crate::error::Error;
use crate::foreign;
use crate::loads::Loads;
use crate::moves::{self, MoveLimits, Moves};
use crate::options::{Descent, PlanOptions, Search};
use crate::params::{FREE, Params, to_map};
use crate::plan::{Plan, Stop};
use crate::previous::PreviousMap;
#[cfg(feature = "gpu")]
use crate::replan::search::TrailTask;
use crate::replan::{self, Follow};
use crate::watch::Attempt;

impl Planner {
    /// Plans from `previous`, the map that runs: the search starts there, and each moved slot must be worth its
    /// transfer. It minimises, for each window of `loads`, the heaviest GPU plus the sum of the squares of what GPUs
    /// carry above the mean. By this objective no layer becomes worse than in the map that runs, once that is made valid.
    /// Nor does the sum over windows of its heaviest GPU, unless the plan is to be connected ([`PlanOptions::connected`]).
    ///
    /// With one window, a layer of up to eight GPUs is judged by its heaviest GPU alone. Where moves cost nothing
    /// ([`MoveLimits::min_gain_ppm`]), it is at least as good as the best single exchange or transfer makes it. (Not with foreign
    /// replicas, nor where copies are spread over nodes.)
    ///
    /// With [`PlanOptions::max_foreign`] groups keep their homes, every expert a replica there, and a layer at most that many
    /// foreign replicas; another choice of them is weighed against the one that runs. Under the global policy with several nodes, an
    /// expert that is in as many nodes as it has replicas for stays so.
    ///
    /// `previous` may be any map of these layers and experts: of more or fewer slots or GPUs, with experts twice on a
    /// GPU, without a replica, or with groups across nodes. Replicas that can stay do. Those that must
    /// move to make the map valid move whatever the limits say, and are counted apart ([`Moves::repairs`]). [`Replan::lost`]
    /// names the experts that no GPU holds.
    ///
    /// Where GPUs are of unequal speed ([`Cluster::with_gpu_speeds`]), all loads are over the speed of their GPU. GPUs at speed 0
    /// are gone: moves are counted on the GPUs that remain, and a limit that is a part of all slots counts theirs alone.
    ///
    /// The plan depends on loads, cluster, previous map, options and limits alone. A device follows the search of each layer; the
    /// CPU backend does in a browser, where GPUs are of unequal speed, where they are to be connected
    /// ([`PlanOptions::connected`]), and on a software driver where a node has hundreds of GPUs.
    ///
    /// # Errors
    /// [`Error::Invalid`] where loads, cluster and options break a rule together, or `previous` is of other layers or
    /// experts; [`Error::InvalidPlan`] where it holds what is no expert; [`Error::Cancelled`] where the call was stopped.
    ///
    /// ```
    /// use eplb_wgpu::{Cluster, DeviceChoice, Loads, MoveLimits, PlanOptions, Planner};
    /// let planner = Planner::new(DeviceChoice::Cpu)?;
    /// let (cluster, options) = (Cluster::new(6, 1, 1, 3)?, PlanOptions::default());
    /// let running = planner.plan(&Loads::from_counts(1, 4, &[90, 30, 20, 10])?, &cluster, &options)?;
    /// let now = Loads::from_counts(1, 4, &[85, 35, 20, 10])?;
    /// let replan = planner.replan(&now, &cluster, running.placement(), &options, &MoveLimits::default())?;
    /// assert!(replan.moves().received <= 6);
    /// # Ok::<(), eplb_wgpu::Error>(())
    /// ```
    pub fn replan(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        previous: impl Into<PreviousMap>,
        options: &PlanOptions,
        limits: &MoveLimits,
    ) -> Result<Replan, Error> {
        let start = Instant::now();
        let previous = previous.into();
        if !cluster.gone_gpus().is_empty() {
            return self.replan_rest(loads, cluster, &previous, options, limits);
        }
        let params = Params::new(loads, cluster, options)?;
        foreign::check(&params, cluster, options)?;
        previous.check(loads)?;
        let rows = previous.rows(cluster);
        let attempt = || self.watch.attempt(loads, cluster, options);
        attempt().go_on()?;
        let windows = loads.fixed_windows();
        let node_gpus = cluster.num_gpus() / cluster.num_nodes();
        let Followed { made: chosen, by: device, mut warnings } =
            self.follow(&params, attempt, |follow, attempt| {
                let limits = (limits, node_gpus);
                let paths = replan::paths(&params, windows, &rows, limits, attempt, follow)?;
                Ok(replan::choose(&params, &paths, &rows, limits.0))
            })?;
        let heavier = replan::heavier(&params, windows, &rows, &chosen);
        warnings.extend(heavier_than_before(&heavier, loads));
        warnings.extend(dispatch_not_weighed(cluster, options));
        let slots: Vec<u32> = chosen.iter().flat_map(|layer| &layer.row).copied().collect();
        let placement = checked(loads, cluster, options, to_map(&slots).collect())?;
        let moves = Moves {
            changed_slots: slots.iter().zip(&rows).filter(|(new, old)| new != old).count(),
            received: chosen.iter().map(|layer| layer.moved).sum(),
            repairs: chosen.iter().map(|layer| layer.repairs).sum(),
            slots: slots.len(),
        };
        let plan = Plan {
            placement,
            loads: loads.clone(),
            cluster: cluster.clone(),
            options: options.clone(),
            stops: vec![Stop::PreviousPlan; loads.layers()],
            threads: self.threads.clone(),
            device: device.name,
            backend: device.backend,
            elapsed: start.elapsed(),
            warnings,
            is_cut_short: false,
            effort: BoundEffort::default(),
            quality: OnceLock::new(),
        };
        let olds = rows.chunks_exact(cluster.num_slots());
        let layers = chosen.iter().zip(olds).map(|(layer, old)| LayerMoves {
            received: layer.moved,
            repairs: layer.repairs,
            rounds: moves::transfers(cluster.slots_per_gpu(), node_gpus, old, &layer.row).0,
            gain: layer.gain(),
        });
        let layers = layers.collect();
        let lost = lost(&rows, loads.experts(), cluster.num_slots());
        Ok(Replan { plan, moves, layers, lost })
    }

    /// [`Planner::replan`] where some GPUs of the cluster are gone: by those that remain.
    fn replan_rest(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        previous: &PreviousMap,
        options: &PlanOptions,
        limits: &MoveLimits,
    ) -> Result<Replan, Error> {
        previous.check(loads)?;
        let (rest, gone) = (cluster.of_remaining()?, cluster.gone_gpus());
        let on_all = PreviousMap::new(cluster.num_slots(), previous.map_on(cluster))?;
        let on_rest = on_all.with_slots_per_gpu(cluster.slots_per_gpu())?.without_gpus(&gone)?;
        let replan = self.replan(loads, &rest, on_rest, options, limits)?;
        Ok(Replan { plan: replan.plan.with_gone_gpus(cluster, &gone)?, ..replan })
    }

    /// [`Planner::plan`] by the objective of [`Planner::replan`]: the first plan of a loop.
    pub(crate) fn plan_over_time(
        &self,
        loads: &Loads,
        cluster: &Cluster,
        options: &PlanOptions,
    ) -> Result<Plan, Error> {
        let gone = cluster.gone_gpus();
        if !gone.is_empty() {
            return self
                .plan_over_time(loads, &cluster.of_remaining()?, options)?
                .with_gone_gpus(cluster, &gone);
        }
        let params = Params::new(loads, cluster, options)?;
        foreign::check(&params, cluster, options)?;
        // Which node holds what is chosen for all windows together.
        let chooses_nodes = params.most_foreign > 0 || params.spread_nodes > 1;
        let mut plan = if chooses_nodes {
            self.plan(&loads.as_one_window(), cluster, options)?
        } else if params.trajectory && params.windows == 1 && !params.has_speeds() {
            self.plan(loads, cluster, &roughly_even(options))?
        } else {
            self.plan(loads, cluster, options)?
        };
        (plan.loads, plan.options) = (loads.clone(), options.clone());
        if !params.trajectory {
            return Ok(plan);
        }
        let start = Instant::now();
        let rows = PreviousMap::from(plan.placement()).rows(cluster);
        let attempt = || self.watch.attempt(loads, cluster, options);
        let polish = |follow: Option<&Follow<'_>>, attempt: &Attempt<'_>| {
            replan::polish(&params, loads.fixed_windows(), &rows, attempt, follow)
        };
        let Followed { made: rows, warnings, .. } = self.follow(&params, attempt, polish)?;
        plan.warnings.extend(warnings);
        let placement = checked(loads, cluster, options, to_map(&rows).collect())?;
        let slots = cluster.num_slots();
        let pairs =
            placement.physical_to_logical().chunks(slots).zip(plan.physical_to_logical().chunks(slots));
        // Why a search ended holds for the placement that it ended with.
        let stop = |((new, old), &stop): ((&[i32], &[i32]), &Stop)| {
            if new == old { stop } else { Stop::NoMoveLeft }
        };
        plan.stops = pairs.zip(&plan.stops).map(stop).collect();
        plan.placement = placement;
        plan.quality = OnceLock::new();
        plan.elapsed += start.elapsed();
        Ok(plan)
    }
}

/// Options of the first plan of a loop that knows one window: the counts of the greedy rule, and swaps of the heaviest and the
/// lightest GPU alone. A plan that fits one window more closely serves the next ones worse, and a loop moves too few slots to mend
/// that. (Generated series of the benches, 5 % moved a step: balancedness is .0016 higher on the mean than with the search of
/// `options`, and higher in 12 of 16 series.)
fn roughly_even(options: &PlanOptions) -> PlanOptions {
    let swaps = Descent { heaviest: 1, lightest: 1, ..Descent::SWAPS };
    PlanOptions { search: Search::Descent(swaps), starts: 1, ..options.clone() }
}

/// The result of a call, and the device that followed its trajectories.
struct Followed<T> {
    made: T,
    by: DeviceInfo,
    warnings: Vec<String>,
}

impl Planner {
    /// Does some work on the planner's threads. The device follows its trajectories where that can, else the host does.
    fn follow<'a, T: Send>(
        &'a self,
        params: &Params,
        attempt: impl Fn() -> Attempt<'a>,
        work: impl Fn(Option<&Follow<'_>>, &Attempt<'_>) -> Result<T, Error> + Send + Sync,
    ) -> Result<Followed<T>, Error> {
        let mut warnings = Vec::new();
        match self.follow_on_device(params, &attempt, &work) {
            Ok(Some(made)) => return Ok(Followed { made, by: self.inner.info.clone(), warnings }),
            Err(error @ Error::Device { .. }) if self.fallback == Fallback::Cpu => {
                warnings.push(format!("{error}; the CPU backend made the plan"));
            }
            Err(error) => return Err(error),
            Ok(None) => {}
        }
        let attempt = attempt();
        let made = self.on_threads(|| work(None, &attempt))?;
        Ok(Followed { made, by: DeviceInfo::cpu(), warnings })
    }

    /// [`Planner::follow`] with a device; `None` where there is none for it.
    #[cfg(feature = "gpu")]
    fn follow_on_device<'a, T: Send>(
        &'a self,
        params: &Params,
        attempt: &impl Fn() -> Attempt<'a>,
        work: &(impl Fn(Option<&Follow<'_>>, &Attempt<'_>) -> Result<T, Error> + Send + Sync),
    ) -> Result<Option<T>, Error> {
        // Shaders know of no speeds.
        if params.has_speeds() {
            return Ok(None);
        }
        let Some(keeper) = self.keeper()? else { return Ok(None) };
        if !gpu::replan::follows(&*crate::edge::now(keeper.lend())?, params) {
            return Ok(None);
        }
        let attempt = attempt();
        let follow = |tasks: &[TrailTask<'_>]| {
            let follow = async |gpu: &Gpu| gpu::replan::follow(gpu, params, tasks, &attempt).await;
            crate::edge::now(keeper.with(follow))
        };
        self.on_threads(|| work(Some(&follow), &attempt)).map(Some)
    }

    /// There is none.
    #[cfg(not(feature = "gpu"))]
    fn follow_on_device<'a, T>(
        &'a self,
        _: &Params,
        _: &impl Fn() -> Attempt<'a>,
        _: &impl Fn(Option<&Follow<'_>>, &Attempt<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        Ok(None)
    }
}

/// The warning about layers that become heavier than they were.
fn heavier_than_before(layers: &[usize], loads: &Loads) -> Option<String> {
    let first = loads.layer_ids()[*layers.first()?];
    let which = match layers.len() {
        1 => format!("layer {first} has"),
        more => format!("{more} layers, {first} the first, have"),
    };
    Some(format!(
        "{which} a heavier GPU than in the previous map, which could not stay as it is: an expert twice on a GPU (duplicates \
         can be allowed), a group or a replica outside its node, or slots that are new or gone"
    ))
}

/// The warning about a dispatch other than the equal one, where it would judge a plan made anew.
fn dispatch_not_weighed(cluster: &Cluster, options: &PlanOptions) -> Option<String> {
    let name = options.dispatch.name();
    (cluster.weighs_dispatch() && options.dispatch != Dispatch::Equal).then(|| {
        format!(
            "dispatch {name} is not weighed in a plan from one that runs: copies stay as spread over nodes as they are, and what \
             moves goes by equal shares"
        )
    })
}

/// Layer and expert of each expert that a map does not hold.
fn lost(rows: &[u32], experts: usize, slots: usize) -> Vec<(usize, usize)> {
    let mut lost = Vec::new();
    for (layer, row) in rows.chunks_exact(slots).enumerate() {
        let mut held = vec![false; experts];
        row.iter().filter(|&&e| e != FREE).for_each(|&e| held[e as usize] = true);
        lost.extend((0..experts).filter(|&e| !held[e]).map(|e| (layer, e)));
    }
    lost
}

/// A plan made from a previous one, and what it moves.
#[derive(Clone, Debug)]
pub struct Replan {
    plan: Plan,
    moves: Moves,
    layers: Vec<LayerMoves>,
    lost: Vec<(usize, usize)>,
}

/// The moves of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerMoves {
    /// Slots whose GPU receives a new expert.
    pub received: usize,
    /// Those of them that had to, since the previous map was not valid.
    pub repairs: usize,
    /// The rounds of a greedy schedule of these moves, in which a GPU deals with one other a round, as in vLLM's batched
    /// migration.
    pub rounds: usize,
    /// By which part the objective falls: 0.1 is a tenth less than with the previous map, repaired. It may be negative
    /// where a later state undoes a repair.
    pub gain: f64,
}

impl From<Plan> for Replan {
    /// A plan with nothing before it.
    fn from(plan: Plan) -> Self {
        let moves = Moves { slots: plan.physical_to_logical().len(), ..Moves::default() };
        Self { plan, moves, layers: Vec::new(), lost: Vec::new() }
    }
}

impl Replan {
    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Asks for another bound of the plan, see [`Plan::set_bound`].
    pub fn set_bound(&mut self, effort: BoundEffort) {
        self.plan.set_bound(effort);
    }

    /// Its moves, all layers together.
    #[must_use]
    pub fn moves(&self) -> &Moves {
        &self.moves
    }

    /// Layer by layer; empty where there was no previous plan.
    #[must_use]
    pub fn layers(&self) -> &[LayerMoves] {
        &self.layers
    }

    /// Layer and expert of each expert that no GPU held: its weights must come from disk.
    #[must_use]
    pub fn lost(&self) -> &[(usize, usize)] {
        &self.lost
    }

    /// The layers that move, in the order to move them: repairs first, then by falling gain for a moved slot, ties to the
    /// lower.
    #[must_use]
    pub fn layers_to_move(&self) -> Vec<usize> {
        let worth = |layer: usize| self.layers[layer].gain / self.layers[layer].received.max(1) as f64;
        let mends = |layer: usize| self.layers[layer].repairs > 0;
        let mut order: Vec<usize> = (0..self.layers.len()).filter(|&l| self.layers[l].received > 0).collect();
        order.sort_by(|&a, &b| mends(b).cmp(&mends(a)).then(worth(b).total_cmp(&worth(a))).then(a.cmp(&b)));
        order
    }
}
