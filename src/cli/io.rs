//! Input and output of the command: files, standard input and output as `-`, and the terminal.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::progress;
use crate::error::Error;
use crate::maps::{MapFile, PlanFormat};
use crate::trace::{self, LoadFormat, LoadHistory};

/// Standard input or output, in the place of a file's name.
const STANDARD: &str = "-";

/// The fault of writing to standard output: told once the command is done.
static FAILED: OnceLock<std::io::Error> = OnceLock::new();

/// Whether a name stands for standard input or output.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

/// Loads from a file, a folder or standard input.
pub fn read_loads(path: &Path, format: Option<LoadFormat>) -> Result<LoadHistory, Error> {
    if !is_standard(path) {
        return LoadHistory::read_as(path, format);
    }
    let bytes = trace::read_all(std::io::stdin().lock()).map_err(|error| Error::read(path, error))?;
    LoadHistory::of_bytes(&bytes, format).map_err(|source| Error::parse(path, source))
}

/// A map from a file or standard input.
pub fn read_map(path: &Path, format: Option<PlanFormat>) -> Result<MapFile, Error> {
    if !is_standard(path) {
        return MapFile::read(path, format);
    }
    let bytes = trace::read_all(std::io::stdin().lock()).map_err(|error| Error::read(path, error))?;
    MapFile::of_bytes(&bytes, format).map_err(|source| Error::parse(path, source))
}

/// The files that a command reads.
pub struct Inputs(Vec<PathBuf>);

impl Inputs {
    /// The files that a command reads: `files`, and the file of speeds where there is one. Only one can be standard input.
    pub fn new<'a>(
        files: impl IntoIterator<Item = &'a PathBuf>,
        gpu_speeds: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let files = files.into_iter().cloned().chain(gpu_speeds);
        let files: Vec<PathBuf> = files.collect();
        match files.iter().filter(|path| is_standard(path)).count() {
            0 | 1 => Ok(Self(files)),
            _ => Err(Error::invalid("standard input -", "", "is named twice, and can be read once")),
        }
    }

    /// Fails before any work where its result could not be written after it, or would take the place of an input.
    pub fn check_writable(&self, path: &Path) -> Result<(), Error> {
        if is_standard(path) {
            return Ok(());
        }
        // A file that is not there is none of the inputs.
        if let Ok(place) = path.canonicalize()
            && self.0.iter().any(|input| is_part(input, &place))
        {
            return Err(Error::unwritable(path, "it is an input of this command; name another file"));
        }
        trace::check_writable(path)
    }
}

/// Whether a file is this input, or one of those of an input that is a folder.
fn is_part(input: &Path, place: &Path) -> bool {
    // Standard input may be the file as well.
    let input = if is_standard(input) { Path::new("/dev/stdin") } else { input };
    let is_found = |found: PathBuf| found == place || trace::folder_reads(&found, place);
    input.canonicalize().is_ok_and(is_found) || is_same_file(input, place)
}

/// Whether two names, hard links perhaps, are of one regular file.
#[cfg(unix)]
fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let file = |path: &Path| std::fs::metadata(path).ok().filter(|found| found.is_file());
    file(a).zip(file(b)).is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()))
}

#[cfg(not(unix))]
fn is_same_file(_: &Path, _: &Path) -> bool {
    false
}

/// Writes a file, whole or not at all, or to standard output.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    if is_standard(path) {
        to_standard_output(bytes);
        return Ok(());
    }
    progress::write(path, bytes)
}

/// Prints a line, or lines, to standard output; see [`failure`].
pub fn print(text: &str) {
    to_standard_output((plain(text) + "\n").as_bytes());
}

/// [`print`], with the bars of the text in colours on a terminal, unless `NO_COLOR` asks for none.
pub fn print_bars(text: &str) {
    let text = plain(text) + "\n";
    let no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let coloured = std::io::stdout().is_terminal() && !no && !dumb;
    to_standard_output(if coloured { colour(&text) } else { text }.as_bytes());
}

/// A bar of this many eighths, at least one.
pub fn bar(eighths: u32) -> char {
    char::from_u32(LEAST_BAR - 1 + eighths.clamp(1, 8)).unwrap_or('?')
}

const LEAST_BAR: u32 = 0x2581;

/// Bars in cyan, which is read on dark and light, and the highest in yellow: it is what a layer waits for.
fn colour(text: &str) -> String {
    let code = |c: char| match u32::from(c).checked_sub(LEAST_BAR) {
        Some(7) => "\u{1b}[33m",
        Some(0..7) => "\u{1b}[36m",
        _ => "\u{1b}[0m",
    };
    let (mut shown, mut now) = (String::with_capacity(text.len()), code(' '));
    for c in text.chars() {
        let next = code(c);
        if next != now {
            shown.push_str(next);
            now = next;
        }
        shown.push(c);
    }
    shown
}

fn to_standard_output(bytes: &[u8]) {
    progress::clear();
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        // The first one tells most.
        let _ = FAILED.set(error);
    }
}

/// Prints a line to standard error. Nothing can be done where that is closed.
pub fn complain(text: &str) {
    progress::clear();
    let _ = writeln!(std::io::stderr(), "eplb: {}", plain(text));
}

/// The fault of writing to standard output, if any. A closed pipe is none: its reader has read all it wants.
pub fn failure() -> Option<&'static std::io::Error> {
    FAILED.get().filter(|error| error.kind() != std::io::ErrorKind::BrokenPipe)
}

/// A text for the terminal: what would steer it, from the name or the content of a file, is shown as in JSON.
pub fn plain(text: &str) -> String {
    let steers = |c: char| {
        // Marks that change the direction of writing reorder what is read.
        let directs =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (c.is_control() && !matches!(c, '\n' | '\t')) || directs || matches!(c, '\u{2028}' | '\u{2029}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if steers(c) => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{bar, colour, plain};

    #[test]
    fn bars_alone_are_coloured() {
        let text = format!("a {}{}{} b", bar(0), bar(2), bar(9));
        assert_eq!(text, "a ▁▂█ b");
        assert_eq!(colour(&text), "a \u{1b}[36m▁▂\u{1b}[33m█\u{1b}[0m b");
    }

    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        assert_eq!(plain("a\u{1b}[2J\u{9b}1m\r\u{202e}b\nc"), "a\\u001b[2J\\u009b1m\\u000d\\u202eb\nc");
        assert_eq!(plain("Größe, 専門家"), "Größe, 専門家");
    }
}
