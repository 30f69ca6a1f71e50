//! A serving loop: it starts from the plan that ran before a restart, loses a GPU, and gets one back.
//!
//! `cargo run --release --example serving_loop`
//!
//! The loads are generated: eight layers of 64 experts whose popularity drifts from window to window. Each line is what an
//! operator would graph of a window; the last ones are what Prometheus would scrape.

use eplb_wgpu::rebalance::{RebalanceOptions, Rebalancer};
use eplb_wgpu::trace::{Family, Generate, PlanFile, Window, plan_bytes};
use eplb_wgpu::{Cluster, DeviceChoice, Error, PlanOptions, Planner, PreviousMap};

/// Bytes of one expert's weights: three matrices of 2048 x 1408 in 8 bits, about DeepSeek-V2-Lite's.
const EXPERT_BYTES: u64 = 3 * 2048 * 1408;

/// Slots of each GPU.
const SLOTS: usize = 10;

/// The window at whose end GPU 5 fails, and the one at whose end another GPU comes.
const FAILS: usize = 10;
const COMES: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
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
    let planner = Planner::new(DeviceChoice::Auto)?;
    let eight = Cluster::with_slots_per_gpu(80, 1, 1, 8, SLOTS)?;
    let seven = Cluster::with_slots_per_gpu(70, 1, 1, 7, SLOTS)?;

    // Before the restart a plan ran, and its file was kept (`eplb plan --out`, or `trace::write_plan`).
    let before = planner.plan(&trace.loads(Window::Index(0))?, &eight, &PlanOptions::default())?;
    let kept = plan_bytes(&before);

    // By default a step moves at most 5 % of the slots for balance. Slots that must move, as after a failure, come on top.
    let mut rebalancer = Rebalancer::new(planner, eight.clone(), RebalanceOptions::default())?;
    let restored = PlanFile::parse(&kept)?;
    rebalancer.apply(restored.previous_map())?;

    println!("window  GPUs  served at  expected  moved  must move  transfer MB  plan ms");
    for t in 1..trace.windows() {
        rebalancer.observe(trace.loads(Window::Index(t))?)?;
        let running = rebalancer.running().cloned();
        match (t, running) {
            (FAILS, Some(map)) => rebalancer.change_cluster(seven.clone(), without(map, 5)?)?,
            // The new GPU is the last one, and holds nothing yet.
            (COMES, Some(map)) => rebalancer.change_cluster(eight.clone(), map)?,
            _ => {}
        }
        let proposal = rebalancer.propose()?;
        let (moves, status) = (proposal.replan.moves(), rebalancer.status());
        println!(
            "{t:6}  {:4}  {:>9}  {:8.4}  {:5}  {:9}  {:11}  {:7.1}",
            proposal.plan().cluster().num_gpus(),
            status.balancedness.map_or("-".into(), |served| format!("{served:.4}")),
            status.expected_balancedness.unwrap_or(0.0),
            moves.received,
            moves.repairs,
            moves.bytes(EXPERT_BYTES) >> 20,
            status.last_plan.as_secs_f64() * 1e3,
        );
        // A real loop transfers weights here, the layers of `proposal.replan.layers_to_move()` in this order. No GPU has the
        // experts of `proposal.replan.lost()` any more: their weights come from disk.
        if !proposal.replan.lost().is_empty() {
            println!("        {} experts come from disk", proposal.replan.lost().len());
        }
        rebalancer.apply(proposal.plan().placement().clone())?;
    }
    println!("\n{}", rebalancer.status().prometheus());
    Ok(())
}

/// The map of the GPUs that remain.
fn without(map: PreviousMap, gpu: usize) -> Result<PreviousMap, Error> {
    map.with_slots_per_gpu(SLOTS)?.without_gpus(&[gpu])
}
