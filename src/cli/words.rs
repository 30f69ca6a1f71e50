//! The words of the command line: errors name options, not the fields of the library, and say what would do.

use super::complain;
use crate::Dispatch;
use crate::cluster::{Cluster, MAX_SLOTS};
use crate::error::Error;
use crate::maps::MapFile;

/// Fields of the library that are options, where a rule names them or they begin an error.
const OPTIONS: [(&str, &str); 13] = [
    ("num_replicas", "--replicas"),
    ("num_groups", "--groups"),
    ("num_nodes", "--nodes"),
    ("num_gpus", "--gpus"),
    ("gpu_speeds", "--gpu-speeds"),
    ("slots_per_gpu", "--slots-per-gpu"),
    ("max_foreign", "--max-foreign"),
    ("foreign_target_ppm", "--target"),
    ("max_replicas_per_expert", "--max-replicas-per-expert"),
    ("connected", "--connected"),
    ("dense_layers", "--dense-layers"),
    ("max_moves", "--max-moves"),
    ("max_moves_per_layer", "--max-moves-per-layer"),
];

/// Options whose fields are words of every day: they are changed where they begin an error alone.
const FIRST: [&str; 17] = [
    "starts",
    "iterations",
    "assignments",
    "threads",
    "seed",
    "window",
    "layers",
    "windows",
    "decay",
    "experts",
    "gpus",
    "preset",
    "strategy",
    "device",
    "family",
    "drift",
    "interval",
];

/// An error in the words of the command line, on one line.
pub fn of_error(error: &Error) -> String {
    let text = match error {
        Error::Invalid { field, value, rule, .. } => {
            let first = FIRST.contains(&field.as_str());
            let field = if first { format!("--{field}") } else { in_options(field) };
            format!("{field} {value} {}", in_options(rule))
        }
        Error::InvalidPlan { .. } => in_options(&error.to_string()),
        Error::Parse { path, source } => format!("{}: {}", path.display(), with_formats(&source.to_string())),
        Error::Write { path, source } => {
            format!("cannot write {}: {}", path.display(), with_formats(&source.to_string()))
        }
        _ => error.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The same text with options where the library speaks of formats.
fn with_formats(text: &str) -> String {
    let options = [
        ("; a load format tells", "; --load-format tells"),
        (" or the format table or rows", " or --load-format table or rows"),
        ("; the format tensorrt-llm or megatron", "; --load-format tensorrt-llm or megatron"),
        (
            "; name the format",
            "; name one by --from of eplb convert, or by --format of eplb check, report and split",
        ),
        ("; a format says", "; --format says"),
    ];
    options.iter().fold(text.to_string(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// The same text with options in the place of fields.
pub fn in_options(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let word = &word[..word.find(|c| !is_word(c)).unwrap_or(word.len())];
        shown.push_str(&rest[..start]);
        let option = OPTIONS.iter().find(|(field, _)| *field == word);
        shown.push_str(option.map_or(word, |(_, option)| option));
        rest = &rest[start + word.len()..];
    }
    shown + rest
}

/// An option parser's error on one line: what is wrong, and its advice.
pub fn of_parser(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let wanted = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let line = wanted.collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line).replace(" tip: ", "; ");
    let line = line.replace(" [possible values: ", "; it is one of [");
    let rules = [
        ("invalid digit found in string", "is not a whole number, at least 0"),
        ("cannot parse integer from empty string", "is not a whole number, at least 0"),
        ("number too large to fit in target type", "is too large"),
        ("invalid float literal", "is not a number"),
        ("cannot parse float from empty string", "is not a number"),
    ];
    let line = rules.iter().fold(line, |line, (theirs, ours)| line.replace(theirs, ours));
    let is_short = error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
    let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: ")).filter(|_| is_short);
    let usage = usage.map_or(String::new(), |usage| format!(": {usage}"));
    format!("{}{usage}; --help tells more", in_words(&line))
}

/// The same text with a rule in the place of `-1 is not in 0..=9`.
fn in_words(text: &str) -> String {
    let parts = text.split_once(" is not in ").and_then(|(head, range)| {
        let (least, most) = range.split_once("..=")?;
        Some((head.rsplit_once(' ')?.0, least, most))
    });
    match parts {
        Some((head, least, most)) => format!("{head} is not a whole number from {least} to {most}"),
        None => text.to_string(),
    }
}

/// The first word of a command line, where it is no verb.
pub fn of_unknown_verb(word: &str) -> Option<String> {
    let is_file = std::path::Path::new(word).exists();
    is_file.then(|| {
        format!(
            "{word} is a file, not a command: `eplb advise {word} --gpus N` tells how many replicas it needs, `eplb plan {word} \
             --gpus N --replicas R` makes a plan; --help lists all commands"
        )
    })
}

/// A number of bytes: 44040192, 42MiB, 44MB or 44M.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    const MOST: f64 = (1u64 << 33) as f64;
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)].map(|(name, bits)| (name, (1u64 << bits) as f64));
    let units = units.into_iter().chain([("k", 1e3), ("K", 1e3), ("M", 1e6), ("G", 1e9)]);
    let bare = text.strip_suffix('B').unwrap_or(text).trim_end();
    let of_unit = |(name, unit): (&str, f64)| Some((bare.strip_suffix(name)?, unit));
    let (number, unit) = units.into_iter().find_map(of_unit).unwrap_or((bare, 1.0));
    let bytes = number.trim_end().parse::<f64>().ok().map(|number| number * unit);
    let bytes = bytes.filter(|bytes| (0.0..=MOST).contains(bytes) && bytes.fract() == 0.0);
    bytes
        .map(|bytes| bytes as u64)
        .ok_or_else(|| "is not a number of bytes up to 8 GiB, such as 44040192 or 42MiB".into())
}

