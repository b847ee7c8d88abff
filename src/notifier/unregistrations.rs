//! [`Unregistrations`]: the registrations of one address space that are ending, for which its end
//! waits.

use crate::sync::{Condvar, Mutex};
use std::sync::{Arc, Weak};

/// An address space, as far as notifiers know it: a value that lives.
pub(crate) type Space = dyn Send + Sync;

/// The registrations that are ending.
pub(super) struct Unregistrations {
    space: Weak<Space>,
    now: Mutex<usize>,
    none: Condvar,
}

/// One registration that is ending. Its address space lives on until it has ended: the last other
/// handle may be the driver's, which gives it up in a callback.
pub(super) struct Unregistration<'l> {
    all: &'l Unregistrations,
    _space: Option<Arc<Space>>,
}

impl Unregistrations {
    pub(super) fn new(space: Weak<Space>) -> Self {
        Self {
            space,
            now: Mutex::default(),
            none: Condvar::default(),
        }
    }
    pub(super) fn begin(&self) -> Unregistration<'_> {
        let _space = self.space.upgrade();
        *self.now.lock() += 1;
        Unregistration { all: self, _space }
    }
    /// Waits until none is under way.
    pub(super) fn wait(&self) {
        let mut now = self.now.lock();
        while *now > 0 {
            self.none.wait(&mut now);
        }
    }
}

impl Drop for Unregistration<'_> {
    fn drop(&mut self) {
        let mut now = self.all.now.lock();
        *now -= 1;
        drop(now);
        self.all.none.notify_all();
    }
}
