use super::*;

#[test]
fn group_loads_and_ranks_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(40) {
        let bench = Bench::new(seed);
        let base = &bench.layout.base;
        let mut recording = Recording::default();
        stages::s1_group_loads::record(&mut recording, base);
        let words = u64::from(base.layers * base.groups);
        let found = bench.run(gpu, &recording, Part::Groups { begin: 0, words: 2 * words });
        let mut expected = Vec::new();
        let mut ranks = Vec::new();
        for layer in 0..base.layers {
            let mut loads = Vec::new();
            mirror_s1::group_loads(&bench.params, bench.loads(layer), &mut loads);
            let mut order: Vec<u32> = (0..base.groups).collect();
            order.sort_by_key(|&g| std::cmp::Reverse(loads[g as usize]));
            expected.extend(loads);
            ranks.extend(order);
        }
        expected.extend(ranks);
        assert_same("group loads and ranks", seed, &expected, &found);
    }
}

#[test]
fn group_loads_of_several_windows_equal_the_mirror() {
    let Some(gpu) = planner().and_then(Planner::gpu) else { return };
    for seed in 0..cases(20) {
        let bench = Bench::with_windows(seed);
        let base = &bench.layout.base;
        let mut recording = Recording::default();
        stages::s1_group_loads::record(&mut recording, base);
        let (begin, each) = (u64::from(base.at_window_groups), 4 * base.quads as usize);
        let words = u64::from(base.layers * base.groups) * each as u64;
        let found = bench.run(gpu, &recording, Part::Groups { begin, words });
        let mut expected = vec![0; words as usize];
        for layer in 0..base.layers {
            for (window, row) in bench.rows(layer).into_iter().enumerate() {
                let mut loads = Vec::new();
                mirror_s1::group_loads(&bench.params, row, &mut loads);
                for (group, load) in loads.into_iter().enumerate() {
                    expected[(layer as usize * base.groups as usize + group) * each + window] = load;
                }
            }
        }
        assert_same("group loads of windows", seed, &expected, &found);
    }
}
