//! Seeded random tiny clusters, loads and valid plans.

use eplb_wgpu::{Cluster, Loads, Policy};

/// SplitMix64: the same numbers on every machine for the same seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// One layer and its cluster.
#[derive(Debug)]
pub struct Instance {
    pub row: Vec<u64>,
    pub cluster: Cluster,
}

impl Instance {
    /// At most 8 slots; global and hierarchical, with and without free slots, loads from even to one-hot.
    pub fn random(rng: &mut Rng) -> Self {
        let nodes = 1 + rng.below(2);
        let gpus = nodes * (1 + rng.below(8 / nodes));
        let slots = 1 + rng.below(8 / gpus);
        let all = gpus * slots;
        let hierarchical = nodes > 1 && rng.below(4) > 0;
        let replicas = match rng.below(3) {
            0 => nodes * (1 + rng.below(all / nodes)),
            _ => all,
        };
        let groups = if hierarchical { nodes * (1 + rng.below(replicas / nodes)) } else { 1 };
        let experts =
            if hierarchical { groups * (1 + rng.below(replicas / groups)) } else { 1 + rng.below(replicas) };
        let cluster = Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots).unwrap();
        Self { row: loads(rng, experts), cluster }
    }

    /// Global, 2 or 3 slots a GPU, 8 to 10 slots, few spare replicas, at times a free slot.
    pub fn with_few_slots(rng: &mut Rng, slots: usize) -> Self {
        let gpus = if slots == 2 { 4 + rng.below(2) } else { 3 };
        let replicas = gpus * slots - usize::from(rng.below(4) == 0);
        let experts = replicas - rng.below(4);
        let cluster = Cluster::with_slots_per_gpu(replicas, 1, 1, gpus, slots).unwrap();
        Self { row: loads(rng, experts), cluster }
    }

    pub fn loads(&self) -> Loads {
        Loads::from_counts(1, self.row.len(), &self.row).unwrap()
    }

    /// A random valid plan: groups, counts and places drawn anew at each call.
    pub fn random_plan(&self, rng: &mut Rng) -> Vec<i32> {
        let (cluster, experts) = (&self.cluster, self.row.len());
        let hierarchical = cluster.policy() == Policy::Hierarchical;
        let (nodes, groups) = if hierarchical { (cluster.num_nodes(), cluster.num_groups()) } else { (1, 1) };
        let mut order: Vec<usize> = (0..groups).collect();
        rng.shuffle(&mut order);
        let mut plan = vec![];
        for homed in order.chunks(groups / nodes) {
            let size = experts / groups;
            let mut node: Vec<i32> =
                homed.iter().flat_map(|g| g * size..(g + 1) * size).map(|e| e as i32).collect();
            let owned = node.len();
            while node.len() < cluster.num_replicas() / nodes {
                node.push(node[rng.below(owned)]);
            }
            node.resize(cluster.num_slots() / nodes, -1);
            rng.shuffle(&mut node);
            plan.extend(node);
        }
        plan
    }
}

pub fn loads(rng: &mut Rng, experts: usize) -> Vec<u64> {
    let family = rng.below(6);
    let most = 1 + rng.below(1000);
    (0..experts)
        .map(|expert| match family {
            0 => 7,
            1 => rng.below(3) as u64,
            2 => rng.next() >> 40 >> rng.below(20),
            3 => (most / (expert + 1)) as u64,
            4 if expert == 0 => 1 << 40,
            _ => rng.below(most + 1) as u64,
        })
        .collect()
}
