//! The threads of a run: one pool for all of it, which no environment makes too large and no limit makes fail.

use std::thread::JoinHandle;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::Error;

/// The most threads of a run.
const MOST: usize = 1 << 10;

/// As that of a process's first thread, mostly.
const STACK: usize = 8 << 20;

/// Runs all of a command on this many threads. Without a number it is what `RAYON_NUM_THREADS` says, else one for each
/// core, and fewer where the system starts no more.
pub fn run<T: Send>(threads: Option<usize>, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let wanted = match threads {
        Some(threads) if (1..=MOST).contains(&threads) => threads,
        Some(threads) => {
            return Err(Error::invalid("threads", threads, format!("is not between 1 and {MOST}")));
        }
        None => from_environment(),
    };
    match build(wanted, threads.is_none())? {
        Some((pool, started)) => {
            let done = pool.install(work);
            drop(pool);
            // A thread that ends leaves the drivers that it used. Were it still at that while the process ends, some
            // drivers (Mesa's GLES) would abort.
            for thread in started {
                let _ = thread.join();
            }
            Ok(done)
        }
        // This thread is the whole pool.
        None => Ok(work()),
    }
}

type Pool = (ThreadPool, Vec<JoinHandle<()>>);

/// `None` where not one thread can be started.
fn build(wanted: usize, fewer: bool) -> Result<Option<Pool>, Error> {
    let mut threads = wanted;
    loop {
        let mut started = Vec::new();
        let start = |thread: rayon::ThreadBuilder| {
            let run = move || thread.run();
            started.push(std::thread::Builder::new().stack_size(STACK).spawn(run)?);
            Ok(())
        };
        match ThreadPoolBuilder::new().num_threads(threads).spawn_handler(start).build() {
            Ok(pool) => return Ok(Some((pool, started))),
            Err(error) if !fewer => {
                return Err(Error::invalid("threads", wanted, format!("cannot be started: {error}")));
            }
            Err(_) if threads > 1 => threads /= 2,
            Err(error) => {
                // A pool of the thread that is there already.
                let alone = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global();
                return match alone {
                    Ok(()) => Ok(None),
                    Err(_) => Err(Error::invalid("threads", 1, format!("cannot be started: {error}"))),
                };
            }
        }
    }
}

fn from_environment() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let said = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.parse::<usize>().ok());
    match said {
        // More than the cores help nobody.
        Some(threads @ 1..) => threads.min(cores.max(64)).min(MOST),
        _ => cores.min(MOST),
    }
}
