use approx::assert_relative_eq;

use super::*;

/// A placement of random experts, with duplicates and free slots.
fn random_map(state: &mut u64, experts: usize, slots: usize) -> Vec<i32> {
    let mut draw = |below: usize| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % below
    };
    let mut map: Vec<i32> = (0..slots).map(|_| draw(experts + 1) as i32 - 1).collect();
    map[0] = 0;
    map
}

/// Deals tokens one by one, in equal parts where several replicas share them: GPU loads, tokens that stay on the GPU, and in the node.
fn deal(counts: &[Vec<u64>], cluster: &Cluster, map: &[i32], dispatch: Dispatch) -> (Vec<f64>, f64, f64) {
    let node_gpus = cluster.num_gpus() / cluster.num_nodes();
    let (mut gpus, mut on_gpu, mut in_node) = (vec![0.0; cluster.num_gpus()], 0.0, 0.0);
    for expert in 0..counts[0].len() {
        let held: Vec<usize> = (0..map.len())
            .filter(|&s| map[s] == expert as i32)
            .map(|s| s / cluster.slots_per_gpu())
            .collect();
        let mut strangers = expert;
        for (source, counts) in counts.iter().enumerate() {
            let own: Vec<usize> = held.iter().copied().filter(|&gpu| gpu == source).collect();
            let node: Vec<usize> =
                held.iter().copied().filter(|&gpu| gpu / node_gpus == source / node_gpus).collect();
            let to = match dispatch {
                Dispatch::Equal => held.clone(),
                Dispatch::Nearest if own.is_empty() && node.is_empty() => held.clone(),
                Dispatch::Nearest if own.is_empty() => node,
                Dispatch::Nearest => own,
                Dispatch::OwnGpu if own.is_empty() && !held.is_empty() => {
                    strangers += 1;
                    vec![held[(strangers - 1) % held.len()]]
                }
                Dispatch::OwnGpu => own,
            };
            for _ in 0..counts[expert] {
                let part = 1.0 / to.len() as f64;
                for &gpu in &to {
                    gpus[gpu] += part;
                    on_gpu += if gpu == source { part } else { 0.0 };
                    in_node += if gpu / node_gpus == source / node_gpus { part } else { 0.0 };
                }
            }
        }
    }
    (gpus, on_gpu, in_node)
}

fn assert_dealt(found: &Traffic, (gpus, on_gpu, in_node): (Vec<f64>, f64, f64)) {
    assert_relative_eq!(found.gpu_loads[..], gpus[..], max_relative = 1e-9, epsilon = 1e-9);
    assert_relative_eq!(found.layers[0].on_gpu, on_gpu, max_relative = 1e-9, epsilon = 1e-9);
    assert_relative_eq!(found.layers[0].in_node, in_node, max_relative = 1e-9, epsilon = 1e-9);
}

#[test]
fn the_shares_are_those_of_tokens_dealt_source_by_source() {
    let mut state = 7;
    for (nodes, gpus, slots, experts) in
        [(1, 4, 3, 7), (2, 4, 2, 5), (4, 8, 3, 11), (3, 9, 4, 6), (2, 2, 6, 4)]
    {
        let cluster = Cluster::with_slots_per_gpu(gpus * slots, nodes + 1, nodes, gpus, slots).unwrap();
        for turn in 0..8 {
            let map = random_map(&mut state, experts, gpus * slots);
            let even: Vec<u64> = (0..experts as u64).map(|e| (e * 5 + turn) % 13).collect();
            let uneven: Vec<Vec<u64>> = (0..gpus as u64)
                .map(|g| (0..experts as u64).map(|e| (e * 7 + g * 3 + turn) % 11).collect())
                .collect();
            let whole: Vec<u64> = even.iter().map(|count| count * gpus as u64).collect();
            let loads = Loads::from_counts(1, experts, &whole).unwrap();
            let sources: Vec<Loads> =
                uneven.iter().map(|row| Loads::from_counts(1, experts, row).unwrap()).collect();
            for dispatch in Dispatch::ALL {
                let found = traffic(&loads, &cluster, &map, dispatch).unwrap();
                assert_dealt(&found, deal(&vec![even.clone(); gpus], &cluster, &map, dispatch));
                let found = traffic_from(&sources, &cluster, &map, dispatch).unwrap();
                assert_dealt(&found, deal(&uneven, &cluster, &map, dispatch));
            }
        }
    }
}

