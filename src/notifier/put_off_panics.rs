//! Panics in flushes of secondary TLBs, which go on when the window ends.

use crate::sync::{AtomicUsize, Despite, Mutex, Ordering};
use std::thread::{self, ThreadId};

/// Panics of flushes. A lock of the page table is held then, and the entries have changed already,
/// so each goes on when its thread ends a window.
#[derive(Default)]
pub(super) struct PutOffPanics {
    all: Mutex<Vec<(ThreadId, Despite)>>,
    /// The number of panics in the list, so that the end of a window takes no lock without any. It
    /// changes under the lock; a thread that put one off finds it counted.
    len: AtomicUsize,
}

impl PutOffPanics {
    pub(super) fn put_off(&self, panic: Despite) {
        let mut all = self.all.lock();
        all.push((thread::current().id(), panic));
        self.len.store(all.len(), Ordering::Relaxed);
    }
    /// Goes on with the first panic of this thread.
    #[inline]
    pub(super) fn resume(&self) {
        if self.len.load(Ordering::Relaxed) > 0 {
            self.resume_own();
        }
    }
    #[cold]
    fn resume_own(&self) {
        let me = thread::current().id();
        let mut all = self.all.lock();
        let first = all.iter().position(|(thread, _)| *thread == me);
        let panic = first.map(|nth| all.remove(nth).1);
        all.retain(|(thread, _)| *thread != me);
        self.len.store(all.len(), Ordering::Relaxed);
        drop(all);
        panic.into_iter().for_each(Despite::resume);
    }
}
