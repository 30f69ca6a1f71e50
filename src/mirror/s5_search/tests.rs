//! Moves of the trajectory on small random placements, against all moves of their kind weighed from scratch.

use super::*;
use crate::cases::Random;
use crate::{Cluster, Duplicates, Loads, PlanOptions};

/// The iteration that is looked at.
const NOW: u32 = 10;
const KEY: u32 = 7;

/// A random valid placement of one node, of some windows, with some slots and experts that must not move.
struct Small {
    params: Params,
    /// `[experts][windows]`.
    loads: Vec<u32>,
    floors: Vec<u32>,
    /// GPU after GPU.
    placed: Vec<u32>,
    search: NodeSearch,
    /// The objective, and the GPU that moves.
    value: i32,
    a: usize,
}

fn now(params: &Params, value: i32, heavy: usize) -> Now<'_> {
    Now { params, key: KEY, start: 0, iteration: NOW, since: 0, value, heavy }
}

impl Small {
    fn new(seed: u64, slots: usize, windows: usize, duplicates: Duplicates, with_tabus: bool) -> Self {
        let mut random = Random(seed);
        let gpus = 2 + random.below(4);
        let experts = slots + 1 + random.below(gpus * slots - slots);
        let replicas = (experts + random.below(gpus * slots)).min(gpus * slots - random.below(2));
        let experts = experts.min(replicas);
        let rows: Vec<Loads> = (0..windows)
            .map(|_| {
                let counts: Vec<u64> = (0..experts).map(|_| 1 + random.next() % 1000).collect();
                Loads::from_counts(1, experts, &counts).unwrap()
            })
            .collect();
        let all = Loads::from_windows(&rows, &vec![1.0; windows]).unwrap();
        let cluster = Cluster::with_slots_per_gpu(replicas, 1, 1, gpus, slots).unwrap();
        let options = PlanOptions { duplicates, ..PlanOptions::default() };
        let params = Params::new(&all, &cluster, &options).unwrap();
        let rows: Vec<&[u32]> = all.fixed_windows().chunks_exact(experts).collect();
        let loads: Vec<u32> = (0..experts).flat_map(|e| rows.iter().map(move |row| row[e])).collect();
        let floors = (0..windows).map(|_| if windows > 1 { (random.next() % (1 << 22)) as u32 } else { 0 });
        let floors = floors.collect();
        let placed = placement(&mut random, &params);
        let mut small = Self { params, loads, floors, placed, search: NodeSearch::default(), value: 0, a: 0 };
        let candidate = small.candidate();
        let Self { params, loads, floors, search, .. } = &mut small;
        search.place(params, loads, floors, &candidate);
        for tabu in [&mut search.tabu, &mut search.no_gain, &mut search.no_loss] {
            let until = |random: &mut Random| if random.below(4) == 0 { NOW + 1 } else { NOW };
            tabu.iter_mut().for_each(|tabu| *tabu = if with_tabus { until(&mut random) } else { 0 });
        }
        small.value = small.search.look();
        small.a = small.search.heavy();
        small
    }

    fn candidate(&self) -> Candidate {
        Candidate { expert: self.placed.clone(), counts: self.counts(&self.placed), ..Candidate::default() }
    }

    fn slots(&self) -> usize {
        self.params.slots_per_gpu as usize
    }

    fn gpus(&self) -> usize {
        self.params.node_gpus as usize
    }

    fn windows(&self) -> usize {
        self.floors.len()
    }

    fn counts(&self, placed: &[u32]) -> Vec<u32> {
        let count = |e: u32| placed.iter().filter(|&&other| other == e).count() as u32;
        (0..self.params.node_experts).map(count).collect()
    }

    /// Load of a replica of an expert with this many of them.
    fn share(&self, expert: u32, count: u32, window: usize) -> i32 {
        (self.loads[expert as usize * self.windows() + window] / count) as i32
    }

