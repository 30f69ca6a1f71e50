//! GPUs of unequal speed: loads and squares as they count on each.

use super::TrailSearch;
use crate::mirror::abreast::refill;
use crate::params::{Params, over_speed};
use crate::replan::objective::pulled;

#[derive(Default)]
pub struct SpeedScratch {
    /// The factor of each GPU's speed, `[lane]`, where these are unequal; else empty.
    pub factors: Vec<u32>,
    /// How often the squares of each GPU count, `[lane]`; else empty. See [`Params::pulls`].
    pub pulls: Vec<i32>,
    /// Load of each slot's replica as it is, `[slot][window][lane]`.
    pub plain: Vec<i32>,
}

impl SpeedScratch {
    /// Whether all GPUs are equally fast.
    #[inline(always)]
    pub fn are_equal(&self) -> bool {
        self.factors.is_empty()
    }

    /// A load as it counts on a GPU.
    #[inline(always)]
    pub fn on_gpu(&self, load: i32, lane: usize) -> i32 {
        match self.are_equal() {
            true => load,
            false => over_speed(load as u32, self.factors[lane]) as i32,
        }
    }

    /// A square as it counts on a GPU.
    #[inline(always)]
    pub fn pulled(&self, square: i32, lane: usize) -> i32 {
        match self.are_equal() {
            true => square,
            false => pulled(square, self.pulls[lane]),
        }
    }
}

impl TrailSearch {
    /// Takes over the speeds of GPUs, where they are unequal.
    #[inline(always)]
    pub(super) fn place_speeds(&mut self, params: &Params) {
        self.speeds.factors.clear();
        self.speeds.pulls.clear();
        if !params.has_speeds() {
            return;
        }
        self.speeds.factors.resize(self.lanes, 0);
        self.speeds.pulls.resize(self.lanes, 0);
        refill(&mut self.speeds.plain, self.slots * self.windows * self.lanes, 0);
        for (gpu, (&factor, pull)) in params.factors.gpus.iter().zip(params.pulls()).enumerate() {
            let lane = self.lane(gpu);
            (self.speeds.factors[lane], self.speeds.pulls[lane]) = (factor, pull);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TrailMove, TrailMoveKind, TrailSearch, TrailTask};
    use crate::params::{Factors, Params};
    use crate::replan::mend::mend;
    use crate::replan::objective::LayerObjective;
    use crate::{Cluster, Loads, PlanOptions, Preset};

    const NONE: TrailMove = TrailMove { value: i32::MAX, kind: TrailMoveKind::None };

    /// Two nodes of four GPUs with three slots each, two windows of drawn loads, and a row that is valid.
    struct Case {
        params: Params,
        objective: LayerObjective,
        row: Vec<u32>,
    }

    impl Case {
        fn task(&self) -> TrailTask<'_> {
            let Self { params, objective, row } = self;
            TrailTask { params, objective, previous: row, start: row, patience: 8, most_foreign: 0 }
        }

        fn new(seed: u32, speeds: &[f64]) -> Self {
            Self::drawn(seed, speeds, false)
        }

        fn drawn(seed: u32, speeds: &[f64], connected: bool) -> Self {
            let draw = |at: u32| crate::mirror::rng::draw(seed, at);
            let window = |window: u32| {
                let counts: Vec<u64> =
                    (0..16).map(|e| u64::from(1 + draw(100 * window + e) % 1000)).collect();
                Loads::from_counts(1, 16, &counts).unwrap()
            };
            let loads = Loads::from_windows(&[window(0), window(1)], &[1.0, 2.0]).unwrap();
            let cluster = Cluster::new(24, 4, 2, 8).unwrap().with_gpu_speeds(speeds).unwrap();
            let options = PlanOptions { seed: 1, connected, ..Preset::SCENARIOS.options() };
            let params = Params::new(&loads, &cluster, &options).unwrap();
            let rows: Vec<&[u32]> = loads.fixed_windows().chunks(16).collect();
            let objective = LayerObjective::new(&params, &rows, 100_000);
            let any: Vec<u32> = (0..24).map(|slot| draw(1000 + slot) % 16).collect();
            let row = mend(&params, &[1; 16], &any);
            Self { params, objective, row }
        }

        fn place(&self, search: &mut TrailSearch) -> i32 {
            search.place(self.task());
            search.look()
        }

        /// The value after a move from the start.
        fn after(&self, kind: TrailMoveKind) -> i32 {
            let mut search = TrailSearch::default();
            self.place(&mut search);
            search.make(&self.objective, 1, 1, kind, &mut Vec::new());
            search.look() + search.price_now(&self.objective)
        }

        /// All exchanges of a GPU with others of its node that leave no expert twice on one.
        fn exchanges(&self, a: usize) -> Vec<TrailMoveKind> {
            let mut search = TrailSearch::default();
            self.place(&mut search);
            let low = a / search.node_lanes * search.node_lanes;
            let mut all = Vec::new();
            for g in (low..low + search.node_gpus).filter(|&g| g != a) {
                for (i, j) in (0..9).map(|pair| (pair / 3, pair % 3)) {
                    let held = |slot: usize, lane: usize| search.expert[slot * search.lanes + lane] as usize;
                    let (e, f) = (held(i, a), held(j, g));
                    if !search.has(&search.held, e, g) && !search.has(&search.held, f, a) {
                        all.push(TrailMoveKind::Exchange { gpus: [a, g], slots: [i, j] });
                    }
                }
            }
            all
        }
    }

