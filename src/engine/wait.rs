//! Where programs and pages of browsers differ: a program sleeps in the driver until work is done, a page is called back.

#[cfg(target_family = "wasm")]
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(target_family = "wasm")]
use std::task::Poll;
use std::task::Waker;

#[cfg(not(target_family = "wasm"))]
pub use native::{Submission, ended, keep_up, look, mapped, submit};
#[cfg(target_family = "wasm")]
pub use web::{Submission, ended, keep_up, look, mapped, submit};

/// The value that a callback of the device is to bring; clones share it.
pub struct Reply<T>(Arc<Mutex<Awaited<T>>>);

struct Awaited<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Reply<T> {
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Awaited { value: None, waker: None })))
    }

    /// For the callback: here it is.
    pub fn bring(&self, value: T) {
        let mut awaited = self.awaited();
        awaited.value = Some(value);
        if let Some(waker) = awaited.waker.take() {
            waker.wake();
        }
    }

    /// The value that was brought, if one was.
    #[cfg(not(target_family = "wasm"))]
    pub fn get(&self) -> Option<T> {
        self.awaited().value.clone()
    }

    /// Waits for it.
    #[cfg(target_family = "wasm")]
    pub async fn arrival(&self) -> T {
        poll_fn(|context| {
            let mut awaited = self.awaited();
            awaited.waker = Some(context.waker().clone());
            awaited.value.clone().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn awaited(&self) -> MutexGuard<'_, Awaited<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use super::Reply;
    use crate::engine::device::OpenDevice;

    pub type Submission = wgpu::SubmissionIndex;

    pub fn submit(queue: &wgpu::Queue, commands: wgpu::CommandBuffer) -> Submission {
        queue.submit([commands])
    }

    /// A program may submit all it has.
    pub async fn keep_up(_: &[Submission]) {}

    /// Has the device tell what it has to tell: of a loss before what follows from it.
    pub fn look(open: &OpenDevice) {
        let _ = open.device.poll(wgpu::PollType::Poll);
    }

    /// Waits for a submission, as long as the device may take over one.
    pub async fn ended(open: &OpenDevice, submission: &Submission) {
        let OpenDevice { device, fault, patience, .. } = open;
        let submission_index = Some(submission.clone());
        let waited = device.poll(wgpu::PollType::Wait { submission_index, timeout: Some(*patience) });
        // Drivers that do the work while it is submitted are never late.
        #[cfg(test)]
        let waited = if patience.is_zero() { Err(wgpu::PollError::Timeout) } else { waited };
        match waited {
            Ok(_) => {}
            Err(wgpu::PollError::Timeout) => {
                fault.lose(format!("it is hung: a submission did not end within {patience:?}"));
            }
            Err(error) => {
                // A lost device takes no submissions, so that one cannot be waited for. Its callback, which
                // knows the cause, comes with a look at it.
                look(open);
                if fault.get().is_none() {
                    fault.lose(error.to_string());
                }
            }
        }
    }

    /// The result of mapping a buffer, once all that was submitted has ended; none where no word came of it.
    pub async fn mapped<T: Clone>(_: &OpenDevice, reply: &Reply<T>) -> Option<T> {
        reply.get()
    }
}

#[cfg(target_family = "wasm")]
mod web {
    use super::Reply;
    use crate::engine::device::OpenDevice;

    pub type Submission = Reply<()>;

    /// Submissions that a page has under way: more could not be stopped.
    const UNDER_WAY: usize = 4;

    pub fn submit(queue: &wgpu::Queue, commands: wgpu::CommandBuffer) -> Submission {
        queue.submit([commands]);
        let done = Reply::new();
        let told = done.clone();
        queue.on_submitted_work_done(move || told.bring(()));
        done
    }

    /// Browsers call unasked.
    pub fn look(_: &OpenDevice) {}

    /// Waits until few submissions are under way.
    pub async fn keep_up(submitted: &[Submission]) {
        if let Some(at) = submitted.len().checked_sub(UNDER_WAY) {
            submitted[at].arrival().await;
        }
    }

    /// Waits for a submission; the browser ends one that takes too long, and with it the device.
    pub async fn ended(_: &OpenDevice, submission: &Submission) {
        submission.arrival().await;
    }

    /// The result of mapping a buffer.
    pub async fn mapped<T: Clone>(_: &OpenDevice, reply: &Reply<T>) -> Option<T> {
        Some(reply.arrival().await)
    }
}