    /// Loads of a placement's GPUs in a window.
    fn gpu_loads(&self, placed: &[u32], window: usize) -> Vec<i32> {
        let counts = self.counts(placed);
        let load = |&e: &u32| if e == FREE { 0 } else { self.share(e, counts[e as usize], window) };
        placed.chunks(self.slots()).map(|gpu| gpu.iter().map(load).sum()).collect()
    }

    /// The objective of a placement; with one window that of two GPUs.
    fn value_of(&self, placed: &[u32], a: usize, b: usize) -> i32 {
        let heaviest = |window: usize| {
            let loads = self.gpu_loads(placed, window);
            let all = loads.iter().max().copied().unwrap();
            if self.windows() == 1 { loads[a].max(loads[b]) } else { all.max(self.floors[window] as i32) }
        };
        (0..self.windows()).map(heaviest).sum()
    }

    fn held(&self, gpu: usize) -> &[u32] {
        &self.placed[gpu * self.slots()..(gpu + 1) * self.slots()]
    }

    fn may_move(&self, gpu: usize, slot: usize) -> bool {
        self.search.tabu[slot * self.search.lanes + gpu] <= NOW
    }

    /// Whether slot `i` of the proposing GPU may go to another for its slot `j`. A free slot goes to a GPU that has none.
    fn may_exchange(&self, gpu: usize, i: usize, j: usize) -> bool {
        let (given, taken) = (self.held(self.a)[i], self.held(gpu)[j]);
        let avoid = self.params.avoid_duplicates;
        let meets = |expert: u32, gpu: usize| expert != FREE && avoid && self.held(gpu).contains(&expert);
        let frees = given == FREE && self.held(gpu).contains(&FREE);
        self.may_move(self.a, i)
            && self.may_move(gpu, j)
            && !(frees || meets(given, gpu) || meets(taken, self.a))
    }

    /// The placement after exchanges of the proposing GPU with another.
    fn exchanged(&self, gpu: usize, slots: &[(usize, usize)]) -> Vec<u32> {
        let mut placed = self.placed.clone();
        slots.iter().for_each(|&(i, j)| placed.swap(self.a * self.slots() + i, gpu * self.slots() + j));
        placed
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let a = self.a;
        (0..self.gpus()).filter(move |&gpu| gpu != a)
    }

    /// The least objective after an exchange of one slot for one.
    fn best_single(&self) -> Option<i32> {
        let k = self.slots();
        let singles = self.others().flat_map(|gpu| (0..k * k).map(move |code| (gpu, code / k, code % k)));
        let allowed = singles.filter(|&(gpu, i, j)| self.may_exchange(gpu, i, j));
        allowed.map(|(gpu, i, j)| self.value_of(&self.exchanged(gpu, &[(i, j)]), self.a, gpu)).min()
    }

    /// The least objective after an exchange of two slots for two, with the first slot of the proposing GPU or any.
    fn best_pair(&self, with_first: bool) -> Option<i32> {
        let pairs: Vec<(usize, usize)> =
            (0..self.slots()).flat_map(|i| (i + 1..self.slots()).map(move |j| (i, j))).collect();
        let mut best = None;
        for gpu in self.others() {
            for &(i, i2) in pairs.iter().filter(|pair| !with_first || pair.0 == 0) {
                for &(j, j2) in &pairs {
                    if self.may_exchange(gpu, i, j) && self.may_exchange(gpu, i2, j2) {
                        let value = self.value_of(&self.exchanged(gpu, &[(i, j), (i2, j2)]), self.a, gpu);
                        best = Some(best.map_or(value, |least: i32| least.min(value)));
                    }
                }
            }
        }
        best
    }

    fn find_exchange(&mut self) -> NodeMove {
        self.search.best_exchange(&now(&self.params, self.value, self.a))
    }

