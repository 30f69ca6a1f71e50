//! The progress of a command while it works, and how Ctrl-C ends it.
//!
//! A process runs one command, so there is one bar and one list of files that are kept.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::trace::Draft;
use crate::{Error, Planner};

/// Work that ends sooner shows nothing.
const QUIET: Duration = Duration::from_millis(500);

/// How often the time left is drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// Exit code after Ctrl-C, as shells have it: 128 and the number of the signal.
const INTERRUPTED: i32 = 130;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The files that this command has written; locked while one is moved to its place.
static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The temporary file that is being written.
static DRAFT: Mutex<Option<PathBuf>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ctrl-C ends the process from now on. A file that is not whole yet is removed, since writing a large one can take seconds. The
/// handler waits only while a whole file is moved to its place.
pub fn end_on_interrupt() {
    let end = || {
        let kept = lock(&KEPT);
        clear();
        let _ = writeln!(std::io::stderr(), "eplb: stopped: {}", abandon(&kept));
        leave();
    };
    // Where the system has no such handler, Ctrl-C ends the process as it ends any other.
    let _ = ctrlc::set_handler(end);
}

/// Removes what is not whole, and tells what is.
fn abandon(kept: &[String]) -> String {
    if let Some(draft) = lock(&DRAFT).as_ref() {
        // It is not there any more where it was moved.
        let _ = std::fs::remove_file(draft);
    }
    match kept {
        [] => "no file was written".to_string(),
        [file] => format!("{file} was written before, and is whole"),
        files => format!("{} were written before, and are whole", files.join(", ")),
    }
}

/// Ends the process, whatever its threads are at. `exit` alone would wait for a driver that one of them loads, which takes half
/// a second: a program in the place of this one does not.
fn leave() -> ! {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let mut other = std::process::Command::new("/bin/sh");
        // It comes back where there is no such program.
        let _ = other.args(["-c", &format!("exit {INTERRUPTED}")]).exec();
    }
    std::process::exit(INTERRUPTED)
}

/// Writes a file, whole whatever is pressed meanwhile.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut draft = begin(path, bytes)?;
    draft.fill()?;
    let mut kept = lock(&KEPT);
    draft.keep()?;
    kept.push(path.display().to_string());
    Ok(())
}

/// A file that Ctrl-C removes.
fn begin<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<Draft<'a>, Error> {
    // Locked before it is there, so that none is left that nobody knows.
    let mut known = lock(&DRAFT);
    let draft = Draft::new(path, bytes)?;
    *known = Some(draft.path().to_path_buf());
    Ok(draft)
}

/// The bar of some work, seen on a terminal once the work has taken half a second.
pub struct ShownProgress {
    bar: ProgressBar,
    /// Where the same steps are gone through several times: what for, and how many they are.
    rows: Vec<String>,
    steps: usize,
    unit: &'static str,
}

impl ShownProgress {
    /// Of this many steps, which are `unit`.
    pub fn new(steps: usize, unit: &'static str) -> Self {
        Self::show(Vec::new(), steps, unit, "{msg}{bar:30} {pos}/{len} {prefix}, {left}")
    }

    /// Of this many steps for every row; the text counts those of the row that is gone through.
    pub fn of_rows<R: Into<String>>(rows: Vec<R>, steps: usize, unit: &'static str) -> Self {
        let rows = rows.into_iter().map(Into::into).collect();
        Self::show(rows, steps, unit, "{bar:30} {msg}, {left}")
    }

