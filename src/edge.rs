//! The edge between what waits and callers that do not: inside, waiting is awaiting.

use crate::error::Error;

/// Waits for the result.
///
/// # Errors
/// Those of the work.
#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
pub fn now<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    pollster::block_on(work)
}

/// The result of work that need not wait: a page cannot, and without devices there is nothing to wait for.
///
/// # Errors
/// Those of the work, and [`Error::Device`] where it has to wait.
#[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
pub fn now<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    use std::task::{Context, Poll, Waker};
    match std::pin::pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Error::Device {
            device: "WebGPU".into(),
            reason: "a page cannot wait for it: call new_async and plan_async".into(),
        }),
    }
}
