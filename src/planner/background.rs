//! Work on a thread of its own, for a caller who must not be blocked.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Poll, Waker};

/// Does `work` on a thread of its own, from the first poll on. Dropping the future lets it end unseen.
///
/// # Errors
/// Where no thread can be started or it dies, the reason.
pub async fn done<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (send, receive) = mpsc::channel();
    let waker = Arc::new(Mutex::new(None::<Waker>));
    let wake = WakeAtEnd(waker.clone());
    std::thread::Builder::new()
        .name("eplb-plan".into())
        .spawn(move || {
            // Locals go in reverse order: the sender is gone by the time the waiter is woken, panic or not.
            let _wake = wake;
            let send = send;
            // The receiver is gone where the future was dropped.
            let _ = send.send(work());
        })
        .map_err(|error| format!("no thread for the plan: {error}"))?;
    poll_fn(|context| {
        // The waker is set before the look, so that an end between the two is not missed.
        *waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        match receive.try_recv() {
            Ok(result) => Poll::Ready(Ok(result)),
            Err(mpsc::TryRecvError::Empty) => Poll::Pending,
            Err(mpsc::TryRecvError::Disconnected) => Poll::Ready(Err("the thread of the plan died".into())),
        }
    })
    .await
}

/// Wakes whoever waits for a thread when the thread ends, however it ends.
struct WakeAtEnd(Arc<Mutex<Option<Waker>>>);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        if let Some(waker) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}
