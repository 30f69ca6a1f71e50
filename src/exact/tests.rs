//! The search of small layers, against all fillings of all slots.

use super::*;
use crate::{Cluster, Duplicates, Loads, PlanOptions};

/// A generator of numbers, xorshift.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(n)) >> 32) as u32
    }

    /// Loads of one of several kinds, in units that all small counts divide.
    fn loads(&mut self, experts: u32) -> Vec<u32> {
        let kind = self.below(5);
        let load = |rng: &mut Self| match kind {
            0 => rng.below(4),
            1 => 1 + rng.below(100),
            2 => 1000 >> rng.below(8),
            3 => 90 + rng.below(20),
            _ => rng.below(30) * rng.below(30),
        };
        let unit = if self.below(2) == 0 { 840 } else { 1 };
        (0..experts).map(|_| load(self) * unit).collect()
    }
}

/// Experts, replicas, groups, nodes, GPUs, slots a GPU, and whether duplicates are allowed.
#[derive(Clone, Copy, Debug)]
struct Shape(usize, usize, usize, usize, usize, usize, bool);

impl Shape {
    fn params(self) -> Params {
        let Shape(experts, replicas, groups, nodes, gpus, slots, duplicates) = self;
        let loads = Loads::from_counts(1, experts, &vec![1; experts]).unwrap();
        let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots).unwrap();
        let duplicates = if duplicates { Duplicates::Allow } else { Duplicates::Avoid };
        Params::new(&loads, &cluster, &PlanOptions { duplicates, ..PlanOptions::default() }).unwrap()
    }
}

/// Load of the heaviest GPU of a plan that breaks no rule; `None` for one that does.
fn score(params: &Params, loads: &[u32], plan: &[u32]) -> Option<u32> {
    let mut counts = vec![0; loads.len()];
    let mut homes = vec![None; params.groups as usize];
    for (node, slots) in plan.chunks(params.node_slots as usize).enumerate() {
        let filled = slots.iter().filter(|&&expert| expert != FREE);
        if filled.clone().count() != params.node_replicas as usize {
            return None;
        }
        for &expert in filled {
            counts[expert as usize] += 1;
            if *homes[(expert / params.group_size) as usize].get_or_insert(node) != node {
                return None;
            }
        }
    }
    let held = |node| homes.iter().filter(|&&home| home == Some(node)).count();
    if (0..params.nodes as usize).any(|node| held(node) != params.node_groups as usize)
        || counts.iter().any(|count| !(1..=params.max_count).contains(count))
    {
        return None;
    }
    let mut heaviest = 0;
    for gpu in plan.chunks(params.slots_per_gpu as usize) {
        let experts: Vec<u32> = gpu.iter().copied().filter(|&expert| expert != FREE).collect();
        let repeats = |at: usize| experts[..at].contains(&experts[at]);
        if params.avoid_duplicates && (0..experts.len()).any(repeats) {
            return None;
        }
        heaviest = heaviest.max(experts.iter().map(|&e| loads[e as usize] / counts[e as usize]).sum());
    }
    Some(heaviest)
}

/// The least heaviest GPU of all fillings of all slots.
fn brute_force(params: &Params, loads: &[u32], plan: &mut Vec<u32>) -> u32 {
    if plan.len() == (params.nodes * params.node_slots) as usize {
        return score(params, loads, plan).unwrap_or(u32::MAX);
    }
    // Slots of a GPU are alike, so they are filled in order; nothing else is left out.
    let opens = plan.len().is_multiple_of(params.slots_per_gpu as usize);
    let first = if opens { 0 } else { plan.last().map_or(0, |&e| e.min(params.experts)) };
    let mut least = u32::MAX;
    for expert in first..=params.experts {
        plan.push(if expert == params.experts { FREE } else { expert });
        least = least.min(brute_force(params, loads, plan));
        plan.pop();
    }
    least
}

