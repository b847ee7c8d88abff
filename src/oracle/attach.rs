//! Putting an oracle on a machine, and on the external MMUs of its address spaces.

use super::{
    index::Index,
    liveness::Liveness,
    opened::OpenedWindows,
    state::{MIN_AUDIT_INTERVAL, Oracle, Watched, key},
    watchers::{FrameWatcher, WindowWatcher},
};
use crate::{
    mm::{Machine, Mm},
    notifier::ExternalMmu,
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
        mm.set_watch(Arc::new(WindowWatcher::new(&self.post, mm)));
        let watched = Watched {
            mm: Arc::downgrade(mm),
            ext: Arc::downgrade(&ext),
            reg: mm.registration_of(&ext),
        };
        // The oracle has not seen how the MMU got its present translations.
        let space = key(&watched.mm);
        self.each(&*ext, &mut |t| self.index.note(space, t));
        let mut all = self.watched.write();
        let is_other = |w: &Watched| !std::ptr::addr_eq(w.ext.as_ptr(), Arc::as_ptr(&ext));
        all.retain(|w| w.ext.strong_count() > 0 && is_other(w));
        all.push(watched);
    }
}
