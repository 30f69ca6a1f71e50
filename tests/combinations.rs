//! Random combinations of what a call may ask for: each gives a plan that keeps all rules and bounds, or is refused by the name
//! of what does not go together.
//!
//! The short form is part of the tests. More of the combinations:
//!
//!     EPLB_COMBINATIONS=20000 cargo test --test combinations

#[allow(dead_code)]
#[path = "oracle/brute_force.rs"]
mod brute_force;
#[path = "combinations/call.rs"]
mod call;
#[allow(dead_code)]
#[path = "oracle/instances.rs"]
mod instances;

use std::collections::BTreeMap;

use approx::relative_eq;
use brute_force::best_capped_load;
use call::{Call, From};
use eplb_wgpu::bound::{BoundOptions, lower_bounds_with};
use eplb_wgpu::check::{self, CheckOptions};
use eplb_wgpu::{
    DeviceChoice, Dispatch, Duplicates, Error, MoveLimits, PARTS, Plan, PlanOptions, Planner, Search, Shares,
};
use instances::Rng;

/// Loads in fixed point are that close to those given, relatively to the heaviest GPU of small layers.
const ROUNDING: f64 = 1e-5;

fn combinations() -> usize {
    std::env::var("EPLB_COMBINATIONS").map_or(1000, |text| text.parse().expect("a number of combinations"))
}

/// The plan of a call, in the numbering of all GPUs.
fn made(planner: &Planner, call: &Call) -> Result<Plan, Error> {
    let Call { loads, options, .. } = call;
    match &call.from {
        From::Nothing => planner.plan(loads, &call.cluster, options),
        From::Running(map) => {
            let limits = MoveLimits::default();
            Ok(planner.replan(loads, &call.cluster, map.clone(), options, &limits)?.plan().clone())
        }
        From::Rest { all, gone, map } => {
            let map = map.clone().with_slots_per_gpu(all.slots_per_gpu())?.without_gpus(gone)?;
            let limits = MoveLimits::default();
            let replan = planner.replan(loads, &call.cluster, map, options, &limits)?;
            replan.plan().with_gone_gpus(all, gone)
        }
    }
}

#[test]
fn every_combination_is_planned_by_all_rules_or_refused_by_name() {
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let mut rng = Rng::new(71);
    // How often each field is refused, and how often each kind of call is planned.
    let (mut refused, mut planned) = (BTreeMap::new(), BTreeMap::new());
    let (mut tiny, mut far) = (0, 0);
    for case in 0..combinations() {
        let call = Call::random(&mut rng);
        let wrong = call.wrong();
        match made(&planner, &call) {
            Ok(plan) => {
                assert_eq!(wrong, [] as [&str; 0], "case {case} is planned: {call:?}");
                assert_plan(case, &planner, &call, &plan);
                let compared = assert_optimum(case, &call, &plan);
                tiny += usize::from(compared.is_some());
                far += usize::from(compared == Some(Compared::Far));
                call.kinds().into_iter().for_each(|kind| *planned.entry(kind).or_insert(0) += 1);
            }
            Err(Error::Invalid { field, value, rule, .. }) => {
                assert!(wrong.contains(&&*field), "case {case}: {field} {value} {rule}: {wrong:?} {call:?}");
                assert!(!value.is_empty() && rule.len() > 10, "case {case}: {field} {value} {rule}");
                *refused.entry(field).or_insert(0) += 1;
            }
            Err(error) => panic!("case {case}: {error} for {call:?}"),
        }
    }
    println!(
        "planned {planned:?}\nrefused {refused:?}\n{tiny} compared with all plans, {far} far from the best"
    );
    // Of nodes whose GPUs are of very unequal speed the group of a hot expert may get the wrong one.
    assert!(far <= tiny / 100, "{far} of {tiny} are far from the best plan");
    assert!(planned.len() == 15 && planned.values().all(|&calls| calls >= 4), "{planned:?}");
    assert!(refused.len() >= 5 && tiny > 60, "{refused:?} {tiny}");
}