#[test]
fn no_plan_of_tiny_layers_is_better() {
    let shapes = [
        // (experts, replicas, groups, nodes, gpus, slots), layers
        ((3, 6, 1, 1, 3, 2), 40),
        ((4, 6, 1, 1, 3, 2), 40),
        ((2, 5, 1, 1, 3, 2), 40),
        ((3, 5, 1, 1, 4, 2), 25),
        ((4, 8, 1, 1, 4, 2), 12),
        ((5, 7, 1, 1, 4, 2), 8),
        ((3, 6, 1, 1, 2, 3), 40),
        ((4, 5, 1, 1, 2, 3), 40),
        ((4, 7, 1, 1, 2, 4), 12),
        ((3, 7, 1, 1, 3, 3), 12),
        ((3, 6, 1, 1, 6, 1), 25),
        ((3, 4, 1, 1, 5, 1), 25),
        ((4, 4, 1, 1, 1, 5), 25),
        ((4, 6, 4, 2, 2, 3), 40),
        ((4, 6, 2, 2, 6, 1), 25),
        ((4, 6, 4, 2, 4, 2), 12),
        ((4, 8, 4, 2, 4, 2), 12),
        ((3, 6, 3, 3, 3, 2), 25),
        ((4, 6, 3, 2, 2, 3), 25),
    ];
    let mut rng = Rng(1);
    for ((experts, replicas, groups, nodes, gpus, slots), layers) in shapes {
        for duplicates in [false, true] {
            let shape = Shape(experts, replicas, groups, nodes, gpus, slots, duplicates);
            let params = shape.params();
            assert!(is_small(&params), "{shape:?}");
            for _ in 0..layers {
                let loads = rng.loads(params.experts);
                let plan = plan_layer(&params, &loads);
                let best = brute_force(&params, &loads, &mut Vec::new());
                assert_eq!(score(&params, &loads, &plan), Some(best), "{shape:?} {loads:?} {plan:?}");
            }
        }
    }
}

#[test]
fn pairs_and_packings_agree() {
    let mut rng = Rng(2);
    let mut differ = 0;
    for _ in 0..600 {
        let (gpus, kinds) = (2 + rng.below(5), 2 + rng.below(6));
        let mut items: Vec<SlotContent> =
            (0..kinds).map(|expert| SlotContent { expert, load: rng.below(60), count: 0 }).collect();
        if rng.below(2) == 0 {
            items.push(SlotContent { expert: FREE, load: 0, count: 0 });
        }
        for _ in 0..2 * gpus {
            let at = rng.below(items.len() as u32) as usize;
            items[at].count += 1;
        }
        items.retain(|item| item.count > 0);
        items.sort_by_key(|item| (Reverse(item.load), item.expert));
        let least = [false, true].map(|avoid_duplicates| {
            let (mut best, mut best_slots) = (1000, Vec::new());
            let mut packing = Packing {
                items: &mut items,
                slots_per_gpu: 2,
                avoid_duplicates,
                enough: 0,
                best: &mut best,
                best_slots: &mut best_slots,
                filled: Vec::new(),
            };
            packing.improve(gpus);
            let fits = pairs::fit(&items, gpus, avoid_duplicates, 999);
            assert_eq!(fits, best < 1000, "{items:?}");
            if !fits {
                return best;
            }
            let least = pairs::least_load(&items, gpus, avoid_duplicates, 0, 999);
            assert_eq!(least, best, "{items:?}");
            let slots = pairs::pair_up(&mut items.clone(), gpus, avoid_duplicates, least);
            assert_eq!(slots.len(), 2 * gpus as usize, "{items:?} {slots:?}");
            best
        });
        differ += usize::from(least[0] != least[1]);
    }
    assert!(differ > 50, "duplicates mattered {differ} times");
}

#[test]
fn known_layers_reach_their_optimum() {
    let node = [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86];
    let second = [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27];
    let (nine, heavy) = ([22, 99, 64, 213, 43, 18], [36, 23, 21, 5, 2, 1]);
    let (mixed, cold) = ([44, 30, 20, 10, 7, 7], [948, 628, 0, 0, 54, 66, 0, 0]);
    let known: [(&[u32], _, _); 9] = [
        // DeepSeek's example, both layers.
        (&node, Shape(12, 16, 4, 2, 8, 2, false), 151 * 840),
        (&second, Shape(12, 16, 4, 2, 8, 2, false), 179 * 840 + 420),
        (&nine, Shape(6, 9, 1, 1, 3, 3, false), 156 * 840 + 420),
        (&mixed, Shape(6, 8, 1, 1, 4, 2, false), 33 * 840 + 420),
        (&mixed, Shape(6, 8, 1, 1, 4, 2, true), 30 * 840),
        (&heavy, Shape(6, 8, 1, 1, 4, 2, false), 23 * 840 + 420),
        (&heavy, Shape(6, 8, 1, 1, 4, 2, true), 23 * 840),
        // No group fits three nodes, so all GPUs are one.
        (&cold, Shape(8, 18, 7, 3, 9, 2, false), 190 * 840),
        // 9 in three replicas of 3, with 3 and 3 beside two of them and a free slot beside the third.
        (&[9, 3, 3], Shape(3, 5, 1, 1, 3, 2, true), 6 * 840),
    ];
    for (loads, shape, optimum) in known {
        let params = shape.params();
        assert!(is_small(&params), "{shape:?}");
        let loads: Vec<u32> = loads.iter().map(|load| load * 840).collect();
        let plan = plan_layer(&params, &loads);
        assert_eq!(score(&params, &loads, &plan), Some(optimum), "{shape:?} {plan:?}");
    }
}

