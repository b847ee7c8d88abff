//! How a driver with a reverse map of its own comes by a frame: locked, and known to be mapped.

use crate::ctx::{CallCx, FolioCx};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::patience::Patience,
    space::Mm,
};
use crate::{
    addr::{Vpn, VpnRange},
    error::FaultError,
    frame::{Frame, FrameFlags, FrameLock},
    notifier::Access,
};

/// What an entry is to who wants to keep its frame.
enum Kept<'m> {
    /// The frame that the page will have.
    Frame(Frame<'m>),
    /// Nothing: a fault is due.
    Fault,
    /// A frame that the page is going to lose: the zero page, or one that a write would copy.
    Passing,
}

impl Mm {
    /// Makes the page at byte `addr` present for the access, locks its frame, and runs `f` on it while it is certain
    /// that the frame is mapped there. In `f` the driver flags the frame ([`FrameLock::export`]), then enters it in its
    /// own reverse map: from then on it is told before the frame can be given up, whatever takes its last mapping.
    ///
    /// The frame is the page's own: private memory that shows the zero page, a file's page, or one that other processes have
    /// as well, gets a copy first, with the rights of its mapping, as for a long-term pin (`FAULT_FLAG_UNSHARE`). So what
    /// is written to the page later is written to this frame, or the driver is told.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: what the access would have met.
    pub fn with_locked_frame<T>(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        access: Access,
        f: impl FnOnce(FolioCx<'_>, &FrameLock<'_>) -> T,
    ) -> Result<T, FaultError> {
        let at = Vpn::containing(addr);
        let mem = self.machine().mem();
        let mut patience = Patience::default();
        loop {
            match self.kept_at(cx, at, access) {
                Kept::Frame(frame) => {
                    let locked = mem.lock(cx, frame);
                    // Reclaimed, copied or unmapped while this waited for the lock: look again.
                    if self.is_kept(cx, at, access, &locked) {
                        let out = f(cx.descend(), &locked);
                        self.tell_if_lost(cx, at, access, &locked);
                        return Ok(out);
                    }
                }
                Kept::Fault => patience.bears(self.fault_in(cx, at, addr, access))?,
                Kept::Passing => patience.bears(self.unshare(cx, at, addr))?,
            }
        }
    }
    fn is_kept(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        access: Access,
        locked: &FrameLock<'_>,
    ) -> bool {
        matches!(self.kept_at(cx, at, access), Kept::Frame(frame) if frame.pfn() == locked.pfn())
    }
    /// Who took the mapping, or a right, before the frame was flagged, did not see that it is exported.
    fn tell_if_lost(&self, cx: &mut CallCx<'_>, at: Vpn, access: Access, locked: &FrameLock<'_>) {
        let mem = self.machine().mem();
        let exported = mem.flags(locked.pfn()).contains(FrameFlags::EXPORTED);
        if exported && !self.is_kept(cx, at, access, locked) {
            let exports = &self.machine().registry().exports;
            exports.notify(mem, &mut cx.descend(), locked.pfn());
        }
    }
    fn kept_at(&self, cx: &mut CallCx<'_>, at: Vpn, access: Access) -> Kept<'_> {
        let Some(frame) = self.frame_at(cx, at, access) else {
            let zero = access == Access::Read
                && self.entry_at(cx, at).is_some_and(|pte| pte.is_zero_page());
            return if zero { Kept::Passing } else { Kept::Fault };
        };
        let flags = self.machine().mem().flags(frame.pfn());
        let passing = match (access, flags.contains(FrameFlags::ANON)) {
            (Access::Write, _) => false,
            (Access::Read, true) => !flags.contains(FrameFlags::ANON_EXCLUSIVE),
            (Access::Read, false) => self.is_private(cx, at),
        };
        if passing {
            Kept::Passing
        } else {
            Kept::Frame(frame)
        }
    }
    /// Whether a write to the page would copy what is an object's.
    fn is_private(&self, cx: &mut CallCx<'_>, at: Vpn) -> bool {
        let g = self.lock_shared_over(cx, Some(VpnRange::single(at)));
        let flags = g.vma_at(at).map(|vma| vma.flags);
        flags.is_some_and(|flags| !flags.contains(VmFlags::SHARED))
    }
    fn entry_at(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<RawPte> {
        let pinned = cx.pin();
        let leaf = self.table.leaf(at, self.table.pin(pinned.guard()))?;
        Some(leaf.peek(at))
    }
    /// A reference on the frame that the entry maps with the right that is wanted.
    pub(in crate::mm) fn frame_at(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        access: Access,
    ) -> Option<Frame<'_>> {
        let mem = self.machine().mem();
        let found = self.with_leaf_of(cx, at, |leaf| {
            let pte = leaf.get(at);
            let allowed = pte.may_read() && (access == Access::Read || pte.may_write());
            pte.counted().filter(|_| allowed).map(|pfn| mem.get(pfn))
        });
        found?
    }
}
