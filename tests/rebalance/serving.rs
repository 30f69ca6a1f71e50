//! The object of a serving loop, replays and forecasts.

use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer, ReplayOptions, Strategy, forecast, replay};
use eplb_wgpu::{Cluster, Loads, Placement};

use crate::{drifting, planner};

#[test]
fn the_rebalancer_repeats_itself() {
    let trace = drifting(8, 2, 32, 0.3, 9);
    let cluster = Cluster::new(40, 1, 1, 8).unwrap();
    let run = || {
        let mut rebalancer =
            Rebalancer::new(planner(), cluster.clone(), RebalanceOptions::default()).unwrap();
        let error = rebalancer.propose().unwrap_err().to_string();
        assert_eq!(error, "windows observed 0 is not at least 1");
        let mut prints = Vec::new();
        for window in &trace {
            rebalancer.observe(window.clone()).unwrap();
            let proposal = rebalancer.propose().unwrap();
            rebalancer.apply(proposal.plan().placement()).unwrap();
            prints.push((proposal.plan().fingerprint(), *proposal.replan.moves()));
        }
        assert!(prints.iter().all(|(_, moves)| moves.share() <= 0.05 && moves.repairs == 0));
        assert!(prints.iter().any(|(_, moves)| moves.received > 0));
        prints
    };
    assert_eq!(run(), run());
    let mut rebalancer = Rebalancer::new(planner(), cluster.clone(), RebalanceOptions::default()).unwrap();
    rebalancer.observe(trace[0].clone()).unwrap();
    assert!(rebalancer.observe(drifting(1, 3, 32, 0.0, 1).remove(0)).is_err());
    for bad in [
        RebalanceOptions { windows: 17, ..RebalanceOptions::default() },
        RebalanceOptions { decay: 0.0, ..RebalanceOptions::default() },
        RebalanceOptions { forecast_windows: 0, ..RebalanceOptions::default() },
    ] {
        assert!(Rebalancer::new(planner(), cluster.clone(), bad).is_err());
    }
}

#[test]
fn replays_compare_with_an_oracle_the_greedy_rule_and_staying() {
    let trace = drifting(6, 2, 32, 0.3, 33);
    let cluster = Cluster::new(40, 1, 1, 8).unwrap();
    let mut setup = ReplayOptions {
        strategies: vec![Strategy::Forecast],
        interval: 2,
        options: RebalanceOptions { fresh: true, ..RebalanceOptions::default() },
        ..ReplayOptions::default()
    };
    let mut steps = 0;
    let rows = replay(&planner(), &trace, &cluster, &setup, |plan| {
        steps += 1;
        assert_eq!(plan.layers(), 2);
    });
    let rows = rows.unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["forecast", "oracle", "greedy", "never move"]);
    assert_eq!(steps, 4 * 5);
    for row in &rows {
        assert_eq!(row.balancedness.scores.len(), 5);
        assert!(rows[1].balancedness.mean() >= row.balancedness.mean(), "{} beats the oracle", row.name);
    }
    // Plans after windows 0, 2 and 4, the first of which moves nothing.
    assert_eq!((rows[0].milliseconds.scores.len(), rows[0].moved.scores.len()), (3, 2));
    assert!(rows[3].moved.scores.is_empty() && rows[2].moved.mean() > 0.3);
    setup.interval = 0;
    assert!(replay(&planner(), &trace, &cluster, &setup, |_| {}).is_err());
    setup.interval = 1;
    assert!(replay(&planner(), &trace[..1], &cluster, &setup, |_| {}).is_err());
}

#[test]
fn forecasts_keep_the_shape_and_refuse_another() {
    let trace = drifting(5, 3, 16, 0.2, 2);
    let next = forecast(&trace).unwrap();
    assert_eq!((next.layers(), next.experts()), (3, 16));
    let other = drifting(1, 3, 8, 0.0, 2).remove(0);
    assert!(forecast(&[other, trace[0].clone()]).is_err());
}

/// A loop that restores its running plan before it has seen a window.
#[test]
fn a_restored_plan_of_another_model_is_refused_when_the_first_window_tells() {
    let cluster = Cluster::new(6, 1, 1, 3).unwrap();
    let mut rebalancer = Rebalancer::new(planner(), cluster, RebalanceOptions::default()).unwrap();
    rebalancer.apply(Placement::new(6, 6, (0..6).collect()).unwrap()).unwrap();
    let error = rebalancer.observe(drifting(1, 1, 4, 0.0, 1).remove(0)).unwrap_err().to_string();
    assert_eq!(error, "experts of the previous plan 6 is not the number of experts, 4");
    let two = Loads::from_windows(&drifting(2, 1, 6, 0.1, 1), &[1.0, 1.0]).unwrap();
    assert!(rebalancer.observe(two).unwrap_err().to_string().starts_with("windows of the window 2"));
    rebalancer.observe(drifting(1, 1, 6, 0.0, 1).remove(0)).unwrap();
    assert!(rebalancer.propose().is_ok());
}