#[test]
fn nothing_moves_where_nothing_is_replicated() {
    for (loads, shape) in [
        ([30, 20, 10], Shape(3, 3, 1, 1, 3, 1, false)),
        ([10, 20, 30], Shape(3, 3, 3, 3, 3, 1, false)),
        ([10, 10, 10], Shape(3, 3, 1, 1, 1, 3, true)),
    ] {
        assert_eq!(plan_layer(&shape.params(), &loads), [0, 1, 2], "{shape:?}");
    }
    let free = Shape(3, 3, 1, 1, 3, 2, false).params();
    assert_eq!(plan_layer(&free, &[10, 20, 30]), [0, FREE, 1, FREE, 2, FREE]);
}

#[test]
fn without_load_no_expert_is_favoured() {
    for shape in [
        Shape(6, 8, 1, 1, 4, 2, false),
        Shape(6, 9, 1, 1, 3, 3, true),
        Shape(12, 16, 4, 2, 8, 2, false),
        Shape(5, 13, 1, 1, 7, 2, true),
    ] {
        let params = shape.params();
        let loads = vec![0; params.experts as usize];
        let plan = plan_layer(&params, &loads);
        assert_eq!(score(&params, &loads, &plan), Some(0), "{shape:?}");
        let count = |e: u32| plan.iter().filter(|&&expert| expert == e).count();
        let even = params.node_replicas / params.node_experts;
        let counts: Vec<usize> = (0..params.experts).map(count).collect();
        let range = even as usize..=even as usize + 1;
        assert!(counts.iter().all(|count| range.contains(count)), "{shape:?} {counts:?}");
    }
}

#[test]
fn ways_are_counted() {
    // 2 more replicas for 6 experts: one of them takes both, or two of them one each.
    assert_eq!(count_vectors(&Shape(6, 8, 1, 1, 4, 2, true).params()), 6 + 15);
    assert_eq!(count_vectors(&Shape(6, 8, 1, 1, 2, 4, false).params()), 15, "a GPU holds an expert once");
    assert_eq!(count_vectors(&Shape(8, 16, 1, 1, 8, 2, true).params()), choose(15, 7));
    // 9 replicas told apart in threes; 6 experts, so that the first two GPUs have C(5, 2) ways each.
    assert_eq!(packings(&Shape(9, 9, 1, 1, 3, 3, true).params()), 28 * 10);
    assert_eq!(packings(&Shape(6, 9, 1, 1, 3, 3, false).params()), 10 * 10);
    assert_eq!(choose(8, 3), 56);
    assert_eq!((choose(3, 4), choose(4096, 2048)), (0, u64::MAX));
}

#[test]
fn layers_are_small_by_their_shape() {
    for (shape, small) in [
        (Shape(6, 8, 1, 1, 4, 2, false), true),
        (Shape(6, 9, 1, 1, 3, 3, false), true),
        (Shape(12, 16, 4, 2, 8, 2, false), true),
        (Shape(8, 16, 1, 1, 8, 2, false), true),
        (Shape(8, 18, 1, 1, 9, 2, false), true),
        (Shape(64, 64, 1, 1, 32, 2, false), true),
        (Shape(66, 66, 1, 1, 33, 2, false), false),
        (Shape(16, 24, 1, 1, 8, 3, false), false),
        (Shape(256, 288, 8, 4, 32, 9, false), false),
        (Shape(4096, 4096, 4096, 64, 4096, 1, false), false),
    ] {
        assert_eq!(is_small(&shape.params()), small, "{shape:?}");
    }
    let window = Loads::from_counts(1, 3, &[1, 2, 3]).unwrap();
    let both = Loads::from_windows(&[window.clone(), window], &[1.0, 1.0]).unwrap();
    let cluster = Cluster::new(6, 1, 1, 3).unwrap();
    assert!(!is_small(&Params::new(&both, &cluster, &PlanOptions::default()).unwrap()));
}
