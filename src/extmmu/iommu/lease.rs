//! One lease: the right to access a part of a page by its host address, until a window revokes it.

use super::stale_use::{SliceUse, StaleUse};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    frame::{FrameFlags, PhysMem},
    notifier::{Access, Event, Translation},
    sync::{AtomicBool, AtomicPtr, AtomicUsize, OnceLock, Ordering::SeqCst},
};
use std::{sync::Arc, thread::ThreadId};

/// The facts about a lease.
pub(super) struct Facts {
    /// The I/O address of the first byte.
    pub(super) iova: u64,
    /// The number of bytes, all in one page.
    pub(super) len: usize,
    /// The offset of the first byte in the page.
    pub(super) offset: usize,
    pub(super) access: Access,
    pub(super) translation: Translation,
    /// The host address of the first byte, which stays the frame's as long as the machine lives.
    pub(super) address: AtomicPtr<u8>,
}

/// A lease, as the table of leases has it.
pub(super) struct Lease {
    pub(super) id: u64,
    pub(super) facts: Facts,
    pub(super) thread: ThreadId,
    /// Set while the iterator lives that gives out the slices.
    pub(super) iterated: AtomicBool,
    holders: AtomicUsize,
    revoked: OnceLock<Revoked>,
}

/// The end of a lease in a window.
struct Revoked {
    window: (VpnRange, Event),
    /// Keeps the frame from another owner while slices lead to it.
    _kept: Option<Kept>,
}

/// A frame that is held for slices that nothing else may follow any more.
struct Kept {
    mem: Arc<PhysMem>,
    pfn: Pfn,
    pinned: bool,
}

impl Kept {
    /// Holds a frame that the process still maps: its window is not open yet.
    fn hold(mem: &Arc<PhysMem>, pfn: Pfn) -> Self {
        let own = FrameFlags::ANON | FrameFlags::ANON_EXCLUSIVE;
        // A pin keeps a private page of one process that of one process, in a fork as well.
        let pinned = mem.flags(pfn).contains(own);
        let pfn = mem.hold(pfn, pinned).into_raw();
        let mem = Arc::clone(mem);
        Self { mem, pfn, pinned }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        drop(self.mem.adopt_held(self.pfn, self.pinned));
    }
}

impl Lease {
    pub(super) fn new(id: u64, facts: Facts) -> Self {
        Self {
            id,
            facts,
            thread: std::thread::current().id(),
            iterated: AtomicBool::new(true),
            holders: AtomicUsize::new(0),
            revoked: OnceLock::new(),
        }
    }
    pub(super) fn page(&self) -> Vpn {
        self.facts.translation.range().start()
    }
    pub(super) fn has(&self, iova: u64) -> bool {
        let offset = iova.checked_sub(self.facts.iova);
        offset.is_some_and(|offset| offset < self.facts.len as u64)
    }
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked.get().is_some()
    }
    /// Returns true if slices, or an iterator, have the lease. Under the lock of the table.
    pub(super) fn is_held(&self) -> bool {
        self.holders.load(SeqCst) > 0
    }
    /// Notes one more holder, under the lock of the table or by a holder.
    pub(super) fn add_holder(&self) {
        self.holders.fetch_add(1, SeqCst);
    }
    /// Notes that a holder is gone. Returns true if none is left.
    pub(super) fn remove_holder(&self) -> bool {
        self.holders.fetch_sub(1, SeqCst) == 1
    }
    /// Ends the lease in a window that is about to open. Under the lock of the table, so once.
    pub(super) fn revoke(&self, mem: &Arc<PhysMem>, window: (VpnRange, Event)) {
        let pfn = self.facts.translation.pfn();
        self.revoked.get_or_init(|| Revoked {
            window,
            _kept: (!pfn.is_zero()).then(|| Kept::hold(mem, pfn)),
        });
    }
    /// Returns the report of a use, if the lease was revoked or is for reading and the use stores.
    pub(super) fn misuse(&self, used: SliceUse) -> Option<StaleUse> {
        let window = self.revoked.get().map(|revoked| revoked.window);
        let stores = matches!(used, SliceUse::Store { .. });
        let wrong = window.is_some() || stores && self.facts.access == Access::Read;
        wrong.then_some(StaleUse {
            iova: self.facts.iova,
            len: self.facts.len,
            access: self.facts.access,
            used,
            window,
        })
    }
}