    fn show(rows: Vec<String>, steps: usize, unit: &'static str, template: &str) -> Self {
        let all = (steps * rows.len().max(1)) as u64;
        let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::hidden()).with_prefix(unit);
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style.with_key("left", tell_time_left)),
            Err(_) => bar,
        };
        let mut shown = lock(&BAR);
        // The bar of an earlier piece of work of this command.
        let old = shown.take().inspect(ProgressBar::finish_and_clear);
        *shown = Some(bar.clone());
        match old {
            Some(old) if !old.is_hidden() => reveal(&bar),
            // The thread of the old one reveals this one.
            Some(_) => {}
            // Without a thread there is no bar, and the work goes on.
            None => drop(std::thread::Builder::new().spawn(|| {
                std::thread::sleep(QUIET);
                // Under the lock, so that a bar that is done with is not drawn again.
                if let Some(bar) = lock(&BAR).as_ref() {
                    reveal(bar);
                }
            })),
        }
        drop(shown);
        let progress = Self { bar, rows, steps, unit };
        progress.say_row("");
        progress
    }

    /// Of work whose steps are not known: what it is, and how long it takes so far.
    pub fn waiting(what: &'static str) -> Self {
        let progress = Self::show(Vec::new(), 1, "", "{msg}, {left}");
        progress.bar.set_message(what);
        progress
    }

    /// How many steps there are, where it was not known before.
    pub fn expect(&self, steps: usize) {
        self.bar.set_length(steps as u64);
    }

    /// Shows that this many steps of all are done.
    pub fn reach(&self, done: usize, steps: usize) {
        self.expect(steps);
        self.bar.set_position(done as u64);
    }

    /// Shows the layers that the planner plans, how far they are above the bound, and that there is work after them.
    pub fn watch(&self, planner: Planner) -> Planner {
        let bar = self.bar.clone();
        planner.with_progress(move |told| {
            bar.set_length(told.layers as u64);
            bar.set_position(told.layers_done as u64);
            // The layers that are done: a plan is made layer by layer, and nothing is known of the others.
            if let Some(gap) = told.mean_gap_ppm {
                bar.set_prefix(format!("layers{}", gap_text(f64::from(gap) / 1e6)));
            }
            bar.set_message(if told.layers_done == told.layers { "planned, judging: " } else { "" });
        })
    }

    /// One step is done: of a bench, which needs wgpu.
    #[cfg(feature = "gpu")]
    pub fn step(&self) {
        self.bar.inc(1);
        self.say_row("");
    }

    /// One step is done, with this mean gap of its plan, which is computed where it is seen.
    pub fn step_with(&self, gap: impl FnOnce() -> f64) {
        let gap = if self.bar.is_hidden() { String::new() } else { gap_text(gap()) };
        self.bar.inc(1);
        self.say_row(&gap);
    }

    /// Tells which row is gone through, and how far that is.
    fn say_row(&self, gap: &str) {
        let done = usize::try_from(self.bar.position()).unwrap_or(usize::MAX);
        let (row, step) = (done.checked_div(self.steps), done.checked_rem(self.steps));
        if let Some((name, step)) = row.and_then(|row| self.rows.get(row)).zip(step) {
            self.bar.set_message(match self.steps {
                1 => format!("{done}/{} {}{gap}, {name}", self.rows.len(), self.unit),
                steps => format!("{name}: {step}/{steps} {}{gap}", self.unit),
            });
        }
    }
}

/// Draws a bar from now on.
fn reveal(bar: &ProgressBar) {
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.enable_steady_tick(TICK);
}

fn gap_text(gap: f64) -> String {
    format!(" (mean gap {})", super::percent(gap))
}

/// Takes the bar away, before anything else is printed.
pub fn clear() {
    if let Some(bar) = lock(&BAR).take() {
        bar.finish_and_clear();
    }
}

/// The time left, once a step has told how long one takes.
fn tell_time_left(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    // Nothing is lost where it cannot be drawn.
    let _ = match state.pos() {
        0 => write!(text, "{} s so far", state.elapsed().as_secs()),
        _ => write!(text, "{} s left", state.eta().as_secs()),
    };
}

impl Drop for ShownProgress {
    fn drop(&mut self) {
        clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_being_written_is_removed_and_what_was_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let path = folder.path().join("a.json");
        let mut draft = begin(&path, b"1").unwrap();
        draft.fill().unwrap();
        assert_eq!(names(), 1);
        assert_eq!(abandon(&[]), "no file was written");
        assert_eq!(names(), 0);
        // Whoever still writes it comes too late.
        assert!(draft.keep().is_err());
        assert_eq!(names(), 0);
        write(&path, b"1").unwrap();
        let kept = lock(&KEPT).clone();
        assert_eq!(abandon(&kept), format!("{} was written before, and is whole", path.display()));
        assert_eq!(std::fs::read(&path).unwrap(), b"1");
        let two = ["a", "b"].map(String::from);
        assert_eq!(abandon(&two), "a, b were written before, and are whole");
    }
}
