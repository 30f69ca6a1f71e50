//! Pipelines that a recording needs and that are not there yet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use super::recording::{Kernel, OverrideValues};
use crate::error::Error;

/// A pipeline: a kernel and the values of its constants.
pub type Variant = (Kernel, OverrideValues);

/// Pending pipelines in the order of their use. Each is made once, by whichever thread comes to it first.
pub struct Pending<T>(Arc<Vec<(Variant, Made<T>)>>);

/// A pipeline that is being made.
type Made<T> = OnceLock<Result<T, Error>>;

/// A thread that makes pipelines; it ends with this.
pub struct Beside {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Clone + Send + Sync + 'static> Pending<T> {
    pub fn new(variants: impl IntoIterator<Item = Variant>) -> Self {
        Self(Arc::new(variants.into_iter().map(|variant| (variant, OnceLock::new())).collect()))
    }

    /// Has another thread make the pipelines from the last one on: of all, a driver may take longest over a late one, and
    /// compiles or runs the early ones meanwhile.
    pub fn make_beside(&self, make: impl Fn(&Variant) -> Result<T, Error> + Send + 'static) -> Beside {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, pending) = (is_over.clone(), self.0.clone());
        let make_all = move || {
            for (variant, made) in pending.iter().rev().take_while(|_| !over.load(Ordering::Relaxed)) {
                made.get_or_init(|| make(variant));
            }
        };
        // Where there is no thread to be had, as in a browser, `get` makes what it is asked for.
        let start = || std::thread::Builder::new().name("eplb-pipelines".into()).spawn(make_all).ok();
        let thread = if self.0.len() > 1 { start() } else { None };
        Beside { is_over, thread }
    }

    /// A pipeline, made now where it is not yet; waits where it is being made.
    pub fn get(
        &self,
        variant: &Variant,
        make: impl FnOnce(&Variant) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.0.iter().find(|(known, _)| known == variant) {
            Some((_, made)) => made.get_or_init(|| make(variant)).clone(),
            None => make(variant),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Where it panicked, `get` makes the pipeline again, and panics where it must.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn variants(n: u32) -> Vec<Variant> {
        let kernel = Kernel { stem: "s9_none", entry: "none" };
        (0..n).map(|i| (kernel, [i, 0, 0, 0, 0, 0, 0, 0])).collect()
    }

    #[test]
    fn each_is_made_once_whoever_comes_first() {
        for n in [0, 1, 2, 40] {
            let variants = variants(n);
            let (missing, log) = (Pending::new(variants.clone()), Arc::new(Mutex::new(Vec::new())));
            let kept = log.clone();
            let make = move |variant: &Variant| {
                kept.lock().unwrap().push(variant.1[0]);
                Ok(variant.1[0])
            };
            let beside = missing.make_beside(make.clone());
            let got: Vec<u32> = variants.iter().map(|variant| missing.get(variant, &make).unwrap()).collect();
            drop(beside);
            assert_eq!(got, (0..n).collect::<Vec<_>>());
            let mut log = log.lock().unwrap().clone();
            log.sort_unstable();
            assert_eq!(log, got);
        }
    }

    #[test]
    fn an_error_or_a_panic_is_that_of_its_pipeline_alone() {
        let variants = variants(4);
        let missing = Pending::new(variants.clone());
        let make = |variant: &Variant| match variant.1[0] {
            1 => Err(Error::invalid("pipeline", 1, "is refused")),
            n => Ok(n),
        };
        let _beside = missing.make_beside(move |variant| {
            assert_ne!(variant.1[0], 3);
            make(variant)
        });
        assert_eq!(missing.get(&variants[0], make), Ok(0));
        assert!(missing.get(&variants[1], make).is_err());
        assert_eq!(missing.get(&variants[2], make), Ok(2));
        assert_eq!(missing.get(&variants[3], make), Ok(3));
    }
}
