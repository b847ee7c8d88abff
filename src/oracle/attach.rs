//! Putting an oracle on a machine, and on the external MMUs of its address spaces.

use super::{
    index::Index,
    liveness::Liveness,
    opened::OpenedWindows,
    state::{MIN_AUDIT_INTERVAL, Oracle, Watched, key},
    watchee::Watchee,
    watchers::{FrameWatcher, WindowWatcher},
};
use crate::{
    mm::{Machine, Mm},
    notifier::{ExternalMmu, SecondaryTlb},
    sync::{AtomicU64, Mutex, RwLock},
};
use std::sync::Arc;

impl Oracle {
    /// Creates an oracle for a machine. A machine has one oracle at a time: of several, the first
    /// that is created sees windows and frames, and the next one that is created when the first is
    /// gone.
    pub fn new(machine: &Arc<Machine>) -> Arc<Self> {
        let post = FrameWatcher::post_of(machine);
        let oracle = Arc::new(Self {
            machine: Arc::downgrade(machine),
            watched: RwLock::default(),
            findings: Mutex::default(),
            index: Index::default(),
            liveness: Liveness::default(),
            opened: OpenedWindows::default(),
            happened: AtomicU64::new(0),
            due: AtomicU64::new(MIN_AUDIT_INTERVAL),
            handed: AtomicU64::new(0),
            post: Arc::clone(&post),
        });
        post.take(&oracle);
        oracle
    }
    /// Watches an external MMU of an address space from now on, and no longer of another one: an
    /// MMU that moved to this address space has nothing to do with the windows of the former.
    pub fn watch(self: &Arc<Self>, mm: &Arc<Mm>, ext: Arc<dyn ExternalMmu>) {
        self.watch_either(mm, Watchee::Driver(ext));
    }
    /// Watches a device that walks the page table of an address space, from now on.
    ///
    /// Windows of an address space without drivers are not seen. So beside other threads an audit
    /// needs a driver there: it would take an entry that is about to be flushed for a stale one.
    pub fn watch_tlb(self: &Arc<Self>, mm: &Arc<Mm>, tlb: Arc<dyn SecondaryTlb>) {
        self.watch_either(mm, Watchee::Walker(tlb));
    }
    /// Watches an external MMU of either kind.
    pub(crate) fn watch_either(self: &Arc<Self>, mm: &Arc<Mm>, ext: Watchee) {
        let watcher = Arc::new(WindowWatcher::new(&self.post, mm));
        let reg = match &ext {
            Watchee::Driver(driver) => {
                mm.set_watch(watcher);
                mm.registration_of(driver)
            }
            Watchee::Walker(_) => {
                mm.set_walk_watch(watcher);
                None
            }
        };
        let watched = Watched {
            mm: Arc::downgrade(mm),
            ext: ext.downgrade(),
            reg,
        };
        // The oracle has not seen how the MMU got its present translations.
        let space = key(&watched.mm);
        self.each(&ext, &mut |t| self.index.note(space, t));
        let mut all = self.watched.write();
        all.retain(|w| w.ext.upgrade().is_some_and(|other| !other.is(&ext)));
        all.push(watched);
    }
}
