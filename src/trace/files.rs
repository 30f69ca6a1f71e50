//! The bytes of files, which may be too many.

use std::io::Read;
use std::path::Path;

use crate::error::Error;

/// The most bytes a file may have.
pub const MAX_FILE: u64 = 1 << 32;

/// The bytes of a file, unless there are too many of them: some files have no end.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let refuse = |error: std::io::Error| Error::read(path, error);
    let file = std::fs::File::open(path).map_err(refuse)?;
    if file.metadata().is_ok_and(|file| file.len() > MAX_FILE) {
        return Err(refuse(too_long()));
    }
    read_all(file).map_err(refuse)
}

/// All bytes of something that may have no end.
pub fn read_all(source: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE { Err(too_long()) } else { Ok(bytes) }
}

fn too_long() -> std::io::Error {
    let reason = format!("the file has more than {MAX_FILE} bytes");
    std::io::Error::new(std::io::ErrorKind::FileTooLarge, reason)
}
