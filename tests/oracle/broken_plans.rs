//! Each rule of a valid plan, broken on its own, is refused in its own words.

use eplb_wgpu::check::CheckOptions;
use eplb_wgpu::{Cluster, Error, Loads, check};

/// 8 experts in 4 groups, 12 replicas, 2 nodes of 2 GPUs of 3 slots: groups 0 and 2 in node 0, 1 and 3 in 1.
const GOOD: [i32; 12] = [0, 1, 4, 5, 0, 4, 2, 3, 6, 7, 6, 6];

fn hierarchical() -> Cluster {
    Cluster::new(12, 4, 2, 4).unwrap()
}

/// Two layers, of which the second is `plan`.
fn verdict(cluster: &Cluster, good: &[i32], plan: &[i32]) -> Result<(), String> {
    let loads = Loads::from_counts(2, 8, &[5; 16]).unwrap();
    match check::score(&loads, cluster, &[good, plan].concat()) {
        Ok(_) => Ok(()),
        Err(Error::InvalidPlan { layer: 1, rule, .. }) => Err(rule),
        Err(other) => panic!("not about layer 1: {other}"),
    }
}

fn with(changes: &[(usize, i32)]) -> [i32; 12] {
    let mut plan = GOOD;
    for &(slot, entry) in changes {
        plan[slot] = entry;
    }
    plan
}

#[test]
fn every_broken_rule_is_named() {
    let cluster = hierarchical();
    assert_eq!(verdict(&cluster, &GOOD, &GOOD), Ok(()));
    let cases: [(&[(usize, i32)], &str); 7] = [
        (&[(3, 8)], "slot 3 holds 8, not an expert in 0..8 or -1"),
        (&[(3, -2)], "slot 3 holds -2, not an expert in 0..8 or -1"),
        (&[(3, i32::MIN)], "slot 3 holds -2147483648, not an expert in 0..8 or -1"),
        (&[(4, -1)], "11 slots are filled, not num_replicas 12, slot 4 is free"),
        (&[(1, 0)], "expert 1 has no replica"),
        (&[(4, 7)], "slot 8 in node 1 holds expert 6 of group 3, which is in node 0"),
        // Group 1 leaves for node 0 whole, in the places of second replicas.
        (&[(4, 2), (5, 3), (6, 6), (7, 7)], "node 0 holds 3 groups, not 2"),
    ];
    for (changes, rule) in cases {
        assert_eq!(verdict(&cluster, &GOOD, &with(changes)), Err(rule.to_string()), "{changes:?}");
    }
}

#[test]
fn the_global_policy_has_no_rules_of_nodes() {
    // One group cannot be divided over two nodes, so any expert may sit anywhere.
    let cluster = Cluster::new(12, 1, 2, 4).unwrap();
    assert_eq!(verdict(&cluster, &GOOD, &with(&[(4, 7)])), Ok(()));
    assert_eq!(verdict(&cluster, &GOOD, &with(&[(1, 0)])), Err("expert 1 has no replica".to_string()));
}

#[test]
fn free_slots_are_free_only_where_there_are_some() {
    let cluster = Cluster::with_slots_per_gpu(10, 4, 2, 4, 3).unwrap();
    let good = with(&[(4, -1), (11, -1)]);
    assert_eq!(verdict(&cluster, &good, &good), Ok(()));
    let full = "12 slots are filled, not num_replicas 10".to_string();
    assert_eq!(verdict(&cluster, &good, &GOOD), Err(full));
    // Ten replicas in all, four of them in node 0.
    let uneven = with(&[(4, -1), (5, -1)]);
    let rule = "node 0 holds 4 replicas, not 5".to_string();
    assert_eq!(verdict(&cluster, &good, &uneven), Err(rule));
}

