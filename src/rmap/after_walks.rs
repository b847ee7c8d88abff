//! VMAs that are dropped while this thread has a tree of a reverse map locked.
//!
//! A walk calls drivers, and the code of a driver may drop the last handle on an address space. Its
//! VMAs leave their trees by their `Drop`, which has no token and so cannot know that this thread
//! has a tree locked: it would wait for itself, or for a thread that waits likewise.
//!
//! Guarantee: they leave the trees when this thread has no tree locked any more. Until then their
//! records lead nowhere, as the address space is gone.

use crate::sync::thread_local;
use std::cell::{Cell, RefCell};

type Work = Box<dyn FnOnce()>;

// The macro of loom accepts no constants. The count needs no destructor, so it can also be read by
// the destructor of another thread-local value, which may hold the last handle.
#[allow(clippy::missing_const_for_thread_local, reason = "loom")]
mod local {
    use super::{Cell, RefCell, Work, thread_local};
    thread_local!(pub(super) static LOCKED: Cell<usize> = Cell::new(0));
    thread_local!(pub(super) static LATER: RefCell<Vec<Work>> = RefCell::new(Vec::new()));
}
use local::{LATER, LOCKED};

/// This thread has a tree locked, until this is dropped. Lives longer than the lock.
#[must_use]
pub(super) struct TreeLocked(());

impl TreeLocked {
    pub(super) fn note() -> Self {
        LOCKED.with(|count| count.set(count.get() + 1));
        Self(())
    }
}

impl Drop for TreeLocked {
    #[inline]
    fn drop(&mut self) {
        let left = LOCKED.with(|count| {
            count.set(count.get() - 1);
            count.get()
        });
        if left == 0 && LATER.with(|later| !later.borrow().is_empty()) {
            run_later();
        }
    }
}

#[cold]
fn run_later() {
    LATER
        .with(RefCell::take)
        .into_iter()
        .for_each(|work| work());
}

/// Returns true if this thread has a tree locked: it would wait for itself if it locked one.
pub(super) fn has_tree_locked() -> bool {
    LOCKED.with(Cell::get) > 0
}

/// Runs `work`, which locks trees: now, or when this thread has no tree locked any more.
pub(super) fn after_walks(work: impl FnOnce() + 'static) {
    match has_tree_locked() {
        false => work(),
        true => LATER.with(|later| later.borrow_mut().push(Box::new(work))),
    }
}
