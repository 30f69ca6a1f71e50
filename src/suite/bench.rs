//! The benchmark suite: the same cases on every device, some seconds each on a software driver.

use std::collections::BTreeMap;
use std::time::Duration;

use web_time::Instant;

use super::record::{BatchRecord, Case, Device, Record};
use crate::profile::{self, Profiler, StageTimes};
use crate::trace::{Family, Generate, Window};
use crate::{Cluster, DeviceChoice, DeviceInfo, Error, Loads, PlanOptions, Planner, Preset, devices_async};

/// Layers, experts, replicas, groups, nodes, GPUs; presets.
type Shape = (usize, usize, [usize; 4], &'static [Preset]);

/// Few layers each: software drivers must come to an end.
const SHAPES: [Shape; 5] = [
    (16, 256, [288, 8, 4, 32], &[Preset::GREEDY, Preset::FAST, Preset::DEFAULT, Preset::REC2]),
    (4, 256, [288, 1, 1, 32], &[Preset::GREEDY, Preset::FAST]),
    (4, 256, [288, 1, 1, 72], &[Preset::FAST]),
    (24, 32, [40, 1, 1, 8], &[Preset::FAST, Preset::DEFAULT]),
    (2, 1024, [1152, 1, 1, 128], &[Preset::GREEDY, Preset::FAST]),
];

/// Plans of a case after the first; one alone where that took longer than this, and its stages are not timed.
const LATER: usize = 3;
const LONG: Duration = Duration::from_secs(2);

/// Starts of the batch.
const BATCH_STARTS: u32 = 4;

/// One case: what is planned.
struct Problem {
    name: String,
    preset: Preset,
    loads: Loads,
    cluster: Cluster,
    options: PlanOptions,
}

/// The fixed batch, with what the CPU backend made of it.
struct Fixed {
    batch: profile::Batch,
    stages: StageTimes,
}

/// The progress of the suite, told before each plan too: the first one may take a device long.
pub struct Told<'a> {
    /// Steps that are done.
    pub done: usize,
    /// Of how many.
    pub all: usize,
    /// The step that runs now.
    pub now: &'a str,
    /// The device so far.
    pub device: &'a Device,
}

/// Who is told.
pub type Tell<'a> = &'a mut dyn FnMut(Told<'_>);

/// The steps of a run.
struct RunSteps<'a> {
    done: usize,
    all: usize,
    tell: Tell<'a>,
}

impl RunSteps<'_> {
    /// The step that runs now, after `done` more steps.
    fn tell(&mut self, done: usize, now: &str, device: &Device) {
        self.done += done;
        (self.tell)(Told { done: self.done, all: self.all, now, device });
    }
}

/// Runs the suite on one device, or on every adapter and the CPU backend; of its cases those whose name or preset has
/// `only` in it. Says too whether a device failed; its record says why.
///
/// # Errors
/// Where the device that was asked for is not there, or no case has `only`.
pub async fn run(choice: Option<DeviceChoice>, only: &str, tell: Tell<'_>) -> Result<(Record, bool), Error> {
    // Of all adapters one may refuse to open; one that was asked for may not.
    let subjects: Vec<(DeviceChoice, Option<DeviceInfo>)> = match choice {
        Some(choice) => vec![(choice, None)],
        None => {
            let adapters = devices_async().await.into_iter().enumerate();
            let adapters = adapters.map(|(at, info)| (DeviceChoice::Index(at), Some(info)));
            adapters.chain([(DeviceChoice::Cpu, None)]).collect()
        }
    };
    let mut problems = problems()?;
    let options = PlanOptions { starts: BATCH_STARTS, ..PlanOptions::default() };
    let batch = profile::Batch::new(&problems[0].loads, &problems[0].cluster, &options)?;
    let stages = batch.on_cpu();
    let fixed = Fixed { batch, stages };
    problems.retain(|problem| problem.name.contains(only) || problem.preset.name().contains(only));
    if problems.is_empty() {
        return Err(Error::invalid(
            "only",
            format!("{only:?}"),
            "is in the name of no case and no preset of it",
        ));
    }
    let mut steps = RunSteps { done: 0, all: subjects.len() * (2 * problems.len() + 1), tell };
    let (mut devices, mut failed) = (Vec::new(), false);
    for (choice, info) in subjects {
        let device = match (measure(&choice, &problems, &fixed, &mut steps).await, &info) {
            (Err(error), Some(info)) => Device { error: Some(error.to_string()), ..described(info) },
            (device, _) => device?,
        };
        failed |= has_failed(&device, info.as_ref());
        devices.push(device);
    }
    Ok((Record::new(devices), failed))
}