    /// The numbers of the search must be those that its placement comes to.
    fn assert_consistent(&self) {
        let NodeSearch { gpus, lanes, slots, windows, .. } = self.search;
        let at = |gpu: usize, slot: usize| self.search.expert[slot * lanes + gpu];
        let placed: Vec<u32> = (0..gpus).flat_map(|gpu| (0..slots).map(move |slot| at(gpu, slot))).collect();
        assert_eq!(self.search.counts, self.counts(&placed));
        for window in 0..windows {
            let loads = &self.search.gpu[window * lanes..window * lanes + gpus];
            assert_eq!(loads, self.gpu_loads(&placed, window));
        }
        let mut several = self.search.replicated.clone();
        several.sort_unstable();
        let counts = &self.search.counts;
        assert!(several.iter().copied().eq((0..counts.len() as u32).filter(|&e| counts[e as usize] > 1)));
    }
}

/// A random placement of a node, without duplicates where that is the rule.
fn placement(random: &mut Random, params: &Params) -> Vec<u32> {
    let (experts, gpus) = (params.node_experts, params.node_gpus as usize);
    let mut counts = vec![1; experts as usize];
    for _ in experts..params.node_replicas {
        loop {
            let expert = random.below(experts as usize);
            if counts[expert] < params.max_count {
                counts[expert] += 1;
                break;
            }
        }
    }
    loop {
        // Dealt out in a random order, to a random GPU with room that lacks the expert.
        let mut held = vec![Vec::new(); gpus];
        let mut order: Vec<u32> =
            (0..experts).flat_map(|e| std::iter::repeat_n(e, counts[e as usize] as usize)).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i + 1));
        }
        for expert in order {
            let open: Vec<usize> = (0..gpus)
                .filter(|&gpu| held[gpu].len() < params.slots_per_gpu as usize)
                .filter(|&gpu| !params.avoid_duplicates || !held[gpu].contains(&expert))
                .collect();
            if !open.is_empty() {
                held[open[random.below(open.len())]].push(expert);
            }
        }
        if held.iter().map(Vec::len).sum::<usize>() == params.node_replicas as usize {
            held.iter_mut().for_each(|gpu| gpu.resize(params.slots_per_gpu as usize, FREE));
            return held.concat();
        }
    }
}

const RULES: [Duplicates; 2] = [Duplicates::Allow, Duplicates::Avoid];

#[test]
fn an_exchange_is_the_best_of_all_exchanges_of_the_heaviest_gpu() {
    let (mut singles, mut pairs) = (0, 0);
    for seed in 0..1200 {
        let (slots, windows) = (2 + seed as usize % 6, [1, 1, 2, 5][seed as usize % 4]);
        let mut small = Small::new(seed, slots, windows, RULES[seed as usize / 2 % 2], seed % 3 > 0);
        let mut best = small.best_single();
        // With six slots and more pairs are looked at where no single exchange helps.
        let helps = best.is_some_and(|best| best < small.value);
        if windows == 1 && slots >= 4 && (slots <= 5 || !helps) {
            best = [best, small.best_pair(slots == 4)].into_iter().flatten().min();
        }
        let found = small.find_exchange();
        assert_eq!((found.kind != NodeMoveKind::None).then_some(found.value), best, "seed {seed}: {found:?}");
        match found.kind {
            NodeMoveKind::Exchange { gpu, first, second } => {
                (singles, pairs) =
                    (singles + usize::from(second.is_none()), pairs + usize::from(second.is_some()));
                let slots: Vec<_> = std::iter::once(first).chain(second).collect();
                assert!(slots.iter().all(|&(i, j)| small.may_exchange(gpu, i, j)), "seed {seed}: {found:?}");
                let value = small.value_of(&small.exchanged(gpu, &slots), small.a, gpu);
                assert_eq!(value, found.value, "seed {seed}");
            }
            NodeMoveKind::None => {}
            NodeMoveKind::Transfer { .. } => panic!("seed {seed}: {found:?}"),
        }
        small.search.make(&now(&small.params, small.value, small.a), found.kind);
        small.assert_consistent();
    }
    assert!(singles > 500 && pairs > 100, "{singles} exchanges of single slots, {pairs} of pairs");
}