/// The rules of the call's cluster and options, by the judge; and equal bytes again.
fn assert_plan(case: usize, planner: &Planner, call: &Call, plan: &Plan) {
    let Call { loads, options, .. } = call;
    let (cluster, map) = (plan.cluster(), plan.physical_to_logical());
    let quality = check::score_with(loads, cluster, map, &rules(call));
    let quality = quality.unwrap_or_else(|error| panic!("case {case}: {error} for {call:?}"));
    let maps = (plan.logical_to_physical(), plan.replica_counts());
    check::check_maps(loads.experts(), cluster.num_slots(), map, maps.0, maps.1).unwrap();
    let most = options.max_replicas_per_expert.unwrap_or(u32::MAX);
    assert!(plan.replica_counts().iter().all(|&count| count <= most), "case {case}: {most} for {call:?}");
    let bounded = BoundOptions {
        max_replicas_per_expert: options.max_replicas_per_expert,
        max_foreign: options.max_foreign,
        ..BoundOptions::default()
    };
    let bounds = lower_bounds_with(loads, cluster, &bounded);
    for (layer, bound) in quality.layers.iter().zip(bounds) {
        assert!(bound <= layer.max_gpu_load * (1.0 + 1e-9), "case {case}: {bound} {layer:?} {call:?}");
        assert!(layer.least_foreign_load <= layer.foreign_load * (1.0 + 1e-9), "case {case}: {layer:?}");
    }
    for (layer, told) in quality.layers.iter().zip(&plan.quality().layers) {
        assert_eq!(layer.max_gpu_load, told.max_gpu_load, "case {case}");
        assert!(told.lower_bound <= layer.max_gpu_load * (1.0 + 1e-9), "case {case}: {told:?}");
    }
    if call.may_part_duplicates() && options.max_foreign == 0 {
        assert_eq!(quality.same_gpu_duplicates(), 0, "case {case}: {call:?}");
    }
    for dispatch in Dispatch::ALL {
        let traffic = plan.traffic(dispatch);
        let sent: f64 = traffic.gpu_loads.iter().sum();
        let given: f64 = loads.values().iter().sum();
        let is_all = relative_eq!(sent, given, epsilon = 1e-6, max_relative = 1e-6);
        assert!(is_all, "case {case}: {sent} of {given}");
    }
    assert_eq!(made(planner, call).unwrap().fingerprint(), plan.fingerprint(), "case {case}");
    assert_shares(case, call, plan);
}

/// The rules of a call's plans, beyond those of the cluster.
fn rules(call: &Call) -> CheckOptions {
    CheckOptions {
        max_foreign: call.options.max_foreign,
        max_replicas_per_expert: call.options.max_replicas_per_expert,
    }
}

/// Tables of shares of the plan sum up, and one for a batch makes no GPU heavier.
fn assert_shares(case: usize, call: &Call, plan: &Plan) {
    let one = call.loads.windows().next().unwrap().clone();
    let (cluster, map) = (plan.cluster(), plan.physical_to_logical());
    let tables = [
        plan.shares(&[one.clone(), one.clone()]),
        plan.shares_with_sample(std::slice::from_ref(&one), &one),
        plan.batch_shares(&one),
        Shares::even(one.experts(), cluster, map),
    ];
    let tables = tables.map(Result::unwrap);
    for table in &tables {
        let whole: u64 = table.parts().iter().map(|&part| u64::from(part)).sum();
        assert_eq!(whole, (one.layers() * one.experts()) as u64 * u64::from(PARTS), "case {case}");
    }
    let rules = rules(call);
    let heaviest =
        |table: &Shares| check::score_shares_with(&one, cluster, map, table.parts(), &rules).unwrap();
    // Even shares come to more or less in 256 parts.
    let even = check::score_with(&one, cluster, map, &rules).unwrap();
    let both = even.layers.iter().zip(heaviest(&tables[3]).layers);
    let even = both.map(|(exact, parts)| exact.max_gpu_load.max(parts.max_gpu_load));
    // Loads over the speed of a slow GPU are rounded as often as loads are.
    let rounding = if cluster.has_equal_speeds() { ROUNDING } else { 1e-3 };
    for (dealt, even) in heaviest(&tables[2]).layers.iter().zip(even) {
        let dealt = dealt.max_gpu_load;
        assert!(dealt <= even * (1.0 + rounding), "case {case}: {dealt} {even} {call:?}");
    }
}

/// How a plan compares with the best one of its layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    Near,
    Far,
}

/// Tiny layers against every plan of them; `None` where they are not tiny.
fn assert_optimum(case: usize, call: &Call, plan: &Plan) -> Option<Compared> {
    let Call { options, row, .. } = call;
    let cluster = plan.cluster();
    let row = row.as_ref().filter(|_| cluster.num_replicas() <= 8 && options.max_foreign == 0)?;
    let may = options.duplicates == Duplicates::Allow || !call.may_part_duplicates();
    let most = options.max_replicas_per_expert.map_or(usize::MAX, |most| most as usize);
    let best = best_capped_load(row, cluster, may, most);
    let bounded =
        BoundOptions { max_replicas_per_expert: options.max_replicas_per_expert, ..BoundOptions::default() };
    let bound = lower_bounds_with(&call.loads, cluster, &bounded)[0];
    assert!(bound <= best * (1.0 + 1e-9), "case {case}: bound {bound}, best {best} {call:?}");
    let found = plan.quality().layers[0].max_gpu_load;
    assert!(found >= best * (1.0 - 1e-9), "case {case}: {found} below {best} {call:?}");
    // The search finds the best plan of most of these.
    let searched = options.search == Search::Trajectory && matches!(call.from, From::Nothing);
    let plain = PlanOptions { dispatch: Dispatch::Equal, connected: false, ..options.clone() };
    let is_searched = searched && plain == *options && call.preset == "default";
    let is_far = is_searched && found > best * 1.35 + 1e-9;
    Some(if is_far { Compared::Far } else { Compared::Near })
}