#[test]
fn wrong_lengths_and_shapes_are_refused() {
    let loads = Loads::from_counts(1, 8, &[5; 8]).unwrap();
    let text = |cluster: &Cluster, plan: &[i32]| check::score(&loads, cluster, plan).unwrap_err().to_string();
    let rule = "length of physical_to_logical 11 is not layers 1 x slots 12";
    assert_eq!(text(&hierarchical(), &GOOD[..11]), rule);
    assert_eq!(text(&hierarchical(), &[]), rule.replace("11", "0"));
    let few = Cluster::new(4, 1, 1, 4).unwrap();
    assert!(text(&few, &[0, 1, 2, 3]).starts_with("num_replicas 4 is less than the number of experts 8"));
    let ragged = Cluster::new(12, 6, 2, 4).unwrap();
    assert_eq!(text(&ragged, &GOOD), "number of experts 8 is not a multiple of num_groups 6");
}

/// One layer of 3 experts in 5 slots, one free, with lists of 3 places.
type Maps = ([i32; 5], [i32; 9], [u32; 3]);
/// A change, and the rule it breaks.
type MapCase = (fn(&mut Maps), &'static str);
const MAPS: Maps = ([2, 0, -1, 2, 1], [1, -1, -1, 4, -1, -1, 0, 3, -1], [1, 1, 2]);

#[test]
fn maps_that_disagree_are_refused() {
    let refused = |change: fn(&mut Maps)| {
        let mut maps = MAPS;
        change(&mut maps);
        check::check_maps(3, 5, &maps.0, &maps.1, &maps.2).unwrap_err().to_string()
    };
    assert_eq!(check::check_maps(3, 5, &MAPS.0, &MAPS.1, &MAPS.2), Ok(()));
    let cases: [MapCase; 7] = [
        (|m| m.0[1] = 3, "slot 1 holds 3, not an expert in 0..3 or -1"),
        (|m| m.2[2] = 1, "expert 2 has replica count 1 but fills 2 slots"),
        (|m| m.0[2] = 1, "expert 1 has replica count 1 but fills 2 slots"),
        (|m| m.1[3] = 2, "expert 1 lists 2 at place 0, where 4 belongs"),
        (|m| m.1.swap(6, 7), "expert 2 lists 3 at place 0, where 0 belongs"),
        (|m| m.1[8] = 3, "expert 2 lists 3 at place 2, where -1 belongs"),
        (|m| m.1[1] = -2, "expert 0 lists -2 at place 1, where -1 belongs"),
    ];
    for (change, rule) in cases {
        assert_eq!(refused(change), format!("plan is not valid: layer 0: {rule}"));
    }
}

#[test]
fn maps_of_wrong_size_are_refused() {
    let text = |experts, slots, lists: &[i32], counts: &[u32]| {
        check::check_maps(experts, slots, &MAPS.0, lists, counts).unwrap_err().to_string()
    };
    assert!(text(3, 4, &MAPS.1, &MAPS.2).starts_with("length of physical_to_logical 5 "));
    assert!(text(3, 0, &MAPS.1, &MAPS.2).starts_with("length of physical_to_logical 5 "));
    assert!(text(3, 5, &MAPS.1, &MAPS.2[..2]).starts_with("length of replica_counts 2 "));
    assert!(text(0, 5, &MAPS.1, &[]).starts_with("length of replica_counts 0 "));
    assert!(text(3, 5, &MAPS.1[..8], &MAPS.2).starts_with("length of logical_to_physical 8 "));
    assert!(text(3, 5, &[], &MAPS.2).starts_with("length of logical_to_physical 0 "));
    let short = "plan is not valid: layer 0: expert 2 fills 2 slots, its list has room for 1";
    assert_eq!(text(3, 5, &[1, 4, 0], &MAPS.2), short);
}

#[test]
fn more_replicas_of_an_expert_than_it_may_have_are_named() {
    let loads = Loads::from_counts(1, 8, &[5; 8]).unwrap();
    let said = |most: u32| {
        let rules = CheckOptions { max_replicas_per_expert: Some(most), ..CheckOptions::default() };
        check::score_with(&loads, &hierarchical(), &GOOD, &rules).map_err(|error| error.to_string()).err()
    };
    assert_eq!(said(3), None);
    let rule = "plan is not valid: layer 0: expert 6 has 3 replicas: more than max_replicas_per_expert 2";
    assert_eq!(said(2).as_deref(), Some(rule));
}