/// An option that is needed, and what it is.
pub fn needed(option: &str, what: &str) -> Error {
    Error::invalid(option, "", format!("is needed: {what}"))
}

/// Refuses options that would do nothing, with what they want.
pub fn check_effect(options: &[(bool, &str)], wanted: &str) -> Result<(), Error> {
    match options.iter().find(|(given, _)| *given) {
        Some((_, option)) => {
            Err(Error::invalid(*option, "", format!("does nothing here: it is for {wanted}")))
        }
        None => Ok(()),
    }
}

/// Refuses a list in which one is twice.
pub fn check_named_once<'a>(option: &str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut seen = std::collections::BTreeSet::new();
    match names.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(Error::invalid(option, name, "is named twice: once is enough")),
        None => Ok(()),
    }
}

/// Refuses a tight bound where there is none but the quick one.
pub fn check_tight_bound(tight: bool, cluster: &Cluster) -> Result<(), Error> {
    let is_other = !(2..=3).contains(&cluster.slots_per_gpu());
    check_effect(&[(tight && is_other, "--tight-bound")], "2 or 3 slots a GPU")
}

/// Says that groups without nodes change nothing: no fault, and yet not what the user means.
pub fn tell_idle_groups(groups: usize, nodes: Option<usize>) {
    if groups > 1 && nodes.is_none() {
        complain(&format!(
            "warning: --groups {groups} changes nothing without --nodes: nodes hold whole groups, and here is one node"
        ));
    }
}

/// Says that nodes, of the options or of the previous plan, are no more told apart.
pub fn tell_one_node((groups, nodes): (usize, usize), gpus: usize, gone: usize) {
    let lost = if groups.is_multiple_of(nodes) && groups > 1 {
        "nodes do not hold whole groups"
    } else {
        "copies are not spread over nodes"
    };
    let left =
        if gone > 0 { format!("{gone} of {gpus} GPUs are gone") } else { format!("there are {gpus} GPUs") };
    complain(&format!(
        "warning: {nodes} nodes cannot have equal numbers of GPUs where {left}: the plan is global, on one node, so {lost}"
    ));
}

/// Says that GPUs which are gone in the previous plan get experts again: they may be back.
pub fn tell_filled_again(gpus: &[usize]) {
    let list = gpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    if !list.is_empty() {
        complain(&format!(
            "warning: GPUs that are gone in the previous plan get experts again: {list}. Where they are not back, give \
             --without-gpus {list}"
        ));
    }
}

/// Says that a dispatch changes nothing in the plan.
pub fn tell_idle_dispatch(dispatch: Option<Dispatch>, is_weighed: bool) {
    let is_idle = |dispatch: &Dispatch| *dispatch != Dispatch::Equal && !is_weighed;
    if let Some(dispatch) = dispatch.filter(is_idle) {
        complain(&format!(
            "warning: --dispatch {} changes nothing in this plan, only what is told of its traffic: plans are judged by it where \
             there are several --nodes and --groups is no multiple of them, and not by rules of earlier programs",
            dispatch.name()
        ));
    }
}

/// The cluster that the options say. Where a number will not do, the error offers those that would, of replicas no fewer than
/// the experts.
pub fn cluster(
    replicas: usize,
    groups: usize,
    nodes: usize,
    gpus: usize,
    slots_per_gpu: Option<usize>,
    experts: impl Fn() -> usize,
) -> Result<Cluster, Error> {
    let cluster = match slots_per_gpu {
        Some(slots) => Cluster::with_slots_per_gpu(replicas, groups, nodes, gpus, slots),
        None => Cluster::new(replicas, groups, nodes, gpus),
    };
    cluster.map_err(|error| {
        let Error::Invalid { field, value, rule, .. } = &error else { return error };
        let offer = match (field.as_str(), slots_per_gpu) {
            ("num_gpus", _) if rule.contains("multiple") => offer(gpus, nodes, 1),
            ("num_replicas", None) if rule.contains("multiple") => offer(replicas, gpus, experts()),
            ("num_replicas", Some(_)) if rule.contains("multiple") => offer(replicas, nodes, experts()),
            ("num_replicas", Some(_)) if rule.contains("more than") => {
                format!("; --slots-per-gpu {} would do", replicas.div_ceil(gpus.max(1)))
            }
            _ => String::new(),
        };
        Error::invalid(field.clone(), value, format!("{rule}{offer}"))
    })
}

