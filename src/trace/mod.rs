//! Readers and writers of load and plan files, and a generator of loads. Feature `files`. Maps of other programs are in
//! [`crate::maps`].

mod csv;
mod folder;
mod format;
mod generate;
mod json;
mod megatron;
mod npy;
mod numbers;
mod packed;
mod plan_file;
mod shares_file;
mod sparse;
pub(crate) mod strict;
mod tensors;
mod write;

use std::io::Read;
use std::path::Path;

use crate::error::{Error, ParseError};
use crate::loads::{Loads, MAX_EXPERTS, MAX_LAYERS};

use numbers::Numbers;

pub use format::LoadFormat;
pub use generate::{Family, Generate};
pub use plan_file::{PlanFile, plan_bytes, write_plan};
pub use shares_file::{SharesFile, shares_bytes};

#[cfg(feature = "cli")]
pub(crate) use folder::reads as folder_reads;
pub(crate) use npy::{of_rows as npy_of_rows, rows as npy_rows};
pub(crate) use packed::{is_torch_name, without_mark};
#[cfg(feature = "cli")]
pub(crate) use write::Draft;
#[cfg(feature = "cli")]
pub(crate) use write::check_writable;
pub(crate) use write::write_whole;

/// The most numbers a load file may hold: 2 GiB of `f64`.
const MAX_VALUES: usize = 1 << 28;

