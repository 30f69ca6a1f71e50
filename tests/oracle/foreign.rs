//! Foreign replicas: the bound and the planner against every plan of tiny instances, and the relaxed rules.

use approx::assert_relative_eq;
use eplb_wgpu::bound::{BoundOptions, lower_bounds_with};
use eplb_wgpu::check::{CheckOptions, score, score_with};
use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner};

use crate::instances::Rng;

/// Loads are counted in parts of 1 / 27,720, so that the share of up to 12 replicas is whole.
const UNIT: u64 = 27_720;

/// An instance of two or three nodes whose groups are of several experts.
struct Instance {
    row: Vec<u64>,
    cluster: Cluster,
    foreign: u32,
}

impl Instance {
    fn random(rng: &mut Rng) -> Self {
        // experts, replicas, groups, nodes, gpus, slots a GPU
        let shapes = [
            (4, 6, 2, 2, 2, 3),
            (4, 8, 2, 2, 4, 2),
            (6, 10, 2, 2, 2, 5),
            (6, 8, 2, 2, 4, 2),
            (8, 12, 4, 2, 2, 6),
            (8, 12, 2, 2, 4, 3),
            (6, 12, 2, 2, 4, 3),
            (6, 9, 3, 3, 3, 3),
            (6, 12, 3, 3, 6, 2),
            (8, 10, 2, 2, 2, 6),
            (6, 10, 2, 2, 10, 1),
        ];
        let (experts, replicas, groups, nodes, gpus, slots) = shapes[rng.below(shapes.len())];
        let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots).unwrap();
        let foreign = 1 + rng.below(experts / groups - 1) as u32;
        let kind = rng.below(6);
        let heavy_group = |e: usize| if e < experts / groups { 4 } else { 1 };
        let load = |e: usize, rng: &mut Rng| match kind {
            // One hot expert, in a group of its own weight.
            0 if e == 0 => 1000,
            0 => rng.below(30),
            1 => rng.below(100) * heavy_group(e),
            2 => 1000 >> rng.below(8),
            3 => (90 + rng.below(20)) * heavy_group(e),
            4 => rng.below(4),
            _ => rng.below(30) * rng.below(30),
        };
        let row = (0..experts).map(|e| load(e, rng) as u64).collect();
        Self { row, cluster, foreign }
    }

    fn loads(&self) -> Loads {
        Loads::from_counts(1, self.row.len(), &self.row).unwrap()
    }
}

/// The search over all plans of an instance.
struct Oracle<'a> {
    instance: &'a Instance,
    duplicates: bool,
    foreign: u32,
    /// The most replicas of an expert.
    most: u64,
    /// Home of each expert.
    homes: Vec<usize>,
    /// Replicas of each expert in each node.
    copies: Vec<Vec<u64>>,
    best: u64,
}

/// The least max GPU load of all plans with at most `foreign` foreign replicas.
fn optimum(instance: &Instance, foreign: u32, duplicates: bool) -> f64 {
    capped_optimum(instance, foreign, duplicates, u64::MAX)
}

/// [`optimum`] over the plans in which no expert has more than `most` replicas.
fn capped_optimum(instance: &Instance, foreign: u32, duplicates: bool, most: u64) -> f64 {
    let copies = vec![vec![0; instance.cluster.num_nodes()]; instance.row.len()];
    let mut oracle = Oracle { instance, duplicates, foreign, most, homes: vec![], copies, best: u64::MAX };
    oracle.assign(&mut vec![]);
    if oracle.best == u64::MAX { f64::INFINITY } else { oracle.best as f64 / UNIT as f64 }
}

