//! `--gpu-speeds`.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::io::is_standard;

use crate::cluster::{Cluster, lose_equally, parts_of};
use crate::error::Error;
use crate::previous::PreviousMap;
use crate::trace::brief;

/// The speeds of GPUs that an option names: 1,1,0.5, or a file of such numbers, separated by commas or white space.
pub(super) fn read(given: &str) -> Result<Vec<f64>, Error> {
    if let Ok(speeds) = parse(given) {
        return Ok(speeds);
    }
    let refuse = |what: String| {
        let rule = format!("is neither a list of numbers, as 1,1,0.5, nor a file of them: {what}");
        Error::invalid("gpu_speeds", given, rule)
    };
    // A file that is none, such as a device, may have no end.
    let bytes = match std::fs::File::open(Path::new(given)).and_then(|file| {
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map(|_| bytes)
    }) {
        Err(error) => return Err(refuse(error.to_string())),
        Ok(bytes) if bytes.len() as u64 > MOST_BYTES => {
            return Err(refuse(format!("it has more than {MOST_BYTES} bytes")));
        }
        Ok(bytes) => bytes,
    };
    let text = String::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8".into()))?;
    parse(&text).map_err(refuse)
}

/// The file that an option's speeds are in, where they are no list.
pub(super) fn file_of(given: &str) -> Option<PathBuf> {
    // Standard input is not read for them.
    (parse(given).is_err() && !is_standard(Path::new(given))).then(|| PathBuf::from(given))
}

/// More than the speeds of as many GPUs take as a cluster may have.
const MOST_BYTES: u64 = 1 << 20;

/// All numbers of a text that has nothing else.
///
/// # Errors
/// The first word that is no number, or that there is none.
pub fn parse(text: &str) -> Result<Vec<f64>, String> {
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let numbers = words.map(|word| word.parse().map_err(|_| brief(word)));
    let numbers: Vec<f64> = numbers.collect::<Result<_, _>>()?;
    if numbers.is_empty() { Err("it is empty".into()) } else { Ok(numbers) }
}

/// The speeds that the cluster of a plan tells, for this many GPUs; `None` where all that are not gone there are equally fast. A
/// GPU that is gone there is back.
///
/// # Errors
/// [`Error::Invalid`] where there were more or fewer GPUs.
pub(super) fn of_running(cluster: &Cluster, gpus: usize) -> Result<Option<Vec<f64>>, Error> {
    let speeds = cluster.gpu_speeds();
    if speeds.iter().all(|speed| *speed == 0.0 || *speed == 1.0) {
        return Ok(None);
    }
    if speeds.len() != gpus {
        let rule = format!(
            "is not the number of GPUs of the previous plan, {}, whose speeds are unequal: give --gpu-speeds, one for each GPU",
            speeds.len()
        );
        return Err(Error::invalid("--gpus", gpus, rule));
    }
    Ok(Some(speeds.into_iter().map(|speed| if speed == 0.0 { 1.0 } else { speed }).collect()))
}

/// The GPUs that are gone, named so or at speed 0.
pub(super) struct Gone {
    pub gpus: Vec<usize>,
    /// The speeds of all GPUs, 0 for those that are gone, where they are given.
    pub speeds: Option<Vec<f64>>,
}

impl Gone {
    /// Of GPUs that are named, and of the speeds of all, where they are known.
    pub fn new(named: &[usize], mut speeds: Option<Vec<f64>>, num_gpus: usize) -> Result<Self, Error> {
        if let Some(speeds) = &speeds {
            parts_of(speeds, num_gpus)?;
        }
        if let Some(gpu) = named.iter().find(|gpu| **gpu >= num_gpus) {
            let rule = format!("is not below --gpus {num_gpus}: GPUs are numbered from 0 on");
            return Err(Error::invalid("--without-gpus", gpu, rule));
        }
        let mut gpus: BTreeSet<usize> = named.iter().copied().collect();
        for (gpu, speed) in speeds.iter_mut().flatten().enumerate() {
            if gpus.contains(&gpu) || *speed == 0.0 {
                gpus.insert(gpu);
                *speed = 0.0;
            }
        }
        Ok(Self { gpus: gpus.into_iter().collect(), speeds })
    }

    /// The map that runs, on the GPUs that remain.
    pub fn start(&self, map: PreviousMap, gpus: usize) -> Result<PreviousMap, Error> {
        if self.gpus.is_empty() {
            return Ok(map);
        }
        let each = map.slots_per_gpu().unwrap_or(map.slots() / gpus.max(1));
        map.with_slots_per_gpu(each)?.without_gpus(&self.gpus)
    }

    /// Groups and nodes of the GPUs that remain: nodes that lose unequal numbers of GPUs are as good as one, unless they hold
    /// whole groups.
    pub fn groups_and_nodes(
        &self,
        gpus: usize,
        (groups, nodes): (usize, usize),
    ) -> Result<(usize, usize), Error> {
        if self.gpus.is_empty() || lose_equally(gpus, nodes, &self.gpus) {
            return Ok((groups, nodes));
        }
        if nodes > 1 && groups.is_multiple_of(nodes) {
            let rule = format!(
                "are left with unequal numbers of GPUs where {} of --gpus {gpus} are gone, and nodes that hold whole \
                 groups need equal ones: leave out --nodes and --groups",
                self.gpus.len()
            );
            return Err(Error::invalid("--nodes", nodes, rule));
        }
        Ok((1, 1))
    }

    /// An error about the GPUs that remain, which are no option.
    pub fn in_words(&self, error: Error, remain: usize) -> Error {
        match error {
            Error::Invalid { field, value, rule, .. } if !self.gpus.is_empty() => {
                let theirs = format!("the {remain} GPUs that remain");
                Error::invalid(field, value, rule.replace(&format!("num_gpus {remain}"), &theirs))
            }
            _ => error,
        }
    }

    /// The speeds of all GPUs, 0 for those that are gone.
    pub fn speeds_of_all(&self, gpus: usize) -> Vec<f64> {
        let remains = |gpu| if self.gpus.contains(&gpu) { 0.0 } else { 1.0 };
        self.speeds.clone().unwrap_or_else(|| (0..gpus).map(remains).collect())
    }

    /// The cluster of the GPUs that remain, with their speeds.
    pub fn with_speeds(&self, cluster: Cluster) -> Result<Cluster, Error> {
        let Some(speeds) = &self.speeds else { return Ok(cluster) };
        cluster.with_gpu_speeds(&speeds.iter().copied().filter(|speed| *speed > 0.0).collect::<Vec<_>>())
    }
}

/// A row about GPUs of unequal speed, where they are.
pub(super) fn row(cluster: &Cluster) -> Option<(&'static str, String)> {
    if cluster.has_equal_speeds() {
        return None;
    }
    let speeds = cluster.gpu_speeds();
    let gone = speeds.iter().filter(|speed| **speed == 0.0).count();
    let slow = speeds.iter().filter(|speed| **speed < 1.0).count() - gone;
    let least = speeds.iter().copied().filter(|speed| *speed > 0.0).fold(1.0, f64::min);
    let text = match (slow, gone) {
        (0, gone) => format!("{gone} of {} GPUs gone, the others equal", speeds.len()),
        (slow, gone) => {
            let gone = if gone > 0 { format!(", {gone} gone") } else { String::new() };
            format!("{slow} of {} GPUs slower, {least} at least{gone}; loads are over speed", speeds.len())
        }
    };
    Some(("GPU speeds", text))
}
