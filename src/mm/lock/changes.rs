//! Tells those who wait for a claim or a pin to go that one went. Costs a look at a line that nobody writes to while
//! nobody waits.

use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering::SeqCst, sequential};

/// How many went while somebody waited.
#[derive(Default)]
pub(super) struct Changes {
    waiting: AtomicUsize,
    count: Mutex<u64>,
    more: Condvar,
}

impl Changes {
    /// Somebody will wait for what goes from now on.
    pub(super) fn expect(&self) -> u64 {
        self.waiting.fetch_add(1, SeqCst);
        sequential();
        *self.count.lock()
    }
    /// Waits until one more went than when this was expected.
    pub(super) fn wait_beyond(&self, seen: u64) {
        let mut count = self.count.lock();
        while *count == seen {
            self.more.wait(&mut count);
        }
        drop(count);
        self.expect_no_more();
    }
    /// Instead of waiting.
    pub(super) fn expect_no_more(&self) {
        self.waiting.fetch_sub(1, SeqCst);
    }
    /// One went.
    pub(super) fn note(&self) {
        sequential();
        if self.waiting.load(SeqCst) != 0 {
            *self.count.lock() += 1;
            self.more.notify_all();
        }
    }
}
