//! How a driver with a reverse map of its own comes by a frame: locked, and known to be mapped.

use super::{Mm, patience::Patience, pte::RawPte};
use crate::{
    addr::Vpn,
    ctx::{Cx, Sleepable, rank},
    error::FaultError,
    frame::{Frame, FrameLock},
    notifier::Access,
};

impl Mm {
    /// Makes the page at byte `addr` present for the access, locks its frame, and runs `f` on it while it is certain
    /// that the frame is mapped there. In `f` the driver flags the frame ([`FrameLock::export`]), then enters it in its
    /// own reverse map: from then on it is told before the frame can be given up.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: what the access would have met. The zero page cannot be exported: it is asked for as if to be
    /// written, which gives the page a frame of its own.
    pub fn with_locked_frame<T>(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        addr: u64,
        access: Access,
        f: impl FnOnce(Cx<'_, rank::Folio, Sleepable>, &FrameLock<'_>) -> T,
    ) -> Result<T, FaultError> {
        let at = Vpn::containing(addr);
        let mem = self.machine().mem();
        let mut wanted = access;
        let mut patience = Patience::default();
        loop {
            if let Some(frame) = self.frame_at(cx, at, wanted) {
                let locked = mem.lock(cx, frame);
                // Reclaimed, copied or unmapped while this waited for the lock: look again.
                if self.frame_at(cx, at, wanted).map(|f| f.pfn()) == Some(locked.pfn()) {
                    return Ok(f(cx.descend(), &locked));
                }
                continue;
            }
            let zero = self.entry_at(cx, at).is_some_and(RawPte::is_zero_page);
            if zero {
                wanted = Access::Write;
            }
            patience.bears(self.fault_in(cx, at, addr, wanted))?;
        }
    }
    fn entry_at(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>, at: Vpn) -> Option<RawPte> {
        let pinned = cx.pin();
        let leaf = self.table.leaf(at, self.table.pin(pinned.guard()))?;
        Some(leaf.peek(at))
    }
    /// A reference on the frame that the entry maps with the right that is wanted.
    pub(super) fn frame_at(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
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