/// Checks that the experts of the loads fit. Where they do not, the error offers the least number that would do.
pub fn check_experts(cluster: &Cluster, experts: usize, slots_per_gpu: Option<usize>) -> Result<(), Error> {
    cluster.check_experts(experts).map_err(|error| {
        let Error::Invalid { field, value, rule, .. } = &error else { return error };
        let offer = if field == "num_replicas" {
            let step = if slots_per_gpu.is_some() { cluster.planned_nodes() } else { cluster.num_gpus() };
            offer(experts, step, experts)
        } else {
            let fits = |groups: &usize| experts.is_multiple_of(*groups);
            let below = (1..cluster.num_groups()).rev().find(fits);
            let above = (cluster.num_groups() + 1..=experts).find(fits);
            either("--groups ", below, above)
        };
        Error::invalid(field.clone(), value, format!("{rule}{offer}"))
    })
}

/// The map of the layers of loads. Where it is of others, the error tells how to choose those of the map.
pub fn of_loads(map: &MapFile, of_loads: &[u32]) -> Result<MapFile, Error> {
    let map = map.clone().for_layers(of_loads);
    let (layers, ids) = (map.layers(), map.layer_ids());
    if layers == of_loads.len() {
        return Ok(map);
    }
    let range = ids.and_then(|ids| Some(*ids.first()?..ids.last()?.checked_add(1)?));
    let is_whole = |range: &std::ops::Range<u32>| {
        range.len() == layers && range.clone().all(|id| of_loads.binary_search(&id).is_ok())
    };
    let offer = match range.filter(is_whole) {
        Some(range) => format!("; --layers {}..{} would do", range.start, range.end),
        None if layers < of_loads.len() => format!("; --layers A..B takes {layers} of them"),
        None => String::new(),
    };
    let rule = format!("are not the {layers} of the map{offer}");
    Err(Error::invalid("layers of the loads:", of_loads.len(), rule))
}

/// The multiples of `step` next to a number, not below `least`.
fn offer(number: usize, step: usize, least: usize) -> String {
    let step = step.max(1);
    let below = (number / step).checked_mul(step).filter(|&below| below >= least.max(1));
    let above = number.max(least).div_ceil(step).checked_mul(step).filter(|&above| above <= MAX_SLOTS);
    either("", below, above)
}

fn either(what: &str, below: Option<usize>, above: Option<usize>) -> String {
    match (below, above) {
        (Some(below), Some(above)) if below != above => format!("; {what}{below} or {above} would do"),
        (Some(one), _) | (_, Some(one)) => format!("; {what}{one} would do"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_may_have_a_unit() {
        let good =
            [("0", 0), ("44040192", 44_040_192), ("42MiB", 44_040_192), ("1.5 kB", 1500), ("8Gi", 1 << 33)];
        for (text, bytes) in good {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "B", "MB", "-1", "0.5", "nan", "inf", "9GiB", "1e30", "4 4"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_name_options_and_what_would_do() {
        let said = |replicas, groups, nodes, gpus, slots| {
            let error = cluster(replicas, groups, nodes, gpus, slots, || 256).map(|_| ()).unwrap_err();
            of_error(&error)
        };
        assert_eq!(
            said(289, 8, 4, 32, None),
            "--replicas 289 is not a multiple of --gpus 32; 288 or 320 would do"
        );
        // Not fewer than the experts.
        assert_eq!(said(270, 1, 1, 31, None), "--replicas 270 is not a multiple of --gpus 31; 279 would do");
        assert_eq!(said(3, 1, 1, 4, None), "--replicas 3 is not a multiple of --gpus 4; 256 would do");
        assert_eq!(said(9, 1, 3, 4, None), "--gpus 4 is not a multiple of --nodes 3; 3 or 6 would do");
        let many = "--replicas 13 is more than --gpus 4 x --slots-per-gpu 3 = 12; --slots-per-gpu 4 would do";
        assert_eq!(said(13, 1, 1, 4, Some(3)), many);
        let few = check_experts(&Cluster::new(4, 1, 1, 4).unwrap(), 9, None).unwrap_err();
        assert!(of_error(&few).ends_with("each needs a replica; 12 would do"), "{few}");
        let groups = check_experts(&Cluster::new(12, 3, 1, 4).unwrap(), 8, None).unwrap_err();
        assert!(of_error(&groups).ends_with("of --groups 3; --groups 2 or 4 would do"), "{groups}");
        // A word that only holds a field's name is another one.
        assert_eq!(in_options("num_gpus2, num_gpus"), "num_gpus2, --gpus");
    }
}