/// Of four slots, two that go or the other two that go make the same two GPUs: half of the pairs are looked at.
#[test]
fn half_of_the_pairs_of_four_slots_are_all_of_them() {
    for seed in 0..200 {
        let small = Small::new(20_000 + seed, 4, 1, Duplicates::Allow, false);
        if !small.placed.contains(&FREE) {
            assert_eq!(small.best_pair(true), small.best_pair(false), "seed {seed}");
        }
    }
}

/// The objective after a transfer of a slot from `x` to `y`, where experts that lose are heavier then on all GPUs that hold
/// them, and those that gain are lighter on the proposing one.
fn weigh(small: &Small, home: usize, x: u32, y: u32) -> i32 {
    let counts = small.counts(&small.placed);
    let (cx, cy, a) = (counts[x as usize], counts[y as usize], small.a);
    let value = |window: usize| {
        let loads = small.gpu_loads(&small.placed, window);
        let light = small.share(y, cy + 1, window);
        let lost = small.share(x, cx, window);
        let grows = small.share(x, cx - 1, window) - lost;
        let mut most = loads[home] - lost + light;
        if home != a {
            most = most.max(loads[a] - small.share(y, cy, window) + light);
        }
        for gpu in (0..small.gpus()).filter(|&gpu| gpu != home) {
            let holds = small.held(gpu).contains(&x);
            let rest = small.windows() > 1 && gpu != a;
            most = most.max(if holds { loads[gpu] + grows } else { 0 });
            most = most.max(if rest { loads[gpu] } else { 0 });
        }
        if small.windows() > 1 { most.max(small.floors[window] as i32) } else { most }
    };
    (0..small.windows()).map(value).sum()
}

#[test]
fn a_transfer_is_the_best_of_its_kind_and_worth_what_it_says() {
    let (mut own, mut elsewhere, mut exact) = (0, 0, 0);
    for seed in 0..1200 {
        let (slots, windows) = (2 + seed as usize % 5, [1, 1, 2, 5][seed as usize % 4]);
        let mut small = Small::new(40_000 + seed, slots, windows, Duplicates::Avoid, seed % 3 > 0);
        let (params, a) = (small.params.clone(), small.a);
        if !params.avoid_duplicates {
            continue;
        }
        let counts = small.counts(&small.placed);
        let may_lose =
            |x: u32| x != FREE && counts[x as usize] > 1 && small.search.no_loss[x as usize] <= NOW;
        let may_gain =
            |y: &u32| counts[*y as usize] < params.max_count && small.search.no_gain[*y as usize] <= NOW;
        let mut best: Option<i32> = None;
        let mut offer = |value: i32| best = Some(best.map_or(value, |least| least.min(value)));
        // A slot of the GPU goes to the expert whose replicas are then the lightest, over all windows.
        let gainers = (0..params.node_experts).filter(may_gain).filter(|y| !small.held(a).contains(y));
        let light =
            |y: &u32| -> i32 { (0..windows).map(|w| small.share(*y, counts[*y as usize] + 1, w)).sum() };
        if let Some(y) = gainers.min_by_key(light) {
            small.held(a).iter().filter(|&&x| may_lose(x)).for_each(|&x| offer(weigh(&small, a, x, y)));
        }
        // Or an expert of the GPU gains a replica on a GPU without one.
        for &y in small.held(a).iter().filter(|&&y| y != FREE).filter(|&y| may_gain(y)) {
            for gpu in small.others().filter(|&gpu| !small.held(gpu).contains(&y)) {
                small
                    .held(gpu)
                    .iter()
                    .filter(|&&x| may_lose(x))
                    .for_each(|&x| offer(weigh(&small, gpu, x, y)));
            }
        }
        let found = small.search.best_transfer(&now(&small.params, small.value, a), BLOCKED);
        assert_eq!((found.kind != NodeMoveKind::None).then_some(found.value), best, "seed {seed}: {found:?}");
        let NodeMoveKind::Transfer { slot, gpu, expert } = found.kind else { continue };
        let (own_now, x) = (gpu == a, small.held(gpu)[slot]);
        (own, elsewhere) = (own + usize::from(own_now), elsewhere + usize::from(!own_now));
        let mut placed = small.placed.clone();
        placed[gpu * slots + slot] = expert;
        // The GPUs that it can make heavier, and the proposing one.
        let touched = |g: usize| windows > 1 || g == a || g == gpu || small.held(g).contains(&x);
        let value = |window: usize| {
            let loads = small.gpu_loads(&placed, window);
            let most = (0..small.gpus()).filter(|&g| touched(g)).map(|g| loads[g]).max().unwrap();
            if windows > 1 { most.max(small.floors[window] as i32) } else { most }
        };
        let after: i32 = (0..windows).map(value).sum();
        assert!(after <= found.value, "seed {seed}: {found:?} comes to {after}");
        // It is less only where a GPU holds both experts, or where with several windows others are relieved.
        let both = (0..small.gpus()).any(|g| small.held(g).contains(&x) && small.held(g).contains(&expert));
        if windows == 1 && !both {
            exact += 1;
            assert_eq!(after, found.value, "seed {seed}: {found:?}");
        }
        small.search.make(&now(&small.params, small.value, a), found.kind);
        small.assert_consistent();
        assert!(small.search.no_gain[x as usize] > NOW && small.search.no_loss[expert as usize] > NOW);
    }
    assert!(own > 50 && elsewhere > 200 && exact > 100, "{own} {elsewhere} {exact}");
}