/// An adapter that was known to lack what every plan needs has not failed.
fn has_failed(device: &Device, info: Option<&DeviceInfo>) -> bool {
    device.error.is_some() && info.is_none_or(|info| info.unusable_because.is_none())
}

fn problems() -> Result<Vec<Problem>, Error> {
    let mut problems = Vec::new();
    for (layers, experts, [replicas, groups, nodes, gpus], presets) in SHAPES {
        let family = Family::Lognormal(0.6);
        let loads = Generate { family, layers, experts, ..Generate::default() }.history()?;
        let loads = loads.loads(Window::Sum)?;
        let cluster = Cluster::new(replicas, groups, nodes, gpus)?;
        let name =
            format!("{layers} x {experts}, {replicas} replicas, {gpus} GPUs, {}", cluster.policy().name());
        for &preset in presets {
            problems.push(Problem {
                name: name.clone(),
                preset,
                loads: loads.clone(),
                cluster: cluster.clone(),
                options: preset.options(),
            });
        }
    }
    Ok(problems)
}

async fn measure(
    choice: &DeviceChoice,
    problems: &[Problem],
    fixed: &Fixed,
    steps: &mut RunSteps<'_>,
) -> Result<Device, Error> {
    let start = Instant::now();
    let planner = Planner::new_async(choice.clone()).await?;
    let mut device = Device { open_ms: Some(milliseconds(start)), ..described(planner.device()) };
    for problem in problems {
        match plans(&planner, problem, &mut |now| steps.tell(0, now, &device)).await {
            Ok(case) => device.cases.push(case),
            Err(error) => {
                device.error = Some(error.to_string());
                return Ok(device);
            }
        }
        steps.tell(1, "the next", &device);
    }
    steps.tell(0, "a fixed batch", &device);
    match Profiler::new(choice).await? {
        None => {
            let total = fixed.stages.iter().map(|(_, time)| time.as_secs_f64() * 1e3).sum();
            device.batch = Some(fixed.record(total, Some(&fixed.stages)));
        }
        Some(profiler) => {
            let stages = time_stages(&mut device, &profiler, problems, fixed, steps).await;
            device.error = stages.err().map(|error| error.to_string());
        }
    }
    Ok(device)
}

/// A device's own measurements: its clock and its memory.
async fn time_stages(
    device: &mut Device,
    profiler: &Profiler,
    problems: &[Problem],
    fixed: &Fixed,
    steps: &mut RunSteps<'_>,
) -> Result<(), Error> {
    // The first run pays for what later ones reuse.
    fixed.batch.on_device(profiler).await?;
    let (stages, total) = fixed.batch.on_device(profiler).await?;
    let stages = profiler.is_timed().then_some(&stages);
    device.batch = Some(fixed.record(total.as_secs_f64() * 1e3, stages));
    steps.tell(1, "stages", device);
    for (at, problem) in problems.iter().enumerate() {
        let is_long = |case: &Case| case.first_ms > LONG.as_secs_f64() * 1e3;
        if !device.cases.get(at).is_some_and(is_long) {
            let stages = profiler.plan(&problem.loads, &problem.cluster, &problem.options).await?;
            if let Some(case) = device.cases.get_mut(at) {
                case.stages_ms = profiler.is_timed().then(|| by_stage(&stages));
            }
        }
        steps.tell(1, "stages", device);
    }
    device.device_bytes = Some(profiler.device_bytes().await);
    Ok(())
}

