//! Waiting for a claim to go.
//!
//! The code that removes one pays a load of a cache line which no thread writes while none waits.

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering::SeqCst, sequential};

/// Counts the claims that went while a thread waited for that.
#[derive(Default)]
pub(super) struct Changes {
    waiting: AtomicUsize,
    count: Mutex<u64>,
    more: Condvar,
}

impl Changes {
    /// Announces a waiter and returns the count so far. The caller looks at the claims once
    /// more before it waits.
    ///
    /// The fence pairs with that of [`note`](Self::note): either the caller's second look sees that
    /// a claim is gone, or `note` sees the waiter.
    pub(super) fn expect(&self) -> u64 {
        self.waiting.fetch_add(1, SeqCst);
        sequential();
        *self.count.lock()
    }
    /// Waits until the count is beyond `seen`.
    pub(super) fn wait_beyond(&self, seen: u64) {
        let mut count = self.count.lock();
        while *count == seen {
            self.more.wait(&mut count);
        }
        drop(count);
        self.expect_no_more();
    }
    /// Withdraws the waiter that [`expect`](Self::expect) announced.
    pub(super) fn expect_no_more(&self) {
        self.waiting.fetch_sub(1, SeqCst);
    }
    /// Wakes the waiters, because a claim went.
    pub(super) fn note(&self) {
        sequential();
        if self.waiting.load(SeqCst) != 0 {
            *self.count.lock() += 1;
            self.more.notify_all();
        }
    }
}
