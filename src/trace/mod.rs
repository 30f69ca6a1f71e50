//! Readers and writers of load and plan files, and a generator of loads. Feature `files`. Maps of other programs are in
//! [`crate::maps`].

mod csv;
mod files;
mod folder;
mod format;
mod generate;
mod history;
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

use std::path::Path;

use crate::error::{Error, ParseError};

pub use format::LoadFormat;
pub use generate::{Family, Generate};
pub use history::{LoadHistory, Window};
pub use plan_file::{PlanFile, plan_bytes, write_plan};
pub use shares_file::{SharesFile, shares_bytes};

#[cfg(feature = "cli")]
pub(crate) use files::read_all;
pub(crate) use files::read_file;
#[cfg(feature = "cli")]
pub(crate) use folder::reads as folder_reads;
pub(crate) use npy::{of_rows as npy_of_rows, rows as npy_rows};
pub(crate) use packed::{is_torch_name, without_mark};
#[cfg(feature = "cli")]
pub(crate) use write::Draft;
#[cfg(feature = "cli")]
pub(crate) use write::check_writable;
pub(crate) use write::write_whole;

impl LoadHistory {
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
    /// The fault in them, and where it is.
    pub fn of_bytes(bytes: &[u8], format: Option<LoadFormat>) -> Result<Self, ParseError> {
        let bytes = packed::unpacked(bytes)?;
        Self::parse(format.unwrap_or_else(|| LoadFormat::of_bytes(&bytes)), &bytes)
    }

    /// Reads the bytes of a file. Sizes are checked before memory is taken: at most 64 times that of the bytes, and
    /// 64 KiB; 8 MiB where each load tells its expert and most are left out, and the unpacked bytes of an archive.
    ///
    /// # Errors
    /// The fault in them, and where it is.
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
        let Some(format) = LoadFormat::of_path(path) else {
            let ending = path.extension().unwrap_or_default().to_string_lossy();
            let rule = format!(
                "extension {ending:?} is not json, npy or csv: its ending tells the format of a file that is written"
            );
            return Err(Error::unwritable(path, rule));
        };
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
        let in_order = self.layer_ids == history::numbered(self.layers);
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
}

/// The start of something that may be as long as the file it is from.
pub(crate) fn brief(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}
