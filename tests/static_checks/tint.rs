//! Dawn, the WebGPU of Chromium, as a second opinion beside wgpu and naga: its compiler, Tint, takes every shader,
//! and the plans it makes are the CPU backend's.
//!
//! It is installed by `npm ci --prefix tests/tint`, needs a Vulkan driver that Dawn takes (SwiftShader is one), and
//! is run where `EPLB_REQUIRE_TINT=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use eplb_wgpu::testing::{Grid, Replay, ShaderUnit, shaders};
use eplb_wgpu::{Cluster, DeviceChoice, Loads, PlanOptions, Planner, Preset};
use serde_json::{Value, json};

/// The lines that a script of `tests/tint` prints before the last, which must be `end`: it came to its end.
fn lines_of(script: &str, input: &Value, end: &str) -> Result<Vec<String>, String> {
    let mut child = Command::new("node")
        .arg(crate::root().join("tests/tint").join(script))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("node does not start: {error}"))?;
    let mut stdin = child.stdin.take().expect("its input is piped");
    // Where it ended before it read all, its exit says why.
    let _ = stdin.write_all(input.to_string().as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<String> = said.lines().map(str::to_string).collect();
    if !output.status.success() || lines.pop().as_deref() != Some(end) {
        return Err(format!("{script} failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(lines)
}

/// The complaints of Tint about some shaders, all of them at once: starting Dawn is what takes the time.
fn complaints(units: &[ShaderUnit]) -> Result<Vec<String>, String> {
    let describe = |unit: &ShaderUnit| {
        let constants: serde_json::Map<_, _> =
            unit.constants.iter().map(|&(name, value)| (name.to_string(), value.into())).collect();
        json!({
            "place": format!("shaders/{}.wgsl, {}", unit.stem, unit.entry_point),
            "source": unit.source, "entry_point": unit.entry_point, "constants": constants,
        })
    };
    let input = units.iter().map(describe).collect();
    lines_of("compile.mjs", &input, &format!("compiled {}", units.len()))
}

/// One call of the planner.
struct Case {
    name: &'static str,
    loads: Loads,
    cluster: Cluster,
    options: PlanOptions,
}

/// Texts of the shaders by their stems.
type Sources = BTreeMap<&'static str, String>;

fn sources() -> Sources {
    shaders().into_iter().map(|unit| (unit.stem, unit.source)).collect()
}

/// The cases whose plans by Dawn, from these shaders, are not those of the CPU backend.
fn differing(cases: &[Case], sources: &Sources) -> Result<Vec<&'static str>, String> {
    let cpu = Planner::new(DeviceChoice::Cpu).expect("the CPU backend is always there");
    let cases: Vec<(&Case, Replay)> = cases.iter().map(|case| (case, replay(case))).collect();
    let replays = cases.iter().map(|(_, replay)| described(replay));
    let input = json!({ "shaders": sources, "replays": replays.collect::<Vec<_>>() });
    let lines = lines_of("run.mjs", &input, &format!("ran {}", cases.len()))?;
    assert_eq!(lines.len(), cases.len());
    let mut differing = Vec::new();
    for ((case, replay), line) in cases.iter().zip(&lines) {
        let words: Vec<u32> =
            serde_json::from_str(line).map_err(|error| format!("{}: {error}", case.name))?;
        assert_eq!(words.len() as u64, replay.result.1, "{}", case.name);
        let plan = cpu.plan(&case.loads, &case.cluster, &case.options).expect(case.name);
        let (slots, stops) = replay.plan(&words);
        if slots != plan.physical_to_logical() || stops != plan.stops() {
            differing.push(case.name);
        }
    }
    Ok(differing)
}

fn replay(case: &Case) -> Replay {
    Replay::new(&case.loads, &case.cluster, &case.options).expect(case.name)
}

fn described(replay: &Replay) -> Value {
    let grid = |grid| match grid {
        Grid::Lanes(lanes) => json!(lanes),
        Grid::Queued => json!("queued"),
        Grid::QueuedTeams => json!("queued_teams"),
        Grid::QueuedBlocks => json!("queued_blocks"),
        Grid::QueuedReplicated => json!("queued_several"),
        Grid::QueuedReplicatedBlocks => json!("queued_several_blocks"),
    };
    let dispatches: Vec<_> = replay
        .dispatches
        .iter()
        .map(|d| {
            let constants: serde_json::Map<_, _> =
                d.constants.iter().map(|&(name, value)| (name.to_string(), value.into())).collect();
            json!({ "kernel": d.kernel, "grid": grid(d.grid), "params": d.params, "constants": constants })
        })
        .collect();
    json!({
        "dispatches": dispatches, "problem": replay.problem, "words": replay.words, "result": replay.result,
    })
}

/// Loads without a pattern.
fn loads(layers: usize, experts: usize, seed: u64) -> Loads {
    let load = |at: u64| 1 + (at * 7919 + seed * 104_729) % 1009 * (at % 7 + 1);
    let counts: Vec<u64> = (0..layers * experts).map(|at| load(at as u64)).collect();
    Loads::from_counts(layers, experts, &counts).expect("the shape is right")
}

fn windows(layers: usize, experts: usize) -> Loads {
    let windows: Vec<Loads> = (0..5).map(|window| loads(layers, experts, window)).collect();
    Loads::from_windows(&windows, &[1.0, 2.0, 1.0, 0.0, 4.0]).expect("windows are alike in shape")
}

/// Every shader, kind of move and rule, on shapes that a slow driver plans in seconds.
fn cases() -> Vec<Case> {
    let case = |name, preset: &str, loads, cluster: Result<Cluster, _>| {
        let options = preset.parse::<Preset>().expect(name).options();
        let options = PlanOptions {
            starts: options.starts.min(9),
            iterations: options.iterations.min(60),
            // The host does this, after the shaders.
            three_gpus: 0,
            ..options
        };
        Case { name, loads, cluster: cluster.expect(name), options }
    };
    let hierarchical = || Cluster::new(48, 4, 2, 8);
    let global = || Cluster::with_slots_per_gpu(35, 1, 1, 6, 6);
    let mut cases = vec![
        case("hierarchical: the trajectory", "default", loads(3, 32, 1), hierarchical()),
        case("global, free slots: the trajectory", "default", loads(2, 24, 2), global()),
        case("DeepSeek's rule, hierarchical", "gen00", loads(2, 64, 3), Cluster::new(96, 8, 4, 16)),
        case("DeepSeek's rule, global", "gen00", loads(2, 24, 4), global()),
        case("DeepSeek-V3, one layer", "fast", loads(1, 256, 5), Cluster::new(288, 8, 4, 32)),
        case("bipartition", "gen17", loads(2, 32, 6), hierarchical()),
        case("two objectives, all GPUs", "gen18", loads(2, 24, 7), global()),
        case("starts, no search", "rec5", loads(2, 64, 8), Cluster::new(80, 1, 1, 16)),
        case("repair", "rec3", loads(2, 32, 9), hierarchical()),
        case("groups by variance", "rec4", loads(2, 32, 10), hierarchical()),
        case("pairs of slots exchanged", "rec2", loads(1, 24, 13), global()),
        case("two slots: the counts alone", "default", loads(2, 24, 12), Cluster::new(32, 1, 1, 16)),
        case("windows, hierarchical", "scenarios", windows(2, 32), hierarchical()),
        case("windows, global", "default", windows(1, 24), global()),
    ];
    let sampled = case("sampled assignments", "default", loads(1, 48, 11), Cluster::new(64, 12, 4, 16));
    cases.push(Case { options: PlanOptions { assignments: Some(3), ..sampled.options }, ..sampled });
    cases
}

/// Whether to run it. Not wherever it is installed: Dawn refuses some drivers that wgpu takes.
fn with_tint() -> bool {
    let required = std::env::var("EPLB_REQUIRE_TINT").as_deref() == Ok("1");
    if !required {
        eprintln!("not run: EPLB_REQUIRE_TINT is not 1");
    }
    required
}

mod tests {
    use super::*;
    use crate::fixture::{good, with};

    #[test]
    fn tint_compiles_every_shader() {
        if with_tint() {
            let complaints = complaints(&shaders()).unwrap();
            assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
        }
    }

    #[test]
    fn what_tint_refuses_is_found() {
        if with_tint() {
            // naga lets a barrier depend on loaded values.
            let barrier = "if loads[id.x] > 0u { workgroupBarrier(); }";
            let faulty = [good(), with("workgroupBarrier();", barrier), with("u32, 64>;", "u32, 64>")];
            let complaints = complaints(&faulty).unwrap();
            let about = |part: &str| complaints.iter().any(|complaint| complaint.contains(part));
            assert!(about("'workgroupBarrier' must only be called from uniform"), "{complaints:?}");
            assert!(about("expected ';'"), "{complaints:?}");
            let good = super::complaints(&[good()]).unwrap();
            assert_eq!(good, Vec::<String>::new());
        }
    }

    #[test]
    fn the_cases_for_dawn_run_every_entry_point() {
        let cases = cases();
        let replays: Vec<Replay> = cases.iter().map(replay).collect();
        let ran: BTreeSet<_> =
            replays.iter().flat_map(|replay| &replay.dispatches).map(|d| d.kernel).collect();
        let mut all: BTreeSet<_> = shaders().iter().map(|unit| (unit.stem, unit.entry_point)).collect();
        // Dawn compiles plans over time, tables of shares, foreign replicas and given counts, and runs none: a replay is of a plan from nothing by
        // the stages.
        all.retain(|(stem, entry)| !["replan", "shares", "foreign"].contains(stem) && *entry != "give");
        assert_eq!(ran, all);
    }

    #[test]
    fn dawn_makes_the_plans_of_the_cpu_backend() {
        if with_tint() {
            assert_eq!(differing(&cases(), &sources()).unwrap(), Vec::<&str>::new());
        }
    }

    #[test]
    fn a_plan_by_a_shader_with_another_constant_is_found() {
        if with_tint() {
            let mut sources = sources();
            let pack = sources.get_mut("s4_pack").unwrap();
            let (from, to) = ("PACKING_NOISE_SHIFT: u32 = 3u;", "PACKING_NOISE_SHIFT: u32 = 2u;");
            assert!(pack.contains(from));
            *pack = pack.replace(from, to);
            let mut cases = cases();
            cases.retain(|case| ["DeepSeek's rule, global", "starts, no search"].contains(&case.name));
            assert_eq!(differing(&cases, &sources).unwrap(), ["starts, no search"]);
        }
    }
}