/// The most bytes a file may have.
const MAX_FILE: u64 = 1 << 32;

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
    numbers: Numbers,
    /// The numbers of the layers, ascending.
    layer_ids: Vec<u32>,
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
        Self::new(windows, layers, experts, Numbers::of_counts(counts))
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
        Self::new(windows, layers, experts, Numbers::Values(values))
    }

    fn new(windows: usize, layers: usize, experts: usize, numbers: Numbers) -> Result<Self, Error> {
        check_shape(windows, layers, experts, numbers.len())?;
        Ok(Self { windows, layers, experts, numbers, layer_ids: numbered(layers) })
    }

    /// Reads a file or a folder by its name and its content: see [`LoadFormat`]. Layers keep the numbers that it tells.
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be read, [`Error::Parse`] with what is wrong in it, and where it could be two
    /// things.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_as(path, None)
    }

    /// Reads a file or a folder as this format, where one is given.
    ///
    /// # Errors
    /// As for [`LoadHistory::read`].
    pub fn read_as(path: &Path, format: Option<LoadFormat>) -> Result<Self, Error> {
        if path.is_dir() {
            return folder::read(path, format);
        }
        let refuse = |source: ParseError| Error::parse(path, source);
        if let (Some(name), Some(parent)) = (path.file_name(), path.parent())
            && name == folder::META
        {
            return folder::read(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, format);
        }
        let format = match format.or_else(|| LoadFormat::of_path(path)) {
            Some(format) => format,
            None => return Err(refuse(ParseError::content(LoadFormat::none_of(path)))),
        };
        if format == LoadFormat::Npy
            && let Some(read) = npy::read_file(path)
        {
            return read.and_then(Self::checked).map_err(refuse);
        }
        Self::of_bytes(&read_file(path)?, Some(format)).map_err(refuse)
    }

    /// Reads bytes that may be packed by gzip, of a format that need not be known.
    ///
    /// # Errors
    /// What is wrong in them, and where.
    pub fn of_bytes(bytes: &[u8], format: Option<LoadFormat>) -> Result<Self, ParseError> {
        let bytes = packed::unpacked(bytes)?;
        Self::parse(format.unwrap_or_else(|| LoadFormat::of_bytes(&bytes)), &bytes)
    }

    /// Reads the bytes of a file. Sizes are checked before memory is taken: at most 64 times that of the bytes, and
    /// 64 KiB; 8 MiB where each load tells its expert and most are left out, and the unpacked bytes of an archive.
    ///
    /// # Errors
    /// What is wrong in them, and where.
    pub fn parse(format: LoadFormat, bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.is_empty() {
            return Err(ParseError::content("the file is empty"));
        }
        let bytes = without_mark(bytes);
        let history = match format {
            LoadFormat::Json => json::read(bytes),
            LoadFormat::Npy => npy::read(bytes),
            LoadFormat::Npz => npy::read(&packed::member(bytes)?),
            LoadFormat::Csv | LoadFormat::Rows | LoadFormat::Table => csv::read(bytes, format),
            LoadFormat::Megatron => megatron::read([bytes], bytes.len()),
            LoadFormat::TensorRtLlm => tensors::read(None, [bytes], bytes.len()),
        }?;
        history.checked()
    }

    /// Bad values are the file's fault, and are named with the file.
    fn checked(self) -> Result<Self, ParseError> {
        for window in 0..self.windows {
            self.loads(Window::Index(window))?;
        }
        Ok(self)
    }

    /// The same history with these numbers of layers.
    fn with_layer_ids(self, layer_ids: Vec<u32>) -> Result<Self, Error> {
        crate::loads::check_layer_ids(self.layers, &layer_ids)?;
        Ok(Self { layer_ids, ..self })
    }

    /// The same history of this many experts: those it does not tell of have no load.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it has more experts, or they are too many.
    pub fn with_experts(&self, experts: usize) -> Result<Self, Error> {
        if experts < self.experts {
            let rule = format!("is less than the loads have, {}", self.experts);
            return Err(Error::invalid("experts", experts, rule));
        }
        check_shape(self.windows, self.layers, experts, self.windows * self.layers * experts)?;
        let numbers = self.numbers.rows(self.experts, 0..self.windows * self.layers, experts);
        Ok(Self { experts, numbers, layer_ids: self.layer_ids.clone(), ..*self })
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

    /// All values, `[windows][layers][experts]`; made at each call.
    #[must_use]
    pub fn values(&self) -> Vec<f64> {
        self.numbers.values(0..self.numbers.len())
    }

    /// The numbers of the layers, ascending: from 0 on where the file does not tell.
    #[must_use]
    pub fn layer_ids(&self) -> &[u32] {
        &self.layer_ids
    }

    /// The history of the layers with these numbers alone. They keep them: see [`Loads::layer_ids`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where the range is empty, or passes the first or the last layer.
    pub fn select_layers(&self, layers: std::ops::Range<usize>) -> Result<Self, Error> {
        let ids = || self.layer_ids.iter().map(|&id| id as usize);
        let (first, end) = (ids().min().unwrap_or(0), ids().max().unwrap_or(0) + 1);
        let chosen: Vec<usize> =
            (0..self.layers).filter(|&at| layers.contains(&(self.layer_ids[at] as usize))).collect();
        if chosen.is_empty() || layers.start < first || layers.end > end {
            let value = format!("{}..{}", layers.start, layers.end);
            return Err(Error::invalid("layers", value, format!("is not a range within {first}..{end}")));
        }
        let rows =
            (0..self.windows).flat_map(|window| chosen.iter().map(move |at| window * self.layers + at));
        Ok(Self {
            layers: chosen.len(),
            numbers: self.numbers.rows(self.experts, rows, self.experts),
            layer_ids: chosen.iter().map(|&at| self.layer_ids[at]).collect(),
            ..*self
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
        let range = index * n..(index + 1) * n;
        let loads = match self.numbers.counts(range.clone()) {
            Some(counts) => Loads::from_counts(self.layers, self.experts, &counts),
            None => Loads::from_f64(self.layers, self.experts, &self.numbers.values(range)),
        };
        self.numbered(loads?)
    }

    /// The loads with the numbers of the history's layers.
    fn numbered(&self, loads: Loads) -> Result<Loads, Error> {
        loads.with_layer_ids(&self.layer_ids)
    }

    fn summed(&self) -> Result<Loads, Error> {
        let n = self.layers * self.experts;
        for window in 0..self.windows {
            self.loads(Window::Index(window))?;
        }
        let (mut counts, mut values) = (Some(vec![0u64; n]), vec![0.0; n]);
        for window in 0..self.windows {
            let range = window * n..(window + 1) * n;
            counts = counts.zip(self.numbers.counts(range.clone())).and_then(|(sums, more)| {
                sums.iter().zip(more).map(|(sum, more)| sum.checked_add(more)).collect()
            });
            values.iter_mut().zip(self.numbers.values(range)).for_each(|(sum, more)| *sum += more);
        }
        self.numbered(match counts {
            Some(counts) => Loads::from_counts(self.layers, self.experts, &counts)?,
            None => Loads::from_f64(self.layers, self.experts, &values)?,
        })
    }

    /// Writes the history by the extension: `.json` (`logical_count`), `.npy` (f64 or u64) or `.csv` (one
    /// window only). The file is written whole or not at all.
    ///
    /// # Errors
    /// [`Error::Write`] where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_whole(path, &self.bytes_for(path)?)
    }

    /// The bytes of a file of this name.
    pub(crate) fn bytes_for(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let format =
            LoadFormat::of_path(path).ok_or_else(|| Error::unwritable(path, LoadFormat::none_of(path)))?;
        if packed::is_gzip_name(path) {
            return Err(Error::unwritable(path, "packed files are read, not written"));
        }
        self.bytes(format).map_err(|error| Error::unwritable(path, error))
    }

    /// The bytes of a file of this history.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the format cannot hold it: only JSON and rows hold the numbers of layers other than from
    /// 0 on, and some formats are read alone.
    pub fn bytes(&self, format: LoadFormat) -> Result<Vec<u8>, Error> {
        let refuse = |rule: &str| Err(Error::invalid("load format", format, rule));
        let in_order = self.layer_ids == numbered(self.layers);
        match format {
            LoadFormat::Json => Ok(json::write(self)),
            LoadFormat::Npy | LoadFormat::Csv | LoadFormat::Table if !in_order => {
                refuse("holds no layer numbers, and these are not from 0 on")
            }
            LoadFormat::Npy => {
                npy::write(self).map_err(|error| Error::invalid("npy file", "", error.to_string()))
            }
            LoadFormat::Csv | LoadFormat::Table | LoadFormat::Rows if self.windows > 1 => {
                Err(Error::invalid("number of windows", self.windows, "is not 1, all that a csv file holds"))
            }
            LoadFormat::Csv | LoadFormat::Table => Ok(csv::write(self)),
            LoadFormat::Rows => match self.numbers.counts(0..self.numbers.len()) {
                Some(counts) => Ok(csv::write_rows(self, &counts)),
                None => refuse("holds whole numbers, and these are not"),
            },
            LoadFormat::Npz | LoadFormat::Megatron | LoadFormat::TensorRtLlm => {
                refuse("is read, not written")
            }
        }
    }

    /// One row of the text formats.
    fn row_text(&self, window: usize, layer: usize) -> String {
        let start = (window * self.layers + layer) * self.experts;
        let row = start..start + self.experts;
        let texts: Vec<String> = match self.numbers.counts(row.clone()) {
            Some(counts) => counts.iter().map(u64::to_string).collect(),
            // With a point or an exponent even where whole, so that floats are read as floats again.
            None => self.numbers.values(row).iter().map(|value| format!("{value:?}")).collect(),
        };
        texts.join(",")
    }
}

/// Layers numbered from 0.
fn numbered(layers: usize) -> Vec<u32> {
    (0..layers as u32).collect()
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
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let refuse = |error: std::io::Error| Error::read(path, error);
    let file = std::fs::File::open(path).map_err(refuse)?;
    if file.metadata().is_ok_and(|file| file.len() > MAX_FILE) {
        return Err(refuse(too_long()));
    }
    read_all(file).map_err(refuse)
}

/// All bytes of something that may have no end.
pub(crate) fn read_all(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE { Err(too_long()) } else { Ok(bytes) }
}

fn too_long() -> std::io::Error {
    let reason = format!("the file has more than {MAX_FILE} bytes");
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, reason)
}

/// The start of something that may be as long as the file it is from.
pub(crate) fn brief(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
