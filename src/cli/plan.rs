//! `eplb plan`: its options, and what it does with them.

mod made;
mod shown;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::compared::MapScores;
use super::presets::{is_lineage, parse_preset, presets};
use super::progress::ShownProgress;
use super::speeds::Gone;
use super::traffic::parse_dispatch;
use super::{
    FilePart, ForeignArgs, MoveLimitArgs, Outlook, bound_effort, complain, format_of, io, parse_format,
    print, speeds, words,
};
use crate::maps::{MapFile, PlanFormat, bytes_of_plan};
use crate::rebalance::Strategy;
use crate::{Cluster, DeviceChoice, Dispatch, Error, Fallback, Policy, Preset, PreviousMap};

#[derive(Args)]
#[command(after_help = "Examples:
  eplb plan loads.json --replicas 288 --groups 8 --nodes 4 --gpus 32 --out plan.json
  eplb plan a.json b.json --weights 2,1 --replicas 288 --gpus 32     one plan for several workloads
  eplb plan loads.npy --replicas 288 --gpus 32 --out map.json --format vllm-ascend
  eplb plan now.json --previous plan.json --max-moves 5%             few slots of the plan that runs move
  zcat loads.csv.gz | eplb plan - --replicas 288 --gpus 32 --out -  the plan on standard output

Loads are tokens, or anything in proportion to them: .json, .jsonl, .csv, .npy, .npz, each as .gz too, a folder of
TensorRT-LLM's statistics or of Megatron's traces, or - for standard input. A file may have 4 GiB and 2^28 loads. A load
takes 4 bytes of memory (8 where one is a fraction or not below 2^32); but for .npy the file is in memory, too.
Exit codes: 0 planned, 2 bad input or a file that could not be read or written.")]
pub struct Plan {
    /// Load files (needed); one plan for all of them where there are several; - is standard input
    loads: Vec<PathBuf>,
    /// Weights of several load files, in their order: 1,2,1
    #[arg(long, value_delimiter = ',')]
    weights: Option<Vec<f64>>,
    /// How the windows of the file are used: planned for together (scenarios), or as a forecast of the next one
    #[arg(long, value_parser = parse_strategy(), conflicts_with_all = ["window", "weights"])]
    strategy: Option<Strategy>,
    #[command(flatten)]
    outlook: Outlook,
    /// The plan or map that runs, in any format of `eplb convert`: the new one starts from it
    #[arg(long)]
    previous: Option<PathBuf>,
    #[command(flatten)]
    limits: MoveLimitArgs,
    /// Bytes of an expert's weights, as 44040192 or 42MiB, to tell what must be transferred
    #[arg(long, default_value_t = 0, value_parser = words::parse_bytes)]
    expert_bytes: u64,
    #[command(flatten)]
    part: FilePart,
    /// Replicas of a layer, all GPUs together (needed) [default with --previous: the slots of the GPUs that remain]
    #[arg(long)]
    replicas: Option<usize>,
    /// GPUs, all nodes together (needed), those that are gone among them [default with --previous: those of the plan file]
    #[arg(long)]
    gpus: Option<usize>,
    /// Speed of each GPU, in any unit: 1,1,0.5, or a file of such numbers; 0 is a GPU that is gone [default: all equal; with
    /// --previous: those of the plan file, where its GPUs that are gone are back at full speed]
    #[arg(long, value_name = "SPEEDS", allow_hyphen_values = true)]
    gpu_speeds: Option<String>,
    /// GPUs of the previous plan that are gone: 3,7
    #[arg(long, value_delimiter = ',', requires = "previous")]
    without_gpus: Vec<usize>,
    /// Groups of experts that are routed together: where they are a multiple of the nodes, a node holds whole groups
    /// [default: 1; with --previous, groups and nodes of the plan file, where the GPUs divide among its nodes]
    #[arg(long)]
    groups: Option<usize>,
    /// Nodes [default: 1, or as --groups says]
    #[arg(long)]
    nodes: Option<usize>,
    /// Slots on a GPU, where some may stay free [default: replicas / GPUs]
    #[arg(long)]
    slots_per_gpu: Option<usize>,
    /// auto, cpu, gpu, an index or a part of a name (see `eplb devices`)
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Where the device fails: cpu has the CPU backend make the same plan, with a warning; never fails
    #[arg(long, default_value = "cpu", value_parser = parse_fallback())]
    fallback: Fallback,
    /// The search of a plan from nothing, and how long it goes on; help tells of each [default: default for one window, scenarios for several]
    #[arg(long, value_parser = parse_preset())]
    preset: Option<String>,
    /// Starts of a node at most, 1 to 65536: all but the first draw some of their choices [default: the preset's]
    #[arg(long)]
    starts: Option<u32>,
    /// Iterations of a start at most, 0 to 1048576 [default: the preset's]
    #[arg(long)]
    iterations: Option<u32>,
    /// Group assignments tried a layer at most, 1 to 1024 [default: all that could win]
    #[arg(long)]
    assignments: Option<u32>,
    /// The most replicas of an expert [default: as many as help]
    #[arg(long)]
    max_replicas_per_expert: Option<u32>,
    /// Connect the GPUs of a node (of the cluster, where nodes hold no whole groups) by replicas of one expert, so
    /// that `eplb split --batch` can level them
    #[arg(long)]
    connected: bool,
    #[command(flatten)]
    foreign: ForeignArgs,
    /// Threads of the whole run, on the CPU backend, 1 to 1024 [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Seconds after which the plan is what it is: layers that are not planned by then have the greedy plan, and another
    /// run may give another plan
    #[arg(long, value_parser = super::parse_seconds, conflicts_with_all = ["strategy", "previous"])]
    time_limit: Option<std::time::Duration>,
    /// Seed of everything that is drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Let a GPU hold an expert twice, as the planners of DeepSeek and vLLM do
    #[arg(long)]
    allow_duplicates: bool,
    /// How serving deals the tokens of an expert to its replicas: equal; nearest (own GPU, else own node, else all); own-gpu
    /// (own GPU, else whole GPUs to replicas in turn). Plans are judged by it where --nodes are known and --groups no
    /// multiple of them [default: equal]
    #[arg(long, value_parser = parse_dispatch())]
    dispatch: Option<Dispatch>,
    /// A closer bound of 2 and 3 slots a GPU, for some fifty times the work
    #[arg(long)]
    tight_bound: bool,
    /// File to write, in the format of its ending (.json: a plan file; .yaml: tensorrt-llm; .npy); - is standard output
    #[arg(long)]
    out: Option<PathBuf>,
    /// Format of the file to write
    #[arg(long, value_parser = parse_format(), requires = "out")]
    format: Option<PlanFormat>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The map in that object too, as physical_to_logical: [layers][slots], -1 where a slot is free
    #[arg(long, requires = "json")]
    with_map: bool,
    /// The load of each GPU in that object too, in the unit of the loads, as gpu_loads: [layers][gpus], and of each of several
    /// loads alone in windows
    #[arg(long, requires = "json")]
    with_gpu_loads: bool,
    // The names of two of the options above in other programs.
    #[arg(long, hide = true)]
    restarts: Option<String>,
    #[arg(long, hide = true)]
    kicks: Option<String>,
}

