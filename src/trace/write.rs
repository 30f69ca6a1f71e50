//! Files are written whole or not at all, in the place of the old ones and with their mode.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Where a file of this name is, or would be: symbolic links are followed, so that what they lead to is replaced, not the link.
fn place(path: &Path) -> PathBuf {
    // As many as Linux follows. Of a circle a link is left, which cannot be opened.
    const MOST_LINKS: usize = 40;
    let mut place = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        if let Ok(found) = place.canonicalize() {
            return found;
        }
        match place.read_link() {
            Ok(next) => place = folder(&place).join(next),
            Err(_) => break,
        }
    }
    place
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Refuses what [`write_whole`] could not replace.
///
/// # Errors
/// [`Error::Write`] with the reason.
pub(crate) fn check_writable(path: &Path) -> Result<(), Error> {
    let place = place(path);
    if place.is_symlink() && !place.exists() {
        return Err(Error::unwritable(path, "its symbolic links lead to no place"));
    }
    if let Ok(old) = place.metadata() {
        if old.is_dir() {
            return Err(Error::unwritable(path, "it is a folder"));
        }
        if !old.is_file() {
            // A device or a pipe would be replaced by a file, not written to.
            return Err(Error::unwritable(path, "it is not a regular file; - is standard output"));
        }
        if old.permissions().readonly() {
            return Err(Error::unwritable(path, "it is read-only"));
        }
        std::fs::OpenOptions::new().append(true).open(&place).map_err(|error| Error::write(path, error))?;
    }
    tempfile::tempfile_in(folder(&place)).map(drop).map_err(|error| Error::write(path, error))
}

/// Writes a file next to its place and moves it there, so that a full disk or a kill leaves the old one. The new file has
/// the mode of the old one, or the one that the process gives its files. Where the file has other names (hard links) it is
/// written in place, so that they keep naming the same file: a full disk then leaves a torn one.
///
/// # Errors
/// [`Error::Write`] with what the operating system said.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut draft = Draft::new(path, bytes)?;
    draft.fill()?;
    draft.keep()
}

/// A file next to its place, which [`Draft::keep`] moves there. Dropped before that it leaves nothing.
pub(crate) struct Draft<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    place: PathBuf,
    file: tempfile::NamedTempFile,
}

impl<'a> Draft<'a> {
    /// An empty one.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Error> {
        check_writable(path)?;
        let place = place(path);
        let file = temporary(&place).map_err(|error| Error::write(path, error))?;
        Ok(Self { path, bytes, place, file })
    }

    /// Where it is.
    #[cfg(feature = "cli")]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Writes all of it, which takes as long as the disk does.
    pub fn fill(&mut self) -> Result<(), Error> {
        let written = self.file.write_all(self.bytes).and_then(|()| self.file.as_file().sync_all());
        written.map_err(|error| Error::write(self.path, error))
    }

    /// Moves it to its place.
    pub fn keep(self) -> Result<(), Error> {
        let Self { path, bytes, place, file } = self;
        let refuse = |error: std::io::Error| Error::write(path, error);
        let old = place.metadata().ok();
        if old.as_ref().is_some_and(has_other_names) {
            return std::fs::write(&place, bytes).map_err(refuse);
        }
        if let Some(old) = old {
            file.as_file().set_permissions(old.permissions()).map_err(refuse)?;
        }
        file.persist(&place).map_err(|error| refuse(error.error))?;
        Ok(())
    }
}

#[cfg(unix)]
fn temporary(place: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    // Less what the process's umask takes away.
    let all = std::fs::Permissions::from_mode(0o666);
    tempfile::Builder::new().prefix(".eplb-").permissions(all).tempfile_in(folder(place))
}

#[cfg(not(unix))]
fn temporary(place: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".eplb-").tempfile_in(folder(place))
}

#[cfg(unix)]
fn has_other_names(file: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.nlink() > 1
}

#[cfg(not(unix))]
fn has_other_names(_: &std::fs::Metadata) -> bool {
    false
}
