//! Readers and writers of load and plan files, and a generator of loads. Feature `files`.

mod csv;
mod generate;
mod json;
mod npy;
mod numbers;
mod plan_file;

use std::io::{Read, Write};
use std::path::Path;

use crate::error::{Error, ParseError};
use crate::loads::{Loads, MAX_EXPERTS, MAX_LAYERS};

pub use generate::{Family, Generate};
pub use plan_file::{PlanFile, PlanFormat, plan_bytes, write_plan};

/// The most numbers a load file may hold: 2 GiB of `f64`.
const MAX_VALUES: usize = 1 << 28;

/// The most bytes a file may have.
const MAX_FILE: u64 = 1 << 32;

/// The formats of load files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadFormat {
    /// `{"logical_count": …}`, `{"load_history": [{"logical_expert_load": …}, …]}`, or a bare array.
    Json,
    /// A NumPy array of 2 or 3 dimensions.
    Npy,
    /// One row a layer.
    Csv,
}

impl LoadFormat {
    /// The format that a file's extension says.
    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        match extension.as_str() {
            "json" => Some(Self::Json),
            "npy" => Some(Self::Npy),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    /// Why [`LoadFormat::of`] has none for a path.
    fn none_of(path: &Path) -> String {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        format!("extension {extension:?} is not json, npy or csv")
    }
}

/// Which windows of a history a plan is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Window {
    /// All, added up.
    #[default]
    Sum,
    /// The last.
    Last,
    /// This one, from 0.
    Index(usize),
}

impl std::str::FromStr for Window {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "sum" => Ok(Self::Sum),
            "last" => Ok(Self::Last),
            _ => text
                .parse()
                .map(Self::Index)
                .map_err(|_| Error::invalid("window", text, "is not sum, last or a number")),
        }
    }
}

/// Loads of some windows: `[windows][layers][experts]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadHistory {
    windows: usize,
    layers: usize,
    experts: usize,
    values: Vec<f64>,
    /// The same as whole numbers, where the file has nothing else.
    counts: Option<Vec<u64>>,
    /// The number of the first layer: the others follow it.
    first_layer: usize,
}

impl LoadHistory {
    /// A history of counts.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a dimension is 0 or too large, or the number of counts is not their product.
    pub fn from_counts(
        windows: usize,
        layers: usize,
        experts: usize,
        counts: Vec<u64>,
    ) -> Result<Self, Error> {
        check_shape(windows, layers, experts, counts.len())?;
        let values = counts.iter().map(|&c| c as f64).collect();
        Ok(Self { windows, layers, experts, values, counts: Some(counts), first_layer: 0 })
    }

    /// A history of floats; whether they are valid loads is checked by [`LoadHistory::loads`].
    ///
    /// # Errors
    /// As for [`LoadHistory::from_counts`].
    pub fn from_values(
        windows: usize,
        layers: usize,
        experts: usize,
        values: Vec<f64>,
    ) -> Result<Self, Error> {
        check_shape(windows, layers, experts, values.len())?;
        Ok(Self { windows, layers, experts, values, counts: None, first_layer: 0 })
    }

