//! Pipelines that a recording needs and that are not there yet.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::recording::{Kernel, OverrideValues};
use crate::error::Error;

/// A pipeline: a kernel and the values of its constants.
pub type Variant = (Kernel, OverrideValues);

/// Pending pipelines in the order of their use. Each is made once, by whichever thread comes to it first.
pub struct Pending<T>(Vec<(Variant, OnceLock<Result<T, Error>>)>);

impl<T: Clone + Send + Sync> Pending<T> {
    pub fn new(variants: impl IntoIterator<Item = Variant>) -> Self {
        Self(variants.into_iter().map(|variant| (variant, OnceLock::new())).collect())
    }

    /// Does `work`, while another thread makes the pipelines from the last one on: of all, a driver may take longest
    /// over a late one, and compiles or runs the early ones meanwhile.
    pub fn made_beside<R>(
        &self,
        make: impl Fn(&Variant) -> Result<T, Error> + Sync,
        work: impl FnOnce() -> R,
    ) -> R {
        let is_over = AtomicBool::new(false);
        let make_all = || {
            for (variant, made) in self.0.iter().rev().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                made.get_or_init(|| make(variant));
            }
        };
        std::thread::scope(|scope| {
            if self.0.len() > 1 {
                // Where there is no thread to be had, `work` makes what it needs.
                let _ =
                    std::thread::Builder::new().name("eplb-pipelines".into()).spawn_scoped(scope, make_all);
            }
            let result = work();
            is_over.store(true, Ordering::Relaxed);
            result
        })
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
            let (missing, log) = (Pending::new(variants.clone()), Mutex::new(Vec::new()));
            let make = |variant: &Variant| {
                log.lock().unwrap().push(variant.1[0]);
                Ok(variant.1[0])
            };
            let got: Vec<u32> = missing.made_beside(make, || {
                variants.iter().map(|variant| missing.get(variant, make).unwrap()).collect()
            });
            assert_eq!(got, (0..n).collect::<Vec<_>>());
            let mut log = log.into_inner().unwrap();
            log.sort_unstable();
            assert_eq!(log, got);
        }
    }

    #[test]
    fn an_error_is_that_of_its_pipeline_alone() {
        let variants = variants(3);
        let missing = Pending::new(variants.clone());
        let make = |variant: &Variant| match variant.1[0] {
            1 => Err(Error::invalid("pipeline", 1, "is refused")),
            n => Ok(n),
        };
        missing.made_beside(make, || {
            assert_eq!(missing.get(&variants[0], make), Ok(0));
            assert!(missing.get(&variants[1], make).is_err());
            assert_eq!(missing.get(&variants[2], make), Ok(2));
        });
    }
}
