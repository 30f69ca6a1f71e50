//! Turns at something that one call has at a time, for calls that wait for a device while they have it.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Poll, Waker};

/// A value, and who waits for it. (A mutex alone would stop the page of a browser, where all calls are on one thread.)
#[derive(Default)]
pub struct Turns<T> {
    value: Mutex<T>,
    waiting: Waiting,
}

#[derive(Default)]
struct Waiting(Mutex<Vec<Waker>>);

/// The value, until it is dropped.
pub struct Turn<'a, T> {
    // In this order they go: whoever is woken finds the value free.
    value: MutexGuard<'a, T>,
    _wake: WakeNext<'a>,
}

struct WakeNext<'a>(&'a Waiting);

impl<T> Turns<T> {
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), waiting: Waiting::default() }
    }

    /// Waits for the value.
    pub async fn turn(&self) -> Turn<'_, T> {
        poll_fn(|context| {
            if let Some(turn) = self.try_turn() {
                return Poll::Ready(turn);
            }
            self.waiting.list().push(context.waker().clone());
            // Once more: it may have become free before the waker was there.
            self.try_turn().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn try_turn(&self) -> Option<Turn<'_, T>> {
        let value = match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(value)) => value.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Turn { value, _wake: WakeNext(&self.waiting) })
    }
}

impl Waiting {
    fn list(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WakeNext<'_> {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *self.0.list());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn one_has_it_at_a_time_and_all_come_to_it() {
        let turns = Turns::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let mut turn = pollster::block_on(turns.turn());
                        let before = *turn;
                        std::thread::yield_now();
                        *turn = before + 1;
                    }
                });
            }
        });
        assert_eq!(*pollster::block_on(turns.turn()), 800);
    }

    #[test]
    fn calls_of_one_thread_wait_without_stopping_it() {
        let turns = Turns::new(());
        let first = pollster::block_on(turns.turn());
        let mut second = pin!(turns.turn());
        let mut context = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(first);
        assert!(second.as_mut().poll(&mut context).is_ready());
    }
}
