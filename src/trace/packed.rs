//! Packed files: gzip, and the archives of NumPy. What they unpack to has a limit, since some bytes unpack to a million
//! times as many.

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::path::Path;

use crate::error::ParseError;

/// The mark that some editors and spreadsheets put before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Unpacked bytes for each packed one.
const RATIO: u64 = 256;

/// Unpacked bytes that are always allowed.
const BASE: u64 = 1 << 20;

/// The most unpacked bytes.
const MOST: u64 = 1 << 30;

/// The bytes of a text without such a mark.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Whether a file's name says that torch wrote it.
pub fn is_torch_name(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ["pt", "pth"].iter().any(|torch| ending.eq_ignore_ascii_case(torch)))
}

/// Whether a file's name says that it is packed.
pub fn is_gzip_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"))
}

/// The bytes, unpacked where gzip packed them.
pub fn unpacked(bytes: &[u8]) -> Result<Cow<'_, [u8]>, ParseError> {
    if !bytes.starts_with(b"\x1f\x8b") {
        return Ok(Cow::Borrowed(bytes));
    }
    limited(flate2::read::MultiGzDecoder::new(bytes), bytes.len(), "gzip").map(Cow::Owned)
}

/// The array of an archive that holds the loads.
pub fn member(bytes: &[u8]) -> Result<Vec<u8>, ParseError> {
    let refuse = |error| ParseError::not("an npz file", error);
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(refuse)?;
    let names: Vec<String> = archive.file_names().filter_map(Result::ok).map(Into::into).collect();
    let arrays: Vec<&String> = names.iter().filter(|name| name.ends_with(".npy")).collect();
    let name = match arrays[..] {
        [only] => only,
        _ => arrays.iter().find(|name| name.as_str() == "logical_count.npy").ok_or_else(|| {
            let shown: Vec<_> = arrays.iter().take(8).map(|name| super::brief(name)).collect();
            let reason = "it could be several things: it has no array logical_count, and not one array alone";
            ParseError::content(format!("{reason}, but [{}]", shown.join(", ")))
        })?,
    };
    let member = archive.by_name(name).map_err(refuse)?;
    limited(member, bytes.len(), "npz")
}

fn limited(packed: impl Read, length: usize, what: &str) -> Result<Vec<u8>, ParseError> {
    let most = (length as u64).saturating_mul(RATIO).saturating_add(BASE).min(MOST);
    let mut bytes = Vec::new();
    let read = packed.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| ParseError::damaged_by(&format!("damaged {what}"), error))?;
    if bytes.len() as u64 > most {
        return Err(ParseError::content(format!("it unpacks to more than {most} bytes")));
    }
    Ok(bytes)
}