/// The first plan of a case, and later ones; tells before each.
async fn plans(planner: &Planner, problem: &Problem, tell: &mut dyn FnMut(&str)) -> Result<Case, Error> {
    let mut times: Vec<f64> = Vec::new();
    let mut fingerprints = Vec::new();
    let preset = problem.preset.name();
    while times.len() <= LATER && (times.len() < 2 || times[0] <= LONG.as_secs_f64() * 1e3) {
        tell(&format!("{}, {preset}, plan {}", problem.name, times.len() + 1));
        let plan = planner.plan_here(&problem.loads, &problem.cluster, &problem.options).await?;
        if let Some(warning) = plan.warnings().first() {
            return Err(Error::Device { device: planner.device().label(), reason: warning.clone() });
        }
        times.push(plan.elapsed().as_secs_f64() * 1e3);
        fingerprints.push(format!("{:016x}", plan.fingerprint()));
    }
    // All are equal, or the one that is not is the one to show.
    let odd = fingerprints.iter().find(|fingerprint| **fingerprint != fingerprints[0]);
    let fingerprint = odd.unwrap_or(&fingerprints[0]).clone();
    times[1..].sort_by(f64::total_cmp);
    Ok(Case {
        case: problem.name.clone(),
        preset: problem.preset.name().to_string(),
        fingerprint,
        first_ms: rounded(times[0]),
        later_ms: rounded(times[1 + (times.len() - 1) / 2]),
        stages_ms: None,
    })
}

impl Fixed {
    fn record(&self, total_ms: f64, stages: Option<&StageTimes>) -> BatchRecord {
        let stages_ms = stages.map(by_stage);
        let search = stages_ms.as_ref().and_then(|stages| stages.get("s5_search")).filter(|ms| **ms > 0.0);
        BatchRecord {
            candidates: self.batch.candidates(),
            total_ms: rounded(total_ms),
            candidates_per_second: search.map(|ms| (self.batch.candidates() as f64 / ms * 1e3).round()),
            stages_ms,
        }
    }
}

fn by_stage(stages: &StageTimes) -> BTreeMap<String, f64> {
    stages.iter().map(|(stem, time)| (stem.to_string(), rounded(time.as_secs_f64() * 1e3))).collect()
}

/// The description of a device, before anything ran on it.
fn described(info: &DeviceInfo) -> Device {
    Device {
        name: info.name.clone(),
        backend: info.backend.clone(),
        kind: info.kind.clone(),
        software: info.is_software,
        driver: info.driver.clone(),
        driver_info: info.driver_info.clone(),
        features: info.features.clone(),
        limits: info.limits.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
        error: info.unusable_because.clone(),
        open_ms: None,
        cases: Vec::new(),
        batch: None,
        device_bytes: None,
    }
}

fn milliseconds(start: Instant) -> f64 {
    rounded(start.elapsed().as_secs_f64() * 1e3)
}

/// To a microsecond: more digits are noise.
fn rounded(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_fails_is_told_from_one_that_cannot_be_used() {
        let usable = crate::auto_device();
        let usable = DeviceInfo { unusable_because: None, ..usable };
        let unusable = DeviceInfo { unusable_because: Some("no compute shaders".into()), ..usable.clone() };
        let broken = Device { error: Some("device lost".into()), ..described(&usable) };
        assert!(!has_failed(&described(&usable), Some(&usable)));
        assert!(has_failed(&broken, Some(&usable)));
        // A device that was asked for by name.
        assert!(has_failed(&broken, None));
        assert!(!has_failed(&described(&unusable), Some(&unusable)));
    }
}