impl Plan {
    /// How many threads are asked for.
    pub fn threads(&self) -> Option<usize> {
        self.threads
    }

    /// Groups and nodes as given, else those of the plan file that runs.
    fn wanted(&self, of_plan: Option<&Cluster>) -> (usize, usize) {
        let told = of_plan.filter(|_| self.groups.is_none() && self.nodes.is_none());
        let given = (self.groups.unwrap_or(1), self.nodes.unwrap_or(1));
        told.map_or(given, |cluster| (cluster.num_groups(), cluster.num_nodes()))
    }

    /// The groups and nodes that are wanted; those of a plan file that runs only where the GPUs that remain divide among its nodes.
    fn groups_and_nodes(
        &self,
        wanted: (usize, usize),
        gone: &Gone,
        gpus: usize,
    ) -> Result<(usize, usize), Error> {
        let found = gone.groups_and_nodes(gpus, wanted);
        if self.groups.is_none() && self.nodes.is_none() {
            return Ok(found.ok().filter(|_| gpus.is_multiple_of(wanted.1)).unwrap_or((1, 1)));
        }
        found
    }

    /// The experts of a layer; 1 where the loads cannot be read. An error about replicas offers numbers that hold them all.
    fn experts(&self) -> usize {
        let loads = self.loads.first().and_then(|file| self.part.read(file).ok());
        loads.map_or(1, |loads| loads.experts())
    }

