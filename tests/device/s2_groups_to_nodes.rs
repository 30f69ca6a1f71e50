use super::*;
use crate::layout::words::node;

#[test]
fn chosen_assignments_and_node_loads_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(60) {
        let bench = Bench::new(1000 + seed);
        let base = &bench.layout.base;
        let recording = bench.record_to_nodes();
        let each = (base.groups + 1) as usize;
        let lists = (base.assignments + 2) as usize;
        let words = (base.layers as usize * lists * each) as u64;
        let begin = u64::from(base.at_chosen);
        let chosen = bench.run(gpu, &recording, Part::Groups { begin, words });
        let words = u64::from(base.layers * base.experts);
        let node_loads = bench.run(gpu, &recording, Part::Results { begin: 0, words });
        let words = u64::from(base.layers * base.nodes * node::WORDS);
        let states =
            bench.run(gpu, &recording, Part::Results { begin: u64::from(base.at_node_state), words });
        let bounds: Vec<u32> =
            states.chunks_exact(node::WORDS as usize).map(|state| state[node::BOUND]).collect();
        let (mut expected_loads, mut expected_bounds) = (Vec::new(), Vec::new());
        for layer in 0..base.layers {
            let mut group_loads = Vec::new();
            mirror_s1::group_loads(&bench.params, bench.loads(layer), &mut group_loads);
            let assignments = bench.assignments(layer);
            let mut greedy = mirror_s2::greedy(&bench.params, bench.loads(layer), &group_loads);
            if bench.params.group_rule == GroupRule::BestFirst && greedy == assignments[0] {
                // Not tried twice.
                greedy = Assignment { groups: Vec::new(), bound: u32::MAX };
            }
            let found = &chosen[layer as usize * lists * each..(layer as usize + 1) * lists * each];
            let places = (0..assignments.len()).chain([base.assignments as usize]);
            for (place, assignment) in places.zip(assignments.iter().chain([&greedy])) {
                let expected: Vec<u32> =
                    [assignment.bound].iter().chain(&assignment.groups).copied().collect();
                let found = &found[place * each..][..expected.len()];
                assert_same("assignment", bench.case.seed, &expected, found);
            }
            for groups in assignments[0].groups.chunks_exact(base.node_groups as usize) {
                let mut loads = Vec::new();
                mirror_bound::node_loads(&bench.params, groups, bench.loads(layer), &mut loads);
                let bound = assignments[0].bound.max(mirror_gather::node_bound(&bench.params, &loads));
                expected_bounds.push(bound);
                expected_loads.extend(loads);
            }
        }
        assert_same("node loads", bench.case.seed, &expected_loads, &node_loads);
        assert_same("node bounds", bench.case.seed, &expected_bounds, &bounds);
    }
}

#[test]
fn assignments_floors_and_node_loads_of_several_windows_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(40) {
        let bench = Bench::with_windows(1100 + seed);
        let base = &bench.layout.base;
        let recording = bench.record_to_nodes();
        let (groups, each) = (base.groups as usize, 4 * base.quads as usize);
        let words = u64::from(base.layers) * 3 * (groups as u64 + 1);
        let chosen = bench.run(gpu, &recording, Part::Groups { begin: u64::from(base.at_chosen), words });
        let words = u64::from(base.layers * base.experts) * each as u64;
        let node_loads =
            bench.run(gpu, &recording, Part::Results { begin: u64::from(base.at_node_windows), words });
        let words = u64::from(base.layers) * each as u64;
        let floors = bench.run(gpu, &recording, Part::Results { begin: u64::from(base.at_floors), words });
        let (mut expected_loads, mut expected_floors) = (Vec::new(), Vec::new());
        for layer in 0..base.layers {
            let (assignment, floors) = bench.windows_assignment(layer);
            let expected: Vec<u32> =
                [assignment.bound].into_iter().chain(assignment.groups.clone()).collect();
            let found = &chosen[layer as usize * 3 * (groups + 1)..];
            assert_same("assignment", bench.case.seed, &expected, &found[..groups + 1]);
            let padding = each - floors.len();
            expected_floors.extend(floors.into_iter().chain(std::iter::repeat_n(0, padding)));
            for groups in assignment.groups.chunks_exact(base.node_groups as usize) {
                let mut loads = Vec::new();
                mirror_gather::lay_windows(&bench.params, groups, &bench.rows(layer), &mut loads);
                for expert in loads.chunks_exact(base.windows as usize) {
                    expected_loads.extend_from_slice(expert);
                    expected_loads.extend(std::iter::repeat_n(0, each - expert.len()));
                }
            }
        }
        assert_same("floors", bench.case.seed, &expected_floors, &floors);
        assert_same("node loads of windows", bench.case.seed, &expected_loads, &node_loads);
    }
}