impl Oracle<'_> {
    /// Every way to give each group a home.
    fn assign(&mut self, homes: &mut Vec<usize>) {
        let cluster = &self.instance.cluster;
        let (groups, nodes) = (cluster.num_groups(), cluster.num_nodes());
        if homes.len() == groups {
            let size = self.instance.row.len() / groups;
            self.homes = homes.iter().flat_map(|&home| vec![home; size]).collect();
            self.count(0, 0, self.foreign);
            return;
        }
        for home in 0..nodes {
            if homes.iter().filter(|&&h| h == home).count() < groups / nodes {
                homes.push(home);
                self.assign(homes);
                homes.pop();
            }
        }
    }

    /// Every number of replicas of each expert in each node.
    fn count(&mut self, expert: usize, node: usize, foreign: u32) {
        let nodes = self.instance.cluster.num_nodes();
        let each = (self.instance.cluster.num_replicas() / nodes) as u64;
        if node == nodes {
            return self.count(expert + 1, 0, foreign);
        }
        let held: u64 = (0..self.copies.len()).map(|e| self.copies[e][node]).sum();
        if expert == self.copies.len() {
            if (0..nodes).all(|n| self.copies.iter().map(|copies| copies[n]).sum::<u64>() == each) {
                self.weigh();
            }
            return;
        }
        let at_home = self.homes[expert] == node;
        let most = if at_home { each - held } else { (each - held).min(foreign.into()) };
        let elsewhere: u64 = self.copies[expert][..node].iter().sum();
        let most = most.min(self.most - elsewhere);
        for count in u64::from(at_home)..=most {
            self.copies[expert][node] = count;
            let left = if at_home { foreign } else { foreign - count as u32 };
            self.count(expert, node + 1, left);
        }
        self.copies[expert][node] = 0;
    }

    /// Places the replicas of each node, where that can be better than the best.
    fn weigh(&mut self) {
        let cluster = &self.instance.cluster;
        let gpus = cluster.num_gpus() / cluster.num_nodes();
        let mut worst = 0;
        for node in 0..cluster.num_nodes() {
            let mut items = vec![];
            for (expert, copies) in self.copies.iter().enumerate() {
                let share = self.instance.row[expert] * UNIT / copies.iter().sum::<u64>();
                items.extend(vec![(share, expert); copies[node] as usize]);
            }
            items.sort_unstable_by(|a, b| b.cmp(a));
            if items.iter().map(|item| item.0).sum::<u64>() >= self.best.saturating_mul(gpus as u64) {
                return;
            }
            let mut best = self.best;
            self.place(&items, &mut vec![(0, vec![]); gpus], &mut best);
            worst = worst.max(best);
        }
        self.best = self.best.min(worst);
    }

    /// Every placement of replicas on the GPUs of a node that is better than the best.
    fn place(&self, items: &[(u64, usize)], gpus: &mut Vec<(u64, Vec<usize>)>, best: &mut u64) {
        let Some((&(share, expert), rest)) = items.split_first() else {
            *best = gpus.iter().map(|gpu| gpu.0).max().unwrap_or(0);
            return;
        };
        for at in 0..gpus.len() {
            let (load, held) = &gpus[at];
            let (is_empty, allowed) = (held.is_empty(), self.duplicates || !held.contains(&expert));
            if held.len() < self.instance.cluster.slots_per_gpu() && allowed && load + share < *best {
                gpus[at].0 += share;
                gpus[at].1.push(expert);
                self.place(rest, gpus, best);
                gpus[at].0 -= share;
                gpus[at].1.pop();
            }
            if is_empty {
                break;
            }
        }
    }
}

fn bound_of(instance: &Instance, foreign: u32) -> f64 {
    let options = BoundOptions { max_foreign: foreign, ..BoundOptions::default() };
    lower_bounds_with(&instance.loads(), &instance.cluster, &options)[0]
}