    pub fn run(self) -> Result<ExitCode, Error> {
        if self.preset.as_deref() == Some("help") {
            print(&presets());
            return Ok(ExitCode::SUCCESS);
        }
        if self.loads.is_empty() {
            return Err(words::needed("LOADS", "a load file, or - for standard input"));
        }
        let runs = self.previous.as_deref().map(|path| io::read_map(path, None)).transpose()?;
        let rules = runs.as_ref().map(MapFile::rules).unwrap_or_default();
        let of_plan = runs.as_ref().and_then(MapFile::plan).map(|plan| &plan.cluster);
        let gpus = self.gpus.or(of_plan.map(Cluster::num_gpus));
        let gpus = gpus.ok_or_else(|| words::needed("--gpus", "GPUs, all nodes together"))?;
        let speeds = match &self.gpu_speeds {
            Some(given) => Some(speeds::read(given)?),
            None => of_plan.map(|cluster| speeds::of_running(cluster, gpus)).transpose()?.flatten(),
        };
        let gone = Gone::new(&self.without_gpus, speeds, gpus)?;
        let remain = gpus.saturating_sub(gone.gpus.len());
        let start = |map: &MapFile| gone.start(map.previous_map()?, gpus);
        let previous = runs.as_ref().map(start).transpose()?;
        // A map that does not tell its GPUs is of as many.
        let fits = |map: &PreviousMap| gpus > 0 && map.slots().is_multiple_of(gpus);
        let told = |map: &PreviousMap| map.slots_per_gpu().or(fits(map).then(|| map.slots() / gpus));
        let each = self.slots_per_gpu.or(previous.as_ref().and_then(told));
        let replicas =
            self.replicas.or(each.filter(|_| previous.is_some()).map(|each| each.saturating_mul(remain)));
        let replicas = replicas.ok_or_else(|| {
            words::needed("--replicas", "replicas of a layer; eplb advise LOADS --gpus P tells how many pay")
        })?;
        let wanted = self.wanted(of_plan);
        let (groups, nodes) = self.groups_and_nodes(wanted, &gone, gpus)?;
        let cluster = words::cluster(replicas, groups, nodes, remain, self.slots_per_gpu, || self.experts())
            .map_err(|error| gone.in_words(error, remain))?;
        let cluster = gone.with_speeds(cluster)?;
        self.check_options(&cluster)?;
        let inputs = self.loads.iter().chain(&self.previous);
        let inputs = io::Inputs::new(inputs, self.gpu_speeds.as_deref().and_then(speeds::file_of))?;
        let format = match &self.out {
            Some(out) => {
                inputs.check_writable(out)?;
                format_of(self.format, out)?
            }
            None => PlanFormat::default(),
        };
        let progress = ShownProgress::new(0, "layers");
        let previous = |ids: &[u32]| runs.as_ref().map(|map| start(&words::of_loads(map, ids)?)).transpose();
        let mut made = self.make(&cluster, (previous, &rules), &progress)?;
        made.replan.set_bound(bound_effort(self.tight_bound));
        let plan = made.replan.plan();
        let greedy = MapScores::of_greedy(plan, self.max_replicas_per_expert)?;
        let spread = if gone.gpus.is_empty() { None } else { Some(self.spread(plan, gpus, &gone)?) };
        let of_all_gpus = spread.as_ref().unwrap_or(plan);
        if let Some(out) = &self.out {
            write(out, of_all_gpus, format)?;
        }
        drop(progress);
        let were_gone = of_plan.map(Cluster::gone_gpus).unwrap_or_default();
        let filled: Vec<usize> = were_gone.into_iter().filter(|gpu| !gone.gpus.contains(gpu)).collect();
        words::tell_filled_again(&filled);
        if nodes < wanted.1 {
            words::tell_one_node(wanted, gpus, gone.gpus.len());
        }
        words::tell_idle_groups(self.groups.unwrap_or(1), self.nodes);
        let is_weighed = cluster.weighs_dispatch() && self.rule_of_an_earlier_program().is_none();
        words::tell_idle_dispatch(self.dispatch, is_weighed);
        for warning in plan.warnings() {
            complain(&format!("warning: {}", words::in_options(warning)));
        }
        if self.out.as_deref().is_some_and(io::is_standard) {
            // It holds the map.
            return Ok(ExitCode::SUCCESS);
        }
        if self.json {
            print(&self.json_report(&made, of_all_gpus, &greedy)?.to_string());
        } else {
            io::print_bars(&self.report(&made, of_all_gpus, &greedy)?);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// A plan in the numbering of all GPUs.
    fn spread(&self, plan: &crate::Plan, gpus: usize, gone: &Gone) -> Result<crate::Plan, Error> {
        let rest = plan.cluster();
        let (groups, nodes) = (rest.num_groups(), rest.num_nodes());
        let all =
            Cluster::with_slots_per_gpu(rest.num_replicas(), groups, nodes, gpus, rest.slots_per_gpu())?;
        plan.with_gone_gpus(&all.with_gpu_speeds(&gone.speeds_of_all(gpus))?, &gone.gpus)
    }

    /// The preset, where it is one of those that are there to compare with.
    fn rule_of_an_earlier_program(&self) -> Option<&str> {
        let is_such = |name: &&str| Preset::all().any(|preset| preset.name() == *name && is_lineage(&preset));
        self.preset.as_deref().filter(is_such)
    }

    /// Refuses options that would do nothing.
    fn check_options(&self, cluster: &Cluster) -> Result<(), Error> {
        for (other, name, here) in
            [(&self.restarts, "--restarts", "--starts"), (&self.kicks, "--kicks", "--iterations")]
        {
            if let Some(value) = other {
                return Err(Error::invalid(name, value, format!("is called {here} here")));
            }
        }
        if self.previous.is_none() {
            words::check_effect(&self.limits.given(), "a plan from the one that runs: --previous PLAN")?;
            words::check_effect(&[(self.expert_bytes > 0, "--expert-bytes")], "what moves: --previous PLAN")?;
        }
        let outlook = &self.outlook;
        if self.strategy != Some(Strategy::Scenarios) {
            words::check_effect(&outlook.given(), "--strategy scenarios")?;
        }
        outlook.check()?;
        let search = [
            (self.iterations.is_some(), "--iterations"),
            (self.assignments.is_some(), "--assignments"),
            (self.starts.is_some(), "--starts"),
            (self.preset.is_some(), "--preset"),
        ];
        if self.previous.is_some() {
            words::check_effect(&search, "a plan from nothing: leave out --previous")?;
        }
        if let Some(name) = self.rule_of_an_earlier_program() {
            let wanted = format!(
                "the presets default, fast, thorough and scenarios, and {name} is a rule of an earlier program"
            );
            words::check_effect(&search[..2], &wanted)?;
        }
        if self.loads.len() == 1 {
            words::check_effect(&[(self.weights.is_some(), "--weights")], "several load files")?;
        }
        if cluster.policy() == Policy::Global {
            let wanted = "groups on nodes: --groups, a multiple of --nodes, and more nodes than one";
            let given =
                [(self.assignments.is_some(), "--assignments"), (self.foreign.is_given(), "--max-foreign")];
            words::check_effect(&given, wanted)?;
        }
        words::check_tight_bound(self.tight_bound, cluster)?;
        if self.out.as_deref().is_some_and(io::is_standard) {
            let given = [(self.expert_bytes > 0, "--expert-bytes"), (self.tight_bound, "--tight-bound")];
            words::check_effect(&given, "the report, and --out - has the map alone on standard output")?;
        }
        if self.json && self.out.as_deref().is_some_and(io::is_standard) {
            let rule = "is for the report, and --out - has the map alone on standard output: --json --with-map has both";
            return Err(Error::invalid("--json", "", rule));
        }
        Ok(())
    }
}

/// Writes a plan, and tells what its format does not.
fn write(out: &Path, plan: &crate::Plan, format: PlanFormat) -> Result<(), Error> {
    io::write(out, &bytes_of_plan(plan, format)?)?;
    for loss in MapFile::from(plan).losses(format) {
        complain(&format!("warning: {}", words::in_options(&loss)));
    }
    Ok(())
}

/// A heaviest GPU over the mean, in millionths.
fn parse_strategy() -> impl TypedValueParser<Value = Strategy> {
    PossibleValuesParser::new(Strategy::ALL.iter().map(|s| s.name())).try_map(|name| name.parse::<Strategy>())
}

fn parse_fallback() -> impl TypedValueParser<Value = Fallback> {
    let fallback = |name: String| if name == "cpu" { Fallback::Cpu } else { Fallback::Never };
    PossibleValuesParser::new(["cpu", "never"]).map(fallback)
}