/// No trajectory loses its best placement, or what is in it.
#[test]
fn a_trajectory_keeps_the_best_of_its_placements() {
    let mut better = 0;
    for seed in 0..600 {
        let (slots, windows) = (2 + seed as usize % 6, [1, 1, 2, 5][seed as usize % 4]);
        let mut small = Small::new(60_000 + seed, slots, windows, RULES[seed as usize / 2 % 2], false);
        let all = |small: &Small, placed: &[u32]| -> i32 {
            let floor = |window: usize| small.floors[window] as i32;
            let most = |window: usize| small.gpu_loads(placed, window).into_iter().max().unwrap();
            (0..windows).map(|window| most(window).max(floor(window))).sum()
        };
        let mut before = all(&small, &small.placed);
        let packed = before;
        assert_eq!(small.value, packed, "seed {seed}");
        for (iterations, patience) in [(0, 0), (5, 2), (60, 10), (400, 50)] {
            let mut candidate = small.candidate();
            let params = Params { iterations, patience, ..small.params.clone() };
            let Small { loads, floors, search: state, .. } = &mut small;
            let start = (KEY, (seed % 3) as u32);
            let outcome = search(&params, start, loads, (floors, 0), &mut candidate, state);
            let kept = &candidate.snapshot;
            assert_eq!(outcome.max as i32, all(&small, kept), "seed {seed}");
            assert!(outcome.max as i32 <= before, "seed {seed}: {iterations} iterations, {patience}");
            before = outcome.max as i32;
            let counts = small.counts(kept);
            assert!(
                counts.iter().all(|count| (1..=params.max_count).contains(count)),
                "seed {seed}: {kept:?}"
            );
            assert_eq!(counts.iter().sum::<u32>(), params.node_replicas, "seed {seed}: {kept:?}");
            let twins = |gpu: &[u32]| (1..slots).any(|i| gpu[i] != FREE && gpu[..i].contains(&gpu[i]));
            assert!(!params.avoid_duplicates || !kept.chunks(slots).any(twins), "seed {seed}: {kept:?}");
            small.assert_consistent();
        }
        better += usize::from(before < packed);
    }
    assert!(better > 500, "{better} of 600 became better");
}