#[test]
fn copies_in_distinct_nodes_or_as_many_in_every_node_lose_nothing() {
    // Nodes of two GPUs: expert 0 in all of them, expert 1 in two, expert 2 in one.
    let loads = Loads::from_counts(1, 5, &[80, 40, 24, 16, 8]).unwrap();
    let cluster = Cluster::with_slots_per_gpu(9, 1, 4, 8, 2).unwrap();
    let map = [0, 1, 3, -1, 0, -1, 2, 4, 0, -1, 1, -1, 0, -1, -1, -1];
    let equal = traffic(&loads, &cluster, &map, Dispatch::Equal).unwrap();
    let nearest = traffic(&loads, &cluster, &map, Dispatch::Nearest).unwrap();
    assert_relative_eq!(equal.gpu_loads[..], nearest.gpu_loads[..]);
    assert_relative_eq!(equal.in_node(), 0.25);
    let covered = (80.0 + 40.0 / 2.0 + (24.0 + 16.0 + 8.0) / 4.0) / 168.0;
    assert_relative_eq!(nearest.in_node(), covered);
    assert_relative_eq!(nearest.on_gpu(), (80.0 * 4.0 + 40.0 * 2.0 + 48.0) / 8.0 / 168.0);
}

#[test]
fn every_layer_counts_and_slow_gpus_count_for_less() {
    let mut state = 11;
    let cluster = Cluster::with_slots_per_gpu(12, 1, 2, 4, 3).unwrap();
    let cluster = cluster.with_gpu_speeds(&[1.0, 0.5, 1.0, 0.25]).unwrap();
    let rows: Vec<Vec<u64>> = vec![vec![9, 2, 0, 5, 7], vec![0; 5], vec![1, 30, 4, 4, 4]];
    let maps: Vec<Vec<i32>> = rows.iter().map(|_| random_map(&mut state, 5, 12)).collect();
    let loads = Loads::from_counts(3, 5, &rows.concat()).unwrap();
    for dispatch in Dispatch::ALL {
        let found = traffic(&loads, &cluster, &maps.concat(), dispatch).unwrap();
        let (mut mean, mut max, mut on_gpu, mut in_node) = (0.0, 0.0, 0.0, 0.0);
        for (at, (row, map)) in rows.iter().zip(&maps).enumerate() {
            let alone = traffic(&Loads::from_counts(1, 5, row).unwrap(), &cluster, map, dispatch).unwrap();
            assert_eq!(found.layers[at], alone.layers[0]);
            let gpus = &alone.gpu_loads;
            assert_eq!(found.gpu_loads[at * 4..at * 4 + 4], gpus[..]);
            let heaviest = gpus[0].max(gpus[1] * 2.0).max(gpus[2]).max(gpus[3] * 4.0);
            assert_relative_eq!(alone.layers[0].max_gpu_load, heaviest);
            assert_relative_eq!(alone.layers[0].mean_gpu_load, gpus.iter().sum::<f64>() / 2.75);
            (mean, max) = (mean + alone.layers[0].mean_gpu_load, max + heaviest);
            (on_gpu, in_node) = (on_gpu + alone.layers[0].on_gpu, in_node + alone.layers[0].in_node);
        }
        assert!(on_gpu > 0.0 && in_node > on_gpu);
        assert_relative_eq!(found.balancedness(), mean / max);
        assert_relative_eq!(found.on_gpu(), on_gpu / (mean * 2.75));
        assert_relative_eq!(found.in_node(), in_node / (mean * 2.75));
    }
    // A GPU that is gone takes no part, and nothing is in balance.
    let gone =
        Cluster::with_slots_per_gpu(3, 1, 1, 4, 1).unwrap().with_gpu_speeds(&[1.0, 1.0, 1.0, 0.0]).unwrap();
    let nothing =
        traffic(&Loads::from_counts(1, 3, &[0; 3]).unwrap(), &gone, &[0, 1, 2, -1], Dispatch::Equal);
    let nothing = nothing.unwrap();
    assert_eq!((nothing.balancedness(), nothing.on_gpu(), nothing.in_node()), (1.0, 0.0, 0.0));
    assert_eq!(nothing.layers[0].max_gpu_load, 0.0);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let loads = Loads::from_counts(1, 2, &[3, 1]).unwrap();
    let cluster = Cluster::new(4, 1, 2, 2).unwrap();
    let said = |sources: &[Loads], map: &[i32]| {
        traffic_from(sources, &cluster, map, Dispatch::Nearest).unwrap_err().to_string()
    };
    let map = [0, 1, 0, 1];
    let one = "number of sources 1 is not num_gpus 2: one for each GPU is needed";
    assert_eq!(said(std::slice::from_ref(&loads), &map), one);
    let other = Loads::from_counts(1, 3, &[3, 1, 1]).unwrap();
    assert!(said(&[loads.clone(), other], &map).starts_with("source 1 is of other layers or experts"));
    let sources = [loads.clone(), loads];
    assert!(said(&sources, &[0; 3]).contains("is not layers 1 x slots 4"));
    assert!(said(&sources, &[0, 1, 2, 0]).contains("slot 2 holds 2"));
    assert_eq!(
        "near".parse::<Dispatch>().unwrap_err().to_string(),
        "dispatch near is not one of equal, nearest, own-gpu"
    );
}