    /// Reads a file by its extension: `.json`, `.npy` or `.csv` (see the design's list of formats).
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be read, [`Error::Parse`] with what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |source: ParseError| Error::parse(path, source);
        let format =
            LoadFormat::of(path).ok_or_else(|| refuse(ParseError::content(LoadFormat::none_of(path))))?;
        Self::parse(format, &read_file(path)?).map_err(refuse)
    }

    /// Reads the bytes of a file. Sizes are checked before memory is taken: at most 64 times that of the bytes,
    /// and 64 KiB.
    ///
    /// # Errors
    /// What is wrong in them, and where.
    pub fn parse(format: LoadFormat, bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.is_empty() {
            return Err(ParseError::content("the file is empty"));
        }
        let history = match format {
            LoadFormat::Json => json::read(bytes),
            LoadFormat::Npy => npy::read(bytes),
            LoadFormat::Csv => csv::read(bytes),
        }?;
        // Bad values are the file's fault, and are named with the file.
        for window in 0..history.windows {
            history.loads(Window::Index(window))?;
        }
        Ok(history)
    }

    /// Number of windows.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.windows
    }

    /// Number of layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Number of experts.
    #[must_use]
    pub fn experts(&self) -> usize {
        self.experts
    }

    /// All values, `[windows][layers][experts]`.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The history of some layers alone. They keep their numbers: see [`Loads::layer_ids`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where the range is empty or passes the last layer.
    pub fn select_layers(&self, layers: std::ops::Range<usize>) -> Result<Self, Error> {
        if layers.start >= layers.end || layers.end > self.layers {
            let value = format!("{}..{}", layers.start, layers.end);
            return Err(Error::invalid("layers", value, format!("is not a range within 0..{}", self.layers)));
        }
        let (per_window, e) = (self.layers * self.experts, self.experts);
        fn cut<T: Copy>(all: &[T], per_window: usize, rows: std::ops::Range<usize>) -> Vec<T> {
            all.chunks_exact(per_window).flat_map(|w| w[rows.clone()].iter().copied()).collect()
        }
        let rows = layers.start * e..layers.end * e;
        Ok(Self {
            windows: self.windows,
            layers: layers.len(),
            experts: e,
            values: cut(&self.values, per_window, rows.clone()),
            counts: self.counts.as_ref().map(|counts| cut(counts, per_window, rows)),
            first_layer: self.first_layer + layers.start,
        })
    }

    /// The loads of a window, or of all added up. Sums of counts past `u64` are made in `f64`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the window is not there or a load is negative, not finite or too large.
    pub fn loads(&self, window: Window) -> Result<Loads, Error> {
        let n = self.layers * self.experts;
        let index = match window {
            Window::Sum if self.windows > 1 => return self.summed(),
            Window::Sum => 0,
            Window::Last => self.windows - 1,
            Window::Index(index) if index < self.windows => index,
            Window::Index(index) => {
                let rule = format!("is not there: the file has windows 0..{}", self.windows);
                return Err(Error::invalid("window", index, rule));
            }
        };
        let loads = match &self.counts {
            Some(counts) => {
                Loads::from_counts(self.layers, self.experts, &counts[index * n..(index + 1) * n])
            }
            None => Loads::from_f64(self.layers, self.experts, &self.values[index * n..(index + 1) * n]),
        };
        self.numbered(loads?)
    }

    /// The loads with the numbers of the history's layers.
    fn numbered(&self, loads: Loads) -> Result<Loads, Error> {
        // A history has at most 2^16 layers.
        let ids: Vec<u32> = (0..self.layers).map(|layer| (self.first_layer + layer) as u32).collect();
        loads.with_layer_ids(&ids)
    }

    fn summed(&self) -> Result<Loads, Error> {
        let n = self.layers * self.experts;
        for window in 0..self.windows {
            self.loads(Window::Index(window))?;
        }
        if let Some(counts) = &self.counts {
            let sum = |at: usize| counts.iter().skip(at).step_by(n).try_fold(0u64, |a, &b| a.checked_add(b));
            if let Some(sums) = (0..n).map(sum).collect::<Option<Vec<u64>>>() {
                return self.numbered(Loads::from_counts(self.layers, self.experts, &sums)?);
            }
        }
        let sum = |at: usize| self.values.iter().skip(at).step_by(n).sum();
        self.numbered(Loads::from_f64(self.layers, self.experts, &(0..n).map(sum).collect::<Vec<f64>>())?)
    }

    /// Writes the history by the extension: `.json` (`logical_count`), `.npy` (f64 or u64) or `.csv` (one
    /// window only). The file is written whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`] where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let format =
            LoadFormat::of(path).ok_or_else(|| Error::unwritable(path, LoadFormat::none_of(path)))?;
        let bytes = self.bytes(format).map_err(|error| Error::unwritable(path, error))?;
        write_whole(path, &bytes)
    }

    /// The bytes of a file of this history.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the format cannot hold it.
    pub fn bytes(&self, format: LoadFormat) -> Result<Vec<u8>, Error> {
        match format {
            LoadFormat::Json => Ok(json::write(self)),
            LoadFormat::Npy => {
                npy::write(self).map_err(|error| Error::invalid("npy file", "", error.to_string()))
            }
            LoadFormat::Csv if self.windows == 1 => Ok(csv::write(self)),
            LoadFormat::Csv => {
                Err(Error::invalid("number of windows", self.windows, "is not 1, all that a csv file holds"))
            }
        }
    }

    /// One row of the text formats.
    fn row_text(&self, window: usize, layer: usize) -> String {
        let start = (window * self.layers + layer) * self.experts;
        let row = start..start + self.experts;
        let texts: Vec<String> = match &self.counts {
            Some(counts) => counts[row].iter().map(u64::to_string).collect(),
            // With a point or an exponent even where whole, so that floats are read as floats again.
            None => self.values[row].iter().map(|value| format!("{value:?}")).collect(),
        };
        texts.join(",")
    }
}

fn check_shape(windows: usize, layers: usize, experts: usize, len: usize) -> Result<(), Error> {
    let fields =
        [("windows", windows, MAX_LAYERS), ("layers", layers, MAX_LAYERS), ("experts", experts, MAX_EXPERTS)];
    for (field, value, most) in fields {
        if value == 0 || value > most {
            return Err(Error::invalid(field, value, format!("is not between 1 and {most}")));
        }
    }
    let expected =
        windows.checked_mul(layers).and_then(|n| n.checked_mul(experts)).filter(|&n| n <= MAX_VALUES);
    if expected != Some(len) {
        let rule = format!("is not windows {windows} x layers {layers} x experts {experts}, or too large");
        return Err(Error::invalid("number of loads", len, rule));
    }
    Ok(())
}

/// The bytes of a file, unless there are too many of them: some files have no end.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let refuse = |error: std::io::Error| Error::read(path, error);
    let file = std::fs::File::open(path).map_err(refuse)?;
    let length = file.metadata().map_or(0, |file| file.len());
    let mut bytes = Vec::new();
    if length <= MAX_FILE {
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(refuse)?;
    }
    if length.max(bytes.len() as u64) > MAX_FILE {
        let reason = format!("the file has more than {MAX_FILE} bytes");
        return Err(refuse(std::io::Error::new(std::io::ErrorKind::FileTooLarge, reason)));
    }
    Ok(bytes)
}

/// The start of something that may be as long as the file it is from.
fn brief(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Writes a file next to its place and moves it there, so that a full disk or a kill leaves the old one.
///
/// # Errors
/// [`Error::Write`] with what the operating system said.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let refuse = |error: std::io::Error| Error::write(path, error);
    if path.metadata().is_ok_and(|file| !file.is_file()) {
        // A device or a pipe would be replaced by a file, not written to.
        return Err(Error::unwritable(path, "it is not a regular file"));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".eplb-").tempfile_in(folder).map_err(refuse)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(refuse)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let readable = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(file.path(), readable).map_err(refuse)?;
    }
    file.persist(path).map_err(|error| refuse(error.error))?;
    Ok(())
}
