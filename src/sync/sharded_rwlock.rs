//! A reader-writer lock for values that many threads read often: each reader writes to its thread's
//! shard alone.
//!
//! Guarantee: that of a reader-writer lock.
//!
//! How: each shard has a lock. A reader takes the lock of its shard, a writer takes all locks in
//! their order (docs/adr/0009-the-mmap-lock-has-lanes.md).
#![allow(unsafe_code)]

use super::{RwLock, Sharded};
use std::cell::UnsafeCell;

/// A value behind the lock.
pub(crate) struct ShardedRwLock<T> {
    locks: Sharded<RwLock<()>>,
    value: UnsafeCell<T>,
}

// SAFETY: as for a reader-writer lock: readers in several threads share the value, and a writer may
// send it away.
unsafe impl<T: Send + Sync> Sync for ShardedRwLock<T> {}

impl<T> ShardedRwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            locks: Sharded::new(),
            value: UnsafeCell::new(value),
        }
    }
    /// Shows the value to `f`, which must not use this lock again.
    #[inline]
    pub(crate) fn read<O>(&self, f: impl FnOnce(&T) -> O) -> O {
        let _held = self.locks.mine().read();
        // SAFETY: a writer holds the locks of all shards, so also the one that is held here.
        f(unsafe { &*self.value.get() })
    }
    /// Lends the value to `f`, which must not use this lock again.
    pub(crate) fn write<O>(&self, f: impl FnOnce(&mut T) -> O) -> O {
        let _held: Vec<_> = self.locks.iter().map(RwLock::write).collect();
        // SAFETY: a reader holds the lock of a shard, and another writer those of all; all are held
        // here.
        f(unsafe { &mut *self.value.get() })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::ShardedRwLock;

    #[test]
    fn readers_and_writers_exclude_each_other() {
        const ROUNDS: u32 = if cfg!(miri) { 6 } else { 2000 };
        let lock = ShardedRwLock::new((0, 0));
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..ROUNDS {
                        lock.write(|pair| {
                            pair.0 += 1;
                            pair.1 += 1;
                        });
                        lock.read(|pair| assert_eq!(pair.0, pair.1));
                    }
                });
            }
        });
        assert_eq!(lock.read(|pair| *pair), (3 * ROUNDS, 3 * ROUNDS));
    }
}
