//! A serving loop: windows of loads come in, a rebalancer proposes, the loop applies what is worth it.
//!
//! `cargo run --release --example serving_loop`
//!
//! The loads are generated: eight layers of 64 experts whose popularity drifts from window to window.

use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer};
use eplb_wgpu::trace::{Family, Generate, Window};
use eplb_wgpu::{Cluster, DeviceChoice, Error, MaxMoves, MoveLimits, Planner, check};

/// Bytes of one expert's weights: three matrices of 2048 x 1408 in 8 bits, about DeepSeek-V2-Lite's.
const EXPERT_BYTES: u64 = 3 * 2048 * 1408;

fn main() -> Result<(), Error> {
    let trace = Generate {
        family: Family::Lognormal(0.8),
        windows: 24,
        layers: 8,
        experts: 64,
        drift: 0.15,
        seed: 11,
        ..Generate::default()
    }
    .history()?;
    let cluster = Cluster::new(72, 1, 1, 8)?;
    let options = RebalanceOptions {
        limits: MoveLimits { max_moves: Some(MaxMoves::Slots(60)), ..MoveLimits::default() },
        ..RebalanceOptions::default()
    };
    let mut rebalancer = Rebalancer::new(Planner::new(DeviceChoice::Auto)?, cluster.clone(), options)?;

    println!("window  served at  strategy   moved  transfer MB  plan ms");
    for t in 0..trace.windows() {
        let window = trace.loads(Window::Index(t))?;
        // How evenly the plan that runs served this window.
        let served = match rebalancer.running() {
            Some(plan) => check::score(&window, &cluster, plan.physical_to_logical())?.balancedness(),
            None => 0.0,
        };
        rebalancer.observe(window)?;
        let proposal = rebalancer.propose()?;
        let moves = proposal.replan.moves();
        println!(
            "{t:6}  {served:9.4}  {:9}  {:5}  {:11}  {:7.1}",
            proposal.strategy,
            moves.received,
            moves.bytes(EXPERT_BYTES) >> 20,
            proposal.plan().elapsed().as_secs_f64() * 1e3,
        );
        // A real loop transfers weights here, the layers of `proposal.replan.layers_to_move()` in this order.
        rebalancer.apply(proposal.plan().placement().clone())?;
    }
    Ok(())
}