#[test]
fn the_bound_is_never_above_the_best_plan() {
    let mut rng = Rng::new(12);
    let (mut sum, mut loaded, mut gained, mut lower) = (0.0, 0.0, 0, 0);
    for case in 0..300 {
        let instance = Instance::random(&mut rng);
        let best = optimum(&instance, instance.foreign, true);
        let bound = bound_of(&instance, instance.foreign);
        let shown = (&instance.row, &instance.cluster, instance.foreign);
        assert!(bound <= best * (1.0 + 1e-9), "case {case}: {bound} above {best} for {shown:?}");
        let homes_only = optimum(&instance, 0, true);
        assert!(best <= homes_only);
        gained += usize::from(best < homes_only);
        lower += usize::from(bound < bound_of(&instance, 0) * (1.0 - 1e-9));
        if best > 0.0 {
            sum += bound / best;
            loaded += 1.0;
        }
    }
    println!("bound over optimum {:.4}, {gained} gained by foreign replicas, {lower} bounds", sum / loaded);
    assert!(gained >= 100 && lower >= 100 && sum / loaded > 0.97, "{gained}, {lower}, {}", sum / loaded);
}

#[test]
fn a_limit_of_replicas_holds_at_home_and_elsewhere() {
    let mut rng = Rng::new(14);
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let (mut compared, mut raised, mut sum) = (0, 0, 0.0);
    for case in 0..150 {
        let instance = Instance::random(&mut rng);
        let most = 2 + rng.below(2) as u32;
        let (replicas, experts) = (instance.cluster.num_replicas(), instance.row.len());
        if experts * (most as usize) < replicas {
            continue;
        }
        let shown = (&instance.row, &instance.cluster, instance.foreign, most);
        let best = capped_optimum(&instance, instance.foreign, true, most.into());
        let foreign = BoundOptions { max_foreign: instance.foreign, ..BoundOptions::default() };
        let capped = BoundOptions { max_replicas_per_expert: Some(most), ..foreign };
        let bound = lower_bounds_with(&instance.loads(), &instance.cluster, &capped)[0];
        assert!(bound <= best * (1.0 + 1e-9), "case {case}: {bound} above {best} for {shown:?}");
        raised += usize::from(bound > bound_of(&instance, instance.foreign) * (1.0 + 1e-9));
        let options = PlanOptions {
            max_foreign: instance.foreign,
            max_replicas_per_expert: Some(most),
            ..PlanOptions::default()
        };
        let plan = planner.plan(&instance.loads(), &instance.cluster, &options).unwrap();
        assert!(plan.replica_counts().iter().all(|&count| count <= most), "case {case}: {shown:?}");
        let found = plan.quality().layers[0].max_gpu_load;
        assert!(found >= best * (1.0 - 1e-9), "case {case}: {found} below {best} for {shown:?}");
        if best > 0.0 {
            compared += 1;
            sum += found / best;
        }
    }
    let mean = sum / f64::from(compared);
    println!("{compared} compared, {raised} bounds raised, plan over optimum {mean:.4}");
    assert!(compared > 80 && raised > 5 && mean < 1.1, "{compared} {raised} {mean}");
}

#[test]
fn many_copies_of_one_hot_expert_are_in_the_bound() {
    // Expert 0 has nearly all load; six foreign copies of it leave a seventh of it at home.
    let mut row = vec![1; 16];
    row[0] = 7000;
    let cluster = Cluster::new(32, 2, 2, 2).unwrap();
    let instance = Instance { row, cluster, foreign: 6 };
    let bound = bound_of(&instance, 6);
    // A copy at home and a foreign one are even already.
    assert_relative_eq!(bound, 7015.0 / 2.0, max_relative = 1e-9);
    let three = Instance { cluster: Cluster::new(24, 4, 4, 4).unwrap(), row: instance.row, foreign: 3 };
    assert_relative_eq!(bound_of(&three, 3), 7015.0 / 4.0, max_relative = 1e-9);
    // With a foreign one, half of it stays at home.
    assert!(bound_of(&three, 1) > 3500.0, "{}", bound_of(&three, 1));
}