    const LANES: [usize; 8] = [0, 1, 2, 3, 8, 9, 10, 11];

    #[test]
    fn what_moves_are_said_to_come_to_they_come_to() {
        let (mut sheds, mut exact) = (0, 0);
        for seed in 0..40 {
            let case = Case::new(seed, &[1.0, 0.5, 0.7, 1.0, 0.1, 1.0, 0.9, 0.5]);
            for a in LANES {
                let mut search = TrailSearch::default();
                case.place(&mut search);
                let found = search.best_exchange::<true>(&case.objective, 1, 1, a);
                let best = case.exchanges(a).into_iter().map(|kind| case.after(kind)).min();
                assert_eq!(best.unwrap_or(i32::MAX), found.value, "case {seed}, lane {a}");
                if found.kind != TrailMoveKind::None {
                    assert_eq!(case.after(found.kind), found.value, "case {seed}, lane {a}");
                }
                let found = search.best_transfer::<true>(&case.objective, 1, a, NONE);
                if found.kind != TrailMoveKind::None {
                    assert_eq!(case.after(found.kind), found.value, "case {seed}, lane {a}");
                }
                let found = search.best_shed(&case.objective, 1, a, NONE);
                if found.kind != TrailMoveKind::None {
                    let value = case.after(found.kind);
                    assert!(value <= found.value, "case {seed}, lane {a}: {value}, told {}", found.value);
                    sheds += 1;
                    exact += usize::from(value == found.value);
                }
            }
        }
        assert!(sheds > 150 && exact > sheds / 2, "{exact} of {sheds}");
    }

    #[test]
    fn moves_pay_for_the_parts_that_they_make() {
        let (mut exchanges, mut transfers) = (0, 0);
        for seed in 0..40 {
            let case = Case::drawn(seed, &[1.0; 8], true);
            for a in LANES {
                let mut search = TrailSearch::default();
                case.place(&mut search);
                let before = search.links.cost();
                let exchange = search.best_exchange::<false>(&case.objective, 1, 1, a);
                let transfer = search.best_transfer::<false>(&case.objective, 1, a, NONE);
                for (found, changed) in [(exchange, &mut exchanges), (transfer, &mut transfers)] {
                    if found.kind == TrailMoveKind::None {
                        continue;
                    }
                    case.place(&mut search);
                    search.make(&case.objective, 1, 1, found.kind, &mut Vec::new());
                    search.count_parts();
                    let value = search.look() + search.price_now(&case.objective);
                    assert_eq!(found.value, value - before, "case {seed}, lane {a}: {:?}", found.kind);
                    *changed += usize::from(search.links.cost() != before);
                }
            }
        }
        assert!(exchanges > 20 && transfers > 10, "{exchanges} exchanges, {transfers} transfers");
    }

    #[test]
    fn factors_of_one_give_the_moves_of_equal_gpus() {
        for seed in 0..40 {
            let plain = Case::new(seed, &[1.0; 8]);
            let factors = Factors { gpus: vec![1 << 31; 8], nodes: vec![1 << 29; 2], all: 1 << 28 };
            let params = Params { factors, ..plain.params.clone() };
            let rows = [0, 1].map(|window| -> Vec<u32> {
                plain.objective.weight.iter().skip(window).step_by(2).take(16).map(|&l| l as u32).collect()
            });
            let objective = LayerObjective::new(&params, &[&rows[0], &rows[1]], 100_000);
            assert_eq!((objective.mean, objective.price), (plain.objective.mean, plain.objective.price));
            let factored = Case { params, objective, row: plain.row.clone() };
            let (mut one, mut other) = (TrailSearch::default(), TrailSearch::default());
            assert_eq!(plain.place(&mut one), factored.place(&mut other));
            assert_eq!((&one.floors, &one.squares), (&other.floors, &other.squares));
            for a in LANES {
                let exchange = one.best_exchange::<false>(&plain.objective, 1, 1, a);
                assert_eq!(exchange, other.best_exchange::<true>(&factored.objective, 1, 1, a));
                let transfer = one.best_transfer::<false>(&plain.objective, 1, a, NONE);
                assert_eq!(transfer, other.best_transfer::<true>(&factored.objective, 1, a, NONE));
            }
        }
    }

    #[test]
    fn states_of_a_search_are_told_as_they_are() {
        let mut longest = 0;
        for seed in 0..40 {
            let case = Case::new(seed, &[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3, 1.0]);
            let row = &case.row;
            let trail = case.task().run(&mut TrailSearch::default());
            for (at, state) in trail.states.iter().enumerate() {
                let start = trail.row(row, at);
                let mut search = TrailSearch::default();
                search.place(TrailTask { start: &start, ..case.task() });
                let value = search.look();
                // Floors are those of the start, and rounded.
                assert!((state.value - value).abs() <= 64, "case {seed}: {} for {value}", state.value);
            }
            longest = longest.max(trail.states.len());
        }
        assert!(longest >= 4, "{longest} states");
    }

    /// Where a search ends in a very large layer, on a device and here.
    #[test]
    fn work_is_counted_as_the_shader_counts_it() {
        let work = |speeds: &[f64]| -> u32 {
            let work = |seed| {
                let mut search = TrailSearch::default();
                Case::new(seed, speeds).task().run(&mut search);
                search.work
            };
            (0..10).map(work).sum()
        };
        // Equal GPUs, and unequal ones, which shed too.
        let found = (work(&[1.0; 8]), work(&[0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.3, 1.0]));
        assert_eq!(found, (46_208, 48_528));
    }
}