#[test]
fn plans_with_foreign_replicas_are_near_the_best() {
    let mut rng = Rng::new(13);
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let (mut sum, mut loaded, mut foreign) = (0.0, 0.0, 0);
    for case in 0..150 {
        let instance = Instance::random(&mut rng);
        let options = PlanOptions { max_foreign: instance.foreign, ..PlanOptions::default() };
        let at_home = planner.plan(&instance.loads(), &instance.cluster, &PlanOptions::default()).unwrap();
        let plan = planner.plan(&instance.loads(), &instance.cluster, &options).unwrap();
        let rules = CheckOptions { max_foreign: instance.foreign, ..CheckOptions::default() };
        let quality =
            score_with(&instance.loads(), &instance.cluster, plan.physical_to_logical(), &rules).unwrap();
        let (layer, before) = (&quality.layers[0], &at_home.quality().layers[0]);
        assert!(layer.max_gpu_load <= before.max_gpu_load, "case {case}: {layer:?} against {before:?}");
        let best = optimum(&instance, instance.foreign, before.same_gpu_duplicates > 0);
        assert!(layer.max_gpu_load >= best * (1.0 - 1e-9), "case {case}: {layer:?} below {best}");
        assert!(plan.quality().layers[0].lower_bound <= best * (1.0 + 1e-9));
        foreign += layer.foreign_replicas;
        if best > 0.0 {
            sum += layer.max_gpu_load / best;
            loaded += 1.0;
        }
    }
    println!("plan over optimum {:.4}, {foreign} foreign replicas", sum / loaded);
    assert!(sum / loaded < 1.08 && foreign > 100, "{}, {foreign}", sum / loaded);
}

#[test]
fn the_relaxed_rules_are_named_where_they_are_broken() {
    // Groups 0 and 1 of 4 experts in nodes 0 and 1, of 2 GPUs of 3 slots.
    let loads = Loads::from_counts(1, 8, &[8, 7, 6, 5, 4, 3, 2, 1]).unwrap();
    let cluster = Cluster::new(12, 2, 2, 4).unwrap();
    let said = |map: &[i32; 12], max_foreign| {
        score_with(&loads, &cluster, map, &CheckOptions { max_foreign, ..CheckOptions::default() })
            .map_err(|error| error.to_string())
    };
    let foreign = [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 0, 1];
    let slot = "plan is not valid: layer 0: slot 4 in node 0 holds expert 4 of group 1, which is in node";
    assert_eq!(score(&loads, &cluster, &foreign).unwrap_err().to_string(), said(&foreign, 0).unwrap_err());
    assert_eq!(
        said(&foreign, 3).unwrap_err(),
        "plan is not valid: layer 0: slot 11 in node 1 holds expert 1 of group 0, which is in node 0: more than \
         max_foreign 3 replicas outside the home of their group"
    );
    assert!(
        said(&foreign, 1).unwrap_err().starts_with(slot)
            || said(&foreign, 1).unwrap_err().contains("max_foreign 1")
    );
    let one = [0, 1, 2, 3, 0, 4, 4, 5, 6, 7, 4, 5];
    let layer = &said(&one, 1).unwrap().layers[0];
    assert_eq!((layer.foreign_replicas, layer.foreign_load), (1, 4.0 / 3.0));
    let homeless = [0, 1, 2, 4, 0, 1, 3, 4, 5, 6, 7, 3];
    assert_eq!(
        said(&homeless, 3).unwrap_err(),
        "plan is not valid: layer 0: group 0 has no home: no node holds all its 4 experts, node 0 holds 3"
    );
    let rule = "is not less than the 4 experts of a group, so that a group could have two homes: at most 3";
    assert_eq!(said(&one, 4).unwrap_err(), format!("max_foreign 4 {rule}"));
    let rules = CheckOptions { max_foreign: 1, ..CheckOptions::default() };
    let flat = score_with(&loads, &Cluster::new(12, 1, 2, 4).unwrap(), &one, &rules).unwrap_err();
    assert!(flat.to_string().starts_with("max_foreign 1 is for groups that have a home node"), "{flat}");
}
